//! One network connection: its socket handle, its phase, and what of the protocol belongs to the connection, not to the session.
//!
//! Shared by `Rc` between the table of connections, the middleware and the handshake, all on the broker thread.
//! Holds topic aliases, bytes of a packet that is not whole yet, a publish that waits for room, and the time of the last
//! packet. Decides nothing about messages.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fellbeck_core::{QoS, Tick};
use ntex::channel::oneshot;
use ntex::io::IoRef;
use ntex::rt::spawn;

use super::aliases::{Form, TopicAliases};
use super::counters;
use super::encode;
use super::exchange::Authentication;
use super::frames::{Assembly, Charge, Fault, Frames};
use super::linger::{Told, WriteHalf, linger_and_close};
use super::traffic::Traffic;
use crate::session::Pressure;
use crate::wire::{ConnId, Delivery, PublishIn, Version};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// CONNECT was given to the session core; CONNACK has not been written. Packets of the core wait in `early`.
    Connecting,
    /// CONNACK is in the write buffer.
    Open,
    /// Being closed: nothing more is read or written.
    Closed,
}

/// The session core's answer to a CONNECT.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnAck {
    pub(super) session_present: bool,
    pub(super) reason: u8,
}

/// A publish that the core asked to hold (3.1.1 at full quota): nothing of this connection is read until it was taken.
#[derive(Debug)]
pub(super) struct Held {
    topic: Box<str>,
    payload: Box<[u8]>,
    properties: Box<[u8]>,
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: Option<u16>,
    expiry_secs: Option<u32>,
    /// It stays in the budget for packets while it waits.
    pub(super) charge: Charge,
}

impl Held {
    /// A copy of its own: the read buffer goes on.
    pub(super) fn copy(publish: &PublishIn<'_>, budget: &Rc<Assembly>) -> Self {
        let bytes = publish.topic.len() + publish.payload.len() + publish.properties.len();
        Self {
            topic: publish.topic.into(),
            payload: publish.payload.into(),
            properties: publish.properties.into(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id,
            expiry_secs: publish.expiry_secs,
            charge: budget.charge(bytes),
        }
    }

    pub(super) fn publish(&self) -> PublishIn<'_> {
        PublishIn {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            dup: self.dup,
            packet_id: self.packet_id,
            properties: &self.properties,
            expiry_secs: self.expiry_secs,
        }
    }
}

/// Bytes of topics that a client may keep here under aliases.
const ALIAS_BYTES_MAX: usize = 128 << 10;

/// The node ends: it does not wait for clients to close.
const SHUTTING_DOWN: u8 = 0x8B;

/// What a client wants of every packet that it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) version: Version,
    /// Largest packet that it takes.
    pub(super) packet_max: u32,
    /// It wants reason strings.
    pub(super) problem_information: bool,
    /// It speaks MQTT 3.1, where control packets that are sent again have DUP.
    pub(super) may_repeat: bool,
}

pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) io: IoRef,
    pub(super) client: Client,
    traffic: Rc<Traffic>,
    /// One and a half times the keep-alive; zero: never.
    pub(super) silence_max: Duration,
    /// The CONNECT asked for a session that ends with the connection, which a DISCONNECT may not extend.
    pub(super) ends_with_connection: bool,
    pub(super) phase: Cell<Phase>,
    pub(super) last_packet: Cell<Tick>,
    pub(super) backlogged_since: Cell<Option<Tick>>,
    /// When the packet began that is not whole, or when the one that is held was; moved on while nothing is read.
    pub(super) packet_since: Cell<Tick>,
    pub(super) frames: RefCell<Frames>,
    /// The control packet at the front of the read buffer is in the count of traffic already.
    pub(super) control_counted: Cell<bool>,
    pub(super) held: RefCell<Option<Held>>,
    /// Pressure under which the core did not take `held`.
    pub(super) held_under: Cell<Pressure>,
    pub(super) early: RefCell<Vec<u8>>,
    /// Length of the CONNACK that accepts, for the count of traffic.
    pub(super) connack_bytes: Cell<usize>,
    pub(super) connack: Cell<Option<oneshot::Sender<ConnAck>>>,
    /// Ended between the decision about CONNACK and its writing.
    end_at_open: Cell<Option<Fault>>,
    /// Topics that the client has given aliases.
    aliases: RefCell<Vec<Option<Rc<str>>>>,
    /// Bytes of these topics.
    alias_bytes: Cell<usize>,
    /// Aliases that the client was given.
    sent_aliases: RefCell<TopicAliases>,
    pub(super) authentication: Authentication,
    half: WriteHalf,
    /// Bytes that came after the end and were thrown away.
    pub(super) thrown: Rc<Cell<usize>>,
}

