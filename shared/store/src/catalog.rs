//! Which segment holds what: the map that the writer keeps and the readers look into.
//!
//! Moved by the writer only, after a synced commit: whatever stands here is durable. Readers take the lock for a look-up and
//! copy out a keyspace handle, which keeps the files of a segment alive while they read.
//! Holds I5 within a run of the program: `end` and `acked` only rise.

use std::collections::{BTreeMap, VecDeque};

use fellbeck_core::{Batch, CommitNumber, DropReason, Epoch, Seq, TrackId};
use fjall::Keyspace;

use crate::entry::{Gap, TrackBounds};
use crate::key::Seal;
use crate::policy::TrackPolicy;
use crate::ring::Ring;
use crate::stats::{Level, TrackStats};

/// Trimmed segments that a track remembers.
const TRIMMED_MAX: usize = 256;

/// The numbers of one track that lie in one segment: `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) track: TrackId,
    pub(crate) first: Seq,
    pub(crate) end: Seq,
}

/// One segment.
pub(crate) struct Segment {
    pub(crate) keyspace: Keyspace,
    pub(crate) seal: Seal,
    /// Takes no more records.
    pub(crate) sealed: bool,
    /// The index knows it and where it ends; before that it must not be trimmed, or its numbers might be used again (I5).
    pub(crate) indexed: bool,
}

/// One track.
#[derive(Debug, Default)]
pub(crate) struct Track {
    pub(crate) name: String,
    /// First number in the segment, and the segment's number; both rise.
    pub(crate) segments: VecDeque<(Seq, u64)>,
    /// Known holes above the acknowledged position, rising.
    pub(crate) gaps: Vec<Gap>,
    /// The next record gets this number. Moved by the writer after each commit.
    pub(crate) end: Seq,
    /// Moved by commits that carry acknowledgements; below `end`.
    pub(crate) acked: Seq,
    /// Where trimmed segments ended: last commit and the number behind it, rising. The oldest are forgotten.
    pub(crate) trimmed: VecDeque<(CommitNumber, Seq)>,
    /// No uplink acknowledges it.
    pub(crate) sessions_only: bool,
    /// What gives way when space runs out.
    pub(crate) policy: TrackPolicy,
    /// Edge: bytes of its segments.
    pub(crate) bytes: u64,
    /// Records that are never written, of a track whose policy says so.
    pub(crate) ring: Ring,
    /// Records set aside by topic, without a number yet.
    pub(crate) aside: u64,
    /// Records given up by policy that get their numbers, as a gap, later.
    pub(crate) owed: u64,
}

#[derive(Default)]
pub(crate) struct Catalog {
    pub(crate) tracks: Vec<Track>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
}

/// Where to read on.
pub(crate) struct Located {
    pub(crate) keyspace: Keyspace,
    pub(crate) span: Span,
    pub(crate) first_commit: CommitNumber,
}

/// One entry that a commit has appended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    pub(crate) segment: u64,
    pub(crate) span: Span,
    pub(crate) bytes: u64,
}

impl Catalog {
    pub(crate) fn track(&self, track: TrackId) -> Option<&Track> {
        self.tracks.get(track.0 as usize)
    }

    pub(crate) fn bounds(&self, track: TrackId, epoch: Epoch) -> Option<TrackBounds> {
        let track = self.track(track)?;
        Some(TrackBounds {
            first: track.first(),
            end: track.end,
            epoch,
            acked: track.acked,
        })
    }

    pub(crate) fn insert(&mut self, id: u64, segment: Segment) {
        for span in &segment.seal.spans {
            if let Some(track) = self.tracks.get_mut(span.track.0 as usize) {
                debug_assert!(
                    track.segments.back().is_none_or(|(_, last)| *last < id),
                    "segments rise"
                );
                track.segments.push_back((span.first, id));
                track.bytes += segment.seal.bytes;
            }
        }
        self.bytes += segment.seal.bytes;
        self.segments.insert(id, segment);
    }

