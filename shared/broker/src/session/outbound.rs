//! What one session is sent: the single place where a PUBLISH leaves, and what follows from the client's acknowledgements.
//!
//! Order on the wire: messages sent again after a resume, then retained messages of new subscriptions, then the queue. Nothing
//! passes a QoS 2 message that waits for its packet ID to be durable, so that a session sees one order.
//! Bounds: the client's Receive Maximum [MQTT5-3.3.4-9], the table's own bound, and the write buffer of the connection.

use fellbeck_core::{DropReason, QoS};

use super::edge::is_edge;
use super::in_flight::{Entry, Source, Step};
use super::ledger::ReaderLedger;
use super::message::{Item, MessageRef, Offer, Place};
use super::state::Session;
use super::turn::Turn;
use super::work::{Awaited, Work};
use crate::wire::{Delivery, PacketOut, Wire};

/// What became of one message that a reader took up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// QoS 0, handed to the connection.
    Done,
    InFlight,
    Expired,
    Dropped(DropReason),
}

impl Fate {
    /// Enters a message that was just taken up into the books of its reader.
    pub(super) fn count(self, ledger: &mut ReaderLedger, work: &Work) {
        ledger.matched += 1;
        match self {
            Self::Done => ledger.acked += 1,
            Self::InFlight => {}
            Self::Expired => {
                ledger.expired += 1;
                work.counters.dropped(DropReason::Expired, 1);
            }
            Self::Dropped(reason) => {
                ledger.drop_taken(reason, 1);
                work.counters.dropped(reason, 1);
            }
        }
    }
}

impl Session {
    /// Whether a message at `qos` may be sent at this moment, all queues apart.
    pub(super) fn may_send<W: Wire>(&self, qos: QoS, turn: &Turn<'_, W>) -> bool {
        let Some(attached) = self.ready() else {
            return false;
        };
        let in_order = self.reserved.is_empty() || (qos == QoS::ExactlyOnce && self.is_durable());
        in_order && (qos == QoS::AtMostOnce || self.has_window()) && !turn.wire.is_backlogged(attached.id)
    }

    fn has_window(&self) -> bool {
        self.attached
            .is_some_and(|attached| attached.used < attached.window && self.in_flight.has_free_id())
    }

    /// Whether a new message at `qos` may go past all queues, which must be empty for that.
    pub(super) fn takes_now<W: Wire>(&self, qos: QoS, turn: &Turn<'_, W>) -> bool {
        self.reader.queue.is_empty() && self.is_caught_up() && self.may_send(qos, turn)
    }

    /// Nothing older than the live messages is still to be sent.
    pub(super) fn is_caught_up(&self) -> bool {
        self.resend.is_empty() && !self.snapshots.is_active()
    }

    /// Sends a message, or reserves its packet ID. The caller has checked that it may.
    pub(super) fn deliver<W: Wire>(&mut self, offer: &Offer<'_>, work: &mut Work, turn: &mut Turn<'_, W>) -> Fate {
        let remaining = turn.now.remaining_expiry_secs(&offer.record);
        if remaining == Some(0) {
            // [MQTT5-3.3.2-5]
            return Fate::Expired;
        }
        work.counters.delivered[offer.qos as usize].increment(1);
        if offer.qos == QoS::AtMostOnce {
            let sent = self.send_publish(offer, None, remaining, turn);
            return if sent {
                Fate::Done
            } else {
                Fate::Dropped(DropReason::PacketTooLarge)
            };
        }
        let mut source = Source::of(offer);
        let is_kept = match offer.place {
            Place::Group(_, _, None) => true,
            // To an edge an older value must not come behind a newer one that it has: it would drop the newer one as a repetition.
            Place::Retained(..) => {
                self.is_durable() && !is_edge(&self.client_id) && self.in_flight.has_room_for_retained(offer.bytes())
            }
            _ => self.is_durable(),
        };
        if is_kept {
            source.keep(|| offer.to_item());
        }
        // Also where no log holds the message: a restart must not give its packet ID to another, which the client, who holds it,
        // would throw away. [MQTT5-4.3.3-10]
        if offer.qos == QoS::ExactlyOnce && self.is_durable() {
            self.reserve(offer, source, work);
            return Fate::InFlight;
        }
        let packet_id = self.in_flight.add(offer.qos, Step::Sent, source);
        if !self.send_publish(offer, Some(packet_id), remaining, turn) {
            self.in_flight.remove(packet_id);
            return Fate::Dropped(DropReason::PacketTooLarge);
        }
        self.use_window(1);
        self.moved(work);
        Fate::InFlight
    }

    /// Durable before sent: the PUBLISH leaves after the commit that holds its packet ID.
    fn reserve(&mut self, offer: &Offer<'_>, source: Source, work: &mut Work) {
        let packet_id = self.in_flight.add(offer.qos, Step::Reserved, source);
        self.reserved.push_back((packet_id, offer.to_item()));
        self.use_window(1);
        self.await_reserved(packet_id, work);
    }

