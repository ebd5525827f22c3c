//! The edge's half of the link: sends each lane from W on, and moves W as the cloud acknowledges.
//!
//! In: control frames, what the driver read from the store, how far the log reaches, time. Out: frames to write,
//! reads to make, W to remember, events. The driver owns sockets, store and clock and decides nothing. Holds I2:
//! `acked <= sent <= appended` per lane; what the store no longer holds is declared as a Gap before anything behind
//! it leaves. State of a connection ends with it; what outlives it is handed in again by
//! [`Sender::handle_connected`].
//!
//! Order of calls: `handle_connected`, then any `handle_*` as things happen, each followed by draining `poll_event`,
//! `poll_acked`, `poll_read` and `poll_transmit` until they are dry; at the end `handle_disconnected`. After an error
//! or a closing event drain `poll_transmit` once more (it may hold a Bye), close the connection and call
//! `handle_disconnected`.

mod event;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use fellbeck_core::batch::Batch;
use fellbeck_core::incarnation::Incarnation;
use fellbeck_core::{ClockQuality, Epoch, Position, Run, Seq, Tick, WallTime};

use crate::credit::CreditUse;
use crate::limits::{EVENTS_MAX, LANES_MAX, PONGS_MAX};
use crate::{
    ByeReason, ControlFrame, Gap, Hello, LaneAck, LaneHello, LaneIndex, LinkError, NodeKind, RawFrame, Skip, Welcome,
};
pub use event::{SenderEvent, SenderStats};
use lane::{Resumed, SendLane};

/// Settings of a [`Sender`].
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// Most that one read asks of the store. A lane holds up to twice this, and one batch, in memory.
    pub read_bytes_max: usize,
    /// How long the cloud may take to answer the Hello (a probe of an older connection is part of it).
    pub hello_timeout: Duration,
    /// Pause after a read that failed or brought nothing.
    pub read_retry_after: Duration,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            read_bytes_max: 256 * 1024,
            hello_timeout: Duration::from_secs(10),
            read_retry_after: Duration::from_millis(500),
        }
    }
}

/// Name of a lane and run. Its place in the list given to [`Sender::new`] is its [`LaneIndex`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSpec {
    /// Name of the lane.
    pub name: String,
    /// Run within it.
    pub run: Run,
}

/// What the store holds of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneBounds {
    /// Epoch of the running incarnation.
    pub epoch: Epoch,
    /// First record still held; equals `end` when nothing is.
    pub first: Seq,
    /// Sequence number after the last durable record.
    pub end: Seq,
    /// W as last remembered.
    pub acked: Option<Seq>,
}

/// What the Hello of a new connection says.
#[derive(Debug, Clone)]
pub struct Connected {
    /// Instance as the cloud last told it; 0: never.
    pub instance: u32,
    /// Incarnations of the store, oldest first.
    pub chain: Vec<Incarnation>,
    /// Log of the cloud last spoken to.
    pub log_id: Option<[u8; 16]>,
    /// Bounds of each lane, in the order of [`Sender::new`].
    pub lanes: Vec<LaneBounds>,
    /// The edge's clock.
    pub now: WallTime,
    /// What is known of that clock.
    pub clock: ClockQuality,
}

/// A read that the driver shall make: entries of the lane in order, beginning with the one that holds `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneRead {
    /// The lane.
    pub lane: LaneIndex,
    /// First position wanted. An entry that begins before it is handed in whole.
    pub from: Seq,
    /// Bytes to read; at least one entry is expected whatever its size.
    pub bytes_max: usize,
    /// Tells the answer to this read from one of an earlier connection.
    id: u64,
}

/// One entry of the edge's log, in sequence order.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Records, as stored.
    Batch(Batch),
    /// A range that the store has lost or given up.
    Gap(Gap),
    /// A range that has expired: what the driver puts in place of such a batch.
    Skip(Skip),
}

/// Which stream of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamId {
    /// The bidirectional one.
    Control,
    /// The unidirectional one of a lane; the driver opens it at the lane's first transmit.
    Lane(LaneIndex),
}

/// Bytes for a stream.
#[derive(Debug, Clone)]
pub struct Transmit {
    /// The stream.
    pub stream: StreamId,
    /// One whole frame.
    pub bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection.
    Idle,
    /// Hello is out or about to be.
    Greeting {
        deadline: Tick,
    },
    Ready,
    /// Nothing more on this connection, but for what `control` still holds.
    Closed,
}

