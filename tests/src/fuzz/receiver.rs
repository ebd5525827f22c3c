//! The cloud's half of the link under a hostile edge: a Hello, then frames in any order, with the driver's calls in between.
//!
//! Checks I3 and I4 against a plain model: what is handed to the log begins right behind the one before, W is what became durable,
//! and memory stays within the credit.

use std::collections::VecDeque;

use bytes::Bytes;
use fellbeck_core::{Position, Seq, Tick, WallTime};
use fellbeck_link::admission::{Circumstances, LaneMark};
use fellbeck_link::credit::cost;
use fellbeck_link::limits::{CONTROL_FRAME_MAX, PREFIX};
use fellbeck_link::receiver::LaneStream;
use fellbeck_link::{
    Admission, ByeReason, ControlFrame, Decision, FrameDecoder, Hello, Ingest, IngestEntry, KnownEdge, LiveConnection,
    RawFrame, Receiver, ReceiverConfig, admit,
};

use super::frames::mended_body;

const FRAME_MAX: usize = CONTROL_FRAME_MAX;
const LOG_ID: [u8; 16] = [7; 16];

/// Frames of the input that are not frames of the link but calls of the driver. The low bits of a stream call name the stream.
const CALL_STREAM: u8 = 0x80;
const CALL_INGEST: u8 = 0x90;
const CALL_DURABLE: u8 = 0x91;
const CALL_PROBE: u8 = 0x92;
const CALL_TIMEOUT: u8 = 0x93;
const CALL_CLOSE: u8 = 0x94;
const CALL_DISCONNECTED: u8 = 0x95;
const CALL_TRANSMIT: u8 = 0x96;

/// The input is a stream of frames with their lengths: a Hello, then frames and calls.
pub(super) fn link_receiver(data: &[u8]) -> bool {
    let mut decoder = FrameDecoder::new(FRAME_MAX);
    decoder.push(data);
    let Ok(Some(first)) = decoder.next_frame() else {
        return false;
    };
    let Ok(ControlFrame::Hello(hello)) = ControlFrame::decode(&first) else {
        return false;
    };
    let Some(mut world) = World::begin(&hello) else {
        return false;
    };
    while let Ok(Some(raw)) = decoder.next_frame() {
        world.step(&raw);
        world.check();
    }
    world.end()
}

/// What the model knows of one lane.
#[derive(Default)]
struct Lane {
    /// Last entry handed out; W at the start.
    taken: Option<Position>,
    handed_out: VecDeque<Position>,
    durable: Option<Position>,
}

struct World {
    receiver: Receiver,
    lanes: Vec<Lane>,
    names: Vec<LaneMark>,
    stream: LaneStream,
    outstanding_max: u64,
    ingests: usize,
}

/// The cloud's decision on a Hello, with a history of the edge where its instance is even. `None` where it is refused.
fn admitted(hello: &Hello) -> Option<Admission> {
    let marks = hello.lanes.iter().filter_map(|lane| {
        Some(LaneMark {
            lane: lane.lane.clone(),
            run: lane.run,
            w: Position {
                epoch: lane.epoch,
                seq: lane.acked?,
            },
        })
    });
    let known = KnownEdge {
        instance: hello.instance.max(1),
        incarnation: hello.chain.first().copied(),
        lanes: marks.collect(),
    };
    let known = hello.instance.is_multiple_of(2).then_some(&known);
    let mut lives = vec![LiveConnection::Draining];
    lives.extend(hello.chain.first().into_iter().flat_map(|incarnation| {
        let incarnation = *incarnation;
        [
            LiveConnection::Unprobed(incarnation),
            LiveConnection::Answered(incarnation),
            LiveConnection::Silent(incarnation),
        ]
    }));
    let decide = |live| {
        let circumstances = Circumstances {
            log_id: LOG_ID,
            certificate_name: &hello.edge,
            known,
            live,
        };
        admit(&circumstances, hello)
    };
    for live in lives {
        let decision = decide(live);
        assert!(
            !matches!(decision, Decision::Accept(_)),
            "two connections at a time: {decision:?}"
        );
    }
    match decide(LiveConnection::None) {
        Decision::Accept(admission) => Some(admission),
        Decision::Refuse { code, text } => {
            let refused = ControlFrame::Refused { code, text }.encode();
            assert!(refused.len() <= CONTROL_FRAME_MAX, "a refusal fits its stream");
            None
        }
        other => panic!("nothing to wait for, yet {other:?}"),
    }
}

impl World {
    /// Starts a receiver for the Hello. `None` where it is refused.
    fn begin(hello: &Hello) -> Option<Self> {
        let admission = admitted(hello)?;
        let config = ReceiverConfig {
            credit: 8192,
            lane_credit: 1024,
            frame_max: FRAME_MAX,
            batch_raw_max: FRAME_MAX,
            ingest_bytes_max: 2048,
            ..ReceiverConfig::new(LOG_ID)
        };
        let lane = |w: &Option<Position>| Lane {
            taken: *w,
            durable: *w,
            ..Lane::default()
        };
        let lane_max = cost((PREFIX + config.frame_max) as u64).max(config.lane_credit);
        Some(Self {
            outstanding_max: config.credit + hello.lanes.len() as u64 * lane_max,
            lanes: admission.lanes.iter().map(lane).collect(),
            names: hello
                .lanes
                .iter()
                .map(|lane| LaneMark {
                    lane: lane.lane.clone(),
                    run: lane.run,
                    w: Position::default(),
                })
                .collect(),
            receiver: Receiver::new(config, hello, &admission, WallTime(1)),
            stream: LaneStream(0),
            ingests: 0,
        })
    }

