//! Committed records as readers see them: from memory (the tail) or from flash (a read).

use fellbeck_core::{CommitNumber, Epoch, LogPosition, RecordBlock, Seq, TrackId};

/// All records of one commit.
#[derive(Debug, Clone)]
pub struct CommittedBlock {
    /// The commit.
    pub commit: CommitNumber,
    /// The tracks that it appended to, in rising order; [`LogPosition::index`] counts over them in this order.
    pub tracks: Vec<TrackBlock>,
}

/// The records that one commit appended to one track.
#[derive(Debug, Clone)]
pub struct TrackBlock {
    /// The track.
    pub track: TrackId,
    /// Incarnation that appended them.
    pub epoch: Epoch,
    /// Sequence number of the first record (edge) or its offset + 1 (cloud); the others follow without a hole.
    pub first: Seq,
    /// [`LogPosition::index`] of the first record within the commit.
    pub first_index: u32,
    /// The records.
    pub block: RecordBlock,
}

impl CommittedBlock {
    /// Number of records in the commit.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.tracks
            .last()
            .map_or(0, |last| last.first_index + last.block.len() as u32)
    }

    /// Encoded bytes of all records.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.tracks.iter().map(|track| track.block.bytes().len()).sum()
    }
}

/// Answer to a read of the log in commit order.
#[derive(Debug, Clone)]
pub struct LogRead {
    /// Whole commits in rising order, of which the first may begin before the position that was asked for.
    pub blocks: Vec<CommittedBlock>,
    /// Where to go on. All records below it that still exist are in `blocks`.
    pub next: LogPosition,
    /// Records between the position asked for and the first one still held: trimmed or damaged. Counted as dropped by the reader.
    pub skipped: u64,
    /// Nothing more is durable behind `next` at this moment.
    pub at_end: bool,
}
