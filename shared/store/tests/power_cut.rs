//! What a power cut may take: the name of a new directory that nobody has synced. So each must be synced before the next commit.
//!
//! Watches the system calls of a child with `strace`. Where that is missing or not permitted, the test says so and checks nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Node, append, noise, small_edge};
use fellbeck_core::TrackId;

const CHILD: &str = "FELLBECK_STORE_POWER_CUT_CHILD";

/// What the child process runs. Without a directory there is no child to be: then it checks that none was asked for in vain.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else {
        assert!(std::env::var_os(CHILD).is_none(), "a directory must be text");
        return;
    };
    let mut node = Node::open(Path::new(&dir), small_edge());
    for n in 0..60 {
        node.commit(append(TrackId(n as u32 % 2), [noise(n)]));
    }
    node.store.close();
}

#[test]
fn every_new_directory_is_synced_by_name_before_the_next_commit() {
    let root = tempfile::tempdir().unwrap();
    let (dir, log) = (root.path().join("new/store"), root.path().join("log"));
    let strace = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=mkdir,mkdirat,fsync,fdatasync", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(CHILD, &dir)
        .output();
    match strace {
        Ok(done) if done.status.success() => {}
        Ok(done) if dir.join("db").exists() => panic!("{}", String::from_utf8_lossy(&done.stdout)),
        Ok(done) => {
            return println!(
                "skipped: strace may not run here ({})",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        Err(error) => return println!("skipped: strace is missing here ({error})"),
    }
    let (mut fresh, mut made, mut commits) = (BTreeSet::<PathBuf>::new(), 0, 0);
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let call = line.split_once(' ').unwrap().1.trim();
        if call.starts_with("mkdir") && call.ends_with("= 0") {
            fresh.insert(call.split('"').nth(1).unwrap().into());
            made += 1;
        } else if let Some(synced) = between(call, "fsync(", "<") {
            fresh.retain(|path| path.parent() != Some(Path::new(synced)));
        } else if between(call, "fdatasync(", "<").is_some_and(|file| file.ends_with(".jnl")) {
            commits += 1;
            assert!(fresh.is_empty(), "commit {commits} could lose {fresh:?} to a power cut");
        }
    }
    assert!(made > 20 && commits >= 60, "{made} directories, {commits} commits");
}

/// The path of the descriptor in a call, as strace prints it: `call(5</path>) = 0`.
fn between<'a>(call: &'a str, name: &str, open: &str) -> Option<&'a str> {
    let rest = call.strip_prefix(name)?;
    let path = rest.split_once(open)?.1;
    path.split_once('>').map(|(path, _)| path)
}
