//! A store that no node has open, looked at without changing it: what is there, what is missing, and the records themselves.
//!
//! Reads the files block by block, as salvage does, so that damage never keeps it from what is whole. Holds the lock of the directory.
//! In memory is one segment at a time. It may show records that were trimmed and whose files are not gone yet.

use std::path::{Path, PathBuf};

use fellbeck_core::{CommitNumber, Epoch, RecordBlock, Seq, TrackId};

use crate::codec;
use crate::config::Layout;
use crate::directory::{Directory, Lock, Twice};
use crate::error::{HaltError, OpenError};
use crate::high_water::HighWaterFile;
use crate::key::{self, Seal, index};
use crate::manifest;
use crate::recovery::{CHAIN, TRACKS, track_names};
use crate::salvage::Source;
use crate::set_aside::engine_error;

/// First and last number of a range of one track.
pub type Range = (u64, u64);

/// One stored batch.
#[derive(Debug)]
pub struct OfflineBatch<'a> {
    /// Name of its track.
    pub track: &'a str,
    /// Number of the first record.
    pub first: Seq,
    /// Incarnation that appended it.
    pub epoch: Epoch,
    /// Commit that holds it.
    pub commit: CommitNumber,
    /// The records.
    pub block: RecordBlock,
}

/// What is known of one track.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrackExamination {
    /// Its name.
    pub name: String,
    /// The next record would get this number.
    pub end: u64,
    /// Last number that is done with: acknowledged, or where nobody acknowledges, trimmed as far as that is known.
    pub acked: u64,
    /// Numbers that can be read.
    pub readable: u64,
    /// Numbers above what was acknowledged, and once appended, that cannot be read: each range once.
    pub missing: Vec<Range>,
    /// Those of them that an earlier open has declared.
    pub declared: Vec<Range>,
}

/// What an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examination {
    /// Every track.
    pub tracks: Vec<TrackExamination>,
    /// Parts of the database that the engine cannot open as they are.
    pub unsound_folders: Vec<u64>,
    /// Small files of which one copy or both are damaged.
    pub damaged_files: Vec<&'static str>,
    /// Bytes of a commit that was never acknowledged, at the end of a journal.
    pub torn_bytes: u64,
    /// Damaged stretches inside journals, and their bytes.
    pub damaged_stretches: u64,
    /// Bytes in them.
    pub damaged_bytes: u64,
    /// Bytes of table files in no whole block.
    pub unreadable_bytes: u64,
    /// What earlier opens have set aside.
    pub quarantines: Vec<PathBuf>,
}

impl Examination {
    /// Nothing is damaged that an open would have to mend or declare.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unsound_folders.is_empty()
            && self.damaged_files.is_empty()
            && self.damaged_stretches == 0
            && self.unreadable_bytes == 0
            && self.tracks.iter().all(|track| track.missing == track.declared)
    }

    /// Numbers that cannot be read.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let ranges = self.tracks.iter().flat_map(|track| &track.missing);
        ranges.map(|(first, last)| last - first + 1).sum()
    }
}

/// A store that is looked at.
pub struct Offline {
    dir: Directory,
    _lock: Lock,
    layout: Layout,
    log_id: [u8; 16],
    tracks: Vec<String>,
    damaged_files: Vec<&'static str>,
    source: Source,
}

impl std::fmt::Debug for Offline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offline")
            .field("dir", &self.dir.root())
            .finish_non_exhaustive()
    }
}

