//! A client with its session: publishes with a window, resends after a reconnect, receives at each QoS.
//!
//! In: publishes and subscriptions of a test. Out: [`Event`]s. Owns the in-flight list, which survives the connection, and the packet
//! IDs of QoS 2 messages received and not released. It acknowledges what it hands out, so a test that wants to hold an
//! acknowledgement back uses a [`Connection`] itself. A lost connection is an event, not an error.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::{ConnAck, Connection};
use super::packet::{AckKind, ConnectOptions, Packet, Publish, encode};

/// Longest wait for a SUBACK.
const SUBACK_MAX: Duration = Duration::from_secs(20);

/// A message received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS of the delivery.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
}

/// Reason code "Packet Identifier not found".
const PACKET_ID_NOT_FOUND: u8 = 0x92;

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The publish with this tag is acknowledged in full: PUBACK, or PUBREC at QoS 2 (the node has it; the release follows).
    Acked {
        /// Tag given to [`Client::publish`].
        tag: usize,
    },
    /// The node refused the publish with this tag.
    Rejected {
        /// Tag given to [`Client::publish`].
        tag: usize,
        /// Reason code.
        reason: u8,
    },
    /// A message came. A repeated QoS 2 delivery that the session knows is not one.
    Message(Message),
    /// The connection is gone; with the reason of a DISCONNECT, if one came.
    Lost {
        /// Reason code of DISCONNECT.
        reason: Option<u8>,
    },
}

#[derive(Debug)]
struct InFlight {
    message: Publish,
    tag: usize,
    /// PUBREC has come: only the release is open.
    released: bool,
}

/// A client and its session.
#[derive(Debug)]
pub struct Client {
    options: ConnectOptions,
    connection: Option<Connection>,
    in_flight: VecDeque<InFlight>,
    unreleased: HashSet<u16>,
    events: VecDeque<Event>,
    replies: Vec<u8>,
    next_id: u16,
    window: u16,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(options: ConnectOptions) -> Self {
        Self {
            options,
            connection: None,
            in_flight: VecDeque::new(),
            unreleased: HashSet::new(),
            events: VecDeque::new(),
            replies: Vec::new(),
            next_id: 0,
            window: u16::MAX,
        }
    }

    /// A client that is connected, for tests in which nothing refuses it.
    ///
    /// # Panics
    /// When the connection fails or is refused.
    #[must_use]
    pub fn connected(at: SocketAddr, options: ConnectOptions) -> Self {
        let mut client = Self::new(options);
        let answer = client
            .connect(at)
            .unwrap_or_else(|error| panic!("connecting to {at}: {error}"));
        assert_eq!(answer.reason, 0, "the node refused the connection");
        client
    }

    /// Connects and, where the session has open publishes, resends them in their order with DUP. Returns the node's answer; after a
    /// refusal the client is not connected.
    ///
    /// # Errors
    /// When the socket fails before the node has answered; nothing was resent then. A later failure shows as [`Event::Lost`].
    pub fn connect(&mut self, at: SocketAddr) -> io::Result<ConnAck> {
        let (connection, answer) = Connection::open(at, &self.options)?;
        if answer.reason != 0 {
            return Ok(answer);
        }
        self.window = answer.receive_maximum;
        self.replies.clear();
        if !answer.session_present {
            // The node has forgotten the session: what was released is done, the rest is new to it.
            self.unreleased.clear();
            self.in_flight.retain(|open| !open.released);
        }
        let mut again = Vec::new();
        for open in &mut self.in_flight {
            if open.released {
                again.extend(encode::ack(AckKind::PubRel, open.message.id));
            } else {
                open.message.dup = answer.session_present;
                again.extend(encode::publish(self.options.version, &open.message));
            }
        }
        self.connection = Some(connection);
        self.write(&again);
        Ok(answer)
    }