    /// Notes what a synced commit has appended.
    pub(crate) fn append(&mut self, appended: &Appended, commit: CommitNumber, now_ms: u64) {
        let Span { track, first, end } = appended.span;
        let state = &mut self.tracks[track.0 as usize];
        assert!(first >= state.end, "a sequence number is never reused (I5)");
        state.end = end;
        state.bytes += appended.bytes;
        let segment = self
            .segments
            .get_mut(&appended.segment)
            .expect("a segment is in the catalog before it is written to");
        match segment.seal.spans.iter_mut().find(|span| span.track == track) {
            Some(span) => span.end = end,
            None => {
                segment.seal.spans.push(appended.span);
                state.segments.push_back((first, appended.segment));
            }
        }
        if segment.seal.first_commit == CommitNumber(0) {
            segment.seal.first_commit = commit;
        }
        segment.seal.last_commit = commit;
        segment.seal.bytes += appended.bytes;
        segment.seal.touched_ms = now_ms;
        self.bytes += appended.bytes;
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Segment> {
        let segment = self.segments.remove(&id)?;
        self.bytes -= segment.seal.bytes;
        for span in &segment.seal.spans {
            let track = &mut self.tracks[span.track.0 as usize];
            let oldest = track.segments.pop_front().map(|(_, oldest)| oldest);
            assert_eq!(oldest, Some(id), "a track is trimmed from the front only");
            track.bytes = track.bytes.saturating_sub(segment.seal.bytes);
            if track.trimmed.len() == TRIMMED_MAX {
                track.trimmed.pop_front();
            }
            track.trimmed.push_back((segment.seal.last_commit, span.end));
        }
        Some(segment)
    }

    /// Notes a batch that is never written.
    pub(crate) fn keep_in_memory(&mut self, track: TrackId, batch: Batch) {
        let track = &mut self.tracks[track.0 as usize];
        assert!(
            batch.header.first >= track.end,
            "a sequence number is never reused (I5)"
        );
        track.end = batch.last().next();
        track.ring.push(batch);
    }

    /// Notes a declared gap. One that goes on where another of its kind ends has the first number of that one.
    pub(crate) fn declare(&mut self, track: TrackId, gap: Gap) {
        let track = &mut self.tracks[track.0 as usize];
        track.end = track.end.max(gap.last.next());
        let at = track.gaps.partition_point(|known| known.first < gap.first);
        match track.gaps.get_mut(at).filter(|known| known.first == gap.first) {
            Some(known) => *known = gap,
            None => track.gaps.insert(at, gap),
        }
    }

    /// Moves the acknowledged position of a track forward.
    pub(crate) fn acknowledge(&mut self, track: TrackId, acked: Seq) {
        let track = &mut self.tracks[track.0 as usize];
        assert!(acked < track.end, "nothing is acknowledged before it was appended (I2)");
        track.acked = track.acked.max(acked);
        track.ring.forget(track.acked.next());
    }

    /// Forgets the gaps of a track that nobody will ask for any more, and names their first numbers.
    pub(crate) fn prune_gaps(&mut self, id: TrackId) -> Vec<Seq> {
        let track = &mut self.tracks[id.0 as usize];
        let held = track.first_held();
        let acked = if track.sessions_only {
            Seq(u64::MAX)
        } else {
            track.acked
        };
        let count = track.gaps.partition_point(|gap| gap.last < held && gap.last <= acked);
        track.gaps.drain(..count).map(|gap| gap.first).collect()
    }

    /// The segment that holds `seq`, or else the first one above it.
    pub(crate) fn locate(&self, track: TrackId, seq: Seq) -> Option<Located> {
        let segments = &self.track(track)?.segments;
        let above = segments.partition_point(|(first, _)| *first <= seq);
        let candidates = segments.range(above.saturating_sub(1)..).take(2);
        candidates
            .filter_map(|(_, id)| self.located(track, *id))
            .find(|located| located.span.end > seq)
    }

    /// The first segment that holds a commit at or above `commit` and records of `track`.
    pub(crate) fn locate_commit(&self, track: TrackId, commit: CommitNumber) -> Option<Located> {
        let segments = &self.track(track)?.segments;
        let at = segments.partition_point(|(_, id)| self.segments[id].seal.last_commit < commit);
        self.located(track, segments.get(at)?.1)
    }

    fn located(&self, track: TrackId, id: u64) -> Option<Located> {
        let segment = self.segments.get(&id)?;
        Some(Located {
            keyspace: segment.keyspace.clone(),
            span: *segment.seal.spans.iter().find(|span| span.track == track)?,
            first_commit: segment.seal.first_commit,
        })
    }

    pub(crate) fn track_stats(&self) -> Vec<TrackStats> {
        let stats = |track: &Track| {
            let gap = track.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
            TrackStats {
                name: track.name.clone(),
                appended: track.end.0 - 1,
                queued: track.end.0 - 1 - track.acked.0,
                held: (track.end.0 - track.first().0).saturating_sub(gap),
                acked: track.acked,
                gap,
                aside: track.aside,
                owed: track.owed,
            }
        };
        self.tracks.iter().map(stats).collect()
    }
}

impl Track {
    /// The same track with nothing known of its content but what was acknowledged.
    pub(crate) fn fresh(&self) -> Self {
        Self {
            acked: self.acked,
            name: self.name.clone(),
            sessions_only: self.sessions_only,
            policy: self.policy,
            end: Seq(1),
            ..Self::default()
        }
    }