impl Offline {
    /// Locks the store in `root`; [`OpenError::Locked`] while a node has it open.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let (dir, lock, layout, log_id) = Directory::look(root)?;
        let mut damaged_files = Vec::new();
        let tracks = match dir.read_twice(TRACKS)? {
            Twice::Whole(bytes) => track_names(&bytes),
            Twice::Mended(bytes) => {
                damaged_files.push(TRACKS);
                track_names(&bytes)
            }
            Twice::Missing => Some(Vec::new()),
            Twice::Lost => None,
        };
        let tracks = tracks.ok_or_else(|| OpenError::Damaged {
            file: dir.path(TRACKS),
            what: "neither it nor its copy can be read, and only they tell which track is which",
        })?;
        if !matches!(dir.read_twice(CHAIN)?, Twice::Whole(_) | Twice::Missing) {
            damaged_files.push(CHAIN);
        }
        let source = Source::open(&dir.database(), Default::default()).map_err(|error| engine_error(&dir, &error))?;
        Ok(Self {
            dir,
            _lock: lock,
            layout,
            log_id,
            tracks,
            damaged_files,
            source,
        })
    }

    /// Which kind of node it belongs to.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Identity of the store.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.log_id
    }

    /// Names of its tracks, by number.
    #[must_use]
    pub fn tracks(&self) -> &[String] {
        &self.tracks
    }

    /// Segments, as [`batches`](Self::batches) counts them.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.source.segment_folders().len()
    }

    /// Gives every whole batch to `sink`, in rising order within a track, until it says false. `progress` hears of each segment.
    /// Returns the bytes of table files that could not be read.
    pub fn batches(
        &self,
        progress: &mut dyn FnMut(usize),
        sink: &mut dyn FnMut(&OfflineBatch<'_>) -> bool,
    ) -> Result<u64, OpenError> {
        let mut unreadable = 0;
        for (number, folder) in self.source.segment_folders().into_iter().enumerate() {
            let read = self.source.segment(folder, self.layout);
            let (batches, bytes) = read.map_err(|error: HaltError| engine_error(&self.dir, &error))?;
            unreadable += bytes;
            for ((track, first), (head, batch)) in batches {
                let Some(name) = self.tracks.get(track.0 as usize) else {
                    continue;
                };
                let Some(block) = codec::decode(self.layout, &head, first, &batch) else {
                    continue;
                };
                let batch = OfflineBatch {
                    track: name,
                    first,
                    epoch: head.epoch,
                    commit: head.commit,
                    block,
                };
                if !sink(&batch) {
                    return Ok(unreadable);
                }
            }
            progress(number + 1);
        }
        Ok(unreadable)
    }

    /// Reads everything once.
    pub fn examine(&self, progress: &mut dyn FnMut(usize)) -> Result<Examination, OpenError> {
        let io = |source| self.dir.io(&self.dir.database(), source);
        let mut covered: Vec<Vec<(u64, u64)>> = vec![Vec::new(); self.tracks.len()];
        let names: std::collections::HashMap<&str, usize> = self
            .tracks
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), at))
            .collect();
        let unreadable_bytes = self.batches(progress, &mut |batch| {
            let end = batch.first.0 + batch.block.len() as u64;
            push(&mut covered[names[batch.track]], batch.first.0, end);
            true
        })?;
        let (torn_bytes, damaged_stretches, damaged_bytes) = self.source.journal_damage();
        let mut examination = Examination {
            unsound_folders: manifest::unsound(&self.dir.database()).map_err(io)?,
            damaged_files: self.damaged_files.clone(),
            torn_bytes,
            damaged_stretches,
            damaged_bytes,
            unreadable_bytes,
            quarantines: self.dir.quarantines().map_err(io)?,
            ..Examination::default()
        };
        let high_water = HighWaterFile::read(&self.dir).map_err(io)?;
        if high_water.damaged {
            examination.damaged_files.push("high-water");
        }
        let mut known = vec![Known::default(); self.tracks.len()];
        for (track, (end, acked)) in known.iter_mut().zip(&high_water.file.last().tracks) {
            *track = Known {
                first: u64::MAX,
                end: end.0,
                acked: acked.0,
                gaps: Vec::new(),
            };
        }
        for (key, value) in self.source.index().map_err(|error| engine_error(&self.dir, &error))? {
            note(&mut known, &key, &value);
        }
        for ((name, known), mut ranges) in self.tracks.iter().zip(known).zip(covered) {
            ranges.sort_unstable();
            examination.tracks.push(track(name, &known, &ranges));
        }
        Ok(examination)
    }
}

/// What the index and the high-water file say of a track.
#[derive(Debug, Clone)]
struct Known {
    /// First number that a sealed segment holds.
    first: u64,
    end: u64,
    acked: u64,
    gaps: Vec<Range>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            first: u64::MAX,
            end: 1,
            acked: 0,
            gaps: Vec::new(),
        }
    }
}

fn note(known: &mut [Known], entry: &[u8], value: &[u8]) {
    let Some((kind, rest)) = entry.split_first() else {
        return;
    };
    let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match *kind {
        index::ACKED | index::END => {
            let track = index::number(rest).and_then(|track| known.get_mut(place(track)));
            if let (Some(track), Some(number)) = (track, index::number(value)) {
                match *kind {
                    index::ACKED => track.acked = track.acked.max(number),
                    _ => track.end = track.end.max(number),
                }
            }
        }
        index::GAP => {
            if let Some((TrackId(track), gap)) = key::parse_gap(rest, value)
                && let Some(track) = known.get_mut(track as usize)
            {
                track.gaps.push((gap.first.0, gap.last.0));
                track.end = track.end.max(gap.last.0 + 1);
            }
        }
        index::SEALED => {
            for span in Seal::parse(value).into_iter().flat_map(|seal| seal.spans) {
                if let Some(track) = known.get_mut(span.track.0 as usize) {
                    track.first = track.first.min(span.first.0);
                }
            }
        }
        _ => {}
    }
}

/// Holes of `ranges`, which rise, among what the track should hold.
fn track(name: &str, known: &Known, ranges: &[(u64, u64)]) -> TrackExamination {
    let end = ranges.last().map_or(known.end, |(_, end)| known.end.max(*end));
    let held = ranges.first().map_or(end, |(first, _)| *first);
    let forwarded = known.acked > 0;
    let from = if forwarded {
        known.acked + 1
    } else {
        known.first.min(held)
    };
    let (mut at, mut missing, mut readable) = (from, Vec::new(), 0);
    for (first, behind) in ranges {
        readable += behind - first;
        if *first > at {
            missing.push((at, first - 1));
        }
        at = at.max(*behind);
    }
    if at < end {
        missing.push((at, end - 1));
    }
    let mut declared = known.gaps.clone();
    declared.sort_unstable();
    declared.retain(|(_, last)| *last >= from);
    TrackExamination {
        name: name.to_owned(),
        end,
        acked: known.acked,
        readable,
        missing,
        declared,
    }
}

/// Adds a range, joined to the one before where they touch.
fn push(ranges: &mut Vec<(u64, u64)>, first: u64, end: u64) {
    match ranges.last_mut() {
        Some((_, last)) if *last == first => *last = end,
        _ => ranges.push((first, end)),
    }
}
