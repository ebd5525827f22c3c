//! The edge of the pair: a log per lane that survives a kill, and the driver loop around the sender.

use std::collections::BTreeMap;

use fellbeck_core::incarnation::IncarnationChain;
use fellbeck_core::{
    Batch, ClockQuality, DropReason, Epoch, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Run, Seq, Tick,
    WallTime,
};
use rand::Rng;
use rand::rngs::StdRng;

use super::network::{Connection, UP, number};
use crate::limits::CONTROL_FRAME_MAX;
use crate::{
    Connected, Entry, FrameDecoder, Gap, LaneBounds, LaneIndex, LaneRead, LaneSpec, Sender, SenderConfig, SenderEvent,
    Skip, StreamId,
};

/// Records of acked batches that are kept for a cloud that went back.
const GRACE: u64 = 15;

/// One lane of the store. All of it is durable but `acked`, whose moves are written lazily.
#[derive(Clone)]
pub(super) struct EdgeLane {
    entries: Vec<Entry>,
    pub(super) first: Seq,
    pub(super) end: Seq,
    acked: Seq,
    acked_on_flash: Seq,
    /// First numbers of batches that have expired.
    expired: Vec<Seq>,
    /// Epoch of each record ever minted; what was lost by damage or expiry is marked.
    pub(super) minted: BTreeMap<Seq, Minted>,
}

#[derive(Clone, Copy)]
pub(super) struct Minted {
    pub(super) epoch: Epoch,
    /// May be missing in the cloud: damaged on the edge or expired.
    pub(super) excused: bool,
    /// Trimmed on the edge: only a restored cloud may still lack it.
    pub(super) trimmed: bool,
}

pub(super) struct Edge {
    pub(super) name: String,
    pub(super) lanes: Vec<EdgeLane>,
    pub(super) connection: Option<u64>,
    chain: IncarnationChain,
    log_id: Option<[u8; 16]>,
    instance: u32,
    sender: Sender,
    decoder: FrameDecoder,
    reads: Vec<LaneRead>,
    pub(super) events: Vec<SenderEvent>,
}

fn lane_name(lane: usize) -> String {
    format!("lane{lane}")
}

fn new_sender(name: &str, lanes: usize) -> Sender {
    let config = SenderConfig {
        read_bytes_max: 1500,
        ..SenderConfig::default()
    };
    let spec = |lane| LaneSpec {
        name: lane_name(lane),
        run: Run(0),
    };
    Sender::new(config, name, (0..lanes).map(spec).collect())
}

impl Edge {
    pub(super) fn new(lanes: usize) -> Self {
        let mut chain = IncarnationChain::default();
        chain.succeed([1; 16], Epoch(1)).unwrap();
        let lane = || EdgeLane {
            entries: Vec::new(),
            first: Seq(1),
            end: Seq(1),
            acked: Seq(0),
            acked_on_flash: Seq(0),
            expired: Vec::new(),
            minted: BTreeMap::new(),
        };
        Self {
            name: "e1".into(),
            lanes: (0..lanes).map(|_| lane()).collect(),
            connection: None,
            chain,
            log_id: None,
            instance: 0,
            sender: new_sender("e1", lanes),
            decoder: FrameDecoder::new(CONTROL_FRAME_MAX),
            reads: Vec::new(),
            events: Vec::new(),
        }
    }

    fn epoch(&self) -> Epoch {
        self.chain.newest().unwrap().epoch
    }

    pub(super) fn connect(&mut self, id: u64, tick: Tick, wall: WallTime) {
        let epoch = self.epoch();
        let bounds = |lane: &EdgeLane| LaneBounds {
            epoch,
            first: lane.first,
            end: lane.end,
            acked: (lane.acked > Seq(0)).then_some(lane.acked),
        };
        let connected = Connected {
            instance: self.instance,
            chain: self.chain.as_slice().to_vec(),
            log_id: self.log_id,
            lanes: self.lanes.iter().map(bounds).collect(),
            now: wall,
            clock: ClockQuality::Synced,
        };
        self.connection = Some(id);
        self.decoder = FrameDecoder::new(CONTROL_FRAME_MAX);
        self.sender.handle_connected(connected, tick);
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.sender.handle_disconnected();
    }

    pub(super) fn wants_close(&self) -> bool {
        self.connection.is_some() && self.sender.is_closed()
    }

    pub(super) fn append(&mut self, random: &mut StdRng) {
        let lane = random.random_range(0..self.lanes.len());
        let count = random.random_range(1..=5);
        let padding = if random.random_bool(0.1) {
            900
        } else {
            random.random_range(0..60)
        };
        self.append_to(lane, count, padding);
    }

