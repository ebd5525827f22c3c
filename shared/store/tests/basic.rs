//! What a store promises while nothing goes wrong: commits, reads, trimming, reopening.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{Node, append, noise, small_cloud, small_edge};
use fellbeck_core::{CommitNumber, Seq, TrackId};
use fellbeck_store::{
    Commit, Delete, Level, OpenError, Put, ReadError, Space, StoreConfig, SubmitError, TailRead, Urgency, open,
};

const LANE: TrackId = TrackId(0);
const LOCAL: TrackId = TrackId(1);

fn texts(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| format!("record {n}")).collect()
}

fn numbered(range: std::ops::Range<u64>) -> Vec<(u64, String)> {
    range.clone().zip(texts(range)).collect()
}

#[test]
fn records_are_read_back_by_track_and_in_commit_order_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_edge());
    assert!(node.report.created && !node.report.is_damaged());
    let mut expected = Vec::new();
    for n in 0..60 {
        let (track, at) = if n % 3 == 2 { (LOCAL, n / 3) } else { (LANE, n - n / 3) };
        let first = 1 + at * 5;
        let mut commit = append(track, texts(first..first + 5));
        commit.session_floor = Some(CommitNumber(1));
        let committed = node.commit(commit);
        assert_eq!(committed.commit, CommitNumber(n + 1));
        expected.extend((first..first + 5).map(|seq| (n + 1, track.0, seq, format!("record {seq}"))));
    }
    assert!(node.store.stats().segments > 3, "the test reaches roll-over");
    for round in 0..2 {
        assert_eq!(node.track_from(LANE, 1), (numbered(1..201), vec![]));
        assert_eq!(node.track_from(LOCAL, 33), (numbered(33..101), vec![]));
        for bytes_max in [1, 700, usize::MAX] {
            assert_eq!(node.log_from(1, bytes_max), expected);
        }
        for start in [2, 17, 30, 60] {
            let rest: Vec<_> = expected.iter().filter(|record| record.0 >= start).cloned().collect();
            assert_eq!(node.log_from(start, 300), rest);
        }
        if round == 0 {
            node.store.close();
            node = Node::open(dir.path(), small_edge());
            assert!(!node.report.is_damaged(), "{:?}", node.report);
            assert_eq!(node.store.newest_commit(), CommitNumber(60));
            assert_eq!(node.store.incarnations().len(), 2);
        }
    }
    let bounds = node.store.bounds(LANE);
    assert_eq!((bounds.first, bounds.end, bounds.epoch.0), (Seq(1), Seq(201), 2));
    assert_eq!(node.commit(append(LANE, texts(201..202))).commit, CommitNumber(61));
    assert_eq!(node.track_from(LANE, 199), (numbered(199..202), vec![]));
}

#[test]
fn a_cloud_shares_segments_between_partitions_and_keeps_commit_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_cloud());
    let mut expected = Vec::new();
    for n in 0..50u64 {
        let mut commit = append(TrackId(1), [format!("{n} one")]);
        commit
            .appends
            .extend(append(TrackId(0), [format!("{n} zero"), format!("{n} zero too")]).appends);
        node.commit(commit);
        let records = [(0, 2 * n + 1, "zero"), (0, 2 * n + 2, "zero too"), (1, n + 1, "one")];
        expected.extend(records.map(|(track, seq, text)| (n + 1, track, seq, format!("{n} {text}"))));
    }
    for _ in 0..2 {
        assert_eq!(node.log_from(1, 500), expected);
        let last: Vec<_> = expected.iter().filter(|record| record.0 >= 44).cloned().collect();
        assert_eq!(node.log_from(44, 1), last);
        node.store.close();
        node = Node::open(dir.path(), small_cloud());
    }
    let read = node.store.read_track(LANE, Seq(1), 1).blocking_recv().unwrap();
    assert_eq!(read.unwrap_err(), ReadError::OtherLayout);
}

#[test]
fn keyed_values_carry_their_commit_and_scans_go_by_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_edge());
    let put = |key: &'static str, value: &'static str| Put {
        space: Space::Retained,
        key: key.into(),
        value: value.into(),
    };
    node.commit(Commit {
        puts: vec![put("a/1", "x"), put("a/2", "y"), put("b", "z"), put("a", "w")],
        ..Commit::default()
    });
    node.commit(Commit {
        puts: vec![put("a/2", "new")],
        deletes: vec![Delete {
            space: Space::Retained,
            key: "a/1".into(),
        }],
        ..Commit::default()
    });
    node.store.close();
    let node = Node::open(dir.path(), small_edge());
    let scan = |prefix: &'static str, after: Option<&'static str>, max| {
        let scan = node
            .store
            .scan(Space::Retained, prefix.into(), after.map(Into::into), max);
        let found = scan.blocking_recv().unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let plain =
            |entry: &fellbeck_store::Stored| format!("{}={}@{}", text(&entry.key), text(&entry.value), entry.commit);
        found.iter().map(plain).collect::<Vec<_>>()
    };
    assert_eq!(scan("a", None, 1000), ["a=w@1", "a/2=new@2"]);
    assert_eq!(scan("", Some("a"), 1), ["a/2=new@2"]);
    assert_eq!(scan("a", Some("a/2"), 1000), [""; 0]);
    assert_eq!(node.store.load(Space::Retained).unwrap().len(), 3);
    assert_eq!(node.store.get(Space::Retained, b"b").unwrap().unwrap().value, "z");
    assert!(node.store.get(Space::Session, b"b").unwrap().is_none());
}

