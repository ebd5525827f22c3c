//! Credit: how many bytes of lane frames may be on their way between the edge's flash and the cloud's.
//!
//! One window for the link, granted as a running total, and a minimum for each lane, so that a lane whose data is
//! slow to become durable cannot starve the others, and a frame larger than the window can still pass alone. Both
//! sides count [`cost`] of every lane frame but the start. The cloud holds at most `window + lanes * max(lane_credit,
//! largest frame)` bytes that are not durable.

use crate::limits::FRAME_COST_MIN;

/// What a lane frame of `wire_len` bytes counts for.
#[must_use]
pub fn cost(wire_len: u64) -> u64 {
    wire_len.max(FRAME_COST_MIN)
}

/// The edge's side: what may still be sent.
#[derive(Debug, Clone, Default)]
pub struct CreditUse {
    /// Running total of the cloud; only rises within a connection.
    granted: u64,
    /// Running total sent. May pass `granted` by what the lanes' minimum allows.
    sent: u64,
    lane_credit: u64,
}

impl CreditUse {
    /// Credit at the beginning of a connection.
    #[must_use]
    pub fn new(window: u64, lane_credit: u64) -> Self {
        Self {
            granted: window,
            sent: 0,
            lane_credit,
        }
    }

    /// The cloud's running total. One that is lower than before is late news and changes nothing.
    pub fn granted_to(&mut self, total: u64) {
        self.granted = self.granted.max(total);
    }

    /// Whether a lane with `lane_in_flight` unacked bytes may send a frame of this cost.
    #[must_use]
    pub fn allows(&self, cost: u64, lane_in_flight: u64) -> bool {
        self.sent.saturating_add(cost) <= self.granted
            || lane_in_flight == 0
            || lane_in_flight.saturating_add(cost) <= self.lane_credit
    }

    /// A frame was sent.
    pub fn spend(&mut self, cost: u64) {
        self.sent = self.sent.saturating_add(cost);
    }

    /// Bytes that a lane may read ahead of its queue: what could be sent if it were at hand.
    #[must_use]
    pub fn room(&self, lane_in_flight: u64) -> u64 {
        self.granted
            .saturating_sub(self.sent)
            .max(self.lane_credit.saturating_sub(lane_in_flight))
    }
}

/// The cloud's side: what has been taken and released.
#[derive(Debug, Clone)]
pub struct CreditGrant {
    window: u64,
    /// Most that can be outstanding while the edge keeps the rules.
    limit: u64,
    taken: u64,
    released: u64,
    announced: u64,
}

impl CreditGrant {
    /// Credit at the beginning of a connection with `lanes` lanes.
    #[must_use]
    pub fn new(window: u64, lane_credit: u64, frame_max: u64, lanes: u64) -> Self {
        Self {
            window,
            limit: window.saturating_add(lanes.saturating_mul(lane_credit.max(frame_max))),
            taken: 0,
            released: 0,
            announced: window,
        }
    }

    /// A frame came. `false`: it is more than the edge was ever granted.
    #[must_use]
    pub fn take(&mut self, cost: u64) -> bool {
        self.taken = self.taken.saturating_add(cost);
        self.outstanding() <= self.limit
    }

    /// A frame's records are durable or were known.
    pub fn release(&mut self, cost: u64) {
        self.released = self.released.saturating_add(cost);
        debug_assert!(self.released <= self.taken, "more credit released than taken");
    }

    /// Bytes taken and not yet released.
    #[must_use]
    pub fn outstanding(&self) -> u64 {
        self.taken - self.released
    }

    /// Bound of [`outstanding`](Self::outstanding).
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A running total to announce, when it has moved since the last one.
    pub fn poll_announcement(&mut self) -> Option<u64> {
        let total = self.released.saturating_add(self.window);
        (total > self.announced).then(|| {
            self.announced = total;
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_up_window_leaves_each_lane_its_minimum() {
        let mut credit = CreditUse::new(1000, 300);
        credit.spend(1000);
        assert!(!credit.allows(256, 1000));
        assert!(credit.allows(256, 0));
        assert!(!credit.allows(256, 256));
        credit.granted_to(1256);
        credit.granted_to(1000);
        assert!(credit.allows(256, 256), "a late total takes nothing back");
    }

    #[test]
    fn a_frame_larger_than_the_window_passes_alone() {
        let credit = CreditUse::new(1000, 0);
        assert!(credit.allows(5000, 0));
        assert!(!credit.allows(5000, 1));
    }

    #[test]
    fn released_bytes_are_granted_again_and_an_overrun_is_noticed() {
        let mut grant = CreditGrant::new(1000, 100, 500, 2);
        assert!(grant.take(1000) && grant.take(1000));
        assert_eq!(grant.poll_announcement(), None);
        grant.release(1000);
        assert_eq!(
            (grant.poll_announcement(), grant.poll_announcement()),
            (Some(2000), None)
        );
        assert!(grant.take(1000));
        assert!(!grant.take(1), "2000 bytes are outstanding, as many as the rules allow");
    }
}
