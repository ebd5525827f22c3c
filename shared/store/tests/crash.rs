//! kill -9 at random moments: whatever was answered is there, in order, and atomic.
//!
//! The test starts its own binary again as a child that writes and says what was answered, kills it, opens the directory and
//! checks. `FELLBECK_KILL_ROUNDS` sets the number of rounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Node, append, small_cloud, small_edge};
use fellbeck_core::{Seq, TrackId};
use fellbeck_store::{Append, Layout, Put, Space, StoreConfig};

const LANE: TrackId = TrackId(0);
const LOCAL: TrackId = TrackId(1);
const CHILD: &str = "FELLBECK_STORE_CRASH_CHILD";

fn config(layout: &str) -> StoreConfig {
    let base = match layout {
        "edge" => small_edge(),
        "cloud" => StoreConfig {
            retention_bytes: Some(300_000),
            ..small_cloud()
        },
        other => panic!("no layout {other}"),
    };
    StoreConfig {
        segment_bytes: 20_000,
        ram_window: 30_000,
        memtable_bytes: 15_000,
        journal_nudge: 100_000,
        ..base
    }
}

fn payload(seq: u64) -> String {
    format!("{seq} {}", "x".repeat(seq as usize % 300))
}

/// What the child process runs. Without a job there is no child to be: then it checks that no job was asked for in vain.
#[test]
fn child() {
    let Ok(job) = std::env::var(CHILD) else {
        assert!(std::env::var_os(CHILD).is_none(), "a job must be text");
        return;
    };
    let (layout, dir) = job.split_once(' ').unwrap();
    let mut node = Node::open(Path::new(dir), config(layout));
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    let mut next = node.store.bounds(LANE).end.0;
    let mut local = node.store.bounds(LOCAL).end.0;
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.len() < 8 {
            let count = 1 + next % 7;
            let mut commit = append(LANE, (next..next + count).map(payload));
            next += count;
            local += 1;
            commit.appends.push(Append {
                track: LOCAL,
                block: common::block([payload(next)]),
            });
            commit.puts.push(Put {
                space: Space::Session,
                key: "next".into(),
                value: format!("{next} {local}").into(),
            });
            if layout == "edge" {
                commit.acked.push((LANE, Seq(next.saturating_sub(300))));
                commit.session_floor = Some(node.store.newest_commit());
            }
            node.submitter.submit(commit).unwrap();
            waiting.push_back(next);
        }
        node.answers.blocking_recv().unwrap();
        let durable = waiting.pop_front().unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "durable {durable}").and_then(|()| out.flush()).unwrap();
    }
}

#[test]
fn everything_that_an_edge_answered_survives_kill_9() {
    kill("edge");
}

#[test]
fn everything_that_a_cloud_answered_survives_kill_9() {
    kill("cloud");
}

fn kill(layout: &str) {
    let dir = tempfile::tempdir().unwrap();
    let rounds = std::env::var("FELLBECK_KILL_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let mut answered = 1;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, format!("{layout} {}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let kill_after = rand::random_range(1..400);
        let mut killed = false;
        for (n, seq) in durable.enumerate() {
            answered = seq;
            if n == kill_after {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "round {round}: the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();
        check(dir.path(), config(layout), answered, round);
    }
}

fn check(dir: &Path, config: StoreConfig, answered: u64, round: u32) {
    let edge = config.layout == Layout::Edge;
    let mut node = Node::open(dir, config);
    assert!(!node.report.is_damaged(), "round {round}: {:?}", node.report);
    // The writer trims when it starts; the bounds are at rest after a barrier.
    node.settle();
    let bounds = node.store.bounds(LANE);
    let end = bounds.end.0;
    assert!(
        end >= answered,
        "round {round}: {answered} was answered, the track ends at {end}"
    );
    let expected = (bounds.first.0..end).map(|seq| (seq, payload(seq)));
    if edge {
        assert!(
            bounds.acked < bounds.end && bounds.first.0 <= bounds.acked.0 + 1,
            "{bounds:?}"
        );
        let (records, gaps) = node.track_from(LANE, 1);
        assert_eq!(gaps, []);
        assert!(
            records.into_iter().eq(expected.clone()),
            "round {round}: a hole, a double or another order"
        );
    }
    let put = node.store.get(Space::Session, b"next").unwrap().unwrap();
    let ends = format!("{end} {}", node.store.bounds(LOCAL).end);
    assert_eq!(
        put.value, ends,
        "round {round}: records and values of one commit stand together, also where all was trimmed"
    );
    assert_eq!(put.commit, node.store.newest_commit());
    let log = node.log_from(1, 10_000);
    assert!(log.is_sorted_by_key(|record| (record.0, record.1, record.2)));
    let lane: Vec<_> = log
        .into_iter()
        .filter(|record| record.1 == LANE.0)
        .map(|record| (record.2, record.3))
        .collect();
    let differs = lane.iter().zip(expected.clone()).find(|(have, want)| *have != want);
    assert!(
        lane.iter().cloned().eq(expected),
        "round {round}: the log in commit order differs at {differs:?}, has {} of {bounds:?} {:?}",
        lane.len(),
        node.store.stats()
    );
}
