//! A disk that fails without a cut: errors of the device, a full disk, one that may only be read, one that is slow.
//!
//! In: switches of a test. Out: for each operation, whether it fails and with what. Pure: the operations are told to it, in their order.

use std::time::Duration;

use super::pending::FsError;

/// Kind of an operation, as faults and cuts tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpKind {
    /// Looks only: lookup, attributes, names.
    Look,
    /// Reads bytes.
    Read,
    /// Writes bytes or sets a length.
    Write,
    /// Changes names.
    Name,
    /// Syncs a file.
    Sync,
    /// Syncs a directory.
    SyncDir,
}

impl OpKind {
    /// True for what changes the file system or makes changes durable.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Look | Self::Read)
    }
}

/// EIO for operations of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which operations.
    pub kind: OpKind,
    /// Only on files whose name ends like this.
    pub suffix: String,
    /// How many of them still succeed.
    pub after: u64,
    /// How many then fail; `u64::MAX` for all.
    pub times: u64,
}

impl Fault {
    /// From the next one on, all operations of `kind` fail.
    #[must_use]
    pub fn all(kind: OpKind) -> Self {
        Self {
            kind,
            suffix: String::new(),
            after: 0,
            times: u64::MAX,
        }
    }
}

/// All switches.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    fault: Option<Fault>,
    read_only: bool,
    slow_sync: Duration,
    hits: u64,
}

impl Faults {
    /// Operations that match fail from now on.
    pub fn fail(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Whatever changes something fails with "read-only file system".
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    /// Each sync takes at least this long.
    pub fn set_slow_sync(&mut self, slow_sync: Duration) {
        self.slow_sync = slow_sync;
    }

    /// How long a sync takes.
    #[must_use]
    pub fn slow_sync(&self) -> Duration {
        self.slow_sync
    }

    /// Everything works again. The count of hits stays.
    pub fn mend(&mut self) {
        let hits = self.hits;
        *self = Self {
            hits,
            ..Self::default()
        };
    }

    /// Operations that were made to fail.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// An operation failed for want of room.
    pub(super) fn hit(&mut self) {
        self.hits += 1;
    }

    /// What an operation of `kind` on `title` fails with, if it does. Called once per operation.
    pub fn check(&mut self, kind: OpKind, title: &str) -> Option<FsError> {
        let error = self.decide(kind, title);
        self.hits += u64::from(error.is_some());
        error
    }

    fn decide(&mut self, kind: OpKind, title: &str) -> Option<FsError> {
        // A sync has nothing to write there, and succeeds.
        if self.read_only && matches!(kind, OpKind::Write | OpKind::Name) {
            return Some(FsError::ReadOnly);
        }
        let fault = self.fault.as_mut()?;
        if fault.kind != kind || !title.ends_with(&fault.suffix) {
            return None;
        }
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times = fault.times.checked_sub(1)?;
        Some(FsError::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Faults, FsError, OpKind};

    #[test]
    fn the_chosen_operations_fail_and_no_others() {
        let mut faults = Faults::default();
        faults.fail(Fault {
            kind: OpKind::Sync,
            suffix: ".jnl".into(),
            after: 1,
            times: 2,
        });
        let mut seen = Vec::new();
        for (kind, title) in [
            (OpKind::Sync, "a.jnl"),
            (OpKind::Write, "a.jnl"),
            (OpKind::Sync, "table"),
            (OpKind::Sync, "a.jnl"),
            (OpKind::Sync, "b.jnl"),
            (OpKind::Sync, "b.jnl"),
        ] {
            seen.push(faults.check(kind, title).is_some());
        }
        assert_eq!(seen, [false, false, false, true, true, false]);
        faults.set_read_only(true);
        assert_eq!(faults.check(OpKind::Write, "x"), Some(FsError::ReadOnly));
        assert_eq!(faults.check(OpKind::Read, "x"), None);
        faults.mend();
        assert_eq!((faults.check(OpKind::Name, "x"), faults.hits()), (None, 3));
    }
}