    fn step(&mut self, raw: &RawFrame) {
        let was_closed = self.receiver.is_closed();
        let receiver = &mut self.receiver;
        match raw.kind {
            0x80..=0x8f => self.stream = LaneStream(u64::from(raw.kind - CALL_STREAM)),
            CALL_INGEST => self.take_ingests(),
            CALL_DURABLE => self.make_durable(raw.body.first().map_or(0, |lane| usize::from(*lane))),
            CALL_PROBE => receiver.start_probe(Tick::default()),
            CALL_TIMEOUT => {
                if let Some(deadline) = receiver.poll_timeout() {
                    receiver.handle_timeout(deadline);
                }
            }
            CALL_CLOSE => receiver.close(ByeReason::Shutdown),
            CALL_DISCONNECTED => receiver.handle_disconnected(),
            CALL_TRANSMIT => self.transmit(),
            0x20..=0x2f => {
                let body = mended_body(raw.kind, &raw.body).map_or_else(|| raw.body.clone(), Bytes::from);
                let raw = RawFrame { kind: raw.kind, body };
                let taken = receiver.handle_lane_frame(self.stream, &raw, WallTime(2));
                assert!(taken.is_err() == receiver.is_closed(), "an error closes the link");
                assert!(!was_closed || taken.is_err(), "a closed link takes nothing");
            }
            _ => {
                let taken = receiver.handle_control(raw);
                assert!(taken.is_ok() || receiver.is_closed(), "an error closes the link");
                assert!(!was_closed || taken.is_err(), "a closed link takes nothing");
            }
        }
        while self.receiver.poll_event().is_some() {}
    }

    fn take_ingests(&mut self) {
        while let Some(ingest) = self.receiver.poll_ingest() {
            self.ingests += 1;
            let lane = &mut self.lanes[ingest.lane.as_usize()];
            assert!(!ingest.entries.is_empty(), "an ingest is not empty");
            for entry in &ingest.entries {
                lane.take(entry);
            }
            assert_eq!(Some(ingest.through), lane.taken, "an ingest ends with its last entry");
            lane.handed_out.push_back(ingest.through);
            self.check_name(&ingest);
        }
    }

    fn check_name(&self, ingest: &Ingest) {
        let name = &self.names[ingest.lane.as_usize()];
        assert_eq!((&*ingest.name, ingest.run), (name.lane.as_str(), name.run));
    }

    fn make_durable(&mut self, lane: usize) {
        let Some(through) = self.lanes.get_mut(lane).and_then(|lane| lane.handed_out.pop_front()) else {
            return;
        };
        self.lanes[lane].durable = Some(through);
        self.receiver
            .handle_durable(fellbeck_link::LaneIndex(lane as u16), through);
    }

    fn transmit(&mut self) {
        while let Some(frame) = self.receiver.poll_transmit() {
            let mut decoder = FrameDecoder::new(CONTROL_FRAME_MAX);
            decoder.push(&frame);
            let raw = decoder
                .next_frame()
                .expect("it fits the stream")
                .expect("one whole frame");
            let frame = ControlFrame::decode(&raw).expect("the edge can read it");
            if let ControlFrame::Ack(acks) = frame {
                for ack in acks {
                    assert_eq!(
                        Some(ack.w),
                        self.lanes[ack.lane.as_usize()].durable,
                        "I3: only W is acked"
                    );
                }
            }
        }
    }

    fn check(&self) {
        let receiver = &self.receiver;
        assert!(
            receiver.is_closed() || receiver.outstanding_bytes() <= self.outstanding_max,
            "{} bytes wait",
            receiver.outstanding_bytes()
        );
        let drained = self.lanes.iter().all(|lane| lane.handed_out.is_empty());
        assert_eq!(receiver.is_drained(), drained);
        let marks = self.lanes.iter().zip(&self.names).filter_map(|(lane, name)| {
            Some(LaneMark {
                w: lane.durable?,
                ..name.clone()
            })
        });
        assert_eq!(
            receiver.watermarks(),
            marks.collect::<Vec<_>>(),
            "W is what became durable"
        );
    }

    /// The connection goes, what was handed out becomes durable. True when anything was.
    fn end(mut self) -> bool {
        self.transmit();
        self.receiver.handle_disconnected();
        assert!(self.receiver.poll_ingest().is_none(), "nothing more is handed out");
        for lane in 0..self.lanes.len() {
            while !self.lanes[lane].handed_out.is_empty() {
                self.make_durable(lane);
            }
        }
        assert!(self.receiver.is_drained());
        self.check();
        self.ingests > 0
    }
}

impl Lane {
    /// The entry must begin right behind the one before (I2), with nothing of it a second time (I4).
    fn take(&mut self, entry: &IngestEntry) {
        let (epoch, first, last) = match entry {
            IngestEntry::Batch { batch, skip, .. } => {
                assert!(*skip < batch.header.count, "a batch with nothing new");
                let first = Seq(batch.header.first.0 + u64::from(*skip));
                (batch.header.epoch, first, batch.last())
            }
            IngestEntry::Gap(gap) => (gap.epoch, gap.first, gap.last),
            IngestEntry::Skip(skip) => (skip.epoch, skip.first, skip.last),
        };
        let before = self.taken.unwrap_or_default();
        assert_eq!(first, before.seq.next(), "no hole and no overlap");
        assert!(first <= last && before.epoch <= epoch, "positions rise");
        self.taken = Some(Position { epoch, seq: last });
    }
}
