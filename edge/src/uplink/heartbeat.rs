//! The heartbeat of an edge, and what it and the lanes tell about the link.
//!
//! In: time, the store's answers, W as it moves, the ends of the lanes. Out: a record in the first lane per interval while the link is
//! up, its round trip, and the link's health. No second heartbeat is put in before the first one is acknowledged, so that an outage
//! leaves one in the lane. Each lane is watched by its own records; the heartbeat sees to it that an idle link has something to
//! move, in one lane, since nothing can be late in a lane in which nothing waits.

use std::time::Duration;

use fellbeck_core::{
    ClockQuality, CommitNumber, Properties, QoS, Record, RecordBlockBuilder, Seq, Tick, TrackId, WallTime,
};
use fellbeck_link::health::{Flow, HealthMonitor, LinkHealth};
use fellbeck_link::heartbeat::Heartbeat;
use fellbeck_link::{LaneBounds, LaneIndex};
use fellbeck_store::{Append, Commit, Committed, Store, Submitter, TailRead, Urgency};
use tokio::sync::mpsc;

/// Where the heartbeat under way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beat {
    /// There is none.
    None,
    /// Handed to the store.
    Submitted,
    /// Committed at this position; to be acknowledged. `since`: its commit, or `None` where the link was lost meanwhile.
    OnItsWay { seq: Seq, since: Option<Tick> },
}

/// Beats, and judges the link by what comes back.
pub(super) struct Heart {
    interval: Duration,
    topic: String,
    /// Lane that carries the heartbeats.
    lane: LaneIndex,
    track: TrackId,
    store: Store,
    submitter: Submitter,
    answers: mpsc::Receiver<Committed>,
    beat: Beat,
    number: u64,
    due: Tick,
    round_trip: Option<Duration>,
    monitor: HealthMonitor,
    /// W of each lane, as far as known here.
    watermarks: Vec<Option<Seq>>,
}

impl Heart {
    /// A heart of the edge `edge`, for `lanes` lanes of which `lane` carries its beats.
    pub(super) fn new(
        interval: Duration,
        edge: &str,
        (lane, track): (LaneIndex, TrackId),
        lanes: usize,
        store: &Store,
    ) -> Self {
        let (submitter, answers) = store.submitter(1);
        Self {
            interval,
            topic: Heartbeat::topic(edge),
            lane,
            track,
            store: store.clone(),
            submitter,
            answers,
            beat: Beat::None,
            number: 0,
            due: Tick::default(),
            round_trip: None,
            monitor: HealthMonitor::new(interval, lanes),
            watermarks: vec![None; lanes],
        }
    }

    /// What the link is worth, and the last round trip that was measured.
    pub(super) fn verdict(&self) -> (LinkHealth, Option<Duration>) {
        (self.monitor.health(), self.round_trip)
    }

    pub(super) fn connected(&mut self, tick: Tick) {
        self.monitor.handle_connected(tick);
        // Time to drain what has gathered, and not at once after each reconnect.
        self.due = self.due.max(tick.after(self.interval));
    }

    pub(super) fn disconnected(&mut self) {
        self.monitor.handle_disconnected();
        if let Beat::OnItsWay { since, .. } = &mut self.beat {
            // Its time would be that of the outage.
            *since = None;
        }
    }

    /// When [`Heart::handle_timeout`] has to be called.
    pub(super) fn poll_timeout(&self) -> Option<Tick> {
        let is_up = self.monitor.health() != LinkHealth::Down;
        let due = (is_up && self.beat == Beat::None).then_some(self.due);
        [due, self.monitor.poll_timeout()].into_iter().flatten().min()
    }

