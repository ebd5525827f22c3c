//! Directories of nodes as a test sees them: size, copy, files.
//!
//! In: a path. Out: numbers and paths. A file that vanishes while it is looked at (a running node deletes segments) is skipped.

use std::fs;
use std::path::{Path, PathBuf};

/// All files below `dir`.
#[must_use]
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// Bytes that the files below `dir` occupy on disk.
#[must_use]
pub fn bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(dir)
        .iter()
        .filter_map(|file| fs::metadata(file).ok())
        .map(|meta| meta.blocks() * 512)
        .sum()
}

/// Copies `from` to `to`, which must not exist, with file modes.
///
/// # Panics
/// When something cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    assert!(!to.exists(), "a copy goes to a fresh place");
    fs::create_dir_all(to).expect("the target can be made");
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        for entry in fs::read_dir(from.join(&relative)).expect("the source can be read") {
            let entry = entry.expect("the source can be read");
            let inner = relative.join(entry.file_name());
            if entry.file_type().expect("a file has a type").is_dir() {
                fs::create_dir_all(to.join(&inner)).expect("a directory can be made");
                open.push(inner);
            } else {
                fs::copy(entry.path(), to.join(&inner)).expect("a file can be copied");
            }
        }
    }
}

/// Puts a copy of `from` in the place of `to`.
///
/// # Panics
/// When that is not possible.
pub fn replace(to: &Path, from: &Path) {
    fs::remove_dir_all(to).expect("the old directory can be removed");
    copy(from, to);
}
