//! Connections: CONNECT with takeover, resume and clean start, and all ways in which a connection ends.
//!
//! CONNACK of a durable session leaves after the commit that holds its state, and that of a clean start after the commit that
//! deleted the old state. Packets of the client that come before are handled; their answers stand behind CONNACK.

use fellbeck_core::CommitNumber;
use fellbeck_store::commit::Space;

use super::in_flight::Step;
use super::persist;
use super::reader::Reader;
use super::state::{Attached, Kind, Session, SessionKey};
use super::turn::Turn;
use super::work::{Awaited, ReaderKey};
use super::{Core, Mode, Now};
use crate::wire::{Close, ConnId, Connect, PacketOut, Version, Wire};

/// Longest client identifier: with the rest of a key it must fit the store.
const CLIENT_ID_BYTES_MAX: usize = 65_000;

const PROTOCOL_ERROR: u8 = 0x82;
const CLIENT_ID_NOT_VALID: u8 = 0x85;
const SESSION_TAKEN_OVER: u8 = 0x8e;
const TOPIC_NAME_INVALID: u8 = 0x90;
const QUOTA_EXCEEDED: u8 = 0x97;

/// What belongs to a connection and not to the session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conn {
    pub(super) session: SessionKey,
    pub(super) version: Version,
    /// Answers that wait for a commit.
    pub(super) waiting: u32,
    /// QoS 1 and 2 messages of the client that are not completely acknowledged.
    pub(super) used: u32,
    /// SUBSCRIBEs and UNSUBSCRIBEs that wait for a commit to take effect.
    pub(super) subscribing: u32,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// DISCONNECT with reason 0x00: no will.
    Clean,
    /// Any other way.
    Abnormal,
    /// A new connection of the same client goes on with the session.
    TakenOver,
}

impl Core {
    /// A CONNECT. CONNACK leaves now or after a commit; a reason other than 0 ends the connection.
    pub fn handle_connect<W: Wire>(&mut self, conn: ConnId, connect: Connect, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        // A session whose time is over must not be resumed, whether the clock has told or not. [MQTT5-4.1.0-2]
        self.run_timers(turn);
        self.run_timers_of(&connect.client_id, turn);
        if let Some(reason) = self.refusal(&connect) {
            let session_present = false;
            let refusal = PacketOut::ConnAck {
                session_present,
                reason,
            };
            turn.wire.send(conn, refusal);
            return;
        }
        let removed = self.make_way(&connect, turn);
        self.make_room(&connect, turn);
        let existing = self.sessions.find(&connect.client_id);
        let key = existing.unwrap_or_else(|| self.create(&connect));
        self.attach(key, conn, connect);
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let session_present = existing.is_some();
        // [MQTT5-3.1.2-7]: what CONNACK says of the session and of the will is durable.
        if session.is_stored || removed {
            self.answer_after_commit(conn, Awaited::ConnAck { session_present });
        } else {
            self.answer(conn, Awaited::ConnAck { session_present }, turn);
        }
        self.settle_groups(turn);
    }

    fn refusal(&self, connect: &Connect) -> Option<u8> {
        if connect.client_id.is_empty()
            || connect.client_id.len() > CLIENT_ID_BYTES_MAX
            || connect.client_id.contains('\0')
        {
            return Some(CLIENT_ID_NOT_VALID);
        }
        if connect
            .will
            .as_ref()
            .is_some_and(|will| !super::inbound::is_topic_allowed(&will.topic))
        {
            return Some(TOPIC_NAME_INVALID);
        }
        if !self.has_room_for_will(connect) {
            self.work.counters.limited("wills");
            return Some(QUOTA_EXCEEDED);
        }
        let is_new = self.sessions.find(&connect.client_id).is_none();
        if is_new && self.sessions.len() >= self.config.limits.sessions_max && self.idle.is_empty() {
            self.work.counters.limited("sessions");
            return Some(QUOTA_EXCEEDED);
        }
        None
    }

    /// Ends what stands in the way of the new connection. True when stored state was deleted.
    fn make_way<W: Wire>(&mut self, connect: &Connect, turn: &mut Turn<'_, W>) -> bool {
        let Some(key) = self.sessions.find(&connect.client_id) else {
            return false;
        };
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let was_stored = session.is_stored;
        if let Some(attached) = session.attached {
            self.work.counters.takeovers.increment(1);
            self.conns.remove(&attached.id);
            // [MQTT5-3.1.4-3]
            let why = Close {
                reason: SESSION_TAKEN_OVER,
                text: "session taken over by a new connection",
            };
            turn.wire.close(attached.id, why);
            let ending = if connect.clean_start {
                Ending::Abnormal
            } else {
                Ending::TakenOver
            };
            self.detach(key, ending, turn);
        }
        if connect.clean_start && self.sessions.get(key).is_some() {
            // [MQTT5-3.1.2-4]
            self.end_session(key, turn);
        }
        was_stored && self.sessions.get(key).is_none()
    }

