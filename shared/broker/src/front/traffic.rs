//! What went over the sockets: packets and their bytes, both ways, for metrics and `$SYS`.
//!
//! Counted are MQTT packets, without what TLS and WebSocket add: a received one when it is whole and its turn has come, a sent one
//! when it is put into the write buffer. Shared by `Rc` between the broker and its connections.

use fellbeck_core::QoS;
use metrics::counter;

use crate::tally::Tally;

/// Counts since the start of the node.
pub(super) struct Traffic {
    /// Sockets accepted.
    pub(super) sockets: Tally,
    /// CONNECT packets.
    pub(super) connects: Tally,
    received: Tally,
    received_bytes: Tally,
    sent: Tally,
    sent_bytes: Tally,
    /// PUBLISH packets taken, by QoS.
    published: [Tally; 3],
    published_bytes: Tally,
    /// PUBLISH packets sent, by QoS.
    delivered: [Tally; 3],
    delivered_bytes: Tally,
}

impl Traffic {
    pub(super) fn new() -> Self {
        let by_qos = |name: &'static str| [0, 1, 2].map(|qos: u8| Tally::new(counter!(name, "qos" => qos.to_string())));
        let count = |name: &'static str| Tally::new(counter!(name));
        Self {
            sockets: count("fellbeck_broker_sockets_total"),
            connects: count("fellbeck_broker_connect_packets_total"),
            received: count("fellbeck_broker_received_packets_total"),
            received_bytes: count("fellbeck_broker_received_bytes_total"),
            sent: count("fellbeck_broker_sent_packets_total"),
            sent_bytes: count("fellbeck_broker_sent_bytes_total"),
            published: by_qos("fellbeck_broker_received_total"),
            published_bytes: count("fellbeck_broker_received_payload_bytes_total"),
            delivered: by_qos("fellbeck_broker_sent_total"),
            delivered_bytes: count("fellbeck_broker_sent_payload_bytes_total"),
        }
    }

    /// One packet came in, of so many bytes in all.
    pub(super) fn receive(&self, bytes: usize) {
        self.received.increment(1);
        self.received_bytes.increment(bytes as u64);
    }

    /// One packet goes out.
    pub(super) fn send(&self, bytes: usize) {
        self.sent.increment(1);
        self.sent_bytes.increment(bytes as u64);
    }

    pub(super) fn published(&self, qos: QoS, bytes: usize) {
        self.published[qos as usize].increment(1);
        self.published_bytes.increment(bytes as u64);
    }

    pub(super) fn delivered(&self, qos: QoS, bytes: usize) {
        self.delivered[qos as usize].increment(1);
        self.delivered_bytes.increment(bytes as u64);
    }

    /// All counts at this moment.
    pub(super) fn read(&self) -> Counts {
        let all = |tallies: &[Tally; 3]| tallies.iter().map(Tally::get).sum();
        Counts {
            sockets: self.sockets.get(),
            connects: self.connects.get(),
            received: self.received.get(),
            received_bytes: self.received_bytes.get(),
            sent: self.sent.get(),
            sent_bytes: self.sent_bytes.get(),
            published: all(&self.published),
            published_bytes: self.published_bytes.get(),
            delivered: all(&self.delivered),
            delivered_bytes: self.delivered_bytes.get(),
        }
    }
}

/// The counts of [`Traffic`] at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) sockets: u64,
    pub(super) connects: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) published: u64,
    pub(super) published_bytes: u64,
    pub(super) delivered: u64,
    pub(super) delivered_bytes: u64,
}
