//! The cloud's driver of the link: the loops of admission and ingest around the real decisions.
//!
//! In: bytes of the streams, what the store says. Out: commits, frames for the edge. At most one link is up; the next one of the edge
//! waits until nothing of the former is under way.

use std::collections::BTreeMap;

use fellbeck_broker::session::Pressure;
use fellbeck_cloud::pure::{
    Book, Drafted, Flow, Footing, LaneCounts, LaneId, Mark, Moved, Places, Site, decode_mark, edge_key, edge_value,
};
use fellbeck_core::{Incarnation, Tick};
use fellbeck_link::admission::Circumstances;
use fellbeck_link::limits::CONTROL_FRAME_MAX;
use fellbeck_link::receiver::LaneStream;
use fellbeck_link::{
    Admission, ByeReason, ControlFrame, Decision, FrameDecoder, Hello, KnownEdge, LiveConnection, Receiver,
    ReceiverConfig, ReceiverEvent, admit,
};
use fellbeck_store::{Commit, Committed, Put, Space, Ticket};

use super::network::{Connection, DOWN, UP};
use super::node::Node;
use super::plan::Planted;
use super::store::{MemStore, Seat};
use super::uplink::EDGE;

const LOG_ID: [u8; 16] = [7; 16];
const LANE_FRAME_MAX: usize = 20_000;
/// Commits of one link under way.
const OUTSTANDING_MAX: usize = 3;

enum Phase {
    AwaitHello,
    /// The Hello waits for a decision; whether the edge of the other connection answered a probe.
    Deciding(Box<Hello>, Option<bool>),
    /// Who is admitted is being made durable.
    Remembering {
        hello: Box<Hello>,
        admission: Box<Admission>,
        ticket: Ticket,
        footing: Footing,
    },
    Up(Box<Receiver>),
    /// The connection is gone, what it had handed to the store is not.
    Draining(Box<Receiver>),
}

struct Link {
    id: u64,
    phase: Phase,
    decoders: Vec<Option<FrameDecoder>>,
    instance: u32,
    incarnation: Option<Incarnation>,
    seat: Seat,
    flow: Flow,
}

/// See the module.
pub(crate) struct Ingest {
    places: Places,
    books: Books,
    links: Vec<Link>,
    /// Connections that the cloud has closed.
    closed: Vec<u64>,
    planted: Option<Planted>,
}

/// What the cloud knows of the edge.
struct Books {
    book: Book,
    /// Counters of its lanes (P9).
    counts: BTreeMap<LaneId, LaneCounts>,
}

impl Books {
    /// What is durable of a link moves W, and only now (I3).
    fn committed(&mut self, flow: &mut Flow, committed: Committed, instance: u32, receiver: &mut Receiver) {
        while let Some((lane, moved)) = flow.durable(committed) {
            let Moved {
                lane: name,
                run,
                w,
                partitions,
                counts,
                ..
            } = moved;
            self.book.moved(&name, run, w);
            self.book.appended(&name, run, &partitions);
            self.counts.insert(LaneId::new(instance, &name, run), counts);
            receiver.handle_durable(lane, w);
        }
    }
}

fn load(store: &MemStore) -> Books {
    let mut book = Book::default();
    for stored in store.values_of(Space::Mark) {
        let mark = decode_mark(&stored.key, &stored.value).expect("what the cloud has written it can read");
        let track_of = |name: &str| store.tracks().find(|(_, known)| *known == name).map(|(track, _)| track);
        if !matches!(&mark, Mark::Edge { edge, .. } if edge != EDGE) {
            book.load(mark, track_of);
        }
    }
    Books {
        book,
        counts: lane_counts(store),
    }
}

/// The books of the lanes as they are on flash.
pub(crate) fn lane_counts(store: &MemStore) -> BTreeMap<LaneId, LaneCounts> {
    let values = store.values_of(Space::Node);
    let decoded = values
        .iter()
        .filter_map(|stored| LaneCounts::decode(&stored.key, &stored.value));
    decoded.map(|(_, lane, counts)| (lane, counts)).collect()
}

impl Ingest {
    pub(crate) fn new(places: Places, cloud: &Node, planted: Option<Planted>) -> Self {
        Self {
            places,
            books: load(&cloud.store),
            links: Vec::new(),
            closed: Vec::new(),
            planted,
        }
    }