/// What the handshake knows of a new connection.
pub(super) struct Opening {
    pub(super) id: ConnId,
    pub(super) io: IoRef,
    pub(super) client: Client,
    /// Topic Alias Maximum of the client.
    pub(super) topic_alias_maximum: u16,
    pub(super) authentication: Authentication,
    pub(super) half: WriteHalf,
    pub(super) silence_max: Duration,
    pub(super) ends_with_connection: bool,
    pub(super) frames: Frames,
    pub(super) traffic: Rc<Traffic>,
    pub(super) now: Tick,
}

impl Connection {
    pub(super) fn new(opening: Opening, connack: oneshot::Sender<ConnAck>) -> Self {
        Self {
            id: opening.id,
            io: opening.io,
            client: opening.client,
            sent_aliases: RefCell::new(TopicAliases::new(opening.topic_alias_maximum)),
            authentication: opening.authentication,
            half: opening.half,
            thrown: Rc::default(),
            traffic: opening.traffic,
            silence_max: opening.silence_max,
            ends_with_connection: opening.ends_with_connection,
            phase: Cell::new(Phase::Connecting),
            last_packet: Cell::new(opening.now),
            backlogged_since: Cell::new(None),
            packet_since: Cell::new(opening.now),
            frames: RefCell::new(opening.frames),
            control_counted: Cell::new(false),
            held: RefCell::new(None),
            held_under: Cell::new(Pressure::Normal),
            early: RefCell::new(Vec::new()),
            connack_bytes: Cell::new(0),
            connack: Cell::new(Some(connack)),
            end_at_open: Cell::new(None),
            aliases: RefCell::new(Vec::new()),
            alias_bytes: Cell::new(0),
        }
    }

    /// Appends one packet to the write buffer, or keeps it until CONNACK is there. A closed connection swallows it.
    pub(super) fn write(&self, head: &[u8], payload: &[u8]) {
        if self.phase.get() != Phase::Closed {
            self.traffic.send(head.len() + payload.len());
        }
        self.put(head, payload);
    }

    fn put(&self, head: &[u8], payload: &[u8]) {
        match self.phase.get() {
            Phase::Open => {
                // An error means that the socket is gone, which the dispatcher reports on its own way.
                drop(self.io.with_write_buf(|out| {
                    out.extend_from_slice(head);
                    out.extend_from_slice(payload);
                }));
            }
            Phase::Connecting => {
                let mut early = self.early.borrow_mut();
                early.extend_from_slice(head);
                early.extend_from_slice(payload);
            }
            Phase::Closed => {}
        }
    }

    /// CONNACK was written: what had to wait for it follows, be it the end.
    pub(super) fn open(&self) {
        self.traffic.send(self.connack_bytes.get());
        if self.phase.get() == Phase::Connecting {
            self.phase.set(Phase::Open);
            let early = self.early.take();
            self.put(&early, &[]);
        } else if let Some(why) = self.end_at_open.take() {
            let told = self.say_goodbye(why);
            self.close(why, told);
        }
    }

    /// Sends DISCONNECT (5.0, reason other than 0) and closes the socket once the write buffer is empty. Idempotent.
    pub(super) fn end(&self, why: Fault) {
        let before = self.phase.replace(Phase::Closed);
        if before == Phase::Closed {
            return;
        }
        self.forget();
        if before == Phase::Connecting && self.connack.take().is_none() {
            // CONNACK is decided but not written: closing now would lose it. A refusal closes by itself.
            self.end_at_open.set(Some(why));
            return;
        }
        let told = if before == Phase::Open {
            self.say_goodbye(why)
        } else {
            Told::Nothing
        };
        self.close(why, told);
    }

    /// Closes the socket: at once when the client wanted it, else when the client had a moment to read why.
    fn close(&self, why: Fault, told: Told) {
        if why.reason == 0 {
            self.io.close();
        } else {
            let told = if why.reason == SHUTTING_DOWN { Told::Hurry } else { told };
            spawn(linger_and_close(self.io.clone(), self.half, self.thrown.clone(), told));
        }
        self.io.notify_dispatcher();
    }

