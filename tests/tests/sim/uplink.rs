//! The edge's driver of the link: the loop of the uplink around the real [`Sender`], with the real memory of W.
//!
//! In: bytes of the control stream, reads of the store, commits. Out: frames in the streams of the connection, lazy commits.

use fellbeck_core::{Seq, Tick, TrackId};
use fellbeck_edge::pure::{Expiry, LOCAL_LANE, LOG_ID_KEY, Progress, entries};
use fellbeck_link::limits::CONTROL_FRAME_MAX;
use fellbeck_link::{
    Connected, Entry, FrameDecoder, LaneBounds, LaneIndex, LaneRead, LaneSpec, RefuseCode, Sender, SenderConfig,
    SenderEvent, StreamId,
};
use fellbeck_store::Space;

use super::network::{Connection, number};
use super::node::Node;
use super::oracle::Oracle;
use super::plan::Planted;
use super::store::Seat;

pub(crate) const EDGE: &str = "barn";
/// Submissions of the uplink that may be unanswered.
const OUTSTANDING_MAX: usize = 2;

/// See the module.
pub(crate) struct Uplink {
    pub(crate) connection: Option<u64>,
    /// Instance of the edge's certificate.
    pub(crate) instance: u32,
    /// The cloud will have nothing of this store before an operator acts.
    pub(crate) is_fenced: bool,
    sender: Sender,
    progress: Progress,
    seat: Seat,
    lanes: Vec<TrackId>,
    decoder: FrameDecoder,
    reads: Vec<LaneRead>,
    planted: Option<Planted>,
}

fn tick(now_ms: u64) -> Tick {
    Tick(std::time::Duration::from_millis(now_ms))
}

impl Uplink {
    /// Begins with what the store holds.
    pub(crate) fn new(edge: &mut Node, instance: u32, planted: Option<Planted>) -> Self {
        let (mut lanes, mut specs) = (Vec::new(), Vec::new());
        for (track, name) in edge.store.tracks() {
            let lane = name.strip_prefix("lane/").and_then(|name| name.rsplit_once('/'));
            let (name, run) = lane.expect("the tracks of an edge are lanes");
            if name != LOCAL_LANE {
                lanes.push(track);
                specs.push(LaneSpec {
                    name: name.to_owned(),
                    run: fellbeck_core::Run(run.parse().expect("a run is a number")),
                });
            }
        }
        let config = SenderConfig {
            read_bytes_max: 500,
            ..SenderConfig::default()
        };
        let log_id = edge.store.get(Space::Node, LOG_ID_KEY);
        let log_id = log_id.and_then(|stored| <[u8; 16]>::try_from(&stored.value[..]).ok());
        Self {
            connection: None,
            instance,
            is_fenced: false,
            sender: Sender::new(config, EDGE, specs),
            progress: Progress::new(log_id),
            seat: edge.store.seat(OUTSTANDING_MAX),
            lanes,
            decoder: FrameDecoder::new(CONTROL_FRAME_MAX),
            reads: Vec::new(),
            planted,
        }
    }

    pub(crate) fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    fn bounds(&self, edge: &Node) -> Vec<LaneBounds> {
        let bounds = |track: &TrackId| {
            let held = edge.store.bounds(*track);
            LaneBounds {
                epoch: held.epoch,
                first: held.first,
                end: held.end,
                acked: (held.acked.0 > 0).then_some(held.acked),
            }
        };
        self.lanes.iter().map(bounds).collect()
    }

