//! Deterministic simulation: whole worlds from one seed each, in virtual time, with faults everywhere.
//!
//! A world has devices, an edge, a cloud and the link between them. Everything that decides is the product's own code; sockets, threads,
//! clocks and disks are not there: their place is taken by dice. The invariants I1 to I7 are checked at each step, the promises when the
//! world has come to rest. What is modelled and what not stands in `docs/rigs.md`. `FELLBECK_SIM_WORLDS=n` runs so many worlds,
//! `FELLBECK_SIM_SEED=n` one of them with its whole trace, or begins there if both are given.

mod check;
mod device;
mod dice;
mod ingest;
mod links;
mod message;
mod network;
mod node;
mod oracle;
mod plan;
mod run;
mod seen;
mod setup;
mod steps;
mod store;
mod trace;
mod traffic;
mod uplink;
mod world;

use std::time::Instant;

use plan::Planted;
use run::{Broken, Summary, number, run_many, run_one};

/// Worlds of the gate.
const WORLDS: u64 = 10_000;

#[test]
fn no_world_breaks_an_invariant_whatever_fails() {
    let seed = number("FELLBECK_SIM_SEED");
    let worlds = number("FELLBECK_SIM_WORLDS");
    if let (Some(seed), None) = (seed, worlds) {
        return run::show(seed);
    }
    let worlds = worlds.unwrap_or(WORLDS);
    let began = Instant::now();
    let first = seed.unwrap_or(0);
    let Summary { seen, broken } = run_many(first..first + worlds, None);
    println!("{worlds} worlds in {:.1} s: {seen:?}", began.elapsed().as_secs_f64());
    if let Some(Broken { seed, text, .. }) = broken {
        panic!("world {seed} (alone: FELLBECK_SIM_SEED={seed}):\n{text}");
    }
    // Worlds in which nothing goes wrong prove nothing.
    if worlds >= 1000 {
        seen::assert_all_happened(&seen);
    }
}

#[test]
fn a_seed_gives_the_same_world_again() {
    for seed in 0..60 {
        let (one, two) = (run_one(seed, None), run_one(seed, None));
        assert_eq!(
            (one.hash, one.events),
            (two.hash, two.events),
            "world {seed} went another way"
        );
    }
}

/// Each kind of bug that the invariants are there for is seen, by the invariant that it breaks.
fn assert_caught(planted: Planted, rules: &[&str]) {
    const WORLDS_MAX: u64 = 600;
    for seed in 0..WORLDS_MAX {
        let world = run_one(seed, Some(planted));
        let Some(text) = world.broken else { continue };
        let first = text.lines().next().unwrap_or_default();
        println!("{planted:?}: world {seed}, number {}: {first}", seed + 1);
        assert!(
            rules.iter().any(|rule| first.starts_with(rule)),
            "caught by another rule: {first}"
        );
        return;
    }
    panic!("{planted:?} was not seen in {WORLDS_MAX} worlds");
}

#[test]
fn an_ack_before_its_commit_is_seen() {
    assert_caught(Planted::AckBeforeCommit, &["I1", "I3"]);
}

#[test]
fn marks_that_are_not_in_the_commit_of_their_records_are_seen() {
    assert_caught(Planted::MarkNotAtomic, &["I4"]);
}

#[test]
fn a_cursor_ahead_of_the_cloud_is_seen() {
    assert_caught(Planted::CursorAhead, &["I2", "I3"]);
}

#[test]
fn a_link_ack_before_its_commit_is_seen() {
    assert_caught(Planted::LinkAckAhead, &["I3"]);
}

#[test]
fn a_gap_without_a_record_is_seen() {
    assert_caught(Planted::LostGapRecord, &["I3"]);
}

#[test]
fn a_forgotten_qos_2_packet_id_is_seen() {
    assert_caught(Planted::LostQos2Note, &["P3", "I1"]);
}

#[test]
fn a_reader_that_passes_over_a_commit_is_seen() {
    assert_caught(Planted::ReaderAhead, &["I6"]);
}

#[test]
fn a_commit_number_that_is_used_again_is_seen() {
    assert_caught(Planted::CommitNumberReused, &["I5"]);
}
