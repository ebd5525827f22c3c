//! The place of one test: a directory of its own, and one of the few slots in which tests with processes may run.
//!
//! Out: paths below a temporary directory, removed at the end unless `FELLBECK_KEEP` is set. The slots keep a 2-core machine from running
//! every node of every test at once, whatever number of test threads was asked for.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use tempfile::TempDir;

/// Tests with processes that run at once on a small machine.
const SLOTS_MIN: usize = 2;
/// The same on a large one.
const SLOTS_MAX: usize = 8;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// Directory and slot of one test.
#[derive(Debug)]
pub struct Site {
    dir: Option<TempDir>,
}

impl Site {
    /// Waits for a slot and makes the directory.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let slots = thread::available_parallelism().map_or(SLOTS_MIN, |n| n.get().clamp(SLOTS_MIN, SLOTS_MAX));
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= slots {
            taken = GIVEN_BACK.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        let dir = tempfile::Builder::new()
            .prefix("fellbeck-")
            .tempdir()
            .expect("a temporary directory can be made");
        Self { dir: Some(dir) }
    }

    /// A path below the directory; nothing is made there.
    ///
    /// # Panics
    /// Never before the site is dropped.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn root(&self) -> &Path {
        self.dir
            .as_ref()
            .expect("the directory lives as long as the site")
            .path()
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::env::var_os("FELLBECK_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
