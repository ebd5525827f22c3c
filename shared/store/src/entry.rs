//! What a reader of one track sees: batches and gaps; and the bounds of a track.

use fellbeck_core::batch::Batch;
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{Epoch, Seq};

/// A range of one track that was appended once and cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Incarnation that declares the loss of what it found missing, or that minted the records, where that is known.
    pub epoch: Epoch,
    /// First missing sequence number.
    pub first: Seq,
    /// Last missing sequence number.
    pub last: Seq,
    /// `LostSuffix`: the newest records before a restart. `Damaged`: records in the middle. `DropOldest`, `KeepLatest`, `Thin`: given up
    /// by policy since space ran out.
    pub reason: DropReason,
}

/// One entry of a track, in sequence order.
#[derive(Debug, Clone)]
pub enum TrackEntry {
    /// A sealed record batch, as the link carries it.
    Batch(Batch),
    /// A hole.
    Gap(Gap),
}

/// Answer to a read of one track.
#[derive(Debug, Clone)]
pub struct TrackRead {
    /// Entries from the position asked for, or from the first one still held. The first batch may begin before it.
    pub entries: Vec<TrackEntry>,
    /// Where to go on.
    pub next: Seq,
}

/// Records of one track in sequence order, decoded.
#[derive(Debug, Clone)]
pub struct RecordsAt {
    /// Number of the first record.
    pub first: Seq,
    /// Incarnation that appended them.
    pub epoch: Epoch,
    /// The records.
    pub block: fellbeck_core::RecordBlock,
}

/// Answer to a read of the records of one track. What cannot be read is left out, and noted as lost.
#[derive(Debug, Clone)]
pub struct TrackRecords {
    /// Blocks, rising. The first may begin before the position asked for.
    pub blocks: Vec<RecordsAt>,
    /// Where to go on.
    pub next: Seq,
}

/// Where a track begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackBounds {
    /// First record or gap still held; equals `end` when the track is empty.
    pub first: Seq,
    /// The next record gets this number. Everything below it is durable.
    pub end: Seq,
    /// Incarnation that appends now.
    pub epoch: Epoch,
    /// Last number that the pinning reader has acknowledged; 0 when none.
    pub acked: Seq,
}
