//! The cloud of the pair: a log with W in the same commits, and the driver loop around admission and receiver.

use std::collections::{HashMap, VecDeque};

use fellbeck_core::incarnation::Incarnation;
use fellbeck_core::{Epoch, Position, Run, Seq, Tick, WallTime};

use super::edge::Edge;
use super::network::{Connection, DOWN, UP};
use crate::admission::{Circumstances, LaneMark, NO_EPOCH};
use crate::limits::CONTROL_FRAME_MAX;
use crate::receiver::LaneStream;
use crate::{
    ByeReason, ControlFrame, Decision, FrameDecoder, Hello, Ingest, IngestEntry, KnownEdge, LiveConnection, Receiver,
    ReceiverConfig, ReceiverEvent, RefuseCode, admit,
};

const LOG_ID: [u8; 16] = [7; 16];
const LANE_FRAME_MAX: usize = 20_000;

/// What is on the cloud's flash.
#[derive(Clone, Default)]
pub(super) struct Durable {
    /// Records per lane, in log order.
    pub(super) log: Vec<Vec<Position>>,
    /// Declared ranges per lane, in order.
    pub(super) declared: Vec<Vec<(Seq, Seq)>>,
    pub(super) w: Vec<Option<Position>>,
    incarnation: Option<Incarnation>,
}

/// Counts by which a run shows that the faults did happen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) accepted: u64,
    pub(super) took_over: u64,
    pub(super) replaced_silent: u64,
    pub(super) awaited_drain: u64,
    pub(super) lost_commits: u64,
    pub(super) durable_after_disconnect: u64,
    pub(super) gaps: u64,
    pub(super) skips: u64,
    pub(super) records: u64,
    pub(super) partly_known: u64,
}

/// An ingest on its way to flash, and the connection that it came by.
struct Commit {
    connection: u64,
    ingest: Ingest,
}

enum Phase {
    AwaitHello,
    /// The Hello waits for a decision; `None` as long as no probe was answered.
    Deciding(Box<Hello>, Option<ReceiverEvent>),
    Up(Box<Receiver>),
    /// The connection is gone, ingests are not.
    Draining(Box<Receiver>),
}

struct Link {
    phase: Phase,
    decoders: HashMap<usize, FrameDecoder>,
    incarnation: Option<Incarnation>,
}

pub(super) struct Cloud {
    pub(super) durable: Durable,
    /// Highest W that was ever durable, whatever a restore took back.
    pub(super) ever_durable: Vec<Seq>,
    pub(super) refusals: Vec<(RefuseCode, String)>,
    /// What was decided and what came of it, over the life of the world.
    pub(super) seen: Seen,
    snapshot: Option<Durable>,
    commits: VecDeque<Commit>,
    links: Vec<(u64, Link)>,
    /// Connections that the cloud has closed.
    closed: Vec<u64>,
    outgoing: Vec<(u64, Vec<u8>)>,
}

impl Cloud {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            durable: Durable {
                log: vec![Vec::new(); lanes],
                declared: vec![Vec::new(); lanes],
                w: vec![None; lanes],
                incarnation: None,
            },
            ever_durable: vec![Seq(0); lanes],
            refusals: Vec::new(),
            seen: Seen::default(),
            snapshot: None,
            commits: VecDeque::new(),
            links: Vec::new(),
            closed: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    pub(super) fn take_snapshot(&mut self) {
        self.snapshot = Some(self.durable.clone());
    }

    /// Only after a kill.
    pub(super) fn restore_snapshot(&mut self) {
        self.durable = self.snapshot.clone().expect("a snapshot was taken");
    }

    /// The operator adopts the store of `edge`: the log of its new instance begins with what that was told is stored.
    pub(super) fn adopt(&mut self, edge: &Edge) {
        self.durable.incarnation = None;
        for lane in 0..self.durable.w.len() {
            let acked = edge.acked(lane);
            let w = Position {
                epoch: NO_EPOCH,
                seq: acked,
            };
            self.durable.w[lane] = Some(w).filter(|w| w.seq > Seq(0));
            self.durable.log[lane].retain(|position| position.seq <= acked);
        }
    }

    pub(super) fn kill(&mut self) {
        self.seen.lost_commits += self.commits.len() as u64;
        self.commits.clear();
        self.links.clear();
        self.closed.clear();
        self.outgoing.clear();
    }

