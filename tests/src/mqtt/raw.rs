//! A connection of bare bytes: what a test sends is what goes out, and what comes back is read strictly.
//!
//! In: bytes, right or wrong. Out: whole packets, in order, or the close. Every wait ends at a deadline with a panic that says what was
//! awaited, so a test is a list of steps. That nothing came is never shown by waiting: a PINGREQ or a marker message draws an answer, and
//! what is not in front of that answer did not come.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::answer::{self, Answer, Delivery, Property};
use super::packet::{AckKind, Publish, Version, encode};
use super::wire::{hex, packet, properties, text};
use super::{Connect, wire};
use crate::wait;

/// Bytes asked from the socket at once.
const READ_SIZE: usize = 16 * 1024;

/// The CONNACK that accepted a connection.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Session Present.
    pub session_present: bool,
    /// Properties in order.
    pub properties: Vec<Property>,
}

impl Accepted {
    /// Value of the first property `id`.
    #[must_use]
    pub fn property(&self, id: u8) -> Option<&[u8]> {
        answer::value_of(&self.properties, id)
    }
}

/// One TCP connection. Dropping it closes the socket without DISCONNECT.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Version in which answers are read.
    pub version: Version,
    buffer: Vec<u8>,
    next_id: u16,
}

impl Raw {
    /// Opens the socket and sends nothing.
    ///
    /// # Panics
    /// When the node does not accept.
    #[must_use]
    pub fn open(at: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&at, wait::SOON).expect("the node accepts");
        stream.set_nodelay(true).expect("a socket takes options");
        stream
            .set_write_timeout(Some(wait::SOON))
            .expect("a socket takes options");
        Self {
            stream,
            version,
            buffer: Vec::new(),
            next_id: 1000,
        }
    }

    /// Opens the socket, sends CONNECT and demands that it is accepted.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn connect(at: SocketAddr, connect: &Connect) -> (Self, Accepted) {
        let mut raw = Self::open(at, connect.version);
        raw.send(&connect.bytes());
        let accepted = raw.expect_accepted();
        (raw, accepted)
    }

    /// The same, when only the connection is of interest.
    ///
    /// # Panics
    /// When it is not accepted.
    #[must_use]
    pub fn connected(at: SocketAddr, connect: &Connect) -> Self {
        Self::connect(at, connect).0
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the socket does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the node takes what is sent");
    }

    /// Sends bytes that the node may refuse by closing before all is written.
    pub fn send_anyway(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Sends bytes from hexadecimal digits.
    pub fn send_hex(&mut self, digits: &str) {
        self.send(&hex(digits));
    }

    /// Closes the sending half.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }

    /// Closes the socket with a reset, as a network failure does.
    ///
    /// # Panics
    /// When the socket takes no options.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket takes options");
    }

    /// Bytes of the next whole packet; `None` when the node has closed.
    ///
    /// # Panics
    /// At the deadline, or when the close cuts a packet.
    pub fn recv_bytes(&mut self) -> Option<Vec<u8>> {
        self.recv_bytes_within(wait::SOON)
    }

    /// The same with a deadline of its own.
    ///
    /// # Panics
    /// At the deadline, or when the close cuts a packet.
    pub fn recv_bytes_within(&mut self, within: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(len) = whole(&self.buffer) {
                return Some(self.buffer.drain(..len).collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "neither packet nor close within {within:?}; so far {:02x?}",
                self.buffer
            );
            if !self.fill(left) {
                assert!(self.buffer.is_empty(), "closed within a packet: {:02x?}", self.buffer);
                return None;
            }
        }
    }

    /// Reads once; false when the node has closed.
    fn fill(&mut self, within: Duration) -> bool {
        self.stream
            .set_read_timeout(Some(within))
            .expect("a socket takes options");
        let mut chunk = vec![0; READ_SIZE];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => true,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => false,
                kind => panic!("reading failed: {kind:?}"),
            },
        }
    }

    /// The next packet if it comes at once; to be asked again, of several connections in turn.
    ///
    /// # Panics
    /// When it is not well formed.
    pub fn poll(&mut self) -> Option<Answer> {
        if whole(&self.buffer).is_none() {
            self.fill(Duration::from_millis(2));
        }
        let len = whole(&self.buffer)?;
        let bytes: Vec<u8> = self.buffer.drain(..len).collect();
        Some(self.read(&bytes))
    }

    /// The next packet.
    ///
    /// # Panics
    /// When there is none, or it is not well formed.
    pub fn recv(&mut self) -> Answer {
        let bytes = self.recv_bytes().expect("a packet, not a close");
        self.read(&bytes)
    }

    fn read(&self, bytes: &[u8]) -> Answer {
        let head = bytes.len() - body_len(bytes);
        answer::read(self.version, bytes[0], &bytes[head..])
            .unwrap_or_else(|rule| panic!("the node broke a rule: {rule:?}: {bytes:02x?}"))
    }

    /// Demands exactly these bytes as the next packet.
    ///
    /// # Panics
    /// When another one comes, or none.
    pub fn expect_hex(&mut self, digits: &str) {
        let bytes = self.recv_bytes();
        assert_eq!(bytes.as_deref(), Some(hex(digits).as_slice()), "expected {digits}");
    }

    /// Demands this packet next.
    ///
    /// # Panics
    /// When another one comes, or none.
    pub fn expect(&mut self, wanted: &Answer) {
        assert_eq!(&self.recv(), wanted);
    }

    /// Demands a CONNACK that accepts.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_accepted(&mut self) -> Accepted {
        match self.recv() {
            Answer::ConnAck {
                session_present,
                reason: 0,
                properties,
            } => Accepted {
                session_present,
                properties,
            },
            other => panic!("expected a CONNACK that accepts, got {other:02x?}"),
        }
    }

    /// Demands a CONNACK with this reason and Session Present 0, then the close.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_refused(&mut self, wanted: u8) {
        match self.recv() {
            Answer::ConnAck {
                session_present: false,
                reason,
                ..
            } if reason == wanted => self.expect_close(),
            other => panic!("expected a CONNACK that refuses with {wanted:#04x}, got {other:02x?}"),
        }
    }

    /// Demands the close, with no packet before it.
    ///
    /// # Panics
    /// When a packet comes, or the connection stays open.
    pub fn expect_close(&mut self) {
        self.expect_close_within(wait::SOON);
    }

    /// The same with a deadline of its own.
    ///
    /// # Panics
    /// When a packet comes, or the connection stays open.
    pub fn expect_close_within(&mut self, within: Duration) {
        if let Some(bytes) = self.recv_bytes_within(within) {
            panic!("expected the close, got {:02x?}", self.read(&bytes));
        }
    }

    /// Demands that the node ends the connection for this reason: DISCONNECT with it in 5.0, and the close in both.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_end(&mut self, wanted: u8) {
        if self.version == Version::V5 {
            match self.recv() {
                Answer::Disconnect { reason, .. } if reason == wanted => {}
                other => panic!("expected DISCONNECT {wanted:#04x}, got {other:02x?}"),
            }
        }
        self.expect_close();
    }

    /// Demands an acknowledgement; in 3.1.1 the reason is 0. Its properties may be anything.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_ack(&mut self, wanted: AckKind, wanted_id: u16, wanted_reason: u8) {
        match self.recv() {
            Answer::Ack { kind, id, reason, .. } if (kind, id, reason) == (wanted, wanted_id, wanted_reason) => {}
            other => panic!("expected {wanted:?} {wanted_id} {wanted_reason:#04x}, got {other:02x?}"),
        }
    }

    /// Demands a PUBLISH; it is not acknowledged.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_publish(&mut self) -> Delivery {
        match self.recv() {
            Answer::Publish(delivery) => delivery,
            other => panic!("expected PUBLISH, got {other:02x?}"),
        }
    }

    /// Demands a PUBLISH with this payload; it is not acknowledged.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn expect_message(&mut self, payload: &str) -> Delivery {
        let delivery = self.expect_publish();
        assert_eq!(delivery.text(), payload, "{delivery:?}");
        delivery
    }

    /// PINGREQ, and demands that PINGRESP is the next packet: the connection lives, and nothing else was on its way.
    ///
    /// # Panics
    /// When anything else comes.
    pub fn ping(&mut self) {
        self.send(&encode::ping());
        self.expect(&Answer::PingResp);
    }

    /// A Packet Identifier that this connection has not used.
    pub fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// SUBSCRIBE to one filter with its options byte; the reason code.
    ///
    /// # Panics
    /// When no matching SUBACK is the next packet.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_all(&[], &[(filter, options)])[0]
    }

    /// SUBSCRIBE with properties (5.0 only) to several filters; the reason codes.
    ///
    /// # Panics
    /// When no matching SUBACK is the next packet.
    pub fn subscribe_all(&mut self, list: &[Vec<u8>], filters: &[(&str, u8)]) -> Vec<u8> {
        let wanted = self.fresh_id();
        let payload: Vec<u8> = filters
            .iter()
            .flat_map(|(filter, options)| [text(filter), vec![*options]].concat())
            .collect();
        self.send(&packet(0x82, &[&wanted.to_be_bytes(), &self.section(list), &payload]));
        match self.recv() {
            Answer::SubAck { id, reasons, .. } if id == wanted && reasons.len() == filters.len() => reasons,
            other => panic!(
                "expected SUBACK {wanted} with {} codes, got {other:02x?}",
                filters.len()
            ),
        }
    }

    /// UNSUBSCRIBE; the reason codes (none in 3.1.1).
    ///
    /// # Panics
    /// When no matching UNSUBACK is the next packet.
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let wanted = self.fresh_id();
        let payload: Vec<u8> = filters.iter().flat_map(text).collect();
        self.send(&packet(0xA2, &[&wanted.to_be_bytes(), &self.section(&[]), &payload]));
        match self.recv() {
            Answer::UnsubAck { id, reasons, .. } if id == wanted => reasons,
            other => panic!("expected UNSUBACK {wanted}, got {other:02x?}"),
        }
    }

    /// Property section of this version.
    #[must_use]
    pub fn section(&self, list: &[Vec<u8>]) -> Vec<u8> {
        match self.version {
            Version::V3 => Vec::new(),
            Version::V5 => properties(list),
        }
    }

    /// Sends a PUBLISH as it stands; nothing is awaited.
    pub fn send_publish(&mut self, message: &Publish) {
        self.send(&encode::publish(self.version, message));
    }

    /// Publishes and carries the exchange of its QoS through to the end. An identifier of 0 is replaced by a fresh one.
    ///
    /// # Panics
    /// When anything but the acknowledgements comes.
    pub fn publish(&mut self, message: &Publish) {
        let id = if message.qos > 0 && message.id == 0 {
            self.fresh_id()
        } else {
            message.id
        };
        self.send_publish(&Publish { id, ..message.clone() });
        match message.qos {
            0 => {}
            1 => self.expect_any_success(AckKind::PubAck, id),
            _ => {
                self.expect_any_success(AckKind::PubRec, id);
                self.send(&encode::ack(AckKind::PubRel, id));
                self.expect_ack(AckKind::PubComp, id, 0);
            }
        }
    }

    /// Success includes 0x10: nobody has subscribed.
    fn expect_any_success(&mut self, wanted: AckKind, wanted_id: u16) {
        match self.recv() {
            Answer::Ack { kind, id, reason, .. } if (kind, id) == (wanted, wanted_id) && reason < 0x80 => {}
            other => panic!("expected {wanted:?} {wanted_id}, got {other:02x?}"),
        }
    }

    /// Acknowledges a delivery and carries the exchange of its QoS through to the end.
    ///
    /// # Panics
    /// When anything but PUBREL comes at QoS 2.
    pub fn acknowledge(&mut self, delivery: &Delivery) {
        match delivery.qos {
            0 => {}
            1 => self.send(&encode::ack(AckKind::PubAck, delivery.id)),
            _ => {
                self.send(&encode::ack(AckKind::PubRec, delivery.id));
                self.expect_ack(AckKind::PubRel, delivery.id, 0);
                self.send(&encode::ack(AckKind::PubComp, delivery.id));
            }
        }
    }

    /// DISCONNECT with reason 0, and waits until the node has closed, so that the next step finds the session detached.
    ///
    /// # Panics
    /// When anything but the close comes.
    pub fn disconnect(mut self) {
        self.send(&encode::disconnect());
        self.expect_close();
    }

    /// DISCONNECT with a reason and properties (5.0), and waits for the close.
    ///
    /// # Panics
    /// When anything but the close comes.
    pub fn disconnect_with(mut self, reason: u8, list: &[Vec<u8>]) {
        self.send(&packet(0xE0, &[&[reason], &wire::properties(list)]));
        self.expect_close();
    }
}

/// Length of the first packet in `bytes`, when it is there in whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for at in 0..4 {
        let byte = *bytes.get(1 + at)?;
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            assert!(
                byte != 0 || at == 0,
                "a Remaining Length of too many bytes: {bytes:02x?}"
            );
            let total = 2 + at + len;
            return (bytes.len() >= total).then_some(total);
        }
    }
    panic!("a Remaining Length of more than four bytes: {bytes:02x?}");
}

/// Bytes of the body of a whole packet.
fn body_len(bytes: &[u8]) -> usize {
    let head = bytes[1..]
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .map_or(0, |at| at + 2);
    bytes.len() - head
}
