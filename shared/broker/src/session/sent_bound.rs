//! How far a session may have been sent messages of the log, as far as a crash leaves it known.
//!
//! A cursor is stored once a second, so after a crash nobody knows what was sent in the last moment; what may have been comes with DUP
//! [MQTT5-3.3.1-1]. To a session that is level with the log that is all that there is. A session that has a backlog to read is sent no
//! more than up to a bound that is stored, some commits ahead; it reads on when a larger one is durable. So what waits behind the bound
//! has no DUP after a crash, and since the bound stays stored until the session has passed it, a second crash changes nothing.
//! Shared groups are apart: what comes back from a member is a new delivery.

use bytes::Bytes;
use fellbeck_core::{CommitNumber, LogPosition};
use fellbeck_store::commit::Space;

use super::persist;
use super::reader::Mode;
use super::state::Session;
use super::work::{Awaited, Work};

/// Commits that a session may be sent beyond the place that is stored. Each of that many costs a small commit of its own while a backlog
/// is read.
pub(super) const AHEAD: u64 = 64;
const NO_BOUND: CommitNumber = CommitNumber(u64::MAX);

/// The bound of one session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentBound {
    /// Messages up to here may have been sent before the node last ended.
    former: CommitNumber,
    /// On the present connection messages up to here may be sent; 0: there is none.
    present: CommitNumber,
    /// Of these, as far as it is durable. Moved by [`Session::bound_is_durable`] and [`Session::lower_bound`] only.
    durable: CommitNumber,
    /// The end of what was read is near: the next bound is none.
    is_near_end: bool,
    /// What stands in the store.
    stored: Option<CommitNumber>,
}

impl SentBound {
    /// As it is after a restart. `stored`: the value in the store. `was_connected`: without one, all may have been sent.
    pub(super) fn restored(stored: Option<CommitNumber>, was_connected: bool, newest: CommitNumber) -> Self {
        let unknown = if was_connected { newest } else { CommitNumber(0) };
        Self {
            former: stored.unwrap_or(unknown).min(newest),
            stored,
            ..Self::default()
        }
    }

    /// A message of this commit may have been sent before the node last ended.
    pub(super) fn may_have_been_sent(&self, commit: CommitNumber) -> bool {
        commit <= self.former
    }

    /// The connection is gone.
    pub(super) fn close(&mut self) {
        (self.present, self.durable, self.is_near_end) = (CommitNumber(0), CommitNumber(0), false);
    }

    /// What is to be stored. Nothing means: all, of a session that is connected, and none, of one that is away.
    fn to_store(self) -> Option<CommitNumber> {
        match (self.present, self.former) {
            (CommitNumber(0), former) => Some(former).filter(|former| *former > CommitNumber(0)),
            (NO_BOUND, _) => None,
            (present, former) => Some(present.max(former)),
        }
    }
}

impl Session {
    /// A connection begins; its CONNACK follows the commit that holds the bound.
    pub(super) fn open_bound(&mut self, newest: CommitNumber) {
        self.bound.present = match self.reader.mode {
            Mode::Live => NO_BOUND,
            Mode::Behind => self.next_bound(newest),
        };
    }

    fn next_bound(&self, newest: CommitNumber) -> CommitNumber {
        let bound = CommitNumber(self.read_to().commit.0 + AHEAD);
        if bound >= newest { NO_BOUND } else { bound }
    }

    /// Where a reader that is behind goes on.
    fn read_to(&self) -> LogPosition {
        self.reader.filled(CommitNumber(0))
    }

    /// Puts the bound, if it changed, into the commit under construction.
    pub(super) fn store_bound(&mut self, work: &mut Work) {
        let is_passed = self.reader.mode == Mode::Live || self.read_to().commit > self.bound.former;
        if self.attached.is_none() && is_passed {
            self.bound.former = CommitNumber(0);
        }
        let wanted = self.bound.to_store();
        if !self.is_durable() || wanted == self.bound.stored {
            return;
        }
        self.bound.stored = wanted;
        let key: Bytes = persist::bound_key(&self.client_id);
        match wanted {
            Some(commit) => work.put(Space::Session, key, persist::commit(commit)),
            None => work.delete(Space::Session, key),
        }
    }

    /// The commit that holds the bound is durable.
    pub(super) fn bound_is_durable(&mut self) {
        self.bound.durable = self.bound.present;
    }

    /// A reader that has fallen behind was sent nothing beyond where it stands. With the next stored cursor.
    pub(super) fn lower_bound(&mut self, newest: CommitNumber, work: &mut Work) {
        if self.reader.mode == Mode::Behind && self.bound.durable == NO_BOUND {
            let bound = self.next_bound(newest);
            self.bound.present = bound;
            self.bound.durable = bound;
            self.store_bound(work);
        }
    }

    /// Whether messages at `commit` may be sent, as far as the bound goes.
    pub(super) fn is_within_bound(&self, commit: CommitNumber) -> bool {
        !self.is_durable() || commit <= self.bound.durable
    }

    /// Whether the log may be read on from where the reader stands.
    pub(super) fn may_read_on(&self) -> bool {
        let is_asked = self.bound.present != self.bound.durable;
        !self.is_durable() || (self.is_within_bound(self.read_to().commit) && !self.bound.is_near_end && !is_asked)
    }

    /// Everything below `next` has been read, as far as the bound allows.
    pub(super) fn advance_within_bound(&mut self, next: LogPosition, fanned: CommitNumber) {
        if !self.is_durable() || self.attached.is_none() || self.bound.durable == NO_BOUND {
            return self.reader.advance(next, fanned);
        }
        let end = LogPosition::after(self.bound.durable);
        self.bound.is_near_end = next.min(end) >= LogPosition::after(fanned);
        self.reader.advance_behind(next.min(end));
    }

    /// Asks for a larger bound, once. [`Session::wants_read`] is true again when it is durable.
    pub(super) fn raise_bound(&mut self, work: &mut Work) {
        let Some(attached) = self.attached.filter(|_| self.bound.present == self.bound.durable) else {
            return;
        };
        self.bound.present = if self.bound.is_near_end {
            NO_BOUND
        } else {
            self.next_bound(work.newest)
        };
        self.bound.is_near_end = false;
        self.store_bound(work);
        let session = self.key;
        work.wait(attached.id, Awaited::Bound { session });
    }
}
