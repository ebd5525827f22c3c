//! Rules of the sender, one by one: what it reads, what it sends after a Welcome, what it believes of an ack, when it
//! stops.

use fellbeck_core::{DropReason, Properties, QoS, Record, RecordBlockBuilder};

use super::*;
use crate::{FrameDecoder, LaneFrame, LaneWelcome, RefuseCode};

const LANE: LaneIndex = LaneIndex(0);
const NOW: Tick = Tick(Duration::from_secs(5));

fn raw(bytes: &[u8]) -> RawFrame {
    let mut decoder = FrameDecoder::new(1 << 20);
    decoder.push(bytes);
    decoder.next_frame().unwrap().expect("one whole frame")
}

fn batch(epoch: u32, first: u64, count: usize) -> Entry {
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
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    Entry::Batch(Batch::seal(Epoch(epoch), Seq(first), &builder.finish()))
}

fn w(epoch: u32, seq: u64) -> Option<Position> {
    Some(Position {
        epoch: Epoch(epoch),
        seq: Seq(seq),
    })
}

fn bounds(first: u64, end: u64, acked: u64) -> LaneBounds {
    LaneBounds {
        epoch: Epoch(4),
        first: Seq(first),
        end: Seq(end),
        acked: (acked > 0).then_some(Seq(acked)),
    }
}

/// A sender that has said Hello with these bounds.
fn greeting(lanes: &[LaneBounds]) -> Sender {
    let spec = |index| LaneSpec {
        name: format!("l{index}"),
        run: Run(0),
    };
    let mut sender = Sender::new(SenderConfig::default(), "e1", (0..lanes.len()).map(spec).collect());
    let connected = Connected {
        instance: 1,
        chain: Vec::new(),
        log_id: Some([7; 16]),
        lanes: lanes.to_vec(),
        now: WallTime(3),
        clock: ClockQuality::Synced,
    };
    sender.handle_connected(connected, NOW);
    let hello = sender.poll_transmit(WallTime(3)).unwrap();
    assert_eq!(hello.stream, StreamId::Control);
    assert!(matches!(
        ControlFrame::decode(&raw(&hello.bytes)),
        Ok(ControlFrame::Hello(_))
    ));
    sender
}

fn welcome(lanes: &[Option<Position>]) -> Welcome {
    Welcome {
        log_id: [7; 16],
        instance: 1,
        now: WallTime(9),
        lanes: lanes.iter().map(|w| LaneWelcome { w: *w }).collect(),
        credit: 600,
        lane_credit: 0,
        adopt: None,
    }
}

fn control(sender: &mut Sender, frame: ControlFrame) -> Result<(), LinkError> {
    sender.handle_control(&raw(&frame.encode()), NOW)
}

/// A sender of one lane that was welcomed; its first event is taken.
fn ready(bounds: LaneBounds, cloud_w: Option<Position>) -> Sender {
    let mut sender = greeting(&[bounds]);
    control(&mut sender, ControlFrame::Welcome(welcome(&[cloud_w]))).unwrap();
    assert!(matches!(
        sender.poll_event(),
        Some(SenderEvent::Welcomed { log_changed: false, .. })
    ));
    sender
}

/// Lane frames that leave now, in short.
fn sent(sender: &mut Sender) -> Vec<String> {
    let mut out = Vec::new();
    while let Some(transmit) = sender.poll_transmit(WallTime(77)) {
        let frame = raw(&transmit.bytes);
        if transmit.stream == StreamId::Control {
            out.push(ControlFrame::decode(&frame).unwrap().name().to_owned());
            continue;
        }
        out.push(match LaneFrame::decode(&frame).unwrap() {
            LaneFrame::Start(lane) => format!("start {lane}"),
            LaneFrame::Batch { sent_at, batch } => {
                assert_eq!(sent_at, WallTime(77), "stamped when it leaves, not when it was read");
                format!("batch {}/{}-{}", batch.header.epoch, batch.header.first, batch.last())
            }
            LaneFrame::Gap(gap) => format!("gap {}/{}-{} {}", gap.epoch, gap.first, gap.last, gap.reason),
            LaneFrame::Skip(skip) => format!("skip {}/{}-{}", skip.epoch, skip.first, skip.last),
        });
    }
    out
}