    /// The process has started again on what the store holds.
    pub(crate) fn restart(&mut self, cloud: &Node) {
        self.books = load(&cloud.store);
        self.links.clear();
        self.closed.clear();
    }

    pub(crate) fn connection_lost(&mut self, id: u64) {
        let Some(at) = self.links.iter().position(|link| link.id == id) else {
            return;
        };
        let mut link = self.links.remove(at);
        if let Phase::Up(mut receiver) | Phase::Draining(mut receiver) = link.phase {
            receiver.handle_disconnected();
            link.phase = Phase::Draining(receiver);
            self.links.insert(at, link);
        }
    }

    /// Takes bytes of a stream. `instance`: what the certificate of the connection says.
    pub(crate) fn receive(
        &mut self,
        (id, instance): (u64, u32),
        stream: usize,
        bytes: &[u8],
        cloud: &Node,
        now_ms: u64,
    ) {
        if !self.links.iter().any(|link| link.id == id) {
            self.links.push(Link {
                id,
                phase: Phase::AwaitHello,
                decoders: Vec::new(),
                instance,
                incarnation: None,
                seat: Seat::default(),
                flow: Flow::default(),
            });
        }
        let found = self.links.iter_mut().find(|link| link.id == id);
        let link = found.expect("it was just put there");
        if link.decoders.len() <= stream {
            link.decoders.resize_with(stream + 1, || None);
        }
        let frame_max = if stream == UP {
            CONTROL_FRAME_MAX
        } else {
            LANE_FRAME_MAX
        };
        let decoder = link.decoders[stream].get_or_insert_with(|| FrameDecoder::new(frame_max));
        decoder.push(bytes);
        while let Some(raw) = decoder.next_frame().expect("the edge sends frames") {
            match &mut link.phase {
                Phase::AwaitHello => match ControlFrame::decode(&raw) {
                    Ok(ControlFrame::Hello(hello)) => link.phase = Phase::Deciding(Box::new(hello), None),
                    other => panic!("the edge begins with {other:?} instead of a hello"),
                },
                Phase::Up(receiver) if receiver.is_closed() => return,
                Phase::Up(receiver) if stream == UP => {
                    receiver.handle_control(&raw).expect("the edge keeps the protocol");
                }
                Phase::Up(receiver) => {
                    let taken = receiver.handle_lane_frame(LaneStream(stream as u64), &raw, cloud.wall(now_ms));
                    taken.expect("the edge keeps the protocol");
                }
                // Only a Bye can come before the Welcome.
                Phase::Deciding(..) | Phase::Remembering { .. } | Phase::Draining(_) => return,
            }
        }
    }

    pub(crate) fn timeout(&mut self, now_ms: u64) {
        let tick = Tick(std::time::Duration::from_millis(now_ms));
        for link in &mut self.links {
            if let Phase::Up(receiver) = &mut link.phase
                && receiver.poll_timeout().is_some_and(|due| due <= tick)
            {
                receiver.handle_timeout(tick);
            }
        }
    }

    /// All that can be done now. Returns the connections that are closed.
    pub(crate) fn drain(&mut self, cloud: &mut Node, connections: &mut [Connection], now_ms: u64) -> Vec<u64> {
        self.follow_store(cloud, now_ms);
        self.admit(cloud, connections, now_ms);
        for link in &mut self.links {
            let Phase::Up(receiver) = &mut link.phase else { continue };
            while link.flow.len() < OUTSTANDING_MAX
                && cloud.store.has_room(link.seat)
                && cloud.pressure != Pressure::Full
                && let Some(ingest) = receiver.poll_ingest()
            {
                let site = Site {
                    places: &self.places,
                    edge: (EDGE, link.instance),
                    now: cloud.wall(now_ms),
                    clock: cloud.clock,
                };
                let books = &self.books;
                let marks = || books.book.partitions(&ingest.name, ingest.run);
                let counts = |lane: &LaneId| books.counts.get(lane).copied();
                let drafted = link.flow.draft(&ingest, site, marks, counts);
                let Drafted { commit, draft, intake } = drafted.expect("the edge sends batches that open");
                let commit = plant(self.planted, &self.places, commit);
                let taken = cloud.store.submit(link.seat, commit, now_ms);
                let ticket = taken.expect("there is room");
                assert!(intake.is_none(), "no message of a world has a device message ID");
                link.flow.submitted(ticket, draft);
                if self.planted == Some(Planted::LinkAckAhead) {
                    let commit = cloud.store.newest();
                    let committed = Committed { ticket, commit };
                    self.books.committed(&mut link.flow, committed, link.instance, receiver);
                }
            }
            while let Some(bytes) = receiver.poll_transmit() {
                if let Some(connection) = connections.iter_mut().find(|connection| connection.id == link.id) {
                    connection.write(DOWN, &bytes);
                }
            }
            assert_eq!(receiver.stats().known_frames, 0, "a resume sends nothing twice");
            if receiver.is_closed() {
                self.closed.push(link.id);
            }
        }
        let closed = std::mem::take(&mut self.closed);
        closed.iter().for_each(|id| self.connection_lost(*id));
        closed
    }

