//! What must be true of a world that has come to rest.

use fellbeck_core::QoS;

use super::device::{Device, Fate, Got, Side};
use super::ingest::lane_counts;
use super::message::Message;
use super::node::{Node, TOPICS};
use super::oracle::{Held, INSTANCE};
use super::world::{World, effective};

/// A message that a reader must have.
struct Due {
    message: Message,
    qos: QoS,
}

impl World {
    /// Panics where a promise is broken.
    pub(crate) fn check(&self) {
        self.check_acked();
        self.check_lanes();
        self.check_lane_books();
        self.check_arrived();
        for device in self.devices.iter().filter(|device| device.is_reader && !device.clean) {
            self.check_reader(device);
        }
        self.check_missing();
        self.check_kept();
    }

    /// P1: what sessions have yet to read is not trimmed, unless they pin more than they may.
    fn check_kept(&self) {
        let is_excused = self.plan.pin_bytes != u64::MAX || self.oracle.damaged || self.oracle.edge_restored;
        let skipped = self.edge.core.books().ledger.skipped;
        assert!(
            is_excused || skipped == 0,
            "P1: {skipped} records were trimmed under the sessions of the edge"
        );
    }

    /// P1, P3: what a node acknowledged it has.
    fn check_acked(&self) {
        let oracle = &self.oracle;
        if oracle.edge_restored || oracle.cloud_restored || oracle.damaged {
            return;
        }
        for device in self.devices.iter().filter(|device| !device.is_reader) {
            for (n, sent) in device.sent.iter().enumerate() {
                let message = message(device, n);
                let copies = oracle.copies(device.side, message);
                assert!(
                    sent.fate != Fate::Acked || copies > 0,
                    "P1: message {n} of device {} was acknowledged and is gone",
                    device.id
                );
                assert!(
                    sent.fate != Fate::Open,
                    "message {n} of device {} is still open",
                    device.id
                );
            }
        }
    }

    /// P9 of the lanes: every record is in the log of the cloud, declared lost, or expired.
    fn check_lanes(&self) {
        if self.uplink.is_fenced {
            return;
        }
        for lane in &self.oracle.lanes {
            for seq in 1..=lane.minted.len() {
                let held = lane.cloud.get(seq - 1).copied().unwrap_or_default();
                let skipped = lane.skipped.get(seq - 1).copied().unwrap_or_default();
                assert!(
                    held != Held::Nothing || skipped,
                    "P9: record {seq} of lane {} is neither in the log nor declared",
                    lane.name
                );
            }
        }
    }

    /// P9 of the link: the cloud's books of the lanes close, and say what its log says.
    fn check_lane_books(&self) {
        for (id, counts) in lane_counts(&self.cloud.store) {
            let accounted = counts.stored + counts.known + counts.heartbeats + counts.expired + counts.gap;
            assert_eq!(
                counts.base + accounted,
                counts.through,
                "P9: the cloud's book of lane {id:?}: {counts:?}"
            );
            let lane = self.oracle.lanes.iter().find(|lane| lane.name == id.lane);
            let lane = lane.expect("a book is of a lane of the edge");
            if self.oracle.edge_restored || self.oracle.cloud_restored || id.instance != INSTANCE {
                continue;
            }
            let of = |what: Held| lane.cloud.iter().filter(|held| **held == what).count() as u64;
            assert_eq!(
                (counts.base, counts.stored, counts.gap, counts.through),
                (0, of(Held::Logged), of(Held::Declared), lane.minted.len() as u64),
                "P9: the cloud's book of lane {id:?}: {counts:?}"
            );
        }
    }

    /// P3: the cloud has each message as often as the edge has records of it that were not declared.
    fn check_arrived(&self) {
        if self.oracle.edge_restored {
            return;
        }
        for device in self
            .devices
            .iter()
            .filter(|device| !device.is_reader && device.side == Side::Edge)
        {
            for n in 0..device.sent.len() {
                let message = message(device, n);
                let logged = |lane: &super::oracle::Lane| {
                    let of_message = lane
                        .minted
                        .iter()
                        .enumerate()
                        .filter(|(_, minted)| minted.message == message);
                    let held = of_message.filter(|(at, _)| lane.cloud.get(*at) == Some(&Held::Logged));
                    held.count() as u32
                };
                let expected: u32 = self.oracle.lanes.iter().map(logged).sum();
                let arrived = self.oracle.copies(Side::Cloud, message);
                assert_eq!(arrived, expected, "P3: message {n} of device {}", device.id);
            }
        }
    }

