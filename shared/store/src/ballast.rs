//! A file that takes up space to be given up: with 0 bytes free, the store still opens.
//!
//! An open writes small files, a journal and perhaps a memory table before it can delete or send anything. Where the file system has less
//! free than the ballast takes, an open deletes the ballast first. It comes back, by the janitor, when there is room.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::directory::Directory;

const NAME: &str = "ballast";
const MIB: u64 = 1024 * 1024;
/// Room for the small files, two slots of a journal that begins, and one memory table of each keyed store.
const BYTES: u64 = 8 * MIB;
/// A small quota has a small ballast.
const QUOTA_SHARE: u64 = 4;

/// The ballast of one store directory.
#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    /// The file system does not know how to set space aside.
    is_refused: bool,
}

impl Ballast {
    pub(crate) fn of(dir: &Directory, quota_bytes: Option<u64>) -> Self {
        Self {
            path: dir.path(NAME),
            is_refused: false,
            bytes: quota_bytes.map_or(BYTES, |quota| BYTES.min(quota / QUOTA_SHARE)),
        }
    }

    /// Deletes it where an open may need the space.
    pub(crate) fn drop_if_needed(&self) {
        let Some(free) = self.free() else { return };
        if free < self.bytes && fs::remove_file(&self.path).is_ok() {
            tracing::warn!(free, "the file system is full: the ballast is given up");
        }
    }

    /// Makes it where it is missing and the file system, with `free` bytes, has plenty. That it cannot be made is no error; it is
    /// not tried again before the next open.
    pub(crate) fn put_back(&mut self, free: u64) {
        if self.is_refused || free < 2 * self.bytes || self.path.exists() {
            return;
        }
        let made = File::create(&self.path).and_then(|file| {
            let whole = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes);
            whole.map_err(std::io::Error::from)
        });
        if let Err(error) = made {
            tracing::debug!(%error, "no ballast");
            self.is_refused = true;
            drop(fs::remove_file(&self.path));
        }
    }

    fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}
