//! One admitted link: waits for what happens, tells the receiver, does what the receiver says. Decides nothing.
//!
//! In: frames, commits, commands of a newer connection, deadlines. Out: commits for the store, acknowledgements for the edge.
//! Order of calls as [`fellbeck_link::Receiver`] demands. When the connection is gone the driver stays until what it had handed to
//! the store is durable, and only then lets the next link of the edge begin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fellbeck_link::{ByeReason, Ingest, LinkHealth, Receiver, ReceiverEvent, ReceiverStats};
use fellbeck_ops::Shutdown;
use fellbeck_ops::identity::EdgeIdentity;
use fellbeck_store::{Committed, Level, Submitter};
use quinn::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::accept::{LinkParts, explain};
use super::append::{Tally, gap_json};
use super::edges::{Command, Slot};
use super::flow::{Drafted, Flow, Site};
use super::streams::{FRAMES_MAX, Incoming, Source, Streams};
use crate::ledger::LaneId;

/// Commits of one link under way.
pub(super) const OUTSTANDING_MAX: usize = 8;
/// Raw bytes of one link that may be under way to the log.
const RAW_OUTSTANDING_MAX: u64 = 16 << 20;
/// Time in which an edge has to take a control frame.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5);
/// Pause before a full store is asked again.
const PRESSURE_PAUSE: Duration = Duration::from_millis(100);
/// Time for the last frames of a link to leave.
const FAREWELL: Duration = Duration::from_millis(500);

/// How other connections of the edge reach this link and see it end.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) gone: watch::Sender<bool>,
    pub(super) drained: watch::Sender<bool>,
}

/// Runs one link.
pub(super) struct Driver {
    connection: Connection,
    receiver: Receiver,
    submitter: Submitter,
    answers: mpsc::Receiver<Committed>,
    parts: Arc<LinkParts>,
    slot: Arc<Slot>,
    edge: String,
    instance: u32,
    /// Handed to the store.
    flow: Flow,
    probing: Vec<oneshot::Sender<bool>>,
    counted: ReceiverStats,
    /// The store is full: nothing is taken from the receiver until then.
    paused_until: Option<Instant>,
    /// Health of the link as told last.
    health: LinkHealth,
    /// Why the edge left.
    said: Option<ByeReason>,
}

/// Why an ingest was not submitted.
enum Fault {
    /// The edge is broken or hostile.
    Edge(String),
    /// This node cannot take it.
    Store(String),
}

impl Driver {
    pub(super) fn new(
        connection: Connection,
        receiver: Receiver,
        (submitter, answers): (Submitter, mpsc::Receiver<Committed>),
        parts: Arc<LinkParts>,
        slot: Arc<Slot>,
        identity: &EdgeIdentity,
    ) -> Self {
        Self {
            connection,
            receiver,
            submitter,
            answers,
            parts,
            slot,
            edge: identity.name.to_string(),
            instance: identity.instance,
            flow: Flow::default(),
            probing: Vec::new(),
            counted: ReceiverStats::default(),
            paused_until: None,
            health: LinkHealth::Up,
            said: None,
        }
    }

    /// Runs the link to its end.
    ///
    /// Returns why the edge left, where it said so.
    pub(super) async fn run(
        mut self,
        mut streams: Streams,
        mut ends: Ends,
        mut shutdown: Shutdown,
    ) -> Option<ByeReason> {
        let guard = self.parts.count_live();
        let reason = self.converse(&mut streams, &mut ends.commands, &mut shutdown).await;
        tracing::info!(edge = self.edge, reason, "link down");
        self.farewell(&mut streams).await;
        self.connection.close(0u32.into(), b"");
        self.receiver.handle_disconnected();
        self.events();
        self.slot.ledger().disconnected();
        ends.gone.send_replace(true);
        streams.stop().await;
        drop(guard);
        // What was handed out and never submitted is not waited for: the edge sends it again.
        while !self.flow.is_empty() {
            match self.answers.recv().await {
                Some(committed) => self.committed(committed),
                // The store has halted: the node is about to end, and W is what the log says at the next start.
                None => break,
            }
        }
        self.count();
        ends.drained.send_replace(true);
        self.said
    }

    /// Delivers a Bye, where there is one, within a bounded time.
    async fn farewell(&mut self, streams: &mut Streams) {
        let said = tokio::time::timeout(FAREWELL, async {
            if self.transmit(streams).await.is_ok() && streams.control.finish().is_ok() {
                streams.control.stopped().await.ok();
            }
        });
        // An edge that does not hear it learns of the end by the close of the connection.
        said.await.ok();
    }

