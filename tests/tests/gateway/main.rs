//! Power cuts of a whole machine: the arm64 edge on its own kernel and ext4 in an emulator (`fellbeck_tests::gateway`, `docs/rigs.md`).
//!
//! In: `FELLBECK_GATEWAY_CUTS` (number of cuts, a short form without it) and `FELLBECK_GATEWAY_SEED` (printed by each run),
//! `FELLBECK_GATEWAY_MEMORY` (MiB, 128 without it). Needs what `tests/setup.sh` and `tests/gateway.sh` make: where that is missing, each test
//! says so and checks nothing, unless `FELLBECK_GATEWAY_REQUIRED` is set.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cuts;
mod world;