    /// What has become durable.
    fn follow_store(&mut self, cloud: &mut Node, now_ms: u64) {
        for link in &mut self.links {
            if matches!(link.phase, Phase::AwaitHello | Phase::Deciding(..)) {
                continue;
            }
            while let Some(committed) = cloud.store.take_answer(link.seat) {
                match &mut link.phase {
                    Phase::Remembering {
                        hello,
                        admission,
                        ticket,
                        footing,
                    } => {
                        assert_eq!(committed.ticket, *ticket, "answers come in order");
                        if *footing == Footing::Anew {
                            self.books.book.begin(&[], &self.places.track_names);
                        }
                        self.books.book.admitted(link.instance, &hello.chain);
                        let config = ReceiverConfig {
                            credit: 1600,
                            lane_credit: 400,
                            frame_max: LANE_FRAME_MAX,
                            ingest_bytes_max: 600,
                            ..ReceiverConfig::new(LOG_ID)
                        };
                        let receiver = Receiver::new(config, hello, admission, cloud.wall(now_ms));
                        link.phase = Phase::Up(Box::new(receiver));
                    }
                    Phase::Up(receiver) | Phase::Draining(receiver) => {
                        if self.planted != Some(Planted::LinkAckAhead) {
                            self.books.committed(&mut link.flow, committed, link.instance, receiver);
                        }
                    }
                    Phase::AwaitHello | Phase::Deciding(..) => {}
                }
            }
        }
        // What was handed out and never submitted is not waited for: the edge sends it again.
        self.links
            .retain(|link| !(matches!(link.phase, Phase::Draining(_)) && link.flow.is_empty()));
    }

    /// The newest Hello is decided upon; whoever waits behind an older connection goes on waiting.
    fn admit(&mut self, cloud: &mut Node, connections: &mut [Connection], now_ms: u64) {
        if self
            .links
            .iter()
            .any(|link| matches!(link.phase, Phase::Remembering { .. }))
        {
            return;
        }
        let is_waiting = |link: &Link| matches!(link.phase, Phase::Deciding(..));
        let Some(newest) = self
            .links
            .iter()
            .rev()
            .find(|link| is_waiting(link))
            .map(|link| link.id)
        else {
            return;
        };
        // An older Hello that still waits belongs to a connection that the edge has left.
        self.links.retain(|link| link.id == newest || !is_waiting(link));
        let probed_now = self.collect_probe();
        let at = self.links.iter().position(|link| link.id == newest);
        let at = at.expect("the newest one was kept");
        let instance = self.links[at].instance;
        let superseded = self
            .links
            .iter()
            .find(|link| link.instance < instance)
            .map(|link| link.id);
        if let Some(superseded) = superseded {
            return self.leave(superseded, ByeReason::Replaced);
        }
        let Phase::Deciding(hello, probed) = &mut self.links[at].phase else {
            return;
        };
        *probed = probed.or(probed_now);
        let (hello, probed) = (hello.clone(), *probed);
        let live = self.live(newest, probed);
        let known = known(&self.books.book, instance, &hello);
        let circumstances = Circumstances {
            log_id: LOG_ID,
            certificate_name: EDGE,
            known: Some(&known),
            live,
        };
        match admit(&circumstances, &hello) {
            Decision::Accept(admission) => self.remember(at, hello, admission, cloud, now_ms),
            Decision::TakeOver(reason) => {
                let others: Vec<u64> = self
                    .links
                    .iter()
                    .map(|link| link.id)
                    .filter(|id| *id != newest)
                    .collect();
                others.into_iter().for_each(|id| self.leave(id, reason));
            }
            Decision::AwaitDrained => {}
            Decision::Probe => {
                let tick = Tick(std::time::Duration::from_millis(now_ms));
                if let Some(receiver) = self.other_up() {
                    receiver.start_probe(tick);
                }
            }
            Decision::Refuse { code, text } => {
                self.links.remove(at);
                let frame = ControlFrame::Refused { code, text }.encode();
                if let Some(connection) = connections.iter_mut().find(|connection| connection.id == newest) {
                    connection.write(DOWN, &frame);
                }
            }
        }
    }

