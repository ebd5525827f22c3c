//! What each overflow policy gives up, and that the books still balance: every record that was committed is held, or named in a gap.
//!
//! In: a store with a small quota and nobody who acknowledges, closed and opened on the way. Out: then an uplink that reads and
//! acknowledges everything. Records and gaps together are exactly the numbers of the track.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use common::{Node, block, noise, small_edge};
use fellbeck_core::{DropReason, Record, RecordBlock, RecordBlockBuilder, Seq, TrackId};
use fellbeck_store::{Admission, Append, Commit, Level, Overflow, StoreConfig, TrackEntry, TrackPolicy};

const BULK: TrackId = TrackId(0);
const ALARM: TrackId = TrackId(1);
const QUOTA: u64 = 160_000;

fn policy(overflow: Overflow, priority: u8) -> TrackPolicy {
    TrackPolicy {
        overflow,
        priority,
        ..TrackPolicy::default()
    }
}

fn config(bulk: Overflow) -> StoreConfig {
    let tracks: Vec<String> = ["lane/bulk/0", "lane/alarm/0"].map(Into::into).into();
    StoreConfig {
        quota_bytes: Some(QUOTA),
        tracks: tracks.clone(),
        sessions_only: Vec::new(),
        policies: vec![
            (tracks[0].clone(), policy(bulk, 0)),
            (tracks[1].clone(), policy(Overflow::Reject, 9)),
        ],
        ..small_edge()
    }
}

/// One record of 200 bytes that do not compress, on one of five topics.
fn record(n: u64) -> RecordBlock {
    let plain = block([noise(n)]);
    let mut builder = RecordBlockBuilder::default();
    let topic = format!("t/{}", n % 5);
    builder.push(&Record {
        topic: &topic,
        ..plain.get(0)
    });
    builder.finish()
}

/// Commits a record where its track takes one.
fn offer(node: &mut Node, track: TrackId, n: u64) -> bool {
    if node.store.admission(track) != Admission::Take {
        return false;
    }
    let block = record(n);
    let appends = vec![Append { track, block }];
    node.commit(Commit {
        appends,
        ..Commit::default()
    });
    true
}

/// What an uplink sees of a track.
#[derive(Default)]
struct Seen {
    payloads: Vec<Vec<u8>>,
    topics: Vec<String>,
    gaps: BTreeMap<DropReason, u64>,
    /// The next number: each one before it was a record or in a gap, once.
    next: u64,
}

impl Seen {
    fn gap_records(&self) -> u64 {
        self.gaps.values().sum()
    }

    fn take(&mut self, entry: &TrackEntry) {
        match entry {
            TrackEntry::Batch(batch) => {
                assert_eq!(batch.header.first.0, self.next, "no hole that is not declared");
                let block = batch.open(usize::MAX).unwrap();
                self.next += block.len() as u64;
                self.payloads.extend(block.iter().map(|record| record.payload.to_vec()));
                self.topics.extend(block.iter().map(|record| record.topic.to_owned()));
            }
            TrackEntry::Gap(gap) => {
                assert_eq!(gap.first.0, self.next, "a gap begins where the records end");
                *self.gaps.entry(gap.reason).or_default() += gap.last.0 - gap.first.0 + 1;
                self.next = gap.last.0 + 1;
            }
        }
    }
}

/// Reads and acknowledges everything, as an uplink does once the link is up.
fn drain(node: &mut Node, track: TrackId) -> Seen {
    let mut seen = Seen {
        next: 1,
        ..Seen::default()
    };
    loop {
        let read = node.read_track(track, seen.next, 3000);
        if read.entries.is_empty() {
            let stats = &node.store.stats().tracks[track.0 as usize];
            if stats.aside + stats.owed == 0 {
                return seen;
            }
        }
        read.entries.iter().for_each(|entry| seen.take(entry));
        if seen.next > 1 {
            node.commit(Commit {
                acked: vec![(track, Seq(seen.next - 1))],
                ..Commit::default()
            });
        }
        // Bringing back follows the commit that made room, or comes within the second.
        node.settle();
    }
}

/// Fills, reopens some times on the way, and returns how many bulk records and alarms were committed.
fn fill(dir: &Path, bulk: Overflow, records: u64) -> (Node, u64, u64) {
    let mut node = Node::open(dir, config(bulk));
    let (mut taken, mut alarms) = (0, 0);
    for n in 0..records {
        taken += u64::from(offer(&mut node, BULK, n));
        if n % 60 == 0 {
            assert!(
                offer(&mut node, ALARM, 1_000_000 + n),
                "an alarm is taken while bulk gives way"
            );
            alarms += 1;
        }
        if n % 700 == 699 {
            node.settle();
            node.store.close();
            node = Node::open(dir, config(bulk));
            assert!(!node.report.is_damaged(), "{:?}", node.report);
            assert_eq!(node.report.lost_records(), 0);
        }
    }
    node.settle();
    let used = node.store.pressure().used;
    assert!(used <= QUOTA + 10_000, "{used} of {QUOTA}");
    (node, taken, alarms)
}

