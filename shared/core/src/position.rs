//! Positions: where a record stands, on the edge, in the cloud and within a node.
//!
//! Each is a newtype, so that no bare integer crosses a module.
//! `seq` never restarts within a lane and run; `epoch` tells which incarnation of the edge minted it.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The following value. Panics on overflow, which no store lives long enough to reach.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("a position never overflows"))
            }

            /// The value `n` steps further. Panics on overflow.
            #[must_use]
            pub fn plus(self, n: $inner) -> Self {
                Self(self.0.checked_add(n).expect("a position never overflows"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Counts the incarnations of an edge's store; rises at each open.
    Epoch(u32)
);
number!(
    /// Position within one lane and run on the edge, or a source's numbering in general. First record: 1.
    Seq(u64)
);
number!(
    /// One sequence space within a lane. Run 0 is the normal one; a second carries backfill.
    Run(u16)
);
number!(
    /// Number of one atomic, synced write of a node's store. Rises, never reused. First commit: 1.
    CommitNumber(u64)
);
number!(
    /// One ordered flow in a node's store: a lane and run on the edge, a partition in the cloud.
    TrackId(u32)
);
number!(
    /// One partition of a stream.
    PartitionId(u32)
);
number!(
    /// Position within one partition of the cloud log. First record: 0.
    Offset(u64)
);

/// Position of a record within a lane and run, compared by epoch first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Incarnation that minted the record.
    pub epoch: Epoch,
    /// Sequence number; rises across epochs.
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq)
    }
}

/// Place of a record in the one order of a node: commit number first, then its index within the commit.
///
/// Within a commit, records are counted over its tracks in rising [`TrackId`], and in sequence order within a track.
/// The head of an MQTT session is a `LogPosition`: the first record that it has not yet been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// Commit that holds the record.
    pub commit: CommitNumber,
    /// Index of the record within the commit, from 0.
    pub index: u32,
}

impl LogPosition {
    /// First record of the commit `commit`.
    #[must_use]
    pub fn start_of(commit: CommitNumber) -> Self {
        Self { commit, index: 0 }
    }

    /// First record after the commit `commit`.
    #[must_use]
    pub fn after(commit: CommitNumber) -> Self {
        Self::start_of(commit.next())
    }

    /// The position `n` records later in the same commit.
    #[must_use]
    pub fn plus(self, n: u32) -> Self {
        Self {
            commit: self.commit,
            index: self
                .index
                .checked_add(n)
                .expect("a commit holds fewer than 2^32 records"),
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.commit, self.index)
    }
}
