//! Deadlines: session expiry, will delay, the flush of cursors, retries of lookups.
//!
//! A timer that is no longer wanted stays in the list and is recognised when it fires: the session then holds another deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use fellbeck_core::Tick;

use super::session::SessionKey;
use super::turn::Turn;
use super::{Core, Now};
use crate::wire::Wire;

/// A cursor that moved is stored at the latest after this time.
pub(super) const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// A lookup that failed is tried again after this time.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    Will(SessionKey),
    Expiry(SessionKey),
}

/// Deadlines in order. Bounded by two per session and connection made.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeMap<(Tick, u64), Timer>,
    added: u64,
}

impl Timers {
    pub(super) fn add(&mut self, at: Tick, timer: Timer) {
        self.added += 1;
        self.by_time.insert((at, self.added), timer);
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.by_time.keys().next().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Tick) -> Option<Timer> {
        let (&(at, _), _) = self.by_time.first_key_value()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first().map(|(_, timer)| timer)
    }
}

impl Core {
    /// When `handle_tick` is to be called next.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let is_dirty = !self.work.cursors_later.is_empty() || self.mark != self.fanned;
        let flush = is_dirty.then(|| self.flushed_at.after(FLUSH_AFTER));
        [self.timers.next(), flush, self.retry_at].into_iter().flatten().min()
    }

    /// Deadlines have passed. May be called at any time.
    pub fn handle_tick<W: Wire>(&mut self, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        while let Some(timer) = self.timers.pop_due(now.tick) {
            match timer {
                Timer::Will(key) => {
                    let due = |at: &Tick| *at <= now.tick;
                    if self.sessions.get(key).is_some_and(|session| session.will_at.as_ref().is_some_and(due)) {
                        self.send_will(key, turn);
                    }
                }
                Timer::Expiry(key) => {
                    let due = |at: &Tick| *at <= now.tick;
                    if self.sessions.get(key).is_some_and(|session| session.expires_at.as_ref().is_some_and(due)) {
                        tracing::debug!("a session has expired");
                        self.end_session(key, turn);
                    }
                }
            }
        }
        self.list_retries(now);
        if now.tick >= self.flushed_at.after(FLUSH_AFTER) {
            self.flushed_at = now.tick;
            self.flush();
        }
        self.settle_groups(turn);
    }

    /// The session has no connection: it ends after its expiry interval. [MQTT5-3.1.2-23]
    pub(super) fn schedule_expiry(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.expiry_secs == u32::MAX {
            return;
        }
        let at = now.tick.after(Duration::from_secs(u64::from(session.expiry_secs)));
        session.expires_at = Some(at);
        self.timers.add(at, Timer::Expiry(key));
    }
}