    pub(super) fn append_to(&mut self, index: usize, count: u64, padding: usize) {
        let epoch = self.epoch();
        let lane = &mut self.lanes[index];
        let batch = Batch::seal(epoch, lane.end, &block(index, epoch, lane.end, count, padding));
        lane.entries.push(Entry::Batch(batch));
        for seq in lane.end.0..lane.end.0 + count {
            let minted = Minted {
                epoch,
                excused: false,
                trimmed: false,
            };
            lane.minted.insert(Seq(seq), minted);
        }
        lane.end = lane.end.plus(count);
        let (first, end) = (lane.first, lane.end);
        self.sender.handle_log_end(LaneIndex(index as u16), first, end);
    }

    pub(super) fn expire_one(&mut self, random: &mut StdRng) {
        let index = random.random_range(0..self.lanes.len());
        let lane = &mut self.lanes[index];
        if lane.entries.is_empty() {
            return;
        }
        let which = random.random_range(0..lane.entries.len());
        if let Entry::Batch(batch) = &lane.entries[which] {
            lane.expired.push(batch.header.first);
            lane.minted
                .range_mut(batch.range())
                .for_each(|(_, minted)| minted.excused = true);
        }
    }

    /// Two neighbouring batches become one, as merging before sending would do: W may then lie within a batch.
    pub(super) fn merge_one(&mut self, random: &mut StdRng) {
        let index = random.random_range(0..self.lanes.len());
        let lane = &mut self.lanes[index];
        if lane.entries.len() < 2 {
            return;
        }
        let which = random.random_range(0..lane.entries.len() - 1);
        let [Entry::Batch(one), Entry::Batch(two)] = &lane.entries[which..which + 2] else {
            return;
        };
        let expired = |batch: &Batch| lane.expired.contains(&batch.header.first);
        if one.header.epoch != two.header.epoch || expired(one) || expired(two) {
            return;
        }
        let blocks = [one.open(1 << 20).unwrap(), two.open(1 << 20).unwrap()];
        let merged = Batch::seal(one.header.epoch, one.header.first, &RecordBlock::concat(&blocks));
        lane.entries.splice(which..which + 2, [Entry::Batch(merged)]);
    }

    /// A copy of what is on flash, to be started elsewhere.
    pub(super) fn copy_of_disk(&self) -> Self {
        let mut copy = Self::new(self.lanes.len());
        copy.chain = self.chain.clone();
        copy.log_id = self.log_id;
        copy.instance = self.instance;
        copy.lanes = self.lanes.clone();
        copy
    }

    /// The cursors reach flash, and what lies below them and outside of the grace window goes.
    pub(super) fn flush_cursors(&mut self, random: &mut StdRng) {
        self.flush_cursors_keeping(if random.random_bool(0.3) { 0 } else { GRACE });
    }

