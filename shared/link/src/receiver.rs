//! The cloud's half of the link: takes lane frames in order, hands records to the log once, acknowledges what is
//! durable.
//!
//! In: control and lane frames, what has become durable, time. Out: ingests for the log, frames to write, events.
//! One receiver per admitted connection. Holds I3 (W moves only over what is durable, known or declared) and, with W
//! given in at the start, I4 for the link: records at or below W inside a frame are dropped and counted.
//!
//! Seam between connections: W at the start of a receiver must be the *durable* W. So a new receiver of the same edge
//! is made only when the former one [is drained](Receiver::is_drained): after [`Receiver::handle_disconnected`] the
//! driver keeps the old receiver, lets the ingests that it had handed out become durable (or fail with the store),
//! and only then reads W, admits the new Hello and answers it. Otherwise an ingest still under way would be appended
//! a second time when the edge resends it.

mod lane;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fellbeck_core::batch::Batch;
use fellbeck_core::limits::{BATCH_MAX_EDGE, FRAME_MAX};
use fellbeck_core::{Position, Run, Tick, WallTime};

use crate::admission::{Admission, LaneMark};
use crate::credit::{CreditGrant, cost};
use crate::limits::{EVENTS_MAX, PREFIX};
use crate::{
    ByeReason, ControlFrame, Gap, Hello, LaneAck, LaneFrame, LaneIndex, LaneWelcome, LinkError, RawFrame, Skip, Welcome,
};
use lane::ReceiveLane;

/// Settings of a [`Receiver`].
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Identity of the cloud's log.
    pub log_id: [u8; 16],
    /// Bytes of lane frames per connection that may be on their way to becoming durable. Costs as much memory.
    pub credit: u64,
    /// What each lane may have on its way even then.
    pub lane_credit: u64,
    /// Largest frame of a lane stream; the decoder of the driver has the same bound. Costs up to as much memory per
    /// lane stream for a frame that is still arriving, beside the credit: keep it near the largest batch that the
    /// edges are configured for.
    pub frame_max: usize,
    /// Largest raw size of a batch.
    pub batch_raw_max: usize,
    /// Bytes at which an ingest is handed out although more frames of the lane wait.
    pub ingest_bytes_max: u64,
    /// The same for the raw size of its batches, so that what compresses well does not open to a commit without bound.
    pub ingest_raw_max: u64,
    /// How long an old connection may take to answer a probe.
    pub probe_timeout: Duration,
}

impl ReceiverConfig {
    /// Defaults for the log `log_id`.
    #[must_use]
    pub fn new(log_id: [u8; 16]) -> Self {
        Self {
            log_id,
            credit: 4 << 20,
            lane_credit: 128 << 10,
            frame_max: FRAME_MAX,
            batch_raw_max: BATCH_MAX_EDGE,
            ingest_bytes_max: 1 << 20,
            ingest_raw_max: 4 << 20,
            probe_timeout: Duration::from_millis(1500),
        }
    }
}

/// Entries of one lane to append to the log, in order, in one atomic commit together with `through` as the lane's new
/// W.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// Which lane of this connection.
    pub lane: LaneIndex,
    /// Its name.
    pub name: Arc<str>,
    /// Its run.
    pub run: Run,
    /// What to append. Not empty.
    pub entries: Vec<IngestEntry>,
    /// Position of the last entry.
    pub through: Position,
}

/// One entry of an [`Ingest`].
#[derive(Debug, Clone)]
pub enum IngestEntry {
    /// Records; not yet opened.
    Batch {
        /// As the edge stored it.
        batch: Batch,
        /// Records at its front that the log already has. Always fewer than the batch holds.
        skip: u32,
        /// The edge's clock when the frame left.
        sent_at: WallTime,
        /// The cloud's clock when it came.
        received_at: WallTime,
    },
    /// To be stored once, in `fellbeck.gaps`.
    Gap(Gap),
    /// Expired on the edge: only W moves.
    Skip(Skip),
}