    /// The connection is closed: what it has of packets is given up, and its share of the budget with it.
    pub(super) fn forget(&self) {
        self.phase.set(Phase::Closed);
        if self.held.take().is_some() {
            counters::packet_given_up("closed");
        }
        self.frames.borrow_mut().forget();
    }

    /// Writes a PUBLISH. False when the client does not take one of that size.
    pub(super) fn deliver(&self, scratch: &mut Vec<u8>, delivery: &Delivery<'_>) -> bool {
        let topic = delivery.record.topic;
        let mut aliases = self.sent_aliases.borrow_mut();
        let mut form = aliases.form(topic);
        scratch.clear();
        let mut fits = encode::put_publish_head(scratch, &self.client, delivery, form);
        if !fits && form != Form::Named {
            // An alias may cost more than a short topic.
            form = Form::Named;
            fits = encode::put_publish_head(scratch, &self.client, delivery, form);
        }
        if fits && self.phase.get() != Phase::Closed {
            self.write(scratch, delivery.record.payload);
            aliases.wrote(topic, form);
        }
        fits
    }

    fn say_goodbye(&self, why: Fault) -> Told {
        if self.client.version != Version::V5 || why.reason == 0 {
            return Told::Nothing;
        }
        let mut out = Vec::with_capacity(64);
        encode::put_disconnect(&mut out, why.reason, why.text, self.client.packet_max);
        self.traffic.send(out.len());
        drop(self.io.encode_slice(&out));
        if out.is_empty() { Told::Nothing } else { Told::Why }
    }

    pub(super) fn is_backlogged(&self) -> bool {
        match self.phase.get() {
            Phase::Open => self.io.is_wr_backpressure(),
            // Deliveries wait for CONNACK; one to a closed connection would be lost and counted as sent.
            Phase::Connecting | Phase::Closed => true,
        }
    }

    /// Bytes that the connection has in the budget for packets.
    pub(super) fn charged(&self) -> usize {
        let held = self.held.borrow().as_ref().map_or(0, |held| held.charge.bytes());
        self.frames.borrow().charged() + held
    }

    /// Nothing was read for about `elapsed`, so that silence and slowness in that time say nothing about the client.
    pub(super) fn excuse(&self, elapsed: Duration, now: Tick) {
        self.last_packet.set(excused(self.last_packet.get(), elapsed, now));
        self.packet_since.set(excused(self.packet_since.get(), elapsed, now));
    }

    /// The topic that an alias stands for, `None` when the PUBLISH names its topic. Aliases end with the connection.
    /// [MQTT5-3.3.2-7] [MQTT5-3.3.2-12]
    pub(super) fn resolve_alias(&self, topic: &str, alias: u16, max: u16) -> Result<Option<Rc<str>>, Fault> {
        const INVALID: Fault = Fault {
            reason: 0x94,
            text: "topic alias invalid",
        };
        const TOO_LONG: Fault = Fault {
            reason: 0x97,
            text: "topics with aliases are too long together",
        };
        if alias == 0 || alias > max {
            return Err(INVALID); // [MQTT5-3.3.2-8] [MQTT5-3.3.2-9]
        }
        let slot = usize::from(alias - 1);
        let mut aliases = self.aliases.borrow_mut();
        let known = aliases.get(slot).and_then(Option::as_ref);
        if topic.is_empty() {
            let known = known.ok_or(Fault::protocol("topic alias without a topic"))?;
            return Ok(Some(known.clone()));
        }
        if known.is_none_or(|known| **known != *topic) {
            let bytes = self.alias_bytes.get() - known.map_or(0, |known| known.len()) + topic.len();
            if bytes > ALIAS_BYTES_MAX {
                return Err(TOO_LONG);
            }
            self.alias_bytes.set(bytes);
            if aliases.len() <= slot {
                aliases.resize(slot + 1, None);
            }
            aliases[slot] = Some(topic.into());
        }
        Ok(None)
    }
}

/// `since` as it counts when for `elapsed` nothing could happen: later by that, but not in the future.
pub(super) fn excused(since: Tick, elapsed: Duration, now: Tick) -> Tick {
    since.after(elapsed).min(now)
}
