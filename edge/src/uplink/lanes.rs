//! The lanes that the uplink sends: every lane of the store but the local one, also those that no rule names any more.
//!
//! In: the store's tracks. Out: their place on the link (by index), their bounds, and back.

use fellbeck_core::{Run, TrackId};
use fellbeck_link::{LaneBounds, LaneIndex, LaneSpec};
use fellbeck_store::Store;

use crate::rules::LOCAL_LANE;

/// Lanes in the order of their index on the link.
#[derive(Debug, Clone)]
pub(crate) struct Lanes(Vec<Lane>);

#[derive(Debug, Clone)]
struct Lane {
    name: String,
    run: Run,
    track: TrackId,
}

impl Lanes {
    /// All lanes and runs of the store that are forwarded.
    pub(crate) fn of(store: &Store) -> Self {
        let lanes = store.tracks().into_iter().filter_map(|(track, name)| {
            let (lane, run) = name.strip_prefix("lane/")?.rsplit_once('/')?;
            let run = Run(run.parse().ok()?);
            (lane != LOCAL_LANE).then(|| Lane {
                name: lane.to_owned(),
                run,
                track,
            })
        });
        Self(lanes.collect())
    }

    pub(crate) fn specs(&self) -> Vec<LaneSpec> {
        self.0
            .iter()
            .map(|lane| LaneSpec {
                name: lane.name.clone(),
                run: lane.run,
            })
            .collect()
    }

    pub(crate) fn track(&self, lane: LaneIndex) -> TrackId {
        self.0[lane.as_usize()].track
    }

    /// Name of its track in the store.
    pub(crate) fn track_name(&self, lane: LaneIndex) -> String {
        let lane = &self.0[lane.as_usize()];
        format!("lane/{}/{}", lane.name, lane.run.0)
    }

    /// The lane whose records go to `track`.
    pub(crate) fn find(&self, track: TrackId) -> Option<LaneIndex> {
        let at = self.0.iter().position(|lane| lane.track == track)?;
        Some(LaneIndex(at as u16))
    }

    pub(crate) fn name(&self, lane: LaneIndex) -> &str {
        &self.0[lane.as_usize()].name
    }

    /// Index and bounds of each lane now.
    pub(crate) fn bounds<'a>(&'a self, store: &'a Store) -> impl Iterator<Item = (LaneIndex, LaneBounds)> + 'a {
        self.0.iter().enumerate().map(|(index, lane)| {
            let held = store.bounds(lane.track);
            let acked = (held.acked.0 > 0).then_some(held.acked);
            (
                LaneIndex(index as u16),
                LaneBounds {
                    epoch: held.epoch,
                    first: held.first,
                    end: held.end,
                    acked,
                },
            )
        })
    }
}