#[test]
fn acknowledged_segments_go_and_the_grace_window_and_sessions_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_edge());
    let ack = |seq| Commit {
        acked: vec![(LANE, Seq(seq))],
        urgency: Urgency::Lazy,
        ..Commit::default()
    };
    for n in 0..100 {
        let mut commit = append(LANE, [noise(n)]);
        commit.session_floor = Some(CommitNumber(40));
        node.commit(commit);
    }
    assert_eq!(
        node.store.bounds(LANE).first,
        Seq(1),
        "nothing goes before it is acknowledged (I2)"
    );
    node.submitter.submit(ack(90)).unwrap();
    node.store.close();
    let mut node = Node::open(dir.path(), small_edge());
    let bounds = node.store.bounds(LANE);
    assert_eq!(bounds.acked, Seq(90), "a lazy submission is committed at close");
    assert!(
        bounds.first > Seq(20) && bounds.first <= Seq(40),
        "sessions pin from commit 40 on: {bounds:?}"
    );
    assert_eq!(node.track_from(LANE, 1).0.first().unwrap().0, bounds.first.0);
    let read = node.read_log(fellbeck_core::LogPosition::start_of(CommitNumber(1)), usize::MAX);
    assert_eq!(read.blocks[0].tracks[0].first, bounds.first);

    node.commit(Commit {
        session_floor: Some(CommitNumber(101)),
        ..Commit::default()
    });
    node.settle();
    let first = node.store.bounds(LANE).first;
    assert!(first > Seq(70) && first <= Seq(91), "the floor has moved: {first}");
    assert_eq!(node.track_from(LANE, 91).0.len(), 10);
}

#[test]
fn lagging_sessions_pin_no_more_than_their_share_and_what_they_miss_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        quota_bytes: Some(80_000),
        session_pin_share: 0.1,
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config);
    for n in 0..100 {
        let mut commit = append(LOCAL, [noise(n)]);
        commit.session_floor = Some(CommitNumber(1));
        node.commit(commit);
    }
    node.settle();
    let bounds = node.store.bounds(LOCAL);
    assert!(bounds.first > Seq(50), "8,000 bytes are pinned: {bounds:?}");
    let read = node.read_log(fellbeck_core::LogPosition::start_of(CommitNumber(1)), 1);
    assert!(read.skipped > 20 && read.skipped < bounds.first.0, "{}", read.skipped);
    assert_eq!(read.blocks[0].tracks[0].first, bounds.first);
}

#[test]
fn the_cloud_trims_by_bytes_whatever_readers_have_seen() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        retention_bytes: Some(20_000),
        ..small_cloud()
    };
    let mut node = Node::open(dir.path(), config());
    for n in 0..200 {
        node.commit(append(TrackId(n as u32 % 3), [noise(n)]));
    }
    node.settle();
    let held = node.store.stats();
    assert!(held.segment_bytes < 26_000, "{}", held.segment_bytes);
    let log = node.log_from(1, 1000);
    assert_eq!(log.last().unwrap().0, 200);
    assert_eq!(log.len() as u64, 201 - log[0].0, "what is held is held without a hole");
    node.store.close();
    let node = Node::open(dir.path(), config());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert_eq!(node.log_from(1, 1000), log);
}

#[test]
fn the_quota_shows_as_pressure() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        quota_bytes: Some(20_000),
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config);
    let mut levels = vec![node.store.pressure().level];
    for n in 0..90 {
        node.commit(append(LANE, [noise(n)]));
        levels.push(node.store.pressure().level);
    }
    assert!(levels.is_sorted());
    levels.dedup();
    assert_eq!(levels, [Level::Normal, Level::High, Level::Full]);
    let end = node.store.bounds(LANE).end;
    node.commit(Commit {
        acked: vec![(LANE, Seq(end.0 - 1))],
        ..Commit::default()
    });
    node.settle();
    assert_eq!(node.store.pressure().level, Level::Normal);
}

