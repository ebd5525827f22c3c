//! Reads what is whole out of folders of the database that the engine cannot open, or would delete, and puts it into new ones.
//!
//! In: the quarantine directory with such folders and the journals of that time. Out: the same entries under the same keys, in
//! segments of the same numbers. What was set aside, and is not yet put back, stands in the file `salvage`, so that a crash in between
//! is made good by the next open. Decides nothing of what is lost: the survey sees what is there afterwards.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fellbeck_core::{CommitNumber, Seq, TrackId};

use crate::codec;
use crate::commit::Space;
use crate::config::{Layout, StoreConfig};
use crate::doctor;
use crate::engine::{Engine, SEGMENT_PREFIX};
use crate::error::HaltError;
use crate::journal::{self, Walk};
use crate::key::{HEAD_BYTES, Head, Seal, index, parse_entry_key};
use crate::manifest::{self, LIST};

/// Names of the keyed folders in the order of their making, which gives them the numbers from 1 on.
const KEYED: [&str; 6] = ["index", "session", "retained", "mark", "node", "spare"];
/// Bytes that one commit of what is put back may hold.
const COMMIT_BYTES: usize = 1024 * 1024;

/// One version of one key in one folder.
struct Found {
    folder: u64,
    key: Bytes,
    value: Option<Bytes>,
    seqno: u64,
}

/// What was put back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) batches: u64,
    pub(crate) keyed: u64,
    /// Bytes of table files that were in no whole block.
    pub(crate) unreadable: u64,
}

/// A directory to read from: `keyspaces/<n>` and journals.
pub(crate) struct Source {
    dir: PathBuf,
    folders: Vec<(u64, PathBuf)>,
    names: BTreeMap<u64, String>,
    journals: Vec<(PathBuf, Walk)>,
    /// Folders of which journals hold anything.
    journaled: BTreeSet<u64>,
}