/// The edge's half. See the module for the order of calls.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    edge: String,
    state: State,
    lanes: Vec<SendLane>,
    credit: CreditUse,
    /// Frames for the control stream; at most a Hello, a Bye and [`PONGS_MAX`] Pongs.
    control: VecDeque<ControlFrame>,
    control_blocked: bool,
    events: VecDeque<SenderEvent>,
    /// Log that the Hello named.
    log_id: Option<[u8; 16]>,
    next_read_id: u64,
    /// Lanes take turns, beginning with this one.
    turn: usize,
    stats: SenderStats,
}

impl Sender {
    /// A sender for the edge `edge` and its lanes. Panics above [`LANES_MAX`] lanes, which the configuration check
    /// excludes.
    #[must_use]
    pub fn new(config: SenderConfig, edge: &str, lanes: Vec<LaneSpec>) -> Self {
        assert!(lanes.len() <= LANES_MAX, "more lanes than a hello can name");
        Self {
            config,
            edge: edge.to_owned(),
            state: State::Idle,
            lanes: lanes.into_iter().map(SendLane::new).collect(),
            credit: CreditUse::default(),
            control: VecDeque::new(),
            control_blocked: false,
            events: VecDeque::new(),
            log_id: None,
            next_read_id: 1,
            turn: 0,
            stats: SenderStats::default(),
        }
    }

    /// A connection is up: begins with the Hello. Panics when `connected.lanes` is not as long as the lanes of this
    /// sender.
    pub fn handle_connected(&mut self, connected: Connected, tick: Tick) {
        assert_eq!(
            connected.lanes.len(),
            self.lanes.len(),
            "bounds are given for every lane"
        );
        self.handle_disconnected();
        self.events.clear();
        for (lane, bounds) in self.lanes.iter_mut().zip(&connected.lanes) {
            lane.restart(*bounds);
        }
        self.log_id = connected.log_id;
        self.control.push_back(ControlFrame::Hello(Hello {
            edge: self.edge.clone(),
            instance: connected.instance,
            kind: NodeKind::Edge,
            chain: connected.chain,
            log_id: connected.log_id,
            lanes: self.lanes.iter().map(SendLane::hello).collect::<Vec<LaneHello>>(),
            now: connected.now,
            clock: connected.clock,
        }));
        self.state = State::Greeting {
            deadline: tick.after(self.config.hello_timeout),
        };
    }

    /// The connection is gone. Answers to reads still under way will be ignored.
    pub fn handle_disconnected(&mut self) {
        self.state = State::Idle;
        self.control.clear();
        self.control_blocked = false;
        self.lanes.iter_mut().for_each(SendLane::disconnect);
    }

    /// Name of the edge.
    #[must_use]
    pub fn edge(&self) -> &str {
        &self.edge
    }

    /// This node ends the link: a Bye is queued and nothing else is sent.
    pub fn close(&mut self, reason: ByeReason) {
        if !matches!(self.state, State::Idle | State::Closed) {
            self.control.push_back(ControlFrame::Bye(reason));
            self.state = State::Closed;
        }
    }

    /// A frame of the control stream. On an error a Bye is queued and the link is closed.
    pub fn handle_control(&mut self, raw: &RawFrame, tick: Tick) -> Result<(), LinkError> {
        let outcome = ControlFrame::decode(raw)
            .map_err(LinkError::from)
            .and_then(|frame| self.take_control(frame, tick));
        outcome.inspect_err(|_| self.close(ByeReason::Protocol))
    }

    fn take_control(&mut self, frame: ControlFrame, tick: Tick) -> Result<(), LinkError> {
        let name = frame.name();
        match (self.state, frame) {
            (State::Greeting { .. }, ControlFrame::Welcome(welcome)) => self.welcomed(welcome),
            (State::Greeting { .. }, ControlFrame::Refused { code, text }) => {
                self.state = State::Closed;
                self.events.push_back(SenderEvent::Refused { code, text });
                Ok(())
            }
            (State::Greeting { .. } | State::Ready, ControlFrame::Bye(reason)) => {
                self.state = State::Closed;
                self.events.push_back(SenderEvent::Bye(reason));
                Ok(())
            }
            (State::Greeting { .. } | State::Ready, ControlFrame::Ping { nonce }) => {
                self.queue_pong(nonce);
                Ok(())
            }
            (State::Ready, ControlFrame::Ack(acks)) => acks.into_iter().try_for_each(|ack| self.acked(ack, tick)),
            (State::Ready, ControlFrame::Credit(total)) => {
                self.credit.granted_to(total);
                Ok(())
            }
            (State::Idle | State::Closed, _) => Err(LinkError::Closed),
            _ => Err(LinkError::Unexpected { frame: name }),
        }
    }