    /// True while the connection is not known to be gone.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Publishes not acknowledged in full.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// True while the node's Receive Maximum allows another publish above QoS 0.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < usize::from(self.window)
    }

    /// Tags of the publishes that a reconnect would send again.
    pub fn unacked_tags(&self) -> impl Iterator<Item = usize> + '_ {
        self.in_flight.iter().filter(|open| !open.released).map(|open| open.tag)
    }

    /// Publishes. `tag` comes back in the event. A failed write shows as [`Event::Lost`]; the message stays in flight.
    pub fn publish(&mut self, topic: &str, payload: Vec<u8>, qos: u8, tag: usize) {
        self.publish_message(topic, payload, (qos, false, Vec::new()), tag);
    }

    /// Publishes with encoded properties (5.0 only).
    pub fn publish_with(&mut self, topic: &str, payload: Vec<u8>, (qos, properties): (u8, Vec<u8>), tag: usize) {
        self.publish_message(topic, payload, (qos, false, properties), tag);
    }

    /// Publishes with the retain flag.
    pub fn publish_retained(&mut self, topic: &str, payload: Vec<u8>, qos: u8, tag: usize) {
        self.publish_message(topic, payload, (qos, true, Vec::new()), tag);
    }

    fn publish_message(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        (qos, retain, properties): (u8, bool, Vec<u8>),
        tag: usize,
    ) {
        let id = if qos > 0 { self.free_id() } else { 0 };
        let message = Publish {
            topic: topic.to_owned(),
            payload,
            qos,
            retain,
            dup: false,
            id,
            properties,
        };
        let bytes = encode::publish(self.options.version, &message);
        if qos > 0 {
            self.in_flight.push_back(InFlight {
                message,
                tag,
                released: false,
            });
        }
        self.write(&bytes);
    }

    /// Subscribes and waits for SUBACK; messages that come meanwhile are kept as events. Returns the codes.
    ///
    /// # Panics
    /// When the connection ends or no SUBACK comes.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.free_id();
        self.write(&encode::subscribe(self.options.version, id, filters));
        let deadline = Instant::now() + SUBACK_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read(left) {
                Some(Packet::SubAck { id: of, reasons }) if of == id => return reasons,
                Some(packet) => self.handle(packet),
                None => panic!("no SUBACK for {filters:?}; events: {:?}", self.events),
            }
            self.flush_replies();
        }
    }

    /// Waits up to `within` for something to happen and returns all that has.
    pub fn poll(&mut self, within: Duration) -> Vec<Event> {
        if self.events.is_empty()
            && let Some(packet) = self.read(within)
        {
            self.handle(packet);
            while let Some(packet) = self.read_buffered() {
                self.handle(packet);
            }
            self.flush_replies();
        }
        self.events.drain(..).collect()
    }

    /// Polls until `done` says that it has seen enough; false when `within` ended first or the connection was lost.
    pub fn poll_until(&mut self, within: Duration, mut done: impl FnMut(Event) -> bool) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            for event in self.poll(left) {
                if done(event) {
                    return true;
                }
            }
            if left.is_zero() || !self.is_connected() {
                return false;
            }
        }
    }

    /// Closes the socket without DISCONNECT, as a device that loses power.
    pub fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// Sends DISCONNECT and closes.
    pub fn disconnect(&mut self) {
        self.write(&encode::disconnect());
        self.connection = None;
    }

    /// Sends PINGREQ.
    pub fn ping(&mut self) {
        self.write(&encode::ping());
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.iter().any(|open| open.message.id == self.next_id) {
                return self.next_id;
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(connection) = &mut self.connection
            && connection.send(bytes).is_err()
        {
            self.lose(None);
        }
    }

    fn flush_replies(&mut self) {
        let replies = std::mem::take(&mut self.replies);
        if !replies.is_empty() {
            self.write(&replies);
        }
    }

    fn read(&mut self, within: Duration) -> Option<Packet> {
        let outcome = self.connection.as_mut()?.recv(within);
        self.settle(outcome)
    }

    fn read_buffered(&mut self) -> Option<Packet> {
        let outcome = self.connection.as_mut()?.buffered();
        self.settle(outcome)
    }

    fn settle(&mut self, outcome: io::Result<Option<Packet>>) -> Option<Packet> {
        match outcome {
            Ok(packet) => packet,
            Err(error) => {
                assert_ne!(
                    error.kind(),
                    io::ErrorKind::InvalidData,
                    "{}: {error}",
                    self.options.client_id
                );
                self.lose(None);
                None
            }
        }
    }

    fn lose(&mut self, reason: Option<u8>) {
        if self.connection.take().is_some() {
            self.events.push_back(Event::Lost { reason });
        }
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::Ack { kind, id, reason } => self.handle_ack(kind, id, reason),
            Packet::Disconnect { reason } => self.lose(Some(reason)),
            Packet::PingResp | Packet::SubAck { .. } | Packet::UnsubAck { .. } => {}
            Packet::ConnAck { .. } => panic!("{}: a second CONNACK", self.options.client_id),
        }
    }

    fn handle_publish(&mut self, publish: Publish) {
        let new = match publish.qos {
            0 => true,
            1 => {
                self.replies.extend(encode::ack(AckKind::PubAck, publish.id));
                true
            }
            _ => {
                self.replies.extend(encode::ack(AckKind::PubRec, publish.id));
                self.unreleased.insert(publish.id)
            }
        };
        if new {
            let Publish {
                topic,
                payload,
                qos,
                retain,
                dup,
                ..
            } = publish;
            self.events.push_back(Event::Message(Message {
                topic,
                payload,
                qos,
                retain,
                dup,
            }));
        }
    }

    fn handle_ack(&mut self, kind: AckKind, id: u16, reason: u8) {
        if kind == AckKind::PubRel {
            self.unreleased.remove(&id);
            self.replies.extend(encode::ack(AckKind::PubComp, id));
            return;
        }
        let Some(at) = self.in_flight.iter().position(|open| open.message.id == id) else {
            if kind == AckKind::PubRec {
                // Not known here any more: release it, so that the node can forget it too.
                self.replies.extend(encode::ack(AckKind::PubRel, id));
            }
            return;
        };
        let open = &mut self.in_flight[at];
        let tag = open.tag;
        // "Packet Identifier not found" in a PUBCOMP is no error during recovery: the release had come through before a kill took its
        // answer (MQTT 5, table of PUBCOMP reason codes).
        let released_before = kind == AckKind::PubComp && reason == PACKET_ID_NOT_FOUND;
        if reason >= 0x80 && !released_before {
            self.in_flight.remove(at);
            self.events.push_back(Event::Rejected { tag, reason });
            return;
        }
        if kind == AckKind::PubRec {
            let first = !std::mem::replace(&mut open.released, true);
            self.replies.extend(encode::ack(AckKind::PubRel, id));
            if first {
                self.events.push_back(Event::Acked { tag });
            }
            return;
        }
        let acked_before = open.released;
        self.in_flight.remove(at);
        if !acked_before {
            self.events.push_back(Event::Acked { tag });
        }
    }
}