    pub(super) fn connection_lost(&mut self, id: u64) {
        let Some(at) = self.links.iter().position(|(other, _)| *other == id) else {
            return;
        };
        let (_, mut link) = self.links.remove(at);
        if let Phase::Up(mut receiver) | Phase::Draining(mut receiver) = link.phase {
            receiver.handle_disconnected();
            link.phase = Phase::Draining(receiver);
            self.links.push((id, link));
        }
    }

    pub(super) fn take_closed(&mut self, id: u64) -> bool {
        let found = self.closed.iter().position(|other| *other == id);
        found.map(|at| self.closed.remove(at)).is_some()
    }

    pub(super) fn receive(&mut self, id: u64, stream: usize, bytes: &[u8], wall: WallTime) {
        if !self.links.iter().any(|(other, _)| *other == id) {
            let link = Link {
                phase: Phase::AwaitHello,
                decoders: HashMap::new(),
                incarnation: None,
            };
            self.links.push((id, link));
        }
        let (_, link) = self.links.iter_mut().find(|(other, _)| *other == id).unwrap();
        let frame_max = if stream == UP {
            CONTROL_FRAME_MAX
        } else {
            LANE_FRAME_MAX
        };
        let decoder = link
            .decoders
            .entry(stream)
            .or_insert_with(|| FrameDecoder::new(frame_max));
        decoder.push(bytes);
        while let Some(raw) = decoder.next_frame().expect("the edge sends frames") {
            match &mut link.phase {
                Phase::AwaitHello => {
                    let ControlFrame::Hello(hello) = ControlFrame::decode(&raw).unwrap() else {
                        panic!("the edge begins with a hello");
                    };
                    link.phase = Phase::Deciding(Box::new(hello), None);
                }
                Phase::Up(receiver) if receiver.is_closed() => return,
                Phase::Up(receiver) if stream == UP => {
                    receiver.handle_control(&raw).expect("the edge keeps the protocol")
                }
                Phase::Up(receiver) => receiver
                    .handle_lane_frame(LaneStream(stream as u64), &raw, wall)
                    .expect("the edge keeps the protocol"),
                // Only a Bye can come before the Welcome.
                Phase::Deciding(..) | Phase::Draining(_) => return,
            }
        }
    }

    pub(super) fn timeout(&mut self, tick: Tick) {
        for (_, link) in &mut self.links {
            if let Phase::Up(receiver) = &mut link.phase
                && receiver.poll_timeout().is_some_and(|due| due <= tick)
            {
                receiver.handle_timeout(tick);
            }
        }
    }

    /// The newest Hello is decided upon; whoever waits behind an older connection goes on waiting.
    pub(super) fn admit_waiting(&mut self, name: &str, tick: Tick, wall: WallTime) {
        self.forget_drained();
        let waiting = self
            .links
            .iter()
            .rposition(|(_, link)| matches!(link.phase, Phase::Deciding(..)));
        let Some(at) = waiting else { return };
        // An older Hello that still waits belongs to a connection that the edge has left.
        let newest = self.links[at].0;
        self.links
            .retain(|(id, link)| *id == newest || !matches!(link.phase, Phase::Deciding(..)));
        let at = self.links.iter().position(|(id, _)| *id == newest).unwrap();
        let outcome = self.collect_probe();
        let Phase::Deciding(hello, probed) = &mut self.links[at].1.phase else {
            return;
        };
        *probed = probed.or(outcome);
        let (hello, probed) = (hello.clone(), *probed);
        let live = self.live(probed);
        let known = self.known();
        let circumstances = Circumstances {
            log_id: LOG_ID,
            certificate_name: name,
            known: known.as_ref(),
            live,
        };
        match admit(&circumstances, &hello) {
            Decision::Accept(admission) => {
                self.seen.accepted += 1;
                self.durable.incarnation = Some(admission.incarnation);
                let config = ReceiverConfig {
                    credit: 2500,
                    lane_credit: 600,
                    frame_max: LANE_FRAME_MAX,
                    ingest_bytes_max: 1500,
                    ..ReceiverConfig::new(LOG_ID)
                };
                let link = &mut self.links[at].1;
                link.incarnation = Some(admission.incarnation);
                link.phase = Phase::Up(Box::new(Receiver::new(config, &hello, &admission, wall)));
            }
            Decision::TakeOver(bye) => {
                self.seen.took_over += u64::from(bye == ByeReason::TakenOver);
                self.seen.replaced_silent += u64::from(bye == ByeReason::Replaced);
                self.close_others(at, bye);
            }
            Decision::AwaitDrained => self.seen.awaited_drain += 1,
            Decision::Probe => self.other_up().expect("there is one to probe").start_probe(tick),
            Decision::Refuse { code, text } => {
                let id = self.links.remove(at).0;
                let frame = ControlFrame::Refused {
                    code,
                    text: text.clone(),
                };
                self.outgoing.push((id, frame.encode().to_vec()));
                self.refusals.push((code, text));
            }
        }
    }

