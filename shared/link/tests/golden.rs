//! Golden bytes of the link: one file per form of each frame, prefix included, decodes to the frame spelled out here and is written
//! again byte for byte. The codes inside frames keep their numbers.

use fellbeck_core::{
    Batch, ClockQuality, DropReason, Epoch, Incarnation, Position, Properties, QoS, Record, RecordBlockBuilder, Run,
    Seq, WallTime,
};
use fellbeck_link::limits::CONTROL_FRAME_MAX;
use fellbeck_link::{
    ByeReason, ControlFrame, FrameDecoder, FrameError, Gap, Hello, LaneAck, LaneFrame, LaneHello, LaneIndex,
    LaneWelcome, NodeKind, RawFrame, RefuseCode, Skip, Welcome,
};

#[path = "../../core/tests/golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden_of};

/// The one frame that `bytes` are.
fn raw(bytes: &[u8]) -> Option<RawFrame> {
    let mut decoder = FrameDecoder::new(CONTROL_FRAME_MAX);
    decoder.push(bytes);
    let frame = decoder.next_frame().ok()??;
    decoder.is_empty().then_some(frame)
}

fn control(bytes: &[u8]) -> Option<ControlFrame> {
    ControlFrame::decode(&raw(bytes)?).ok()
}

/// As text: a lane frame cannot be compared.
fn lane(bytes: &[u8]) -> Option<String> {
    Some(format!("{:?}", LaneFrame::decode(&raw(bytes)?).ok()?))
}

fn position(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}

fn full_hello() -> Hello {
    let incarnation = |epoch, id, parent| Incarnation {
        epoch: Epoch(epoch),
        id: [id; 16],
        parent: [parent; 16],
    };
    let lane = |lane: &str, run, first, end, acked| LaneHello {
        lane: lane.into(),
        run: Run(run),
        epoch: Epoch(70_000),
        first: Seq(first),
        end: Seq(end),
        acked,
    };
    Hello {
        edge: "barn-n\u{f6}rd".into(),
        instance: 2,
        kind: NodeKind::Edge,
        chain: vec![incarnation(3, 0xa3, 0xa2), incarnation(70_000, 0xa4, 0xa3)],
        log_id: Some([0xc1; 16]),
        lanes: vec![
            lane("default", 0, 300, 1 << 40, Some(Seq(299))),
            lane("alarms", 513, 1, 1, None),
        ],
        now: WallTime(1_700_000_000_123),
        clock: ClockQuality::Synced,
    }
}

/// Of an edge that never spoke to a cloud and has nothing.
fn first_hello() -> Hello {
    Hello {
        edge: "e".into(),
        instance: 0,
        chain: Vec::new(),
        log_id: None,
        lanes: Vec::new(),
        now: WallTime(0),
        clock: ClockQuality::Unknown,
        ..full_hello()
    }
}

fn full_welcome() -> Welcome {
    Welcome {
        log_id: [0xc1; 16],
        instance: 2,
        now: WallTime(1_700_000_000_456),
        lanes: vec![
            LaneWelcome {
                w: Some(position(7, 1 << 40)),
            },
            LaneWelcome { w: None },
        ],
        credit: 8 << 20,
        lane_credit: 65_536,
        adopt: Some(Epoch(70_001)),
    }
}

fn control_frames() -> Vec<(&'static str, ControlFrame)> {
    let plain_welcome = Welcome {
        lanes: Vec::new(),
        adopt: None,
        ..full_welcome()
    };
    let refused = ControlFrame::Refused {
        code: RefuseCode::Fenced,
        text: "another store carries this name: d\u{e9}j\u{e0} vu".into(),
    };
    let ack = |lane, w| LaneAck {
        lane: LaneIndex(lane),
        w,
    };
    let acks = vec![ack(0, position(3, 300)), ack(63, position(70_000, 1 << 62))];
    vec![
        ("hello-full.bin", ControlFrame::Hello(full_hello())),
        ("hello-first.bin", ControlFrame::Hello(first_hello())),
        ("welcome-full.bin", ControlFrame::Welcome(full_welcome())),
        ("welcome-plain.bin", ControlFrame::Welcome(plain_welcome)),
        ("refused.bin", refused),
        ("ack.bin", ControlFrame::Ack(acks)),
        ("credit.bin", ControlFrame::Credit(u64::MAX)),
        (
            "ping.bin",
            ControlFrame::Ping {
                nonce: 0x0102_0304_0506_0708,
            },
        ),
        (
            "pong.bin",
            ControlFrame::Pong {
                nonce: 0x0102_0304_0506_0708,
            },
        ),
        ("bye.bin", ControlFrame::Bye(ByeReason::Adopting)),
    ]
}

