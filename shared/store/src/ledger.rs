//! The positions of a track counted one class at a time, from what the store holds and not from one another (P9).
//!
//! In: the catalog. Out: per track, how many positions from a number on lie in segments, in declared gaps, or in neither.
//! What lies in neither is a hole that nobody declared; there should never be one. Costs a look at each segment of the track.

use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};

use crate::catalog::{Catalog, Track};
use crate::entry::Gap;
use crate::error::ReadError;
use crate::segment::seek_commit;
use crate::store::Store;

/// Positions of one track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackLedger {
    /// Name of the track.
    pub name: String,
    /// Positions handed out over the life of the store: the last sequence number.
    pub appended: u64,
    /// Last acknowledged position, as the store knows it.
    pub acked: Seq,
    /// First position still held as a record or as a gap.
    pub first: Seq,
    /// No uplink acknowledges it.
    pub sessions_only: bool,
    /// All positions that are still held.
    pub held: Counted,
    /// Those above the position that was asked for.
    pub above: Counted,
}

/// Positions by what is at them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Records in segments, or in memory where they are never written.
    pub records: u64,
    /// Inside declared gaps.
    pub gap: u64,
    /// In neither.
    pub hole: u64,
}

impl Store {
    /// The positions of `track`, those above `after` once more on their own. `None`: there is no such track.
    #[must_use]
    pub fn ledger(&self, track: TrackId, after: Seq) -> Option<TrackLedger> {
        let catalog = self.shared().catalog();
        let state = catalog.track(track)?;
        let first = state.first();
        Some(TrackLedger {
            name: state.name.clone(),
            appended: state.end.0 - 1,
            acked: state.acked,
            first,
            sessions_only: state.sessions_only,
            held: catalog.count(track, state, first),
            above: catalog.count(track, state, after.next().max(first)),
        })
    }

    /// Declared gaps of `track` that are still known, rising.
    #[must_use]
    pub fn gaps(&self, track: TrackId) -> Vec<Gap> {
        let catalog = self.shared().catalog();
        catalog.track(track).map(|state| state.gaps.clone()).unwrap_or_default()
    }

    /// Records of the log at or above `from` that are still held, of all tracks. Blocks: reads O(log n) entries per track.
    pub fn unread(&self, from: LogPosition) -> Result<u64, ReadError> {
        if from >= LogPosition::after(self.newest_commit()) {
            return Ok(0);
        }
        let mut records = 0;
        for (track, _) in self.tracks() {
            records += self.unread_of(track, from.commit)?;
        }
        Ok(records.saturating_sub(u64::from(from.index)))
    }

    fn unread_of(&self, track: TrackId, commit: CommitNumber) -> Result<u64, ReadError> {
        let Some(located) = self.shared().catalog().locate_commit(track, commit) else {
            return Ok(0);
        };
        let from = seek_commit(&located, commit)?;
        let catalog = self.shared().catalog();
        let Some(state) = catalog.track(track) else {
            return Ok(0);
        };
        Ok(catalog.count(track, state, from.max(state.first())).records)
    }
}

impl Catalog {
    /// Counts the positions `from..end` of a track. `from` is not below the first that is held.
    fn count(&self, track: TrackId, state: &Track, from: Seq) -> Counted {
        let spans = state.segments.iter().filter_map(|(_, id)| {
            let spans = &self.segments.get(id)?.seal.spans;
            let span = spans.iter().find(|span| span.track == track)?;
            Some((span.first.0, span.end.0))
        });
        // What is never written lies in no segment.
        let in_memory = state
            .ring
            .from(from)
            .map(|batch| (batch.header.first.0, batch.last().next().0));
        let mut spans: Vec<_> = spans.chain(in_memory).filter(|(_, end)| *end > from.0).collect();
        spans.sort_unstable();
        let gaps = state.gaps.iter().map(|gap| (gap.first.0, gap.last.0.saturating_add(1)));
        count(&spans, gaps, from.0, state.end.0)
    }
}

/// Counts `from..end` by `spans` and `gaps`, both of half-open ranges that rise and do not overlap among themselves. A gap wins
/// over the span around it.
fn count(spans: &[(u64, u64)], gaps: impl Iterator<Item = (u64, u64)>, from: u64, end: u64) -> Counted {
    let clip = |(first, last): (u64, u64)| (first.max(from), last.min(end));
    let length = |(first, last): (u64, u64)| last.saturating_sub(first);
    let mut counted = Counted::default();
    let mut covered: u64 = spans.iter().map(|span| length(clip(*span))).sum();
    for gap in gaps.map(clip).filter(|gap| gap.0 < gap.1) {
        counted.gap += length(gap);
        let begin = spans.partition_point(|(_, end)| *end <= gap.0);
        let inside = spans[begin..].iter().take_while(|span| span.0 < gap.1);
        covered -= inside
            .map(|span| length((span.0.max(gap.0), span.1.min(gap.1))))
            .sum::<u64>();
    }
    counted.records = covered;
    counted.hole = end.saturating_sub(from).saturating_sub(covered + counted.gap);
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(spans: &[(u64, u64)], gaps: &[(u64, u64)], from: u64, end: u64) -> (u64, u64, u64) {
        let Counted { records, gap, hole } = count(spans, gaps.iter().copied(), from, end);
        (records, gap, hole)
    }

    #[test]
    fn each_position_is_in_one_class_and_what_nobody_declared_is_a_hole() {
        assert_eq!(counted(&[(1, 11)], &[], 1, 11), (10, 0, 0));
        assert_eq!(counted(&[(1, 6), (8, 11)], &[], 1, 11), (8, 0, 2));
        assert_eq!(counted(&[(1, 6), (8, 11)], &[(6, 8)], 1, 11), (8, 2, 0));
        assert_eq!(counted(&[(1, 11)], &[(4, 6)], 1, 11), (8, 2, 0), "inside a span");
        assert_eq!(counted(&[(1, 11)], &[(4, 6)], 5, 11), (5, 1, 0), "cut by the start");
        assert_eq!(
            counted(&[(1, 6)], &[(4, 9)], 1, 11),
            (3, 5, 2),
            "over the end of a span"
        );
        assert_eq!(counted(&[], &[], 11, 11), (0, 0, 0));
    }

    /// Goal: the classes add up to the range for any spans and gaps. Method: against a plain list of positions.
    #[test]
    fn classes_agree_with_a_plain_list() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};
        for seed in 0..500 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut ranges = || {
                let mut at = 1u64;
                let mut ranges = Vec::new();
                while at < 60 {
                    let first = at + random.random_range(0..4);
                    at = first + random.random_range(1..9);
                    ranges.push((first, at));
                }
                ranges
            };
            let (spans, gaps) = (ranges(), ranges());
            let (from, end) = (random.random_range(1..30), random.random_range(30..70));
            let inside =
                |ranges: &[(u64, u64)], at: u64| ranges.iter().any(|(first, end)| (*first..*end).contains(&at));
            let mut expected = (0, 0, 0);
            for at in from..end {
                match (inside(&gaps, at), inside(&spans, at)) {
                    (true, _) => expected.1 += 1,
                    (false, true) => expected.0 += 1,
                    (false, false) => expected.2 += 1,
                }
            }
            assert_eq!(counted(&spans, &gaps, from, end), expected, "seed {seed}");
        }
    }
}
