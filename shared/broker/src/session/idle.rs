//! Sessions that are away and hold nothing: they give way when the table of sessions is full.
//!
//! Nothing is lost with such a session but the fact that it was there: no subscription, no message in either direction, no will. So a
//! client that opens one session after the other and leaves them behind cannot lock others out. The one that is away for longest
//! goes first. Sessions that hold anything never give way.

use std::collections::BTreeMap;

use super::Core;
use super::state::{Session, SessionKey};
use super::turn::Turn;
use crate::wire::{Connect, Wire};

/// When a session left, and a number to tell those apart that left at the same time.
pub(super) type IdleSince = (u64, u64);

/// The sessions that may give way, in the order in which they do.
#[derive(Debug, Default)]
pub(super) struct Idle {
    by_time: BTreeMap<IdleSince, SessionKey>,
    added: u64,
}

impl Idle {
    pub(super) fn remove(&mut self, session: &mut Session) {
        if let Some(since) = session.idle.take() {
            self.by_time.remove(&since);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }
}

impl Session {
    fn may_give_way(&self) -> bool {
        self.attached.is_none()
            && self.will.is_none()
            && self.subscriptions.len() == 0
            && self.in_flight.len() == 0
            && self.inbound.is_empty()
    }
}

impl Core {
    /// Looks whether a session without a connection has come to hold nothing.
    pub(super) fn note_idle(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.idle.is_none() && session.may_give_way() {
            self.idle.added += 1;
            let since = (session.left.map_or(0, |(at, _)| at.0), self.idle.added);
            session.idle = Some(since);
            self.idle.by_time.insert(since, key);
        }
    }

    /// Makes room for the session of a CONNECT that was not refused.
    pub(super) fn make_room<W: Wire>(&mut self, connect: &Connect, turn: &mut Turn<'_, W>) {
        while self.sessions.find(&connect.client_id).is_none()
            && self.sessions.len() >= self.config.limits.sessions_max
            && let Some((_, key)) = self.idle.by_time.pop_first()
        {
            self.work.counters.gave_way.increment(1);
            self.end_session(key, turn);
        }
    }
}
