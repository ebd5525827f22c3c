//! A lane's number on one connection.

use std::fmt;

/// Place of a lane and run in the Hello of a connection, from 0. Means nothing on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIndex(pub u16);

impl LaneIndex {
    /// As an index into the lists of Hello and Welcome.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for LaneIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
