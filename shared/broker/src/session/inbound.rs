//! Messages from clients: admission, log, fan-out from memory, and the answers that follow the commit.
//!
//! I1: PUBACK and PUBREC leave after the commit that holds the record. P2: what cannot be stored is refused before it is
//! acknowledged (0x97), or held where MQTT 3.1.1 has no way to refuse. Answers of a connection leave in the order of its packets.
//! Topics below `$SYS/` and `$share/` are the node's own: MQTT 5 gets 0x87, MQTT 3.1.1 at QoS 1 and 2 is closed, QoS 0 is
//! dropped and counted. Likewise, with 0x90, topics with more levels than a filter may have. Other `$` topics are ordinary topics that the default rules do not log.

use std::collections::HashMap;

use fellbeck_core::limits::TOPIC_LEVELS_MAX;
use fellbeck_core::topic::level_count;
use fellbeck_core::{DropReason, Properties, QoS, Record, TrackId};
use fellbeck_store::Admission;
use fellbeck_store::commit::{Space, Ticket};

use super::connection::Conn;
use super::message::MemoryMessage;
use super::persist;
use super::retained::{RetainedChange, retained_change};
use super::state::SessionKey;
use super::turn::Turn;
use super::work::Awaited;
use super::{Core, Outcome, Pressure};
use crate::wire::{Close, ConnId, PublishIn, Version, Wire};

const NOT_AUTHORIZED: u8 = 0x87;
const TOPIC_NAME_INVALID: u8 = 0x90;
const QUOTA_EXCEEDED: u8 = 0x97;
const PACKET_ID_IN_USE: u8 = 0x91;
const PACKET_ID_NOT_FOUND: u8 = 0x92;

const RECEIVE_MAXIMUM_EXCEEDED: Close = Close {
    reason: 0x93,
    text: "receive maximum exceeded",
};

/// Inbound QoS 2 packet IDs of one session that are not complete. Bounded by the packet IDs that exist.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    ids: HashMap<u16, Received>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Received {
    /// Commit that holds the record, or the release.
    ticket: Ticket,
    /// PUBREL was seen.
    released: bool,
    /// It uses up one unit of the Receive Maximum on the present connection.
    counted: bool,
}

impl Inbound {
    pub(super) fn forget_connection(&mut self) {
        for received in self.ids.values_mut() {
            received.counted = false;
        }
    }

    pub(super) fn restore(&mut self, packet_id: u16) {
        let ticket = Ticket(0);
        self.ids.insert(
            packet_id,
            Received {
                ticket,
                released: false,
                counted: false,
            },
        );
    }

    /// The packet ID belongs to a message of which PUBCOMP has not left.
    pub(super) fn holds(&self, packet_id: u16) -> bool {
        self.ids.contains_key(&packet_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn packet_ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.keys().copied()
    }
}

/// A PUBLISH that has been admitted, on its way through [`Core`].
struct Admitted<'a> {
    conn: ConnId,
    session: SessionKey,
    publish: PublishIn<'a>,
}

impl Core {
    /// A PUBLISH. [`Outcome::Hold`]: nothing was done; see there.
    pub fn handle_publish<W: Wire>(
        &mut self,
        conn: ConnId,
        publish: PublishIn<'_>,
        pressure: Pressure,
        now: super::Now,
        wire: &mut W,
    ) -> Outcome {
        let turn = &mut Turn::new(now, wire);
        let Some(state) = self.conns.get(&conn).copied() else {
            return Outcome::Done;
        };
        if state.subscribing > 0 {
            // Packets of one client take effect in their order: what it publishes behind a SUBSCRIBE is for that subscription.
            return Outcome::Hold;
        }
        let admitted = Admitted {
            conn,
            session: state.session,
            publish,
        };
        if publish.qos == QoS::ExactlyOnce && self.is_repeated(&admitted, turn) {
            return Outcome::Done;
        }
        if publish.qos != QoS::AtMostOnce
            && let Some(outcome) = self.check_receive_maximum(conn, state, turn)
        {
            return outcome;
        }
        if self.is_sent_again(conn, state, &publish, turn) {
            return Outcome::Done;
        }
        if publish.qos == QoS::AtLeastOnce && self.is_packet_id_in_use(state, publish.packet_id) {
            self.refuse(&admitted, PACKET_ID_IN_USE, turn);
            return Outcome::Done;
        }
        if let Some(reason) = topic_refusal(publish.topic) {
            return self.turn_away(&admitted, reason, turn);
        }
        let client_id = match self.sessions.get(state.session) {
            Some(session) => session.client_id.clone(),
            None => return Outcome::Done,
        };
        let mut record = Record {
            device: &client_id,
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: Properties::parse(publish.properties).unwrap_or_default(),
            accepted_at: now.wall,
            clock: now.clock,
            expiry_secs: publish.expiry_secs,
            origin: None,
            path: "",
        };
        let track = self.track_of(&record);
        if record.retain || track.is_some() {
            let admission = self.route.admission(track, pressure);
            if admission != Admission::Take {
                return self.under_pressure(&admitted, &record, admission, turn);
            }
        }
        record.expiry_secs = self.capped_expiry(track, record.expiry_secs);
        let stored = self.accept_on(track, &record, turn);
        if stored {
            self.note_open(conn, state.session, &publish);
        }
        self.answer_publish(&admitted, stored, turn);
        Outcome::Done
    }

