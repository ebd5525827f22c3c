//! Acknowledgements: those of clients for what they were sent, and those that leave when a commit is durable.

use fellbeck_core::QoS;
use fellbeck_store::commit::Committed;

use super::in_flight::Step;
use super::state::SessionKey;
use super::turn::Turn;
use super::work::{Awaited, Waiting};
use super::{Core, Now};
use crate::wire::{Close, ConnId, PacketOut, Version, Wire};

const PACKET_ID_NOT_FOUND: u8 = 0x92;
/// From here on a reason code is a failure.
const FAILURE: u8 = 0x80;

const WRONG_ACK: Close = Close {
    reason: 0x82,
    text: "acknowledgement of the wrong kind for this packet ID",
};

impl Core {
    /// A PUBACK. With a failure code too it completes the message [MQTT5-4.4.0-2] [MQTT5-4.8.2-6]. One for an unknown packet ID is ignored.
    pub fn handle_puback<W: Wire>(&mut self, conn: ConnId, packet_id: u16, _reason: u8, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some((key, found)) = self.in_flight(conn, packet_id) else {
            return;
        };
        match found {
            None => {}
            Some((QoS::AtLeastOnce, _)) => self.complete(key, packet_id, turn),
            Some(_) => self.close(conn, WRONG_ACK, turn),
        }
    }

    /// A PUBREC. PUBREL follows [MQTT5-4.3.3-4], for a durable session after the commit that notes it; a failure completes the
    /// message [MQTT5-4.4.0-2], also one of a shared group [MQTT5-4.8.2-6].
    pub fn handle_pubrec<W: Wire>(&mut self, conn: ConnId, packet_id: u16, reason: u8, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some((key, found)) = self.in_flight(conn, packet_id) else {
            return;
        };
        match found {
            // A failure ends the exchange; only a success is answered. [MQTT5-4.3.3-4]
            None if reason >= FAILURE => {}
            None => {
                let v5 = self.conns.get(&conn).is_some_and(|state| state.version == Version::V5);
                let reason = if v5 { PACKET_ID_NOT_FOUND } else { 0 };
                turn.wire.send(conn, PacketOut::PubRel { packet_id, reason });
            }
            Some((QoS::ExactlyOnce, Step::Sent)) if reason >= FAILURE => self.complete(key, packet_id, turn),
            Some((QoS::ExactlyOnce, Step::Sent)) => self.received(conn, key, packet_id, turn),
            Some((QoS::ExactlyOnce, Step::Released)) => {
                turn.wire.send(conn, PacketOut::PubRel { packet_id, reason: 0 });
            }
            // Its PUBREL is on its way already.
            Some((QoS::ExactlyOnce, Step::Received)) => {}
            Some(_) => self.close(conn, WRONG_ACK, turn),
        }
    }

    fn received<W: Wire>(&mut self, conn: ConnId, session: SessionKey, packet_id: u16, turn: &mut Turn<'_, W>) {
        let Some(holder) = self.sessions.get_mut(session) else {
            return;
        };
        let durable = holder.is_durable();
        if let Some(entry) = holder.in_flight.get_mut(packet_id) {
            entry.step = if durable { Step::Received } else { Step::Released };
        }
        let was_to_come_again = holder.forget_resend(packet_id);
        if durable {
            holder.store_now(&mut self.work);
            self.work.wait(conn, Awaited::PubRel { session, packet_id });
        } else {
            turn.wire.send(conn, PacketOut::PubRel { packet_id, reason: 0 });
        }
        if was_to_come_again {
            self.pump(session, turn);
            self.settle_groups(turn);
        }
    }

    /// A PUBCOMP. One for an unknown packet ID is ignored.
    pub fn handle_pubcomp<W: Wire>(&mut self, conn: ConnId, packet_id: u16, _reason: u8, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some((key, found)) = self.in_flight(conn, packet_id) else {
            return;
        };
        match found {
            None => {}
            Some((QoS::ExactlyOnce, Step::Released)) => self.complete(key, packet_id, turn),
            Some(_) => self.close(conn, WRONG_ACK, turn),
        }
    }

    fn in_flight(&self, conn: ConnId, packet_id: u16) -> Option<(SessionKey, Option<(QoS, Step)>)> {
        let key = self.conns.get(&conn)?.session;
        let session = self.sessions.get(key)?;
        let entry = session.in_flight.get(packet_id);
        Some((key, entry.map(|entry| (entry.qos, entry.step))))
    }

