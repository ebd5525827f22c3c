//! Rules of the receiver, one by one: holes, restarts of a sequence, credit, streams, acks.

use std::time::Duration;

use fellbeck_core::{
    Batch, DropReason, Epoch, Position, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Run, Seq, Tick,
    WallTime,
};

use super::*;
use crate::admission::Relation;
use crate::{FrameDecoder, LaneHello, NodeKind};

const STREAM: LaneStream = LaneStream(1);

fn raw(bytes: &[u8]) -> RawFrame {
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(bytes);
    decoder.next_frame().unwrap().expect("one whole frame")
}

fn records(count: u32) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    for _ in 0..count {
        builder.push(&Record {
            device: "d",
            topic: "t",
            payload: b"p",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: fellbeck_core::ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}

fn batch(epoch: u32, first: u64, count: u32) -> RawFrame {
    let batch = Batch::seal(Epoch(epoch), Seq(first), &records(count));
    let sent_at = WallTime(5);
    raw(&LaneFrame::Batch { sent_at, batch }.encode())
}

fn position(epoch: u32, seq: u64) -> Position {
    Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    }
}

fn receiver_at(w: Option<Position>, lanes: usize) -> Receiver {
    let lane = |index: usize| LaneHello {
        lane: format!("l{index}"),
        run: Run(0),
        epoch: Epoch(9),
        first: Seq(1),
        end: Seq(1000),
        acked: None,
    };
    let incarnation = fellbeck_core::Incarnation {
        epoch: Epoch(9),
        id: [1; 16],
        parent: [0; 16],
    };
    let hello = Hello {
        edge: "e".into(),
        instance: 1,
        kind: NodeKind::Edge,
        chain: vec![incarnation],
        log_id: None,
        lanes: (0..lanes).map(lane).collect(),
        now: WallTime(0),
        clock: fellbeck_core::ClockQuality::Synced,
    };
    let admission = Admission {
        relation: Relation::Restart,
        instance: 1,
        incarnation,
        lanes: vec![w; lanes],
        went_back: Vec::new(),
        adopt: None,
    };
    let config = ReceiverConfig {
        credit: 1000,
        lane_credit: 300,
        frame_max: 1000,
        ..ReceiverConfig::new([3; 16])
    };
    let mut receiver = Receiver::new(config, &hello, &admission, WallTime(7));
    assert!(matches!(control(&mut receiver)[..], [ControlFrame::Welcome(_)]));
    for lane in 0..lanes {
        let start = raw(&LaneFrame::Start(LaneIndex(lane as u16)).encode());
        receiver
            .handle_lane_frame(LaneStream(1 + lane as u64), &start, WallTime(0))
            .unwrap();
    }
    receiver
}

/// Everything that the receiver has to say on the control stream.
fn control(receiver: &mut Receiver) -> Vec<ControlFrame> {
    std::iter::from_fn(|| receiver.poll_transmit())
        .map(|bytes| ControlFrame::decode(&raw(&bytes)).unwrap())
        .collect()
}

#[test]
fn a_hole_that_nothing_declares_is_refused_and_nothing_of_it_is_taken() {
    let mut receiver = receiver_at(Some(position(3, 10)), 1);
    receiver
        .handle_lane_frame(STREAM, &batch(3, 11, 2), WallTime(0))
        .unwrap();
    let hole = receiver.handle_lane_frame(STREAM, &batch(3, 14, 1), WallTime(0));
    let expected = LinkError::Hole {
        lane: LaneIndex(0),
        expected: Seq(13),
        got: Seq(14),
    };
    assert_eq!(hole, Err(expected));
    assert_eq!(control(&mut receiver), [ControlFrame::Bye(ByeReason::Protocol)]);
    assert!(receiver.poll_ingest().is_none());
    assert_eq!(
        receiver.handle_lane_frame(STREAM, &batch(3, 13, 1), WallTime(0)),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_first_contact_begins_with_record_one() {
    let mut receiver = receiver_at(None, 1);
    let late = receiver.handle_lane_frame(STREAM, &batch(9, 2, 1), WallTime(0));
    assert!(matches!(late, Err(LinkError::Hole { expected: Seq(1), .. })));
}

#[test]
fn a_declared_hole_is_passed_on_once_and_w_moves_over_it() {
    let mut receiver = receiver_at(Some(position(3, 10)), 1);
    let gap = Gap {
        epoch: Epoch(3),
        first: Seq(8),
        last: Seq(20),
        reason: DropReason::LostSuffix,
    };
    receiver
        .handle_lane_frame(STREAM, &raw(&LaneFrame::Gap(gap).encode()), WallTime(0))
        .unwrap();
    receiver
        .handle_lane_frame(STREAM, &batch(4, 21, 1), WallTime(0))
        .unwrap();
    let ingest = receiver.poll_ingest().unwrap();
    let stored = Gap { first: Seq(11), ..gap };
    assert!(
        matches!(&ingest.entries[..], [IngestEntry::Gap(got), IngestEntry::Batch { skip: 0, .. }] if *got == stored)
    );
    assert_eq!(ingest.through, position(4, 21));
    let event = ReceiverEvent::GapDeclared {
        lane: LaneIndex(0),
        gap: stored,
    };
    assert_eq!(receiver.poll_event(), Some(event));
    assert_eq!(receiver.stats().gap_records, 10);
}

#[test]
fn known_records_inside_a_frame_are_dropped_and_counted() {
    let mut receiver = receiver_at(Some(position(3, 10)), 1);
    receiver
        .handle_lane_frame(STREAM, &batch(3, 5, 3), WallTime(0))
        .unwrap();
    receiver
        .handle_lane_frame(STREAM, &batch(3, 8, 10), WallTime(0))
        .unwrap();
    let ingest = receiver.poll_ingest().unwrap();
    assert!(matches!(&ingest.entries[..], [IngestEntry::Batch { skip: 3, .. }]));
    let stats = receiver.stats();
    assert_eq!((stats.duplicates, stats.records, stats.known_frames), (6, 7, 1));
}

/// Dropping them as duplicates would lose records that were never in the cloud.
#[test]
fn a_newer_epoch_at_known_numbers_is_an_error_and_not_a_duplicate() {
    for frame in [batch(4, 5, 3), batch(4, 9, 5)] {
        let mut receiver = receiver_at(Some(position(3, 10)), 1);
        let restarted = receiver.handle_lane_frame(STREAM, &frame, WallTime(0));
        assert!(
            matches!(restarted, Err(LinkError::SequenceRestarted { .. })),
            "{restarted:?}"
        );
    }
    let mut receiver = receiver_at(Some(position(3, 10)), 1);
    let older = receiver.handle_lane_frame(STREAM, &batch(2, 11, 1), WallTime(0));
    assert!(matches!(older, Err(LinkError::EpochWentBack { .. })));
}

#[test]
fn an_ack_leaves_only_after_the_log_has_the_records() {
    let mut receiver = receiver_at(None, 1);
    receiver
        .handle_lane_frame(STREAM, &batch(1, 1, 5), WallTime(0))
        .unwrap();
    let first = receiver.poll_ingest().unwrap();
    receiver
        .handle_lane_frame(STREAM, &batch(1, 6, 5), WallTime(0))
        .unwrap();
    assert_eq!(control(&mut receiver), []);
    receiver.handle_durable(first.lane, first.through);
    let frames = control(&mut receiver);
    let [ControlFrame::Ack(acks), ControlFrame::Credit(total)] = &frames[..] else {
        panic!("an ack and the credit that it frees: {frames:?}");
    };
    assert_eq!((acks.len(), acks[0].w), (1, position(1, 5)));
    assert_eq!(*total, 1000 + cost(batch(1, 1, 5).wire_len()));
}

#[test]
#[should_panic(expected = "I3")]
fn durable_news_of_what_was_never_handed_out_is_a_fault_of_the_driver() {
    let mut receiver = receiver_at(None, 1);
    receiver
        .handle_lane_frame(STREAM, &batch(1, 1, 5), WallTime(0))
        .unwrap();
    receiver.handle_durable(LaneIndex(0), position(1, 5));
}

#[test]
fn what_was_handed_out_still_counts_after_the_connection_is_gone() {
    let mut receiver = receiver_at(None, 1);
    receiver
        .handle_lane_frame(STREAM, &batch(1, 1, 5), WallTime(0))
        .unwrap();
    let ingest = receiver.poll_ingest().unwrap();
    receiver
        .handle_lane_frame(STREAM, &batch(1, 6, 5), WallTime(0))
        .unwrap();
    receiver.handle_disconnected();
    assert!(!receiver.is_drained());
    assert!(receiver.poll_ingest().is_none(), "what was not handed out is dropped");
    receiver.handle_durable(ingest.lane, ingest.through);
    assert!(receiver.is_drained());
    assert_eq!(receiver.watermarks()[0].w, position(1, 5));
}

#[test]
fn more_than_was_granted_is_an_overrun() {
    let mut receiver = receiver_at(None, 1);
    // Window 1000 and once the largest frame: at 256 for a small frame the eighth is too much.
    let outcomes: Vec<_> = (1..=8)
        .map(|seq| receiver.handle_lane_frame(STREAM, &batch(1, seq, 1), WallTime(0)))
        .collect();
    assert!(outcomes[..7].iter().all(Result::is_ok));
    assert!(matches!(outcomes[7], Err(LinkError::CreditOverrun { .. })));
}

#[test]
fn a_lane_has_one_stream_and_a_stream_one_lane() {
    let start = |lane| raw(&LaneFrame::Start(LaneIndex(lane)).encode());
    let mut receiver = receiver_at(None, 2);
    let second = receiver.handle_lane_frame(LaneStream(77), &start(0), WallTime(0));
    assert!(matches!(second, Err(LinkError::Stream { .. })));
    let mut receiver = receiver_at(None, 2);
    let again = receiver.handle_lane_frame(LaneStream(1), &start(1), WallTime(0));
    assert!(matches!(again, Err(LinkError::Stream { .. })));
    let mut receiver = receiver_at(None, 2);
    let unknown = receiver.handle_lane_frame(LaneStream(5), &start(2), WallTime(0));
    assert_eq!(unknown, Err(LinkError::UnknownLane { lane: LaneIndex(2) }));
    let mut receiver = receiver_at(None, 2);
    let early = receiver.handle_lane_frame(LaneStream(5), &batch(1, 1, 1), WallTime(0));
    assert!(matches!(early, Err(LinkError::Stream { .. })));
}

#[test]
fn a_batch_that_would_unpack_beyond_the_limit_is_refused_unopened() {
    let mut receiver = receiver_at(None, 1);
    receiver.config.batch_raw_max = 30;
    let big = receiver.handle_lane_frame(STREAM, &batch(1, 1, 100), WallTime(0));
    assert!(matches!(big, Err(LinkError::BatchTooLarge { limit: 30, .. })));
}

#[test]
fn a_probe_ends_with_the_pong_or_the_deadline() {
    let mut receiver = receiver_at(None, 1);
    receiver.start_probe(Tick::default());
    let frames = control(&mut receiver);
    let [ControlFrame::Ping { nonce }] = frames[..] else {
        panic!("{frames:?}")
    };
    let pong = |nonce| raw(&ControlFrame::Pong { nonce }.encode());
    receiver.handle_control(&pong(nonce + 1)).unwrap();
    assert_eq!(receiver.poll_event(), None, "the answer to another question");
    receiver.handle_control(&pong(nonce)).unwrap();
    assert_eq!(receiver.poll_event(), Some(ReceiverEvent::ProbeAnswered));

    receiver.start_probe(Tick(Duration::from_secs(10)));
    let deadline = receiver.poll_timeout().unwrap();
    receiver.handle_timeout(Tick(deadline.0 - Duration::from_millis(1)));
    assert_eq!(receiver.poll_event(), None);
    receiver.handle_timeout(deadline);
    assert_eq!(receiver.poll_event(), Some(ReceiverEvent::ProbeSilent));
}

#[test]
fn a_stamp_keeps_its_age_on_the_clock_of_the_cloud() {
    let restamp = |sent, received, stamp| IngestEntry::restamp(WallTime(sent), WallTime(received), WallTime(stamp)).0;
    assert_eq!(restamp(10_000, 50_000, 9_000), 49_000);
    assert_eq!(restamp(10_000, 50_000, 11_000), 50_000);
    assert_eq!(restamp(10_000, 500, 9_000), 0);
}

#[test]
fn frames_of_the_wrong_direction_are_refused() {
    let mut receiver = receiver_at(None, 1);
    let credit = raw(&ControlFrame::Credit(1).encode());
    assert_eq!(
        receiver.handle_control(&credit),
        Err(LinkError::Unexpected { frame: "credit" })
    );
}
