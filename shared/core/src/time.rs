//! Two kinds of time, both given as arguments: [`Tick`] for deadlines, [`WallTime`] for stamps.

use std::time::Duration;

/// Monotonic time since the node started. Only for deadlines; never stored or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(pub Duration);

impl Tick {
    /// This instant plus `d`, saturating.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self(self.0.saturating_add(d))
    }

    /// Time from `earlier` to this instant; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds since the Unix epoch by a node's own clock, which may jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);

/// What the node knew of its own clock when it stamped a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ClockQuality {
    /// Not known: nothing expires by this stamp.
    #[default]
    Unknown = 0,
    /// The system says that its clock follows a time source.
    Synced = 1,
    /// The system says that its clock runs free.
    Unsynced = 2,
}

impl ClockQuality {
    /// The quality with the wire number `n`.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Unknown),
            1 => Some(Self::Synced),
            2 => Some(Self::Unsynced),
            _ => None,
        }
    }
}