    /// A message is complete: its packet ID and its unit of the client's Receive Maximum are free.
    fn complete<W: Wire>(&mut self, key: SessionKey, packet_id: u16, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(entry) = session.in_flight.remove(packet_id) else {
            return;
        };
        if entry.counted {
            session.free_window();
        }
        session.forget_resend(packet_id);
        session.moved(&mut self.work);
        match entry.source.group() {
            Some(group) => self.group_acked(group, entry.source.position()),
            None => session.reader.ledger.acked += u64::from(entry.is_of_its_own()),
        }
        self.pump(key, turn);
        self.settle_groups(turn);
    }

    /// A submission is durable: what waited for it leaves, in order.
    pub fn handle_committed<W: Wire>(&mut self, committed: Committed, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        self.work.committed(committed.ticket, committed.commit);
        while let Some(Waiting { conn, awaited, .. }) = self.work.next_durable() {
            let is_answer = !matches!(
                awaited,
                Awaited::Publish { .. } | Awaited::PubRel { .. } | Awaited::Bound { .. } | Awaited::Snapshots { .. }
            );
            if let Some(state) = self.conns.get_mut(&conn).filter(|_| is_answer) {
                state.waiting = state.waiting.saturating_sub(1);
            }
            self.leave(conn, awaited, turn);
        }
        self.settle_groups(turn);
    }

    /// What was waited for has come true. The connection may be gone; what concerns the session happens all the same.
    pub(super) fn leave<W: Wire>(&mut self, conn: ConnId, awaited: Awaited, turn: &mut Turn<'_, W>) {
        match awaited {
            Awaited::ConnAck { session_present } => {
                if self.conns.contains_key(&conn) {
                    let reason = 0;
                    turn.wire.send(
                        conn,
                        PacketOut::ConnAck {
                            session_present,
                            reason,
                        },
                    );
                    self.connected(conn, turn);
                }
            }
            Awaited::PubAck { packet_id, reason } => {
                self.answered(conn);
                if self.conns.contains_key(&conn) {
                    turn.wire.send(conn, PacketOut::PubAck { packet_id, reason });
                    self.puback_left(conn, packet_id);
                }
            }
            Awaited::PubRec { packet_id, reason } => {
                if reason >= FAILURE {
                    self.answered(conn);
                }
                if self.conns.contains_key(&conn) {
                    turn.wire.send(conn, PacketOut::PubRec { packet_id, reason });
                }
            }
            Awaited::PubComp { packet_id, reason } => {
                self.completed(conn, packet_id);
                if self.conns.contains_key(&conn) {
                    turn.wire.send(conn, PacketOut::PubComp { packet_id, reason });
                }
            }
            Awaited::Subscribed(subscribed) => {
                self.subscribing_ends(conn, subscribed.is_to_apply());
                let commit = self.newest();
                self.subscribed(conn, *subscribed, commit, turn);
            }
            Awaited::Unsubscribed(unsubscribed) => {
                self.subscribing_ends(conn, unsubscribed.is_to_apply());
                let commit = self.newest();
                self.unsubscribed(conn, *unsubscribed, commit, turn);
            }
            Awaited::Publish { session, packet_id } => self.reserved_is_durable(conn, session, packet_id, turn),
            Awaited::Bound { session } => self.bound_is_durable(conn, session, turn),
            Awaited::Snapshots { session, slots } => self.release_snapshots(session, &slots, turn),
            Awaited::Inflow { number } => turn.wire.inflow_taken(number),
            Awaited::PubRel { session, packet_id } => self.release(conn, session, packet_id, turn),
        }
    }

    /// The exchange of a message of the client is over.
    fn answered(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.used = state.used.saturating_sub(1);
        }
    }

    fn reserved_is_durable<W: Wire>(&mut self, conn: ConnId, key: SessionKey, packet_id: u16, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.ready().is_some_and(|attached| attached.id == conn) {
            session.reserved_is_durable(packet_id);
            self.pump(key, turn);
        }
    }

    fn bound_is_durable<W: Wire>(&mut self, conn: ConnId, key: SessionKey, turn: &mut Turn<'_, W>) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.ready().is_some_and(|attached| attached.id == conn)
        {
            session.bound_is_durable();
            self.pump(key, turn);
        }
    }

    fn release<W: Wire>(&mut self, conn: ConnId, key: SessionKey, packet_id: u16, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(entry) = session
            .in_flight
            .get_mut(packet_id)
            .filter(|entry| entry.step == Step::Received)
        else {
            return;
        };
        entry.step = Step::Released;
        if session.ready().is_some_and(|attached| attached.id == conn) {
            turn.wire.send(conn, PacketOut::PubRel { packet_id, reason: 0 });
        }
    }
}