    fn live(&self, probed: Option<ReceiverEvent>) -> LiveConnection {
        let up = self.links.iter().find(|(_, link)| matches!(link.phase, Phase::Up(_)));
        if let Some(incarnation) = up.and_then(|(_, link)| link.incarnation) {
            return match probed {
                Some(ReceiverEvent::ProbeAnswered) => LiveConnection::Answered(incarnation),
                Some(ReceiverEvent::ProbeSilent) => LiveConnection::Silent(incarnation),
                _ => LiveConnection::Unprobed(incarnation),
            };
        }
        if self
            .links
            .iter()
            .any(|(_, link)| matches!(link.phase, Phase::Draining(_)))
        {
            return LiveConnection::Draining;
        }
        LiveConnection::None
    }

    fn other_up(&mut self) -> Option<&mut Receiver> {
        self.links.iter_mut().find_map(|(_, link)| match &mut link.phase {
            Phase::Up(receiver) => Some(&mut **receiver),
            _ => None,
        })
    }

    fn collect_probe(&mut self) -> Option<ReceiverEvent> {
        let receiver = self.other_up()?;
        let mut outcome = None;
        while let Some(event) = receiver.poll_event() {
            if matches!(event, ReceiverEvent::ProbeAnswered | ReceiverEvent::ProbeSilent) {
                outcome = Some(event);
            }
        }
        outcome
    }

    fn close_others(&mut self, keep: usize, bye: ByeReason) {
        let keep = self.links[keep].0;
        let others: Vec<_> = self.links.iter().map(|(id, _)| *id).filter(|id| *id != keep).collect();
        for id in others {
            if let Some(receiver) = self.other_up() {
                receiver.close(bye);
            }
            self.connection_lost(id);
            self.closed.push(id);
        }
    }

    fn forget_drained(&mut self) {
        self.links
            .retain(|(_, link)| !matches!(&link.phase, Phase::Draining(receiver) if receiver.is_drained()));
    }

    fn known(&self) -> Option<KnownEdge> {
        let is_empty = self.durable.w.iter().all(Option::is_none);
        if self.durable.incarnation.is_none() && is_empty {
            return None;
        }
        let lanes = self.durable.w.iter().enumerate().filter_map(|(lane, w)| {
            Some(LaneMark {
                lane: format!("lane{lane}"),
                run: Run(0),
                w: (*w)?,
            })
        });
        Some(KnownEdge {
            instance: 1,
            incarnation: self.durable.incarnation,
            lanes: lanes.collect(),
        })
    }

    pub(super) fn drain(&mut self, connections: &mut [Connection]) {
        let mut writes = std::mem::take(&mut self.outgoing);
        for (id, link) in &mut self.links {
            let Phase::Up(receiver) = &mut link.phase else { continue };
            while let Some(ingest) = receiver.poll_ingest() {
                self.commits.push_back(Commit {
                    connection: *id,
                    ingest,
                });
            }
            while let Some(bytes) = receiver.poll_transmit() {
                writes.push((*id, bytes.to_vec()));
            }
            assert_eq!(receiver.stats().known_frames, 0, "a resume sends nothing twice");
            if receiver.is_closed() {
                self.closed.push(*id);
            }
        }
        for (id, bytes) in writes {
            if let Some(connection) = connections.iter_mut().find(|connection| connection.id == id) {
                connection.write(DOWN, &bytes);
            }
        }
        let closed = self.closed.clone();
        closed.iter().for_each(|id| self.connection_lost(*id));
    }

