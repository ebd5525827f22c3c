//! The world of a test: one core, a model store, recorded connections, and the time as the test sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fellbeck_core::{ClockQuality, LogPosition, QoS, Tick, TrackId, WallTime};
use fellbeck_store::commit::Space;

use super::super::{Core, CoreConfig, CoreLimits, Mode, Now, Outcome, Pressure, Route, SessionStatus};
use super::store_model::StoreModel;
use crate::wire::{
    Close, ConnId, Connect, PacketOut, PublishIn, Subscribe, SubscribeIn, Unsubscribe, Version, Will, Wire,
};

/// A packet to a client, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    ConnAck { session_present: bool, reason: u8 },
    Publish(Got),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Closed(u8),
}

/// A PUBLISH to a client, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) packet_id: Option<u16>,
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) ids: Vec<u32>,
    pub(super) expiry_secs: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) sent: Vec<(ConnId, Out)>,
    pub(super) backlogged: BTreeSet<ConnId>,
    /// Payloads above this are not sent.
    pub(super) payload_max: Option<usize>,
    /// Inflows that were taken, in order.
    pub(super) inflows: Vec<u64>,
    /// Position of every PUBLISH, in order.
    pub(super) positions: Vec<Option<LogPosition>>,
}

impl Wire for Tape {
    fn send(&mut self, to: ConnId, packet: PacketOut<'_>) -> bool {
        let out = match packet {
            PacketOut::ConnAck {
                session_present,
                reason,
            } => Out::ConnAck {
                session_present,
                reason,
            },
            PacketOut::Publish(delivery) => {
                assert!(!self.backlogged.contains(&to), "a PUBLISH to a backlogged connection");
                if self.payload_max.is_some_and(|max| delivery.record.payload.len() > max) {
                    return false;
                }
                self.positions.push(delivery.position);
                Out::Publish(Got {
                    packet_id: delivery.packet_id,
                    dup: delivery.dup,
                    qos: delivery.qos as u8,
                    retain: delivery.retain,
                    topic: delivery.record.topic.to_owned(),
                    payload: String::from_utf8_lossy(delivery.record.payload).into_owned(),
                    ids: delivery.subscription_ids.to_vec(),
                    expiry_secs: delivery.expiry_secs,
                })
            }
            PacketOut::PubAck { packet_id, reason } => Out::PubAck(packet_id, reason),
            PacketOut::PubRec { packet_id, reason } => Out::PubRec(packet_id, reason),
            PacketOut::PubRel { packet_id, reason } => Out::PubRel(packet_id, reason),
            PacketOut::PubComp { packet_id, reason } => Out::PubComp(packet_id, reason),
            PacketOut::SubAck { packet_id, reasons } => Out::SubAck(packet_id, reasons.to_vec()),
            PacketOut::UnsubAck { packet_id, reasons } => Out::UnsubAck(packet_id, reasons.to_vec()),
        };
        self.sent.push((to, out));
        true
    }

    fn is_backlogged(&self, to: ConnId) -> bool {
        self.backlogged.contains(&to)
    }

    fn close(&mut self, to: ConnId, why: Close) {
        self.sent.push((to, Out::Closed(why.reason)));
    }

    fn inflow_taken(&mut self, number: u64) {
        self.inflows.push(number);
    }
}

/// `log/...` is logged in track 0, `log2/...` in track 1, nothing else.
struct Routes;

impl Route for Routes {
    fn route(&self, topic: &str, _device: &str) -> Option<TrackId> {
        if topic.starts_with("log/") {
            Some(TrackId(0))
        } else if topic.starts_with("log2/") {
            Some(TrackId(1))
        } else {
            None
        }
    }
}

pub(super) const LOCAL: TrackId = TrackId(7);

pub(super) fn edge() -> CoreConfig {
    CoreConfig {
        mode: Mode::ImmediateForClean,
        local_track: Some(LOCAL),
        limits: CoreLimits::default(),
    }
}

pub(super) fn cloud() -> CoreConfig {
    CoreConfig {
        mode: Mode::CommittedOnly,
        local_track: None,
        limits: CoreLimits::default(),
    }
}

pub(super) struct World {
    pub(super) config: CoreConfig,
    pub(super) core: Core,
    pub(super) store: StoreModel,
    pub(super) tape: Tape,
    pub(super) now: Now,
    pub(super) pressure: Pressure,
    /// The stored state was not written by a core: its books may say anything.
    pub(super) forged: bool,
    /// Publishes that the core asked to hold, as the front keeps them.
    held: Vec<(ConnId, Send)>,
    last_conn: u64,
    last_packet_id: u16,
}

