//! All that the books know of one edge: its lanes, its last heartbeat, and what its link is worth.
//!
//! In: entries of the store at start, links that come and go, commits that have become durable, time. Out: books and a status. Heartbeats
//! are expected from the first one of a link on, at twice the interval that it tells: an edge may have them off.

use std::collections::BTreeMap;
use std::time::Duration;

use fellbeck_core::{Run, Tick};
use fellbeck_link::health::{Flow, HealthMonitor, LinkHealth};
use fellbeck_link::{Hello, LaneHello};
use fellbeck_node::ledger::LaneBook;
use serde_json::{Value, json};

use super::{Beat, LaneCounts, LaneId};

/// The longest interval that is believed.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// The shortest one.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The books of one edge.
#[derive(Debug)]
pub(crate) struct EdgeLedger {
    lanes: BTreeMap<LaneId, LaneCounts>,
    /// Positions that the edge of the last link said it had appended.
    said: BTreeMap<LaneId, u64>,
    beat: Option<Beat>,
    monitor: HealthMonitor,
    /// Heartbeats have come on this link.
    beats: bool,
}

impl Default for EdgeLedger {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            said: BTreeMap::new(),
            beat: None,
            monitor: HealthMonitor::new(INTERVAL_MAX, 1),
            beats: false,
        }
    }
}

impl EdgeLedger {
    /// Takes counters of the store.
    pub(crate) fn load_lane(&mut self, lane: LaneId, counts: LaneCounts) {
        self.lanes.insert(lane, counts);
    }

    /// Takes a heartbeat of the store.
    pub(crate) fn load_beat(&mut self, beat: Beat) {
        self.beat = Some(beat);
    }

    /// A link of this edge was admitted.
    pub(crate) fn connected(&mut self, instance: u32, hello: &Hello, tick: Tick) {
        let said = |lane: &LaneHello| {
            let id = LaneId {
                instance,
                lane: lane.lane.clone(),
                run: lane.run,
            };
            (id, lane.end.0.saturating_sub(1))
        };
        self.said = hello.lanes.iter().map(said).collect();
        self.beats = false;
        self.monitor = HealthMonitor::new(INTERVAL_MAX, 1);
        self.monitor.handle_connected(tick);
    }

    /// The link is gone.
    pub(crate) fn disconnected(&mut self) {
        self.monitor.handle_disconnected();
    }

    /// Durable counters of a lane, if there are any.
    pub(crate) fn lane(&self, lane: &LaneId) -> Option<LaneCounts> {
        self.lanes.get(lane).copied()
    }

    /// An ingest has become durable.
    pub(crate) fn moved(&mut self, lane: &LaneId, counts: LaneCounts, beat: Option<Beat>, tick: Tick) {
        if let Some(said) = self.said.get_mut(lane) {
            *said = (*said).max(counts.through);
        }
        self.lanes.insert(lane.clone(), counts);
        if self.beats {
            self.monitor.handle_flow(0, Flow::Moves, tick);
        }
        if let Some(beat) = beat {
            self.beat(beat, tick);
        }
    }

    fn beat(&mut self, beat: Beat, tick: Tick) {
        let interval = Duration::from_millis(beat.said.interval_ms).clamp(INTERVAL_MIN, INTERVAL_MAX);
        let patience = interval * 2;
        self.beats = true;
        self.monitor.set_patience(patience, tick);
        self.monitor.handle_flow(0, Flow::Moves, tick);
        self.monitor
            .handle_beat(Duration::from_millis(beat.waited_ms) <= interval, tick);
        // The next one is awaited from now on.
        self.monitor.await_beat(tick);
        self.beat = Some(beat);
    }

    /// What the link is worth.
    pub(crate) fn health(&self) -> LinkHealth {
        self.monitor.health()
    }

    /// When [`EdgeLedger::handle_timeout`] has to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        self.monitor.poll_timeout()
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, tick: Tick) {
        self.monitor.handle_timeout(tick);
    }

    /// The books of the lanes.
    pub(crate) fn books(&self, edge: &str) -> Vec<LaneBook> {
        let book = |(lane, counts): (&LaneId, &LaneCounts)| counts.book(edge, lane, self.said.get(lane).copied());
        self.lanes.iter().map(book).collect()
    }

    /// The edge for the status page.
    pub(crate) fn status(&self, edge: &str) -> Value {
        let beat = self.beat.as_ref().map(|beat| {
            json!({
                "instance": beat.instance,
                "number": beat.said.number,
                "interval_ms": beat.said.interval_ms,
                "received_at_ms": beat.received_at.0,
                "waited_ms": beat.waited_ms,
                "last_round_trip_ms": beat.said.round_trip_ms,
            })
        });
        json!({ "edge": edge, "health": self.health().as_str(), "heartbeat": beat })
    }
}

impl LaneId {
    /// Of the lane `lane` of an edge's `instance`.
    pub fn new(instance: u32, lane: &str, run: Run) -> Self {
        Self {
            instance,
            lane: lane.to_owned(),
            run,
        }
    }
}
