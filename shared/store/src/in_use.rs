//! Tells an open whether the last one ended as it should, as long as the system runs.
//!
//! After a sync that failed, the system shows what was written as if it were on disk, and a later sync of it succeeds without writing
//! anything. A store halts then; but what the next open reads back may be in memory only, and must be written anew before anything is
//! built on it. The file `in-use` is there from an open to its close, never synced: a restart of the system takes that memory with it,
//! and then what is read is on disk.

use std::fs;
use std::path::PathBuf;

use crate::directory::Directory;
use crate::error::OpenError;

const NAME: &str = "in-use";
/// Changes with each start of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The mark of an open store.
#[derive(Debug)]
pub(crate) struct InUse(PathBuf);

impl InUse {
    /// True when the store was open and not closed since the system started, or when that cannot be told.
    pub(crate) fn found(dir: &Directory) -> bool {
        match (fs::read(dir.path(NAME)), fs::read(BOOT_ID)) {
            (Ok(then), Ok(now)) => then == now || then.is_empty(),
            (Ok(_), Err(_)) => true,
            (Err(error), _) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    /// Sets the mark.
    pub(crate) fn begin(dir: &Directory) -> Result<(), OpenError> {
        let path = dir.path(NAME);
        let boot = fs::read(BOOT_ID).unwrap_or_default();
        fs::write(&path, boot).map_err(|source| dir.io(&path, source))
    }

    /// The mark of a store that is open.
    pub(crate) fn of(dir: &Directory) -> Self {
        Self(dir.path(NAME))
    }

    /// Everything that was committed is synced, and nothing has failed.
    pub(crate) fn end(&self) {
        if let Err(error) = fs::remove_file(&self.0) {
            // The next open takes a little longer.
            tracing::warn!(%error, "the mark of an open store could not be removed");
        }
    }
}
