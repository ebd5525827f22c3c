//! The core, its store, the clients and the clock, and everything that can happen to them.

mod storage;

use std::collections::BTreeSet;
use std::time::Duration;

use fellbeck_broker::session::{
    Core, CoreConfig, CoreLimits, Mode, Now, Outcome, Pressure, ReadRequest, Route, ScanRequest,
};
use fellbeck_broker::wire::{ConnId, Connect, PublishIn, Subscribe, SubscribeIn, Unsubscribe, Version, Will};
use fellbeck_core::{ClockQuality, LogPosition, QoS, Tick, TrackId, WallTime};
use fellbeck_store::commit::Space;

use super::client::{Client, Link, Number, Owed, payload};
use super::store_model::StoreModel;
use super::wire::{Out, Tape};

/// Clients; one more than there may be sessions.
pub(super) const CLIENTS: usize = 5;
const NAMES: [&str; CLIENTS] = ["a", "b", "c", "d", "e"];
const LOCAL: TrackId = TrackId(7);

/// A PUBLISH of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) topic: &'static str,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) is_empty: bool,
    pub(super) packet_id: u16,
    pub(super) expiry_secs: Option<u32>,
}

impl Message {
    fn payload(&self, number: Number) -> Vec<u8> {
        if self.is_empty {
            Vec::new()
        } else {
            payload(self.topic, self.retain, number)
        }
    }
}

/// `log/...` is logged, nothing else of itself.
struct Routes;

impl Route for Routes {
    fn route(&self, topic: &str, _device: &str) -> Option<TrackId> {
        topic
            .starts_with("log/")
            .then_some(TrackId(u32::from(topic.ends_with('a'))))
    }
}

pub(super) struct World {
    config: CoreConfig,
    core: Core,
    store: StoreModel,
    tape: Tape,
    clients: [Client; CLIENTS],
    pub(super) now: Now,
    pressure: Pressure,
    reads: Vec<ReadRequest>,
    scans: Vec<ScanRequest>,
    /// Numbers in the log.
    logged: BTreeSet<Number>,
    /// Blocks of the log whose numbers are in `logged`.
    counted: usize,
    numbers: Number,
    connections: u64,
    requests: u16,
    /// Records of the largest read.
    read_max: usize,
    /// PUBLISHes that reached a client.
    pub(super) delivered: u64,
}

/// Small, so that a short script reaches them.
fn limits() -> CoreLimits {
    CoreLimits {
        receive_maximum: 3,
        in_flight_max: 4,
        session_queue_records: 3,
        session_queue_bytes: 300,
        subscriptions_max: 4,
        subscription_bytes_max: 40,
        sessions_max: CLIENTS - 1,
        will_bytes_max: 60,
        groups_max: 1,
        session_expiry_max_secs: 3600,
        commit_bytes_max: 600,
        outstanding_max: 4,
        reads_max: 2,
        read_bytes: 150,
        live_window_bytes: 500,
        clock_runs_since: fellbeck_core::WallTime(0),
    }
}

impl World {
    pub(super) fn new(is_edge: bool) -> Self {
        let config = CoreConfig {
            mode: if is_edge {
                Mode::ImmediateForClean
            } else {
                Mode::CommittedOnly
            },
            local_track: is_edge.then_some(LOCAL),
            limits: limits(),
        };
        let mut world = Self {
            core: Core::new(config.clone(), Box::new(Routes), "fuzzed"),
            config,
            store: StoreModel::default(),
            tape: Tape::default(),
            clients: Default::default(),
            now: Now {
                tick: Tick::default(),
                wall: WallTime(1_700_000_000_000),
                clock: ClockQuality::Synced,
                runs_since: WallTime(0),
            },
            pressure: Pressure::Normal,
            reads: Vec::new(),
            scans: Vec::new(),
            logged: BTreeSet::new(),
            counted: 0,
            numbers: 0,
            connections: 0,
            requests: 0,
            read_max: 0,
            delivered: 0,
        };
        world.restore();
        world
    }