    /// The next ingest becomes durable: records, declared ranges and W at once.
    pub(super) fn commit_one(&mut self) {
        let Some(Commit { connection, ingest }) = self.commits.pop_front() else {
            return;
        };
        let lane = ingest.lane.as_usize();
        assert_eq!(&*ingest.name, format!("lane{lane}"));
        for entry in &ingest.entries {
            match entry {
                IngestEntry::Batch { batch, skip, .. } => {
                    self.seen.records += u64::from(batch.header.count - skip);
                    self.seen.partly_known += u64::from(*skip > 0);
                }
                IngestEntry::Gap(_) => self.seen.gaps += 1,
                IngestEntry::Skip(_) => self.seen.skips += 1,
            }
            self.durable.append(lane, entry);
        }
        assert!(self.durable.w[lane] < Some(ingest.through), "W rises with each commit");
        self.durable.w[lane] = Some(ingest.through);
        self.ever_durable[lane] = self.ever_durable[lane].max(ingest.through.seq);
        let link = self.links.iter_mut().find(|(id, _)| *id == connection);
        if let Some((_, link)) = link {
            self.seen.durable_after_disconnect += u64::from(matches!(link.phase, Phase::Draining(_)));
            if let Phase::Up(receiver) | Phase::Draining(receiver) = &mut link.phase {
                receiver.handle_durable(ingest.lane, ingest.through);
            }
        }
    }

    pub(super) fn holds_all(&self, edge: &Edge) -> bool {
        let reached =
            |(lane, w): (&super::edge::EdgeLane, &Option<Position>)| w.map_or(Seq(1), |w| w.seq.next()) == lane.end;
        self.commits.is_empty() && edge.lanes.iter().zip(&self.durable.w).all(reached)
    }

    /// I4 and the books: each record once, in order, or declared for a reason that the model knows.
    pub(super) fn check_log(&self, edge: &Edge, restored: bool) {
        assert_eq!(self.refusals, [], "an honest edge is never refused");
        for (index, lane) in edge.lanes.iter().enumerate() {
            let log = &self.durable.log[index];
            assert!(
                log.windows(2)
                    .all(|pair| pair[0] < pair[1] && pair[0].seq < pair[1].seq),
                "I4: lane {index} of the log is out of order or doubled: {log:?}"
            );
            let declared = &self.durable.declared[index];
            assert!(
                declared.windows(2).all(|pair| pair[0].1 < pair[1].0),
                "a gap is stored once"
            );
            for (seq, minted) in &lane.minted {
                let in_log = log.binary_search_by_key(seq, |position| position.seq);
                let is_declared = declared.iter().any(|(first, last)| first <= seq && seq <= last);
                let may_be_missing = minted.excused || (restored && minted.trimmed);
                match in_log {
                    Ok(at) => {
                        assert_eq!(log[at].epoch, minted.epoch);
                        assert!(
                            !is_declared,
                            "record {seq} of lane {index} is in the log and declared lost"
                        );
                    }
                    Err(_) => {
                        assert!(
                            is_declared,
                            "I3: record {seq} of lane {index} is neither in the log nor declared"
                        );
                        assert!(may_be_missing, "record {seq} of lane {index} was given up without need");
                    }
                }
            }
        }
    }
}

impl Durable {
    fn append(&mut self, lane: usize, entry: &IngestEntry) {
        let next = self.end(lane);
        match entry {
            IngestEntry::Batch { batch, skip, .. } => {
                assert_eq!(
                    Seq(batch.header.first.0 + u64::from(*skip)),
                    next,
                    "I3: W passes over nothing"
                );
                let block = batch.open(1 << 20).unwrap();
                for (index, record) in block.iter().enumerate().skip(*skip as usize) {
                    let (epoch, seq) = (batch.header.epoch, batch.header.first.plus(index as u64));
                    let name = format!("{lane}/{epoch}/{seq} ");
                    assert!(
                        record.payload.starts_with(name.as_bytes()),
                        "a record keeps its position"
                    );
                    self.log[lane].push(Position { epoch, seq });
                }
            }
            IngestEntry::Gap(gap) => self.declare(lane, gap.epoch, gap.first, gap.last),
            IngestEntry::Skip(skip) => self.declare(lane, skip.epoch, skip.first, skip.last),
        }
    }

    fn declare(&mut self, lane: usize, epoch: Epoch, first: Seq, last: Seq) {
        assert_eq!(first, self.end(lane), "I3: W passes over nothing");
        assert!(epoch >= self.w[lane].map_or(Epoch(0), |w| w.epoch));
        self.declared[lane].push((first, last));
    }

    /// First number that the lane has neither in its log nor declared.
    fn end(&self, lane: usize) -> Seq {
        let logged = self.log[lane].last().map_or(Seq(0), |position| position.seq);
        let declared = self.declared[lane].last().map_or(Seq(0), |(_, last)| *last);
        logged.max(declared).next()
    }
}