    fn is_lenient(&self, side: Side) -> bool {
        match side {
            Side::Edge => self.oracle.edge_restored || self.oracle.damaged,
            Side::Cloud => self.oracle.cloud_restored || self.oracle.edge_restored,
        }
    }

    fn node_of(&self, side: Side) -> &Node {
        match side {
            Side::Edge => &self.edge,
            Side::Cloud => &self.cloud,
        }
    }

    /// What the log of its node holds for a reader since its subscription: for certain, or perhaps.
    fn due(&self, reader: &Device, certain: bool) -> Vec<Due> {
        let from = if certain { reader.since } else { reader.asked };
        let Some(from) = from else { return Vec::new() };
        let filter = fellbeck_core::Filter::parse(reader.filter).expect("a filter");
        let mut due = Vec::new();
        for kept in self.node_of(reader.side).store.log() {
            if kept.block.commit <= from || (kept.lost && certain) {
                continue;
            }
            for record in kept.block.tracks.iter().flat_map(|part| part.block.iter()) {
                let qos = effective(reader.qos, record.qos);
                if filter.matches(record.topic) {
                    due.push(Due {
                        message: Message::of(record.payload),
                        qos,
                    });
                }
            }
        }
        due
    }

    /// What came to a reader was due, at QoS 2 once, and in the order of the log.
    fn check_reader(&self, reader: &Device) {
        if self.is_lenient(reader.side) {
            return;
        }
        let due = self.due(reader, false);
        let mut next_at = [0; 3];
        let mut seen: Vec<Message> = Vec::new();
        for Got { message, qos } in &reader.got {
            assert!(
                due.iter().any(|due| due.message == *message),
                "device {} got {message:?}, which was not committed for it",
                reader.id
            );
            if *qos == QoS::AtMostOnce || seen.contains(message) {
                continue;
            }
            seen.push(*message);
            // What had expired for a session comes after all when a crash takes that back and the clock has jumped back too.
            let publisher = &self.devices[usize::from(message.device)];
            if publisher.sent[message.n as usize].expires {
                continue;
            }
            // A publisher's resend stands in the log again: what came is one of its records behind those before.
            let next = &mut next_at[*qos as usize];
            let place = due[*next..].iter().position(|due| due.message == *message);
            let Some(place) = place else {
                panic!("order: device {} got {message:?} behind a later one", reader.id)
            };
            *next += place + 1;
        }
        for Due { message, qos } in &due {
            let copies = due.iter().filter(|other| other.message == *message).count();
            let got = reader.got.iter().filter(|got| got.message == *message).count();
            let is_once = *qos != QoS::AtLeastOnce || (reader.connects == 1 && self.crashes(reader.side) == 0);
            assert!(
                !is_once || got <= copies,
                "device {} got {message:?} of QoS {qos:?} {got} times, the log has it {copies} times",
                reader.id
            );
        }
    }

    fn crashes(&self, side: Side) -> u64 {
        match side {
            Side::Edge => self.seen.edge_crashes,
            Side::Cloud => self.seen.cloud_crashes,
        }
    }

    /// What did not come to a reader was counted (I6).
    fn check_missing(&self) {
        for side in [Side::Edge, Side::Cloud] {
            let is_restored = match side {
                // What a damaged commit held of sessions is gone with it.
                Side::Edge => self.oracle.edge_restored || self.oracle.damaged,
                Side::Cloud => self.oracle.cloud_restored,
            };
            if is_restored {
                continue;
            }
            let mut missing = Vec::new();
            let readers = self
                .devices
                .iter()
                .filter(|device| device.is_reader && device.side == side && !device.clean);
            for reader in readers {
                for (at, Due { message, qos }) in self.due(reader, true).iter().enumerate() {
                    let got = reader.got.iter().any(|got| got.message == *message);
                    if *qos != QoS::AtMostOnce && !got {
                        missing.push((reader.id, at, *message));
                    }
                }
            }
            let ledger = self.node_of(side).core.books().ledger;
            let counted = ledger.dropped_total() + ledger.expired + ledger.skipped;
            assert!(
                missing.len() as u64 <= counted,
                "I6: {} messages are missing on the {side:?}, {counted} are counted; reader, place, message: {missing:?}, topics {:?}",
                missing.len(),
                TOPICS
            );
        }
    }
}

fn message(device: &Device, n: usize) -> Message {
    Message {
        device: device.id as u8,
        n: n as u32,
    }
}
