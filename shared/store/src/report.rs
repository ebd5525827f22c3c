//! What `open` found.

use fellbeck_core::incarnation::Incarnation;
use fellbeck_core::{CommitNumber, Seq, TrackId};

use crate::entry::Gap;

/// What `open` found and did. Everything in it was also logged and counted.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// The directory was empty.
    pub created: bool,
    /// The incarnation that this open wrote. `None` never happens after a successful open.
    pub incarnation: Option<Incarnation>,
    /// Newest commit that was recovered.
    pub recovered: CommitNumber,
    /// Newest commit that the high-water file knew to be synced; larger than `recovered` when commits were lost.
    pub high_water: CommitNumber,
    /// Ranges found missing at this open.
    pub gaps: Vec<(TrackId, Gap)>,
    /// Bytes cut from the end of a journal where the last, never acknowledged commit was torn.
    pub torn_bytes: u64,
    /// Damaged stretches in the middle of journals that were cut out; commits in them are lost.
    pub damaged_stretches: u64,
    /// Bytes in those stretches.
    pub damaged_bytes: u64,
    /// Where damaged parts of the database were moved, or all of it, if they had to be.
    pub quarantined: Option<std::path::PathBuf>,
    /// Record batches that were read out of what was set aside, and put back.
    pub restored_batches: u64,
    /// Small files that were damaged and made anew: the chain or both high-water slots.
    pub remade: Vec<&'static str>,
}

impl OpenReport {
    /// Records that were known to be appended and are missing.
    #[must_use]
    pub fn lost_records(&self) -> u64 {
        self.gaps.iter().map(|(_, gap)| gap.last.0 - gap.first.0 + 1).sum()
    }

    /// True when anything is missing or may be: an operator should look.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        !self.gaps.is_empty()
            || self.high_water > self.recovered
            || self.damaged_stretches > 0
            || self.quarantined.is_some()
            || !self.remade.is_empty()
    }

    pub(crate) fn lose(&mut self, track: TrackId, gap: Gap) {
        debug_assert!(
            gap.first <= gap.last && gap.first > Seq(0),
            "a gap holds at least one number"
        );
        self.gaps.push((track, gap));
    }
}
