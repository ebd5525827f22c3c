//! Damage runs: any block of any file of a store is flipped, zeroed, overwritten or cut off, or a file is gone, by a seed (P8, I5).
//!
//! The oracle is what was appended before. After the open each record is there unchanged or inside a declared gap, no gap covers what
//! is there, numbers go on above all that was used, new records are taken, and a second open finds nothing more. Short by default;
//! `FELLBECK_DAMAGE_RUNS=5000` sets the runs of each store, `FELLBECK_DAMAGE_SEED` repeats one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

#[path = "damage_runs/image.rs"]
mod image;
#[path = "damage_runs/oracle.rs"]
mod oracle;
#[path = "damage_runs/worlds.rs"]
mod worlds;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use image::Image;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use worlds::World;

/// Runs of each world in the short form.
const RUNS: u64 = 100;
/// The node starts within 10 s (P8); the store is only a part of that.
const OPEN_MAX: Duration = Duration::from_secs(10);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run(world: &World) {
    let seeds = match number("FELLBECK_DAMAGE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FELLBECK_DAMAGE_RUNS").unwrap_or(RUNS),
    };
    let began = Instant::now();
    let (mut tally, mut failed) = (BTreeMap::<String, u64>::new(), Vec::new());
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| one(world, seed));
        match outcome {
            Ok(kind) => *tally.entry(kind).or_default() += 1,
            Err(_) => failed.push(seed),
        }
        assert!(failed.len() < 20, "{}: seeds {failed:?}", world.name);
    }
    println!("{}: {runs} runs in {:?}: {tally:?}", world.name, began.elapsed());
    assert!(failed.is_empty(), "{}: seeds {failed:?}", world.name);
}

/// One damage, and all checks. Says what became of it.
fn one(world: &World, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut image = world.image.clone();
    // One in four runs hits twice.
    let hits = if rng.random_bool(0.25) { 2 } else { 1 };
    let hits: Vec<String> = (0..hits).map(|_| image.damage(&mut rng)).collect();
    let dir = image::scratch();
    image.write(dir.path());
    let say = |what: &str| println!("{} seed {seed}: {hits:?}: {what}", world.name);
    if let Some(file) = hit_twice(&hits)
        && oracle::is_refused(world, dir.path(), file)
    {
        return "refused".to_owned();
    }
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        oracle::check(world, dir.path(), hits.len() == 1, OPEN_MAX)
    }));
    match outcome {
        Ok(kind) => kind,
        Err(panic) => {
            say("broken");
            std::panic::resume_unwind(panic)
        }
    }
}

/// The small file of which both copies were hit, and without which no node can start (P8).
fn hit_twice(hits: &[String]) -> Option<&'static str> {
    let hit = |name: String| {
        hits.iter()
            .any(|hit| hit.starts_with(&format!("{name}:")) || *hit == format!("{name} is gone"))
    };
    ["FORMAT", "tracks"]
        .into_iter()
        .find(|file| hit((*file).to_owned()) && hit(format!("{file}.copy")))
}

#[test]
fn an_edge_with_many_segments_costs_what_is_damaged_only() {
    run(&World::edge("many segments", common::small_edge(), true));
}

#[test]
fn an_edge_whose_records_are_in_journals_costs_what_is_damaged_only() {
    run(&World::edge("journals", worlds::journals(), true));
}

#[test]
fn an_edge_with_large_tables_costs_what_is_damaged_only() {
    run(&World::edge("large tables", worlds::large_tables(), true));
}

#[test]
fn an_edge_that_was_killed_costs_what_is_damaged_only() {
    run(&World::edge("killed", common::small_edge(), false));
}

#[test]
fn a_cloud_costs_what_is_damaged_only() {
    run(&World::cloud("cloud", common::small_cloud(), true));
}

#[test]
fn a_cloud_that_was_killed_costs_what_is_damaged_only() {
    run(&World::cloud("killed cloud", common::small_cloud(), false));
}

/// The oracle itself: without damage nothing is missing and nothing is named.
#[test]
fn an_undamaged_copy_is_whole() {
    for world in [
        World::edge("many segments", common::small_edge(), true),
        World::edge("killed", common::small_edge(), false),
        World::cloud("cloud", common::small_cloud(), false),
    ] {
        let dir = image::scratch();
        Image::write(&world.image, dir.path());
        assert_eq!(
            oracle::check(&world, dir.path(), true, OPEN_MAX),
            "whole",
            "{}",
            world.name
        );
    }
}