impl Source {
    /// `names`: those of folders, where the list itself is not in `dir`.
    pub(crate) fn open(dir: &Path, mut names: BTreeMap<u64, String>) -> Result<Self, HaltError> {
        let mut folders = manifest::folders(dir)?;
        names.extend(listed(dir)?);
        folders.retain(|(number, _)| *number != LIST);
        let walked = |path: PathBuf| -> Result<_, HaltError> {
            let walk = journal::walk(&path)?;
            Ok((path, walk))
        };
        let journals: Vec<(PathBuf, Walk)> = doctor::journals(dir)?
            .into_iter()
            .map(walked)
            .collect::<Result<_, _>>()?;
        let mut journaled = BTreeSet::new();
        for (path, walk) in &journals {
            journal::items::<HaltError>(path, walk, &mut |item| {
                journaled.insert(item.keyspace);
                Ok(())
            })?;
        }
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            folders,
            names,
            journals,
            journaled,
        })
    }

    /// Torn, and damaged in the middle: stretches and bytes of all journals.
    pub(crate) fn journal_damage(&self) -> (u64, u64, u64) {
        self.journals
            .iter()
            .fold((0, 0, 0), |(torn, stretches, bytes), (_, walk)| {
                let (more, damaged) = walk.damage();
                (torn + walk.torn(), stretches + more, bytes + damaged)
            })
    }

    /// Folders of segments, the oldest first as far as their names tell.
    pub(crate) fn segment_folders(&self) -> Vec<u64> {
        let mut folders: Vec<_> = self.folders.iter().map(|(folder, _)| *folder).collect();
        folders.retain(|folder| self.is_keyed(*folder).is_none());
        folders.sort_by_key(|folder| (self.names.get(folder).and_then(|name| segment_number(name)), *folder));
        folders
    }

    /// All whole batches of one folder in the order of tracks and numbers, and the bytes that could not be read.
    pub(crate) fn segment(&self, folder: u64, layout: Layout) -> Result<(Batches, u64), HaltError> {
        let mut batches = Batches::new();
        let unreadable = self.read(&|other| other == folder, &mut |found| {
            if let (Some((track, first, head)), Some(mut batch)) = (sound(layout, &found), found.value) {
                bytes::Buf::advance(&mut batch, HEAD_BYTES);
                batches.insert((track, first), (head, batch));
            }
            Ok(())
        })?;
        Ok((batches, unreadable))
    }

    /// The index, as far as it can be read.
    pub(crate) fn index(&self) -> Result<Vec<(Bytes, Bytes)>, HaltError> {
        let keyed = self.keyed(&mut Restored::default())?;
        let index = keyed.into_iter().filter(|((name, _), _)| *name == KEYED[0]);
        Ok(index.map(|((_, key), value)| (key, value)).collect())
    }

    fn is_keyed(&self, folder: u64) -> Option<&'static str> {
        match self.names.get(&folder) {
            Some(name) => KEYED.into_iter().find(|keyed| keyed == name),
            None => KEYED.get(usize::try_from(folder).ok()?.checked_sub(1)?).copied(),
        }
    }

    /// All versions of all keys of the folders that `wanted` chooses: first what was written out, then what is in journals.
    fn read(
        &self,
        wanted: &dyn Fn(u64) -> bool,
        sink: &mut dyn FnMut(Found) -> Result<(), HaltError>,
    ) -> Result<u64, HaltError> {
        let mut unreadable = 0;
        for (folder, path) in self.folders.iter().filter(|(folder, _)| wanted(*folder)) {
            for file in table_files(path)? {
                unreadable += table::read(&file, &mut |entry| {
                    let table::Entry { key, value, seqno } = entry;
                    let folder = *folder;
                    sink(Found {
                        folder,
                        key,
                        value,
                        seqno,
                    })
                })?;
            }
        }
        let there: BTreeSet<u64> = self.folders.iter().map(|(folder, _)| *folder).collect();
        let in_journals = self
            .folders
            .iter()
            .any(|(folder, _)| wanted(*folder) && self.journaled.contains(folder));
        for (path, walk) in self.journals.iter().filter(|_| in_journals) {
            journal::items(path, walk, &mut |item| {
                let journal::Item {
                    keyspace: folder,
                    key,
                    value,
                    seqno,
                } = item;
                // A folder that is not here was removed, or is sound and elsewhere.
                match there.contains(&folder) && wanted(folder) {
                    true => sink(Found {
                        folder,
                        key,
                        value,
                        seqno,
                    }),
                    false => Ok(()),
                }
            })?;
        }
        Ok(unreadable)
    }

    /// The newest version of each keyed value, by the name of its folder.
    fn keyed(&self, restored: &mut Restored) -> Result<Keyed, HaltError> {
        let mut newest: BTreeMap<(&'static str, Bytes), (u64, Option<Bytes>)> = BTreeMap::new();
        let unreadable = self.read(&|folder| self.is_keyed(folder).is_some(), &mut |found| {
            let Some(name) = self.is_keyed(found.folder) else {
                return Ok(());
            };
            // Copied out of its block.
            let key = Bytes::copy_from_slice(&found.key);
            let entry = newest.entry((name, key)).or_default();
            if found.seqno >= entry.0 {
                *entry = (found.seqno, found.value.map(|value| Bytes::copy_from_slice(&value)));
            }
            Ok(())
        })?;
        restored.unreadable += unreadable;
        let there = newest
            .into_iter()
            .filter_map(|(place, (_, value))| Some((place, value?)));
        Ok(there.collect())
    }

    /// The segment that each other folder was, by its name, else by what the index says of its first entry, else a new one.
    fn segments(&self, config: &StoreConfig, seals: &BTreeMap<u64, Seal>, above: u64) -> Result<Segments, HaltError> {
        let mut segments = Segments::new();
        let mut unnamed: BTreeMap<u64, (CommitNumber, TrackId, Seq)> = BTreeMap::new();
        for (folder, _) in &self.folders {
            match self.names.get(folder).and_then(|name| segment_number(name)) {
                Some(id) => {
                    segments.insert(*folder, id);
                }
                None if self.is_keyed(*folder).is_none() => {
                    unnamed.insert(*folder, (CommitNumber(u64::MAX), TrackId(0), Seq(0)));
                }
                None => {}
            }
        }
        if unnamed.is_empty() {
            return Ok(segments);
        }
        let wanted: BTreeSet<u64> = unnamed.keys().copied().collect();
        self.read(&|folder| wanted.contains(&folder), &mut |found| {
            if let (Some((track, seq, head)), Some(first)) =
                (sound(config.layout, &found), unnamed.get_mut(&found.folder))
            {
                *first = (*first).min((head.commit, track, seq));
            }
            Ok(())
        })?;
        let mut taken: BTreeSet<u64> = segments.values().copied().collect();
        let mut next = seals
            .keys()
            .chain(&taken)
            .max()
            .map_or(0, |newest| newest + 1)
            .max(above);
        let mut in_order: Vec<_> = unnamed.into_iter().collect();
        in_order.sort_by_key(|(_, first)| *first);
        for (folder, (_, track, seq)) in in_order {
            let holds = |seal: &Seal| {
                let mut spans = seal.spans.iter();
                spans.any(|span| span.track == track && span.first <= seq && seq < span.end)
            };
            let known = seals.iter().find(|(id, seal)| holds(seal) && !taken.contains(id));
            let id = known.map_or(next, |(id, _)| *id);
            next = next.max(id + 1);
            taken.insert(id);
            segments.insert(folder, id);
        }
        Ok(segments)
    }
}