    pub(crate) fn connect(&mut self, id: u64, edge: &Node, now_ms: u64) {
        let connected = Connected {
            instance: self.instance,
            chain: edge.store.chain().as_slice().to_vec(),
            log_id: self.progress.log_id(),
            lanes: self.bounds(edge),
            now: edge.wall(now_ms),
            clock: edge.clock,
        };
        self.connection = Some(id);
        self.decoder = FrameDecoder::new(CONTROL_FRAME_MAX);
        self.sender.handle_connected(connected, tick(now_ms));
    }

    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
        self.sender.handle_disconnected();
    }

    pub(crate) fn wants_close(&self) -> bool {
        self.connection.is_some() && self.sender.is_closed()
    }

    pub(crate) fn receive(&mut self, bytes: &[u8], now_ms: u64) {
        self.decoder.push(bytes);
        while let Some(raw) = self.decoder.next_frame().expect("the cloud sends frames") {
            if self.sender.is_closed() {
                return;
            }
            let taken = self.sender.handle_control(&raw, tick(now_ms));
            taken.expect("the cloud keeps the protocol");
        }
    }

    pub(crate) fn timeout(&mut self, now_ms: u64) {
        if self.sender.poll_timeout().is_some_and(|due| due <= tick(now_ms)) {
            self.sender.handle_timeout(tick(now_ms));
        }
    }

    /// The store has moved.
    pub(crate) fn log_moved(&mut self, edge: &Node) {
        if self.connection.is_some() {
            for (lane, bounds) in self.bounds(edge).into_iter().enumerate() {
                self.sender
                    .handle_log_end(LaneIndex(lane as u16), bounds.first, bounds.end);
            }
        }
    }

    /// Does all that the sender asks for.
    pub(crate) fn drain(&mut self, edge: &mut Node, connection: &mut Connection, oracle: &mut Oracle, now_ms: u64) {
        while let Some(event) = self.sender.poll_event() {
            self.event(&event, oracle);
        }
        while let Some((lane, w)) = self.sender.poll_acked() {
            oracle.edge_learns_w(lane.as_usize(), w);
            let track = self.lanes[lane.as_usize()];
            let mut seq = w.seq;
            if self.planted == Some(Planted::CursorAhead) {
                seq = seq.next().min(Seq(edge.store.bounds(track).end.0 - 1));
            }
            self.progress.remember_acked(track, seq, None);
        }
        self.flush(edge, now_ms);
        while let Some(read) = self.sender.poll_read() {
            self.reads.push(read);
        }
        for lane in 0..self.lanes.len() {
            let stream = StreamId::Lane(LaneIndex(lane as u16));
            if connection.is_full(stream) {
                self.sender.handle_stream_blocked(stream);
            } else {
                self.sender.handle_stream_writable(stream);
            }
        }
        while let Some(transmit) = self.sender.poll_transmit(edge.wall(now_ms)) {
            connection.write(number(transmit.stream), &transmit.bytes);
            if connection.is_full(transmit.stream) {
                self.sender.handle_stream_blocked(transmit.stream);
            }
        }
    }

    fn flush(&mut self, edge: &mut Node, now_ms: u64) {
        while edge.store.take_answer(self.seat).is_some() {}
        if let Some(commit) = self.progress.commit()
            && edge.store.submit(self.seat, commit, now_ms).is_ok()
        {
            self.progress.submitted();
        }
    }

    fn event(&mut self, event: &SenderEvent, oracle: &mut Oracle) {
        match event {
            SenderEvent::Welcomed { log_id, .. } => self.progress.remember_log(*log_id),
            SenderEvent::Refused {
                code: RefuseCode::Busy, ..
            }
            | SenderEvent::Bye(_)
            | SenderEvent::TimedOut
            | SenderEvent::CloudWentBack { .. } => {}
            SenderEvent::GapDeclared { lane, gap } => oracle.uplink_declares(lane.as_usize(), gap),
            SenderEvent::Refused { .. }
            | SenderEvent::Adopt { .. }
            | SenderEvent::Diverged { .. }
            | SenderEvent::CloudAhead { .. } => {
                oracle.fenced(event);
                self.is_fenced = true;
            }
        }
    }

    /// One read of the store ends: the `which`th. True when there was one.
    pub(crate) fn finish_read(
        &mut self,
        (which, fails): (u64, bool),
        edge: &Node,
        now_ms: u64,
        mut skipped: impl FnMut(usize, Seq, Seq),
    ) -> bool {
        let Some(which) = which.checked_rem(self.reads.len() as u64) else {
            return false;
        };
        let read = self.reads.swap_remove(which as usize);
        if fails {
            self.sender.handle_read_failed(&read, tick(now_ms));
            return true;
        }
        let track = self.lanes[read.lane.as_usize()];
        let found = edge.store.read_track(track, read.from, read.bytes_max);
        let expiry = Expiry {
            now: edge.wall(now_ms),
            clock: edge.clock,
            epoch: edge.store.epoch(),
        };
        let entries = entries(found, expiry);
        for entry in &entries {
            if let Entry::Skip(skip) = entry {
                skipped(read.lane.as_usize(), skip.first, skip.last);
            }
        }
        self.sender.handle_read(&read, entries, tick(now_ms));
        true
    }

    /// The cloud has everything, and the edge knows and remembers it.
    pub(crate) fn is_level(&self, edge: &Node) -> bool {
        let is_level = |track: &TrackId| {
            let bounds = edge.store.bounds(*track);
            bounds.acked.next() == bounds.end
        };
        self.sender.is_ready() && self.lanes.iter().all(is_level) && self.progress.commit().is_none()
    }
}