    fn await_reserved(&mut self, packet_id: u16, work: &mut Work) {
        self.store_now(work);
        if let Some(attached) = self.attached {
            let session = self.key;
            work.wait(attached.id, Awaited::Publish { session, packet_id });
        }
    }

    fn use_window(&mut self, n: u16) {
        if let Some(attached) = &mut self.attached {
            attached.used += n;
            debug_assert!(
                attached.used <= attached.window,
                "the client's Receive Maximum is never exceeded"
            );
        }
    }

    /// One exchange is complete (section 4.9).
    pub(super) fn free_window(&mut self) {
        if let Some(attached) = &mut self.attached {
            attached.used = attached.used.saturating_sub(1);
        }
    }

    /// [MQTT5-3.3.1-1]
    fn may_have_been_sent(&self, offer: &Offer<'_>) -> bool {
        offer.qos != QoS::AtMostOnce
            && matches!(offer.place, Place::Log(position) if self.bound.may_have_been_sent(position.commit))
    }

    fn send_publish<W: Wire>(
        &self,
        offer: &Offer<'_>,
        packet_id: Option<u16>,
        expiry_secs: Option<u32>,
        turn: &mut Turn<'_, W>,
    ) -> bool {
        let Some(attached) = self.attached else {
            return false;
        };
        let position = match offer.place {
            Place::Log(position) => Some(position),
            Place::Retained(..) | Place::Memory | Place::Group(..) => None,
        };
        turn.wire.send(
            attached.id,
            PacketOut::Publish(Delivery {
                packet_id,
                dup: self.may_have_been_sent(offer),
                qos: offer.qos,
                retain: offer.retain,
                record: offer.record,
                expiry_secs,
                subscription_ids: offer.ids,
                position,
            }),
        )
    }

    /// The commit that holds the packet ID of the oldest reserved message is durable.
    pub(super) fn reserved_is_durable(&mut self, packet_id: u16) {
        let next = self.reserved.get(self.reserved_durable);
        if next.is_some_and(|(reserved, _)| *reserved == packet_id) {
            self.reserved_durable += 1;
        }
    }

    fn send_reserved<W: Wire>(&mut self, work: &mut Work, turn: &mut Turn<'_, W>) {
        while self.reserved_durable > 0 {
            let Some(attached) = self.attached.filter(|attached| !turn.wire.is_backlogged(attached.id)) else {
                return;
            };
            let Some((packet_id, item)) = self.reserved.pop_front() else {
                return;
            };
            self.reserved_durable -= 1;
            let Some(entry) = self.in_flight.get(packet_id) else {
                continue;
            };
            let dup = entry.step == Step::Sent;
            let record = item.message.record();
            let remaining = turn.now.remaining_expiry_secs(&record);
            if !dup && remaining == Some(0) {
                // It waited for its packet ID, or for the connection, for too long. [MQTT5-3.3.2-5]
                self.give_up(packet_id, DropReason::Expired, work);
                continue;
            }
            let delivery = Delivery {
                packet_id: Some(packet_id),
                dup,
                qos: QoS::ExactlyOnce,
                retain: item.retain,
                record,
                expiry_secs: remaining.map(|secs| secs.max(1)),
                subscription_ids: item.ids.as_slice(),
                position: item.position(),
            };
            if !turn.wire.send(attached.id, PacketOut::Publish(delivery)) {
                self.give_up(packet_id, DropReason::PacketTooLarge, work);
            } else if let Some(entry) = self.in_flight.get_mut(packet_id) {
                entry.step = Step::Sent;
            }
        }
    }

    /// Enters a message that cannot be sent as dropped. Groups are told by the caller, from what is left in `lost`.
    ///
    /// At QoS 2 the client may have had it on a former connection and hold its packet ID; the message that got this ID in the next
    /// round would be a repetition to it. So the ID is released like any other, and free after PUBCOMP. [MQTT5-4.3.3-12]
    pub(super) fn give_up(&mut self, packet_id: u16, reason: DropReason, work: &mut Work) {
        let sent = |entry: &Entry| entry.qos == QoS::ExactlyOnce && entry.step == Step::Sent;
        let attached = self.attached.map(|attached| attached.id);
        let is_held = self.in_flight.get(packet_id).is_some_and(sent);
        let entry = match self.in_flight.get_mut(packet_id).filter(|_| is_held).zip(attached) {
            Some((entry, conn)) => {
                let lost = entry.clone();
                entry.step = Step::Received;
                entry.source = Source::GivenUp;
                let session = self.key;
                if self.is_durable() {
                    // PUBREL leaves when it is known for good that the packet ID is not free.
                    self.store_now(work);
                }
                work.wait(conn, Awaited::PubRel { session, packet_id });
                lost
            }
            None => {
                let Some(entry) = self.in_flight.remove(packet_id) else {
                    return;
                };
                if entry.counted {
                    self.free_window();
                }
                entry
            }
        };
        work.counters.dropped(reason, 1);
        match entry.source.group() {
            Some(group) => work.lost_by_group.push((group, entry.source.position(), reason)),
            None => self.reader.ledger.drop_taken(reason, 1),
        }
        self.moved(work);
    }

