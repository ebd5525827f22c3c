//! The openings of a cloud's log: which commits were made in which run of the node.
//!
//! In: a random number per start, and the first commit that it can make. Out: how far a mark of an edge is true of this log. A log
//! that was restored from an older copy uses commit numbers again for other messages; it then lacks the openings since the copy,
//! and those it has end earlier. So no message is taken for one that the edge already has.

use fellbeck_core::varint::{put_u64, take_u64};
use fellbeck_core::{CommitNumber, LogPosition};

use super::DownMark;
use crate::limits::SEQ_MAX;
use crate::wire::{take_count, take_id, take_u8};

/// Version of the stored form.
const VERSION: u8 = 1;
/// Openings that are kept, the newest ones. A mark of an older one counts for nothing.
const OPENINGS_MAX: usize = 64;

/// One run of a cloud over its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// Random.
    pub id: [u8; 16],
    /// First commit that it can have made.
    pub first: CommitNumber,
}

/// The newest openings, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Openings(Vec<Opening>);

impl Openings {
    /// A new run begins; `first` is above every commit of the log.
    pub fn begin(&mut self, id: [u8; 16], first: CommitNumber) {
        if self.0.len() == OPENINGS_MAX {
            self.0.remove(0);
        }
        self.0.push(Opening { id, first });
    }

    /// The present run; `None` before the first one began.
    #[must_use]
    pub fn present(&self) -> Option<Opening> {
        self.0.last().copied()
    }

    /// Last position up to which `mark` is true of this log, the one with `log_id`.
    #[must_use]
    pub fn shared(&self, log_id: [u8; 16], mark: &DownMark) -> Option<LogPosition> {
        if mark.log_id != log_id {
            return None;
        }
        let at = self.0.iter().position(|opening| opening.id == mark.opening)?;
        let Some(next) = self.0.get(at + 1) else {
            return Some(mark.position);
        };
        let end = LogPosition {
            commit: CommitNumber(next.first.0.saturating_sub(1)),
            index: u32::MAX,
        };
        Some(mark.position.min(end))
    }

    /// The bytes for the store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.0.len() as u64);
        for opening in &self.0 {
            out.extend_from_slice(&opening.id);
            put_u64(&mut out, opening.first.0);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote. `None`: damaged, or of a version that this code does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes;
        let version = take_u8(&mut input)?;
        let count = take_count(&mut input, OPENINGS_MAX)?;
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            let id = take_id(&mut input)?;
            let first = take_u64(&mut input).filter(|first| *first <= SEQ_MAX)?;
            list.push(Opening {
                id,
                first: CommitNumber(first),
            });
        }
        (version == VERSION && input.is_empty()).then_some(Self(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [u8; 16] = [9; 16];

    fn at(commit: u64, index: u32) -> LogPosition {
        LogPosition {
            commit: CommitNumber(commit),
            index,
        }
    }

    fn mark(opening: u8, commit: u64) -> DownMark {
        DownMark {
            log_id: LOG,
            opening: [opening; 16],
            position: at(commit, 3),
        }
    }

    fn openings(list: &[(u8, u64)]) -> Openings {
        let mut openings = Openings::default();
        for (id, first) in list {
            openings.begin([*id; 16], CommitNumber(*first));
        }
        openings
    }

    #[test]
    fn a_mark_holds_in_the_log_that_it_was_made_in() {
        let log = openings(&[(1, 1), (2, 50)]);
        assert_eq!(log.shared(LOG, &mark(1, 49)), Some(at(49, 3)));
        assert_eq!(log.shared(LOG, &mark(2, 70)), Some(at(70, 3)));
        assert_eq!(log.shared([8; 16], &mark(2, 70)), None, "another log");
    }

    #[test]
    fn a_restored_log_shares_only_what_the_copy_held() {
        // Copied at commit 30 in opening 1; then 31.. were made again by others.
        let restored = openings(&[(1, 1), (7, 31)]);
        assert_eq!(restored.shared(LOG, &mark(1, 49)), Some(at(30, u32::MAX)));
        assert_eq!(restored.shared(LOG, &mark(1, 12)), Some(at(12, 3)));
        assert_eq!(
            restored.shared(LOG, &mark(2, 70)),
            None,
            "an opening that the copy never saw"
        );
    }

    #[test]
    fn the_oldest_openings_are_forgotten() {
        let all: Vec<(u8, u64)> = (0..=OPENINGS_MAX as u8).map(|n| (n, u64::from(n) + 1)).collect();
        let log = openings(&all);
        assert_eq!(log.0.len(), OPENINGS_MAX);
        assert_eq!(log.shared(LOG, &mark(0, 1)), None);
        assert_eq!(Openings::decode(&log.encode()), Some(log));
    }
}