impl IngestEntry {
    /// Bytes of the records once the batch is opened; 0 for what has none.
    #[must_use]
    pub fn raw_len(&self) -> u64 {
        match self {
            Self::Batch { batch, .. } => u64::from(batch.header.raw_len),
            Self::Gap(_) | Self::Skip(_) => 0,
        }
    }

    /// Brings a stamp of the edge's clock onto the cloud's: keeps the age that the record had when its frame left.
    ///
    /// A stamp later than the frame (the edge's clock was set back in between) counts as age zero.
    #[must_use]
    pub fn restamp(sent_at: WallTime, received_at: WallTime, stamp: WallTime) -> WallTime {
        WallTime(received_at.0.saturating_sub(sent_at.0.saturating_sub(stamp.0)))
    }
}

/// A lane stream of the connection: any number by which the driver tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaneStream(pub u64);

/// What the driver has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// The edge is there: a second identity must be refused.
    ProbeAnswered,
    /// The edge did not answer in time: the connection may be replaced.
    ProbeSilent,
    /// The edge declared records as lost.
    GapDeclared {
        /// The lane.
        lane: LaneIndex,
        /// The range.
        gap: Gap,
    },
    /// The edge left. Close.
    Bye(ByeReason),
}

/// Counters of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Frames of lane streams, starts not counted.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames of which nothing was new. A resume sends none.
    pub known_frames: u64,
    /// Records to be appended.
    pub records: u64,
    /// Records dropped since W already covers them.
    pub duplicates: u64,
    /// Records declared as lost.
    pub gap_records: u64,
    /// Records declared as expired.
    pub skipped_records: u64,
}

/// The cloud's half. See the module for its seam to the next connection.
///
/// Order of calls: make it from an [`Admission`], then any `handle_*` as things happen, each followed by draining
/// `poll_ingest`, `poll_transmit` and `poll_event`. When the connection is gone: `handle_disconnected`, then
/// `handle_durable` until `is_drained`.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    lanes: Vec<ReceiveLane>,
    streams: HashMap<LaneStream, LaneIndex>,
    credit: CreditGrant,
    /// Welcome, Ping, Bye: at most one of each.
    control: VecDeque<ControlFrame>,
    events: VecDeque<ReceiverEvent>,
    /// No lane frame is expected: the edge was told to adopt an epoch first.
    adopting: bool,
    closed: bool,
    probe: Option<Probe>,
    next_nonce: u64,
    /// Lanes take turns, beginning with this one.
    turn: usize,
    stats: ReceiverStats,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    nonce: u64,
    deadline: Tick,
}

impl Receiver {
    /// A receiver for the connection that said `hello` and was admitted; begins with the Welcome.
    ///
    /// Panics when `admission` does not belong to `hello`.
    #[must_use]
    pub fn new(config: ReceiverConfig, hello: &Hello, admission: &Admission, wall: WallTime) -> Self {
        assert_eq!(
            hello.lanes.len(),
            admission.lanes.len(),
            "the admission answers this hello"
        );
        let welcome = Welcome {
            log_id: config.log_id,
            instance: admission.instance,
            now: wall,
            lanes: admission.lanes.iter().map(|w| LaneWelcome { w: *w }).collect(),
            credit: config.credit,
            lane_credit: config.lane_credit,
            adopt: admission.adopt,
        };
        let lanes: Vec<_> = hello
            .lanes
            .iter()
            .zip(&admission.lanes)
            .map(|(lane, w)| ReceiveLane::new(&lane.lane, lane.run, *w))
            .collect();
        let frame_max = cost((PREFIX + config.frame_max) as u64);
        Self {
            credit: CreditGrant::new(config.credit, config.lane_credit, frame_max, lanes.len() as u64),
            config,
            lanes,
            streams: HashMap::new(),
            control: VecDeque::from([ControlFrame::Welcome(welcome)]),
            events: VecDeque::new(),
            adopting: admission.adopt.is_some(),
            closed: false,
            probe: None,
            next_nonce: 1,
            turn: 0,
            stats: ReceiverStats::default(),
        }
    }