    /// The loop of a link. Returns why it ended.
    async fn converse(
        &mut self,
        streams: &mut Streams,
        commands: &mut mpsc::Receiver<Command>,
        shutdown: &mut Shutdown,
    ) -> String {
        loop {
            self.ingest();
            self.events();
            self.tell_health();
            if let Err(error) = self.transmit(streams).await {
                return error;
            }
            self.count();
            if self.receiver.is_closed() {
                return "said goodbye".into();
            }
            let deadline = self.deadline();
            tokio::select! {
                incoming = streams.frames.recv() => {
                    if let Some(reason) = self.incoming(incoming).await {
                        return reason;
                    }
                    // Whatever else has come is taken in the same turn, so that commits and acks are few.
                    for _ in 1..FRAMES_MAX {
                        let Ok(incoming) = streams.frames.try_recv() else { break };
                        if let Some(reason) = self.incoming(Some(incoming)).await {
                            return reason;
                        }
                    }
                }
                committed = self.answers.recv() => match committed {
                    Some(committed) => self.committed(committed),
                    None => return "the store has halted".into(),
                },
                Some(command) = commands.recv() => self.command(command),
                () = sleep_until(deadline) => {
                    self.paused_until = None;
                    let tick = self.parts.clock.tick();
                    self.receiver.handle_timeout(tick);
                    self.slot.ledger().handle_timeout(tick);
                }
                error = self.connection.closed() => return explain(&error),
                () = shutdown.requested() => self.receiver.close(ByeReason::Shutdown),
            }
        }
    }

    /// One line per change of what the link is worth.
    fn tell_health(&mut self) {
        let health = self.slot.ledger().health();
        let before = std::mem::replace(&mut self.health, health);
        if before == health {
            return;
        }
        let (edge, before) = (&self.edge, before.as_str());
        if health == LinkHealth::Degraded {
            tracing::warn!(
                edge,
                before,
                "the link is degraded: it is open, and heartbeats do not come"
            );
        } else {
            tracing::info!(edge, before, health = health.as_str(), "the link carries data");
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let receiver = self
            .receiver
            .poll_timeout()
            .map(|tick| self.parts.clock.instant_of(tick));
        let health = self.slot.ledger().poll_timeout();
        let health = health.map(|tick| self.parts.clock.instant_of(tick));
        receiver.into_iter().chain(self.paused_until).chain(health).min()
    }

    /// Takes a frame. `Some`: the link is over.
    async fn incoming(&mut self, incoming: Option<Incoming>) -> Option<String> {
        if self.receiver.is_closed() {
            // What was already on its way when the link was closed.
            return None;
        }
        let Some((source, frame)) = incoming else {
            return Some(explain(&self.connection.closed().await));
        };
        let outcome = match (source, frame) {
            (_, Err(error)) => Err(error.to_string()),
            (Source::Control, Ok(frame)) => self.receiver.handle_control(&frame).map_err(|error| error.to_string()),
            (Source::Lane(stream), Ok(frame)) => {
                let wall = self.parts.clock.wall();
                self.receiver
                    .handle_lane_frame(stream, &frame, wall)
                    .map_err(|error| error.to_string())
            }
        };
        if let Err(reason) = outcome {
            self.protocol_error(&reason);
        }
        None
    }

    fn protocol_error(&mut self, reason: &str) {
        metrics::counter!("fellbeck_link_protocol_errors_total").increment(1);
        tracing::warn!(edge = self.edge, reason, "an edge broke the link protocol");
        self.receiver.close(ByeReason::Protocol);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Probe(answer) => {
                self.probing.push(answer);
                self.receiver.start_probe(self.parts.clock.tick());
            }
            Command::Leave(reason) => self.receiver.close(reason),
        }
    }

