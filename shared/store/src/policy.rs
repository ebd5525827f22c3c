//! What becomes of the records of a track when space runs out, and whether a new one is taken.
//!
//! Pure. In: the policy of a track, how full store and track are. Out: [`Admission`]. The writer carries out what a policy gives up; who
//! publishes asks for the admission before anything is acknowledged (P2).

use std::time::Duration;

use crate::stats::Level;

/// What gives way when space runs out (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// What is new is held back, or refused where the protocol can say so.
    #[default]
    Reject,
    /// What is new is turned away; nobody is held back.
    DropNew,
    /// The oldest segments go, declared as a gap.
    DropOldest,
    /// While space is short, only the newest record of each topic is kept; the others are declared as a gap.
    KeepLatest,
    /// While space is short, one record per topic and interval is kept; the others are declared as a gap.
    Thin {
        /// Least time between two records of a topic.
        interval: Duration,
    },
}

/// How a track is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackPolicy {
    /// What gives way.
    pub overflow: Overflow,
    /// Tracks of a lower priority give way first, and leave the last 15 % of the quota to the others.
    pub priority: u8,
    /// Bytes that the segments of this track may take; `None`: only the quota of the store bounds them.
    pub quota_bytes: Option<u64>,
    /// Bytes of records that are kept in memory and never written; `None`: they are written. Such a track takes `Reject`, `DropNew` or
    /// `DropOldest`, and has no quota.
    pub memory_bytes: Option<u64>,
}

/// Whether a new record is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Admission {
    /// It is.
    #[default]
    Take = 0,
    /// Not now: its sender is held back or told to come again.
    HoldBack = 1,
    /// Not at all.
    TurnAway = 2,
}

impl Admission {
    pub(crate) fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Take,
            1 => Self::HoldBack,
            _ => Self::TurnAway,
        }
    }
}

impl TrackPolicy {
    /// `store`, `track`: how full they are. `lowest`: least priority of all tracks that have a policy.
    pub(crate) fn admission(&self, store: Level, track: Level, lowest: u8) -> Admission {
        let store = if self.memory_bytes.is_some() {
            Level::Normal
        } else {
            store
        };
        let is_short = match self.overflow {
            // They make room for themselves, while there is something to give up.
            Overflow::DropOldest | Overflow::KeepLatest | Overflow::Thin { .. } => store.max(track) == Level::Full,
            Overflow::Reject | Overflow::DropNew => {
                let reserved = if self.priority > lowest {
                    Level::Full
                } else {
                    Level::High
                };
                store >= reserved || track >= Level::High
            }
        };
        match self.overflow {
            _ if !is_short => Admission::Take,
            Overflow::DropNew => Admission::TurnAway,
            _ => Admission::HoldBack,
        }
    }

    /// Whether records are set aside by topic while space is short.
    pub(crate) fn is_sparing(&self) -> bool {
        matches!(self.overflow, Overflow::KeepLatest | Overflow::Thin { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admissions(overflow: Overflow, priority: u8) -> Vec<Admission> {
        let policy = TrackPolicy {
            overflow,
            priority,
            ..TrackPolicy::default()
        };
        [Level::Normal, Level::High, Level::Full]
            .map(|level| policy.admission(level, Level::Normal, 1))
            .into()
    }

    #[test]
    fn the_least_valuable_is_held_back_first_and_nothing_is_taken_without_room() {
        use Admission::{HoldBack, Take, TurnAway};
        assert_eq!(admissions(Overflow::Reject, 1), [Take, HoldBack, HoldBack]);
        assert_eq!(admissions(Overflow::Reject, 2), [Take, Take, HoldBack]);
        assert_eq!(admissions(Overflow::DropNew, 1), [Take, TurnAway, TurnAway]);
        for overflow in [
            Overflow::DropOldest,
            Overflow::KeepLatest,
            Overflow::Thin {
                interval: Duration::from_secs(1),
            },
        ] {
            assert_eq!(admissions(overflow, 1), [Take, Take, HoldBack]);
        }
    }

    #[test]
    fn a_track_that_has_used_up_its_own_quota_is_held_back_whatever_its_priority() {
        let policy = TrackPolicy {
            priority: 9,
            ..TrackPolicy::default()
        };
        assert_eq!(policy.admission(Level::Normal, Level::High, 0), Admission::HoldBack);
    }
}
