//! Deadlines: session expiry, will delay, the flush of cursors, retries of lookups.
//!
//! A timer that is set belongs to a session, which holds its number and takes it back when it is no longer wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use fellbeck_core::Tick;

use super::state::SessionKey;
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

/// Names one timer, so that it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId(Tick, u64);

/// Deadlines in order. Bounded by two per session.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeMap<TimerId, Timer>,
    added: u64,
}

impl Timers {
    pub(super) fn add(&mut self, at: Tick, timer: Timer) -> TimerId {
        self.added += 1;
        let id = TimerId(at, self.added);
        self.by_time.insert(id, timer);
        id
    }

    /// Takes a timer back, if it was set.
    pub(super) fn cancel(&mut self, id: &mut Option<TimerId>) {
        if let Some(id) = id.take() {
            self.by_time.remove(&id);
        }
    }

    pub(super) fn next(&self) -> Option<Tick> {
        self.by_time.keys().next().map(|id| id.0)
    }

    fn pop_due(&mut self, now: Tick) -> Option<Timer> {
        let due = self.by_time.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(due.remove())
    }
}

impl Core {
    /// When `handle_tick` is to be called next.
    pub fn poll_timeout(&self) -> Option<Tick> {
        let is_dirty = !self.work.cursors_later.is_empty() || self.mark_due || !self.unmarked.is_empty();
        let flush = is_dirty.then(|| self.flushed_at.after(FLUSH_AFTER));
        [self.timers.next(), flush, self.retry_at].into_iter().flatten().min()
    }

    /// Deadlines have passed. May be called at any time.
    pub fn handle_tick<W: Wire>(&mut self, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        self.run_timers(turn);
        self.list_retries(now);
        if now.tick >= self.flushed_at.after(FLUSH_AFTER) {
            self.flushed_at = now.tick;
            self.flush();
        }
        self.settle_groups(turn);
    }

    /// Does what is due, as far as the commit under construction takes it: after a restart much may be due at one moment. The rest
    /// follows at the next call, and `poll_timeout` asks for that.
    pub(super) fn run_timers<W: Wire>(&mut self, turn: &mut Turn<'_, W>) {
        while !self.wants_pause()
            && let Some(timer) = self.timers.pop_due(turn.now.tick)
        {
            self.run_timer(timer, turn);
        }
    }

    /// Does what is due of one client, whatever else is.
    pub(super) fn run_timers_of<W: Wire>(&mut self, client_id: &str, turn: &mut Turn<'_, W>) {
        let Some(key) = self.sessions.find(client_id) else {
            return;
        };
        let now = turn.now.tick;
        let is_due = |id: &TimerId| id.0 <= now;
        let session = self.sessions.get(key);
        let (will, expiry) = session.map_or((None, None), |session| (session.will_due, session.expires));
        if will.as_ref().is_some_and(is_due) {
            // It takes its timer back.
            self.run_timer(Timer::Will(key), turn);
        }
        if expiry.as_ref().is_some_and(is_due) {
            self.run_timer(Timer::Expiry(key), turn);
        }
    }

    fn run_timer<W: Wire>(&mut self, timer: Timer, turn: &mut Turn<'_, W>) {
        match timer {
            Timer::Will(key) => self.send_will(key, turn),
            Timer::Expiry(key) => {
                tracing::debug!("a session has expired");
                self.work.counters.sessions_expired.increment(1);
                self.end_session(key, turn);
            }
        }
    }

    /// The session has no connection: it ends after its expiry interval. [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
    pub(super) fn schedule_expiry(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.expiry_secs == u32::MAX {
            return;
        }
        let at = now.tick.after(Duration::from_secs(u64::from(session.expiry_secs)));
        session.expires = Some(self.timers.add(at, Timer::Expiry(key)));
    }
}
