//! Power cuts and failing disks, on a file system that knows what was synced (`fellbeck_tests::power_cut`, `docs/rigs.md`).
//!
//! In: `FELLBECK_POWER_CUTS` (number of cuts, a short form without it) and `FELLBECK_POWER_SEED` (printed by each run). Needs the right to
//! mount FUSE: where that is missing, each test says so and checks nothing, unless `FELLBECK_POWER_REQUIRED` is set.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../shared/store/tests/common/mod.rs"]
mod common;
mod failing;
mod nodes;
mod store;
mod world;

use std::time::Instant;

use fellbeck_tests::power_cut::{OpKind, PowerDisk, Trigger};
use rand::Rng;
use rand::rngs::StdRng;

/// Number from the environment.
fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    })
}

/// The seed of a run: printed, so that it can be repeated.
fn seed(test: &str) -> u64 {
    let seed = from_env("FELLBECK_POWER_SEED").unwrap_or_else(|| rand::rng().random());
    println!("{test}: FELLBECK_POWER_SEED={seed}");
    seed
}

/// Cuts to do: as asked for, or those of the short form.
fn cuts(short: u64) -> u64 {
    from_env("FELLBECK_POWER_CUTS").unwrap_or(short)
}

/// True when the machine cannot mount the disk; the test then has nothing to check.
fn skipped() -> bool {
    let Some(reason) = PowerDisk::unavailable() else {
        return false;
    };
    assert!(
        std::env::var_os("FELLBECK_POWER_REQUIRED").is_none(),
        "FUSE may not be mounted here: {reason}"
    );
    println!("skipped: FUSE may not be mounted here ({reason})");
    true
}

/// A moment for the power to go, counted in operations up to `most`. Rare operations get their share.
fn trigger(most: u64, rng: &mut StdRng) -> Trigger {
    let (kind, most) = match rng.random_range(0..10) {
        0 => (Some(OpKind::Name), most / 16),
        1 => (Some(OpKind::SyncDir), most / 16),
        2 | 3 => (Some(OpKind::Sync), most / 3),
        _ => (None, most),
    };
    let most = match rng.random_range(0..3) {
        0 => most / 30,
        1 => most / 5,
        _ => most,
    };
    Trigger {
        kind,
        after: rng.random_range(0..=most.max(4)),
    }
}

/// Tells how far a long run has come.
struct Progress {
    test: &'static str,
    start: Instant,
    total: u64,
}

impl Progress {
    fn new(test: &'static str, total: u64) -> Self {
        Self {
            test,
            start: Instant::now(),
            total,
        }
    }

    fn tell(&self, done: u64, what: &str) {
        let (test, total, secs) = (self.test, self.total, self.start.elapsed().as_secs());
        println!("{test}: {done} of {total} cuts in {secs} s, {what}");
    }
}
