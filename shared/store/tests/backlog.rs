//! A backlog on disk with the settings of a real edge: bounded memory and journals, a quick reopen, everything readable.
//!
//! `FELLBECK_BACKLOG_MB` sets the size; the figures are printed with `--nocapture`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::{Node, append, noise};
use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};
use fellbeck_store::{Commit, StoreConfig};

const LANE: TrackId = TrackId(0);

fn config() -> StoreConfig {
    StoreConfig {
        linger: Duration::ZERO,
        ..StoreConfig::edge(vec!["lane/default/0".into(), "lane/quiet/0".into()])
    }
}

#[test]
fn a_backlog_reopens_quickly_drains_and_returns_its_space() {
    let megabytes: u64 = std::env::var("FELLBECK_BACKLOG_MB").map_or(96, |size| size.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), config());
    let records: Vec<_> = (0..1000).map(noise).collect();
    let commits = megabytes * 5;
    node.commit(append(TrackId(1), ["a lane with little traffic"]));
    let start = Instant::now();
    for _ in 0..commits {
        node.commit(append(LANE, &records));
    }
    let wrote = start.elapsed();
    let stats = node.store.stats();
    assert!(stats.segment_bytes > megabytes << 20, "{stats:?}");
    let journals = journal_bytes(dir.path());
    assert!(
        journals <= (3 * 64) << 20,
        "a lane with little traffic does not pin journals: {journals}"
    );
    println!(
        "{megabytes} MB in {wrote:?}, {} segments, journals {journals}, RSS {} MB",
        stats.segments,
        rss_mb()
    );
    assert!(rss_mb() < 200, "{}", rss_mb());
    node.store.close();
    drop(node);

    let start = Instant::now();
    let mut node = Node::open(dir.path(), config());
    let opened = start.elapsed();
    node.commit(append(LANE, ["the first after the restart"]));
    println!(
        "open {opened:?}, first commit after {:?}, RSS {} MB",
        start.elapsed(),
        rss_mb()
    );
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert!(opened < Duration::from_secs(20), "{opened:?}");

    let start = Instant::now();
    let end = node.store.bounds(LANE).end;
    assert_eq!(end, Seq(commits * 1000 + 2));
    let mut at = Seq(1);
    while at < end {
        let read = node.read_track(LANE, at.0, 1 << 20);
        assert!(read.next > at);
        at = read.next;
        node.commit(Commit {
            acked: vec![(LANE, Seq(at.0 - 1))],
            ..Commit::default()
        });
    }
    println!("drained in {:?}, RSS {} MB", start.elapsed(), rss_mb());
    let log = node.read_log(LogPosition::start_of(CommitNumber(1)), 1);
    assert!(!log.blocks.is_empty());
    node.settle();
    let held = node.store.stats();
    assert!(
        held.segment_bytes < (64 + 3 * 8) << 20,
        "the grace window and the open segments: {held:?}"
    );
}

fn journal_bytes(dir: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap());
    let journals = files.filter(|file| file.file_name().to_string_lossy().ends_with(".jnl"));
    journals.map(|file| file.metadata().unwrap().len()).sum()
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