fn batch() -> Batch {
    let mut builder = RecordBlockBuilder::default();
    // One small record, which is never compressed.
    builder.push(&Record {
        device: "sensor-7",
        topic: "plant/1/temperature",
        payload: b"21.5",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
        expiry_secs: Some(60),
        origin: None,
        path: "",
    });
    Batch::seal(Epoch(3), Seq(300), &builder.finish())
}

fn lane_frames() -> Vec<(&'static str, LaneFrame)> {
    let gap = Gap {
        epoch: Epoch(3),
        first: Seq(301),
        last: Seq(1 << 40),
        reason: DropReason::BeyondGrace,
    };
    let skip = Skip {
        epoch: Epoch(70_000),
        first: Seq(1),
        last: Seq(1 << 62),
    };
    let sent_at = WallTime(1_700_000_000_789);
    vec![
        ("lane-start.bin", LaneFrame::Start(LaneIndex(63))),
        (
            "batch.bin",
            LaneFrame::Batch {
                sent_at,
                batch: batch(),
            },
        ),
        ("gap.bin", LaneFrame::Gap(gap)),
        ("skip.bin", LaneFrame::Skip(skip)),
    ]
}

#[test]
fn control_frames_of_version_1() {
    for (name, frame) in control_frames() {
        let stored = golden_of(name, &frame.encode());
        assert_eq!(control(&stored), Some(frame), "{name}");
        assert_damage_shows(&stored, |_| false, control);
    }
}

#[test]
fn lane_frames_of_version_1() {
    for (name, frame) in lane_frames() {
        let stored = golden_of(name, &frame.encode());
        assert_eq!(lane(&stored), Some(format!("{frame:?}")), "{name}");
        assert_damage_shows(&stored, |_| false, lane);
    }
}

/// A frame type that is added must be frozen here, too: this does not compile, or fails, until it is.
#[test]
fn every_frame_type_has_a_golden_file() {
    let control_type = |frame: &ControlFrame| match frame {
        ControlFrame::Hello(_) => 0x01,
        ControlFrame::Welcome(_) => 0x02,
        ControlFrame::Refused { .. } => 0x03,
        ControlFrame::Ack(_) => 0x04,
        ControlFrame::Credit(_) => 0x05,
        ControlFrame::Ping { .. } => 0x06,
        ControlFrame::Pong { .. } => 0x07,
        ControlFrame::Bye(_) => 0x08,
    };
    let lane_type = |frame: &LaneFrame| match frame {
        LaneFrame::Start(_) => 0x20,
        LaneFrame::Batch { .. } => 0x21,
        LaneFrame::Gap(_) => 0x22,
        LaneFrame::Skip(_) => 0x23,
    };
    let control = control_frames().into_iter().map(|(_, frame)| {
        let kind = control_type(&frame);
        (kind, frame.encode())
    });
    let lane = lane_frames().into_iter().map(|(_, frame)| {
        let kind = lane_type(&frame);
        (kind, frame.encode())
    });
    let mut seen = Vec::new();
    for (kind, bytes) in control.chain(lane) {
        assert_eq!(bytes[4], kind);
        seen.push(kind);
    }
    seen.dedup();
    let all: Vec<u8> = (0x01..=0x08).chain(0x20..=0x23).collect();
    assert_eq!(seen, all);
}

#[test]
fn damaged_frames_of_version_1_have_named_errors() {
    for (name, frame) in control_frames() {
        let mut whole = raw(&frame.encode()).unwrap();
        let last = whole.body.len() - 1;
        let cut = RawFrame {
            kind: whole.kind,
            body: whole.body.slice(..last),
        };
        let kind = whole.kind;
        assert_eq!(
            ControlFrame::decode(&cut),
            Err(FrameError::Malformed { kind }),
            "{name}"
        );
        whole.kind = 0x7f;
        assert_eq!(
            ControlFrame::decode(&whole),
            Err(FrameError::UnknownType { kind: 0x7f })
        );
    }
    let mut later = ControlFrame::Hello(full_hello()).encode().to_vec();
    later[5] = 2;
    assert_eq!(
        ControlFrame::decode(&raw(&later).unwrap()),
        Err(FrameError::Version { version: 2 })
    );
}

#[test]
fn the_numbers_of_codes_stay() {
    let refusals = [
        (1, "version"),
        (2, "malformed"),
        (3, "name"),
        (4, "second_identity"),
        (5, "fenced"),
        (6, "edge_behind"),
        (7, "busy"),
    ];
    for (number, name) in refusals {
        assert_eq!(RefuseCode::from_u8(number).map(RefuseCode::as_str), Some(name));
    }
    let reasons = [
        (1, "shutdown"),
        (2, "taken_over"),
        (3, "protocol"),
        (4, "diverged"),
        (5, "cloud_ahead"),
        (6, "adopting"),
        (7, "replaced"),
    ];
    for (number, name) in reasons {
        assert_eq!(ByeReason::from_u8(number).map(ByeReason::as_str), Some(name));
    }
}