/// What is drained is what was taken; alarms are whole and in order.
fn check(node: &mut Node, taken: u64, alarms: u64) -> Seen {
    let bulk = drain(node, BULK);
    assert_eq!(
        bulk.payloads.len() as u64 + bulk.gap_records(),
        taken,
        "{:?}",
        bulk.gaps
    );
    assert_eq!(bulk.next, taken + 1, "each record that was taken has one number");
    let alarm = drain(node, ALARM);
    let expected: Vec<Vec<u8>> = (0..alarms).map(|n| noise(1_000_000 + 60 * n)).collect();
    assert!(alarm.payloads == expected && alarm.gaps.is_empty());
    node.settle();
    assert_eq!(node.store.pressure().level, Level::Normal);
    bulk
}

#[test]
fn drop_oldest_keeps_the_newest_and_names_the_rest_in_one_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, taken, alarms) = fill(dir.path(), Overflow::DropOldest, 1500);
    assert_eq!(taken, 1500, "what is new is always taken");
    let gaps = node.track_from(BULK, 1).1;
    assert_eq!(gaps.len(), 1, "one range, however long space is short: {gaps:?}");
    let bulk = check(&mut node, taken, alarms);
    assert_eq!(bulk.gaps.keys().copied().collect::<Vec<_>>(), [DropReason::DropOldest]);
    let newest: Vec<Vec<u8>> = (bulk.gap_records()..1500).map(noise).collect();
    assert!(bulk.payloads == newest && newest.len() > 150, "{}", newest.len());
}

#[test]
fn drop_new_and_reject_give_up_nothing_that_was_taken() {
    for overflow in [Overflow::DropNew, Overflow::Reject] {
        let dir = tempfile::tempdir().unwrap();
        let (mut node, taken, alarms) = fill(dir.path(), overflow, 800);
        let turned_away = overflow == Overflow::DropNew;
        let expected = if turned_away {
            Admission::TurnAway
        } else {
            Admission::HoldBack
        };
        assert_eq!(node.store.admission(BULK), expected);
        assert!(taken > 250 && taken < 750, "{taken}");
        let bulk = check(&mut node, taken, alarms);
        assert_eq!(bulk.gap_records(), 0);
        assert_eq!(node.store.admission(BULK), Admission::Take);
    }
}

#[test]
fn keep_latest_keeps_the_newest_of_each_topic_behind_what_was_logged_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut node, taken, alarms) = fill(dir.path(), Overflow::KeepLatest, 1500);
    assert_eq!(taken, 1500);
    assert_eq!(node.store.stats().tracks[0].aside, 5, "one per topic");
    let bulk = check(&mut node, taken, alarms);
    assert_eq!(bulk.gaps.keys().copied().collect::<Vec<_>>(), [DropReason::KeepLatest]);
    let newest: Vec<Vec<u8>> = (1495..1500).map(noise).collect();
    assert!(
        bulk.payloads.ends_with(&newest),
        "the newest of each topic, in their order"
    );
    let logged = bulk.payloads.len() - 5;
    assert!(bulk.payloads[..logged] == (0..logged as u64).map(noise).collect::<Vec<_>>());
}

#[test]
fn thin_keeps_one_per_topic_and_interval() {
    let dir = tempfile::tempdir().unwrap();
    let interval = Duration::from_secs(3600);
    let (mut node, taken, alarms) = fill(dir.path(), Overflow::Thin { interval }, 1500);
    assert_eq!(taken, 1500);
    let bulk = check(&mut node, taken, alarms);
    assert_eq!(bulk.gaps.keys().copied().collect::<Vec<_>>(), [DropReason::Thin]);
    let logged = bulk
        .payloads
        .iter()
        .zip(0u64..)
        .take_while(|(payload, n)| **payload == noise(*n))
        .count();
    let thinned = &bulk.topics[logged..];
    // Once when sparing began, and once more behind each of the two restarts.
    assert!((5..=15).contains(&thinned.len()), "{thinned:?}");
}

#[test]
fn a_lane_that_uses_up_its_own_quota_gives_way_and_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let quota_bytes = Some(20_000);
    let mut config = config(Overflow::DropOldest);
    config.policies[0].1.quota_bytes = quota_bytes;
    let mut node = Node::open(dir.path(), config);
    for n in 0..900 {
        assert!(offer(&mut node, BULK, n));
    }
    node.settle();
    let used = node.store.pressure().used;
    assert!(used < 25_000 && used > 10_000, "{used}");
    let bulk = drain(&mut node, BULK);
    assert_eq!(bulk.payloads.len() as u64 + bulk.gap_records(), 900);
    assert!(bulk.payloads.ends_with(&[noise(899)]));
}

