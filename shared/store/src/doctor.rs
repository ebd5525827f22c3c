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
    for path in journals(dir)? {
        let walk = journal::walk(&path)?;
        let (stretches, bytes) = walk.damage();
        findings.torn_bytes += walk.torn();
        findings.damaged_stretches += stretches;
        findings.damaged_bytes += bytes;
        if stretches > 0 {
            tracing::error!(journal = %path.display(), stretches, bytes, "journal is damaged in the middle: cut out");
            cut_out(&path, &walk)?;
        } else if walk.torn() > 0 {
            tracing::warn!(journal = %path.display(), bytes = walk.torn(), "journal has a torn end: cut off");
            cut_off(&path, &walk)?;
        }
    }
    Ok(findings)
}

fn journals(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !dir.try_exists()? {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            paths.push(path);
        }
    }
    Ok(paths)
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
