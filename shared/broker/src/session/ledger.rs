//! Counts of one reader (P9): matched = acked + in flight + expired + dropped by reason.
//!
//! A message counts as matched when the reader takes it up for delivery, so what waits in a queue or lies unread in the log is
//! in none of these. QoS 0 counts as acked when it was handed to the connection. Kept with the cursor, so they survive.

use fellbeck_core::DropReason;

/// Counts of one reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReaderLedger {
    /// Taken up for delivery.
    pub matched: u64,
    /// Acknowledged by the client; at QoS 0: sent.
    pub acked: u64,
    /// Not delivered since the Message Expiry Interval had run out.
    pub expired: u64,
    /// Not delivered for another reason, in order of first occurrence.
    pub dropped: Vec<(DropReason, u64)>,
    /// Records of the log that were gone before this reader came to them, whether they matched or not.
    pub skipped: u64,
}

impl ReaderLedger {
    /// Counts `n` messages that were matched and are not delivered.
    pub(super) fn drop_matched(&mut self, reason: DropReason, n: u64) {
        self.matched += n;
        self.drop_taken(reason, n);
    }

    /// Counts `n` messages that were counted as matched before and will not be delivered.
    pub(super) fn drop_taken(&mut self, reason: DropReason, n: u64) {
        if n == 0 {
            return;
        }
        if reason == DropReason::Expired {
            self.expired += n;
            return;
        }
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += n,
            None => self.dropped.push((reason, n)),
        }
    }

    /// Messages dropped for `reason`.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped
            .iter()
            .find(|(known, _)| *known == reason)
            .map_or(0, |(_, count)| *count)
    }

    /// Messages dropped for any reason.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }

    /// Whether the equation fails with `in_flight` counted elsewhere. Exact: no side of it saturates.
    #[must_use]
    pub fn is_open(&self, in_flight: u64) -> bool {
        let right = [self.acked, self.expired, self.dropped_total(), in_flight];
        u128::from(self.matched) != right.into_iter().map(u128::from).sum::<u128>()
    }

    /// What must be in flight if the books balance.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.matched
            .saturating_sub(self.acked + self.expired + self.dropped_total())
    }
}
