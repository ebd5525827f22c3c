//! Small JSON files of one edge each: read whole or not at all, written whole or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fellbeck_ops::files::{self, Access};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of the files.
pub(super) const VERSION: u32 = 1;
/// Largest file.
const BYTES_MAX: u64 = 64 << 10;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct FileFault {
    path: PathBuf,
    reason: String,
}

impl FileFault {
    fn new(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A file about one edge.
pub(super) trait OfEdge {
    /// Version that it was written in, and the edge that it is about.
    fn label(&self) -> (u32, &str);
}

/// The file about `edge` in `dir`; `None`: there is none.
pub(super) fn read<T: DeserializeOwned + OfEdge>(dir: &Path, edge: &str) -> Result<Option<T>, FileFault> {
    let path = path(dir, edge);
    let bytes = match files::read_bounded(&path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileFault::new(&path, &error)),
    };
    let read: T = serde_json::from_slice(&bytes).map_err(|error| FileFault::new(&path, &error))?;
    if read.label() != (VERSION, edge) {
        return Err(FileFault::new(&path, &"of another version or of another edge"));
    }
    Ok(Some(read))
}

/// Writes the file about the edge that `file` names.
pub(super) fn write<T: Serialize + OfEdge>(dir: &Path, file: &T) -> Result<(), FileFault> {
    let path = path(dir, file.label().1);
    let text = serde_json::to_vec_pretty(file).map_err(|error| FileFault::new(&path, &error))?;
    files::create_private_dir(dir)
        .and_then(|()| files::write_atomic(&path, &text, Access::Private))
        .map_err(|error| FileFault::new(&path, &error))
}

/// Names of the edges that have a file in `dir`.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    names
}

// Names of edges are safe as file names: see `EdgeName`.
fn path(dir: &Path, edge: &str) -> PathBuf {
    dir.join(format!("{edge}.json"))
}
