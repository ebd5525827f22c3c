//! One connection: waits for what happens, tells the sender, does what the sender says. Decides nothing.
//!
//! In: control frames, store reads, commits, deadlines. Out: frames, reads, cursor moves, one log line per event.
//! Order of calls as [`fellbeck_link::Sender`] demands: one `handle_*`, then all `poll_*` until they are dry.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_core::Epoch;
use fellbeck_link::{ByeReason, Connected, Entry, LaneIndex, LaneRead, Sender, SenderEvent, SenderStats};
use fellbeck_ops::{NodeClock, Shutdown};
use fellbeck_store::{Committed, ReadError, Store, TrackRead};
use quinn::Connection;
use tokio::task::JoinSet;

use super::dial::explain;
use super::entries::{Expiry, entries};
use super::heartbeat::Heart;
use super::lanes::Lanes;
use super::memory::Memory;
use super::state::UplinkState;
use super::streams::Streams;
use crate::downlink::Downlink;
use crate::ledger::Declared;

/// Time that a closing connection gets to deliver its last frames.
const FINISH_WITHIN: Duration = Duration::from_millis(500);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Try again soon.
    Lost {
        /// The cloud had acknowledged something on it: the link works.
        acked: bool,
    },
    /// The cloud refused; try again no sooner than it says.
    Refused {
        /// Least pause.
        retry_after: Option<Duration>,
    },
}

impl End {
    /// Whether the link did its work before it ended.
    pub(crate) fn worked(self) -> bool {
        self == Self::Lost { acked: true }
    }
}

type ReadOutcome = (LaneRead, Result<TrackRead, ReadError>);

/// Runs connections, one after another.
pub(crate) struct Driver {
    sender: Sender,
    lanes: Lanes,
    memory: Memory,
    store: Store,
    clock: NodeClock,
    state: Arc<UplinkState>,
    reads: JoinSet<ReadOutcome>,
    counted: SenderStats,
    last_read_error: Option<String>,
    /// The way down, where this node has a broker.
    downlink: Option<Downlink>,
    /// `None`: heartbeats are off.
    heart: Option<Heart>,
}

impl Driver {
    pub(crate) fn new(
        sender: Sender,
        (heart, downlink): (Option<Heart>, Option<Downlink>),
        (lanes, memory): (Lanes, Memory),
        store: Store,
        clock: NodeClock,
        state: Arc<UplinkState>,
    ) -> Self {
        Self {
            sender,
            lanes,
            memory,
            store,
            clock,
            state,
            reads: JoinSet::new(),
            counted: SenderStats::default(),
            last_read_error: None,
            downlink,
            heart,
        }
    }

    /// Runs `connection` until it ends.
    pub(crate) async fn run(
        &mut self,
        connection: Connection,
        peer: SocketAddr,
        instance: u32,
        shutdown: &mut Shutdown,
    ) -> End {
        let acks_before = self.sender.stats().acks;
        let mut streams = match Streams::open(connection.clone()).await {
            Ok(streams) => streams,
            Err(error) => return self.lost(&explain(&error), false),
        };
        self.greet(instance);
        let mut downlink = self.downlink.take();
        let outcome = tokio::select! {
            outcome = self.converse(&connection, &mut streams, peer, shutdown) => outcome,
            never = serve(&mut downlink, &connection) => match never {},
        };
        self.downlink = downlink;
        if let Some(downlink) = &self.downlink {
            downlink.left();
        }
        self.sender.handle_disconnected();
        if let Some(heart) = &mut self.heart {
            heart.disconnected();
        }
        self.show_health();
        self.memory.flush();
        self.count();
        // A lost connection has nothing left to finish.
        tokio::time::timeout(FINISH_WITHIN, streams.finish()).await.ok();
        connection.close(0u32.into(), b"");
        let acked = self.sender.stats().acks > acks_before;
        match outcome {
            Err(reason) => self.lost(&reason, acked),
            // A polite end after work done is as good as a lost connection: try again soon.
            Ok(End::Lost { .. }) => End::Lost { acked },
            Ok(end) => end,
        }
    }

    fn lost(&self, reason: &str, acked: bool) -> End {
        self.state.failed(reason);
        End::Lost { acked }
    }

    fn greet(&mut self, instance: u32) {
        let connected = Connected {
            instance,
            chain: self.store.incarnations().to_vec(),
            log_id: self.memory.log_id(),
            lanes: self.lanes.bounds(&self.store).map(|(_, bounds)| bounds).collect(),
            now: self.clock.wall(),
            clock: self.clock.quality(),
        };
        self.sender.handle_connected(connected, self.clock.tick());
    }