    /// First record or gap still held; `end` when there is neither.
    pub(crate) fn first(&self) -> Seq {
        let held = self.first_held();
        self.gaps.first().map_or(held, |gap| gap.first.min(held))
    }

    /// First record still held; `end` when there is none.
    pub(crate) fn first_held(&self) -> Seq {
        let in_memory = self.ring.first().unwrap_or(self.end);
        self.segments.front().map_or(in_memory, |(first, _)| *first)
    }

    /// Numbers trimmed that a reader at `commit` had still to see: exact at the seams of segments, else a lower bound.
    pub(crate) fn trimmed_since(&self, commit: CommitNumber) -> u64 {
        let seen = self.trimmed.partition_point(|(last, _)| *last < commit);
        let from = match seen.checked_sub(1) {
            Some(at) => self.trimmed[at].1,
            None => self.trimmed.front().map_or(Seq(0), |(_, end)| *end),
        };
        let to = self.trimmed.back().map_or(Seq(0), |(_, end)| *end);
        to.0.saturating_sub(from.0)
    }

    /// How full its own quota is.
    pub(crate) fn level(&self) -> Level {
        self.policy
            .memory_bytes
            .map(|max| Level::of(self.ring.bytes(), max))
            .or_else(|| Some(Level::of(self.bytes, self.policy.quota_bytes?)))
            .unwrap_or_default()
    }

    /// Size at which its segments are sealed: `most`, but small enough that a quota of its own holds several.
    pub(crate) fn segment_bytes(&self, most: u64) -> u64 {
        self.policy.quota_bytes.map_or(most, |quota| most.min(quota / 16))
    }

    /// What lies in `first..end` and in no known gap, rising.
    pub(crate) fn undeclared(&self, first: Seq, end: Seq) -> Vec<(Seq, Seq)> {
        let mut ranges = Vec::new();
        let mut at = first;
        for gap in self.gaps.iter().filter(|gap| gap.last >= first && gap.first < end) {
            if at < gap.first {
                ranges.push((at, gap.first));
            }
            at = at.max(gap.last.next());
        }
        if at < end {
            ranges.push((at, end));
        }
        ranges
    }

    /// The gap of this reason that ends right before `first`.
    pub(crate) fn gap_before(&self, first: Seq, reason: DropReason) -> Option<Gap> {
        let at = self.gaps.partition_point(|gap| gap.last < first);
        let before = self.gaps.get(at.checked_sub(1)?)?;
        (before.last.next() == first && before.reason == reason).then_some(*before)
    }

    /// The known gap that covers `seq`.
    pub(crate) fn gap_at(&self, seq: Seq) -> Option<Gap> {
        let at = self.gaps.partition_point(|gap| gap.last < seq);
        self.gaps.get(at).copied().filter(|gap| gap.first <= seq)
    }
}