    /// Puts a heartbeat into its lane where one is due.
    pub(super) fn handle_timeout(&mut self, tick: Tick, wall: WallTime, clock: ClockQuality) {
        self.monitor.handle_timeout(tick);
        let is_up = self.monitor.health() != LinkHealth::Down;
        if !is_up || self.beat != Beat::None || self.due > tick {
            return;
        }
        self.due = tick.after(self.interval);
        let mut block = RecordBlockBuilder::default();
        let payload = self.payload();
        block.push(&Record {
            device: "",
            topic: &self.topic,
            payload: &payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: wall,
            clock,
            expiry_secs: None,
            origin: None,
            path: "",
        });
        let commit = Commit {
            appends: vec![Append {
                track: self.track,
                block: block.finish(),
            }],
            urgency: Urgency::Now,
            ..Commit::default()
        };
        match self.submitter.submit(commit) {
            Ok(_) => {
                self.number += 1;
                self.beat = Beat::Submitted;
                self.monitor.await_beat(tick);
                metrics::counter!("fellbeck_link_heartbeats_total").increment(1);
            }
            // A store that has no room for it is busy with what devices send. The next one is tried in its time.
            Err(error) => tracing::debug!(%error, "no heartbeat could be stored"),
        }
    }

    fn payload(&self) -> Vec<u8> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Heartbeat {
            number: self.number + 1,
            interval_ms: millis(self.interval),
            round_trip_ms: self.round_trip.map(millis),
        }
        .encode()
    }

    /// Resolves when the heartbeat is committed on this edge.
    pub(super) async fn committed(&mut self) -> Committed {
        match self.answers.recv().await {
            Some(committed) => committed,
            // The store has halted: the node is about to end.
            None => std::future::pending().await,
        }
    }

    /// The heartbeat is committed: from here on it is on its way.
    pub(super) fn handle_committed(&mut self, committed: Committed, tick: Tick) {
        let Some(seq) = self.find(committed.commit) else {
            // The policy of the lane has set it aside or thinned it out: it says nothing.
            self.beat = Beat::None;
            return self.monitor.handle_beat(false, tick);
        };
        let since = (self.monitor.health() != LinkHealth::Down).then_some(tick);
        self.beat = Beat::OnItsWay { seq, since };
        if let Some(w) = self.watermarks[self.lane.as_usize()] {
            self.came_back(w, tick);
        }
    }

    /// Position of the heartbeat; where memory has moved on already, the end of its lane, which is a moment later. `None`: it got none.
    fn find(&self, commit: CommitNumber) -> Option<Seq> {
        let blocks = match self.store.tail().read(commit, 1) {
            TailRead::Blocks(blocks) => blocks,
            TailRead::Empty => return None,
            TailRead::Behind => return Some(Seq(self.store.bounds(self.track).end.0.saturating_sub(1))),
        };
        let block = blocks.into_iter().find(|block| block.commit == commit)?;
        let track = block.tracks.iter().find(|track| track.track == self.track)?;
        let index = track.block.iter().position(|record| record.topic == self.topic)?;
        Some(track.first.plus(index as u64))
    }

    /// W of a lane has moved.
    pub(super) fn acked(&mut self, lane: LaneIndex, w: Seq, tick: Tick) {
        self.watermarks[lane.as_usize()] = Some(w);
        self.monitor.handle_flow(lane.as_usize(), Flow::Moves, tick);
        if lane == self.lane {
            self.came_back(w, tick);
        }
    }

    fn came_back(&mut self, w: Seq, tick: Tick) {
        let Beat::OnItsWay { seq, since } = self.beat else {
            return;
        };
        if w < seq {
            return;
        }
        self.beat = Beat::None;
        let round_trip = since.map(|since| tick.since(since));
        if let Some(round_trip) = round_trip {
            self.round_trip = Some(round_trip);
            metrics::gauge!("fellbeck_link_heartbeat_seconds").set(round_trip.as_secs_f64());
        }
        let in_time = round_trip.is_some_and(|round_trip| round_trip <= self.interval);
        self.monitor.handle_beat(in_time, tick);
    }

    /// How the lanes stand.
    pub(super) fn look(&mut self, lanes: impl Iterator<Item = (LaneIndex, LaneBounds)>, tick: Tick) {
        for (lane, bounds) in lanes {
            let index = lane.as_usize();
            let w = self.watermarks[index].max(bounds.acked);
            self.watermarks[index] = w;
            let waits = bounds.end.0.saturating_sub(1) > w.map_or(0, |w| w.0);
            let flow = if waits { Flow::Waits } else { Flow::Idle };
            self.monitor.handle_flow(index, flow, tick);
        }
    }
}
