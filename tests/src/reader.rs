//! A subscriber as a thread: keeps a persistent session, reconnects when the node goes, and enters what it receives in its book.
//!
//! In: a plan and the node's address. Out: a [`ReaderBook`]. [`Reader::start`] returns after SUBACK, so that nothing published
//! afterwards may be missed. The thread owns the MQTT session, QoS 2 state included, as a correct consumer does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::address::Address;
use crate::ledger::{DeviceBook, ReaderBook};
use crate::mqtt::{Client, ConnectOptions, Event, Version};
use crate::wait;

/// Longest wait for an event before the thread looks at its orders again.
const TURN: Duration = Duration::from_millis(20);

/// What a reader subscribes to.
#[derive(Debug, Clone)]
pub struct ReaderPlan {
    /// Client ID.
    pub name: String,
    /// Protocol version.
    pub version: Version,
    /// Maximum QoS.
    pub qos: u8,
    /// Topic filter.
    pub filter: String,
}

impl ReaderPlan {
    /// A reader of everything that devices of these tests publish.
    #[must_use]
    pub fn all(name: &str, version: Version, qos: u8) -> Self {
        Self {
            name: name.to_owned(),
            version,
            qos,
            filter: "site/#".to_owned(),
        }
    }
}

/// A running reader.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<ReaderBook>>,
    thread: Option<JoinHandle<Client>>,
    node: Address,
}

impl Reader {
    /// Connects, subscribes and starts the thread.
    ///
    /// # Panics
    /// When the node does not answer or refuses the subscription.
    #[must_use]
    pub fn start(plan: &ReaderPlan, node: &Address) -> Self {
        let at = node.get().expect("the node is up when a reader starts");
        let mut client = Client::connected(at, ConnectOptions::persistent(plan.version, &plan.name));
        let codes = client.subscribe(&[(plan.filter.as_str(), plan.qos)]);
        assert_eq!(codes, [plan.qos], "the subscription was granted as asked");
        let mut book = ReaderBook::default();
        book.connects = 1;
        Self::go(client, Arc::new(Mutex::new(book)), node.clone())
    }

    fn go(client: Client, book: Arc<Mutex<ReaderBook>>, node: Address) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            client,
            node: node.clone(),
            stop: Arc::clone(&stop),
            book: Arc::clone(&book),
        };
        let thread = thread::spawn(move || worker.run());
        Self {
            stop,
            book,
            thread: Some(thread),
            node,
        }
    }

    /// The book as it is now.
    #[must_use]
    pub fn book(&self) -> ReaderBook {
        lock(&self.book).clone()
    }

    /// Messages received so far.
    #[must_use]
    pub fn received(&self) -> usize {
        lock(&self.book).received.len()
    }

    /// Waits until all that the devices had acknowledged has arrived.
    ///
    /// # Panics
    /// When that takes too long, with what is missing.
    pub fn await_all_acked(&self, devices: &[DeviceBook]) {
        let deadline = std::time::Instant::now() + wait::EVENTUALLY;
        let acked: usize = devices.iter().map(DeviceBook::acked_count).sum();
        // The count first: the full comparison is long, and the thread needs the book meanwhile.
        while lock(&self.book).distinct() < acked
            || !devices.iter().all(|device| lock(&self.book).has_all_acked(device))
        {
            if std::time::Instant::now() >= deadline {
                let verdict = crate::ledger::judge(devices, &self.book());
                panic!("not all that was acknowledged arrived: {verdict:?}");
            }
            wait::pause();
        }
    }

    /// Goes away: the connection ends, the session stays. [`Away::come_back`] goes on with the same session and book.
    ///
    /// # Panics
    /// When the thread has panicked.
    #[must_use]
    pub fn leave(mut self) -> Away {
        Away {
            client: self.end().expect("a reader leaves once"),
            book: Arc::clone(&self.book),
            node: self.node.clone(),
        }
    }

    fn end(&mut self) -> Option<Client> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread
            .take()
            .map(|thread| thread.join().expect("the reader thread does not panic"))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A reader that is not connected and whose session lives on in the node.
#[derive(Debug)]
pub struct Away {
    client: Client,
    book: Arc<Mutex<ReaderBook>>,
    node: Address,
}

impl Away {
    /// Connects again with the same session; the node must know it.
    #[must_use]
    pub fn come_back(self) -> Reader {
        Reader::go(self.client, self.book, self.node)
    }
}

fn lock(book: &Mutex<ReaderBook>) -> MutexGuard<'_, ReaderBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    client: Client,
    node: Address,
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<ReaderBook>>,
}

impl Worker {
    fn run(mut self) -> Client {
        while !self.stop.load(Ordering::SeqCst) {
            if !self.client.is_connected() && !self.connect() {
                wait::pause();
                continue;
            }
            let events = self.client.poll(TURN);
            let mut book = lock(&self.book);
            for event in events {
                if let Event::Message(message) = event {
                    book.enter(&message.payload);
                }
            }
        }
        self.client.disconnect();
        self.client
    }

    fn connect(&mut self) -> bool {
        let Some(at) = self.node.get() else {
            return false;
        };
        let Ok(answer) = self.client.connect(at) else {
            return false;
        };
        let mut book = lock(&self.book);
        book.connects += u32::from(answer.reason == 0);
        book.sessions_lost += u32::from(answer.reason == 0 && !answer.session_present);
        answer.reason == 0
    }
}
