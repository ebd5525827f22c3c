//! What truly is on flash, seen from outside, and the invariants that it must keep at each step.
//!
//! In: each commit that has become durable on either node, each W that the edge learns, each gap. Out: nothing, or a panic that names the
//! invariant. Knows the edge's records by position and the cloud's by the edge's position, and which message each one is.

use std::sync::Arc;

use fellbeck_cloud::pure::{Mark, decode_mark};
use fellbeck_core::{CommitNumber, Epoch, Position, Seq, TrackId};
use fellbeck_link::{Gap, SenderEvent};
use fellbeck_store::{CommittedBlock, Space};

use super::device::{Device, Side};
use super::message::Message;
use super::store::{Durable, MemStore};

/// A record that the edge has minted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minted {
    pub(crate) message: Message,
    epoch: Epoch,
    /// Its commit was lost to damage.
    pub(crate) damaged: bool,
    trimmed: bool,
}

/// What the cloud has of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Held {
    #[default]
    Nothing,
    Logged,
    Declared,
}

/// A forwarded lane.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) name: String,
    track: TrackId,
    /// By sequence number, from 1.
    pub(crate) minted: Vec<Minted>,
    pub(crate) cloud: Vec<Held>,
    /// The edge has declared it as expired.
    pub(crate) skipped: Vec<bool>,
    /// W as the edge has learned it, and as it stood in the cloud's marks last.
    learned: u64,
    durable: u64,
    /// Highest W on flash before the cloud was put back to a copy. The edge may have heard of it and compare it with its log only now.
    once: u64,
}

impl Lane {
    fn is_covered(&self, seq: u64) -> bool {
        let at = seq as usize - 1;
        let held = self.cloud.get(at).copied().unwrap_or_default();
        held != Held::Nothing || self.skipped.get(at).copied().unwrap_or_default()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) lanes: Vec<Lane>,
    /// Records of each message: by side, device, number.
    stored: [Vec<Vec<u32>>; 2],
    /// Highest number of a device that came first to a track.
    first_seen: [Vec<((u8, u32), u32)>; 2],
    highest: [CommitNumber; 2],
    /// Last position of each lane in each partition.
    last_in: Vec<((u32, usize), u64)>,
    gaps_track: Option<TrackId>,
    pub(crate) cloud_restored: bool,
    pub(crate) edge_restored: bool,
    pub(crate) damaged: bool,
    /// Gaps that were stored.
    pub(crate) gaps: u64,
}

/// Instance of the edge's certificate.
pub(crate) const INSTANCE: u32 = 1;

fn grow(list: &mut Vec<Vec<u32>>, message: Message) -> &mut u32 {
    let device = usize::from(message.device);
    if list.len() <= device {
        list.resize_with(device + 1, Vec::new);
    }
    let n = message.n as usize;
    if list[device].len() <= n {
        list[device].resize(n + 1, 0);
    }
    &mut list[device][n]
}

impl Oracle {
    pub(crate) fn new(lanes: Vec<(String, TrackId)>, gaps_track: Option<TrackId>) -> Self {
        let lane = |(name, track)| Lane {
            name,
            track,
            minted: Vec::new(),
            cloud: Vec::new(),
            skipped: Vec::new(),
            learned: 0,
            durable: 0,
            once: 0,
        };
        Self {
            lanes: lanes.into_iter().map(lane).collect(),
            stored: Default::default(),
            first_seen: Default::default(),
            highest: Default::default(),
            last_in: Vec::new(),
            gaps_track,
            cloud_restored: false,
            edge_restored: false,
            damaged: false,
            gaps: 0,
        }
    }

    /// Readable records of a message on a node.
    pub(crate) fn copies(&self, side: Side, message: Message) -> u32 {
        let of_device = self.stored[side as usize].get(usize::from(message.device));
        of_device
            .and_then(|list| list.get(message.n as usize))
            .copied()
            .unwrap_or(0)
    }

