//! What is known to be lost: the gaps that were found at open or earlier, and those that a reader came upon since.
//!
//! Each lost number is noted, logged and counted once, whoever reads it and how often. The list is bounded; the counters are not.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use fellbeck_core::ledger::DropReason;
use fellbeck_core::{Epoch, Seq, TrackId};

use crate::entry::Gap;
use crate::shared::Shared;

/// Ranges that are listed; beyond it the oldest leave the list.
const LISTED_MAX: usize = 4096;

/// A lost range of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Lane and run, or partition.
    pub track: TrackId,
    /// The range, and why it is lost.
    pub gap: Gap,
}

impl Loss {
    /// Numbers in the range.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.gap.last.0 - self.gap.first.0 + 1
    }
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<VecDeque<Loss>>);

impl Losses {
    pub(crate) fn of(known: impl IntoIterator<Item = Loss>) -> Self {
        let losses = Self::default();
        known.into_iter().for_each(|loss| losses.push(loss));
        losses
    }

    pub(crate) fn list(&self) -> Vec<Loss> {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().copied().collect()
    }

    fn push(&self, loss: Loss) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == LISTED_MAX {
            list.pop_front();
        }
        list.push_back(loss);
    }
}

/// Notes that nothing can be read in `first..end` of a track. Numbers that were trimmed meanwhile, or are known to be lost, are left out.
pub(crate) fn note(shared: &Shared, track: TrackId, first: Seq, end: Seq, epoch: Epoch) {
    let found = {
        let mut catalog = shared.catalog_mut();
        let Some(state) = catalog.tracks.get_mut(track.0 as usize) else {
            return;
        };
        // What is in memory is no loss of flash.
        if state.policy.memory_bytes.is_some() && state.segments.is_empty() {
            return;
        }
        // What was acknowledged or trimmed since the read began is no loss.
        let mut at = first.max(state.first());
        if !state.sessions_only {
            at = at.max(state.acked.next());
        }
        let mut found = Vec::new();
        while at < end {
            if let Some(known) = state.gap_at(at) {
                at = known.last.next();
                continue;
            }
            let next = state.gaps.iter().map(|gap| gap.first).find(|known| *known > at);
            let last = Seq(next.map_or(end, |next| next.min(end)).0 - 1);
            found.push(Gap {
                epoch,
                first: at,
                last,
                reason: DropReason::Damaged,
            });
            at = last.next();
        }
        state.gaps.extend(&found);
        state.gaps.sort_by_key(|gap| gap.first);
        found
            .into_iter()
            .map(|gap| (state.name.clone(), gap))
            .collect::<Vec<_>>()
    };
    for (name, gap) in found {
        tell(&name, &gap);
        shared.losses.push(Loss { track, gap });
    }
}

/// Says once that a range is lost: in the log and in the counters.
pub(crate) fn tell(track: &str, gap: &Gap) {
    let (first, last, count) = (gap.first.0, gap.last.0, gap.last.0 - gap.first.0 + 1);
    let reason = gap.reason.as_str();
    tracing::error!(track, first, last, count, reason, "records that were synced are lost");
    metrics::counter!("fellbeck_store_lost_records_total", "reason" => reason).increment(count);
    metrics::counter!("fellbeck_store_lost_ranges_total", "reason" => reason).increment(1);
}
