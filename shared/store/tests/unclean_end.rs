//! An open behind one that did not end by itself, while the system still runs: what it reads back may be in memory only.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Node, append, small_edge};
use fellbeck_core::TrackId;

/// Found by a disk whose sync failed once: the system went on showing what it had not written, the next open built on it, and a power cut
/// took what was acknowledged since. What an open finds behind one that did not end by itself is written anew.
#[test]
fn what_is_read_back_behind_a_store_that_was_not_closed_is_written_anew() {
    use std::os::unix::fs::MetadataExt;

    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("in-use");
    let inode = || std::fs::metadata(dir.path().join("db/0.jnl")).unwrap().ino();
    let mut node = Node::open(dir.path(), small_edge());
    assert!(mark.exists());
    node.commit(append(TrackId(0), ["one"]));
    drop(node);
    assert!(!mark.exists(), "a store that was closed leaves no mark");

    let before = inode();
    drop(Node::open(dir.path(), small_edge()));
    assert_eq!(inode(), before);
    std::fs::copy("/proc/sys/kernel/random/boot_id", &mark).unwrap();
    let node = Node::open(dir.path(), small_edge());
    assert_ne!(inode(), before, "the journal is another file now");
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert_eq!(node.track_from(TrackId(0), 1).0, [(1, "one".to_owned())]);
    drop(node);

    let before = inode();
    std::fs::write(&mark, "a system that is gone").unwrap();
    drop(Node::open(dir.path(), small_edge()));
    assert_eq!(
        inode(),
        before,
        "with the system its memory is gone: what is read is on disk"
    );
}