    fn rises(&mut self, side: Side, commit: CommitNumber) {
        let highest = &mut self.highest[side as usize];
        assert!(
            *highest < commit,
            "I5: commit {commit} of the {side:?} comes behind {highest}"
        );
        *highest = commit;
    }

    // ---- the edge

    pub(crate) fn edge_commit(&mut self, durable: &Durable, devices: &[Device]) {
        self.rises(Side::Edge, durable.commit);
        if let Some(block) = &durable.block {
            self.mint(block, false);
            self.check_devices(Side::Edge, block, devices);
        }
        for (track, first, end) in &durable.trimmed {
            self.trimmed(*track, *first, *end);
        }
    }

    fn mint(&mut self, block: &CommittedBlock, damaged: bool) {
        for part in &block.tracks {
            let mut lane = self.lanes.iter_mut().find(|lane| lane.track == part.track);
            if let Some(lane) = &lane {
                assert_eq!(
                    part.first.0,
                    lane.minted.len() as u64 + 1,
                    "I5: positions of {}",
                    lane.name
                );
            }
            for record in part.block.iter() {
                let message = Message::of(record.payload);
                *grow(&mut self.stored[0], message) += u32::from(!damaged);
                if let Some(lane) = &mut lane {
                    let epoch = part.epoch;
                    lane.minted.push(Minted {
                        message,
                        epoch,
                        damaged,
                        trimmed: false,
                    });
                }
            }
        }
    }

