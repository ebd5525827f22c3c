//! The device books in a file, so that another process can check against them.
//!
//! In: a [`Ledger`]. Out: one JSON line per device, its fates as runs of equal values, and back.
//! `run --ledger FILE` writes it, `check --ledger FILE` reads it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;

/// Longest run of fates believed from a file.
const FATES_MAX: u64 = 50_000_000;

/// Why a ledger file could not be used. The ledger in memory is unchanged, or incomplete when reading stopped midway.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFileError {
    /// The file cannot be read or written.
    #[error("ledger file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what `run --ledger` writes.
    #[error("ledger file {path}, line {line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    device: String,
    /// (flags, how many sequences in a row have them); the first sequence is 1.
    fates: Vec<(u8, u64)>,
}

/// Writes the device books, replacing the file.
pub fn write(ledger: &Ledger, path: &Path) -> Result<(), LedgerFileError> {
    let mut text = String::new();
    for book in ledger.books() {
        let mut fates: Vec<(u8, u64)> = Vec::new();
        for fate in &book.fates {
            match fates.last_mut() {
                Some((last, count)) if last == fate => *count += 1,
                _ => fates.push((*fate, 1)),
            }
        }
        let line = Line {
            device: book.name.clone(),
            fates,
        };
        text.push_str(&serde_json::to_string(&line).expect("strings and numbers only"));
        text.push('\n');
    }
    fs::write(path, text).map_err(|source| LedgerFileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Adds the device books of a file.
pub fn read(ledger: &mut Ledger, path: &Path) -> Result<(), LedgerFileError> {
    let text = fs::read_to_string(path).map_err(|source| LedgerFileError::Io {
        path: path.to_owned(),
        source,
    })?;
    for (index, line) in text.lines().enumerate() {
        let bad = |what: String| LedgerFileError::Line {
            path: path.to_owned(),
            line: index + 1,
            what,
        };
        let line: Line = serde_json::from_str(line).map_err(|error| bad(error.to_string()))?;
        let total = line
            .fates
            .iter()
            .try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
        if total.is_none_or(|total| total > FATES_MAX) {
            return Err(bad(format!("more than {FATES_MAX} messages")));
        }
        let mut fates = Vec::new();
        for (fate, count) in line.fates {
            fates.resize(fates.len() + usize::try_from(count).expect("bounded above"), fate);
        }
        ledger.restore(&line.device, fates);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Resend;
    use crate::qos::Qos;

    #[test]
    fn another_process_judges_by_the_same_books() {
        let mut ledger = Ledger::default();
        let device = ledger.device("sim-1");
        for seq in 1..=1000 {
            ledger.handle_published(device, seq, Qos::AtLeastOnce);
            ledger.handle_acked(device, seq);
        }
        ledger.handle_resent(device, 500, Resend::Resumed);
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("ledger");
        write(&ledger, &path).expect("writable");
        let mut other = Ledger::default();
        read(&mut other, &path).expect("own file");
        assert_eq!(other.totals(), ledger.totals());
        assert_eq!(other.books()[0].fates, ledger.books()[0].fates);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("ledger");
        fs::write(&path, "{\"device\":\"a\",\"fates\":[[0,18446744073709551615],[0,1]]}\n").expect("writable");
        let error = read(&mut Ledger::default(), &path).expect_err("too long");
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