#[test]
fn of_two_lanes_that_give_up_their_oldest_the_less_valuable_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(Overflow::DropOldest);
    config.policies[1].1.overflow = Overflow::DropOldest;
    let mut node = Node::open(dir.path(), config);
    for n in 0..150 {
        assert!(offer(&mut node, ALARM, n));
    }
    for n in 0..900 {
        assert!(offer(&mut node, BULK, n));
    }
    node.settle();
    assert_eq!(drain(&mut node, ALARM).payloads.len(), 150, "alarms go last");
    let bulk = drain(&mut node, BULK);
    assert!(bulk.gap_records() > 200 && bulk.payloads.len() as u64 + bulk.gap_records() == 900);
}

#[test]
fn a_policy_that_is_taken_back_brings_back_what_was_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let (node, taken, _) = fill(dir.path(), Overflow::KeepLatest, 750);
    node.store.close();
    let mut node = Node::open(dir.path(), config(Overflow::Reject));
    node.settle();
    let bulk = drain(&mut node, BULK);
    assert_eq!(bulk.payloads.len() as u64 + bulk.gap_records(), taken);
}

#[test]
fn a_track_in_memory_gives_up_its_oldest_and_names_it_and_its_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = config(Overflow::DropOldest);
        config.policies[0].1.memory_bytes = Some(20_000);
        config
    };
    let mut node = Node::open(dir.path(), config());
    for n in 0..300 {
        assert!(offer(&mut node, BULK, n));
    }
    let journal = node.store.stats().journal_bytes;
    for n in 300..600 {
        assert!(offer(&mut node, BULK, n));
    }
    assert_eq!(node.store.stats().journal_bytes, journal, "nothing is written");
    assert_eq!(node.store.stats().segment_bytes, 0);
    node.store.close();
    let mut node = Node::open(dir.path(), config());
    assert!(!node.report.is_damaged());
    for n in 600..610 {
        assert!(offer(&mut node, BULK, n));
    }
    let bulk = drain(&mut node, BULK);
    assert_eq!(
        bulk.gaps.get(&DropReason::Volatile),
        Some(&600),
        "closed in order: exactly what was there"
    );
    assert_eq!(bulk.payloads, (600..610).map(noise).collect::<Vec<_>>());
    for n in 610..900 {
        assert!(offer(&mut node, BULK, n));
    }
    // One reading of both, behind the last move of the ring.
    node.settle();
    let (held, gaps) = node.track_from(BULK, 1);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(
        held.len() > 40 && held.len() < 100 && held.last().unwrap().0 == 900,
        "{}",
        held.len()
    );
    assert_eq!(gaps[0], (611, held[0].0 - 1));
}

/// A session that reads the log named what a lane in memory had taken between two of its reads as lost, and the uplink then sent the gap.
#[test]
fn a_reader_of_the_log_loses_nothing_of_a_track_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(Overflow::DropOldest);
    config.policies[0].1.memory_bytes = Some(1 << 20);
    let mut node = Node::open(dir.path(), config);
    let mut at = fellbeck_core::LogPosition::start_of(fellbeck_core::CommitNumber(1));
    for n in 0..20 {
        assert!(offer(&mut node, BULK, n) && offer(&mut node, ALARM, n));
        node.settle();
        let read = node.read_log(at, usize::MAX);
        assert_eq!(read.skipped, 0);
        at = read.next;
    }
    let (records, gaps) = node.track_from(BULK, 1);
    assert_eq!((records.len(), gaps), (20, Vec::new()));
    assert_eq!(node.store.losses(), []);
    node.store.close();
}

#[test]
fn lanes_that_are_acknowledged_and_open_do_not_hold_the_quota() {
    let dir = tempfile::tempdir().unwrap();
    let tracks: Vec<String> = (0..20).map(|n| format!("lane/{n}/0")).collect();
    let config = StoreConfig {
        quota_bytes: Some(60_000),
        segment_bytes: 4000,
        tracks,
        sessions_only: Vec::new(),
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config);
    let mut lanes = (0..20).map(TrackId).cycle();
    let mut n = 0;
    while node.store.admission(BULK) == Admission::Take {
        assert!(offer(&mut node, lanes.next().unwrap(), n));
        n += 1;
    }
    let acked = (0..20).map(|lane| {
        let track = TrackId(lane);
        (track, Seq(node.store.bounds(track).end.0 - 1))
    });
    let acked = acked.collect();
    node.commit(Commit {
        acked,
        ..Commit::default()
    });
    node.settle();
    assert_eq!(node.store.admission(BULK), Admission::Take);
}
