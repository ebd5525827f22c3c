//! Trimmed segments that a crash or a power cut brings back: no loss is named for their neighbours, and no number is used again (P8, I5).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{Node, append, noise, small_cloud, small_edge};
use fellbeck_core::{CommitNumber, Seq, TrackId};
use fellbeck_store::{Commit, StoreConfig};

const LANE: TrackId = TrackId(0);
const LOCAL: TrackId = TrackId(1);

/// A crash between the commit that forgets a trimmed segment and the deletion of its files brings the segment back, without
/// its entry in the index. It must neither take records again nor let younger segments go before it.
#[test]
fn a_trimmed_segment_that_came_back_goes_first_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = |retention_bytes| StoreConfig {
        retention_bytes,
        ..small_cloud()
    };
    let mut node = Node::open(dir.path(), config(None));
    for n in 1..=60 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.store.close();
    let db = fjall::Database::builder(dir.path().join("db")).open().unwrap();
    let index = db.keyspace("index", fjall::KeyspaceCreateOptions::default).unwrap();
    let oldest = index.prefix("s").next().unwrap().key().unwrap();
    index.remove(oldest).unwrap();
    db.persist(fjall::PersistMode::SyncAll).unwrap();
    drop((index, db));

    let mut node = Node::open(dir.path(), config(Some(10_000)));
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    for n in 61..=90 {
        node.commit(append(LANE, [noise(n)]));
        node.settle();
        let log = node.log_from(1, 5000);
        let seqs: Vec<u64> = log.iter().map(|record| record.2).collect();
        assert!(
            seqs.iter().copied().eq(node.store.bounds(LANE).first.0..=n),
            "held without a hole: {seqs:?}"
        );
    }
    assert!(node.store.bounds(LANE).first > Seq(30));
}

/// Makes the directory look as after a crash in which all segments were deleted but the oldest, whose entry in the index is gone;
/// without a high-water file that could tell.
fn bring_back_the_oldest(dir: &Path, acked: Option<u64>) {
    let db = fjall::Database::builder(dir.join("db")).open().unwrap();
    let keyspace = |name: &str| db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
    let index = keyspace("index");
    for seal in index.prefix("s").map(|guard| guard.key().unwrap()).collect::<Vec<_>>() {
        index.remove(seal).unwrap();
    }
    if let Some(acked) = acked {
        let key = [&b"a"[..], &LANE.0.to_be_bytes()].concat();
        index.insert(key, acked.to_be_bytes()).unwrap();
    }
    let mut segments: Vec<_> = db.list_keyspace_names().iter().map(ToString::to_string).collect();
    segments.retain(|name| name.starts_with("segment-"));
    segments.sort();
    for name in &segments[1..] {
        db.delete_keyspace(keyspace(name)).unwrap();
    }
    db.persist(fjall::PersistMode::SyncAll).unwrap();
    forget_high_water(dir);
}

fn forget_high_water(dir: &Path) {
    for slot in ["high-water.a", "high-water.b"] {
        fs::remove_file(dir.join(slot)).unwrap();
    }
}

#[test]
fn an_acknowledged_segment_that_came_back_alone_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_edge());
    for n in 1..=60 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.store.close();
    bring_back_the_oldest(dir.path(), Some(60));
    for n in 61..=63 {
        let mut node = Node::open(dir.path(), small_edge());
        assert!(!node.report.is_damaged(), "{:?}", node.report);
        assert_eq!(node.store.bounds(LANE).end, Seq(n), "a number is never reused (I5)");
        node.commit(append(LANE, [noise(n)]));
        node.settle();
        assert_eq!(node.track_from(LANE, 61).0.len() as u64, n - 60);
        node.store.close();
    }
}

/// A trimmed segment that comes back ends below what the index knows of its track. Sealing it anew must not take that back.
#[test]
fn a_segment_that_came_back_does_not_take_the_end_of_its_track_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), small_edge());
    for n in 1..=60 {
        let mut commit = append(LOCAL, [noise(n)]);
        commit.session_floor = Some(CommitNumber(1));
        node.commit(commit);
    }
    node.store.close();
    bring_back_the_oldest(dir.path(), None);
    let mut node = Node::open(dir.path(), small_edge());
    let end = node.store.bounds(LOCAL).end;
    assert!(end > Seq(50), "the index knows: {end}");
    for n in 1..=3 {
        // The session catches up: the segment goes, and with it all that tells of the track but its end.
        node.commit(Commit {
            session_floor: Some(CommitNumber(100 + n)),
            ..Commit::default()
        });
        node.settle();
    }
    assert_eq!(node.store.stats().segments, 0);
    node.store.close();
    forget_high_water(dir.path());
    let node = Node::open(dir.path(), small_edge());
    assert_eq!(node.store.bounds(LOCAL).end, end, "a number is never reused (I5)");
}

/// Found by the power-cut rig: a segment is deleted, its removal is undone but for the `current` file, and the journal still holds its
/// records. The list does not name it: it is not damage, and nothing is set aside.
#[test]
fn a_deleted_segment_that_came_back_in_part_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        journal_nudge: 1 << 30,
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config());
    for n in 1..=30 {
        node.commit(append(LANE, [noise(n)]));
    }
    let keyspaces = dir.path().join("db/keyspaces");
    let folders = || -> std::collections::BTreeSet<_> {
        let entries = fs::read_dir(&keyspaces).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = folders();
    node.commit(Commit {
        acked: vec![(LANE, Seq(20))],
        ..Commit::default()
    });
    node.settle();
    node.store.close();
    let gone: Vec<_> = before.difference(&folders()).cloned().collect();
    assert!(!gone.is_empty(), "acknowledged segments are deleted");
    for folder in gone {
        fs::create_dir_all(keyspaces.join(&folder)).unwrap();
        fs::write(keyspaces.join(&folder).join("v4"), b"left over").unwrap();
    }
    let node = Node::open(dir.path(), config());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert_eq!(node.track_from(LANE, 21).0.len(), 10);
}