    /// The client has closed its connection: no PUBLISH of it is held for a SUBACK any more.
    pub fn forget_order(&mut self, conn: ConnId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.subscribing = 0;
        }
    }

    /// A PUBLISH that the front does not accept, answered with `reason` in its turn; at QoS 0 it is dropped and counted.
    /// The connection of a 3.1.1 client ends at QoS 1 and 2.
    pub fn refuse_publish<W: Wire>(
        &mut self,
        conn: ConnId,
        publish: PublishIn<'_>,
        reason: u8,
        now: super::Now,
        wire: &mut W,
    ) {
        let turn = &mut Turn::new(now, wire);
        let Some(state) = self.conns.get(&conn).copied() else {
            return;
        };
        let admitted = Admitted {
            conn,
            session: state.session,
            publish,
        };
        if publish.qos == QoS::ExactlyOnce && self.is_repeated(&admitted, turn) {
            return;
        }
        let is_answered = publish.qos != QoS::AtMostOnce && state.version == Version::V5;
        if is_answered && self.check_receive_maximum(conn, state, turn).is_some() {
            return;
        }
        self.turn_away(&admitted, reason, turn);
    }

    /// Takes a message: log, retained store, fan-out from memory.
    pub(super) fn accept<W: Wire>(&mut self, record: &Record<'_>, turn: &mut Turn<'_, W>) {
        let track = self.track_of(record);
        let expiry_secs = self.capped_expiry(track, record.expiry_secs);
        self.accept_on(track, &Record { expiry_secs, ..*record }, turn);
    }

    /// The expiry of a message, no longer than its lane has it.
    fn capped_expiry(&self, track: Option<TrackId>, expiry_secs: Option<u32>) -> Option<u32> {
        let ttl = track.and_then(|track| self.route.terms(track).ttl_secs);
        match (ttl, expiry_secs) {
            (Some(ttl), Some(expiry)) => Some(ttl.min(expiry)),
            (ttl, expiry) => ttl.or(expiry),
        }
    }

    /// As [`Core::accept`], for a message whose track is known. True when its acknowledgement has to wait for the commit.
    pub(super) fn accept_on<W: Wire>(
        &mut self,
        track: Option<TrackId>,
        record: &Record<'_>,
        turn: &mut Turn<'_, W>,
    ) -> bool {
        if record.retain {
            match retained_change(record) {
                RetainedChange::Put(put) => self.work.put(put.space, put.key, put.value),
                RetainedChange::Delete(delete) => self.work.delete(delete.space, delete.key),
            }
            self.work.want_commit();
        }
        let at_once = track.is_some_and(|track| self.route.terms(track).ack_at_once);
        if let Some(track) = track {
            self.work.append(track, record);
            if !at_once {
                self.work.want_commit();
            }
        }
        let message = MemoryMessage::new(*record);
        match track {
            Some(_) => self.fan_out_immediate(&message, turn),
            None => self.fan_out_unlogged(&message, turn),
        }
        record.retain || (track.is_some() && !at_once)
    }

    fn track_of(&self, record: &Record<'_>) -> Option<TrackId> {
        self.route.route(record.topic, record.device).or_else(|| {
            let wanted = record.qos != QoS::AtMostOnce && self.config.local_track.is_some();
            self.config
                .local_track
                .filter(|_| wanted && self.matches_durable(record.topic))
        })
    }

    /// A resend of a QoS 2 message that was not released yet is acknowledged again and not stored again. [MQTT5-4.3.3-10]
    fn is_repeated<W: Wire>(&mut self, admitted: &Admitted<'_>, turn: &mut Turn<'_, W>) -> bool {
        let max = u32::from(self.config.limits.receive_maximum);
        let state = self.conns.get(&admitted.conn);
        let is_full = state.is_some_and(|state| state.version == Version::V5 && state.used >= max);
        let (Some(packet_id), Some(session)) = (admitted.publish.packet_id, self.sessions.get_mut(admitted.session))
        else {
            return false;
        };
        let Some(received) = session
            .inbound
            .ids
            .get_mut(&packet_id)
            .filter(|received| !received.released)
        else {
            return false;
        };
        let was_counted = std::mem::replace(&mut received.counted, true);
        if is_full && !was_counted {
            self.close(admitted.conn, RECEIVE_MAXIMUM_EXCEEDED, turn);
            return true;
        }
        let durable = received.ticket <= self.work.done();
        if let Some(conn) = self.conns.get_mut(&admitted.conn) {
            conn.used += u32::from(!was_counted);
        }
        self.work.counters.duplicates.increment(1);
        let reason = 0;
        if durable {
            self.answer(admitted.conn, Awaited::PubRec { packet_id, reason }, turn);
        } else {
            // Its commit is among those that something waits for, so the end of the line is late enough.
            self.answer_after_commit(admitted.conn, Awaited::PubRec { packet_id, reason });
        }
        true
    }

    /// A packet ID of a QoS 2 message that is not complete names nothing else meanwhile [MQTT5-2.2.1-3]. MQTT 3.1.1 has no way to
    /// say so.
    pub(super) fn is_packet_id_in_use(&self, state: Conn, packet_id: Option<u16>) -> bool {
        let session = self
            .sessions
            .get(state.session)
            .filter(|_| state.version == Version::V5);
        session.is_some_and(|session| packet_id.is_some_and(|packet_id| session.inbound.holds(packet_id)))
    }

    /// [MQTT5-3.3.4-7]: the client sent more than was announced. A 3.1.1 client was told nothing, so it is only held; and only
    /// for answers that wait for a commit, since a PUBREL must never stand behind a PUBLISH that waits for it.
    fn check_receive_maximum<W: Wire>(&mut self, conn: ConnId, state: Conn, turn: &mut Turn<'_, W>) -> Option<Outcome> {
        let max = u32::from(self.config.limits.receive_maximum);
        match state.version {
            Version::V5 if state.used >= max => {
                self.close(conn, RECEIVE_MAXIMUM_EXCEEDED, turn);
                Some(Outcome::Done)
            }
            Version::V3 if state.waiting >= max => Some(Outcome::Hold),
            Version::V3 | Version::V5 => None,
        }
    }

    /// A message that will not be kept is never acknowledged as if it were (P2): 3.1.1 cannot be told, so its connection ends.
    fn turn_away<W: Wire>(&mut self, admitted: &Admitted<'_>, reason: u8, turn: &mut Turn<'_, W>) -> Outcome {
        let version = self.conns.get(&admitted.conn).map(|state| state.version);
        match (version, admitted.publish.qos) {
            (_, QoS::AtMostOnce) => self.work.counters.dropped(DropReason::NotPermitted, 1),
            (Some(Version::V5), _) => self.refuse(admitted, reason, turn),
            _ => {
                let text = "message that the node does not take";
                self.close(admitted.conn, Close { reason, text }, turn);
            }
        }
        Outcome::Done
    }

    /// There is no room for the message: nothing is acknowledged that will not be kept (P2).
    fn under_pressure<W: Wire>(
        &mut self,
        admitted: &Admitted<'_>,
        record: &Record<'_>,
        admission: Admission,
        turn: &mut Turn<'_, W>,
    ) -> Outcome {
        let version = self.conns.get(&admitted.conn).map(|state| state.version);
        match (record.qos, version) {
            (QoS::AtMostOnce, _) => {
                let is_final = admission == Admission::TurnAway;
                let reason = if is_final {
                    DropReason::Quota
                } else {
                    DropReason::Qos0Quota
                };
                self.work.counters.dropped(reason, 1);
                // Local subscribers that are served from memory need no flash.
                self.fan_out_immediate(&MemoryMessage::new(*record), turn);
                Outcome::Done
            }
            (_, Some(Version::V3)) if admission == Admission::HoldBack => Outcome::Hold,
            _ => self.turn_away(admitted, QUOTA_EXCEEDED, turn),
        }
    }

    fn refuse<W: Wire>(&mut self, admitted: &Admitted<'_>, reason: u8, turn: &mut Turn<'_, W>) {
        self.work.counters.refused.increment(1);
        let Some(packet_id) = admitted.publish.packet_id else {
            return;
        };
        // It uses up the Receive Maximum until the answer leaves, like any other.
        if let Some(state) = self.conns.get_mut(&admitted.conn) {
            state.used += 1;
        }
        let answer = match admitted.publish.qos {
            QoS::ExactlyOnce => Awaited::PubRec { packet_id, reason },
            QoS::AtMostOnce | QoS::AtLeastOnce => Awaited::PubAck { packet_id, reason },
        };
        self.answer(admitted.conn, answer, turn);
    }

    /// Queues the acknowledgement of a message that was taken.
    fn answer_publish<W: Wire>(&mut self, admitted: &Admitted<'_>, stored: bool, turn: &mut Turn<'_, W>) {
        let Some(packet_id) = admitted.publish.packet_id else {
            return;
        };
        if let Some(state) = self.conns.get_mut(&admitted.conn) {
            state.used += 1;
        }
        let reason = 0;
        let (answer, needs_commit) = match admitted.publish.qos {
            QoS::AtMostOnce | QoS::AtLeastOnce => (Awaited::PubAck { packet_id, reason }, stored),
            QoS::ExactlyOnce => {
                let put = self.note_received(admitted.session, packet_id, stored);
                (Awaited::PubRec { packet_id, reason }, stored || put)
            }
        };
        if needs_commit {
            self.answer_after_commit(admitted.conn, answer);
        } else {
            self.answer(admitted.conn, answer, turn);
        }
    }

    /// Remembers the packet ID until it is released, in the same commit as the record. True when that commit must come first.
    fn note_received(&mut self, session: SessionKey, packet_id: u16, stored: bool) -> bool {
        let Some(session) = self.sessions.get_mut(session) else {
            return false;
        };
        let durable = session.is_durable();
        let ticket = if durable || stored { self.work.open() } else { Ticket(0) };
        if durable {
            let (key, value) = persist::received(&session.client_id, packet_id);
            self.work.put(Space::Session, key, value);
        }
        session.inbound.ids.insert(
            packet_id,
            Received {
                ticket,
                released: false,
                counted: true,
            },
        );
        durable
    }

    /// A PUBREL. [MQTT5-4.3.3-11]
    pub fn handle_pubrel<W: Wire>(&mut self, conn: ConnId, packet_id: u16, _reason: u8, now: super::Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some(state) = self.conns.get(&conn).copied() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(state.session) else {
            return;
        };
        let known = session.inbound.ids.get(&packet_id).copied();
        let Some(received) = known.filter(|received| !received.released) else {
            // Not an error during recovery: the release may have been completed before the connection broke.
            let reason = if known.is_some() { 0 } else { PACKET_ID_NOT_FOUND };
            return self.answer(conn, Awaited::PubComp { packet_id, reason }, turn);
        };
        let answer = Awaited::PubComp { packet_id, reason: 0 };
        if session.is_durable() {
            let (key, _) = persist::received(&session.client_id, packet_id);
            let ticket = self.work.open();
            session.inbound.ids.insert(
                packet_id,
                Received {
                    ticket,
                    released: true,
                    ..received
                },
            );
            self.work.delete(Space::Session, key);
            self.answer_after_commit(conn, answer);
        } else {
            self.answer(conn, answer, turn);
        }
    }

    /// PUBCOMP leaves: the packet ID is free, and so is its unit of the Receive Maximum.
    pub(super) fn completed(&mut self, conn: ConnId, packet_id: u16) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(state.session) else {
            return;
        };
        let done = self.work.done();
        let Some(received) = session.inbound.ids.get(&packet_id) else {
            return;
        };
        if session.is_durable() && !(received.released && received.ticket <= done) {
            return;
        }
        state.used -= u32::from(received.counted && state.used > 0);
        session.inbound.ids.remove(&packet_id);
    }

    /// `answer` leaves when everything accepted so far is durable.
    pub(super) fn answer_after_commit(&mut self, conn: ConnId, answer: Awaited) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.waiting += 1;
        }
        self.work.wait(conn, answer);
    }

    /// Sends an answer that needs no commit, behind those of the same connection that wait for one.
    pub(super) fn answer<W: Wire>(&mut self, conn: ConnId, answer: Awaited, turn: &mut Turn<'_, W>) {
        match self.conns.get_mut(&conn) {
            Some(state) if state.waiting > 0 => {
                state.waiting += 1;
                self.work.wait_in_line(conn, answer);
            }
            _ => self.leave(conn, answer, turn),
        }
    }
}

/// Why a client may not publish to a topic, if it may not: it is the node's own, or has more levels than a filter may have.
fn topic_refusal(topic: &str) -> Option<u8> {
    if is_reserved_for_node(topic) {
        return Some(NOT_AUTHORIZED);
    }
    (level_count(topic) > TOPIC_LEVELS_MAX).then_some(TOPIC_NAME_INVALID)
}

/// Whether a client may have a will for this topic.
pub(super) fn is_topic_allowed(topic: &str) -> bool {
    topic_refusal(topic).is_none()
}

fn is_reserved_for_node(topic: &str) -> bool {
    topic.starts_with('$')
        && (topic == "$SYS" || topic.starts_with("$SYS/") || topic == "$share" || topic.starts_with("$share/"))
}

#[cfg(test)]
mod tests {
    use super::is_reserved_for_node;

    #[test]
    fn only_topics_of_the_node_are_reserved() {
        for (topic, reserved) in [
            ("$SYS/x", true),
            ("$share/a/b", true),
            ("$SYSx", false),
            ("$x", false),
            ("a/$SYS/", false),
        ] {
            assert_eq!(is_reserved_for_node(topic), reserved, "{topic}");
        }
    }
}
