//! Looks at a database before the engine does, since the engine deletes what its lists do not name: a folder whose list entry or whose
//! `current` file is gone is for it one that was never finished.
//!
//! A folder is `db/keyspaces/<n>`, with `current` (version u64, xxh3-128 of the version's file, 1 byte; little-endian), `v<version>` and
//! `tables/`. Folder 0 is the list of all others.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::{AbstractTree, SeqNo};
use lsm_tree::SequenceNumberCounter;
use xxhash_rust::xxh3::xxh3_128;

use crate::error::is_refused;

/// Number of the folder that lists the others.
pub(crate) const LIST: u64 = 0;

/// The folders of a database by number, rising.
pub(crate) fn folders(db: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(db.join("keyspaces")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|_| entry.path().is_dir()) {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Folders that the list names and whose version is not whole; the list itself where it cannot tell. Cheap: two small files each.
pub(crate) fn unsound(db: &Path) -> std::io::Result<Vec<u64>> {
    let folders = folders(db)?;
    let Some((first, list)) = folders.first() else {
        return Ok(Vec::new());
    };
    if *first != LIST || !is_whole(list)? {
        return Ok(vec![LIST]);
    }
    // A list that was never written to is that of a database that was just begun.
    if !list.join("current").try_exists()? {
        return Ok(if folders.len() > 1 { vec![LIST] } else { Vec::new() });
    }
    let Some(names) = readable_names(list)? else {
        return Ok(vec![LIST]);
    };
    let mut found = Vec::new();
    for (number, folder) in &folders[1..] {
        // One that is not named is one that was removed.
        if names.contains_key(number) && !is_whole(folder)? {
            found.push(*number);
        }
    }
    Ok(found)
}

/// Names of all folders, as the list has them.
fn names(list: &Path) -> lsm_tree::Result<BTreeMap<u64, String>> {
    let counter = SequenceNumberCounter::default;
    let tree = lsm_tree::Config::new(list, counter(), counter()).open()?;
    let mut names = BTreeMap::new();
    for guard in tree.prefix("n", SeqNo::MAX, None) {
        let (key, name) = lsm_tree::Guard::into_inner(guard)?;
        if let Some(number) = key.get(1..).and_then(|number| number.try_into().ok()) {
            names.insert(u64::from_be_bytes(number), String::from_utf8_lossy(&name).into_owned());
        }
    }
    Ok(names)
}

/// `None`: the list is damaged. What the system refuses for now is an error, and no damage.
fn readable_names(list: &Path) -> std::io::Result<Option<BTreeMap<u64, String>>> {
    tried(|| names(list))
}

/// What the engine reads; `None` where that is damaged. It asserts on some kinds of damage.
fn tried<T>(read: impl FnOnce() -> lsm_tree::Result<T>) -> std::io::Result<Option<T>> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(content)) => Ok(Some(content)),
        Ok(Err(lsm_tree::Error::Io(error))) if is_refused(&error) => Err(error),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

fn is_whole(folder: &Path) -> std::io::Result<bool> {
    let current = match fs::read(folder.join("current")) {
        // Cut short while it was made: then nothing was written into it yet.
        Err(error) if error.kind() == ErrorKind::NotFound => return is_blank(folder),
        current => current?,
    };
    let (Some(version), Some(checksum)) = (
        current.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
        current.get(8..24),
    ) else {
        return Ok(false);
    };
    if current.len() != 25 {
        return Ok(false);
    }
    match fs::read(folder.join(format!("v{version}"))) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        content => Ok(xxh3_128(&content?).to_le_bytes() == *checksum),
    }
}

/// Nothing was ever written out here. What journals hold for it is another question.
fn is_blank(folder: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('v') && name != "v0" {
            return Ok(false);
        }
    }
    match fs::read_dir(folder.join("tables")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        tables => Ok(tables?.next().is_none()),
    }
}

/// Folders that the list names and that have no `current` file: the engine would delete them. One that the list does not name was
/// removed, and a power cut has undone a part of that; journals may still hold what was in it.
pub(crate) fn unfinished(db: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let list = db.join("keyspaces").join(LIST.to_string());
    if !list.join("current").try_exists()? {
        return Ok(found);
    }
    let names = readable_names(&list)?.unwrap_or_default();
    for (number, folder) in folders(db)? {
        if names.contains_key(&number) && !folder.join("current").try_exists()? {
            found.push(number);
        }
    }
    Ok(found)
}

/// Whether any folder but the list has a table file, named or not.
pub(crate) fn has_tables(db: &Path) -> std::io::Result<bool> {
    for (_, folder) in folders(db)?.into_iter().filter(|(number, _)| *number != LIST) {
        match fs::read_dir(folder.join("tables")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            tables => {
                if tables?.next().is_some() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Folders that the engine cannot open, each tried by itself.
pub(crate) fn unopenable(db: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for (number, folder) in folders(db)? {
        if !folder.join("current").try_exists()? {
            continue;
        }
        if tried(|| open_tree(&folder))?.is_none() {
            found.push(number);
        }
    }
    Ok(found)
}

fn open_tree(folder: &Path) -> lsm_tree::Result<SeqNo> {
    let counter = SequenceNumberCounter::default;
    let tree = lsm_tree::Config::new(folder, counter(), counter()).open()?;
    Ok(tree.get_highest_persisted_seqno().unwrap_or(0))
}
