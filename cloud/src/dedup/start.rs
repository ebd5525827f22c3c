//! Where a store begins that goes on under a new instance but not behind the marks of the last one: a clone or a restored backup that
//! was adopted or has joined again.
//!
//! In: the Hello, the marks and the chain of the last instance, what is known of losses. Out: marks. What the store knows to be
//! acknowledged by this log is not sent again. What it minted before it and the other store parted, and the log has, is sent and
//! dropped. The rest is new. Where a loss was declared above, the log does not have all of it, and nothing is dropped.

use std::collections::HashMap;

use bytes::Bytes;
use fellbeck_core::{Incarnation, Position, Run, Seq, TrackId};
use fellbeck_link::admission::NO_EPOCH;
use fellbeck_link::{Hello, LaneHello, LaneMark};
use fellbeck_store::{Put, Space};

use super::mark::{LaneKey, partition_key, position_value, watermark_key};

/// Marks of one lane at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStart {
    /// Its name.
    pub lane: String,
    /// Its run.
    pub run: Run,
    /// W: the edge was told so by this log.
    pub w: Option<Position>,
    /// What lies at or below it is in the log, in whatever partition.
    pub held: Option<Position>,
}

/// What the log says of one lane of a name.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LanePast {
    /// The highest W of the lane under any instance.
    pub(crate) highest: Option<Seq>,
    /// W under the last instance.
    pub(crate) last: Option<Position>,
    /// A loss above the edge's own W was declared, or may have been.
    pub(crate) lossy: bool,
}

/// The newest incarnation that both chains have: what was minted up to it is the same in both stores.
pub(crate) fn parting(known: &[Incarnation], shown: &[Incarnation]) -> Option<Incarnation> {
    let is_known = |of: &&Incarnation| known.iter().any(|known| known.id == of.id);
    shown.iter().rev().find(is_known).copied()
}

/// Where `lane` begins. `same_log`: the edge spoke to this log last.
pub(crate) fn lane_start(lane: &LaneHello, same_log: bool, past: LanePast, parting: Option<Incarnation>) -> LaneStart {
    // A log that knows less was restored itself: it is sent again what it has lost.
    let acked = lane.acked.filter(|_| same_log).min(past.highest);
    let w = acked.map(|seq| Position { epoch: NO_EPOCH, seq });
    let held = past.last.zip(parting).map(|(last, parting)| Position {
        epoch: last.epoch.min(parting.epoch),
        seq: last.seq,
    });
    LaneStart {
        lane: lane.lane.clone(),
        run: lane.run,
        w,
        held: held.filter(|held| held.epoch != NO_EPOCH && !past.lossy),
    }
}

/// Where the lanes of `hello` begin.
pub(crate) fn starts(
    hello: &Hello,
    same_log: bool,
    past: impl Fn(&LaneHello) -> LanePast,
    parting: Option<Incarnation>,
) -> Vec<LaneStart> {
    let start = |lane: &LaneHello| lane_start(lane, same_log, past(lane), parting);
    hello.lanes.iter().map(start).collect()
}

impl LaneStart {
    /// W for admission.
    pub(crate) fn mark(&self) -> Option<LaneMark> {
        self.w.map(|w| LaneMark {
            lane: self.lane.clone(),
            run: self.run,
            w,
        })
    }

    /// Entries for the store.
    pub(crate) fn puts(&self, edge: &str, instance: u32, tracks: &HashMap<TrackId, String>) -> Vec<Put> {
        let key = LaneKey {
            edge: edge.to_owned(),
            instance,
            lane: self.lane.clone(),
            run: self.run,
        };
        let put = |key: Bytes, position| Put {
            space: Space::Mark,
            key,
            value: position_value(position),
        };
        let w = self.w.map(|w| put(watermark_key(&key), w));
        let held = self.held.into_iter();
        let held = held.flat_map(|held| tracks.values().map(move |track| (track, held)));
        let held = held.map(|(track, held)| put(partition_key(&key, track), held));
        w.into_iter().chain(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::Epoch;

    use super::*;

    fn incarnation(epoch: u32, id: u8) -> Incarnation {
        Incarnation {
            epoch: Epoch(epoch),
            id: [id; 16],
            parent: [0; 16],
        }
    }

    fn at(epoch: u32, seq: u64) -> Position {
        Position {
            epoch: Epoch(epoch),
            seq: Seq(seq),
        }
    }

    fn lane(acked: Option<u64>) -> LaneHello {
        LaneHello {
            lane: "default".into(),
            run: Run(0),
            epoch: Epoch(9),
            first: Seq(1),
            end: Seq(1000),
            acked: acked.map(Seq),
        }
    }

    fn past(highest: u64, last: Position) -> LanePast {
        LanePast {
            highest: Some(Seq(highest)),
            last: Some(last),
            lossy: false,
        }
    }

    #[test]
    fn the_stores_part_at_the_newest_incarnation_that_both_have() {
        let known = [
            incarnation(1, 1),
            incarnation(2, 2),
            incarnation(3, 33),
            incarnation(4, 44),
        ];
        let shown = [incarnation(1, 1), incarnation(2, 2), incarnation(3, 3)];
        assert_eq!(parting(&known, &shown), Some(incarnation(2, 2)));
        assert_eq!(parting(&known[2..], &shown), None, "an equal epoch is no common past");
        assert_eq!(parting(&[], &shown), None);
    }

    #[test]
    fn a_lane_begins_behind_what_the_edge_was_told_is_stored() {
        let begin = |lane: &LaneHello, same_log, past| lane_start(lane, same_log, past, None).w;
        let know = past(300, at(4, 300));
        assert_eq!(begin(&lane(Some(50)), true, know), Some(at(0, 50)));
        assert_eq!(begin(&lane(Some(50)), false, know), None, "another log told it so");
        assert_eq!(begin(&lane(None), true, know), None);
        let restored = past(20, at(1, 20));
        assert_eq!(begin(&lane(Some(50)), true, restored), Some(at(0, 20)));
        assert_eq!(
            begin(&lane(Some(50)), true, LanePast::default()),
            None,
            "the log has forgotten all of it"
        );
    }

    /// Records of the clone's own epochs share their numbers with the original's: they must not be taken for known.
    #[test]
    fn only_what_both_stores_minted_is_known() {
        let held = |last, parting| lane_start(&lane(Some(50)), true, past(300, last), parting).held;
        let parted = Some(incarnation(2, 2));
        let known = held(at(4, 300), parted).unwrap();
        assert!(at(2, 80) <= known && at(1, 70) <= known);
        assert!(at(3, 81) > known, "minted after the stores parted");
        let early = held(at(2, 60), parted).unwrap();
        assert!(at(2, 60) <= early && at(2, 61) > early, "the log has not got so far");
        assert_eq!(held(at(4, 300), None), None);
        assert_eq!(held(at(0, 300), parted), None);
        let lossy = LanePast {
            lossy: true,
            ..past(300, at(4, 300))
        };
        assert_eq!(lane_start(&lane(Some(50)), true, lossy, parted).held, None);
    }
}
