//! The system refuses for a while: an error that is asked again, and never a loss that is declared.
//!
//! A binary of its own, since the limit of open files is one of the process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Node, append, noise, small_edge};
use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};
use fellbeck_store::{OpenError, ReadError, StoreConfig, TrackEntry, open};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const LANE: TrackId = TrackId(0);

/// Nothing more can be opened until this is dropped.
struct NoMoreFiles(Rlimit);

impl NoMoreFiles {
    fn begin() -> Self {
        let before = getrlimit(Resource::Nofile);
        // Those that are open stay so.
        let current = Some(3);
        setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
        Self(before)
    }
}

impl Drop for NoMoreFiles {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

#[test]
fn a_process_without_descriptors_reads_errors_and_no_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        files_max: 10,
        ram_window: 1000,
        journal_nudge: 3000,
        cache_bytes: 0,
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config());
    for n in 1..=400 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.store.close();
    let node = Node::open(dir.path(), config());
    assert!(!node.report.is_damaged());

    let limit = NoMoreFiles::begin();
    let mut refused = 0;
    for from in (1..=400).step_by(5) {
        match node.store.read_track(LANE, Seq(from), 1500).blocking_recv().unwrap() {
            Ok(read) => assert!(
                read.entries.iter().all(|entry| matches!(entry, TrackEntry::Batch(_))),
                "{read:?}"
            ),
            Err(ReadError::Engine(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        let position = LogPosition::start_of(CommitNumber(from));
        match node.store.read_log(position, 1500).blocking_recv().unwrap() {
            Ok(read) => assert_eq!((read.skipped, read.blocks[0].commit.0), (0, from)),
            Err(ReadError::Engine(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 20, "the test takes away what the reads need: {refused}");
    drop(limit);
    let (records, gaps) = node.track_from(LANE, 1);
    assert_eq!((records.len(), gaps), (400, vec![]));
    node.store.close();

    let limit = NoMoreFiles::begin();
    let refusal = open(dir.path(), config()).unwrap_err();
    assert!(
        matches!(refusal, OpenError::Io { .. } | OpenError::Engine { .. }),
        "{refusal}"
    );
    drop(limit);
    let node = Node::open(dir.path(), config());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert_eq!(node.track_from(LANE, 1).0.len(), 400);
}
