//! Joins a group of submissions into one change set.
//!
//! Records of a track keep the order of submission. Of several writes to one key the last wins: all of a commit carry one
//! number, so the engine could not tell their order. Acknowledgements and floors only move forward.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use fellbeck_core::{CommitNumber, RecordBlock, Seq, TrackId};

use crate::commit::{Commit, Space};

/// Everything that one commit writes.
#[derive(Debug, Default)]
pub struct Merged {
    /// Blocks for the end of each track, in order.
    pub appends: BTreeMap<TrackId, Vec<RecordBlock>>,
    /// `None` deletes.
    pub keyed: Vec<(Space, Bytes, Option<Bytes>)>,
    /// Highest acknowledgement of each track.
    pub acked: BTreeMap<TrackId, Seq>,
    /// Highest floor.
    pub session_floor: Option<CommitNumber>,
}

impl Merged {
    /// Joins `commits`, in the order of submission.
    pub fn of(commits: impl Iterator<Item = Commit>) -> Self {
        let mut merged = Self::default();
        for commit in commits {
            for append in commit.appends {
                if !append.block.is_empty() {
                    merged.appends.entry(append.track).or_default().push(append.block);
                }
            }
            // Within one submission deletes come before puts: a key that is in both is meant to be there.
            let deletes = commit
                .deletes
                .into_iter()
                .map(|delete| (delete.space, delete.key, None));
            merged.keyed.extend(deletes);
            let puts = commit.puts.into_iter().map(|put| (put.space, put.key, Some(put.value)));
            merged.keyed.extend(puts);
            for (track, seq) in commit.acked {
                let acked = merged.acked.entry(track).or_default();
                *acked = seq.max(*acked);
            }
            merged.session_floor = commit.session_floor.max(merged.session_floor);
        }
        merged.keep_last();
        merged
    }

    fn keep_last(&mut self) {
        if self.keyed.len() < 2 {
            return;
        }
        let last: HashMap<(Space, &Bytes), usize> = self
            .keyed
            .iter()
            .enumerate()
            .map(|(at, (space, key, _))| ((*space, key), at))
            .collect();
        if last.len() == self.keyed.len() {
            return;
        }
        let mut keep = vec![false; self.keyed.len()];
        last.into_values().for_each(|at| keep[at] = true);
        let mut at = 0;
        self.keyed.retain(|_| {
            at += 1;
            keep[at - 1]
        });
    }

    /// Nothing is to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.keyed.is_empty() && self.acked.is_empty() && self.session_floor.is_none()
    }
}

/// Joins blocks into as few as possible of at most `bytes_max` and `records_max`; a larger record stands alone.
pub(crate) fn join(blocks: Vec<RecordBlock>, bytes_max: usize, records_max: usize) -> Vec<RecordBlock> {
    let fits = |bytes: usize, records: usize| bytes <= bytes_max && records <= records_max;
    let mut joined = Vec::with_capacity(1);
    let mut run: Vec<RecordBlock> = Vec::with_capacity(blocks.len());
    let (mut bytes, mut records) = (0, 0);
    for block in blocks {
        if !run.is_empty() && !fits(bytes + block.bytes().len(), records + block.len()) {
            joined.push(RecordBlock::concat(&run));
            run.clear();
            (bytes, records) = (0, 0);
        }
        if fits(block.bytes().len(), block.len()) {
            bytes += block.bytes().len();
            records += block.len();
            run.push(block);
        } else {
            joined.extend(split(&block, bytes_max, records_max));
        }
    }
    if !run.is_empty() {
        joined.push(RecordBlock::concat(&run));
    }
    joined
}

fn split(block: &RecordBlock, bytes_max: usize, records_max: usize) -> Vec<RecordBlock> {
    let mut parts = Vec::new();
    let mut builder = fellbeck_core::RecordBlockBuilder::default();
    for record in block.iter() {
        // The slot is at most a little larger than what was measured; `batch_max` is no hard format limit.
        let size = record.payload.len() + record.topic.len() + record.device.len() + record.properties.as_bytes().len();
        let full = builder.byte_len() + size > bytes_max || builder.len() >= records_max;
        if full && !builder.is_empty() {
            parts.push(builder.finish());
        }
        builder.push(&record);
    }
    if !builder.is_empty() {
        parts.push(builder.finish());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{Append, Delete, Put};
    use crate::testing::block_of;

    fn put(key: &'static str, value: &'static str) -> Commit {
        Commit {
            puts: vec![Put {
                space: Space::Node,
                key: key.into(),
                value: value.into(),
            }],
            ..Commit::default()
        }
    }

    #[test]
    fn the_last_write_of_a_key_wins_and_positions_only_rise() {
        let delete = Commit {
            deletes: vec![Delete {
                space: Space::Node,
                key: "a".into(),
            }],
            acked: vec![(TrackId(0), Seq(9))],
            session_floor: Some(CommitNumber(4)),
            ..Commit::default()
        };
        let ack = Commit {
            acked: vec![(TrackId(0), Seq(5))],
            ..Commit::default()
        };
        let merged = Merged::of([put("a", "1"), put("b", "2"), delete, put("b", "3"), ack].into_iter());
        let b = (Space::Node, Bytes::from("b"), Some(Bytes::from("3")));
        assert_eq!(merged.keyed, [(Space::Node, Bytes::from("a"), None), b]);
        assert_eq!(merged.acked[&TrackId(0)], Seq(9));
        assert_eq!(merged.session_floor, Some(CommitNumber(4)));
        assert!(Merged::of([Commit::default()].into_iter()).is_empty());
    }

    #[test]
    fn records_are_joined_up_to_the_bounds_and_keep_their_order() {
        let append = |len| Commit {
            appends: vec![Append {
                track: TrackId(1),
                block: block_of(2, len),
            }],
            ..Commit::default()
        };
        let mut merged = Merged::of([append(10), append(20), append(5000), append(30)].into_iter());
        let blocks = merged.appends.remove(&TrackId(1)).unwrap();
        let lens = |blocks: &[RecordBlock]| -> Vec<Vec<usize>> {
            blocks
                .iter()
                .map(|block| block.iter().map(|record| record.payload.len()).collect())
                .collect()
        };
        let joined = join(blocks.clone(), 1000, 100);
        assert_eq!(
            lens(&joined),
            [vec![10, 10, 20, 20], vec![5000], vec![5000], vec![30, 30]]
        );
        let joined = join(blocks, usize::MAX, 3);
        assert_eq!(lens(&joined), [[10, 10], [20, 20], [5000, 5000], [30, 30]]);
    }
}
