//! The store alone on the disk, with tiny segments, tables and journals: so every kind of file is made, replaced and removed within a
//! few hundred operations, and thousands of cuts are done in minutes.
//!
//! The test starts its own binary again as a child that opens, checks all that is there, writes, and says what was answered. The power
//! goes at a chosen operation, which may well be within the next open.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use fellbeck_core::{Seq, TrackId};
use fellbeck_store::{Append, Overflow, Put, Space, StoreConfig, TrackPolicy};
use fellbeck_tests::Stamp;
use fellbeck_tests::power_cut::{CutPlan, PowerDisk};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::common::{self, Node, append, small_cloud, small_edge};
use crate::{Progress, cuts, seed, skipped, trigger};

const LANE: TrackId = TrackId(0);
const LOCAL: TrackId = TrackId(1);
const CHILD: &str = "FELLBECK_POWER_CUT_CHILD";
/// Cuts in the gate, per layout.
const SHORT: u64 = 120;
/// Cuts of one disk before an empty one takes its place.
const LIFE: u64 = 40;
/// Operations before a cut, at most.
const OPERATIONS: u64 = 2_000;
/// A trigger that waits for a rare operation is not waited for longer.
const WAIT_MAX: Duration = Duration::from_secs(2);

fn config(layout: &str) -> StoreConfig {
    let base = match layout {
        "edge" => small_edge(),
        "cloud" => StoreConfig {
            retention_bytes: Some(300_000),
            ..small_cloud()
        },
        // An edge that nobody acknowledges, or only now and then, with a small quota.
        "drop-oldest" | "keep-latest" => {
            let overflow = if layout == "drop-oldest" {
                Overflow::DropOldest
            } else {
                Overflow::KeepLatest
            };
            let policy = TrackPolicy {
                overflow,
                ..TrackPolicy::default()
            };
            let base = small_edge();
            StoreConfig {
                quota_bytes: Some(400_000),
                policies: vec![(base.tracks[0].clone(), policy)],
                ..base
            }
        }
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

/// Text that hardly compresses, so that segments fill.
fn payload(seq: u64) -> String {
    let stamp = Stamp {
        device: "d".to_owned(),
        seq: seq as usize,
    };
    String::from_utf8(stamp.payload(seq as usize % 300)).unwrap()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// What the child process runs. Without a job there is no child to be: then it checks that no job was asked for in vain.
#[test]
fn child() {
    let Ok(job) = std::env::var(CHILD) else {
        assert!(std::env::var_os(CHILD).is_none(), "a job must be text");
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::ERROR)
        .init();
    let (layout, dir) = job.split_once(' ').unwrap();
    let mut node = Node::open(Path::new(dir), config(layout));
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    let end = match layout {
        "drop-oldest" | "keep-latest" => check_given_up(&mut node, layout == "drop-oldest"),
        _ => check(&mut node, layout == "edge"),
    };
    say(&format!("opened {end}"));
    write(&mut node, layout, end);
}

/// Numbers that were handed out, and those that are still to be.
fn taken(node: &Node) -> u64 {
    let stats = &node.store.stats().tracks[LANE.0 as usize];
    stats.appended + stats.aside + stats.owed + 1
}

/// What policy gives up is named, and all else is there. Returns the number of the next record.
fn check_given_up(node: &mut Node, in_order: bool) -> u64 {
    node.settle();
    let next = taken(node);
    let put = node.store.get(Space::Session, b"next").unwrap();
    let said = put.map_or("1".to_owned(), |put| String::from_utf8_lossy(&put.value).into_owned());
    assert_eq!(
        said.split(' ').next(),
        Some(next.to_string().as_str()),
        "each record has one number, or is owed one"
    );
    let (records, gaps) = node.track_from(LANE, 1);
    let bounds = node.store.bounds(LANE);
    let named: u64 = gaps.iter().map(|(first, last)| last - first + 1).sum();
    assert_eq!(
        records.len() as u64 + named,
        bounds.end.0 - bounds.first.0,
        "held or named, once"
    );
    if in_order {
        assert!(
            records.iter().all(|(seq, text)| *text == payload(*seq)),
            "another record"
        );
        assert!(gaps.len() <= 1 && gaps.iter().all(|(first, _)| *first == 1), "{gaps:?}");
    } else {
        let numbers: Vec<usize> = records
            .iter()
            .map(|(_, text)| Stamp::parse(text.as_bytes()).unwrap().seq)
            .collect();
        assert!(
            numbers.is_sorted_by(|one, next| one < next),
            "twice, or in another order"
        );
        assert!(numbers.last().is_none_or(|last| (*last as u64) < next));
    }
    next
}

fn write(node: &mut Node, layout: &str, mut next: u64) -> ! {
    let edge = layout == "edge";
    let mut commits = 0;
    let mut local = node.store.bounds(LOCAL).end.0;
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.len() < 4 {
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
            commit.puts.push(Put {
                space: Space::Retained,
                key: format!("topic/{}", next % 50).into(),
                value: payload(next).into(),
            });
            if edge {
                commit.acked.push((LANE, Seq(next.saturating_sub(300))));
                commit.session_floor = Some(node.store.newest_commit());
            }
            commits += 1;
            if layout == "keep-latest" && commits % 400 == 0 {
                commit.acked.push((LANE, Seq(node.store.bounds(LANE).end.0 - 1)));
            }
            if layout == "drop-oldest" || layout == "keep-latest" {
                commit.session_floor = Some(node.store.newest_commit());
            }
            node.submitter.submit(commit).unwrap();
            waiting.push_back(next);
        }
        node.answers.blocking_recv().unwrap();
        say(&format!("durable {}", waiting.pop_front().unwrap()));
    }
}

/// Everything that is there is right, in order and whole. Returns the end of the lane.
fn check(node: &mut Node, edge: bool) -> u64 {
    let put = node.store.get(Space::Session, b"next").unwrap();
    let newest = node.store.newest_commit();
    // The writer trims when it starts; the bounds are at rest after a barrier.
    node.settle();
    let bounds = node.store.bounds(LANE);
    let end = bounds.end.0;
    let expected = (bounds.first.0..end).map(|seq| (seq, payload(seq)));
    if edge {
        assert!(bounds.first.0 <= bounds.acked.0 + 1, "{bounds:?}");
        let (records, gaps) = node.track_from(LANE, 1);
        assert_eq!(gaps, []);
        assert!(
            records.into_iter().eq(expected.clone()),
            "a hole, a double or another order"
        );
    }
    let ends = format!("{end} {}", node.store.bounds(LOCAL).end);
    match put {
        Some(put) => {
            assert_eq!(put.value, ends, "records and values of one commit stand together");
            // An open may have written a commit of its own, to correct its index.
            assert!(put.commit <= newest, "{put:?} of a commit that is not there");
        }
        None => assert_eq!(end, 1, "records without the value of their commit"),
    }
    let log = node.log_from(1, 10_000);
    assert!(log.is_sorted_by_key(|record| (record.0, record.1, record.2)));
    let lane = log.into_iter().filter(|record| record.1 == LANE.0);
    let lane: Vec<_> = lane.map(|record| (record.2, record.3)).collect();
    assert!(lane.iter().cloned().eq(expected), "the log in commit order differs");
    end
}

#[test]
fn an_edge_store_keeps_what_it_answered_through_power_cuts() {
    run("edge");
}

#[test]
fn a_cloud_store_keeps_what_it_answered_through_power_cuts() {
    run("cloud");
}

#[test]
fn an_edge_store_that_gives_up_its_oldest_names_it_through_power_cuts() {
    run("drop-oldest");
}

#[test]
fn an_edge_store_that_keeps_the_latest_accounts_for_the_rest_through_power_cuts() {
    run("keep-latest");
}

fn run(layout: &'static str) {
    if skipped() {
        return;
    }
    let seed = seed(layout);
    let total = cuts(SHORT);
    let progress = Progress::new(layout, total);
    let (mut done, mut opens, mut pending) = (0, 0, (0, 0));
    while done < total {
        let life = Life::new(layout, seed.wrapping_add(done / LIFE));
        let outcome = life.run(LIFE.min(total - done));
        done += LIFE.min(total - done);
        opens += outcome.opens;
        pending = (pending.0 + outcome.names, pending.1 + outcome.files);
        if done % (LIFE * 10) == 0 || done == total {
            let (names, files) = pending;
            progress.tell(
                done,
                &format!("{opens} opens finished, {names} times names and {files} times bytes were lost"),
            );
        }
    }
    assert!(opens * 3 > total, "most cuts hit an open: nothing was tested behind it");
    assert!(pending.1 * 10 > total, "hardly a cut took anything: {pending:?}");
}

#[derive(Default)]
struct Outcome {
    opens: u64,
    names: u64,
    files: u64,
}

/// One disk from empty on.
struct Life {
    layout: &'static str,
    seed: u64,
    rng: StdRng,
    journaled: bool,
    disk: PowerDisk,
    /// Outlives the mount in it.
    dir: tempfile::TempDir,
}

impl Life {
    fn new(layout: &'static str, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let journaled = rng.random_bool(0.3);
        let disk = PowerDisk::mount(&dir.path().join("disk"), journaled, seed);
        Self {
            layout,
            seed,
            rng,
            journaled,
            disk,
            dir,
        }
    }

    fn run(mut self, cuts: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut answered = 1;
        for cut in 0..cuts {
            let trigger = trigger(OPERATIONS, &mut self.rng);
            let context = format!(
                "FELLBECK_POWER_SEED={} cut {cut} journaled {} {trigger:?}",
                self.seed, self.journaled
            );
            self.disk.arm(trigger);
            let (mut child, lines) = self.spawn();
            let cut_by_itself = self.disk.await_cut(WAIT_MAX);
            if !cut_by_itself && child.try_wait().unwrap().is_some() {
                panic!(
                    "{context}: the child ended by itself: {:?}",
                    lines.iter().collect::<Vec<_>>()
                );
            }
            self.disk.fail();
            child.kill().unwrap();
            self.disk.off();
            let status = child.wait().unwrap();
            use std::os::unix::process::ExitStatusExt;
            let lines: Vec<String> = lines.iter().collect();
            assert_eq!(status.signal(), Some(9), "{context}: the child failed: {lines:?}");
            for line in lines {
                if let Some(end) = line.strip_prefix("opened ") {
                    let end: u64 = end.parse().unwrap();
                    assert!(
                        end >= answered,
                        "{context}: {answered} was answered, the lane ends at {end}"
                    );
                    outcome.opens += 1;
                } else if let Some(seq) = line.strip_prefix("durable ") {
                    answered = seq.parse().unwrap();
                }
            }
            let plan = CutPlan::random(self.journaled, &mut self.rng);
            let report = self.disk.restore(&plan, self.rng.random());
            outcome.names += u64::from(report.names.1 < report.names.0);
            outcome.files += u64::from(report.files.1 > 0);
        }
        drop(self.disk);
        drop(self.dir);
        outcome
    }

    fn spawn(&self) -> (Child, Receiver<String>) {
        let store = self.dir.path().join("disk/store");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child", "--nocapture"])
            .env(CHILD, format!("{} {}", self.layout, store.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Nobody listens any more when the test has failed.
                drop(sender.send(line));
            }
        });
        (child, receiver)
    }
}
