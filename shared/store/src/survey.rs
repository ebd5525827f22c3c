//! Builds the catalog of an opened database: which segments hold what, and where something is missing.
//!
//! Sealed segments are known from the index; others, and all when the journals were damaged, are read through. Empty ones are
//! deleted.

use std::collections::BTreeMap;

use fellbeck_core::{CommitNumber, Seq, TrackId};
use fjall::Keyspace;

use crate::catalog::{Catalog, Segment, Span, Track};
use crate::engine::{Engine, in_memory, memtable_bytes};
use crate::entry::Gap;
use crate::error::HaltError;
use crate::key::{self, Head, Seal, index, parse_entry_key};

/// Missing numbers of a track: the first, and the one behind the last.
pub(crate) type Hole = (TrackId, Seq, Seq);

/// What was found in the database.
#[derive(Default)]
pub(crate) struct Survey {
    pub(crate) catalog: Catalog,
    /// Newest commit that left a trace.
    pub(crate) commit: CommitNumber,
    pub(crate) floor: Option<CommitNumber>,
    /// Where something is missing that no known gap explains, rising within a track.
    pub(crate) holes: Vec<Hole>,
    /// Sealed segments without an entry in the index, and the reverse.
    pub(crate) unindexed: Vec<u64>,
    pub(crate) stale_index: Vec<u64>,
    /// Segments with records in memory tables.
    pub(crate) dirty: Vec<(u64, u64)>,
    /// Above all numbers in use.
    pub(crate) next_segment: u64,
}

/// Surveys the database. `names` are all tracks by number; `distrust` reads every segment through.
pub(crate) fn survey(engine: &Engine, tracks: Vec<Track>, distrust: bool) -> Result<Survey, HaltError> {
    let mut survey = Survey::default();
    survey.catalog.tracks = tracks;
    let mut seals = read_index(engine, &mut survey)?;
    for (id, keyspace) in engine.segments()? {
        survey.next_segment = id + 1;
        let known = seals.remove(&id);
        let trusted = known.as_ref().filter(|_| !distrust && !in_memory(&keyspace));
        let (seal, holes) = match trusted {
            Some(seal) => (seal.clone(), Vec::new()),
            None => read_through(&keyspace)?,
        };
        if seal.spans.is_empty() {
            engine.delete_segment(keyspace)?;
            survey.stale_index.extend(known.map(|_| id));
            continue;
        }
        survey.holes.extend(holes);
        if memtable_bytes(&keyspace) > 0 {
            survey.dirty.push((id, memtable_bytes(&keyspace)));
        }
        if known.is_none() {
            survey.unindexed.push(id);
        }
        survey.commit = survey.commit.max(seal.last_commit);
        let touched_ms = known.as_ref().map_or(seal.touched_ms, |known| known.touched_ms);
        let segment = Segment {
            keyspace,
            seal: Seal { touched_ms, ..seal },
            sealed: known.is_some(),
            indexed: known.is_some(),
        };
        survey.catalog.insert(id, segment);
    }
    survey.stale_index.extend(seals.into_keys());
    find_seams(&mut survey);
    Ok(survey)
}