impl World {
    pub(super) fn new(config: CoreConfig) -> Self {
        let core = Core::new(config.clone(), Box::new(Routes), "node");
        let mut world = Self {
            config,
            core,
            store: StoreModel::default(),
            tape: Tape::default(),
            now: Now {
                tick: Tick::default(),
                wall: WallTime(1_700_000_000_000),
                clock: ClockQuality::Synced,
                runs_since: WallTime(0),
            },
            pressure: Pressure::Normal,
            forged: false,
            held: Vec::new(),
            last_conn: 0,
            last_packet_id: 0,
        };
        world.restore();
        world
    }

    fn restore(&mut self) {
        let values = self.store.values_of(Space::Session);
        self.core.restore(values, self.store.newest, self.now).unwrap();
    }

    /// The process dies; what was submitted and not committed is lost. A new one starts.
    pub(super) fn crash(&mut self) {
        self.store.crash();
        self.core = Core::new(self.config.clone(), Box::new(Routes), "node");
        self.tape.backlogged.clear();
        self.held.clear();
        self.restore();
        self.assert_all_books_close();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.tick = self.now.tick.after(time);
        self.now.wall.0 += time.as_millis() as u64;
        self.core.handle_tick(self.now, &mut self.tape);
    }

    // ---- the store

    /// Hands what the core has gathered to the store.
    pub(super) fn submit(&mut self) {
        while let Some(commit) = self.core.take_commit() {
            let ticket = self.store.submit(commit);
            self.core.handle_submitted(ticket);
        }
    }

    /// Brings the store's answers and blocks to the core, in the order that it asks for.
    pub(super) fn deliver(&mut self) {
        if self.store.tail.is_empty() {
            self.core.handle_tail_empty();
        }
        for committed in std::mem::take(&mut self.store.answers) {
            self.core.handle_committed(committed, self.now, &mut self.tape);
        }
        for block in std::mem::take(&mut self.store.tail) {
            self.core.handle_tail(&block, self.now, &mut self.tape);
        }
        for (conn, send) in std::mem::take(&mut self.held) {
            self.send_publish(conn, &send);
        }
    }

    /// Answers one read and one scan, if asked for. True when there was one.
    pub(super) fn look_up(&mut self) -> bool {
        let read = self.core.poll_read(self.now);
        if let Some(request) = &read {
            let answer = self.store.read(request.from, request.bytes_max);
            self.core
                .handle_read(request.reader, Some(answer), self.now, &mut self.tape);
        }
        let scan = self.core.poll_scan(self.now);
        if let Some(request) = &scan {
            let page = self
                .store
                .scan(&request.prefix, request.after.as_deref(), request.bytes_max);
            self.core.handle_scan(request.id, Some(page), self.now, &mut self.tape);
        }
        read.is_some() || scan.is_some()
    }

