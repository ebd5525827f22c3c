//! Small files that must be whole or absent: written beside their place, synced, then renamed.
//!
//! In: path, bytes, permission bits. Out: a durable file, or the error of the system with the old file untouched.
//! Files and directories made by root inside the directory of another user are given to that user, so that
//! `sudo fellbeck-cloud token create` does not lock the running node out.
//! Not for the store, which has its own files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only the owner (0600): keys, tokens.
    Private,
    /// Everyone (0644): certificates, addresses.
    Public,
}

impl Access {
    fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Writes `bytes` to `path`, replacing what is there. After a crash the file is the old one or the new one.
pub fn write_atomic(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    let scratch = write_scratch(path, bytes, access)?;
    let moved = fs::rename(&scratch, path).and_then(|()| sync_dir(parent(path)));
    remove_after_failure(&scratch, moved)
}

/// Writes `bytes` to `path` unless something is there already; tells whether it was written.
pub fn create_atomic(path: &Path, bytes: &[u8], access: Access) -> io::Result<bool> {
    let scratch = write_scratch(path, bytes, access)?;
    // A hard link, unlike a rename, never replaces: of two processes one wins and the other sees that it lost.
    let linked = match fs::hard_link(&scratch, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    };
    fs::remove_file(&scratch)?;
    let written = linked?;
    sync_dir(parent(path))?;
    Ok(written)
}

/// Makes the directory `path` (0700) and those above it that are missing.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        create_private_dir(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            follow_owner(path)?;
            sync_dir(parent(path))
        }
        // Made by somebody else in between.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Reads the file `path`, unless it is larger than `bytes_max`.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Takes a private file back from group and others, should its mode have been loosened; warns where it cannot.
pub fn keep_private(path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    let loose = format!("{:o}", meta.mode() & 0o777);
    if meta.mode() & 0o077 == 0 {
        return;
    }
    match fs::set_permissions(path, fs::Permissions::from_mode(Access::Private.mode())) {
        Ok(()) => tracing::warn!(file = %path.display(), mode = loose, "others could read this file: set to 600"),
        // A key on a read-only mount, for instance: its owner has decided, and the node must still start.
        Err(e) => {
            tracing::warn!(file = %path.display(), mode = loose, error = %e, "others can read this file: chmod 600");
        }
    }
}

/// Makes renames and removals in the directory `path` durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_scratch(path: &Path, bytes: &[u8], access: Access) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let scratch = parent(path).join(format!(".{}.{}-{n}.tmp", name.to_string_lossy(), std::process::id()));
    // Left by a process of the same number that was killed in between; nobody else writes it.
    match fs::remove_file(&scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(&scratch)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| follow_owner(&scratch));
    remove_after_failure(&scratch, written)?;
    Ok(scratch)
}

/// Passes `result` on; if it is an error, takes the scratch file away first.
fn remove_after_failure<T>(scratch: &Path, result: io::Result<T>) -> io::Result<T> {
    if result.is_err()
        && let Err(e) = fs::remove_file(scratch)
    {
        tracing::debug!(file = %scratch.display(), error = %e, "a scratch file could not be removed");
    }
    result
}

/// Gives `path` to the owner of its directory, where they differ (which only happens to root).
fn follow_owner(path: &Path) -> io::Result<()> {
    let directory = fs::metadata(parent(path))?;
    let own = fs::metadata(path)?;
    if own.uid() == 0 && directory.uid() != 0 {
        std::os::unix::fs::chown(path, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_replaced_whole_with_the_asked_mode_and_leave_no_scratch() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_private_dir(&inner).unwrap();
        assert_eq!((mode(&inner), mode(&dir.path().join("a"))), (0o700, 0o700));
        let path = inner.join("key");
        write_atomic(&path, b"one", Access::Private).unwrap();
        write_atomic(&path, b"two", Access::Private).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1);
    }

    #[test]
    fn create_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        assert!(create_atomic(&path, b"first", Access::Public).unwrap());
        assert!(!create_atomic(&path, b"second", Access::Public).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(mode(&path), 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_larger_than_allowed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, b"1234").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
