//! The ready file: tells whoever started the node the real addresses of its listeners.
//!
//! In: `--ready-file` and the addresses. Out: one JSON object, e.g.
//! `{"http":"127.0.0.1:8081","mqtt":"127.0.0.1:1883"}`.
//! It is written whole or not at all, once all listeners accept. It is removed at start, so that an old one never
//! tells of a process that is gone, and at shutdown.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{Access, write_atomic};

/// Owner of the ready file: removes it when dropped.
#[derive(Debug)]
pub struct ReadyFile {
    path: Option<PathBuf>,
}

/// The ready file cannot be removed or written. No listener address has been told.
#[derive(Debug, thiserror::Error)]
#[error("--ready-file {}: {source}", path.display())]
pub struct ReadyFileError {
    /// Path as given.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl ReadyFile {
    /// Takes charge of `path` and removes what an earlier process left there. Without a path nothing is ever written.
    pub fn new(path: Option<&Path>) -> Result<Self, ReadyFileError> {
        if let Some(path) = path {
            match std::fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ReadyFileError {
                        path: path.into(),
                        source,
                    });
                }
                _ => {}
            }
        }
        Ok(Self {
            path: path.map(Into::into),
        })
    }

    /// Writes the addresses by the name of their listener. Listeners that are off are left out by the caller.
    pub fn write(&self, listeners: &BTreeMap<String, String>) -> Result<(), ReadyFileError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = serde_json::to_vec(listeners).expect("a map of texts is always JSON");
        text.push(b'\n');
        write_atomic(path, &text, Access::Public).map_err(|source| ReadyFileError {
            path: path.clone(),
            source,
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(e) = std::fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %path.display(), error = %e, "the ready file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_file_goes_at_start_and_the_new_one_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        std::fs::write(&path, "of an earlier process").unwrap();
        let file = ReadyFile::new(Some(&path)).unwrap();
        assert!(!path.exists(), "the old file must not be taken for ours");
        file.write(&BTreeMap::from([("mqtt".into(), "127.0.0.1:1883".into())]))
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"mqtt\":\"127.0.0.1:1883\"}\n"
        );
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/ready.json");
        let file = ReadyFile::new(Some(&path)).unwrap();
        let text = file.write(&BTreeMap::new()).unwrap_err().to_string();
        assert!(
            text.contains("--ready-file") && text.contains("missing/ready.json"),
            "{text}"
        );
        ReadyFile::new(None).unwrap().write(&BTreeMap::new()).unwrap();
    }
}