    pub(super) fn flush_cursors_keeping(&mut self, grace: u64) {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            lane.acked_on_flash = lane.acked;
            let keep_above = Seq(lane.acked_on_flash.0.saturating_sub(grace));
            while lane.entries.first().is_some_and(|entry| last(entry) <= keep_above) {
                let entry = lane.entries.remove(0);
                let range = lane.first..=last(&entry);
                lane.minted
                    .range_mut(range)
                    .for_each(|(_, minted)| minted.trimmed = true);
                lane.first = last(&entry).next();
            }
            let (first, end) = (lane.first, lane.end);
            self.sender.handle_log_end(LaneIndex(index as u16), first, end);
        }
    }

    /// The process dies and starts again: a new incarnation; cursors fall back to what is on flash.
    pub(super) fn kill(&mut self, lose_suffix: bool) {
        self.kill_as(1, lose_suffix);
    }

    /// As `kill`; `which` tells the incarnations of copies apart.
    pub(super) fn kill_as(&mut self, which: u8, lose_suffix: bool) {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&(self.epoch().0 + 1).to_be_bytes());
        id[15] = which;
        self.chain.succeed(id, Epoch(0)).unwrap();
        let epoch = self.epoch();
        for lane in &mut self.lanes {
            lane.acked = lane.acked_on_flash;
            if lose_suffix && lane.entries.len() > 1 {
                lane.lose_last_entry(epoch);
            }
        }
        self.connection = None;
        self.reads.clear();
        self.sender = new_sender(&self.name, self.lanes.len());
    }

    pub(super) fn receive(&mut self, bytes: &[u8], tick: Tick) {
        self.decoder.push(bytes);
        while let Some(raw) = self.decoder.next_frame().expect("the cloud sends frames") {
            if self.sender.is_closed() {
                return;
            }
            self.sender
                .handle_control(&raw, tick)
                .expect("the cloud keeps the protocol");
        }
    }

    pub(super) fn timeout(&mut self, tick: Tick) {
        if self.sender.poll_timeout().is_some_and(|due| due <= tick) {
            self.sender.handle_timeout(tick);
        }
    }

    /// The driver: events, W, reads, frames, until all are dry.
    pub(super) fn drain(&mut self, connection: &mut Connection, wall: WallTime) {
        while let Some(event) = self.sender.poll_event() {
            if let SenderEvent::Welcomed { log_id, instance, .. } = &event {
                self.log_id = Some(*log_id);
                self.instance = *instance;
            }
            self.events.push(event);
        }
        while let Some((lane, w)) = self.sender.poll_acked() {
            let lane = &mut self.lanes[lane.as_usize()];
            assert!(w.seq > lane.acked, "W is told only when it rises");
            assert!(w.seq < lane.end, "I2: acked beyond what was appended");
            lane.acked = w.seq;
        }
        while let Some(read) = self.sender.poll_read() {
            assert!(self.reads.iter().filter(|other| other.lane == read.lane).count() < 8);
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
        while let Some(transmit) = self.sender.poll_transmit(wall) {
            let stream = number(transmit.stream);
            assert!(stream == UP || !connection.is_full(transmit.stream) || transmit.bytes.len() > 1);
            connection.write(stream, &transmit.bytes);
            if connection.is_full(transmit.stream) {
                self.sender.handle_stream_blocked(transmit.stream);
            }
        }
    }

    pub(super) fn finish_read(&mut self, random: &mut StdRng, tick: Tick) {
        if self.reads.is_empty() {
            return;
        }
        let read = self.reads.remove(random.random_range(0..self.reads.len()));
        match random.random_range(0..20) {
            0 => self.sender.handle_read_failed(&read, tick),
            1 => self.sender.handle_read(&read, Vec::new(), tick),
            _ => self.answer(&read, tick),
        }
    }

    pub(super) fn finish_read_surely(&mut self, tick: Tick) {
        if let Some(read) = self.reads.pop() {
            self.answer(&read, tick);
        }
    }

    fn answer(&mut self, read: &LaneRead, tick: Tick) {
        let lane = &self.lanes[read.lane.as_usize()];
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in lane.entries.iter().filter(|entry| last(entry) >= read.from) {
            if bytes >= read.bytes_max {
                break;
            }
            bytes += if let Entry::Batch(batch) = entry {
                batch.encoded_len()
            } else {
                20
            };
            entries.push(lane.as_sent(entry));
        }
        self.sender.handle_read(read, entries, tick);
    }

    /// W as the edge knows it never passes what the cloud has had on flash (I3).
    pub(super) fn check_acks(&self, ever_durable: &[Seq]) {
        for (lane, durable) in self.lanes.iter().zip(ever_durable) {
            assert!(
                lane.acked <= *durable,
                "I3: acked {} with {durable} durable",
                lane.acked
            );
        }
    }

    pub(super) fn acked(&self, lane: usize) -> Seq {
        self.lanes[lane].acked
    }

    pub(super) fn frames_sent(&self) -> u64 {
        self.sender.stats().frames
    }

    pub(super) fn is_settled(&self) -> bool {
        self.sender.is_ready() && self.lanes.iter().all(|lane| lane.acked.next() == lane.end)
    }
}

impl EdgeLane {
    /// Damage at the end of the store: the last entry is gone, its numbers are known from the high-water file.
    fn lose_last_entry(&mut self, epoch: Epoch) {
        let Some(lost) = self.entries.pop() else { return };
        let (first, last) = (first(&lost), last(&lost));
        self.minted
            .range_mut(first..=last)
            .for_each(|(_, minted)| minted.excused = true);
        self.entries.push(Entry::Gap(Gap {
            epoch,
            first,
            last,
            reason: DropReason::LostSuffix,
        }));
    }

    fn as_sent(&self, entry: &Entry) -> Entry {
        match entry {
            Entry::Batch(batch) if self.expired.contains(&batch.header.first) => Entry::Skip(Skip {
                epoch: batch.header.epoch,
                first: batch.header.first,
                last: batch.last(),
            }),
            other => other.clone(),
        }
    }
}

fn first(entry: &Entry) -> Seq {
    match entry {
        Entry::Batch(batch) => batch.header.first,
        Entry::Gap(gap) => gap.first,
        Entry::Skip(skip) => skip.first,
    }
}

fn last(entry: &Entry) -> Seq {
    match entry {
        Entry::Batch(batch) => batch.last(),
        Entry::Gap(gap) => gap.last,
        Entry::Skip(skip) => skip.last,
    }
}

/// Records that name themselves: the payload begins with lane, epoch and number.
fn block(lane: usize, epoch: Epoch, first: Seq, count: u64, padding: usize) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    for seq in first.0..first.0 + count {
        let payload = format!("{lane}/{epoch}/{seq} {}", "x".repeat(padding));
        builder.push(&Record {
            device: "d",
            topic: "t",
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}
