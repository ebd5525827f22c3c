//! From the state of sessions and groups to what the store is given: commits, cursors, the floor.
//!
//! Cursors are encoded when the commit is taken, so each says what is true at that moment. A cursor that must be durable before
//! something is sent goes with the commit under construction; all others are written together once a second, with the *level
//! mark*: up to its commit, every cursor that says "level" has nothing unread. So an idle session costs no write when its head
//! moves, and still never holds back the floor.

use fellbeck_core::{CommitNumber, DropReason};
use fellbeck_store::commit::{Commit, Space, Ticket};

use super::Core;
use super::persist;
use super::shared::GroupKey;
use super::state::SessionKey;
use super::work::ReaderKey;

impl Core {
    /// What is to be submitted to the store now, if anything. Followed by `handle_submitted`, or by `untake_commit`.
    pub fn take_commit(&mut self) -> Option<Commit> {
        if !self.work.cursors_now.is_empty() {
            for key in std::mem::take(&mut self.work.cursors_now) {
                self.put_cursor(key);
            }
            self.work.want_commit();
        }
        self.put_resends_now();
        if self.work.is_empty() || self.work.may_wait() {
            return None;
        }
        if self.floor == CommitNumber(0) && self.has_durable() {
            // Without a floor the store keeps nothing for sessions: it goes with the first of them.
            self.floor = self.oldest_needed().unwrap_or(self.fanned.next());
            self.work.set_floor(self.floor);
        }
        Some(self.work.take())
    }

    /// The store did not take the commit: it is part of the next one.
    pub fn untake_commit(&mut self, commit: Commit) {
        self.work.give_back(commit);
    }

    /// The store took the commit that was taken last.
    pub fn handle_submitted(&mut self, ticket: Ticket) {
        self.work.submitted(ticket);
    }

    /// Too much is on its way to the store: the front should read no sockets until this is false again.
    #[must_use]
    pub fn wants_pause(&self) -> bool {
        let limits = &self.config.limits;
        self.work.bytes() >= limits.commit_bytes_max || self.work.outstanding() >= limits.outstanding_max as u64
    }

    /// Writes what is otherwise written once a second: the node is about to stop.
    pub fn flush_all(&mut self) {
        self.settle_resends();
        self.flush();
        self.work.want_commit();
    }

    /// Whether a connected client still has messages to acknowledge. Those that only wait to be sent do not count.
    #[must_use]
    pub fn awaits_acks(&self) -> bool {
        self.sessions.iter().any(|session| {
            let sent = |used: u16| usize::from(used) > session.reserved.len();
            session.attached.is_some_and(|attached| sent(attached.used))
        })
    }

    /// Writes all cursors that moved, the level mark and the floor, without asking for a commit of their own.
    pub(super) fn flush(&mut self) {
        self.fall_behind_where_old();
        self.store_restart();
        self.put_resends_later();
        for key in std::mem::take(&mut self.work.cursors_later) {
            if let ReaderKey::Session(key) = key {
                self.forget_read_versions(key);
                self.note_idle(key);
            }
            self.put_cursor(key);
        }
        let floor = self.oldest_needed().unwrap_or(self.fanned.next());
        // The commit that this makes moves the level itself by one: that alone is no reason for the next, or an idle node would write
        // for ever.
        if self.mark_due || floor.0 > self.floor.0 + 1 {
            self.floor = floor;
            self.work.set_floor(floor);
        }
        if std::mem::take(&mut self.mark_due) && self.has_durable() {
            let (key, value) = persist::mark(self.fanned);
            self.work.put(Space::Session, key, value);
        }
    }

    fn has_durable(&self) -> bool {
        self.sessions.iter().any(super::state::Session::is_durable)
    }

    /// Writes for sessions that were connected when the process ended that they are away since the restart, some in each flush.
    fn store_restart(&mut self) {
        while self.work.bytes() < self.config.limits.commit_bytes_max {
            let Some(key) = self.unmarked.pop_front() else {
                return;
            };
            self.store_session(key);
        }
    }

    /// Oldest commit that a durable reader still has to read, to deliver or to send again.
    fn oldest_needed(&self) -> Option<CommitNumber> {
        let sessions = self
            .sessions
            .iter()
            .filter(|session| session.is_durable())
            .map(|session| {
                let head = session.reader.head(self.fanned).commit;
                session
                    .in_flight
                    .oldest_commit()
                    .map_or(head, |oldest| oldest.min(head))
            });
        let groups = self.groups.iter().filter(|group| group.is_durable()).map(|group| {
            let held = group.outstanding.first().into_iter().chain(group.returned.first());
            let head = group.reader.head(self.fanned).commit;
            held.map(|position| position.commit).fold(head, CommitNumber::min)
        });
        sessions.chain(groups).min()
    }

    /// A queue that keeps old blocks in memory is given up: the log has them.
    fn fall_behind_where_old(&mut self) {
        let (fanned, age) = (self.fanned, self.fanned_bytes);
        let window = self.config.limits.live_window_bytes;
        for key in self.sessions.keys() {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let is_old = session
                .reader
                .queue
                .front_age()
                .is_some_and(|front| age.saturating_sub(front) > window);
            if is_old && session.kind != super::state::Kind::Immediate {
                let lost = session.reader.rewind(fanned).len() as u64;
                session.drop_matched(DropReason::SessionQueueFull, lost, &self.work);
                session.moved(&mut self.work);
            }
        }
        for key in self.groups.keys() {
            let Some(group) = self.groups.get_mut(key) else {
                continue;
            };
            let front = group.reader.queue.front_age();
            if front.is_some_and(|front| age.saturating_sub(front) > window) {
                let lost = group.reader.rewind(fanned).len() as u64;
                group.reader.ledger.drop_matched(DropReason::SessionQueueFull, lost);
                self.work.counters.dropped(DropReason::SessionQueueFull, lost);
                group.moved(&mut self.work);
            }
        }
    }

    fn put_cursor(&mut self, key: ReaderKey) {
        match key {
            ReaderKey::Session(key) => self.put_session_cursor(key),
            ReaderKey::Group(key) => self.put_group_cursor(key),
        }
    }

    fn put_session_cursor(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.is_durable()) else {
            return;
        };
        if !std::mem::take(&mut session.reader.dirty) {
            return;
        }
        session.lower_bound(self.fanned, &mut self.work);
        let (stored_key, value) = persist::cursor(session, self.fanned);
        self.work.put(Space::Session, stored_key, value);
        // What it completed for a group must not be listed as outstanding there by an older value.
        let groups: Vec<_> = session.groups.iter().map(|(_, group)| *group).collect();
        for group in groups {
            self.put_group_cursor(group);
        }
    }

    fn put_group_cursor(&mut self, key: GroupKey) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        if std::mem::take(&mut group.reader.dirty) && group.is_durable() {
            let (stored_key, value) = persist::group(group, self.fanned);
            self.work.put(Space::Session, stored_key, value);
        }
    }
}