    /// The loop of a connection. `Err`: it was lost, with the reason.
    async fn converse(
        &mut self,
        connection: &Connection,
        streams: &mut Streams,
        peer: SocketAddr,
        shutdown: &mut Shutdown,
    ) -> Result<End, String> {
        let mut commits = self.store.watch();
        let mut stopping = false;
        loop {
            if let Some(end) = self.drain(streams, peer).await? {
                return Ok(end);
            }
            let heart = self.heart.as_ref().and_then(Heart::poll_timeout);
            let deadline = self.sender.poll_timeout().into_iter().chain(heart).min();
            let deadline = deadline.map(|tick| self.clock.instant_of(tick));
            tokio::select! {
                frame = streams.control.recv() => match frame {
                    Some(Ok(frame)) => self.control(&frame),
                    Some(Err(error)) => return Err(format!("the cloud sent what is no frame: {error}")),
                    None => return Err(explain(&connection.closed().await)),
                },
                Some(stream) = streams.taken.recv() => {
                    // A note may be older than the frames that filled the writer again.
                    if streams.has_room(stream) {
                        self.sender.handle_stream_writable(stream);
                    }
                }
                Some(outcome) = self.reads.join_next(), if !self.reads.is_empty() => self.read_done(outcome),
                Ok(()) = commits.changed() => self.log_moved(),
                () = self.memory.answered() => self.log_moved(),
                committed = beaten(&mut self.heart) => {
                    if let Some(heart) = &mut self.heart {
                        heart.handle_committed(committed, self.clock.tick());
                    }
                }
                () = sleep_until(deadline) => self.timeout(),
                error = connection.closed() => return Err(explain(&error)),
                () = shutdown.requested(), if !stopping => {
                    stopping = true;
                    self.sender.close(ByeReason::Shutdown);
                }
            }
        }
    }

    fn timeout(&mut self) {
        let tick = self.clock.tick();
        self.sender.handle_timeout(tick);
        if let Some(heart) = &mut self.heart {
            heart.handle_timeout(tick, self.clock.wall(), self.clock.quality());
        }
    }

    /// Brings the verdict on the link up to date.
    fn show_health(&mut self) {
        let Some(heart) = &mut self.heart else { return };
        heart.look(self.lanes.bounds(&self.store), self.clock.tick());
        let (health, round_trip) = heart.verdict();
        self.state.health(health, round_trip);
    }

    fn control(&mut self, frame: &fellbeck_link::RawFrame) {
        if let Err(error) = self.sender.handle_control(frame, self.clock.tick()) {
            self.state
                .failed(&format!("the cloud broke the link protocol: {error}"));
        }
    }

    fn log_moved(&mut self) {
        for (lane, bounds) in self.lanes.bounds(&self.store) {
            self.sender.handle_log_end(lane, bounds.first, bounds.end);
        }
    }

    fn read_done(&mut self, outcome: Result<ReadOutcome, tokio::task::JoinError>) {
        let tick = self.clock.tick();
        match outcome {
            Ok((read, Ok(found))) => {
                let now = Expiry {
                    now: self.clock.wall(),
                    clock: self.clock.quality(),
                    epoch: self.epoch(),
                };
                let entries = entries(found.entries, now);
                self.declare(read.lane, &entries);
                self.sender.handle_read(&read, entries, tick);
            }
            Ok((read, Err(error))) => {
                self.read_failed(&read, &error);
                self.sender.handle_read_failed(&read, tick);
            }
            Err(error) => tracing::error!(%error, "a read of the uplink ended without an answer"),
        }
    }

    /// Notes for the books what will be declared instead of sent.
    fn declare(&self, lane: LaneIndex, entries: &[Entry]) {
        let track = self.lanes.track(lane);
        for entry in entries {
            match entry {
                Entry::Gap(gap) => self.memory.declare(track, (gap.first, gap.last), Declared::Gap),
                Entry::Skip(skip) => self.memory.declare(track, (skip.first, skip.last), Declared::Expired),
                Entry::Batch(_) => {}
            }
        }
    }

    fn epoch(&self) -> Epoch {
        self.store
            .incarnations()
            .last()
            .map(|incarnation| incarnation.epoch)
            .unwrap_or_default()
    }

    /// One line per kind of failure, not one per try.
    fn read_failed(&mut self, read: &LaneRead, error: &ReadError) {
        metrics::counter!("fellbeck_link_read_failures_total").increment(1);
        let text = error.to_string();
        if !matches!(error, ReadError::Busy) && self.last_read_error.as_ref() != Some(&text) {
            tracing::error!(
                error = text,
                lane = self.lanes.name(read.lane),
                "the uplink cannot read its log"
            );
            self.last_read_error = Some(text);
        }
    }

    /// Does all that the sender asks for. `Some`: the connection is over.
    async fn drain(&mut self, streams: &mut Streams, peer: SocketAddr) -> Result<Option<End>, String> {
        let mut refused = None;
        while let Some(event) = self.sender.poll_event() {
            refused = self.event(event, peer).or(refused);
        }
        while let Some((lane, w)) = self.sender.poll_acked() {
            self.memory
                .remember_acked(self.lanes.track(lane), &self.lanes.track_name(lane), w.seq);
            if let Some(heart) = &mut self.heart {
                heart.acked(lane, w.seq, self.clock.tick());
            }
        }
        self.show_health();
        self.memory.flush();
        while let Some(read) = self.sender.poll_read() {
            self.read(read);
        }
        while let Some(transmit) = self.sender.poll_transmit(self.clock.wall()) {
            streams
                .send(transmit.stream, transmit.bytes)
                .await
                .map_err(|error| error.to_string())?;
            if !streams.has_room(transmit.stream) {
                self.sender.handle_stream_blocked(transmit.stream);
            }
        }
        self.count();
        let over = self.sender.is_closed();
        Ok(over.then(|| refused.unwrap_or(End::Lost { acked: false })))
    }