#[test]
fn nothing_is_read_or_sent_before_the_welcome() {
    let mut sender = greeting(&[bounds(1, 10, 0)]);
    assert_eq!(sender.poll_read(), None);
    assert!(sent(&mut sender).is_empty());
    let ack = ControlFrame::Ack(Vec::new());
    assert_eq!(control(&mut sender, ack), Err(LinkError::Unexpected { frame: "ack" }));
    assert_eq!(sent(&mut sender), ["bye"]);
}

#[test]
fn a_resume_compares_the_record_at_w_and_sends_from_the_next_one() {
    let mut sender = ready(bounds(1, 10, 3), w(2, 5));
    assert_eq!(sender.poll_acked(), None, "W is not believed before it was compared");
    let read = sender.poll_read().unwrap();
    assert_eq!(read.from, Seq(5));
    assert_eq!(sender.poll_read(), None, "one read per lane at a time");
    sender.handle_read(&read, vec![batch(2, 4, 2), batch(2, 6, 3)], NOW);
    assert_eq!(sender.poll_acked(), w(2, 5).map(|w| (LANE, w)));
    assert_eq!(sent(&mut sender), ["start 0", "batch 2/6-8"]);
    assert_eq!(sender.poll_read().unwrap().from, Seq(9));
}

#[test]
fn a_record_at_w_of_another_epoch_stops_everything() {
    let mut sender = ready(bounds(1, 10, 3), w(2, 5));
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, vec![batch(4, 4, 2), batch(4, 6, 3)], NOW);
    let diverged = SenderEvent::Diverged {
        lane: LANE,
        cloud_w: w(2, 5).unwrap(),
        held: Epoch(4),
    };
    assert_eq!(sender.poll_event(), Some(diverged));
    assert_eq!(sent(&mut sender), ["bye"]);
    assert_eq!(sender.poll_acked(), None);
    assert!(sender.is_closed());
}

/// W of a store that was adopted is its own account, and has no epoch to compare.
#[test]
fn a_w_without_an_epoch_is_taken_for_its_own() {
    let mut sender = ready(bounds(1, 10, 3), w(0, 5));
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, vec![batch(4, 4, 2), batch(4, 6, 3)], NOW);
    assert_eq!(sender.poll_event(), None);
    assert_eq!(sent(&mut sender), ["start 0", "batch 4/6-8"]);
}

#[test]
fn a_batch_partly_below_w_is_sent_whole_and_a_gap_is_shortened() {
    let mut sender = ready(bounds(1, 20, 3), w(2, 5));
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, vec![batch(2, 4, 4)], NOW);
    assert_eq!(sent(&mut sender), ["start 0", "batch 2/4-7"]);

    let mut sender = ready(bounds(1, 20, 3), w(2, 5));
    let read = sender.poll_read().unwrap();
    let gap = Gap {
        epoch: Epoch(4),
        first: Seq(4),
        last: Seq(9),
        reason: DropReason::LostSuffix,
    };
    let skip = Skip {
        epoch: Epoch(4),
        first: Seq(10),
        last: Seq(11),
    };
    sender.handle_read(&read, vec![Entry::Gap(gap), Entry::Skip(skip)], NOW);
    assert_eq!(sent(&mut sender), ["start 0", "gap 4/6-9 lost_suffix", "skip 4/10-11"]);
    assert!(
        sender.poll_event().is_none(),
        "a gap of the store is no news of the link"
    );
}

#[test]
fn what_is_not_held_any_more_is_declared_by_its_cause() {
    let mut sender = ready(bounds(15, 20, 10), w(2, 5));
    assert_eq!(
        sender.poll_event(),
        Some(SenderEvent::CloudWentBack {
            lane: LANE,
            cloud_w: w(2, 5),
            edge_w: Seq(10)
        })
    );
    let read = sender.poll_read().unwrap();
    assert_eq!(read.from, Seq(15));
    sender.handle_read(&read, vec![batch(3, 15, 2)], NOW);
    let expected = ["start 0", "gap 3/6-10 beyond_grace", "gap 3/11-14 trimmed"];
    // The credit of 600 lets two small frames go.
    assert_eq!(sent(&mut sender), expected);
    let declared: Vec<_> = std::iter::from_fn(|| sender.poll_event()).collect();
    assert!(matches!(
        declared[..],
        [SenderEvent::GapDeclared { .. }, SenderEvent::GapDeclared { .. }]
    ));
    assert_eq!(sender.stats().gap_records, 9);
}