    /// Lets everything come to rest: each submission is a commit of its own.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.submit();
            let mut busy = self.store.waiting() > 0 || !self.store.answers.is_empty();
            busy |= !self.held.is_empty() && self.pressure == Pressure::Normal;
            self.store.commit(1);
            self.deliver();
            busy |= self.look_up();
            if !busy {
                self.deliver();
                self.assert_all_books_close();
                return;
            }
        }
        panic!("the core does not come to rest");
    }

    // ---- clients

    pub(super) fn connect(&mut self, client: &str) -> ConnId {
        self.connect_with(connect(client))
    }

    pub(super) fn connect_with(&mut self, connect: Connect) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        self.core.handle_connect(conn, connect, self.now, &mut self.tape);
        conn
    }

    /// Connects, lets it come to rest, and checks CONNACK.
    pub(super) fn join(&mut self, connect: Connect) -> (ConnId, bool) {
        let conn = self.connect_with(connect);
        self.settle();
        let out = self
            .tape
            .sent
            .iter()
            .find(|(to, _)| *to == conn)
            .map(|(_, out)| out.clone());
        let Some(Out::ConnAck {
            session_present,
            reason: 0,
        }) = out
        else {
            panic!("no CONNACK, but {out:?}");
        };
        self.tape
            .sent
            .retain(|(to, out)| *to != conn || !matches!(out, Out::ConnAck { .. }));
        (conn, session_present)
    }

    pub(super) fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id % 60_000 + 1;
        self.last_packet_id
    }

    pub(super) fn publish(&mut self, conn: ConnId, topic: &str, payload: &str, qos: u8) -> u16 {
        let packet_id = self.next_packet_id();
        self.send_publish(conn, &Send::new(topic, payload, qos, packet_id));
        packet_id
    }

    /// As the front does it: what is held is offered again when commits were made, and nothing passes it.
    pub(super) fn send_publish(&mut self, conn: ConnId, send: &Send) {
        let is_behind = self.held.iter().any(|(of, _)| *of == conn);
        if is_behind || self.publish_with(conn, send) == Outcome::Hold {
            self.held.push((conn, send.clone()));
        }
    }

    pub(super) fn publish_with(&mut self, conn: ConnId, send: &Send) -> Outcome {
        let publish = PublishIn {
            topic: &send.topic,
            payload: send.payload.as_bytes(),
            qos: QoS::from_u8(send.qos).unwrap(),
            retain: send.retain,
            dup: send.dup,
            packet_id: (send.qos > 0).then_some(send.packet_id),
            properties: &[],
            expiry_secs: send.expiry_secs,
        };
        let Self {
            core,
            tape,
            now,
            pressure,
            ..
        } = self;
        core.handle_publish(conn, publish, *pressure, *now, tape)
    }

    pub(super) fn retain(&mut self, conn: ConnId, topic: &str, payload: &str, qos: u8) {
        let packet_id = self.next_packet_id();
        let mut send = Send::new(topic, payload, qos, packet_id);
        send.retain = true;
        self.send_publish(conn, &send);
    }

    pub(super) fn subscribe(&mut self, conn: ConnId, filter: &str, qos: u8) -> Vec<u8> {
        self.subscribe_with(conn, None, vec![sub(filter, qos)])
    }

    /// Subscribes, lets it come to rest, and takes SUBACK off the tape.
    pub(super) fn subscribe_with(&mut self, conn: ConnId, id: Option<u32>, filters: Vec<SubscribeIn>) -> Vec<u8> {
        let packet_id = self.send_subscribe(conn, id, filters);
        self.settle();
        let mut reasons = None;
        self.tape.sent.retain(|(to, out)| match out {
            Out::SubAck(of, codes) if *to == conn && *of == packet_id => {
                reasons = Some(codes.clone());
                false
            }
            _ => true,
        });
        reasons.expect("SUBACK")
    }

    pub(super) fn send_subscribe(&mut self, conn: ConnId, id: Option<u32>, filters: Vec<SubscribeIn>) -> u16 {
        let packet_id = self.next_packet_id();
        let subscribe = Subscribe {
            packet_id,
            subscription_id: id,
            filters,
        };
        self.core.handle_subscribe(conn, subscribe, self.now, &mut self.tape);
        packet_id
    }

    pub(super) fn unsubscribe(&mut self, conn: ConnId, filter: &str) -> Vec<u8> {
        let packet_id = self.send_unsubscribe(conn, filter);
        self.settle();
        let mut reasons = None;
        self.tape.sent.retain(|(to, out)| match out {
            Out::UnsubAck(of, codes) if *to == conn && *of == packet_id => {
                reasons = Some(codes.clone());
                false
            }
            _ => true,
        });
        reasons.expect("UNSUBACK")
    }

    pub(super) fn send_unsubscribe(&mut self, conn: ConnId, filter: &str) -> u16 {
        let packet_id = self.next_packet_id();
        let filters = vec![filter.to_owned()];
        self.core
            .handle_unsubscribe(conn, Unsubscribe { packet_id, filters }, self.now, &mut self.tape);
        packet_id
    }

    pub(super) fn puback(&mut self, conn: ConnId, packet_id: u16) {
        self.core.handle_puback(conn, packet_id, 0, self.now, &mut self.tape);
    }

    pub(super) fn pubrec(&mut self, conn: ConnId, packet_id: u16) {
        self.core.handle_pubrec(conn, packet_id, 0, self.now, &mut self.tape);
    }

    pub(super) fn pubrel(&mut self, conn: ConnId, packet_id: u16) {
        self.core.handle_pubrel(conn, packet_id, 0, self.now, &mut self.tape);
    }

    pub(super) fn pubcomp(&mut self, conn: ConnId, packet_id: u16) {
        self.core.handle_pubcomp(conn, packet_id, 0, self.now, &mut self.tape);
    }

    /// A DISCONNECT with reason 0x00.
    pub(super) fn disconnect(&mut self, conn: ConnId) {
        self.core.handle_disconnect(conn, 0, None, self.now, &mut self.tape);
        self.core.handle_closed(conn, self.now, &mut self.tape);
    }

    /// The socket breaks.
    pub(super) fn cut(&mut self, conn: ConnId) {
        self.tape.backlogged.remove(&conn);
        self.core.handle_closed(conn, self.now, &mut self.tape);
    }

    pub(super) fn backlog(&mut self, conn: ConnId) {
        self.tape.backlogged.insert(conn);
    }

    pub(super) fn unblock(&mut self, conn: ConnId) {
        self.tape.backlogged.remove(&conn);
        self.core.handle_writable(conn, self.now, &mut self.tape);
    }

    /// Everything sent to `conn` since the last call.
    pub(super) fn take(&mut self, conn: ConnId) -> Vec<Out> {
        let mut taken = Vec::new();
        self.tape.sent.retain(|(to, out)| {
            if *to == conn {
                taken.push(out.clone());
            }
            *to != conn
        });
        taken
    }

    /// The messages sent to `conn` since the last call; nothing else may have been sent.
    pub(super) fn messages(&mut self, conn: ConnId) -> Vec<Got> {
        let taken = self.take(conn).into_iter();
        taken
            .map(|out| match out {
                Out::Publish(got) => got,
                other => panic!("{other:?} among the messages"),
            })
            .collect()
    }

    /// Takes `wanted` off what was sent to `conn`. False when it was not sent.
    pub(super) fn release(&mut self, conn: ConnId, wanted: &Out) -> bool {
        let sent = &mut self.tape.sent;
        let at = sent.iter().position(|(to, out)| *to == conn && out == wanted);
        at.map(|at| sent.remove(at)).is_some()
    }

    /// The payloads of [`World::messages`].
    pub(super) fn payloads(&mut self, conn: ConnId) -> Vec<String> {
        self.messages(conn).into_iter().map(|got| got.payload).collect()
    }

    /// Acknowledges what arrives at `conn` until nothing more comes, and gives the payloads of what came first.
    pub(super) fn consume(&mut self, conn: ConnId) -> Vec<String> {
        let mut payloads = Vec::new();
        for _ in 0..10_000 {
            self.settle();
            let outs = self.take(conn);
            if outs.is_empty() {
                return payloads;
            }
            for out in outs {
                match out {
                    Out::Publish(got) => {
                        payloads.push(got.payload.clone());
                        match (got.qos, got.packet_id) {
                            (1, Some(packet_id)) => self.puback(conn, packet_id),
                            (2, Some(packet_id)) => self.pubrec(conn, packet_id),
                            _ => {}
                        }
                    }
                    Out::PubRel(packet_id, _) => self.pubcomp(conn, packet_id),
                    other => panic!("{other:?} while consuming"),
                }
            }
        }
        panic!("messages never end");
    }

    pub(super) fn status(&self, client: &str) -> SessionStatus {
        self.core.session_status(client).expect("the session exists")
    }

    /// P9: what was matched is acked, in flight, expired or dropped.
    pub(super) fn assert_books_balance(&self, client: &str) {
        let status = self.status(client);
        assert_eq!(
            status.ledger.in_flight(),
            status.in_flight as u64,
            "{client}: {status:?}"
        );
    }

    /// P9, of every durable session and group. In-flight messages are counted from the tables.
    fn assert_all_books_close(&self) {
        let books = self.core.books();
        let open = books.listed.iter().filter(|book| book.ledger.is_open(book.in_flight));
        assert!(books.open == 0 || self.forged, "{:?}", open.collect::<Vec<_>>());
    }

    pub(super) fn stored(&self, space: Space) -> BTreeMap<String, Vec<u8>> {
        let values = self.store.values_of(space).into_iter();
        values
            .map(|stored| (String::from_utf8_lossy(&stored.key).into_owned(), stored.value.to_vec()))
            .collect()
    }
}

