//! Reads the log in commit order: all tracks merged by commit number, whole commits only.

use std::collections::HashMap;
use std::sync::Mutex;

use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};

use crate::codec;
use crate::committed::{CommittedBlock, LogRead, TrackBlock};
use crate::cursor::{Step, TrackCursor};
use crate::error::ReadError;
use crate::losses;
use crate::segment::{Entry, seek_commit};
use crate::shared::Shared;

const PLACES_MAX: usize = 128;

/// Where readers stopped, so that the next read need not search: commit to read next, and the position in each track.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<CommitNumber, Vec<Seq>>>);

impl Places {
    fn take(&self, commit: CommitNumber) -> Option<Vec<Seq>> {
        self.0
            .lock()
            .expect("no code that holds this lock panics")
            .remove(&commit)
    }

    fn put(&self, commit: CommitNumber, place: Vec<Seq>) {
        let mut places = self.0.lock().expect("no code that holds this lock panics");
        if places.len() >= PLACES_MAX {
            let oldest = places.keys().min().copied();
            oldest.map(|oldest| places.remove(&oldest));
        }
        places.insert(commit, place);
    }
}

/// One track of the merge.
struct Lane<'a> {
    cursor: TrackCursor<'a>,
    track: TrackId,
    /// The entry that comes next.
    entry: Option<Entry>,
    /// Numbers passed that could not be read.
    skipped: u64,
    shared: &'a Shared,
}

impl Lane<'_> {
    fn advance(&mut self) -> Result<(), ReadError> {
        self.entry = loop {
            match self.cursor.next()? {
                Some(Step::Entry(entry)) => break Some(entry),
                Some(Step::Hole { first, end }) => {
                    losses::note(self.shared, self.track, first, end, self.shared.epoch);
                    self.skipped += end.0 - first.0;
                }
                None => break None,
            }
        };
        Ok(())
    }

    /// Goes to the first entry of `commit` or a later one. What lies before was read earlier, or skipped and counted then.
    fn start(&mut self, commit: CommitNumber) -> Result<(), ReadError> {
        self.advance()?;
        while self.commit().is_some_and(|older| older < commit) {
            self.skipped = 0;
            self.advance()?;
        }
        Ok(())
    }

    fn commit(&self) -> Option<CommitNumber> {
        self.entry.as_ref().map(|entry| entry.head.commit)
    }

    /// Where this track is to be read on.
    fn place(&self) -> Seq {
        self.entry.as_ref().map_or(self.cursor.at(), |entry| entry.first)
    }
}

pub(crate) fn read_log(
    shared: &Shared,
    places: &Places,
    from: LogPosition,
    bytes_max: usize,
) -> Result<LogRead, ReadError> {
    let newest = shared.newest();
    if from.commit > newest {
        return Ok(LogRead {
            blocks: Vec::new(),
            next: from,
            skipped: 0,
            at_end: true,
        });
    }
    let (mut lanes, trimmed) = lanes(shared, places.take(from.commit), from.commit)?;
    let mut blocks = Vec::new();
    let mut bytes = 0;
    let mut next = LogPosition::after(newest);
    while let Some(commit) = lanes
        .iter()
        .filter_map(Lane::commit)
        .min()
        .filter(|commit| *commit <= newest)
    {
        if bytes >= bytes_max.max(1) {
            next = LogPosition::start_of(commit);
            break;
        }
        let block = gather(shared, &mut lanes, commit)?;
        bytes += block.byte_len();
        if !block.tracks.is_empty() {
            blocks.push(block);
        }
    }
    places.put(next.commit, lanes.iter().map(Lane::place).collect());
    Ok(LogRead {
        blocks,
        skipped: trimmed + lanes.iter().map(|lane| lane.skipped).sum::<u64>(),
        at_end: next.commit > newest,
        next,
    })
}

/// Opens each track at the commit. Also counts what is known to be trimmed at or above it.
fn lanes<'a>(
    shared: &'a Shared,
    place: Option<Vec<Seq>>,
    commit: CommitNumber,
) -> Result<(Vec<Lane<'a>>, u64), ReadError> {
    let ends: Vec<Seq> = shared.catalog().tracks.iter().map(|track| track.end).collect();
    let mut trimmed = 0;
    let lanes = ends.iter().enumerate().map(|(index, end)| {
        let track = TrackId(index as u32);
        // A track in memory has nothing on flash to be read, and nothing to be missed there.
        let in_memory = {
            let catalog = shared.catalog();
            let state = &catalog.tracks[index];
            state.policy.memory_bytes.is_some() && state.segments.is_empty()
        };
        let start = match place.as_ref().and_then(|place| place.get(index)) {
            _ if in_memory => *end,
            Some(seq) => {
                // A segment may have been trimmed since the reader stopped here.
                let first = shared.catalog().tracks[index].first();
                trimmed += first.0.saturating_sub(seq.0);
                (*seq).max(first)
            }
            None => {
                trimmed += shared.catalog().tracks[index].trimmed_since(commit);
                // The look-up is a statement of its own, so that the catalog is not locked while the segment is searched.
                let located = shared.catalog().locate_commit(track, commit);
                located.map_or(Ok(*end), |located| seek_commit(&located, commit))?
            }
        };
        let mut lane = Lane {
            cursor: TrackCursor::new(shared, track, start, *end),
            track,
            entry: None,
            skipped: 0,
            shared,
        };
        lane.start(commit)?;
        Ok(lane)
    });
    let lanes = lanes.collect::<Result<_, ReadError>>()?;
    Ok((lanes, trimmed))
}

/// All of one commit.
fn gather(shared: &Shared, lanes: &mut [Lane<'_>], commit: CommitNumber) -> Result<CommittedBlock, ReadError> {
    let mut tracks = Vec::new();
    for lane in lanes {
        while let Some(entry) = lane.entry.take_if(|entry| entry.head.commit == commit) {
            match codec::decode(shared.config.layout, &entry.head, entry.first, &entry.batch) {
                Some(block) => tracks.push(TrackBlock {
                    track: lane.track,
                    epoch: entry.head.epoch,
                    first: entry.first,
                    first_index: entry.head.first_index,
                    block,
                }),
                None => {
                    losses::note(shared, lane.track, entry.first, entry.end(), entry.head.epoch);
                    lane.skipped += u64::from(entry.head.count);
                }
            }
            lane.advance()?;
        }
    }
    Ok(CommittedBlock { commit, tracks })
}
