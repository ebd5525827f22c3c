//! Reads one track by sequence number, for the uplink: sealed batches as they are, and gaps.

use fellbeck_core::ledger::DropReason;
use fellbeck_core::{Epoch, Seq, TrackId};

use crate::codec;
use crate::config::Layout;
use crate::cursor::{Step, TrackCursor};
use crate::entry::{Gap, RecordsAt, TrackEntry, TrackRead, TrackRecords};
use crate::error::ReadError;
use crate::losses;
use crate::shared::Shared;

pub(crate) fn read_track(shared: &Shared, track: TrackId, from: Seq, bytes_max: usize) -> Result<TrackRead, ReadError> {
    if shared.config.layout != Layout::Edge {
        return Err(ReadError::OtherLayout);
    }
    let bounds = shared
        .catalog()
        .bounds(track, shared.epoch)
        .ok_or(ReadError::NoTrack(track))?;
    let start = from.max(bounds.first);
    if let Some(read) = read_ring(shared, track, start, bytes_max) {
        return Ok(read);
    }
    let mut cursor = TrackCursor::new(shared, track, start, bounds.end);
    let mut entries = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max.max(1) {
        let step = match cursor.next() {
            Ok(step) => step,
            // What was read counts; the next read meets the error, if it is still there.
            Err(_) if !entries.is_empty() => break,
            Err(error) => return Err(error),
        };
        match step {
            Some(Step::Entry(entry)) => {
                bytes += entry.batch.len();
                match codec::parse(&entry.head, entry.first, &entry.batch) {
                    Some(batch) => entries.push(TrackEntry::Batch(batch)),
                    None => {
                        let first = entry.first.max(start);
                        push_gaps(&mut entries, shared, track, first, entry.end());
                    }
                }
            }
            Some(Step::Hole { first, end }) => push_gaps(&mut entries, shared, track, first, end),
            None => break,
        }
    }
    Ok(TrackRead {
        entries,
        next: cursor.at().max(start),
    })
}

/// As [`read_track`], of a track in memory. `None`: what comes next is on flash.
fn read_ring(shared: &Shared, track: TrackId, start: Seq, bytes_max: usize) -> Option<TrackRead> {
    let catalog = shared.catalog();
    let state = catalog
        .track(track)
        .filter(|state| state.policy.memory_bytes.is_some())?;
    if state.segments.back().is_some_and(|(first, id)| {
        let spans = &catalog.segments[id].seal.spans;
        start < spans.last().map_or(*first, |span| span.end)
    }) {
        return None;
    }
    let mut entries = Vec::new();
    let (mut at, mut bytes) = (start, 0);
    while let Some(gap) = state.gap_at(at) {
        at = gap.last.next();
        entries.push(TrackEntry::Gap(gap));
    }
    for batch in state.ring.from(at) {
        if bytes >= bytes_max.max(1) {
            break;
        }
        bytes += batch.encoded_len();
        at = batch.last().next();
        entries.push(TrackEntry::Batch(batch.clone()));
    }
    Some(TrackRead { entries, next: at })
}

/// Declares `first..end` missing: known gaps as they were recorded, the rest as damaged.
fn push_gaps(entries: &mut Vec<TrackEntry>, shared: &Shared, track: TrackId, first: Seq, end: Seq) {
    losses::note(shared, track, first, end, epoch_before(entries, shared.epoch));
    let catalog = shared.catalog();
    let Some(state) = catalog.track(track) else { return };
    // What was trimmed since the read began is acknowledged, not lost.
    let mut at = first.max(state.first());
    while at < end {
        let gap = state.gap_at(at).map_or_else(
            || {
                // Acknowledged, and yet asked for: not lost, but not here either.
                let next = state.gaps.iter().map(|gap| gap.first).find(|known| *known > at);
                Gap {
                    epoch: epoch_before(entries, shared.epoch),
                    first: at,
                    last: Seq(next.map_or(end, |next| next.min(end)).0 - 1),
                    reason: DropReason::Damaged,
                }
            },
            |known| Gap {
                first: at,
                last: known.last.min(Seq(end.0 - 1)),
                ..known
            },
        );
        at = gap.last.next();
        entries.push(TrackEntry::Gap(gap));
    }
}

/// Epochs never fall along a track, so a hole takes that of the entry before it.
fn epoch_before(entries: &[TrackEntry], running: Epoch) -> Epoch {
    match entries.last() {
        Some(TrackEntry::Batch(batch)) => batch.header.epoch,
        Some(TrackEntry::Gap(gap)) => gap.epoch,
        None => running,
    }
}

/// Records of one track, decoded, of either layout: blocks with their first number and epoch, or gaps.
pub(crate) fn read_records(
    shared: &Shared,
    track: TrackId,
    from: Seq,
    bytes_max: usize,
) -> Result<TrackRecords, ReadError> {
    let bounds = shared
        .catalog()
        .bounds(track, shared.epoch)
        .ok_or(ReadError::NoTrack(track))?;
    let start = from.max(bounds.first);
    let mut cursor = TrackCursor::new(shared, track, start, bounds.end);
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max.max(1) {
        match cursor.next()? {
            Some(Step::Entry(entry)) => {
                bytes += entry.batch.len();
                match codec::decode(shared.config.layout, &entry.head, entry.first, &entry.batch) {
                    Some(block) => blocks.push(RecordsAt {
                        first: entry.first,
                        epoch: entry.head.epoch,
                        block,
                    }),
                    None => losses::note(shared, track, entry.first.max(start), entry.end(), entry.head.epoch),
                }
            }
            Some(Step::Hole { first, end }) => losses::note(shared, track, first, end, shared.epoch),
            None => break,
        }
    }
    Ok(TrackRecords {
        blocks,
        next: cursor.at().max(start),
    })
}
