//! Our raw client as witness: it takes what a client program publishes and publishes what one shall receive.
//!
//! In: filters and messages with their encoded properties. Out: whole PUBLISH packets, properties included. It acknowledges each packet
//! and demands that the node keeps to the protocol. Packets that come while it waits for another are kept in their order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::{AckKind, ConnectOptions, Connection, Packet, Publish, Version, encode};
use fellbeck_tests::wait;

static IDS: AtomicUsize = AtomicUsize::new(0);

/// A connection of our own, always with 5.0.
#[derive(Debug)]
pub(crate) struct Raw {
    connection: Connection,
    waiting: VecDeque<Publish>,
    next_id: u16,
}

impl Raw {
    /// Connects with a session that ends with the connection.
    pub(crate) fn connect(at: SocketAddr) -> Self {
        let id = format!("witness-{}", IDS.fetch_add(1, Ordering::Relaxed));
        let (connection, answer) =
            Connection::open(at, &ConnectOptions::clean(Version::V5, &id)).expect("the node answers");
        assert_eq!(answer.reason, 0, "the node refused the witness");
        Self {
            connection,
            waiting: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Connects and subscribes to `filter` at QoS 2.
    pub(crate) fn watching(at: SocketAddr, filter: &str) -> Self {
        let mut raw = Self::connect(at);
        raw.subscribe(filter);
        raw
    }

    /// Subscribes at QoS 2.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        let id = self.free_id();
        self.send(&encode::subscribe(Version::V5, id, &[(filter, 2)]));
        self.take_until(
            "SUBACK",
            |packet| matches!(packet, Packet::SubAck { id: of, reasons } if *of == id && reasons == &[2]),
        );
    }

    /// Publishes and waits for the last acknowledgement of this QoS.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, properties: Vec<u8>) {
        let id = if qos > 0 { self.free_id() } else { 0 };
        let message = Publish {
            topic: topic.to_owned(),
            payload: payload.to_vec(),
            qos,
            retain: false,
            dup: false,
            id,
            properties,
        };
        self.send(&encode::publish(Version::V5, &message));
        match qos {
            0 => {}
            1 => self.await_ack(AckKind::PubAck, id),
            _ => {
                self.await_ack(AckKind::PubRec, id);
                self.send(&encode::ack(AckKind::PubRel, id));
                self.await_ack(AckKind::PubComp, id);
            }
        }
    }

    /// The next message.
    pub(crate) fn next(&mut self) -> Publish {
        if self.waiting.is_empty() {
            self.take_until("a message", |packet| matches!(packet, Packet::Publish(_)));
        }
        self.waiting.pop_front().expect("a message was waited for")
    }

    /// The next `count` messages.
    pub(crate) fn next_many(&mut self, count: usize) -> Vec<Publish> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Demands that no message is on its way: what the node sent before its answer to a ping has come.
    pub(crate) fn assert_silent(&mut self) {
        self.send(&encode::ping());
        self.take_until("PINGRESP", |packet| matches!(packet, Packet::PingResp));
        assert!(
            self.waiting.is_empty(),
            "nothing was to come, and there is {:?}",
            self.waiting
        );
    }

    fn await_ack(&mut self, kind: AckKind, id: u16) {
        self.take_until("an acknowledgement", |packet| {
            let Packet::Ack {
                kind: of,
                id: for_id,
                reason,
            } = packet
            else {
                return false;
            };
            let ours = (*of, *for_id) == (kind, id);
            assert!(!ours || *reason < 0x80, "{kind:?} with reason {reason:#x}");
            ours
        });
    }

    fn take_until(&mut self, what: &str, done: impl Fn(&Packet) -> bool) {
        let deadline = Instant::now() + wait::SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let packet = self.connection.recv(left.max(Duration::from_millis(1)));
            let packet = packet.unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            let packet = packet.unwrap_or_else(|| panic!("waited in vain for {what}"));
            let found = done(&packet);
            self.handle(packet);
            if found {
                return;
            }
        }
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => {
                match publish.qos {
                    0 => {}
                    1 => self.send(&encode::ack(AckKind::PubAck, publish.id)),
                    _ => self.send(&encode::ack(AckKind::PubRec, publish.id)),
                }
                assert!(!publish.dup, "a connection that was never lost gets nothing twice");
                self.waiting.push_back(publish);
            }
            Packet::Ack {
                kind: AckKind::PubRel,
                id,
                ..
            } => self.send(&encode::ack(AckKind::PubComp, id)),
            Packet::Disconnect { reason } => panic!("the node closed the witness with {reason:#x}"),
            _ => {}
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.connection.send(bytes).expect("the node reads");
    }

    fn free_id(&mut self) -> u16 {
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.next_id
    }
}
