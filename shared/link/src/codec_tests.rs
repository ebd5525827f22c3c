//! Frames as bytes: every frame comes back from its encoding, no bytes make a decoder panic, and small frames are
//! pinned byte by byte.

use fellbeck_core::{
    Batch, ClockQuality, DropReason, Epoch, Incarnation, Position, Properties, QoS, Record, RecordBlockBuilder, Run,
    Seq, WallTime,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::limits::{EPOCH_MAX, SEQ_MAX};
use crate::{
    ByeReason, ControlFrame, FrameDecoder, FrameError, Gap, Hello, LaneAck, LaneFrame, LaneHello, LaneIndex,
    LaneWelcome, NodeKind, RawFrame, RefuseCode, Skip, Welcome,
};

fn raw(bytes: &[u8]) -> RawFrame {
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(bytes);
    let frame = decoder.next_frame().unwrap().expect("one whole frame");
    assert!(decoder.is_empty());
    frame
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1..200u64, 1..=SEQ_MAX].prop_map(Seq)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (0..=EPOCH_MAX).prop_map(Epoch)
}

fn position() -> impl Strategy<Value = Position> {
    (epoch(), seq()).prop_map(|(epoch, seq)| Position { epoch, seq })
}

fn lane_hello() -> impl Strategy<Value = LaneHello> {
    ("[a-z]{1,20}", any::<u16>(), epoch(), seq(), seq(), option::of(seq())).prop_map(
        |(lane, run, epoch, first, end, acked)| LaneHello {
            lane,
            run: Run(run),
            epoch,
            first,
            end,
            acked,
        },
    )
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (epoch(), any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(epoch, id, parent)| Incarnation { epoch, id, parent })
}

fn hello() -> impl Strategy<Value = Hello> {
    let lists = (vec(incarnation(), 0..=64), vec(lane_hello(), 0..=64));
    (
        "[a-z0-9-]{0,128}",
        any::<u32>(),
        lists,
        any::<Option<[u8; 16]>>(),
        any::<u64>(),
        0..3u8,
    )
        .prop_map(|(edge, instance, (chain, lanes), log_id, now, clock)| Hello {
            edge,
            instance,
            kind: NodeKind::Edge,
            chain,
            log_id,
            lanes,
            now: WallTime(now),
            clock: ClockQuality::from_u8(clock).unwrap(),
        })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let lanes = vec(option::of(position()).prop_map(|w| LaneWelcome { w }), 0..=64);
    let credits = (any::<u64>(), any::<u64>());
    (
        any::<[u8; 16]>(),
        any::<u32>(),
        any::<u64>(),
        lanes,
        credits,
        option::of(epoch()),
    )
        .prop_map(|(log_id, instance, now, lanes, (credit, lane_credit), adopt)| Welcome {
            log_id,
            instance,
            now: WallTime(now),
            lanes,
            credit,
            lane_credit,
            adopt,
        })
}

fn lane_ack() -> impl Strategy<Value = LaneAck> {
    (0..64u16, position()).prop_map(|(lane, w)| LaneAck {
        lane: LaneIndex(lane),
        w,
    })
}

fn control() -> impl Strategy<Value = ControlFrame> {
    prop_oneof![
        hello().prop_map(ControlFrame::Hello),
        welcome().prop_map(ControlFrame::Welcome),
        (1..=7u8, ".{0,200}").prop_map(|(code, text)| ControlFrame::Refused {
            code: RefuseCode::from_u8(code).unwrap(),
            text,
        }),
        vec(lane_ack(), 0..=64).prop_map(ControlFrame::Ack),
        any::<u64>().prop_map(ControlFrame::Credit),
        any::<u64>().prop_map(|nonce| ControlFrame::Ping { nonce }),
        any::<u64>().prop_map(|nonce| ControlFrame::Pong { nonce }),
        (1..=7u8).prop_map(|reason| ControlFrame::Bye(ByeReason::from_u8(reason).unwrap())),
    ]
}

