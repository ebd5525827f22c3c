//! Golden bytes of the downlink: its frames, and what both sides keep in their stores.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use fellbeck_core::limits::FRAME_MAX;
use fellbeck_core::{
    Batch, ClockQuality, CommitNumber, Epoch, Filter, LogPosition, Properties, QoS, Record, RecordBlockBuilder, Seq,
    WallTime,
};
use fellbeck_link::downlink::{
    DownMark, FromCloud, FromEdge, Messages, Open, Opened, Openings, StoredMark, Tag, Wanted,
};
use fellbeck_link::{FrameDecoder, FrameError, RawFrame};

#[path = "../../core/tests/golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden_of};

fn raw(bytes: &[u8]) -> Option<RawFrame> {
    let mut decoder = FrameDecoder::new(FRAME_MAX);
    decoder.push(bytes);
    let frame = decoder.next_frame().ok()??;
    decoder.is_empty().then_some(frame)
}

fn at(commit: u64, index: u32) -> LogPosition {
    LogPosition {
        commit: CommitNumber(commit),
        index,
    }
}

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn mark() -> DownMark {
    DownMark {
        log_id: [0xc1; 16],
        opening: [0xd2; 16],
        position: at(1 << 40, 300),
    }
}

fn from_edge() -> Vec<(&'static str, FromEdge)> {
    let wanted = |text, edges| Wanted {
        filter: filter(text),
        edges,
    };
    let open = |mark| FromEdge::Open(Open { window: 1024, mark });
    vec![
        ("down-open.bin", open(Some(mark()))),
        ("down-open-first.bin", open(None)),
        (
            "down-want.bin",
            FromEdge::Want(vec![wanted("cmd/+/#", false), wanted("plant/\u{f6}", true)]),
        ),
        ("down-unwant.bin", FromEdge::Unwant(vec![filter("cmd/+/#")])),
        ("down-complete.bin", FromEdge::Complete),
        ("down-ack.bin", FromEdge::Ack(vec![1, 300, u16::MAX])),
    ]
}

fn batch() -> Batch {
    let mut builder = RecordBlockBuilder::default();
    builder.push(&Record {
        device: "app",
        topic: "cmd/7",
        payload: b"on",
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: Properties::default(),
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
        expiry_secs: Some(60),
        origin: None,
        path: "",
    });
    Batch::seal(Epoch(0), Seq(1), &builder.finish())
}

fn from_cloud() -> Vec<(&'static str, FromCloud)> {
    let opened = |shared| {
        FromCloud::Opened(Opened {
            log_id: [0xc1; 16],
            opening: [0xd3; 16],
            shared,
            now: WallTime(1_700_000_000_123),
        })
    };
    let messages = |packet_id, position| {
        FromCloud::Messages(Messages {
            sent_at: WallTime(1_700_000_000_789),
            tags: vec![Tag { packet_id, position }],
            batch: batch(),
        })
    };
    vec![
        ("down-opened.bin", opened(Some(at(70_000, u32::MAX)))),
        ("down-opened-first.bin", opened(None)),
        ("down-not-granted.bin", FromCloud::NotGranted(300)),
        ("down-messages.bin", messages(Some(513), Some(at(70_001, 0)))),
        ("down-messages-plain.bin", messages(None, None)),
    ]
}

fn check<T: PartialEq + Debug>(name: &str, encoded: &[u8], value: &T, decode: impl Fn(&RawFrame) -> Option<T>) {
    let stored = golden_of(name, encoded);
    let decode = |bytes: &[u8]| decode(&raw(bytes)?);
    assert_eq!(decode(&stored).as_ref(), Some(value), "{name}");
    assert_damage_shows(&stored, |_| false, decode);
}

#[test]
fn downlink_frames_of_version_1() {
    for (name, frame) in from_edge() {
        check(name, &frame.encode(), &frame, |raw| FromEdge::decode(raw).ok());
    }
    for (name, frame) in from_cloud() {
        check(name, &frame.encode(), &frame, |raw| FromCloud::decode(raw).ok());
    }
}

#[test]
fn what_is_stored_of_the_downlink_in_version_1() {
    let stored = StoredMark {
        edge: "barn-7".into(),
        mark: mark(),
    };
    let bytes = golden_of("down-mark.bin", &stored.encode());
    assert_eq!(StoredMark::decode(&bytes), Some(stored));
    assert_damage_shows(&bytes, |_| false, StoredMark::decode);
    let mut openings = Openings::default();
    openings.begin([1; 16], CommitNumber(1));
    openings.begin([2; 16], CommitNumber(70_000));
    let bytes = golden_of("down-openings.bin", &openings.encode());
    assert_eq!(Openings::decode(&bytes), Some(openings));
    assert_damage_shows(&bytes, |_| false, Openings::decode);
}

#[test]
fn filters_of_groups_and_of_the_cloud_itself_are_refused() {
    for text in ["$share/g/cmd", "$SYS/#", "$share", "a/#/b", ""] {
        let mut frame = FromEdge::Want(vec![Wanted {
            filter: filter("x"),
            edges: false,
        }])
        .encode()
        .to_vec();
        // count 1, length 1, "x", flag.
        frame.splice(6..8, [vec![text.len() as u8], text.as_bytes().to_vec()].concat());
        let body = bytes::Bytes::from(frame[5..].to_vec());
        let malformed = Err(FrameError::Malformed { kind: 0x41 });
        assert_eq!(FromEdge::decode(&RawFrame { kind: 0x41, body }), malformed, "{text:?}");
    }
}
