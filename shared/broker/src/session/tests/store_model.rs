//! A store in memory with the promises of the real one: numbered commits, reads in commit order, scans by key, crashes.
//!
//! Submissions wait until the test makes a commit of any number of them; a crash forgets those that still wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_core::{CommitNumber, Epoch, LogPosition, RecordBlock, Seq, TrackId};
use fellbeck_store::commit::{Commit, Committed, Space, Stored, Ticket};
use fellbeck_store::committed::{CommittedBlock, LogRead, TrackBlock};

#[derive(Debug, Default)]
pub(super) struct StoreModel {
    waiting: VecDeque<(Ticket, Commit)>,
    tickets: u64,
    pub(super) newest: CommitNumber,
    pub(super) log: Vec<Arc<CommittedBlock>>,
    values: BTreeMap<(u8, Bytes), Stored>,
    ends: BTreeMap<TrackId, u64>,
    /// Blocks and answers that the core has not been given.
    pub(super) tail: VecDeque<Arc<CommittedBlock>>,
    pub(super) answers: VecDeque<Committed>,
    pub(super) floor: Option<CommitNumber>,
    /// Records of commits below this were deleted by retention.
    pub(super) trimmed_below: CommitNumber,
}

fn space_number(space: Space) -> u8 {
    match space {
        Space::Session => 0,
        Space::Retained => 1,
        Space::Mark => 2,
        Space::Node => 3,
    }
}

impl StoreModel {
    pub(super) fn submit(&mut self, commit: Commit) -> Ticket {
        let mut keys = std::collections::BTreeSet::new();
        let all = commit.puts.iter().map(|put| (put.space, &put.key));
        let all = all.chain(commit.deletes.iter().map(|delete| (delete.space, &delete.key)));
        for (space, key) in all {
            assert!(!key.is_empty() && key.len() <= 65_535, "the store refuses such a key");
            assert!(
                keys.insert((space_number(space), key.clone())),
                "one change per key and commit"
            );
        }
        assert!(commit.appends.iter().all(|append| !append.block.is_empty()));
        self.tickets += 1;
        self.waiting.push_back((Ticket(self.tickets), commit));
        Ticket(self.tickets)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Makes the oldest `count` submissions durable as one commit.
    pub(super) fn commit(&mut self, count: usize) {
        let count = count.min(self.waiting.len());
        if count == 0 {
            return;
        }
        self.newest = self.newest.next();
        let commit = self.newest;
        let mut tracks: BTreeMap<TrackId, Vec<RecordBlock>> = BTreeMap::new();
        for (ticket, change) in self.waiting.drain(..count) {
            for append in change.appends {
                tracks.entry(append.track).or_default().push(append.block);
            }
            for put in change.puts {
                let stored = Stored {
                    key: put.key.clone(),
                    value: put.value,
                    commit,
                };
                self.values.insert((space_number(put.space), put.key), stored);
            }
            for delete in change.deletes {
                self.values.remove(&(space_number(delete.space), delete.key));
            }
            self.floor = change.session_floor.or(self.floor);
            self.answers.push_back(Committed { ticket, commit });
        }
        self.append(commit, tracks);
    }

    fn append(&mut self, commit: CommitNumber, tracks: BTreeMap<TrackId, Vec<RecordBlock>>) {
        let mut first_index = 0;
        let mut blocks = Vec::new();
        for (track, parts) in tracks {
            let block = RecordBlock::concat(&parts);
            let end = self.ends.entry(track).or_default();
            let first = Seq(*end + 1);
            *end += block.len() as u64;
            let count = block.len() as u32;
            blocks.push(TrackBlock {
                track,
                epoch: Epoch(1),
                first,
                first_index,
                block,
            });
            first_index += count;
        }
        if !blocks.is_empty() {
            let block = Arc::new(CommittedBlock { commit, tracks: blocks });
            self.log.push(block.clone());
            self.tail.push_back(block);
        }
    }

    /// Records written by another submitter of the node, as the cloud's ingest does.
    pub(super) fn commit_foreign(&mut self, track: TrackId, block: RecordBlock) {
        self.newest = self.newest.next();
        let commit = self.newest;
        self.append(commit, BTreeMap::from([(track, vec![block])]));
    }

    pub(super) fn read(&self, from: LogPosition, bytes_max: usize) -> LogRead {
        let mut blocks = Vec::new();
        let mut bytes = 0;
        let mut skipped = 0;
        for block in self.log.iter().filter(|block| block.commit >= from.commit) {
            if block.commit < self.trimmed_below {
                let passed = if block.commit == from.commit { from.index } else { 0 };
                skipped += u64::from(block.record_count() - passed);
                continue;
            }
            if bytes >= bytes_max.max(1) && !blocks.is_empty() {
                let next = LogPosition::start_of(block.commit);
                return LogRead {
                    blocks,
                    next,
                    skipped,
                    at_end: false,
                };
            }
            bytes += block.byte_len();
            blocks.push((**block).clone());
        }
        let next = blocks
            .last()
            .map_or(from, |last| LogPosition::after(last.commit).max(from));
        LogRead {
            blocks,
            next,
            skipped,
            at_end: true,
        }
    }

    pub(super) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, bytes_max: usize) -> Vec<Stored> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for stored in self.values_of(Space::Retained) {
            let fits = stored.key.starts_with(prefix) && after.is_none_or(|after| &stored.key[..] > after);
            if fits && (bytes < bytes_max || page.is_empty()) {
                bytes += stored.value.len();
                page.push(stored);
            }
        }
        page
    }

    pub(super) fn values_of(&self, space: Space) -> Vec<Stored> {
        let of_space = self
            .values
            .iter()
            .filter(|((number, _), _)| *number == space_number(space));
        of_space.map(|(_, stored)| stored.clone()).collect()
    }

    /// What was not committed is gone, and nobody is left to be told.
    pub(super) fn crash(&mut self) {
        self.waiting.clear();
        self.answers.clear();
        self.tail.clear();
        self.tickets = 0;
    }
}
