//! Messages at QoS 1 whose PUBACK has not left, or may not have: what their device may send again with DUP.
//!
//! In: messages that were taken, PUBACKs that leave, the table as it was stored. Out: whether a PUBLISH is one of them, and the table
//! for the commit. Kept for durable sessions only, since only they are resumed.
//!
//! While the node lives, only messages whose PUBACK has not left count. After a crash nobody knows what left: then all count that the
//! newest stored table names. It is part of each commit that holds a message of the session, and names those that were open then and
//! those whose PUBACK left since the table before it: a client may not have read them when the node was killed. Those are forgotten
//! within two flushes. A message that takes a packet ID takes the place of the one that had it, and what a device does not send again on
//! a connection on which it sends something new, it does not send again later.
//! Bounded: no more entries than the Receive Maximum.

use std::collections::HashMap;

use fellbeck_core::QoS;
use fellbeck_store::commit::{Space, Ticket};
use xxhash_rust::xxh3::Xxh3;

use super::Core;
use super::connection::Conn;
use super::persist;
use super::state::SessionKey;
use super::turn::Turn;
use super::work::Awaited;
use crate::wire::{ConnId, PublishIn, Wire};

/// Tables that still name a message after its PUBACK left.
const TABLES_BEHIND: u8 = 1;

/// The table of one session.
#[derive(Debug, Default)]
pub(super) struct Resends {
    open: HashMap<u16, Open>,
    /// On the list of tables to be stored later, since some PUBACK has left.
    listed: bool,
    /// The device has sent a new message on the present connection.
    goes_on: bool,
    /// There is a stored table.
    pub(super) is_stored: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    hash: u64,
    /// Commit that holds the record.
    ticket: Ticket,
    /// Connection on which its PUBACK is owed; `None`: before the restart.
    conn: Option<ConnId>,
    /// Its PUBACK has left, and so many tables were stored since.
    left: Option<u8>,
}

/// Of what makes a resend: topic and payload.
fn hash_of(publish: &PublishIn<'_>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(publish.topic.len() as u64).to_le_bytes());
    hash.update(publish.topic.as_bytes());
    hash.update(publish.payload);
    hash.digest()
}

impl Resends {
    /// Takes an entry of the stored table.
    pub(super) fn restore(&mut self, packet_id: u16, hash: u64) {
        self.is_stored = true;
        let open = Open {
            hash,
            ticket: Ticket(0),
            conn: None,
            left: None,
        };
        self.open.insert(packet_id, open);
    }

    fn add(&mut self, packet_id: u16, open: Open, max: usize) {
        self.open.remove(&packet_id);
        if self.open.len() >= max.max(1) {
            // Those of the present connection are fewer than the Receive Maximum, so one of the others goes.
            let of_least_use = |(id, entry): (&u16, &Open)| {
                let rank = (entry.left.is_none(), entry.conn.is_some(), entry.ticket);
                (rank, *id)
            };
            let goes = self.open.iter().map(of_least_use).min();
            if let Some((_, id)) = goes {
                self.open.remove(&id);
            }
        }
        self.open.insert(packet_id, open);
    }

    /// The PUBACK has left on `conn`.
    fn acked(&mut self, packet_id: u16, conn: ConnId) {
        if let Some(open) = self.open.get_mut(&packet_id).filter(|open| open.conn == Some(conn)) {
            open.left = Some(0);
        }
    }

    /// The connection `conn` is gone.
    pub(super) fn forget_connection(&mut self, conn: ConnId) {
        if std::mem::take(&mut self.goes_on) {
            self.open.retain(|_, open| open.conn == Some(conn));
        }
    }

    /// The node stops in good order: what has left has left.
    fn settle(&mut self) {
        for open in self.open.values_mut() {
            open.left = open.left.map(|_| TABLES_BEHIND);
        }
    }

    fn has_left(&self) -> bool {
        self.open.values().any(|open| open.left.is_some())
    }

    /// The table to be stored, sorted.
    fn table(&self) -> Vec<(u16, u64)> {
        let mut table: Vec<_> = self.open.iter().map(|(id, open)| (*id, open.hash)).collect();
        table.sort_unstable();
        table
    }

