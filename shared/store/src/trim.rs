//! Which segments may go. Pure: looks at plain figures, so that each rule is a test.
//!
//! Edge: a segment may go when all its records are acknowledged by a synced commit. The newest acknowledged segments stay as a
//! grace window while there is room; older ones stay while sessions still have to read them, within their share of the quota.
//! Cloud: the oldest go by bytes and age; acknowledgements and sessions do not count (I7).

use fellbeck_core::CommitNumber;

/// A sealed segment whose records nobody needs for an acknowledgement; for the cloud: any sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The segment.
    pub id: u64,
    /// Its size.
    pub bytes: u64,
    /// Commit of its newest record.
    pub last_commit: CommitNumber,
    /// Wall-clock milliseconds of its newest record.
    pub touched_ms: u64,
    /// Kept for a restored cloud, within the grace window: a track that an uplink reads.
    pub graceful: bool,
}

/// Bounds of the edge.
#[derive(Debug, Clone, Copy)]
pub struct EdgeBounds {
    /// Bytes of acknowledged segments that stay for a restored cloud.
    pub grace_bytes: u64,
    /// Oldest commit that a session has to read.
    pub floor: Option<CommitNumber>,
    /// What sessions may pin.
    pub pin_bytes: u64,
}

/// What goes, and how much of that was still wanted by sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Segments that go.
    pub segments: Vec<u64>,
    /// How many of them sessions still had to read.
    pub unpinned: u64,
}

/// Chooses on an edge.
#[must_use]
pub fn edge(mut candidates: Vec<Candidate>, bounds: EdgeBounds) -> Trim {
    candidates.sort_by_key(|candidate| candidate.last_commit);
    let mut grace = bounds.grace_bytes;
    let mut kept_for_grace = vec![false; candidates.len()];
    for (candidate, kept) in candidates.iter().zip(&mut kept_for_grace).rev() {
        if candidate.graceful {
            *kept = candidate.bytes <= grace;
            // Nothing older than a segment that did not fit: what is kept must be without a hole.
            grace = if *kept { grace - candidate.bytes } else { 0 };
        }
    }
    let free = candidates
        .iter()
        .zip(&kept_for_grace)
        .filter(|(_, kept)| !**kept)
        .map(|(candidate, _)| candidate);
    let wanted = |candidate: &Candidate| bounds.floor.is_some_and(|floor| candidate.last_commit >= floor);
    let mut pinned: u64 = free
        .clone()
        .filter(|candidate| wanted(candidate))
        .map(|candidate| candidate.bytes)
        .sum();
    let mut trim = Trim::default();
    for candidate in free {
        if wanted(candidate) {
            if pinned <= bounds.pin_bytes {
                break;
            }
            pinned -= candidate.bytes;
            trim.unpinned += 1;
        }
        trim.segments.push(candidate.id);
    }
    trim
}

/// Bounds of the cloud.
#[derive(Debug, Clone, Copy)]
pub struct CloudBounds {
    /// Bytes above which the oldest goes.
    pub retention_bytes: Option<u64>,
    /// Newest records older than this go.
    pub touched_min_ms: Option<u64>,
    /// Most segments that go by age alone.
    pub aged_max: usize,
    /// Bytes of all segments, the open one included.
    pub total_bytes: u64,
}

/// Chooses in the cloud.
#[must_use]
pub fn cloud(mut candidates: Vec<Candidate>, bounds: CloudBounds) -> Trim {
    candidates.sort_by_key(|candidate| candidate.last_commit);
    let mut total = bounds.total_bytes;
    let mut aged = 0;
    let mut trim = Trim::default();
    for candidate in candidates {
        let over = bounds.retention_bytes.is_some_and(|max| total > max);
        let old = bounds.touched_min_ms.is_some_and(|min| candidate.touched_ms < min) && aged < bounds.aged_max;
        if !over && !old {
            break;
        }
        aged += usize::from(!over);
        total = total.saturating_sub(candidate.bytes);
        trim.segments.push(candidate.id);
    }
    trim
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        let candidate = |n: u64| Candidate {
            id: n,
            bytes: 10,
            last_commit: CommitNumber(100 * n),
            touched_ms: 1000 * n,
            graceful: true,
        };
        (1..=5).map(candidate).collect()
    }

    const BOUNDS: EdgeBounds = EdgeBounds {
        grace_bytes: 0,
        floor: None,
        pin_bytes: u64::MAX,
    };

    #[test]
    fn acknowledged_segments_go_but_for_the_grace_window() {
        assert_eq!(edge(candidates(), BOUNDS).segments, [1, 2, 3, 4, 5]);
        let grace = |grace_bytes| edge(candidates(), EdgeBounds { grace_bytes, ..BOUNDS }).segments;
        assert_eq!(grace(25), [1, 2, 3]);
        assert_eq!(grace(50), [0; 0]);
        let local: Vec<_> = candidates()
            .into_iter()
            .map(|c| Candidate {
                graceful: c.id != 4,
                ..c
            })
            .collect();
        let bounds = EdgeBounds {
            grace_bytes: 20,
            ..BOUNDS
        };
        assert_eq!(
            edge(local, bounds).segments,
            [1, 2, 4],
            "a track without uplink has no grace window"
        );
    }

    #[test]
    fn sessions_pin_what_they_have_to_read_within_their_share() {
        let floor = Some(CommitNumber(250));
        let pinned = |pin_bytes| {
            edge(
                candidates(),
                EdgeBounds {
                    floor,
                    pin_bytes,
                    ..BOUNDS
                },
            )
        };
        assert_eq!(pinned(30).segments, [1, 2]);
        let over = pinned(15);
        assert_eq!((over.segments, over.unpinned), (vec![1, 2, 3, 4], 2));
    }

    #[test]
    fn the_cloud_keeps_the_newest_by_bytes_and_age() {
        let bounds = |retention_bytes, touched_min_ms| CloudBounds {
            retention_bytes,
            touched_min_ms,
            aged_max: 2,
            total_bytes: 55,
        };
        assert_eq!(cloud(candidates(), bounds(None, None)).segments, [0; 0]);
        assert_eq!(cloud(candidates(), bounds(Some(30), None)).segments, [1, 2, 3]);
        assert_eq!(cloud(candidates(), bounds(Some(100), Some(2500))).segments, [1, 2]);
    }

    #[test]
    fn only_a_few_segments_go_by_age_at_once_and_bytes_are_kept_to_all_the_same() {
        let all_old = |retention_bytes| CloudBounds {
            retention_bytes,
            touched_min_ms: Some(u64::MAX),
            aged_max: 1,
            total_bytes: 55,
        };
        assert_eq!(cloud(candidates(), all_old(None)).segments, [1]);
        assert_eq!(cloud(candidates(), all_old(Some(30))).segments, [1, 2, 3, 4]);
    }
}