    /// Hands to the store what the receiver has, as long as the store takes it.
    fn ingest(&mut self) {
        while self.paused_until.is_none() && self.has_room() {
            if self.parts.store.pressure().level == Level::Full {
                self.paused_until = Some(Instant::now() + PRESSURE_PAUSE);
                return;
            }
            let Some(ingest) = self.receiver.poll_ingest() else {
                return;
            };
            match self.submit(&ingest) {
                Ok(()) => {}
                Err(Fault::Edge(reason)) => return self.protocol_error(&reason),
                Err(Fault::Store(reason)) => {
                    tracing::warn!(edge = self.edge, reason, "the store does not take what the edge sent");
                    return self.receiver.close(ByeReason::Shutdown);
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.flow.len() < OUTSTANDING_MAX && self.flow.raw() < RAW_OUTSTANDING_MAX && self.submitter.has_room()
    }

    fn submit(&mut self, ingest: &Ingest) -> Result<(), Fault> {
        let clock = &self.parts.clock;
        let site = Site {
            places: &self.parts.places,
            edge: (self.edge.as_str(), self.instance),
            now: clock.wall(),
            clock: clock.quality(),
        };
        let marks = || self.slot.book().partitions(&ingest.name, ingest.run);
        let counts = |lane: &LaneId| self.slot.ledger().lane(lane);
        let drafted = self.flow.draft(ingest, site, marks, counts);
        let Drafted { commit, draft, intake } = drafted.map_err(|error| Fault::Edge(error.to_string()))?;
        // Nothing of a refused submission was acknowledged: the edge sends it again on its next link.
        let ticket = self
            .submitter
            .submit(commit)
            .map_err(|error| Fault::Store(error.to_string()))?;
        if let Some(intake) = intake {
            intake.settle();
        }
        self.tell(ingest, &draft.tally);
        self.flow.submitted(ticket, draft);
        Ok(())
    }

    /// Counts what was dropped, and writes one line for all gaps of an ingest.
    fn tell(&self, ingest: &Ingest, tally: &Tally) {
        metrics::counter!("fellbeck_link_duplicates_total").increment(tally.duplicates);
        metrics::counter!("fellbeck_link_device_duplicates_total").increment(tally.device_duplicates);
        metrics::counter!("fellbeck_link_bad_device_ids_total").increment(tally.bad_ids);
        let Some(first) = tally.gaps.first() else { return };
        for gap in &tally.gaps {
            let instance = self.instance;
            self.parts.gaps.push(gap_json(&self.edge, instance, ingest, gap));
        }
        let count = tally
            .gaps
            .iter()
            .map(|gap| gap.last.0 - gap.first.0 + 1)
            .fold(0, u64::saturating_add);
        metrics::counter!("fellbeck_link_gaps_total").increment(tally.gaps.len() as u64);
        metrics::counter!("fellbeck_link_gap_records_total").increment(count);
        tracing::error!(
            edge = self.edge, lane = &*ingest.name, gaps = tally.gaps.len(), count, first = first.first.0,
            last = tally.gaps.last().map(|gap| gap.last.0), reason = %first.reason,
            "records of an edge are lost: gaps are stored"
        );
    }

    fn committed(&mut self, committed: Committed) {
        while let Some((lane, moved)) = self.flow.durable(committed) {
            let mut book = self.slot.book();
            book.moved(&moved.lane, moved.run, moved.w);
            book.appended(&moved.lane, moved.run, &moved.partitions);
            drop(book);
            let id = LaneId::new(self.instance, &moved.lane, moved.run);
            if moved.beat.is_some() {
                metrics::counter!("fellbeck_link_heartbeats_total").increment(1);
            }
            let tick = self.parts.clock.tick();
            self.slot.ledger().moved(&id, moved.counts, moved.beat, tick);
            self.receiver.handle_durable(lane, moved.w);
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::ProbeAnswered => self.answer_probes(true),
                ReceiverEvent::ProbeSilent => self.answer_probes(false),
                // The line and the counters are written where the gap is stored.
                ReceiverEvent::GapDeclared { .. } => {}
                ReceiverEvent::Bye(reason) => {
                    self.said = Some(reason);
                    tracing::info!(edge = self.edge, reason = reason.as_str(), "the edge leaves");
                }
            }
        }
    }

    fn answer_probes(&mut self, alive: bool) {
        for answer in self.probing.drain(..) {
            // Whoever asked may have given up.
            answer.send(alive).ok();
        }
    }

    async fn transmit(&mut self, streams: &mut Streams) -> Result<(), String> {
        while let Some(frame) = self.receiver.poll_transmit() {
            match tokio::time::timeout(STALL_MAX, streams.control.write_chunk(frame)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string())?,
                Err(_) => return Err("the edge does not read its control stream".into()),
            }
        }
        Ok(())
    }

    fn count(&mut self) {
        let now = self.receiver.stats();
        metrics::counter!("fellbeck_link_frames_total").increment(now.frames - self.counted.frames);
        metrics::counter!("fellbeck_link_received_bytes_total").increment(now.bytes - self.counted.bytes);
        metrics::counter!("fellbeck_link_received_records_total").increment(now.records - self.counted.records);
        metrics::counter!("fellbeck_link_duplicates_total").increment(now.duplicates - self.counted.duplicates);
        metrics::counter!("fellbeck_link_expired_records_total")
            .increment(now.skipped_records - self.counted.skipped_records);
        self.counted = now;
    }
}

/// Waits for `deadline`; for ever without one.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