    /// A frame of the control stream, after the Hello. On an error a Bye is queued and the link is closed.
    pub fn handle_control(&mut self, raw: &RawFrame) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::Closed);
        }
        let outcome = ControlFrame::decode(raw)
            .map_err(LinkError::from)
            .and_then(|frame| self.take_control(&frame));
        outcome.inspect_err(|_| self.close(ByeReason::Protocol))
    }

    fn take_control(&mut self, frame: &ControlFrame) -> Result<(), LinkError> {
        match frame {
            ControlFrame::Pong { nonce } => {
                if self.probe.is_some_and(|probe| probe.nonce == *nonce) {
                    self.probe = None;
                    self.push_event(ReceiverEvent::ProbeAnswered);
                }
                Ok(())
            }
            ControlFrame::Bye(reason) => {
                self.closed = true;
                self.push_event(ReceiverEvent::Bye(*reason));
                Ok(())
            }
            other => Err(LinkError::Unexpected { frame: other.name() }),
        }
    }

    /// A frame of a lane stream. On an error nothing of the frame was taken, a Bye is queued and the link is closed.
    pub fn handle_lane_frame(&mut self, stream: LaneStream, raw: &RawFrame, wall: WallTime) -> Result<(), LinkError> {
        if self.closed {
            return Err(LinkError::Closed);
        }
        let outcome = LaneFrame::decode(raw)
            .map_err(LinkError::from)
            .and_then(|frame| self.take_lane_frame(stream, frame, cost(raw.wire_len()), wall));
        if let Err(error) = outcome {
            self.close(ByeReason::Protocol);
            return Err(error);
        }
        self.stats.bytes += raw.wire_len();
        Ok(())
    }

    fn take_lane_frame(
        &mut self,
        stream: LaneStream,
        frame: LaneFrame,
        price: u64,
        wall: WallTime,
    ) -> Result<(), LinkError> {
        if let LaneFrame::Start(lane) = frame {
            return self.start_stream(stream, lane);
        }
        let index = *self.streams.get(&stream).ok_or(LinkError::Stream {
            what: "records before the start frame",
        })?;
        if let LaneFrame::Batch { batch, .. } = &frame {
            let raw_len = u64::from(batch.header.raw_len);
            let limit = self.config.batch_raw_max as u64;
            if raw_len > limit {
                return Err(LinkError::BatchTooLarge { raw_len, limit });
            }
        }
        if !self.credit.take(price) {
            return Err(LinkError::CreditOverrun {
                outstanding: self.credit.outstanding(),
                limit: self.credit.limit(),
            });
        }
        let lane = &mut self.lanes[index.as_usize()];
        let taken = lane.take(index, frame, price, wall)?;
        if taken.is_known {
            // Nothing of it waits for the log: its credit is free at once.
            self.credit.release(price);
            self.stats.known_frames += 1;
        }
        self.stats.frames += 1;
        self.stats.records += taken.records;
        self.stats.duplicates += taken.duplicates;
        self.stats.skipped_records += taken.skipped;
        if let Some(gap) = taken.gap {
            self.stats.gap_records = self.stats.gap_records.saturating_add(gap.last.0 - gap.first.0 + 1);
            self.push_event(ReceiverEvent::GapDeclared { lane: index, gap });
        }
        Ok(())
    }

    fn start_stream(&mut self, stream: LaneStream, lane: LaneIndex) -> Result<(), LinkError> {
        if self.adopting {
            return Err(LinkError::Unexpected { frame: "lane start" });
        }
        if lane.as_usize() >= self.lanes.len() {
            return Err(LinkError::UnknownLane { lane });
        }
        // Also bounds the map: a stream per lane.
        if self.streams.contains_key(&stream) || self.streams.values().any(|open| *open == lane) {
            return Err(LinkError::Stream {
                what: "a second start, or a second stream for the lane",
            });
        }
        self.streams.insert(stream, lane);
        Ok(())
    }

    /// Everything of the lane up to `through` is durable in the log, together with W.
    ///
    /// Panics when `through` was never handed out: acknowledging it would break I3.
    pub fn handle_durable(&mut self, lane: LaneIndex, through: Position) {
        let released = self.lanes[lane.as_usize()].durable(through);
        self.credit.release(released);
    }

    /// The connection is gone. What was not handed out yet is dropped, the edge will send it again.
    pub fn handle_disconnected(&mut self) {
        self.closed = true;
        self.control.clear();
        self.streams.clear();
        self.lanes.iter_mut().for_each(ReceiveLane::drop_pending);
        if self.probe.take().is_some() {
            self.push_event(ReceiverEvent::ProbeSilent);
        }
    }

    /// True when nothing handed out is still on its way to the log: [`watermarks`](Self::watermarks) are final.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.lanes.iter().all(ReceiveLane::is_drained)
    }

    /// Durable W of each lane that has one.
    #[must_use]
    pub fn watermarks(&self) -> Vec<LaneMark> {
        self.lanes.iter().filter_map(ReceiveLane::mark).collect()
    }

    /// Asks the edge whether it is there; the answer, or its absence, comes as an event.
    pub fn start_probe(&mut self, tick: Tick) {
        if self.closed {
            self.push_event(ReceiverEvent::ProbeSilent);
            return;
        }
        if self.probe.is_some() {
            return;
        }
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.probe = Some(Probe {
            nonce,
            deadline: tick.after(self.config.probe_timeout),
        });
        self.control.push_back(ControlFrame::Ping { nonce });
    }

    /// This node ends the link: a Bye is queued, nothing more is taken; what was handed out still becomes durable.
    pub fn close(&mut self, reason: ByeReason) {
        if !self.closed {
            self.closed = true;
            self.control.push_back(ControlFrame::Bye(reason));
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        self.probe.map(|probe| probe.deadline)
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, tick: Tick) {
        if self.probe.is_some_and(|probe| probe.deadline <= tick) {
            self.probe = None;
            self.push_event(ReceiverEvent::ProbeSilent);
        }
    }

    /// Entries for the log. They stay counted as under way until [`handle_durable`](Self::handle_durable) covers them.
    pub fn poll_ingest(&mut self) -> Option<Ingest> {
        if self.closed {
            return None;
        }
        for step in 0..self.lanes.len() {
            let index = (self.turn + step) % self.lanes.len();
            let ingest = self.lanes[index].poll_ingest(
                LaneIndex(index as u16),
                self.config.ingest_bytes_max,
                self.config.ingest_raw_max,
            );
            if ingest.is_some() {
                self.turn = (index + 1) % self.lanes.len();
                return ingest;
            }
        }
        None
    }

    /// The next frame for the control stream. Call it only when that stream takes bytes: acks and credits coalesce
    /// until then.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame.encode());
        }
        if self.closed {
            return None;
        }
        let acks: Vec<_> = self
            .lanes
            .iter_mut()
            .enumerate()
            .filter_map(|(index, lane)| {
                let w = lane.poll_ack()?;
                Some(LaneAck {
                    lane: LaneIndex(index as u16),
                    w,
                })
            })
            .collect();
        if !acks.is_empty() {
            return Some(ControlFrame::Ack(acks).encode());
        }
        let total = self.credit.poll_announcement()?;
        Some(ControlFrame::Credit(total).encode())
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.events.pop_front()
    }

    /// True when the connection has to be closed, once [`poll_transmit`](Self::poll_transmit) is dry.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes taken and not yet durable.
    #[must_use]
    pub fn outstanding_bytes(&self) -> u64 {
        self.credit.outstanding()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// A driver that does not poll loses the oldest events; the counters stay exact.
    fn push_event(&mut self, event: ReceiverEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