/// Whole batches by track and first number, without their heads.
pub(crate) type Batches = BTreeMap<(TrackId, Seq), (Head, Bytes)>;
type Keyed = BTreeMap<(&'static str, Bytes), Bytes>;
/// Numbers of segments by folder.
type Segments = BTreeMap<u64, u64>;

/// Names of folders that the list in `dir` still tells.
pub(crate) fn listed(dir: &Path) -> Result<BTreeMap<u64, String>, HaltError> {
    let mut names = BTreeMap::new();
    for file in table_files(&dir.join("keyspaces").join(LIST.to_string()))? {
        table::read::<HaltError>(&file, &mut |entry| {
            let number = entry.key.strip_prefix(b"n").and_then(|number| number.try_into().ok());
            if let (Some(number), Some(name)) = (number, entry.value) {
                names.insert(u64::from_be_bytes(number), String::from_utf8_lossy(&name).into_owned());
            }
            Ok(())
        })?;
    }
    Ok(names)
}

/// Whether journals in `db` hold anything for one of `folders`.
pub(crate) fn journaled(db: &Path, folders: &[u64]) -> Result<BTreeSet<u64>, HaltError> {
    let mut found = BTreeSet::new();
    if folders.is_empty() {
        return Ok(found);
    }
    for path in doctor::journals(db)? {
        let walk = journal::walk(&path)?;
        journal::items::<HaltError>(&path, &walk, &mut |item| {
            if folders.contains(&item.keyspace) {
                found.insert(item.keyspace);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn segment_number(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(SEGMENT_PREFIX)?, 16).ok()
}

fn table_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match fs::read_dir(folder.join("tables")) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                files.push(entry?.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The place of a batch, when it is whole and belongs there.
fn sound(layout: Layout, found: &Found) -> Option<(TrackId, Seq, Head)> {
    let (track, first) = parse_entry_key(&found.key)?;
    let mut batch = found.value.clone()?;
    let head = Head::take(&mut batch)?;
    codec::decode(layout, &head, first, &batch)?;
    Some((track, first, head))
}

/// Puts everything of `source` into the open database.
pub(crate) fn restore(engine: &Engine, source: &Source, config: &StoreConfig) -> Result<Restored, HaltError> {
    let mut restored = Restored::default();
    let keyed = source.keyed(&mut restored)?;
    let mut seals: BTreeMap<u64, Seal> = BTreeMap::new();
    for guard in engine.index.prefix([index::SEALED]) {
        let (key, value) = guard.into_inner()?;
        note_seal(&mut seals, &key, &value);
    }
    for ((name, key), value) in &keyed {
        if *name == KEYED[0] {
            note_seal(&mut seals, key, value);
        }
    }
    let above = engine.segments()?.last().map_or(0, |(newest, _)| newest + 1);
    let segments = source.segments(config, &seals, above)?;
    let mut sink = Sink {
        engine,
        batch: engine.batch(),
        bytes: 0,
    };
    for ((name, key), value) in keyed {
        let keyspace = match name {
            "index" => &engine.index,
            "spare" => &engine.spare,
            "retained" => engine.space(Space::Retained),
            "mark" => engine.space(Space::Mark),
            "node" => engine.space(Space::Node),
            _ => engine.space(Space::Session),
        };
        sink.insert(keyspace, key, value)?;
        restored.keyed += 1;
    }
    // Segments rise with time, and a track is read in their order: none may be made before an older one.
    let mut open = BTreeMap::new();
    let mut in_order: Vec<(u64, u64)> = segments.iter().map(|(folder, id)| (*id, *folder)).collect();
    in_order.sort_unstable();
    for (id, folder) in in_order {
        open.insert(folder, engine.create_segment(id)?);
    }
    let unreadable = source.read(&|folder| open.contains_key(&folder), &mut |found| {
        if let (Some(_), Some(keyspace), Some(value)) = (
            sound(config.layout, &found),
            open.get(&found.folder),
            found.value.clone(),
        ) {
            sink.insert(keyspace, found.key, value)?;
            restored.batches += 1;
        }
        Ok(())
    })?;
    restored.unreadable += unreadable;
    sink.finish()?;
    let dir = source.dir.display();
    let Restored {
        batches,
        keyed,
        unreadable,
    } = restored;
    tracing::warn!(%dir, batches, keyed, unreadable, "what could be read of damaged files was put back");
    Ok(restored)
}

fn note_seal(seals: &mut BTreeMap<u64, Seal>, key: &[u8], value: &[u8]) {
    let number = key.strip_prefix(&[index::SEALED]).and_then(index::number);
    if let (Some(id), Some(seal)) = (number, Seal::parse(value)) {
        seals.insert(id, seal);
    }
}

/// Collects into commits of a bounded size, and keeps memory tables small.
struct Sink<'a> {
    engine: &'a Engine,
    batch: fjall::OwnedWriteBatch,
    bytes: usize,
}

impl Sink<'_> {
    fn insert(&mut self, keyspace: &fjall::Keyspace, key: Bytes, value: Bytes) -> Result<(), HaltError> {
        self.bytes += key.len() + value.len();
        self.batch.insert(keyspace, key, value);
        if self.bytes >= COMMIT_BYTES {
            self.flush()?;
            self.engine.relieve(keyspace)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), HaltError> {
        let batch = std::mem::replace(&mut self.batch, self.engine.batch());
        self.bytes = 0;
        batch.commit()?;
        Ok(())
    }

    fn finish(mut self) -> Result<(), HaltError> {
        self.flush()
    }
}
