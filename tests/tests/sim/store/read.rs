//! Reading the store in memory: the tail, the log in commit order, a track, a keyed space.
//!
//! What is trimmed or damaged is passed over and counted, as by the real store.

use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};
use fellbeck_store::{CommittedBlock, LogRead, Space, Stored, TailRead, TrackBlock, TrackEntry};

use super::{MemStore, number};

impl MemStore {
    pub(crate) fn read_tail(&self, from: CommitNumber, blocks_max: usize) -> TailRead {
        if from < self.covers_from {
            return TailRead::Behind;
        }
        let start = self.tail.partition_point(|block| block.commit < from);
        let blocks: Vec<_> = self.tail.range(start..).take(blocks_max).cloned().collect();
        if blocks.is_empty() {
            TailRead::Empty
        } else {
            TailRead::Blocks(blocks)
        }
    }

    pub(crate) fn read_log(&self, from: LogPosition, bytes_max: usize) -> LogRead {
        let mut read = LogRead {
            blocks: Vec::new(),
            next: LogPosition::after(self.disk.newest).max(from),
            skipped: 0,
            at_end: true,
        };
        let mut bytes = 0;
        let start = self.disk.log.partition_point(|kept| kept.block.commit < from.commit);
        for kept in &self.disk.log[start..] {
            let commit = kept.block.commit;
            if bytes >= bytes_max.max(1) && !read.blocks.is_empty() {
                read.next = LogPosition::start_of(commit);
                read.at_end = false;
                break;
            }
            let is_held =
                |track: &TrackBlock| !kept.lost && track.first >= self.disk.tracks[track.track.0 as usize].first;
            if kept.block.tracks.iter().all(is_held) {
                bytes += kept.block.byte_len();
                read.blocks.push((*kept.block).clone());
                continue;
            }
            let mut block = CommittedBlock {
                commit,
                tracks: Vec::new(),
            };
            for track in &kept.block.tracks {
                if is_held(track) {
                    block.tracks.push(track.clone());
                } else {
                    read.skipped += track.block.len() as u64;
                }
            }
            if !block.tracks.is_empty() {
                bytes += block.byte_len();
                read.blocks.push(block);
            }
        }
        read
    }

    pub(crate) fn read_track(&self, track: TrackId, from: Seq, bytes_max: usize) -> Vec<TrackEntry> {
        let held = &self.disk.tracks[track.0 as usize].held;
        let start = held.partition_point(|held| held.last < from);
        let mut bytes = 0;
        let entries = held.range(start..).take_while(|held| {
            let take = bytes < bytes_max.max(1);
            bytes += if let TrackEntry::Batch(batch) = &held.entry {
                batch.encoded_len()
            } else {
                20
            };
            take
        });
        entries.map(|held| held.entry.clone()).collect()
    }

    pub(crate) fn scan(&self, prefix: &[u8], after: Option<&[u8]>, bytes_max: usize) -> Vec<Stored> {
        let mut page: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        for stored in self.disk.values[number(Space::Retained)].values() {
            let fits = stored.key.starts_with(prefix) && after.is_none_or(|after| &stored.key[..] > after);
            if fits && (bytes < bytes_max || page.is_empty()) {
                bytes += stored.value.len();
                page.push(stored.clone());
            }
        }
        page
    }
}