/// Reads the index into the survey; returns what it says of sealed segments.
fn read_index(engine: &Engine, survey: &mut Survey) -> Result<BTreeMap<u64, Seal>, HaltError> {
    let mut seals = BTreeMap::new();
    for guard in engine.index.iter() {
        let (key, value) = guard.into_inner()?;
        let number = || index::number(&key[1..]);
        match key[0] {
            _ if *key == *index::COMMIT => survey.commit = CommitNumber(index::number(&value).unwrap_or(0)),
            _ if *key == *index::FLOOR => survey.floor = index::number(&value).map(CommitNumber),
            index::ACKED => {
                let track = number().and_then(|track| survey.catalog.tracks.get_mut(usize::try_from(track).ok()?));
                if let (Some(track), Some(acked)) = (track, index::number(&value)) {
                    track.acked = Seq(acked);
                }
            }
            index::END => {
                let track = number().and_then(|track| survey.catalog.tracks.get_mut(usize::try_from(track).ok()?));
                if let (Some(track), Some(end)) = (track, index::number(&value)) {
                    track.end = track.end.max(Seq(end));
                }
            }
            index::GAP => {
                if let Some((track, gap)) = key::parse_gap(&key[1..], &value) {
                    survey.note_gap(track, gap);
                }
            }
            index::SEALED => {
                if let (Some(id), Some(seal)) = (number(), Seal::parse(&value)) {
                    seals.insert(id, seal);
                }
            }
            other => tracing::warn!(kind = other, "unknown entry in the index of the store: ignored"),
        }
    }
    Ok(seals)
}

impl Survey {
    fn note_gap(&mut self, track: TrackId, gap: Gap) {
        if let Some(track) = self.catalog.tracks.get_mut(track.0 as usize) {
            track.gaps.push(gap);
            track.end = track.end.max(gap.last.next());
        }
    }
}

/// Reads all entries of a segment.
fn read_through(keyspace: &Keyspace) -> Result<(Seal, Vec<Hole>), HaltError> {
    let mut seal = Seal {
        first_commit: CommitNumber(u64::MAX),
        touched_ms: folder_ms(keyspace),
        ..Seal::default()
    };
    let mut holes = Vec::new();
    for guard in keyspace.iter() {
        let Ok((key, value)) = guard.into_inner() else {
            // Damage in a table file: what cannot be read is a hole up to the next segment.
            tracing::error!(segment = %keyspace.name(), "segment cannot be read to its end");
            break;
        };
        let (Some((track, first)), Some(head)) = (parse_entry_key(&key), Head::peek(&value)) else {
            tracing::error!(segment = %keyspace.name(), "entry without a sound key and head: ignored");
            continue;
        };
        let end = Seq(first.0.saturating_add(u64::from(head.count)));
        seal.bytes += (key.len() + value.len()) as u64;
        seal.first_commit = seal.first_commit.min(head.commit);
        seal.last_commit = seal.last_commit.max(head.commit);
        match seal.spans.last_mut() {
            Some(span) if span.track == track => {
                if first > span.end {
                    holes.push((track, span.end, first));
                }
                span.end = end;
            }
            _ => seal.spans.push(Span { track, first, end }),
        }
    }
    Ok((seal, holes))
}

/// When the folder of a segment was last changed: no later than its last record, by the second or so.
fn folder_ms(keyspace: &Keyspace) -> u64 {
    let modified = std::fs::metadata(keyspace.path()).and_then(|folder| folder.modified());
    let since = modified
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Finds holes between segments, sets the ends of tracks and drops what known gaps already explain.
fn find_seams(survey: &mut Survey) {
    let catalog = &mut survey.catalog;
    for (number, track) in catalog.tracks.iter_mut().enumerate() {
        let id = TrackId(number as u32);
        let mut at: Option<Seq> = None;
        for (first, segment) in &track.segments {
            if let Some(at) = at.filter(|at| at < first) {
                survey.holes.push((id, at, *first));
            }
            let spans = &catalog.segments[segment].seal.spans;
            at = spans.iter().find(|span| span.track == id).map(|span| span.end);
        }
        // Segments are trimmed from the front: where older ones are held, the newest must be there to its end.
        if let Some(at) = at.filter(|at| *at < track.end) {
            survey.holes.push((id, at, track.end));
        }
        track.end = track.end.max(at.unwrap_or(Seq(1))).max(track.acked.next());
        track.gaps.sort_by_key(|gap| gap.first);
    }
    let tracks = &catalog.tracks;
    survey
        .holes
        .retain(|(id, first, _)| tracks[id.0 as usize].gap_at(*first).is_none());
    survey.holes.sort();
}
