//! What one device has handed to its MQTT client and not yet seen acknowledged.
//!
//! In: publishes, and the packet IDs of the packets that go out and come back. Out: which sequence each of them was.
//! The window is a *span*: the newest sequence is less than `window` above the oldest open one. The client's packet IDs
//! go round in a circle larger than the window, so that it never meets a packet ID still in use: its handling of such
//! a collision can lose a message.
//!
//! Pure: no socket, no clock. Order of calls per publish: `handle_queued`, `handle_sent`, then the ack.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::qos::Qos;

/// What a packet that left the client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Sent for the first time.
    First(u64),
    /// Sent again in the same session, with its packet ID and DUP.
    Again(u64),
    /// Sent again as a new message, since the broker had lost the session.
    Afresh(u64),
    /// Nothing that this table knows.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Queued {
    seq: u64,
    qos: Qos,
    /// It went out before, in a session that is gone.
    afresh: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    seq: u64,
    qos: Qos,
    /// QoS 2: PUBREC was seen, the message is with the broker.
    received: bool,
}

/// The table. Invariant: each open sequence is either queued or in one slot.
#[derive(Debug)]
pub struct Outstanding {
    window: u64,
    /// Handed to the client, not yet seen to leave; in order.
    queued: VecDeque<Queued>,
    /// By packet ID.
    slots: HashMap<u16, Slot>,
    open: BTreeSet<u64>,
}

impl Outstanding {
    /// An empty table with a window of at least one.
    pub fn new(window: u16) -> Self {
        let window = u64::from(window.max(1));
        Self {
            window,
            queued: VecDeque::new(),
            slots: HashMap::new(),
            open: BTreeSet::new(),
        }
    }

    /// Whether `seq` may be published now.
    pub fn has_room(&self, seq: u64) -> bool {
        self.open.first().is_none_or(|oldest| seq - oldest < self.window)
    }

    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// `seq` was handed to the client.
    pub fn handle_queued(&mut self, seq: u64, qos: Qos) {
        debug_assert!(self.has_room(seq), "published beyond the window");
        self.open.insert(seq);
        self.queued.push_back(Queued {
            seq,
            qos,
            afresh: false,
        });
    }

    /// A PUBLISH with this packet ID (0 for QoS 0) left the client.
    pub fn handle_sent(&mut self, packet_id: u16) -> Sent {
        if let Some(slot) = self.slots.get(&packet_id) {
            return Sent::Again(slot.seq);
        }
        let Some(queued) = self.queued.pop_front() else {
            return Sent::Unknown;
        };
        if queued.qos == Qos::AtMostOnce {
            self.open.remove(&queued.seq);
        } else {
            self.slots.insert(
                packet_id,
                Slot {
                    seq: queued.seq,
                    qos: queued.qos,
                    received: false,
                },
            );
        }
        if queued.afresh {
            Sent::Afresh(queued.seq)
        } else {
            Sent::First(queued.seq)
        }
    }

    /// PUBACK: gives the sequence that is done with it.
    pub fn handle_puback(&mut self, packet_id: u16) -> Option<u64> {
        let slot = self.slots.remove(&packet_id)?;
        self.open.remove(&slot.seq);
        Some(slot.seq)
    }

    /// PUBREC: the broker has the message, its packet ID stays in use until PUBCOMP.
    pub fn handle_pubrec(&mut self, packet_id: u16) -> Option<u64> {
        let slot = self.slots.get_mut(&packet_id)?;
        slot.received = true;
        Some(slot.seq)
    }

    /// PUBCOMP, or a PUBREC that refuses: the packet ID is free.
    pub fn handle_released(&mut self, packet_id: u16) -> Option<u64> {
        self.handle_puback(packet_id)
    }

    /// The broker has no session: what was in flight will be sent as new messages, before what is queued.
    pub fn handle_session_lost(&mut self) {
        let mut slots: Vec<Slot> = self.slots.drain().map(|(_, slot)| slot).collect();
        slots.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.seq));
        for slot in slots {
            if slot.received {
                self.open.remove(&slot.seq);
            } else {
                self.queued.push_front(Queued {
                    seq: slot.seq,
                    qos: slot.qos,
                    afresh: true,
                });
            }
        }
    }

    /// Order in which packet IDs were first sent; unknown ones come last.
    pub fn rank(&self, packet_id: u16) -> u64 {
        self.slots.get(&packet_id).map_or(u64::MAX, |slot| slot.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resend_is_told_from_a_first_send() {
        let mut table = Outstanding::new(8);
        table.handle_queued(1, Qos::AtLeastOnce);
        table.handle_queued(2, Qos::AtLeastOnce);
        assert_eq!(table.handle_sent(7), Sent::First(1));
        assert_eq!(table.handle_sent(8), Sent::First(2));
        assert_eq!(table.handle_sent(7), Sent::Again(1));
        assert_eq!(table.handle_puback(7), Some(1));
        assert_eq!(table.handle_puback(7), None);
        table.handle_queued(3, Qos::AtLeastOnce);
        assert_eq!(
            table.handle_sent(7),
            Sent::First(3),
            "an acked packet ID names a new message"
        );
    }

    #[test]
    fn the_window_is_a_span_above_the_oldest_open_message() {
        let mut table = Outstanding::new(2);
        table.handle_queued(1, Qos::AtLeastOnce);
        table.handle_queued(2, Qos::AtLeastOnce);
        assert!(!table.has_room(3));
        table.handle_sent(1);
        table.handle_sent(2);
        table.handle_puback(2);
        assert!(!table.has_room(3), "message 1 is still open");
        table.handle_puback(1);
        assert!(table.has_room(3));
    }

    #[test]
    fn a_lost_session_sends_again_in_order_what_the_broker_did_not_take() {
        let mut table = Outstanding::new(8);
        for (seq, qos) in [
            (1, Qos::AtLeastOnce),
            (2, Qos::ExactlyOnce),
            (3, Qos::AtLeastOnce),
            (4, Qos::AtLeastOnce),
        ] {
            table.handle_queued(seq, qos);
        }
        for packet_id in 1..=3 {
            table.handle_sent(packet_id);
        }
        assert_eq!(table.handle_pubrec(2), Some(2));
        table.handle_session_lost();
        assert_eq!(table.handle_sent(4), Sent::Afresh(1));
        assert_eq!(table.handle_sent(5), Sent::Afresh(3));
        assert_eq!(table.handle_sent(6), Sent::First(4));
        assert_eq!(table.handle_sent(0), Sent::Unknown);
    }

    #[test]
    fn qos_0_is_done_when_it_has_left() {
        let mut table = Outstanding::new(1);
        table.handle_queued(1, Qos::AtMostOnce);
        assert!(!table.is_empty());
        assert_eq!(table.handle_sent(0), Sent::First(1));
        assert!(table.is_empty());
    }
}