    fn read(&mut self, read: LaneRead) {
        let answer = self
            .store
            .read_track(self.lanes.track(read.lane), read.from, read.bytes_max);
        self.reads.spawn(async move {
            let outcome = answer.await.unwrap_or(Err(ReadError::Closed));
            (read, outcome)
        });
    }

    /// One line per event. Returns how the connection ends, where the event says so.
    fn event(&mut self, event: SenderEvent, peer: SocketAddr) -> Option<End> {
        match event {
            SenderEvent::Welcomed {
                log_id, log_changed, ..
            } => {
                if log_changed {
                    tracing::warn!("the cloud's log is another one than before");
                }
                self.memory.remember_log(log_id);
                self.state.connected(peer);
                if let Some(heart) = &mut self.heart {
                    heart.connected(self.clock.tick());
                }
            }
            SenderEvent::Refused { code, text } => {
                metrics::counter!("fellbeck_link_refused_total", "code" => code.as_str()).increment(1);
                self.state
                    .failed(&format!("the cloud refuses this edge ({}): {text}", code.as_str()));
                return Some(End::Refused {
                    retry_after: code.retry_after(),
                });
            }
            SenderEvent::CloudWentBack { lane, cloud_w, edge_w } => {
                metrics::counter!("fellbeck_link_cloud_went_back_total").increment(1);
                let cloud_w = cloud_w.map_or(0, |w| w.seq.0);
                tracing::error!(
                    lane = self.lanes.name(lane),
                    cloud_w,
                    edge_w = edge_w.0,
                    "the cloud was restored to an older state: sending again what is still held"
                );
            }
            SenderEvent::GapDeclared { lane, gap } => self.declared(lane, &gap),
            SenderEvent::Adopt { epoch, .. } => {
                self.state.failed(&format!(
                    "the store of this edge is empty but the cloud knows its name (epoch {epoch} would follow): join it again \
                     with a new token"
                ));
                return Some(End::Refused {
                    retry_after: Some(Duration::from_secs(60)),
                });
            }
            SenderEvent::Diverged { lane, cloud_w, held } => {
                self.state.failed(&format!(
                    "the cloud has other records of lane {} at {cloud_w} than this edge (epoch {held} here): this is a clone or a \
                     restored backup; join it again with a new token",
                    self.lanes.name(lane)
                ));
                return Some(End::Refused {
                    retry_after: Some(Duration::from_secs(60)),
                });
            }
            SenderEvent::CloudAhead { lane, cloud_w, end } => {
                self.state.failed(&format!(
                    "the cloud has records of lane {} up to {cloud_w}, this edge only up to {}: its store was restored from a \
                     backup; join it again with a new token",
                    self.lanes.name(lane), end.0
                ));
                return Some(End::Refused {
                    retry_after: Some(Duration::from_secs(60)),
                });
            }
            SenderEvent::Bye(reason) => self.state.failed(&format!("the cloud left: {}", reason.as_str())),
            SenderEvent::TimedOut => self.state.failed("the cloud did not answer the hello in time"),
        }
        None
    }

    fn declared(&mut self, lane: LaneIndex, gap: &fellbeck_link::Gap) {
        let count = gap.last.0 - gap.first.0 + 1;
        self.memory
            .declare(self.lanes.track(lane), (gap.first, gap.last), Declared::Gap);
        metrics::counter!("fellbeck_link_gap_records_total").increment(count);
        tracing::error!(
            lane = self.lanes.name(lane), first = gap.first.0, last = gap.last.0, count, reason = %gap.reason,
            "records are lost: a gap is declared to the cloud"
        );
    }

    fn count(&mut self) {
        let now = self.sender.stats();
        metrics::counter!("fellbeck_link_frames_total").increment(now.frames - self.counted.frames);
        metrics::counter!("fellbeck_link_sent_bytes_total").increment(now.bytes - self.counted.bytes);
        metrics::counter!("fellbeck_link_sent_records_total").increment(now.records - self.counted.records);
        self.counted = now;
    }
}

async fn serve(downlink: &mut Option<Downlink>, connection: &Connection) -> Infallible {
    match downlink {
        Some(downlink) => downlink.serve(connection).await,
        None => std::future::pending().await,
    }
}

/// Waits until a heartbeat is committed here; for ever without a heart.
async fn beaten(heart: &mut Option<Heart>) -> Committed {
    match heart {
        Some(heart) => heart.committed().await,
        None => std::future::pending().await,
    }
}

/// Waits for `deadline`; for ever without one.
async fn sleep_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
