//! What the core sends, kept in order until it is judged.

use std::collections::BTreeSet;

use fellbeck_broker::wire::{Close, ConnId, PacketOut, Wire};
use fellbeck_core::QoS;

/// A packet to a client, as far as anything is asserted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    ConnAck(bool, u8),
    Publish(Delivered),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    SubAck(u16),
    UnsubAck(u16),
    Closed,
}

/// A PUBLISH to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) packet_id: Option<u16>,
    pub(super) dup: bool,
    pub(super) qos: QoS,
    pub(super) payload: Vec<u8>,
}

/// The connections, as the core sees them.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) sent: Vec<(ConnId, Out)>,
    pub(super) backlogged: BTreeSet<ConnId>,
    /// Those that take no PUBLISH at all, since their Maximum Packet Size is too small for it.
    pub(super) small: BTreeSet<ConnId>,
    closed: BTreeSet<ConnId>,
}

impl Tape {
    fn note(&mut self, to: ConnId, out: Out) {
        assert!(!self.closed.contains(&to), "{out:?} behind the end of {to:?}");
        self.sent.push((to, out));
    }
}

impl Wire for Tape {
    fn send(&mut self, to: ConnId, packet: PacketOut<'_>) -> bool {
        let out = match packet {
            PacketOut::ConnAck {
                session_present,
                reason,
            } => Out::ConnAck(session_present, reason),
            PacketOut::Publish(delivery) => {
                assert!(!self.backlogged.contains(&to), "a PUBLISH to a backlogged connection");
                if self.small.contains(&to) {
                    return false;
                }
                assert_ne!(delivery.expiry_secs, Some(0), "an expired message is not sent");
                Out::Publish(Delivered {
                    packet_id: delivery.packet_id,
                    dup: delivery.dup,
                    qos: delivery.qos,
                    payload: delivery.record.payload.to_vec(),
                })
            }
            PacketOut::PubAck { packet_id, reason } => Out::PubAck(packet_id, reason),
            PacketOut::PubRec { packet_id, reason } => Out::PubRec(packet_id, reason),
            PacketOut::PubRel { packet_id, .. } => Out::PubRel(packet_id),
            PacketOut::PubComp { packet_id, .. } => Out::PubComp(packet_id),
            PacketOut::SubAck { packet_id, .. } => Out::SubAck(packet_id),
            PacketOut::UnsubAck { packet_id, .. } => Out::UnsubAck(packet_id),
        };
        self.note(to, out);
        true
    }

    fn is_backlogged(&self, to: ConnId) -> bool {
        self.backlogged.contains(&to)
    }

    fn close(&mut self, to: ConnId, _why: Close) {
        self.note(to, Out::Closed);
        self.closed.insert(to);
    }
}