    fn welcomed(&mut self, welcome: Welcome) -> Result<(), LinkError> {
        if welcome.lanes.len() != self.lanes.len() {
            return Err(LinkError::LaneCount {
                lanes: welcome.lanes.len(),
                expected: self.lanes.len(),
            });
        }
        self.events.push_back(SenderEvent::Welcomed {
            log_id: welcome.log_id,
            log_changed: self.log_id.is_some_and(|known| known != welcome.log_id),
            instance: welcome.instance,
            cloud_now: welcome.now,
        });
        if let Some(epoch) = welcome.adopt {
            let floors = welcome.lanes.iter().map(|lane| lane.w).collect();
            self.events.push_back(SenderEvent::Adopt { epoch, floors });
            self.close(ByeReason::Adopting);
            return Ok(());
        }
        self.credit = CreditUse::new(welcome.credit, welcome.lane_credit);
        self.state = State::Ready;
        for (index, answer) in welcome.lanes.iter().enumerate() {
            self.resume(LaneIndex(index as u16), answer.w);
        }
        Ok(())
    }

    fn resume(&mut self, index: LaneIndex, cloud_w: Option<Position>) {
        let lane = &mut self.lanes[index.as_usize()];
        match lane.resume(cloud_w) {
            Resumed::Level => {}
            Resumed::CloudWentBack { edge_w } => self.events.push_back(SenderEvent::CloudWentBack {
                lane: index,
                cloud_w,
                edge_w,
            }),
            Resumed::CloudAhead { cloud_w } => {
                let end = lane.bounds().end;
                self.events.push_back(SenderEvent::CloudAhead {
                    lane: index,
                    cloud_w,
                    end,
                });
                self.close(ByeReason::CloudAhead);
                return;
            }
        }
        self.declare_unheld(index);
    }

    fn acked(&mut self, ack: LaneAck, tick: Tick) -> Result<(), LinkError> {
        let lane = self
            .lanes
            .get_mut(ack.lane.as_usize())
            .ok_or(LinkError::UnknownLane { lane: ack.lane })?;
        if lane.ack(ack.lane, ack.w)? {
            self.stats.acks += 1;
            // The store may hold again what a failed read was waiting for; asking costs one read.
            lane.retry_if_due(tick);
        }
        Ok(())
    }

    /// The durable log of a lane reaches up to `end` and begins at `first`. Call it after each commit and after each
    /// trim.
    pub fn handle_log_end(&mut self, lane: LaneIndex, first: Seq, end: Seq) {
        self.lanes[lane.as_usize()].log_moved(first, end);
        if self.state == State::Ready {
            self.declare_unheld(lane);
        }
    }

    /// Answer to a read: entries in order. When they bring nothing new, the store is asked again after a pause.
    pub fn handle_read(&mut self, read: &LaneRead, entries: Vec<Entry>, tick: Tick) {
        let lane = &mut self.lanes[read.lane.as_usize()];
        if !lane.finish_read(read.id) || self.state != State::Ready {
            return;
        }
        let before = lane.progress();
        for entry in entries {
            let lane = &mut self.lanes[read.lane.as_usize()];
            if let Err((cloud_w, held)) = lane.verify(&entry) {
                self.events.push_back(SenderEvent::Diverged {
                    lane: read.lane,
                    cloud_w,
                    held,
                });
                self.close(ByeReason::Diverged);
                return;
            }
            let gaps = lane.take(entry);
            self.report_gaps(read.lane, &gaps);
        }
        self.declare_unheld(read.lane);
        let lane = &mut self.lanes[read.lane.as_usize()];
        if lane.progress() == before {
            lane.pause(tick.after(self.config.read_retry_after));
        }
    }

    /// A read could not be made (the readers are busy, or flash failed): asked again after a pause.
    pub fn handle_read_failed(&mut self, read: &LaneRead, tick: Tick) {
        let lane = &mut self.lanes[read.lane.as_usize()];
        if lane.finish_read(read.id) {
            lane.pause(tick.after(self.config.read_retry_after));
        }
    }

    /// The stream cannot take more: [`poll_transmit`](Self::poll_transmit) passes it over until it is writable.
    pub fn handle_stream_blocked(&mut self, stream: StreamId) {
        self.set_blocked(stream, true);
    }

