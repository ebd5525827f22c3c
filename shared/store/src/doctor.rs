//! Heals the journals of a database before it is opened.
//!
//! fjall silently drops whatever follows damage in a journal, or refuses to open for ever. So each journal is walked first: a
//! torn end is cut off (its commit was never acknowledged), a damaged stretch in the middle is cut out, and the valid batches
//! behind it are kept. What was cut out is reported: its commits are lost.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::journal::{self, Walk};
use crate::manifest;

/// What was found in all journals.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) torn_bytes: u64,
    pub(crate) damaged_stretches: u64,
    pub(crate) damaged_bytes: u64,
}

/// Walks and heals the journals in `dir`, which need not exist. With `distrust`, what can be read of the newest one may be in the
/// memory of the system only: it is written anew, so that what is built on it stands.
pub(crate) fn heal(dir: &Path, distrust: bool) -> std::io::Result<Findings> {
    let mut findings = Findings::default();
    remove_unfinished_copies(dir)?;
    let journals = journals(dir)?;
    for (at, path) in journals.iter().enumerate() {
        let walk = journal::walk(path)?;
        let (mut stretches, mut bytes) = walk.damage();
        // Only the newest journal can end with a commit that was never acknowledged: the others were synced before the next
        // one was begun.
        if at + 1 < journals.len() && walk.torn() > 0 {
            stretches += 1;
            bytes += walk.torn();
        } else {
            findings.torn_bytes += walk.torn();
        }
        findings.damaged_stretches += stretches;
        findings.damaged_bytes += bytes;
        let newest = at + 1 == journals.len();
        if distrust && newest && stretches == 0 && !walk.valid.is_empty() {
            write_anew(path, &walk)?;
        } else if stretches > 0 {
            tracing::error!(journal = %path.display(), stretches, bytes, "journal is damaged in the middle: cut out");
            cut_out(path, &walk)?;
        } else if walk.torn() > 0 {
            tracing::warn!(journal = %path.display(), bytes = walk.torn(), "journal has a torn end: cut off");
            cut_off(path, &walk)?;
        }
    }
    Ok(findings)
}

/// Removes a database whose creation was cut short: no commit is in its journals, and its version file, of four bytes, is not there, which
/// is written and synced last, or no byte was written to a journal and no folder but the list has a table: then nothing is in it.
pub(crate) fn clear_unfinished(dir: &Path) -> std::io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    let finished = match fs::read(dir.join("version")) {
        Ok(version) => version.starts_with(b"FJL"),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if (finished && (manifest::has_tables(dir)? || is_written(dir)?)) || has_commits(dir)? {
        return Ok(());
    }
    tracing::warn!(dir = %dir.display(), "a database that was never finished is removed");
    fs::remove_dir_all(dir)
}

fn is_written(dir: &Path) -> std::io::Result<bool> {
    for path in journals(dir)? {
        if journal::walk(&path)?.written > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_commits(dir: &Path) -> std::io::Result<bool> {
    for path in journals(dir)? {
        if !journal::walk(&path)?.valid.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The journals in `dir`, oldest first.
pub(crate) fn journals(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !dir.try_exists()? {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            paths.push((number, path));
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

fn cut_off(path: &Path, walk: &Walk) -> std::io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(walk.written - walk.torn())?;
    file.sync_all()
}

/// Copies what is valid. On a full disk, only the last batch is written again, in its place: each batch is synced before the next begins,
/// so no other can be missing on disk. That is the second choice, since a power cut in that moment could tear it.
fn write_anew(path: &Path, walk: &Walk) -> std::io::Result<()> {
    match cut_out(path, walk) {
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            remove_if_there(&healed(path))?;
            journal::write_last_again(path, walk)?;
            match walk.torn() {
                0 => Ok(()),
                _ => cut_off(path, walk),
            }
        }
        outcome => outcome,
    }
}

/// Copies of journals that a power cut left behind; each may be as large as its journal.
fn remove_unfinished_copies(dir: &Path) -> std::io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == HEALED) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

const HEALED: &str = "healed";

fn healed(path: &Path) -> PathBuf {
    path.with_extension(HEALED)
}

fn cut_out(path: &Path, walk: &Walk) -> std::io::Result<()> {
    let healed = healed(path);
    journal::copy_valid(path, walk, &healed)?;
    fs::rename(&healed, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unclean end may leave a copy of the journal, and nothing ever removed them.
    #[test]
    fn copies_that_a_power_cut_left_behind_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("3.healed"), [0; 100]).unwrap();
        fs::write(dir.path().join("other"), "kept").unwrap();
        heal(dir.path(), false).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["other"]);
    }
}
