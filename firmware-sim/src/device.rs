//! One simulated device: a sensor, an MQTT client, and the line of its book in the ledger.
//!
//! In: a [`DeviceSpec`] and the phase of the run. Out: publishes to a broker, entries in the ledger.
//! Two tasks: one publishes on time and never waits for the network, the other does nothing but poll the client.
//! They share a `Shared` behind a std mutex that is never held over an await.
//!
//! The device keeps its messages until they are acknowledged, however often its broker dies. It does not check what
//! comes out at the other end: that is the consumer's part.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use crate::client::{Client, ClientOptions, Event, Publisher, Stopped};
use crate::ledger::{DeviceKey, Ledger, Resend};
use crate::model::{Content, Model};
use crate::outstanding::{Outstanding, Sent};
use crate::payload::{Stamp, now_us};
use crate::qos::QosChoice;
use crate::raw;

/// Connected, with something open, and no ack for this long: the client is made anew.
const WATCHDOG_AFTER: Duration = Duration::from_secs(15);
/// Bounds of the wait between two attempts to connect.
const RECONNECT_MS: std::ops::Range<u64> = 50..400;
/// The DISCONNECT at the end may take this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// The ledger as the tasks share it: each entry is a few instructions, so one lock serves some 100,000 messages/s.
pub type SharedLedger = Arc<Mutex<Ledger>>;

/// Locks a ledger. A panic elsewhere leaves whole entries, so the poison is ignored.
pub fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the whole fleet is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Measure and publish.
    Publish,
    /// Publish nothing new, wait for what is open.
    Drain,
    /// Go, whatever is open.
    Stop,
}

/// One device of a fleet.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    /// Connection; the client ID is the name of the device.
    pub client: ClientOptions,
    /// Position in the fleet: chooses the sensor.
    pub index: usize,
    /// Messages per second.
    pub rate: f64,
    /// Seed of the fleet.
    pub seed: u64,
    /// Qualities of service.
    pub qos: QosChoice,
    /// Topics are `prefix/name/sensor`.
    pub topic_prefix: String,
    /// The device drops its connection about this often.
    pub reconnect_every: Option<Duration>,
}

/// What both tasks of a device touch.
struct Shared {
    outstanding: Outstanding,
    publisher: Publisher,
    next_seq: u64,
}

struct Device {
    spec: DeviceSpec,
    key: DeviceKey,
    ledger: SharedLedger,
    shared: Mutex<Shared>,
    /// Something was acknowledged: there may be room in the window.
    progress: Notify,
}

/// Runs a device until the phase is `Stop`, or `Drain` and all is acknowledged.
pub async fn run(spec: DeviceSpec, ledger: SharedLedger, phase: watch::Receiver<Phase>) {
    let key = lock(&ledger).device(&spec.client.client_id);
    let (publisher, client) = Client::new(&spec.client);
    let shared = Shared {
        outstanding: Outstanding::new(spec.client.window),
        publisher,
        next_seq: 1,
    };
    let device = Arc::new(Device {
        spec,
        key,
        ledger,
        shared: Mutex::new(shared),
        progress: Notify::new(),
    });
    let publishing = tokio::spawn(publish(Arc::clone(&device), phase.clone()));
    poll(&device, client, phase).await;
    publishing.abort();
    if let Err(error) = publishing.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// The publishing task: waits for the tick and for room in the window, nothing else.
async fn publish(device: Arc<Device>, mut phase: watch::Receiver<Phase>) {
    let spec = &device.spec;
    let mut model = Model::of_fleet(spec.index, spec.seed);
    let mut random = StdRng::seed_from_u64(spec.seed.wrapping_add(spec.index as u64));
    let period = Duration::from_secs_f64(1.0 / spec.rate.clamp(0.001, 100_000.0));
    let first = Instant::now() + period.mul_f64(random.random_range(0.0..1.0));
    let mut ticks = interval_at(first, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = phase.changed() => if changed.is_err() { return },
        }
        if *phase.borrow() != Phase::Publish {
            return;
        }
        loop {
            let room = device.progress.notified();
            if device.has_room() {
                break;
            }
            room.await;
        }
        if device.publish_next(&mut model).is_err() {
            return;
        }
    }
}

/// The polling task.
async fn poll(device: &Device, mut client: Client, mut phase: watch::Receiver<Phase>) {
    let mut random = StdRng::seed_from_u64(device.spec.seed ^ 0x5eed ^ device.spec.index as u64);
    let mut watchdog = Watchdog::new();
    let mut drop_at = device.next_drop(&mut random);
    loop {
        if *phase.borrow() == Phase::Stop || (*phase.borrow() == Phase::Drain && device.is_done()) {
            break;
        }
        tokio::select! {
            event = client.poll() => match event {
                Ok(event) => device.handle_event(&mut client, event, &mut watchdog),
                Err(error) => {
                    tracing::debug!(device = %device.spec.client.client_id, error, "connection ended");
                    device.interrupt(&mut client, &mut watchdog);
                    sleep(Duration::from_millis(random.random_range(RECONNECT_MS))).await;
                }
            },
            () = sleep_until(drop_at) => {
                device.interrupt(&mut client, &mut watchdog);
                drop_at = device.next_drop(&mut random);
            }
            () = sleep_until(watchdog.deadline()) => {
                if watchdog.is_stalled() && !device.is_done() {
                    tracing::warn!(device = %device.spec.client.client_id, "no progress: the client is made anew");
                    client = device.renew(client, &mut watchdog).await;
                }
                watchdog.handle_progress();
            }
            changed = phase.changed() => if changed.is_err() { break },
        }
    }
    farewell(device, client).await;
}

