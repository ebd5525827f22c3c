//! The records of one track that are never written: sealed batches in memory, in order, without a hole.
//!
//! Their numbers are reserved on flash in large steps, so that none is ever used twice (I5): what was reserved and is not known to be used
//! when the process ends is declared as a gap by the next open.

use std::collections::VecDeque;

use fellbeck_core::{Batch, Seq};

/// Numbers reserved at once: one small write for this many records, and at most this many numbers that nobody used.
pub(crate) const RESERVED: u64 = 65_536;
/// What a batch costs beside its encoded bytes.
const BATCH_BYTES: u64 = 128;

/// Batches in rising order.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    batches: VecDeque<Batch>,
    bytes: u64,
    /// Below this, numbers are reserved on flash.
    pub(crate) reserved: Seq,
}

impl Ring {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn first(&self) -> Option<Seq> {
        self.batches.front().map(|batch| batch.header.first)
    }

    pub(crate) fn push(&mut self, batch: Batch) {
        self.bytes += cost(&batch);
        self.batches.push_back(batch);
    }

    /// Drops the batches that end before `first`.
    pub(crate) fn forget(&mut self, first: Seq) {
        while self.batches.front().is_some_and(|batch| batch.last() < first) {
            self.pop();
        }
    }

    /// Takes the oldest batch out.
    pub(crate) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.bytes -= cost(&batch);
        Some(batch)
    }

    /// Batches from the one that holds `from` on.
    pub(crate) fn from(&self, from: Seq) -> impl Iterator<Item = &Batch> {
        let at = self.batches.partition_point(|batch| batch.last() < from);
        self.batches.range(at..)
    }
}

fn cost(batch: &Batch) -> u64 {
    batch.encoded_len() as u64 + BATCH_BYTES
}