/// A PUBLISH of a client.
#[derive(Debug, Clone)]
pub(super) struct Send {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) packet_id: u16,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) expiry_secs: Option<u32>,
}

impl Send {
    pub(super) fn new(topic: &str, payload: &str, qos: u8, packet_id: u16) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            qos,
            packet_id,
            retain: false,
            dup: false,
            expiry_secs: None,
        }
    }
}

/// A v5 client with a clean session that ends with its connection.
pub(super) fn connect(client: &str) -> Connect {
    Connect {
        version: Version::V5,
        client_id: client.to_owned(),
        clean_start: true,
        session_expiry_secs: 0,
        receive_maximum: 100,
        packet_max: None,
        will: None,
    }
}

/// A v5 client that resumes its session.
pub(super) fn persistent(client: &str) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_secs: 3600,
        ..connect(client)
    }
}

pub(super) fn old_version(connect: Connect) -> Connect {
    Connect {
        version: Version::V3,
        ..connect
    }
}

pub(super) fn will(topic: &str, payload: &str) -> Will {
    Will {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Vec::new(),
        expiry_secs: None,
        delay_secs: 0,
    }
}

pub(super) fn sub(filter: &str, qos: u8) -> SubscribeIn {
    SubscribeIn {
        filter: filter.to_owned(),
        qos: QoS::from_u8(qos).unwrap(),
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}
