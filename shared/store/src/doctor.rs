//! Heals the journals of a database before it is opened.
//!
//! fjall silently drops whatever follows damage in a journal, or refuses to open for ever. So each journal is walked first: a
//! torn end is cut off (its commit was never acknowledged), a damaged stretch in the middle is cut out, and the valid batches
//! behind it are kept. What was cut out is reported: its commits are lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::journal::{self, Walk};

/// What was found in all journals.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) torn_bytes: u64,
    pub(crate) damaged_stretches: u64,
    pub(crate) damaged_bytes: u64,
}

/// Walks and heals the journals in `dir`, which need not exist.
pub(crate) fn heal(dir: &Path) -> std::io::Result<Findings> {
    let mut findings = Findings::default();
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
        if stretches > 0 {
            tracing::error!(journal = %path.display(), stretches, bytes, "journal is damaged in the middle: cut out");
            cut_out(path, &walk)?;
        } else if walk.torn() > 0 {
            tracing::warn!(journal = %path.display(), bytes = walk.torn(), "journal has a torn end: cut off");
            cut_off(path, &walk)?;
        }
    }
    Ok(findings)
}

/// Removes a database whose creation was cut short: its version file is written last.
pub(crate) fn clear_unfinished(dir: &Path) -> std::io::Result<()> {
    if !dir.try_exists()? || dir.join("version").try_exists()? {
        return Ok(());
    }
    tracing::warn!(dir = %dir.display(), "a database that was never finished is removed");
    fs::remove_dir_all(dir)
}

/// The journals in `dir`, oldest first.
fn journals(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
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

fn cut_out(path: &Path, walk: &Walk) -> std::io::Result<()> {
    let healed = path.with_extension("healed");
    journal::copy_valid(path, walk, &healed)?;
    fs::rename(&healed, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
