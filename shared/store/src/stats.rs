//! How full the store is, and what it has done: for admission, metrics and status pages.

use fellbeck_core::Seq;

/// How much of the quota is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Bytes of segments and keyed values.
    pub used: u64,
    /// Bytes that they may take; `u64::MAX` when there is no quota.
    pub quota: u64,
    /// What to do about it.
    pub level: Level,
}

/// Level of pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Level {
    /// Accept everything.
    #[default]
    Normal = 0,
    /// At 85 % or above: slow publishers down, shed QoS 0 first.
    High = 1,
    /// Used up, or the disk is nearly full: accept nothing that is not yet acknowledged.
    Full = 2,
}

impl Level {
    pub(crate) fn of(used: u64, quota: u64) -> Self {
        if used >= quota {
            Self::Full
        } else if used >= quota / 100 * 85 {
            Self::High
        } else {
            Self::Normal
        }
    }

    pub(crate) fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Normal,
            1 => Self::High,
            _ => Self::Full,
        }
    }
}

/// Counts of one open store.
#[derive(Debug, Clone, Default)]
pub struct StoreStats {
    /// Bytes of records held in segments.
    pub segment_bytes: u64,
    /// Segments held.
    pub segments: usize,
    /// Bytes of all files of the database, journals included (these are sparse files of up to 64 MiB).
    pub disk_bytes: u64,
    /// Commits since open.
    pub commits: u64,
    /// Records appended since open.
    pub records: u64,
    /// Bytes handed to the journal since open: keys, values and their framing, before the engine's own compression.
    pub journal_bytes: u64,
    /// Bytes of records written a second time, into table files, since open.
    pub table_bytes: u64,
    /// Bytes of records accepted since open, as their publishers' messages weigh in the log before compression.
    pub accepted_bytes: u64,
    /// Per track, in the order of track numbers.
    pub tracks: Vec<TrackStats>,
}

/// Counts of one track.
#[derive(Debug, Clone, Default)]
pub struct TrackStats {
    /// Name of the track.
    pub name: String,
    /// Records appended over the life of the store: the last sequence number.
    pub appended: u64,
    /// Records above the acknowledged position.
    pub queued: u64,
    /// Records held, acknowledged ones included.
    pub held: u64,
    /// Last acknowledged sequence number.
    pub acked: Seq,
    /// Records inside declared gaps that are still held as such.
    pub gap: u64,
    /// Records set aside by topic while space is short: stored, and given their numbers later.
    pub aside: u64,
    /// Records given up by policy whose gap is declared later.
    pub owed: u64,
}
