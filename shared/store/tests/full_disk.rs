//! A disk that fills up: the store halts, nothing that was answered is lost, and with space again all goes on.
//!
//! Needs the right to mount a small file system in memory; without it, the test says so and checks nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Node, append, noise};
use fellbeck_core::{CommitNumber, LogPosition, TrackId};
use fellbeck_store::{Level, StoreConfig, open};

const LANE: TrackId = TrackId(0);

/// A file system that is gone when this is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(at: &'a Path, megabytes: u32) -> Result<Self, String> {
        let size = format!("size={megabytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at)
            .output();
        match mount {
            Ok(done) if done.status.success() => Ok(Self(at)),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.0).status());
    }
}

fn config() -> StoreConfig {
    StoreConfig {
        segment_bytes: 1 << 20,
        ram_window: 2 << 20,
        linger: std::time::Duration::ZERO,
        ..StoreConfig::edge(vec!["lane/default/0".into()])
    }
}

/// Ten records of 200 bytes that do not compress.
fn records(n: u64) -> impl Iterator<Item = Vec<u8>> {
    (10 * n..10 * n + 10).map(noise)
}

#[test]
fn a_full_disk_halts_the_store_and_loses_nothing_that_was_answered() {
    let root = tempfile::tempdir().unwrap();
    let mounted = match Mounted::new(root.path(), 40) {
        Ok(mounted) => mounted,
        Err(reason) => {
            println!("skipped: a file system of its own may not be mounted here ({reason})");
            return;
        }
    };
    let (ballast, dir) = (root.path().join("ballast"), root.path().join("store"));
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let mut answered = 0;
    for round in 0..3 {
        let mut node = Node::open(&dir, config());
        assert!(!node.report.is_damaged(), "round {round}: {:?}", node.report);
        assert_eq!(node.store.pressure().level, Level::Full, "who asks is told in time");
        let end = node.store.bounds(LANE).end.0;
        assert!(
            end > 10 * answered,
            "round {round}: {answered} commits were answered, the track ends at {end}"
        );
        // An unanswered commit may be there as well.
        answered = (end - 1) / 10;
        while let Ok(_ticket) = node.submitter.submit(append(LANE, records(answered))) {
            if node.answers.blocking_recv().is_none() {
                break;
            }
            answered += 1;
        }
        let halted = node.store.halted();
        while halted.borrow().is_none() {
            std::thread::yield_now();
        }
        node.store.close();
        drop(node);
        // Full as it is, it may or may not open again; if it does not, it says why and changes nothing.
        if let Err(error) = open(&dir, config()) {
            assert!(error.to_string().contains("No space left"), "{error}");
        }
        assert!(!dir.join("quarantine-1").exists(), "a full disk is no damage");
        std::fs::write(&ballast, vec![1; (6 - 2 * round) << 20]).unwrap();
    }
    std::fs::remove_file(&ballast).unwrap();
    let mut node = Node::open(&dir, config());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    let (found, gaps) = node.track_from(LANE, 1);
    assert_eq!(gaps, []);
    assert!(
        found.len() as u64 >= 10 * answered && answered > 1000,
        "{answered} answered, {} there",
        found.len()
    );
    for (at, (seq, text)) in found.iter().enumerate() {
        assert_eq!(
            (*seq, text),
            (at as u64 + 1, &String::from_utf8_lossy(&noise(at as u64)).into_owned())
        );
    }
    let log = node.read_log(LogPosition::start_of(CommitNumber(1)), 1000);
    assert_eq!(log.skipped, 0);
    node.commit(append(LANE, ["there is room again"]));
    drop(node);
    drop(mounted);
}
