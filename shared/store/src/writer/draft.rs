//! A commit while it is put together.

use fellbeck_core::{Batch, CommitNumber, Seq, TrackId};
use fjall::{Keyspace, OwnedWriteBatch};

use crate::catalog::Appended;
use crate::committed::TrackBlock;
use crate::engine::Engine;
use crate::entry::Gap;

/// What the engine's journal adds to an item.
const JOURNAL_ITEM_BYTES: usize = 21;

/// One atomic batch, and what the catalog is told of it once it is durable.
pub(super) struct Draft {
    pub(super) batch: OwnedWriteBatch,
    pub(super) commit: CommitNumber,
    pub(super) bytes: u64,
    /// Index of the next record within the commit.
    pub(super) index: u32,
    pub(super) appended: Vec<Appended>,
    pub(super) tracks: Vec<TrackBlock>,
    /// Batches that stay in memory.
    pub(super) in_memory: Vec<(TrackId, Batch)>,
    /// Up to where numbers of such a track are reserved from now on.
    pub(super) reserved: Vec<(TrackId, Seq)>,
    /// Something in it has to be written.
    pub(super) is_durable: bool,
    /// Gaps behind or within what is held.
    pub(super) declared: Vec<(TrackId, Gap)>,
    /// How many records a track has set aside, and how many it still owes as a gap.
    pub(super) set_aside: Vec<(TrackId, u64, u64)>,
}

impl Draft {
    pub(super) fn new(engine: &Engine, commit: CommitNumber) -> Self {
        Self {
            batch: engine.batch(),
            commit,
            bytes: 0,
            index: 0,
            appended: Vec::new(),
            tracks: Vec::new(),
            in_memory: Vec::new(),
            reserved: Vec::new(),
            is_durable: false,
            declared: Vec::new(),
            set_aside: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, keyspace: &Keyspace, key: impl Into<fjall::UserKey>, value: Vec<u8>) {
        let key = key.into();
        self.is_durable = true;
        self.bytes += (key.len() + value.len() + JOURNAL_ITEM_BYTES) as u64;
        self.batch.insert(keyspace, key, value);
    }

    pub(super) fn remove(&mut self, keyspace: &Keyspace, key: impl Into<fjall::UserKey>) {
        let key = key.into();
        self.is_durable = true;
        self.bytes += (key.len() + JOURNAL_ITEM_BYTES) as u64;
        self.batch.remove(keyspace, key);
    }
}
