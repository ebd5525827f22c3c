//! Counts of the whole core, for `$SYS`.
//!
//! In: sessions and counters. Out: one plain value. Costs a look at each session, so it is made when somebody wants to see it.

use fellbeck_core::DropReason;

use super::Core;

/// Counts of a core at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Of these, those that have a connection.
    pub connected: usize,
    /// Most of these at one time, since the start.
    pub connected_max: usize,
    /// Sessions that ended since their expiry interval had run out, since the start.
    pub sessions_expired: u64,
    /// Subscriptions of all sessions, shared ones included.
    pub subscriptions: usize,
    /// Shared subscriptions of all sessions.
    pub shared_subscriptions: usize,
    /// Messages sent at QoS 1 and 2 and not completely acknowledged.
    pub in_flight: usize,
    /// Messages that were not delivered, by reason, since the start.
    pub dropped: Vec<(DropReason, u64)>,
}

impl Core {
    /// Counts of everything. Costs a look at each session.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            sessions: self.sessions.len(),
            connected: self.conns.len(),
            connected_max: self.connected_max,
            sessions_expired: self.work.counters.sessions_expired.get(),
            subscriptions: 0,
            shared_subscriptions: 0,
            in_flight: 0,
            dropped: self.work.counters.drops().collect(),
        };
        for session in self.sessions.iter() {
            totals.subscriptions += session.subscriptions.open_count();
            totals.shared_subscriptions += session.subscriptions.open_shared_count();
            totals.in_flight += session.in_flight.len();
        }
        totals
    }

    /// Messages that were not delivered, for whatever reason, since the start.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.work.counters.drops().map(|(_, count)| count).sum()
    }
}
