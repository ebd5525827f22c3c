//! Tracks in memory: their records are never written, only now and then a reservation of numbers.

use fellbeck_core::{Batch, DropReason, RecordBlock, Seq, TrackId, limits};

use super::Writer;
use super::draft::Draft;
use crate::committed::TrackBlock;
use crate::entry::Gap;
use crate::error::HaltError;
use crate::key::index;
use crate::merge::{Merged, join};
use crate::policy::Overflow;
use crate::ring::RESERVED;
use crate::stats::Level;

impl Writer {
    /// Something of it has to be written: acknowledgements of tracks in memory and a floor by itself have not. The floor waits for the next
    /// commit that is written.
    pub(super) fn has_durable(&self, merged: &Merged) -> bool {
        let catalog = self.shared.catalog();
        let is_written = |track: &TrackId| catalog.tracks[track.0 as usize].policy.memory_bytes.is_none();
        let has_memory = catalog.tracks.iter().any(|track| track.policy.memory_bytes.is_some());
        !has_memory || !merged.keyed.is_empty() || merged.acked.keys().any(is_written)
    }

    /// As [`Writer::append`], without a write, but for the reservation of numbers now and then.
    pub(super) fn append_in_memory(&self, draft: &mut Draft, track: TrackId, blocks: Vec<RecordBlock>) {
        let (mut first, mut reserved, acked) = {
            let catalog = self.shared.catalog();
            let state = &catalog.tracks[track.0 as usize];
            (state.end, state.ring.reserved, state.acked)
        };
        for block in join(blocks, self.shared.config.batch_max, limits::BATCH_RECORDS_MAX) {
            let end = first.plus(block.len() as u64);
            if end > reserved {
                reserved = end.plus(RESERVED);
                draft.put(&self.engine.index, index::end(track), reserved.0.to_be_bytes().to_vec());
                draft.put(&self.engine.index, index::acked(track), acked.0.to_be_bytes().to_vec());
                draft.reserved.push((track, reserved));
            }
            draft
                .in_memory
                .push((track, Batch::seal(self.shared.epoch, first, &block)));
            let first_index = draft.index;
            draft.index += block.len() as u32;
            draft.tracks.push(TrackBlock {
                track,
                epoch: self.shared.epoch,
                first,
                first_index,
                block,
            });
            first = end;
        }
    }

    /// Gives up the oldest batches of tracks in memory that are above their bound. Their gap is in memory, as they were.
    pub(super) fn shed_memory(&mut self) {
        let mut catalog = self.shared.catalog_mut();
        let mut is_any = false;
        for number in 0..catalog.tracks.len() {
            loop {
                let track = &mut catalog.tracks[number];
                let gives = track.policy.memory_bytes.is_some() && track.policy.overflow == Overflow::DropOldest;
                if !gives || track.level() == Level::Normal {
                    break;
                }
                let Some(batch) = track.ring.pop() else { break };
                let reason = DropReason::DropOldest;
                let first = batch.header.first.max(track.acked.next());
                let gap = Gap {
                    epoch: batch.header.epoch,
                    first: track.gap_before(first, reason).map_or(first, |before| before.first),
                    last: batch.last(),
                    reason,
                };
                let count = batch.last().0 + 1 - first.0;
                metrics::counter!("fellbeck_store_dropped_records_total", "reason" => reason.as_str(), "track" => track.name.clone())
                    .increment(count);
                catalog.declare(TrackId(number as u32), gap);
                is_any = true;
            }
        }
        drop(catalog);
        if is_any {
            self.shared.weigh();
        }
    }

    /// At the end of the run: where the tracks in memory end and what of them is acknowledged, so that what is lost is named exactly.
    pub(super) fn settle_memory(&mut self) -> Result<(), HaltError> {
        let mut draft = Draft::new(&self.engine, self.shared.newest().next());
        {
            let catalog = self.shared.catalog();
            let tracks = catalog.tracks.iter().enumerate();
            for (number, track) in tracks.filter(|(_, track)| track.ring.reserved > Seq(0)) {
                let id = TrackId(number as u32);
                draft.put(&self.engine.index, index::end(id), track.end.0.to_be_bytes().to_vec());
                draft.put(
                    &self.engine.index,
                    index::acked(id),
                    track.acked.0.to_be_bytes().to_vec(),
                );
                draft.reserved.push((id, track.end));
            }
        }
        if draft.is_durable {
            self.write(draft, &Merged::default())?;
        }
        Ok(())
    }
}