#[test]
fn credit_holds_frames_back_until_acks_and_grants_come() {
    let mut sender = ready(bounds(1, 100, 0), None);
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, (1..=5).map(|seq| batch(1, seq, 1)).collect(), NOW);
    assert_eq!(sent(&mut sender), ["start 0", "batch 1/1-1", "batch 1/2-2"]);
    assert_eq!(sender.in_flight_bytes(LANE), 512);
    assert_eq!(sender.poll_read(), None, "no reading ahead while nothing may leave");
    control(&mut sender, ControlFrame::Credit(900)).unwrap();
    assert_eq!(sent(&mut sender), ["batch 1/3-3"]);
    let ack = |seq| {
        ControlFrame::Ack(vec![LaneAck {
            lane: LANE,
            w: w(1, seq).unwrap(),
        }])
    };
    control(&mut sender, ack(3)).unwrap();
    assert_eq!(sender.poll_acked(), w(1, 3).map(|w| (LANE, w)));
    assert_eq!(
        sent(&mut sender),
        ["batch 1/4-4"],
        "a lane with nothing in flight may always send one"
    );
    control(&mut sender, ack(2)).unwrap();
    assert_eq!(sender.poll_acked(), None, "late news");
}

#[test]
fn an_ack_of_what_was_not_sent_ends_the_link() {
    let mut sender = ready(bounds(1, 100, 0), None);
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, vec![batch(1, 1, 2), batch(1, 3, 2)], NOW);
    let first = sender.poll_transmit(WallTime(77)).unwrap();
    assert_eq!(first.stream, StreamId::Lane(LANE));
    let ack = ControlFrame::Ack(vec![LaneAck {
        lane: LANE,
        w: w(1, 1).unwrap(),
    }]);
    assert!(matches!(
        control(&mut sender, ack),
        Err(LinkError::AckBeyondSent { sent: None, .. })
    ));
    assert_eq!(sender.poll_acked(), None);
}

#[test]
fn a_cloud_that_is_ahead_is_left_and_nothing_is_believed() {
    let mut sender = ready(bounds(1, 10, 3), w(4, 10));
    assert!(matches!(
        sender.poll_event(),
        Some(SenderEvent::CloudAhead { end: Seq(10), .. })
    ));
    assert_eq!((sender.poll_read(), sender.poll_acked()), (None, None));
    assert_eq!(sent(&mut sender), ["bye"]);
}

#[test]
fn an_empty_store_is_told_to_adopt_and_sends_nothing() {
    let mut sender = greeting(&[bounds(1, 1, 0)]);
    let answer = Welcome {
        adopt: Some(Epoch(9)),
        ..welcome(&[w(8, 50)])
    };
    control(&mut sender, ControlFrame::Welcome(answer)).unwrap();
    assert!(matches!(sender.poll_event(), Some(SenderEvent::Welcomed { .. })));
    let adopt = SenderEvent::Adopt {
        epoch: Epoch(9),
        floors: vec![w(8, 50)],
    };
    assert_eq!(sender.poll_event(), Some(adopt));
    assert_eq!(sent(&mut sender), ["bye"]);
}

#[test]
fn an_answer_to_a_read_of_an_earlier_connection_is_ignored() {
    let mut sender = ready(bounds(1, 10, 0), None);
    let stale = sender.poll_read().unwrap();
    let connected = Connected {
        instance: 1,
        chain: Vec::new(),
        log_id: None,
        lanes: vec![bounds(1, 10, 0)],
        now: WallTime(3),
        clock: ClockQuality::Synced,
    };
    sender.handle_connected(connected, NOW);
    control(&mut sender, ControlFrame::Welcome(welcome(&[None]))).unwrap();
    let read = sender.poll_read().unwrap();
    assert_ne!(stale, read);
    sender.handle_read(&stale, vec![batch(1, 1, 5)], NOW);
    assert_eq!(sent(&mut sender), ["hello"]);
    sender.handle_read(&read, vec![batch(1, 1, 2)], NOW);
    assert_eq!(sent(&mut sender), ["start 0", "batch 1/1-2"]);
}