    /// Sends an in-flight message again after a resume. [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] It does not expire any more: its delivery
    /// has begun. [MQTT5-4.3.3-7]
    pub(super) fn send_again<W: Wire>(&mut self, packet_id: u16, item: &Item, work: &mut Work, turn: &mut Turn<'_, W>) {
        let Some(attached) = self.attached else {
            return;
        };
        // What the client has received already must not come again: it may have forgotten the packet ID. [MQTT5-4.3.3-6]
        let is_due = |entry: &&mut Entry| matches!(entry.step, Step::Reserved | Step::Sent);
        let Some(entry) = self.in_flight.get_mut(packet_id).filter(is_due) else {
            return;
        };
        let is_new_here = !std::mem::replace(&mut entry.counted, true);
        if is_new_here {
            self.use_window(1);
        }
        if self
            .in_flight
            .get(packet_id)
            .is_some_and(|entry| entry.step == Step::Reserved)
        {
            // It was never sent, and its packet ID may not be durable either.
            self.reserved.push_back((packet_id, item.clone()));
            self.await_reserved(packet_id, work);
            return;
        }
        let record = item.message.record();
        let delivery = Delivery {
            packet_id: Some(packet_id),
            dup: true,
            qos: item.qos,
            retain: item.retain,
            record,
            expiry_secs: turn.now.remaining_expiry_secs(&record).map(|secs| secs.max(1)),
            subscription_ids: item.ids.as_slice(),
            position: item.position(),
        };
        if !turn.wire.send(attached.id, PacketOut::Publish(delivery)) {
            self.give_up(packet_id, DropReason::PacketTooLarge, work);
        }
    }

    /// Whether the next message to be sent again may be sent now.
    pub(super) fn may_resend<W: Wire>(&self, turn: &Turn<'_, W>) -> bool {
        self.ready()
            .is_some_and(|attached| attached.used < attached.window && !turn.wire.is_backlogged(attached.id))
    }

    /// Sends again what is at hand, until the next message has to be looked up.
    fn resend_kept<W: Wire>(&mut self, work: &mut Work, turn: &mut Turn<'_, W>) {
        while let Some(&packet_id) = self.resend.front() {
            if !self.may_resend(turn) {
                return;
            }
            match self.in_flight.get(packet_id).map(|entry| &entry.source) {
                None => {}
                Some(Source::Log(_) | Source::Group { .. } | Source::Retained(.., None)) => return,
                Some(Source::Retained(.., Some(item))) => {
                    let item = item.clone();
                    self.send_again(packet_id, &item, work, turn);
                }
                // Not on the list of what is to be sent again.
                Some(Source::GivenUp) => {}
                Some(source @ (Source::Memory(_) | Source::GroupMemory { .. })) => match source.kept().cloned() {
                    Some(item) => self.send_again(packet_id, &item, work, turn),
                    None => self.give_up(packet_id, DropReason::SessionEnded, work),
                },
            }
            self.resend.pop_front();
        }
    }

    /// Sends whatever may be sent now.
    pub(super) fn pump<W: Wire>(&mut self, work: &mut Work, turn: &mut Turn<'_, W>) {
        if self.ready().is_none() {
            return;
        }
        self.send_reserved(work, turn);
        self.resend_kept(work, turn);
        if self.resend.is_empty() {
            self.pump_retained(work, turn);
        }
        if self.is_caught_up() {
            self.pump_queue(work, turn);
        }
        // While the connection is backlogged a lookup would be in vain; `handle_writable` comes back here.
        if self
            .ready()
            .is_some_and(|attached| !turn.wire.is_backlogged(attached.id))
        {
            self.enlist(work);
        }
    }

    fn pump_queue<W: Wire>(&mut self, work: &mut Work, turn: &mut Turn<'_, W>) {
        let mut moved = false;
        while self
            .reader
            .queue
            .front()
            .is_some_and(|item| self.may_send(item.qos, turn))
        {
            let Some(item) = self.reader.queue.pop() else {
                break;
            };
            let fate = self.deliver_item(&item, work, turn);
            fate.count(&mut self.reader.ledger, work);
            moved = true;
        }
        if moved {
            self.moved(work);
        }
    }

    pub(super) fn deliver_item<W: Wire>(&mut self, item: &Item, work: &mut Work, turn: &mut Turn<'_, W>) -> Fate {
        let place = match &item.source {
            Source::Log(position) => Place::Log(*position),
            Source::Retained(topic, commit, slot, _) => Place::Retained(topic, *commit, *slot),
            Source::Group { group, slot, position } => Place::Group(*group, *slot, Some(*position)),
            Source::GroupMemory { group, slot, .. } => Place::Group(*group, *slot, None),
            Source::Memory(_) | Source::GivenUp => Place::Memory,
        };
        let offer = Offer {
            record: item.message.record(),
            message: MessageRef::Owned(&item.message),
            place,
            qos: item.qos,
            retain: item.retain,
            ids: item.ids.as_slice(),
        };
        self.deliver(&offer, work, turn)
    }
}