    /// A table is about to be stored. Returns whether anything was forgotten.
    fn forget_left(&mut self) -> bool {
        let before = self.open.len();
        self.open
            .retain(|_, open| open.left.is_none_or(|tables| tables < TABLES_BEHIND));
        for open in self.open.values_mut() {
            open.left = open.left.map(|tables| tables + 1);
        }
        self.open.len() < before
    }
}

impl Core {
    /// A PUBLISH with DUP of a message that is stored and whose PUBACK the device did not get: it is acknowledged and not stored again.
    /// On the connection on which it was taken a DUP is no resend of that kind.
    pub(super) fn is_sent_again<W: Wire>(
        &mut self,
        conn: ConnId,
        state: Conn,
        publish: &PublishIn<'_>,
        turn: &mut Turn<'_, W>,
    ) -> bool {
        let (QoS::AtLeastOnce, true, Some(packet_id)) = (publish.qos, publish.dup, publish.packet_id) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(state.session) else {
            return false;
        };
        let Some(open) = session.resends.open.get_mut(&packet_id) else {
            return false;
        };
        if open.left.is_some() || open.conn == Some(conn) || open.hash != hash_of(publish) {
            return false;
        }
        open.conn = Some(conn);
        let durable = open.ticket <= self.work.done();
        self.work.counters.resends.increment(1);
        if let Some(state) = self.conns.get_mut(&conn) {
            state.used += 1;
        }
        let answer = Awaited::PubAck { packet_id, reason: 0 };
        if durable {
            self.answer(conn, answer, turn);
        } else {
            // Its commit is among those that something waits for, so the end of the line is late enough.
            self.answer_after_commit(conn, answer);
        }
        true
    }

    /// Remembers a message that was taken until its PUBACK has left, in the same commit as the record.
    pub(super) fn note_open(&mut self, conn: ConnId, key: SessionKey, publish: &PublishIn<'_>) {
        let (QoS::AtLeastOnce, Some(packet_id)) = (publish.qos, publish.packet_id) else {
            return;
        };
        let max = usize::from(self.config.limits.receive_maximum);
        let ticket = self.work.open();
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.is_durable()) else {
            return;
        };
        let open = Open {
            hash: hash_of(publish),
            ticket,
            conn: Some(conn),
            left: None,
        };
        session.resends.add(packet_id, open, max);
        session.resends.goes_on |= !publish.dup;
        if self.work.resends_now.last() != Some(&key) {
            self.work.resends_now.push(key);
        }
    }

    /// A PUBACK has left.
    pub(super) fn puback_left(&mut self, conn: ConnId, packet_id: u16) {
        let Some(key) = self.conns.get(&conn).map(|state| state.session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.is_durable()) else {
            return;
        };
        session.resends.acked(packet_id, conn);
        if !std::mem::replace(&mut session.resends.listed, true) {
            self.work.resends_later.push(key);
        }
    }

    /// Puts the tables of the sessions whose messages are in the commit that is being taken.
    pub(super) fn put_resends_now(&mut self) {
        let mut keys = std::mem::take(&mut self.work.resends_now);
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.resends.forget_left();
                self.put_resends(key);
            }
        }
    }

    /// Names nothing any more whose PUBACK has left: the node is about to stop.
    pub(super) fn settle_resends(&mut self) {
        for key in &self.work.resends_later {
            if let Some(session) = self.sessions.get_mut(*key) {
                session.resends.settle();
            }
        }
    }

    /// Puts, without asking for a commit, the tables that name more than they need to.
    pub(super) fn put_resends_later(&mut self) {
        for key in std::mem::take(&mut self.work.resends_later) {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            if session.resends.forget_left() {
                self.put_resends(key);
            }
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.resends.listed = session.resends.has_left();
            if session.resends.listed {
                self.work.resends_later.push(key);
            }
        }
    }

    fn put_resends(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let table = session.resends.table();
        let stored_key = persist::resends_key(&session.client_id);
        if !table.is_empty() {
            session.resends.is_stored = true;
            self.work.put(Space::Session, stored_key, persist::resends(&table));
        } else if std::mem::take(&mut session.resends.is_stored) {
            self.work.delete(Space::Session, stored_key);
        }
    }
}