    fn trimmed(&mut self, track: TrackId, first: Seq, end: Seq) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.track == track) else {
            return;
        };
        for seq in first.0..end.0 {
            assert!(
                seq <= lane.learned,
                "I2: {} {seq} is trimmed, acknowledged is {}",
                lane.name,
                lane.learned
            );
            lane.minted[seq as usize - 1].trimmed = true;
        }
    }

    /// The commit that was durable last is unreadable.
    pub(crate) fn edge_damaged(&mut self, block: &Arc<CommittedBlock>) {
        self.damaged = true;
        for part in &block.tracks {
            for record in part.block.iter() {
                *grow(&mut self.stored[0], Message::of(record.payload)) -= 1;
            }
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.track == part.track) {
                let first = part.first.0 as usize - 1;
                let range = first..first + part.block.len();
                lane.minted[range].iter_mut().for_each(|minted| minted.damaged = true);
            }
        }
    }

    /// The edge was put back to a copy: what it minted since has never been.
    pub(crate) fn edge_back(&mut self, store: &MemStore) {
        self.edge_restored = true;
        self.stored[0].clear();
        self.first_seen[0].clear();
        self.highest[0] = store.newest();
        self.lanes.iter_mut().for_each(|lane| lane.minted.clear());
        for kept in store.log() {
            self.mint(&kept.block, kept.lost);
        }
    }

    pub(crate) fn fenced(&self, event: &SenderEvent) {
        assert!(self.edge_restored, "an honest edge is turned away: {event:?}");
    }

    /// I2 and I3: W never passes what the cloud has on flash, or was declared.
    pub(crate) fn edge_learns_w(&mut self, lane: usize, w: Position) {
        let lane = &mut self.lanes[lane];
        assert!(
            w.seq.0 <= lane.minted.len() as u64,
            "I2: {} is acknowledged up to {}, and only {} records were appended",
            lane.name,
            w.seq,
            lane.minted.len()
        );
        for seq in lane.learned + 1..=w.seq.0 {
            assert!(
                seq <= lane.once || lane.is_covered(seq),
                "I3: W of {} is {}, and the cloud lacks {seq}",
                lane.name,
                w.seq
            );
        }
        lane.learned = lane.learned.max(w.seq.0);
    }

    /// The edge tells the cloud that records have expired.
    pub(crate) fn skipped(&mut self, lane: usize, first: Seq, last: Seq, expires: impl Fn(Message) -> bool) {
        let lane = &mut self.lanes[lane];
        if lane.skipped.len() < last.0 as usize {
            lane.skipped.resize(last.0 as usize, false);
        }
        for seq in first.0..=last.0 {
            let at = seq as usize - 1;
            let message = lane.minted[at].message;
            assert!(
                expires(message),
                "I6: {} {seq} is skipped, and never expires",
                lane.name
            );
            lane.skipped[at] = true;
        }
    }

    /// The uplink did not find records that it had to send.
    pub(crate) fn uplink_declares(&self, lane: usize, gap: &Gap) {
        let lane = &self.lanes[lane];
        assert!(
            self.cloud_restored || self.edge_restored,
            "I2: {} lacks {}..={} ({}) without need",
            lane.name,
            gap.first,
            gap.last,
            gap.reason
        );
    }

    // ---- the cloud

    pub(crate) fn cloud_commit(&mut self, durable: &Durable, store: &MemStore, devices: &[Device]) {
        self.rises(Side::Cloud, durable.commit);
        let mut touched = Vec::new();
        if let Some(block) = &durable.block {
            self.log(block, &mut touched);
            self.check_devices(Side::Cloud, block, devices);
        }
        if durable.moved_marks || !touched.is_empty() {
            self.check_marks(store, &touched);
        }
    }

    /// The cloud was put back to a copy.
    pub(crate) fn cloud_back(&mut self, store: &MemStore) {
        self.cloud_restored = true;
        self.stored[1].clear();
        self.first_seen[1].clear();
        self.last_in.clear();
        self.highest[1] = store.newest();
        for lane in &mut self.lanes {
            lane.cloud.clear();
            lane.once = lane.once.max(lane.durable);
            lane.durable = 0;
        }
        for kept in store.log() {
            self.log(&kept.block, &mut Vec::new());
        }
        self.check_marks(store, &[]);
    }

    /// Takes the records of a commit. `touched`: lane and last position of what came over the link.
    fn log(&mut self, block: &CommittedBlock, touched: &mut Vec<(usize, u64)>) {
        for part in &block.tracks {
            for record in part.block.iter() {
                let Some(origin) = record.origin else {
                    *grow(&mut self.stored[1], Message::of(record.payload)) += 1;
                    continue;
                };
                let found = self.lanes.iter().position(|lane| lane.name == origin.lane);
                let lane = found.expect("a record names a lane of the edge");
                assert_eq!(origin.instance, INSTANCE, "a record of an instance that never was");
                touched.push((lane, origin.seq.0));
                if Some(part.track) == self.gaps_track {
                    self.declare(lane, record.payload);
                    continue;
                }
                let message = Message::of(record.payload);
                *grow(&mut self.stored[1], message) += 1;
                self.log_one(
                    lane,
                    part.track,
                    Position {
                        epoch: origin.epoch,
                        seq: origin.seq,
                    },
                    message,
                );
            }
        }
    }

    fn log_one(&mut self, lane: usize, track: TrackId, position: Position, message: Message) {
        let seq = position.seq.0;
        let place = (track.0, lane);
        match self.last_in.iter_mut().find(|(known, _)| *known == place) {
            Some((_, last)) => {
                assert!(*last < seq, "I4: {seq} comes behind {last} in a partition");
                *last = seq;
            }
            None => self.last_in.push((place, seq)),
        }
        let lane = &mut self.lanes[lane];
        let held = hold(&mut lane.cloud, seq);
        assert!(
            *held != Held::Logged,
            "I4: {} {seq} ({message:?}) is in the log twice",
            lane.name
        );
        assert!(
            *held != Held::Declared,
            "I4: {} {seq} is in the log and was declared lost",
            lane.name
        );
        *held = Held::Logged;
        if !self.edge_restored {
            let minted = &lane.minted[seq as usize - 1];
            assert_eq!(
                (minted.message, minted.epoch),
                (message, position.epoch),
                "I4: another record at {seq}"
            );
        }
    }

    fn declare(&mut self, lane: usize, payload: &[u8]) {
        let gap: serde_json::Value = serde_json::from_slice(payload).expect("a gap record is JSON");
        let number = |name: &str| gap[name].as_u64().expect("a gap record names its range");
        let (first, last) = (number("first"), number("last"));
        self.gaps += 1;
        let (cloud_restored, edge_restored) = (self.cloud_restored, self.edge_restored);
        let lane = &mut self.lanes[lane];
        for seq in first..=last {
            let minted = lane.minted.get(seq as usize - 1);
            let excused = minted.is_some_and(|minted| minted.damaged || (cloud_restored && minted.trimmed));
            assert!(
                excused || edge_restored,
                "I6: {} {seq} is declared lost without need",
                lane.name
            );
            let held = hold(&mut lane.cloud, seq);
            assert!(
                *held == Held::Nothing,
                "I4: {} {seq} is declared lost and was {held:?}",
                lane.name
            );
            *held = Held::Declared;
        }
    }

    /// W on flash lies over nothing that is not there (I3), and over everything that came with it (I4: nothing is sent again).
    fn check_marks(&mut self, store: &MemStore, touched: &[(usize, u64)]) {
        for stored in store.values_of(Space::Mark) {
            let mark = decode_mark(&stored.key, &stored.value).expect("a mark decodes");
            let Mark::Watermark { lane: key, position } = mark else {
                continue;
            };
            if key.instance != INSTANCE {
                continue;
            }
            let found = self.lanes.iter_mut().find(|lane| lane.name == key.lane);
            let lane = found.expect("a mark names a lane of the edge");
            for seq in lane.durable + 1..=position.seq.0 {
                assert!(
                    lane.is_covered(seq),
                    "I3: W of {} is {} on flash, and {seq} is not there",
                    lane.name,
                    position.seq
                );
            }
            lane.durable = lane.durable.max(position.seq.0);
        }
        for (lane, seq) in touched {
            let lane = &self.lanes[*lane];
            assert!(
                *seq <= lane.durable,
                "I4: {} {seq} is on flash, and W on flash is {}",
                lane.name,
                lane.durable
            );
        }
    }

    // ---- devices

    /// No more records of a message than PUBLISH packets were taken, QoS 2 once, and the first of each in order.
    fn check_devices(&mut self, side: Side, block: &CommittedBlock, devices: &[Device]) {
        for part in &block.tracks {
            if side == Side::Cloud && Some(part.track) == self.gaps_track {
                continue;
            }
            for record in part.block.iter() {
                let message = Message::of(record.payload);
                let device = &devices[usize::from(message.device)];
                let copies = self.copies(side, message);
                let sent = device.sent[message.n as usize];
                let name = &device.name;
                if !self.edge_restored && !self.cloud_restored {
                    assert!(
                        copies <= sent.taken,
                        "I4: {name} {} is stored {copies} times",
                        message.n
                    );
                    let is_once = sent.qos == fellbeck_core::QoS::ExactlyOnce && !self.damaged;
                    assert!(
                        !is_once || copies == 1,
                        "P3: {name} {} of QoS 2 is stored {copies} times",
                        message.n
                    );
                }
                let lane = record.origin.map_or(0, |origin| origin.lane.len() as u32);
                // The first record of a message may expire on the edge, and the one of its resend not.
                let is_lenient =
                    self.edge_restored || self.cloud_restored || self.damaged || sent.expires || sent.was_refused;
                if copies == 1 && !is_lenient {
                    self.in_order(side, (message.device, part.track.0 << 8 | lane), message.n);
                }
            }
        }
    }

    fn in_order(&mut self, side: Side, key: (u8, u32), n: u32) {
        let seen = &mut self.first_seen[side as usize];
        match seen.iter_mut().find(|(known, _)| *known == key) {
            Some((_, last)) => {
                assert!(
                    *last < n,
                    "order: message {n} of device {} comes behind {last} on the {side:?}",
                    key.0
                );
                *last = n;
            }
            None => seen.push((key, n)),
        }
    }
}

fn hold(cloud: &mut Vec<Held>, seq: u64) -> &mut Held {
    if cloud.len() < seq as usize {
        cloud.resize(seq as usize, Held::Nothing);
    }
    &mut cloud[seq as usize - 1]
}