/// Says DISCONNECT, so that no will and no error line follows.
async fn farewell(device: &Device, mut client: Client) {
    if device.shared().publisher.try_disconnect().is_err() {
        return;
    }
    let closed = timeout(FAREWELL, async { while client.poll().await.is_ok() {} }).await;
    if closed.is_err() {
        tracing::debug!(device = %device.spec.client.client_id, "the broker did not close after DISCONNECT");
    }
}

impl Device {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self) -> bool {
        let shared = self.shared();
        shared.outstanding.has_room(shared.next_seq)
    }

    fn is_done(&self) -> bool {
        self.shared().outstanding.is_empty()
    }

    fn next_drop(&self, random: &mut StdRng) -> Instant {
        let far = Duration::from_secs(365 * 24 * 3600);
        Instant::now()
            + self
                .spec
                .reconnect_every
                .map_or(far, |every| every.mul_f64(random.random_range(0.5..1.5)))
    }

    /// Makes a reading and hands it to the client; queue and table under one lock, so that their orders are the same.
    fn publish_next(&self, model: &mut Model) -> Result<(), Stopped> {
        let reading = model.next_reading();
        let qos = self.spec.qos.of(reading.kind);
        let name = &self.spec.client.client_id;
        let topic = format!("{}/{name}/{}", self.spec.topic_prefix, reading.level);
        let mut shared = self.shared();
        let seq = shared.next_seq;
        let stamp = Stamp {
            device: Cow::Borrowed(name),
            seq,
            time_us: now_us(),
        };
        let payload = match &reading.content {
            Content::Json(fields) => stamp.to_json(fields),
            Content::Binary(body) => stamp.to_binary(body),
        };
        // Entered before it can be received, so that no reader meets a message that the ledger does not know.
        lock(&self.ledger).handle_published(self.key, seq, qos);
        shared.outstanding.handle_queued(seq, qos);
        shared.next_seq += 1;
        shared.publisher.try_publish(&topic, qos, payload)
    }

    fn handle_event(&self, client: &mut Client, event: Event, watchdog: &mut Watchdog) {
        if let Event::Connected { session_present } = event {
            let mut shared = self.shared();
            client.resume(session_present, |packet_id| shared.outstanding.rank(packet_id));
            if !session_present {
                shared.outstanding.handle_session_lost();
            }
            watchdog.handle_connected();
        }
        self.enter(event, watchdog);
    }

    /// Writes an event into the table and the ledger.
    fn enter(&self, event: Event, watchdog: &mut Watchdog) {
        let mut shared = self.shared();
        let table = &mut shared.outstanding;
        match event {
            Event::Sent(packet_id) => match table.handle_sent(packet_id) {
                Sent::Again(seq) => lock(&self.ledger).handle_resent(self.key, seq, Resend::Resumed),
                Sent::Afresh(seq) => lock(&self.ledger).handle_resent(self.key, seq, Resend::Afresh),
                Sent::First(_) | Sent::Unknown => {}
            },
            Event::PubAck { packet_id, accepted } => self.enter_answer(table.handle_puback(packet_id), accepted),
            Event::PubRec {
                packet_id,
                accepted: true,
            } => self.enter_answer(table.handle_pubrec(packet_id), true),
            Event::PubRec {
                packet_id,
                accepted: false,
            } => self.enter_answer(table.handle_released(packet_id), false),
            Event::PubComp { packet_id } => {
                table.handle_released(packet_id);
            }
            Event::Connected { .. } | Event::Other => return,
        }
        watchdog.handle_progress();
        self.progress.notify_waiters();
    }

    fn enter_answer(&self, seq: Option<u64>, accepted: bool) {
        let Some(seq) = seq else { return };
        let mut ledger = lock(&self.ledger);
        if accepted {
            ledger.handle_acked(self.key, seq);
        } else {
            ledger.handle_refused(self.key, seq);
        }
    }

    fn interrupt(&self, client: &mut Client, watchdog: &mut Watchdog) {
        for event in client.interrupt() {
            self.enter(event, watchdog);
        }
        watchdog.handle_disconnected();
    }

    /// Replaces a client that makes no progress. The session at the broker is forgotten too: the new client counts
    /// its packet IDs from 1, and a stale QoS 2 packet ID there would swallow a message.
    async fn renew(&self, mut client: Client, watchdog: &mut Watchdog) -> Client {
        self.interrupt(&mut client, watchdog);
        let options = &self.spec.client;
        if let Err(error) = raw::forget_session(&options.host, options.port, &options.client_id).await {
            tracing::debug!(device = %options.client_id, %error, "session not forgotten");
        }
        let (publisher, mut fresh) = Client::new(options);
        let mut shared = self.shared();
        for event in client.interrupt() {
            debug_assert_eq!(event, Event::Other, "a dropped connection has no events");
        }
        fresh.inherit(client);
        shared.publisher = publisher;
        drop(shared);
        fresh
    }
}

/// Notices a client that is connected, has something open, and gets no ack.
struct Watchdog {
    connected: bool,
    quiet_since: Instant,
}

impl Watchdog {
    fn new() -> Self {
        Self {
            connected: false,
            quiet_since: Instant::now(),
        }
    }

    fn handle_progress(&mut self) {
        self.quiet_since = Instant::now();
    }

    fn handle_connected(&mut self) {
        self.connected = true;
    }

    fn handle_disconnected(&mut self) {
        self.connected = false;
    }

    fn deadline(&self) -> Instant {
        self.quiet_since + WATCHDOG_AFTER
    }

    fn is_stalled(&self) -> bool {
        self.connected && self.deadline() <= Instant::now()
    }
}