#[test]
fn a_read_may_be_ahead_of_the_news_of_its_commit() {
    let mut sender = ready(bounds(1, 3, 0), None);
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, vec![batch(1, 1, 2), batch(1, 3, 4)], NOW);
    sender.handle_log_end(LANE, Seq(1), Seq(5));
    assert_eq!(sent(&mut sender), ["start 0", "batch 1/1-2", "batch 1/3-6"]);
    sender.handle_log_end(LANE, Seq(1), Seq(7));
    assert_eq!(sender.poll_read(), None, "everything was read already");
}

#[test]
fn a_read_that_brings_nothing_is_repeated_after_a_pause() {
    let mut sender = ready(bounds(1, 10, 0), None);
    let read = sender.poll_read().unwrap();
    sender.handle_read(&read, Vec::new(), NOW);
    assert_eq!(sender.poll_read(), None);
    let due = sender.poll_timeout().unwrap();
    assert_eq!(due, NOW.after(SenderConfig::default().read_retry_after));
    sender.handle_timeout(due);
    let read = sender.poll_read().unwrap();
    sender.handle_read_failed(&read, due);
    assert_eq!(sender.poll_read(), None);
}

#[test]
fn lanes_take_turns_and_a_blocked_one_is_passed_over() {
    let mut sender = greeting(&[bounds(1, 10, 0), bounds(1, 10, 0)]);
    let answer = Welcome {
        credit: 100_000,
        ..welcome(&[None, None])
    };
    control(&mut sender, ControlFrame::Welcome(answer)).unwrap();
    while let Some(read) = sender.poll_read() {
        sender.handle_read(&read, (1..=9).map(|seq| batch(1, seq, 1)).collect(), NOW);
    }
    let mut lane_of_next = || match sender.poll_transmit(WallTime(0)).map(|transmit| transmit.stream) {
        Some(StreamId::Lane(lane)) => lane.0,
        other => panic!("{other:?}"),
    };
    assert_eq!([(); 6].map(|()| lane_of_next()), [0, 1, 0, 1, 0, 1]);
    sender.handle_stream_blocked(StreamId::Lane(LANE));
    let mut lane_of_next = || match sender.poll_transmit(WallTime(0)).map(|transmit| transmit.stream) {
        Some(StreamId::Lane(lane)) => lane.0,
        other => panic!("{other:?}"),
    };
    assert_eq!([(); 3].map(|()| lane_of_next()), [1, 1, 1]);
}

#[test]
fn a_hello_without_an_answer_times_out_and_a_refusal_is_passed_on() {
    let mut sender = greeting(&[bounds(1, 10, 0)]);
    let due = sender.poll_timeout().unwrap();
    sender.handle_timeout(due);
    assert_eq!(sender.poll_event(), Some(SenderEvent::TimedOut));

    let mut sender = greeting(&[bounds(1, 10, 0)]);
    let refused = ControlFrame::Refused {
        code: RefuseCode::Fenced,
        text: "why".into(),
    };
    control(&mut sender, refused).unwrap();
    assert!(matches!(
        sender.poll_event(),
        Some(SenderEvent::Refused {
            code: RefuseCode::Fenced,
            ..
        })
    ));
    assert!(sender.is_closed());
}

#[test]
fn pings_are_answered_and_a_flood_of_them_stays_bounded() {
    let mut sender = ready(bounds(1, 1, 0), None);
    for nonce in 0..100 {
        control(&mut sender, ControlFrame::Ping { nonce }).unwrap();
    }
    let pongs: Vec<_> = std::iter::from_fn(|| sender.poll_transmit(WallTime(0)))
        .map(|transmit| ControlFrame::decode(&raw(&transmit.bytes)).unwrap())
        .collect();
    assert_eq!(pongs.len(), PONGS_MAX);
    assert_eq!(pongs.last(), Some(&ControlFrame::Pong { nonce: 99 }));
}