    fn create(&mut self, connect: &Connect) -> SessionKey {
        let kind = match (connect.session_expiry_secs, self.config.mode) {
            (0, Mode::ImmediateForClean) => Kind::Immediate,
            (0, Mode::CommittedOnly) => Kind::Volatile,
            _ => Kind::Durable,
        };
        let reader = Reader::live(self.fanned);
        let key = self.sessions.add(&connect.client_id, |key, client_id| {
            Session::new(key, client_id, kind, reader)
        });
        self.work.counters.sessions.set(self.sessions.len() as f64);
        key
    }

    fn attach(&mut self, key: SessionKey, conn: ConnId, connect: Connect) {
        let limits = self.config.limits;
        let newest = self.work.newest.max(self.fanned);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.attached = Some(Attached {
            id: conn,
            window: connect.receive_maximum.clamp(1, limits.in_flight_max.max(1)),
            used: 0,
            ready: false,
        });
        session.connected_at = newest;
        session.open_bound(newest);
        session.left = None;
        self.idle.remove(session);
        session.expiry_secs = connect.session_expiry_secs.min(limits.session_expiry_max_secs);
        // The will of the former connection is not sent any more. [MQTT5-3.1.3-9]
        self.timers.cancel(&mut session.will_due);
        self.timers.cancel(&mut session.expires);
        self.set_will(key, connect.will);
        self.conns.insert(
            conn,
            Conn {
                session: key,
                version: connect.version,
                waiting: 0,
                used: 0,
                subscribing: 0,
            },
        );
        self.connected_max = self.connected_max.max(self.conns.len());
        self.store_session(key);
        if let Some(session) = self.sessions.get_mut(key)
            && session.is_durable()
        {
            session.store_now(&mut self.work);
        }
    }

    /// Puts what is kept of a session apart from its cursor: of one that ends with its connection only if it has a will.
    pub(super) fn store_session(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && (session.is_durable() || session.will.is_some())
        {
            session.is_stored = true;
            let (key, value) = persist::session(session);
            self.work.put(Space::Session, key, value);
            session.store_bound(&mut self.work);
        }
    }

