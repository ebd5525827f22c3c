//! The newest committed records in memory, for live readers.
//!
//! In: one block per commit that appended records, from the writer, after the sync. Out: the blocks from a commit on, or the
//! word that the ring has moved past it, in which case the reader goes to the log. Bounded by bytes; the newest block is
//! always kept. The lock is held for a few pointer copies only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use fellbeck_core::CommitNumber;

use crate::committed::CommittedBlock;

/// Ring of committed blocks.
#[derive(Debug)]
pub struct Tail {
    ring: Mutex<Ring>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Ring {
    blocks: VecDeque<Arc<CommittedBlock>>,
    bytes: usize,
    /// All records of commits from here on are in the ring.
    covers_from: CommitNumber,
}

/// What the tail holds from a commit on.
#[derive(Debug, Clone)]
pub enum TailRead {
    /// Blocks in rising commit order, of which the first may be above the commit asked for: commits in between hold no records.
    Blocks(Vec<Arc<CommittedBlock>>),
    /// The ring has moved on: records of the commit asked for may be in the log only.
    Behind,
    /// No record has been committed at or above the commit asked for.
    Empty,
}

impl Tail {
    pub(crate) fn new(bytes_max: usize, next: CommitNumber) -> Self {
        let ring = Mutex::new(Ring {
            blocks: VecDeque::new(),
            bytes: 0,
            covers_from: next,
        });
        Self { ring, bytes_max }
    }

    /// Blocks of commits at or above `from`, whole, until `bytes_max` is passed; at least one if there is any.
    #[must_use]
    pub fn read(&self, from: CommitNumber, bytes_max: usize) -> TailRead {
        let ring = self.lock();
        if from < ring.covers_from {
            return TailRead::Behind;
        }
        let start = ring.blocks.partition_point(|block| block.commit < from);
        let mut taken = 0;
        let blocks: Vec<_> = ring
            .blocks
            .range(start..)
            .take_while(|block| {
                let take = taken < bytes_max.max(1);
                taken += block.byte_len();
                take
            })
            .cloned()
            .collect();
        if blocks.is_empty() {
            TailRead::Empty
        } else {
            TailRead::Blocks(blocks)
        }
    }

    pub(crate) fn push(&self, block: Arc<CommittedBlock>) {
        let mut ring = self.lock();
        debug_assert!(
            ring.blocks.back().is_none_or(|last| last.commit < block.commit),
            "commits rise in the tail"
        );
        ring.bytes += block.byte_len();
        ring.blocks.push_back(block);
        while ring.bytes > self.bytes_max && ring.blocks.len() > 1 {
            if let Some(oldest) = ring.blocks.pop_front() {
                ring.bytes -= oldest.byte_len();
                ring.covers_from = oldest.commit.next();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().expect("no code that holds this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::{Epoch, Seq, TrackId};

    use super::*;
    use crate::committed::TrackBlock;
    use crate::testing::block_of;

    fn block(commit: u64, records: usize) -> Arc<CommittedBlock> {
        Arc::new(CommittedBlock {
            commit: CommitNumber(commit),
            tracks: vec![TrackBlock {
                track: TrackId(0),
                epoch: Epoch(1),
                first: Seq(1),
                first_index: 0,
                block: block_of(records, 100),
            }],
        })
    }

    #[test]
    fn the_ring_keeps_the_newest_blocks_and_says_when_it_moved_past_a_reader() {
        let size = block(1, 1).byte_len();
        let tail = Tail::new(3 * size, CommitNumber(5));
        assert!(matches!(tail.read(CommitNumber(5), 1), TailRead::Empty));
        assert!(matches!(tail.read(CommitNumber(4), 1), TailRead::Behind));
        for commit in [5, 7, 8, 9] {
            tail.push(block(commit, 1));
        }
        assert!(matches!(tail.read(CommitNumber(5), 1), TailRead::Behind));
        let TailRead::Blocks(blocks) = tail.read(CommitNumber(6), usize::MAX) else {
            panic!("commits from 6 on are in the ring")
        };
        assert_eq!(blocks.iter().map(|b| b.commit.0).collect::<Vec<_>>(), [7, 8, 9]);
        let TailRead::Blocks(one) = tail.read(CommitNumber(7), 1) else {
            panic!("at least one block")
        };
        assert_eq!(one.len(), 1);
        assert!(matches!(tail.read(CommitNumber(10), 1), TailRead::Empty));
    }
}
