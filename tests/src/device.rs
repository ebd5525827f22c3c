//! A device as a thread: publishes stamped messages with a window, reconnects when the node goes, and keeps its book.
//!
//! In: a plan, and the node's address, which may be empty for a while. Out: a [`DeviceBook`], readable at any time.
//! The thread owns the MQTT session; it ends when it was told to stop and everything it sent is settled, or when it is abandoned.
//! A resend counts once the node has answered CONNECT, whether or not it could be written: `sends` is never too low, and an attempt
//! that found nobody excuses nothing.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::ledger::DeviceBook;
use crate::mqtt::wire::property;
use crate::mqtt::{Client, ConnectOptions, Event, Version};
use crate::stamp::Stamp;
use crate::wait;

/// Longest wait for an event before the thread looks at its orders again.
const TURN: Duration = Duration::from_millis(10);

const RUN: u8 = 0;
const SETTLE: u8 = 1;
const ABANDON: u8 = 2;

/// What a device does.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// Client ID and name in the stamps.
    pub name: String,
    /// Protocol version.
    pub version: Version,
    /// QoS of its publishes.
    pub qos: u8,
    /// Publishes in flight at most.
    pub window: usize,
    /// Payload size in bytes.
    pub size: usize,
    /// Time between two publishes; zero publishes as fast as the window allows.
    pub interval: Duration,
    /// Publishes at most; `usize::MAX` until told to stop.
    pub count: usize,
    /// Name of a user property that gets the message's number (5.0 only).
    pub id_property: Option<&'static str>,
}

impl DevicePlan {
    /// A brisk QoS 1 or 2 device that publishes until it is told to stop.
    #[must_use]
    pub fn steady(name: &str, version: Version, qos: u8) -> Self {
        Self {
            name: name.to_owned(),
            version,
            qos,
            window: 32,
            size: 120,
            interval: Duration::from_millis(3),
            count: usize::MAX,
            id_property: None,
        }
    }

    /// The same with a fixed number of messages, as fast as the window allows.
    #[must_use]
    pub fn burst(name: &str, version: Version, qos: u8, count: usize) -> Self {
        Self {
            interval: Duration::ZERO,
            count,
            ..Self::steady(name, version, qos)
        }
    }

    /// Topic of its messages.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("site/{}/state", self.name)
    }
}

/// A running device.
#[derive(Debug)]
pub struct Device {
    orders: Arc<AtomicU8>,
    book: Arc<Mutex<DeviceBook>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    /// Starts the thread.
    #[must_use]
    pub fn start(plan: DevicePlan, node: Address) -> Self {
        let orders = Arc::new(AtomicU8::new(RUN));
        let book = DeviceBook {
            device: plan.name.clone(),
            qos: plan.qos,
            ..DeviceBook::default()
        };
        let book = Arc::new(Mutex::new(book));
        let worker = Worker {
            client: Client::new(ConnectOptions::persistent(plan.version, &plan.name)),
            plan,
            node,
            orders: Arc::clone(&orders),
            book: Arc::clone(&book),
            due: Instant::now(),
        };
        let thread = thread::spawn(move || worker.run());
        Self {
            orders,
            book,
            thread: Some(thread),
        }
    }

    /// The book as it is now.
    #[must_use]
    pub fn book(&self) -> DeviceBook {
        lock(&self.book).clone()
    }

    /// Messages acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> usize {
        lock(&self.book).acked_count()
    }

    /// Waits until `count` messages are acknowledged.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_acked(&self, count: usize) {
        wait::until_true(&format!("{count} messages acknowledged"), wait::EVENTUALLY, || {
            self.acked() >= count
        });
    }

    /// Stops publishing, waits until everything sent is settled, and returns the book.
    ///
    /// # Panics
    /// When it does not settle in time.
    #[must_use]
    pub fn settle(mut self) -> DeviceBook {
        self.orders.store(SETTLE, Ordering::SeqCst);
        let thread = self.thread.take().expect("a device is settled once");
        wait::until_true("a device's publishes are all acknowledged", wait::EVENTUALLY, || {
            thread.is_finished()
        });
        thread.join().expect("the device thread does not panic");
        self.book()
    }

    /// Waits for a device with a fixed number of messages to have published and settled them all.
    ///
    /// # Panics
    /// When it does not settle in time.
    #[must_use]
    pub fn finish(mut self) -> DeviceBook {
        let thread = self.thread.take().expect("a device is finished once");
        wait::until_true("a device has published all", wait::EVENTUALLY, || thread.is_finished());
        thread.join().expect("the device thread does not panic");
        self.book()
    }

    /// Stops at once, whatever is open, and returns the book.
    #[must_use]
    pub fn abandon(mut self) -> DeviceBook {
        self.end();
        self.book()
    }

    fn end(&mut self) {
        self.orders.store(ABANDON, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(book: &Mutex<DeviceBook>) -> MutexGuard<'_, DeviceBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    client: Client,
    plan: DevicePlan,
    node: Address,
    orders: Arc<AtomicU8>,
    book: Arc<Mutex<DeviceBook>>,
    /// When the next publish is due.
    due: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            let orders = self.orders.load(Ordering::SeqCst);
            let all_sent = lock(&self.book).sends.len() >= self.plan.count;
            let settled = (orders == SETTLE || all_sent) && self.client.in_flight() == 0;
            if orders == ABANDON || settled {
                break;
            }
            if !self.client.is_connected() && !self.connect() {
                wait::pause();
                continue;
            }
            if orders == RUN {
                self.publish();
            }
            let wait = self
                .due
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), TURN);
            for event in self.client.poll(wait) {
                self.enter(&event);
            }
        }
        self.client.disconnect();
    }

    fn connect(&mut self) -> bool {
        let Some(at) = self.node.get() else {
            return false;
        };
        let again: Vec<usize> = self.client.unacked_tags().collect();
        let Ok(answer) = self.client.connect(at) else {
            return false;
        };
        if answer.reason != 0 {
            return false;
        }
        let mut book = lock(&self.book);
        for tag in again {
            book.sends[tag] += 1;
        }
        book.connects += 1;
        book.sessions_lost += u32::from(book.connects > 1 && !answer.session_present);
        true
    }

    fn publish(&mut self) {
        while self.client.is_connected()
            && self.client.in_flight() < self.plan.window
            && self.client.has_room()
            && Instant::now() >= self.due
        {
            let seq = {
                let mut book = lock(&self.book);
                if book.sends.len() >= self.plan.count {
                    return;
                }
                book.sends.push(1);
                book.acked.push(false);
                book.sends.len() - 1
            };
            let stamp = Stamp {
                device: self.plan.name.clone(),
                seq,
            };
            let id = self.plan.id_property.map(|name| property::user(name, seq.to_string()));
            let how = (self.plan.qos, id.unwrap_or_default());
            self.client
                .publish_with(&self.plan.topic(), stamp.payload(self.plan.size), how, seq);
            self.due = (self.due + self.plan.interval).max(Instant::now() - TURN);
        }
    }

    fn enter(&mut self, event: &Event) {
        match event {
            Event::Acked { tag } => lock(&self.book).acked[*tag] = true,
            Event::Rejected { tag, reason } => {
                lock(&self.book).rejected.insert(*tag, *reason);
            }
            Event::Message(_) | Event::Lost { .. } => {}
        }
    }
}