    /// CONNACK has left: what waited for the session may follow.
    pub(super) fn connected<W: Wire>(&mut self, conn: ConnId, turn: &mut Turn<'_, W>) {
        let Some(key) = self.conns.get(&conn).map(|state| state.session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(attached) = &mut session.attached {
            attached.ready = true;
        }
        session.bound_is_durable();
        session.reader.found = false;
        session.list_resends();
        let mut recorded = Vec::new();
        for entry in session.in_flight.iter() {
            match entry.step {
                // [MQTT5-4.4.0-1]
                Step::Released => {
                    let packet_id = entry.packet_id;
                    turn.wire.send(conn, PacketOut::PubRel { packet_id, reason: 0 });
                }
                Step::Received => recorded.push(entry.packet_id),
                Step::Reserved | Step::Sent | Step::Gone => {}
            }
        }
        for packet_id in recorded {
            session.store_now(&mut self.work);
            self.work.wait(
                conn,
                Awaited::PubRel {
                    session: key,
                    packet_id,
                },
            );
        }
        self.reclaim_for(key, turn);
        self.pump(key, turn);
    }

    /// A DISCONNECT packet; the front closes the socket. `expiry_secs` is its Session Expiry Interval, if it has one.
    pub fn handle_disconnect<W: Wire>(
        &mut self,
        conn: ConnId,
        reason: u8,
        expiry_secs: Option<u32>,
        now: Now,
        wire: &mut W,
    ) {
        let turn = &mut Turn::new(now, wire);
        let Some(key) = self.conns.get(&conn).map(|state| state.session) else {
            return;
        };
        let max = self.config.limits.session_expiry_max_secs;
        if let (Some(session), Some(secs)) = (self.sessions.get_mut(key), expiry_secs) {
            if session.expiry_secs == 0 && secs > 0 {
                // Not a valid DISCONNECT, so the will is sent too (section 3.14.2.2.2).
                let why = Close {
                    reason: PROTOCOL_ERROR,
                    text: "session expiry was zero at CONNECT",
                };
                return self.close(conn, why, turn);
            }
            session.expiry_secs = secs.min(max);
        }
        self.conns.remove(&conn);
        let ending = if reason == 0 { Ending::Clean } else { Ending::Abnormal };
        self.detach(key, ending, turn);
        self.settle_groups(turn);
    }

    /// The socket is gone. Without a DISCONNECT before, this is an abnormal end.
    pub fn handle_closed<W: Wire>(&mut self, conn: ConnId, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        if let Some(state) = self.conns.remove(&conn) {
            self.detach(state.session, Ending::Abnormal, turn);
            self.settle_groups(turn);
        }
    }

    /// The write buffer of the connection has room again.
    pub fn handle_writable<W: Wire>(&mut self, conn: ConnId, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        if let Some(key) = self.conns.get(&conn).map(|state| state.session) {
            self.pump(key, turn);
            self.settle_groups(turn);
        }
    }

    /// Ends a connection from the side of the node: an abnormal end.
    pub(super) fn close<W: Wire>(&mut self, conn: ConnId, why: Close, turn: &mut Turn<'_, W>) {
        if let Some(state) = self.conns.remove(&conn) {
            turn.wire.close(conn, why);
            self.detach(state.session, Ending::Abnormal, turn);
            self.settle_groups(turn);
        }
    }

    /// Parts a session from its connection, which is already forgotten.
    fn detach<W: Wire>(&mut self, key: SessionKey, ending: Ending, turn: &mut Turn<'_, W>) {
        let fanned = self.fanned;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let ends = !session.is_durable() || session.expiry_secs == 0;
        session.left = Some((turn.now.wall, turn.now.clock));
        session.forget_connection(fanned, &mut self.work);
        if ending == Ending::Clean {
            // [MQTT5-3.14.4-3] [MQTT5-3.1.2-10]
            self.set_will(key, None);
        }
        self.leave_groups_for_now(key, turn);
        if ends {
            return self.end_session(key, turn);
        }
        match ending {
            Ending::Clean => {}
            Ending::Abnormal => self.schedule_will(key, turn),
            Ending::TakenOver => self.will_at_takeover(key, turn),
        }
        self.schedule_expiry(key, turn.now);
        if let Some(session) = self.sessions.get_mut(key) {
            // In one commit with the end of the connection, which says that the cursor is exact.
            session.store_now(&mut self.work);
        }
        self.store_session(key);
        self.work.want_commit();
        self.note_idle(key);
        // It looks for the first message that it must keep, so that it does not hold the log for those that it need not.
        self.list_for_read(ReaderKey::Session(key));
    }

    /// Removes a session and all its state. [MQTT5-4.1.0-2] A will that has not been sent is sent: the session has ended.
    pub(super) fn end_session<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        self.send_will(key, turn);
        self.leave_groups(key, turn);
        let fanned = self.fanned;
        let Some(mut session) = self.sessions.remove(key) else {
            return;
        };
        self.timers.cancel(&mut session.expires);
        self.idle.remove(&mut session);
        session.forget_connection(fanned, &mut self.work);
        let in_flight = session.in_flight.iter().filter(|entry| entry.is_of_its_own()).count() as u64;
        session
            .reader
            .ledger
            .drop_taken(fellbeck_core::DropReason::SessionEnded, in_flight);
        self.work.counters.dropped(
            fellbeck_core::DropReason::SessionEnded,
            in_flight + session.reader.unread,
        );
        for version in session.subscriptions.iter() {
            self.remove_from_trie(&session, version);
        }
        if session.is_stored {
            self.delete_stored(&session);
        }
        self.work.counters.sessions.set(self.sessions.len() as f64);
    }

    fn delete_stored(&mut self, session: &Session) {
        let client_id = &session.client_id;
        self.work.delete(Space::Session, persist::session_key(client_id));
        self.work.want_commit();
        if !session.is_durable() {
            return;
        }
        let mut keys = vec![persist::cursor_key(client_id), persist::bound_key(client_id)];
        keys.extend(
            session
                .subscriptions
                .iter()
                .map(|version| persist::subscription_key(client_id, version.slot)),
        );
        let ended = session.subscriptions.iter().filter(|version| version.closing);
        keys.extend(ended.map(|version| persist::ended(client_id, version.slot).0));
        keys.extend(
            session
                .inbound
                .packet_ids()
                .map(|packet_id| persist::received(client_id, packet_id).0),
        );
        if session.resends.is_stored {
            keys.push(persist::resends_key(client_id));
        }
        for key in keys {
            self.work.delete(Space::Session, key);
        }
    }

    /// Sends what may be sent to one session, and by its groups.
    pub(super) fn pump<W: Wire>(&mut self, key: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.pump(&mut self.work, turn);
        session.pump_status(&self.status, &mut self.work, turn);
        if !session.groups.is_empty() {
            let groups: Vec<_> = session.groups.iter().map(|(_, group)| *group).collect();
            for group in groups {
                self.pump_group(group, turn);
            }
        }
    }

    /// Newest commit of which the core knows that it is durable.
    pub(super) fn newest(&self) -> CommitNumber {
        self.work.newest.max(self.fanned)
    }

    pub(super) fn list_for_read(&mut self, key: ReaderKey) {
        match key {
            ReaderKey::Session(key) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.enlist(&mut self.work);
                }
            }
            ReaderKey::Group(key) => self.enlist_group(key),
        }
    }
}
