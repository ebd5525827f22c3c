//! Builds the catalog of an opened database: which segments hold what, and where something is missing.
//!
//! Sealed segments are known from the index; others, and all when the journals were damaged, are read through. Empty ones are
//! deleted; what cannot be read is never taken for empty.

use std::collections::BTreeMap;

use fellbeck_core::{CommitNumber, DropReason, Seq, TrackId};
use fjall::Keyspace;

use crate::catalog::{Catalog, Segment, Span, Track};
use crate::engine::{Engine, in_memory, memtable_bytes};
use crate::entry::Gap;
use crate::error::{HaltError, is_refusal};
use crate::key::{self, Head, Seal, entry_key, index, parse_entry_key};
use crate::segment::behind;
use crate::writer::now_ms;
use crate::writer::spare::{self, Spare};

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
    /// What is set aside by topic, per track.
    pub(crate) spares: Vec<Spare>,
    /// Above all numbers in use.
    pub(crate) next_segment: u64,
}

/// How far the database is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Belief {
    /// What the index says of sealed segments is taken as it is.
    Whole,
    /// Every segment is read through.
    Doubtful,
    /// Parts of it were set aside: a segment that the index knows and that is not there was lost, not trimmed.
    Salvaged,
}

/// Surveys the database. `tracks` are all tracks by number.
pub(crate) fn survey(engine: &Engine, tracks: Vec<Track>, belief: Belief) -> Result<Survey, HaltError> {
    let distrust = belief > Belief::Whole;
    let mut survey = Survey::default();
    survey.catalog.tracks = tracks;
    let mut seals = read_index(engine, &mut survey)?;
    for (id, keyspace) in engine.segments()? {
        survey.next_segment = id + 1;
        let known = seals.remove(&id);
        let trusted = known.as_ref().filter(|_| !distrust && !in_memory(&keyspace));
        let found = match trusted {
            Some(seal) => Found::from(seal.clone()),
            None => read_through(&keyspace)?,
        };
        let (seal, holes) = match (found, &known) {
            // Nothing of it can be read: the index still knows what it held, so that this can be named and trimmed in its turn.
            (found, Some(known)) if found.damaged && found.seal.spans.is_empty() => (known.clone(), holes_of(known)),
            (found, None) if found.damaged && found.seal.spans.is_empty() => {
                tracing::error!(segment = %keyspace.name(), "nothing of a segment can be read: left as it is");
                continue;
            }
            (found, _) => (found.seal, found.holes),
        };
        if let Some(known) = known.as_ref().filter(|_| belief == Belief::Salvaged) {
            survey.holes.extend(missing(known, &seal));
        }
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
    if belief == Belief::Salvaged {
        survey.holes.extend(seals.values().flat_map(holes_of));
    }
    survey.stale_index.extend(seals.into_keys());
    drop_given_up(engine, &mut survey)?;
    let owed: Vec<u64> = survey.catalog.tracks.iter().map(|track| track.owed).collect();
    survey.spares = spare::restore(&engine.spare, &owed)?;
    for (track, spare) in survey.catalog.tracks.iter_mut().zip(&survey.spares) {
        track.aside = spare.len() as u64;
    }
    if !distrust {
        drop_returned(engine, &mut survey)?;
    }
    find_seams(&mut survey);
    Ok(survey)
}

/// Deletes the segments that were given up by policy: the gap that says so was synced, and a crash or a power cut kept the files.
fn drop_given_up(engine: &Engine, survey: &mut Survey) -> Result<(), HaltError> {
    let catalog = &mut survey.catalog;
    let mut given_up = Vec::new();
    for track in &catalog.tracks {
        let is_given_up = |(first, id): &&(Seq, u64)| {
            let spans = &catalog.segments[id].seal.spans;
            let end = spans.last().map_or(*first, |span| span.end);
            let unacked = track.acked.next().max(*first);
            let by_policy = |gap: &Gap| gap.reason == DropReason::DropOldest && gap.last >= unacked && gap.first < end;
            track.gaps.iter().any(by_policy) && track.undeclared(unacked, end).is_empty()
        };
        given_up.extend(track.segments.iter().take_while(is_given_up).map(|(_, id)| *id));
    }
    for id in given_up {
        let Some(segment) = catalog.remove(id) else { continue };
        tracing::info!(segment = %segment.keyspace.name(), "given up before the restart: deleted now");
        engine.delete_segment(segment.keyspace)?;
        survey.unindexed.retain(|unindexed| *unindexed != id);
        survey.dirty.retain(|(dirty, _)| *dirty != id);
        survey.holes.retain(|(track, first, end)| {
            let spans = &segment.seal.spans;
            !spans
                .iter()
                .any(|span| span.track == *track && span.first <= *first && *end <= span.end)
        });
        survey.stale_index.push(id);
    }
    Ok(())
}

/// Deletes again the segments that were trimmed and whose removal a power cut has undone, where it left a hole behind them. Else what
/// is held would have a hole, and a reader would be told of missing records that were only trimmed.
///
/// They are told apart from damage by the index: a segment that has a successor is in it, from the commit on that made the
/// successor, until it is trimmed.
fn drop_returned(engine: &Engine, survey: &mut Survey) -> Result<(), HaltError> {
    let catalog = &mut survey.catalog;
    let mut returned = Vec::new();
    for (number, track) in catalog.tracks.iter().enumerate() {
        let id = TrackId(number as u32);
        let end = |segment: &u64| {
            let spans = &catalog.segments[segment].seal.spans;
            spans.iter().find(|span| span.track == id).map(|span| span.end)
        };
        let is_trimmed = |segment: &u64| {
            let is_acked = end(segment).is_some_and(|end| end <= track.acked.next());
            is_acked && !track.sessions_only && !catalog.segments[segment].indexed
        };
        let held: Vec<(Seq, u64)> = track.segments.iter().copied().collect();
        let front = held.iter().take_while(|(_, segment)| is_trimmed(segment)).count();
        let before_hole =
            held[..front]
                .iter()
                .zip(&held[1.min(held.len())..])
                .rposition(|((_, segment), (next, _))| {
                    end(segment).is_some_and(|end| end < *next) && *next <= track.acked.next()
                });
        returned.extend(
            held.iter()
                .take(before_hole.map_or(0, |at| at + 1))
                .map(|(_, segment)| *segment),
        );
    }
    for id in returned {
        let Some(segment) = catalog.remove(id) else { continue };
        tracing::warn!(segment = %segment.keyspace.name(), "a trimmed segment has come back without its neighbours: deleted again");
        engine.delete_segment(segment.keyspace)?;
        survey.unindexed.retain(|unindexed| *unindexed != id);
        survey.dirty.retain(|(dirty, _)| *dirty != id);
    }
    Ok(())
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
                    track.acked = track.acked.max(Seq(acked));
                }
            }
            index::OWED => {
                let track = number().and_then(|track| survey.catalog.tracks.get_mut(usize::try_from(track).ok()?));
                if let (Some(track), Some(owed)) = (track, index::number(&value)) {
                    track.owed = owed;
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

/// What a segment holds.
struct Found {
    seal: Seal,
    holes: Vec<Hole>,
    /// A part of it cannot be read.
    damaged: bool,
}

impl From<Seal> for Found {
    fn from(seal: Seal) -> Self {
        Self {
            seal,
            holes: Vec::new(),
            damaged: false,
        }
    }
}

fn holes_of(seal: &Seal) -> Vec<Hole> {
    seal.spans
        .iter()
        .map(|span| (span.track, span.first, span.end))
        .collect()
}

/// What a segment should hold at its ends, and does not.
fn missing(known: &Seal, found: &Seal) -> Vec<Hole> {
    let mut holes = Vec::new();
    for span in &known.spans {
        let there = found.spans.iter().find(|found| found.track == span.track);
        let (first, end) = there.map_or((span.end, span.end), |found| (found.first, found.end));
        holes.push((span.track, span.first, first.min(span.end)));
        holes.push((span.track, end.max(span.first), span.end));
    }
    holes.retain(|(_, first, end)| first < end);
    holes
}

/// Reads all entries of a segment.
fn read_through(keyspace: &Keyspace) -> Result<Found, HaltError> {
    let mut found = Found::from(Seal {
        first_commit: CommitNumber(u64::MAX),
        touched_ms: folder_ms(keyspace),
        ..Seal::default()
    });
    let mut entries = keyspace.iter();
    let mut last = (TrackId(0), Seq(0));
    while let Some(guard) = entries.next() {
        let (key, value) = match guard.into_inner() {
            Ok(entry) => entry,
            // To take a refusal for damage would give up records that are there.
            Err(error) if is_refusal(&error) => return Err(error.into()),
            Err(error) => {
                tracing::error!(segment = %keyspace.name(), %error, "a part of a segment cannot be read");
                found.damaged = true;
                let Some(next) = resume_through(keyspace, last)? else {
                    break;
                };
                entries = keyspace.range(entry_key(next.0, next.1)..);
                last = next;
                continue;
            }
        };
        match (parse_entry_key(&key), Head::peek(&value)) {
            (Some(place), Some(head)) => {
                last = place;
                found.note(place, head, key.len() + value.len());
            }
            _ => tracing::error!(segment = %keyspace.name(), "entry without a sound key and head: ignored"),
        }
    }
    Ok(found)
}

/// Where a segment can be read again behind damage that follows `last`; `None`: nowhere.
fn resume_through(keyspace: &Keyspace, last: (TrackId, Seq)) -> Result<Option<(TrackId, Seq)>, HaltError> {
    let place = |key: u128| (TrackId((key >> 64) as u32), Seq(key as u64));
    let sound = |key: u128| {
        let (track, first) = place(key);
        match keyspace.range(entry_key(track, first)..).next().map(fjall::Guard::key) {
            Some(Err(error)) if is_refusal(&error) => Err(error),
            Some(Err(_)) => Ok(false),
            Some(Ok(_)) | None => Ok(true),
        }
    };
    let damaged = (u128::from(last.0.0) << 64) + u128::from(last.1.0);
    let end = 1 << 96;
    let found = behind(damaged, end, sound)?;
    Ok((found < end).then(|| place(found)))
}

impl Found {
    fn note(&mut self, (track, first): (TrackId, Seq), head: Head, bytes: usize) {
        let end = Seq(first.0.saturating_add(u64::from(head.count)));
        let seal = &mut self.seal;
        seal.bytes += bytes as u64;
        seal.first_commit = seal.first_commit.min(head.commit);
        seal.last_commit = seal.last_commit.max(head.commit);
        match seal.spans.last_mut() {
            Some(span) if span.track == track => {
                if first > span.end {
                    self.holes.push((track, span.end, first));
                }
                span.end = end;
            }
            _ => seal.spans.push(Span { track, first, end }),
        }
    }
}

/// When the folder of a segment was last changed: no later than its last record, by the second or so. Now, when that cannot be
/// known: too old a time would make it go.
fn folder_ms(keyspace: &Keyspace) -> u64 {
    let modified = std::fs::metadata(keyspace.path()).and_then(|folder| folder.modified());
    let since = modified
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_else(now_ms)
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
    survey.holes.retain_mut(|(id, first, end)| {
        let track = &tracks[id.0 as usize];
        if !track.sessions_only && *first <= track.acked {
            // Segments that were trimmed may come back after a crash without their neighbours. What the cloud holds is not lost.
            tracing::warn!(
                track = track.name,
                first = first.0,
                end = end.0,
                "a hole in what is acknowledged"
            );
            *first = track.acked.next();
        }
        *first < *end
    });
    let holes = std::mem::take(&mut survey.holes);
    let tracks = &survey.catalog.tracks;
    survey.holes = disjoint(holes, |id, at| {
        tracks[id.0 as usize].gap_at(at).map(|gap| gap.last.next())
    });
}

/// The same numbers in rising holes that do not overlap, without those that a known gap covers: `known` gives the end of that.
fn disjoint(mut holes: Vec<Hole>, known: impl Fn(TrackId, Seq) -> Option<Seq>) -> Vec<Hole> {
    holes.sort();
    let mut out: Vec<Hole> = Vec::new();
    for (track, first, end) in holes {
        let mut at = match out.last() {
            Some((last, _, behind)) if *last == track => first.max(*behind),
            _ => first,
        };
        while let Some(behind) = known(track, at).filter(|_| at < end) {
            at = behind;
        }
        if at < end {
            out.push((track, at, end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layout, StoreConfig};
    use crate::{codec, testing};

    const LANE: TrackId = TrackId(0);

    /// A segment with one batch of ten records, and its number in the index where it is sealed.
    fn segment(engine: &Engine, id: u64, first: u64, sealed: bool) {
        let keyspace = engine.create_segment(id).unwrap();
        let head = Head {
            commit: CommitNumber(id),
            first_index: 0,
            count: 10,
            epoch: fellbeck_core::Epoch(1),
        };
        let block = testing::block_of(10, 3);
        let value = codec::encode(Layout::Edge, head, Seq(first), &block);
        let mut batch = engine.batch();
        batch.insert(&keyspace, entry_key(LANE, Seq(first)), value);
        if sealed {
            let found = Seal {
                spans: vec![Span {
                    track: LANE,
                    first: Seq(first),
                    end: Seq(first + 10),
                }],
                last_commit: CommitNumber(id),
                ..Seal::default()
            };
            batch.insert(&engine.index, index::sealed(id), found.encode());
        }
        batch.commit().unwrap();
    }

    fn held(acked: u64, first_is_sealed: bool) -> Vec<u64> {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::edge(vec!["lane/default/0".into()]);
        let engine = Engine::open(dir.path(), &config).unwrap();
        segment(&engine, 1, 1, first_is_sealed);
        segment(&engine, 3, 21, true);
        segment(&engine, 4, 31, false);
        let mut batch = engine.batch();
        batch.insert(&engine.index, index::acked(LANE), acked.to_be_bytes());
        batch.commit().unwrap();
        let track = Track {
            name: "lane/default/0".into(),
            end: Seq(1),
            ..Track::default()
        };
        let survey = survey(&engine, vec![track], Belief::Whole).unwrap();
        survey.catalog.segments.keys().copied().collect()
    }

    /// Found by the power-cut rig: the cut undid the removal of the first segment and not that of the second, and a reader from the
    /// front was told that the second was missing.
    #[test]
    fn a_trimmed_segment_that_came_back_without_its_neighbour_is_deleted_again() {
        assert_eq!(held(35, false), [3, 4]);
        assert_eq!(held(20, false), [3, 4], "acknowledged right up to what is held");
    }

    /// A crash between the commit that declares the gap and the removal of the files, or a power cut that undoes the removal.
    #[test]
    fn a_segment_that_was_given_up_is_deleted_and_one_that_is_only_in_part_in_a_gap_stays() {
        let held = |gaps: &[(u64, u64, DropReason)]| -> Vec<u64> {
            let dir = tempfile::tempdir().unwrap();
            let engine = Engine::open(dir.path(), &StoreConfig::edge(vec!["lane/default/0".into()])).unwrap();
            for (id, first) in [(1, 1), (2, 11), (3, 21)] {
                segment(&engine, id, first, true);
            }
            let mut batch = engine.batch();
            for (first, last, reason) in gaps {
                let gap = Gap {
                    epoch: fellbeck_core::Epoch(1),
                    first: Seq(*first),
                    last: Seq(*last),
                    reason: *reason,
                };
                batch.insert(&engine.index, index::gap(LANE, gap.first), key::gap_value(&gap));
            }
            batch.insert(&engine.index, index::acked(LANE), 4u64.to_be_bytes());
            batch.commit().unwrap();
            let track = Track {
                name: "lane/default/0".into(),
                end: Seq(1),
                ..Track::default()
            };
            let survey = survey(&engine, vec![track], Belief::Whole).unwrap();
            assert_eq!(survey.holes, []);
            survey.catalog.segments.keys().copied().collect()
        };
        let oldest = DropReason::DropOldest;
        assert_eq!(held(&[(5, 20, oldest)]), [3]);
        assert_eq!(held(&[(5, 10, oldest)]), [2, 3]);
        assert_eq!(held(&[(5, 7, DropReason::Damaged), (8, 10, oldest)]), [2, 3]);
        assert_eq!(held(&[(6, 10, oldest)]), [1, 2, 3], "record 5 is nowhere else");
        assert_eq!(held(&[(5, 10, DropReason::Damaged)]), [1, 2, 3], "not by policy");
    }

    #[test]
    fn a_segment_in_front_of_damage_stays() {
        assert_eq!(held(35, true), [1, 3, 4], "the index has it: it was not trimmed");
        assert_eq!(held(19, false), [1, 3, 4], "the hole is not acknowledged");
    }
}
