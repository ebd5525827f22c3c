//! One call from outside: the time it is made at, and the port that it may speak through.

use fellbeck_core::Record;

use super::config::Now;
use crate::wire::Wire;

/// Handed down through every function that may send.
pub(super) struct Turn<'a, W> {
    pub(super) now: Now,
    pub(super) wire: &'a mut W,
}

impl<'a, W: Wire> Turn<'a, W> {
    pub(super) fn new(now: Now, wire: &'a mut W) -> Self {
        Self { now, wire }
    }
}

impl Now {
    /// Seconds of the expiry interval that remain: `Some(0)` means expired, `None` that none was set.
    ///
    /// While the node does not know its clock, or took the message by another one, nothing expires.
    pub(super) fn remaining_expiry_secs(&self, record: &Record<'_>) -> Option<u32> {
        if self.is_comparable(record.accepted_at, record.clock) {
            record.remaining_expiry_secs(self.wall)
        } else {
            record.expiry_secs.map(|interval| interval.max(1))
        }
    }
}