    fn restore(&mut self) {
        let values = self.store.values_of(Space::Session);
        let restored = self.core.restore(values, self.store.newest, self.now);
        restored.expect("a node reads what it wrote itself");
    }

    // ---- the node

    /// The process dies. What was not committed is gone.
    pub(super) fn crash(&mut self) {
        // What was sent before the end was received.
        self.listen();
        self.store.crash();
        self.core = Core::new(self.config.clone(), Box::new(Routes), "fuzzed");
        self.tape = Tape::default();
        self.reads.clear();
        self.scans.clear();
        for client in &mut self.clients {
            client.lose();
            client.has_crashed = true;
        }
        self.restore();
    }

    /// It stops as it should: everything is written first.
    pub(super) fn restart(&mut self) {
        self.core.flush_all();
        self.settle();
        self.crash();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.tick = self.now.tick.after(time);
        self.now.wall.0 += time.as_millis() as u64;
        self.core.handle_tick(self.now, &mut self.tape);
    }

    pub(super) fn press(&mut self, pressure: Pressure) {
        self.pressure = pressure;
        self.offer_held();
    }

    // ---- the clients

    pub(super) fn connect(&mut self, who: usize, flags: u8, expiry_secs: u32, will: Option<(&'static str, u32, bool)>) {
        let (clean, old) = (flags & 1 != 0, flags & 2 != 0);
        self.connections += 1;
        self.numbers += 1;
        let will = will.map(|(topic, delay_secs, retain)| Will {
            topic: topic.to_owned(),
            payload: payload(topic, retain, self.numbers),
            qos: QoS::ExactlyOnce,
            retain,
            properties: Vec::new(),
            expiry_secs: None,
            delay_secs: if old { 0 } else { delay_secs },
        });
        let (conn, receive_maximum) = (ConnId(self.connections), u16::from(flags >> 2 & 3) + 1);
        let connect = Connect {
            version: if old { Version::V3 } else { Version::V5 },
            client_id: NAMES[who].to_owned(),
            clean_start: clean,
            session_expiry_secs: match (old, clean) {
                (false, _) => expiry_secs,
                (true, true) => 0,
                (true, false) => u32::MAX,
            },
            receive_maximum,
            packet_max: None,
            will,
        };
        self.listen();
        self.core.handle_connect(conn, connect, self.now, &mut self.tape);
        let refused = |(to, out): &(ConnId, Out)| *to == conn && matches!(out, Out::ConnAck(_, 1..));
        if !self.tape.sent.iter().any(refused) {
            if let Some(former) = self.clients[who].lose() {
                self.tape.backlogged.remove(&former.conn);
            }
            let window = usize::from(receive_maximum.min(self.config.limits.in_flight_max));
            let mut link = Link::new(conn, old, window);
            link.is_last = if old { clean } else { expiry_secs == 0 };
            link.is_clean = clean;
            self.clients[who].link = Some(link);
        }
    }

    pub(super) fn leave(&mut self, who: usize, how: u8, expiry_secs: Option<u32>) {
        self.listen();
        let Some(link) = self.clients[who].lose() else {
            return;
        };
        self.tape.backlogged.remove(&link.conn);
        let expiry_secs = expiry_secs.filter(|_| !link.old);
        let Self {
            core,
            now,
            tape,
            clients,
            ..
        } = self;
        match how {
            0 | 1 if link.is_open && link.held.is_empty() => {
                if expiry_secs == Some(0) {
                    clients[who].is_in_doubt = true;
                }
                core.handle_disconnect(link.conn, how * 4, expiry_secs, *now, tape);
            }
            _ => core.forget_order(link.conn),
        }
        core.handle_closed(link.conn, *now, tape);
    }

    /// The connection of a client that is served at the moment.
    fn reads(&mut self, who: usize) -> Option<ConnId> {
        self.listen();
        let link = self.clients[who].open_link()?;
        link.held.is_empty().then_some(link.conn)
    }

    pub(super) fn subscribe(&mut self, who: usize, filter: &str, options: u8) {
        let Some(conn) = self.reads(who) else {
            return;
        };
        let packet_id = self.request(who);
        let is_shared = filter.starts_with('$');
        let filter = SubscribeIn {
            filter: filter.to_owned(),
            qos: super::qos(options & 3),
            no_local: options & 4 != 0 && !is_shared,
            retain_as_published: options & 8 != 0,
            retain_handling: (options >> 4 & 3).min(2),
        };
        let subscribe = Subscribe {
            packet_id,
            subscription_id: (options & 0x40 != 0).then_some(u32::from(packet_id)),
            filters: vec![filter],
        };
        self.core.handle_subscribe(conn, subscribe, self.now, &mut self.tape);
    }

    pub(super) fn unsubscribe(&mut self, who: usize, filter: &str) {
        let Some(conn) = self.reads(who) else {
            return;
        };
        let packet_id = self.request(who);
        let filters = vec![filter.to_owned()];
        let unsubscribe = Unsubscribe { packet_id, filters };
        self.core
            .handle_unsubscribe(conn, unsubscribe, self.now, &mut self.tape);
    }

    /// Packet IDs of requests lie above those of messages.
    fn request(&mut self, who: usize) -> u16 {
        self.requests += 1;
        let packet_id = 1000 + self.requests;
        if let Some(link) = self.clients[who].open_link() {
            link.asked(packet_id);
        }
        packet_id
    }

    pub(super) fn publish(&mut self, who: usize, message: Message) {
        if self.reads(who).is_none() {
            return;
        }
        self.numbers += 1;
        let number = self.numbers;
        self.offer(who, message, number);
    }

    fn offer(&mut self, who: usize, message: Message, number: Number) {
        let Some(link) = self.clients[who].open_link() else {
            return;
        };
        let (conn, old) = (link.conn, link.old);
        let payload = message.payload(number);
        let publish = PublishIn {
            topic: message.topic,
            payload: &payload,
            qos: message.qos,
            retain: message.retain,
            dup: false,
            packet_id: (message.qos != QoS::AtMostOnce).then_some(message.packet_id),
            properties: &[],
            expiry_secs: message.expiry_secs.filter(|_| !old),
        };
        let Self {
            core,
            tape,
            now,
            pressure,
            ..
        } = self;
        let outcome = core.handle_publish(conn, publish, *pressure, *now, tape);
        if outcome == Outcome::Done {
            self.clients[who].published(&message, number);
        } else if let Some(link) = self.clients[who].open_link() {
            link.held.push_front((message, number));
        }
        self.listen();
    }

    /// What was held is offered again, as the front does it when commits were made or the pressure fell.
    fn offer_held(&mut self) {
        for who in 0..CLIENTS {
            if let Some((message, number)) = self.clients[who].open_link().and_then(|link| link.held.pop_front()) {
                self.offer(who, message, number);
            }
        }
    }

    /// Sends one of the acknowledgements that are due.
    pub(super) fn pay(&mut self, who: usize, which: u8) {
        let Some(conn) = self.reads(who) else {
            return;
        };
        let Some(link) = self.clients[who].open_link().filter(|link| !link.owed.is_empty()) else {
            return;
        };
        let is_failure = which >= 0xF0;
        let owed = link.owed.remove(usize::from(which) % link.owed.len());
        self.ack(who, conn, owed, is_failure);
    }

    /// An acknowledgement that nobody waits for, or of the wrong kind.
    pub(super) fn send_wrong_ack(&mut self, who: usize, kind: u8, id: u8) {
        let Some(conn) = self.reads(who) else {
            return;
        };
        let id = u16::from(id % 16);
        let owed = [Owed::Ack(id), Owed::Rec(id), Owed::Comp(id)][usize::from(kind) % 3];
        self.ack(who, conn, owed, false);
    }

    fn ack(&mut self, who: usize, conn: ConnId, owed: Owed, is_failure: bool) {
        let client = &mut self.clients[who];
        if let Some(link) = client.open_link() {
            link.acks(owed, is_failure);
        }
        let Self { core, now, tape, .. } = self;
        match owed {
            Owed::Ack(id) => core.handle_puback(conn, id, 0, *now, tape),
            Owed::Rec(id) if is_failure => {
                client.gives_up(id);
                core.handle_pubrec(conn, id, 0x80, *now, tape);
            }
            Owed::Rec(id) => core.handle_pubrec(conn, id, 0, *now, tape),
            Owed::Comp(id) => core.handle_pubcomp(conn, id, 0, *now, tape),
        }
    }

    /// Goes on with a QoS 2 message of the client.
    pub(super) fn release(&mut self, who: usize, which: u8) {
        let Some(conn) = self.reads(who) else {
            return;
        };
        let client = &mut self.clients[who];
        let count = client.exchanges.len().max(1);
        let next = client.exchanges.keys().nth(usize::from(which) % count);
        let packet_id = next.copied().unwrap_or(u16::from(which));
        client.released(packet_id);
        self.core.handle_pubrel(conn, packet_id, 0, self.now, &mut self.tape);
    }

    /// The client stops reading, or goes on.
    pub(super) fn backlog(&mut self, who: usize) {
        let Some(link) = self.clients[who].open_link() else {
            return;
        };
        let conn = link.conn;
        if self.tape.backlogged.remove(&conn) {
            self.core.handle_writable(conn, self.now, &mut self.tape);
        } else {
            self.tape.backlogged.insert(conn);
        }
    }

    /// The client takes no message any more: each exceeds its Maximum Packet Size.
    pub(super) fn be_small(&mut self, who: usize) {
        if let Some(link) = self.clients[who].open_link() {
            self.tape.small.insert(link.conn);
        }
    }

    /// Takes in all that was sent.
    fn listen(&mut self) {
        for (conn, out) in std::mem::take(&mut self.tape.sent) {
            let owner = self.clients.iter_mut().find(|client| {
                let link = client.link.as_ref();
                link.is_some_and(|link| link.conn == conn)
            });
            self.delivered += u64::from(matches!(out, Out::Publish(_)));
            if let Some(client) = owner {
                client.hear(out, &self.logged);
            }
        }
    }

    /// What holds after each act.
    pub(super) fn check(&mut self) {
        self.listen();
        let limits = &self.config.limits;
        assert!(self.core.session_count() <= limits.sessions_max, "too many sessions");
        for name in NAMES {
            let Some(status) = self.core.session_status(name) else {
                continue;
            };
            // One read is taken whole.
            let queued_max = limits.session_queue_records.max(self.read_max);
            assert!(status.queued <= queued_max, "{name}: {status:?}");
        }
        assert!(self.core.totals().subscriptions <= limits.sessions_max * limits.subscriptions_max);
    }

    /// Everybody comes back, takes everything and acknowledges it: nothing is left.
    pub(super) fn finish(&mut self) {
        self.press(Pressure::Normal);
        self.tape.small.clear();
        for conn in std::mem::take(&mut self.tape.backlogged) {
            self.core.handle_writable(conn, self.now, &mut self.tape);
        }
        self.settle();
        for who in 0..CLIENTS {
            self.connect(who, 0x0C, 3600, None);
            self.settle();
        }
        for round in 0.. {
            assert!(round < 1000, "acknowledgements without end");
            self.listen();
            let owing = (0..CLIENTS).find(|who| {
                let link = self.clients[*who].link.as_ref();
                link.is_some_and(|link| link.is_open && !link.owed.is_empty())
            });
            let Some(who) = owing else {
                break;
            };
            self.pay(who, 0);
            self.settle();
        }
        let newest = LogPosition::after(self.store.newest);
        for (name, client) in NAMES.iter().zip(&mut self.clients) {
            let Some(status) = self.core.session_status(name).filter(|_| client.open_link().is_some()) else {
                continue;
            };
            assert_eq!(
                (status.in_flight, status.queued),
                (0, 0),
                "{name} has something left at {newest}: {status:?}"
            );
            assert_eq!(status.ledger.in_flight(), 0, "the books of {name}: {status:?}");
        }
    }
}