    /// The stream takes bytes again.
    pub fn handle_stream_writable(&mut self, stream: StreamId) {
        self.set_blocked(stream, false);
    }

    fn set_blocked(&mut self, stream: StreamId, blocked: bool) {
        match stream {
            StreamId::Control => self.control_blocked = blocked,
            StreamId::Lane(lane) => self.lanes[lane.as_usize()].set_blocked(blocked),
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        match self.state {
            State::Greeting { deadline } => Some(deadline),
            State::Ready => self.lanes.iter().filter_map(SendLane::paused_until).min(),
            State::Idle | State::Closed => None,
        }
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, tick: Tick) {
        match self.state {
            State::Greeting { deadline } if deadline <= tick => {
                self.events.push_back(SenderEvent::TimedOut);
                self.state = State::Closed;
            }
            State::Ready => self.lanes.iter_mut().for_each(|lane| lane.retry_if_due(tick)),
            State::Idle | State::Greeting { .. } | State::Closed => {}
        }
    }

    /// A read to make now. At most one per lane is under way, and none while credit or the driver lag behind.
    pub fn poll_read(&mut self) -> Option<LaneRead> {
        if self.state != State::Ready || self.events.len() >= EVENTS_MAX {
            return None;
        }
        for step in 0..self.lanes.len() {
            let index = (self.turn + step) % self.lanes.len();
            let lane = &mut self.lanes[index];
            let room = self.credit.room(lane.unacked_bytes());
            let Some(bytes_max) = lane.read_size(room, self.config.read_bytes_max) else {
                continue;
            };
            let id = self.next_read_id;
            self.next_read_id += 1;
            return Some(LaneRead {
                lane: LaneIndex(index as u16),
                from: lane.begin_read(id),
                bytes_max,
                id,
            });
        }
        None
    }

    /// The next frame to write. Call it until it returns `None`; `wall` is stamped into the frame.
    pub fn poll_transmit(&mut self, wall: WallTime) -> Option<Transmit> {
        if let Some(transmit) = self.poll_control() {
            return Some(transmit);
        }
        if self.state != State::Ready {
            return None;
        }
        for step in 0..self.lanes.len() {
            let index = (self.turn + step) % self.lanes.len();
            let id = LaneIndex(index as u16);
            let Some(bytes) = self.lanes[index].poll_frame(id, &mut self.credit, wall, &mut self.stats) else {
                continue;
            };
            self.turn = (index + 1) % self.lanes.len();
            return Some(Transmit {
                stream: StreamId::Lane(id),
                bytes,
            });
        }
        None
    }

    fn poll_control(&mut self) -> Option<Transmit> {
        if self.control_blocked {
            return None;
        }
        let frame = self.control.pop_front()?;
        Some(Transmit {
            stream: StreamId::Control,
            bytes: frame.encode(),
        })
    }

    /// W of a lane has risen above what was remembered: goes to the store as the cursor that lets it trim.
    pub fn poll_acked(&mut self) -> Option<(LaneIndex, Position)> {
        self.lanes.iter_mut().enumerate().find_map(|(index, lane)| {
            let w = lane.poll_acked()?;
            Some((LaneIndex(index as u16), w))
        })
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// True while data may flow.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// True when the connection has to be closed, once [`poll_transmit`](Self::poll_transmit) is dry.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Bytes sent in a lane and not yet acknowledged, as credit counts them.
    #[must_use]
    pub fn in_flight_bytes(&self, lane: LaneIndex) -> u64 {
        self.lanes[lane.as_usize()].in_flight_bytes()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    fn declare_unheld(&mut self, index: LaneIndex) {
        let gaps = self.lanes[index.as_usize()].declare_unheld();
        self.report_gaps(index, &gaps);
    }

    fn report_gaps(&mut self, lane: LaneIndex, gaps: &[Gap]) {
        for gap in gaps {
            self.stats.gap_records += gap.last.0 - gap.first.0 + 1;
            self.events.push_back(SenderEvent::GapDeclared { lane, gap: *gap });
        }
    }

    fn queue_pong(&mut self, nonce: u64) {
        let pongs = self
            .control
            .iter()
            .filter(|frame| matches!(frame, ControlFrame::Pong { .. }));
        if pongs.count() >= PONGS_MAX {
            let oldest = self
                .control
                .iter()
                .position(|frame| matches!(frame, ControlFrame::Pong { .. }));
            oldest.and_then(|index| self.control.remove(index));
        }
        self.control.push_back(ControlFrame::Pong { nonce });
    }
}