#[test]
fn the_tail_serves_what_the_log_serves() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        tail_bytes: 2000,
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config);
    let watch = node.store.watch();
    for n in 0..40 {
        node.commit(append(LANE, [noise(n)]));
    }
    assert_eq!(*watch.borrow(), CommitNumber(40));
    assert!(matches!(node.store.tail().read(CommitNumber(1), 100), TailRead::Behind));
    let TailRead::Blocks(blocks) = node.store.tail().read(CommitNumber(38), usize::MAX) else {
        panic!("the newest commits are in the tail")
    };
    let log = node.read_log(fellbeck_core::LogPosition::start_of(CommitNumber(38)), usize::MAX);
    assert_eq!(blocks.len(), log.blocks.len());
    for (tail, log) in blocks.iter().zip(&log.blocks) {
        assert_eq!(tail.commit, log.commit);
        assert_eq!(tail.tracks[0].block.bytes(), log.tracks[0].block.bytes());
        assert_eq!(
            (tail.tracks[0].first, tail.tracks[0].epoch),
            (log.tracks[0].first, log.tracks[0].epoch)
        );
    }
    assert!(matches!(node.store.tail().read(CommitNumber(41), 100), TailRead::Empty));
}

#[test]
fn submissions_are_bounded_checked_and_joined() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        lazy_max: Duration::from_secs(3600),
        ..small_edge()
    };
    let node = Node::open(dir.path(), config);
    let (submitter, mut answers) = node.store.submitter(3);
    let lazy = || Commit {
        urgency: Urgency::Lazy,
        ..append(LANE, ["lazy"])
    };
    submitter.submit(lazy()).unwrap();
    submitter.submit(lazy()).unwrap();
    let barrier = submitter.submit(Commit::default()).unwrap();
    assert!(matches!(submitter.submit(lazy()), Err(SubmitError::Full(_))));
    assert_eq!(submitter.outstanding(), 3);
    let commits: Vec<_> = (0..3).map(|_| answers.blocking_recv().unwrap()).collect();
    assert_eq!(commits[2].ticket, barrier);
    assert!(
        commits.iter().all(|answer| answer.commit == CommitNumber(1)),
        "{commits:?}"
    );
    assert_eq!(submitter.outstanding(), 0);
    submitter.submit(Commit::default()).unwrap();
    assert_eq!(
        answers.blocking_recv().unwrap().commit,
        CommitNumber(1),
        "a barrier writes nothing"
    );

    assert!(matches!(
        submitter.submit(append(TrackId(9), ["x"])),
        Err(SubmitError::Invalid(_))
    ));
    let empty_key = Commit {
        deletes: vec![Delete {
            space: Space::Node,
            key: "".into(),
        }],
        ..Commit::default()
    };
    assert!(matches!(submitter.submit(empty_key), Err(SubmitError::Invalid(_))));
    node.store.close();
    assert!(matches!(submitter.submit(Commit::default()), Err(SubmitError::Halted)));
    assert_eq!(node.store.load(Space::Node).unwrap_err(), ReadError::Closed);
}

#[test]
fn locked_foreign_newer_and_other_directories_are_refused_with_one_line() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("store");
    let node = Node::open(&dir, small_edge());
    let refusal = |config| {
        let error = open(&dir, config).unwrap_err();
        assert!(!error.to_string().contains('\n'));
        error
    };
    assert!(matches!(refusal(small_edge()), OpenError::Locked { .. }));
    drop(node);
    assert!(matches!(refusal(small_cloud()), OpenError::OtherLayout { .. }));
    // A newer program would have written both; the copy of an older one counts more than a changed line.
    std::fs::remove_file(dir.join("FORMAT.copy")).unwrap();
    std::fs::write(dir.join("FORMAT"), "fellbeck-store 2 edge and something new").unwrap();
    assert!(matches!(refusal(small_edge()), OpenError::NewerFormat { found: 2, .. }));
    std::fs::write(dir.join("FORMAT"), "hello").unwrap();
    assert!(matches!(refusal(small_edge()), OpenError::Damaged { .. }));

    let foreign = root.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("photo.jpg"), "x").unwrap();
    assert!(matches!(
        open(&foreign, small_edge()).unwrap_err(),
        OpenError::Foreign { .. }
    ));
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1, "nothing was touched");
}

/// Tables of one segment in the cloud overlap, since they hold several partitions. The engine stops writers for ever at 30.
#[test]
fn a_segment_that_is_written_out_many_times_does_not_stop_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        segment_bytes: 1 << 30,
        ..small_cloud()
    };
    let mut node = Node::open(dir.path(), config);
    for n in 0..120u64 {
        let mut commit = append(TrackId(0), [noise(n)]);
        commit.appends.extend(append(TrackId(2), [noise(n)]).appends);
        // What makes the journal long are keyed values.
        commit.puts.push(Put {
            space: Space::Session,
            key: "big".into(),
            value: (0..100).flat_map(|m| noise(n * 100 + m)).collect::<Vec<u8>>().into(),
        });
        node.commit(commit);
    }
    let stats = node.store.stats();
    assert!(stats.table_bytes > 20_000, "the segments were written out: {stats:?}");
    assert!(
        stats.segments > 3 && stats.segments < 20,
        "sealed by the number of their tables: {stats:?}"
    );
    assert_eq!(node.log_from(1, 5000).len(), 240);
}