    fn remember(&mut self, at: usize, hello: Box<Hello>, admission: Admission, cloud: &mut Node, now_ms: u64) {
        let link = &mut self.links[at];
        let footing = self.books.book.footing(link.instance, &hello);
        let incarnation = admission.incarnation;
        let mut commit = Commit {
            puts: vec![Put {
                space: Space::Mark,
                key: edge_key(EDGE),
                value: edge_value(link.instance, incarnation.epoch, &incarnation.id),
            }],
            ..Commit::default()
        };
        if footing == Footing::Carried {
            let carried = self.books.book.carried(EDGE, link.instance, &self.places.track_names);
            commit.puts.extend(carried);
        }
        link.seat = cloud.store.seat(OUTSTANDING_MAX);
        link.incarnation = Some(admission.incarnation);
        let ticket = cloud.store.submit(link.seat, commit, now_ms);
        link.phase = Phase::Remembering {
            hello,
            admission: Box::new(admission),
            ticket: ticket.expect("a new submitter has room"),
            footing,
        };
    }

    fn leave(&mut self, id: u64, reason: ByeReason) {
        for link in self.links.iter_mut().filter(|link| link.id == id) {
            if let Phase::Up(receiver) = &mut link.phase {
                receiver.close(reason);
            }
        }
        self.connection_lost(id);
        self.closed.push(id);
    }

    fn live(&self, except: u64, probed: Option<bool>) -> LiveConnection {
        let others = || self.links.iter().filter(|link| link.id != except);
        let up = others().find(|link| matches!(link.phase, Phase::Up(_)));
        if let Some(incarnation) = up.and_then(|link| link.incarnation) {
            return match probed {
                Some(true) => LiveConnection::Answered(incarnation),
                Some(false) => LiveConnection::Silent(incarnation),
                None => LiveConnection::Unprobed(incarnation),
            };
        }
        if others().any(|link| matches!(link.phase, Phase::Draining(_))) {
            return LiveConnection::Draining;
        }
        LiveConnection::None
    }

    fn other_up(&mut self) -> Option<&mut Receiver> {
        self.links.iter_mut().find_map(|link| match &mut link.phase {
            Phase::Up(receiver) => Some(&mut **receiver),
            _ => None,
        })
    }

    fn collect_probe(&mut self) -> Option<bool> {
        let receiver = self.other_up()?;
        let mut outcome = None;
        while let Some(event) = receiver.poll_event() {
            match event {
                ReceiverEvent::ProbeAnswered => outcome = Some(true),
                ReceiverEvent::ProbeSilent => outcome = Some(false),
                ReceiverEvent::GapDeclared { .. } | ReceiverEvent::Bye(_) => {}
            }
        }
        outcome
    }
}

/// A gap that moves W and leaves no record.
fn plant(planted: Option<Planted>, places: &Places, mut commit: Commit) -> Commit {
    if planted == Some(Planted::LostGapRecord) {
        commit.appends.retain(|append| append.track != places.gaps);
    }
    commit
}

/// What admission is told of the edge: nothing, where it does not go on behind the marks.
fn known(book: &Book, instance: u32, hello: &Hello) -> KnownEdge {
    match book.footing(instance, hello) {
        Footing::Anew => KnownEdge {
            instance,
            incarnation: None,
            lanes: Vec::new(),
        },
        Footing::Same | Footing::Carried => book.known(instance),
    }
}