fn batch(first: u64, payloads: &[Vec<u8>]) -> Batch {
    let mut builder = RecordBlockBuilder::default();
    for payload in payloads {
        builder.push(&Record {
            device: "device-1",
            topic: "plant/1/temperature",
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1_700_000_000_000),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    Batch::seal(Epoch(3), Seq(first), &builder.finish())
}

/// Both decoders over every cut and a flip at every byte; the outcome does not matter, a panic would.
fn decode_damaged(bytes: &[u8], flip: u8) {
    let (kind, body) = (bytes[4], bytes::Bytes::copy_from_slice(&bytes[5..]));
    for cut in 0..=body.len() {
        let (_, _) = decode_both(kind, body.slice(..cut));
    }
    for at in 0..body.len() {
        let mut damaged = body.to_vec();
        damaged[at] ^= flip;
        let (_, _) = decode_both(kind, damaged.into());
    }
}

fn decode_both(kind: u8, body: bytes::Bytes) -> (Result<ControlFrame, FrameError>, Result<LaneFrame, FrameError>) {
    let raw = RawFrame { kind, body };
    (ControlFrame::decode(&raw), LaneFrame::decode(&raw))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn control_frames_come_back_from_their_bytes(frame in control()) {
        prop_assert_eq!(ControlFrame::decode(&raw(&frame.encode())), Ok(frame));
    }

    #[test]
    fn batches_cross_the_link_unchanged(
        payloads in vec(vec(any::<u8>(), 0..300), 1..40),
        first in 1..1_000_000u64,
        now: u64,
    ) {
        let batch = batch(first, &payloads);
        let frame = LaneFrame::Batch { sent_at: WallTime(now), batch: batch.clone() };
        let LaneFrame::Batch { sent_at, batch: got } = LaneFrame::decode(&raw(&frame.encode())).unwrap() else {
            panic!("another frame");
        };
        prop_assert_eq!(sent_at, WallTime(now));
        prop_assert_eq!(got.encode(), batch.encode());
    }

    #[test]
    fn declared_ranges_come_back_from_their_bytes(
        epoch in epoch(),
        one in seq(),
        two in seq(),
        reason in proptest::sample::select(DropReason::ALL),
    ) {
        let (first, last) = (one.min(two), one.max(two));
        let gap = Gap { epoch, first, last, reason };
        let decoded = LaneFrame::decode(&raw(&LaneFrame::Gap(gap).encode())).unwrap();
        prop_assert!(matches!(decoded, LaneFrame::Gap(got) if got == gap));
        let skip = Skip { epoch, first, last };
        let decoded = LaneFrame::decode(&raw(&LaneFrame::Skip(skip).encode())).unwrap();
        prop_assert!(matches!(decoded, LaneFrame::Skip(got) if got == skip));
    }

    #[test]
    fn damaged_control_frames_never_panic(frame in control(), flip in 1..=255u8) {
        decode_damaged(&frame.encode(), flip);
    }

    #[test]
    fn a_damaged_batch_frame_is_never_taken_for_whole(payload in vec(any::<u8>(), 1..60), flip in 1..=255u8) {
        let bytes = LaneFrame::Batch { sent_at: WallTime(1), batch: batch(1, &[payload]) }.encode();
        let body = bytes.slice(5..);
        // The first eight bytes are the sender's clock, which the transport protects and the batch does not.
        for at in 8..body.len() {
            let mut damaged = body.to_vec();
            damaged[at] ^= flip;
            prop_assert!(decode_both(bytes[4], damaged.into()).1.is_err());
        }
    }

    #[test]
    fn random_bytes_never_panic(kind: u8, body in vec(any::<u8>(), 0..400)) {
        let (_, _) = decode_both(kind, body.into());
    }

    #[test]
    fn a_random_stream_never_panics_and_never_yields_more_than_the_limit(
        bytes in vec(any::<u8>(), 0..2000),
        portion in 1..50usize,
    ) {
        let mut decoder = FrameDecoder::new(500);
        for part in bytes.chunks(portion) {
            decoder.push(part);
            while let Ok(Some(raw)) = decoder.next_frame() {
                prop_assert!(raw.body.len() < 500);
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The examples of `docs/format/link.md`.
#[test]
fn small_frames_are_the_bytes_that_the_format_page_shows() {
    let w = |epoch, seq| Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    };
    let ack = |lane, w| LaneAck {
        lane: LaneIndex(lane),
        w,
    };
    let gap = Gap {
        epoch: Epoch(3),
        first: Seq(300),
        last: Seq(301),
        reason: DropReason::BeyondGrace,
    };
    let skip = Skip {
        epoch: Epoch(3),
        first: Seq(5),
        last: Seq(5),
    };
    let refused = ControlFrame::Refused {
        code: RefuseCode::Fenced,
        text: "no".into(),
    };
    let control = |frame: ControlFrame| hex(&frame.encode());
    let lane = |frame: LaneFrame| hex(&frame.encode());
    assert_eq!(control(refused), "00000005".to_owned() + "03" + "05" + "026e6f");
    assert_eq!(
        control(ControlFrame::Ack(vec![ack(0, w(3, 300)), ack(2, w(1, 5))])),
        "00000009".to_owned() + "04" + "02" + "0003ac02" + "020105"
    );
    assert_eq!(
        control(ControlFrame::Credit(300)),
        "00000003".to_owned() + "05" + "ac02"
    );
    assert_eq!(
        control(ControlFrame::Ping { nonce: 1 }),
        "00000009".to_owned() + "06" + "0000000000000001"
    );
    assert_eq!(
        control(ControlFrame::Pong { nonce: 1 }),
        "00000009".to_owned() + "07" + "0000000000000001"
    );
    assert_eq!(
        control(ControlFrame::Bye(ByeReason::Shutdown)),
        "00000002".to_owned() + "08" + "01"
    );
    assert_eq!(
        lane(LaneFrame::Start(LaneIndex(2))),
        "00000002".to_owned() + "20" + "02"
    );
    assert_eq!(
        lane(LaneFrame::Gap(gap)),
        "00000007".to_owned() + "22" + "03" + "ac02" + "ad02" + "0c"
    );
    assert_eq!(
        lane(LaneFrame::Skip(skip)),
        "00000004".to_owned() + "23" + "03" + "05" + "05"
    );
}

#[test]
fn a_hello_of_another_version_is_told_apart_from_a_malformed_one() {
    let body = |bytes: &'static [u8]| RawFrame {
        kind: crate::control::HELLO,
        body: bytes::Bytes::from_static(bytes),
    };
    assert_eq!(
        ControlFrame::decode(&body(&[2, 1, 2, 3])),
        Err(FrameError::Version { version: 2 })
    );
    assert_eq!(
        ControlFrame::decode(&body(&[1, 1, 2, 3])),
        Err(FrameError::Malformed { kind: 1 })
    );
    assert_eq!(ControlFrame::decode(&body(&[])), Err(FrameError::Malformed { kind: 1 }));
}

#[test]
fn a_refusal_longer_than_the_limit_is_cut_between_two_characters() {
    let text = "ä".repeat(600);
    let frame = ControlFrame::Refused {
        code: RefuseCode::Busy,
        text: format!("x{text}"),
    };
    let Ok(ControlFrame::Refused { text, .. }) = ControlFrame::decode(&raw(&frame.encode())) else {
        panic!("it still decodes");
    };
    assert_eq!(text.len(), 1023);
}
