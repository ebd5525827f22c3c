//! The whole bench: both brokers in turn, several rounds, medians and ratios.
//!
//! In: a [`BenchPlan`]. Out: a markdown table on stdout, progress on stderr, and whether each `must` is met.
//! The brokers alternate within each round and the order turns from round to round, so that a slow minute of the machine
//! hits both. Every broker is fresh: new process, empty data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::report::{Figure, Report, Sample};
use super::{ingest, path};
use crate::node::{NodeError, Programs};
use crate::qos::Qos;
use crate::raw::RawError;

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub struct BenchPlan {
    /// Rounds; the median counts.
    pub rounds: usize,
    /// Measured time per broker and round of an ingest figure.
    pub measure_for: Duration,
    /// Messages per broker and round of the whole path.
    pub path_messages: u64,
    /// Publishing connections.
    pub connections: usize,
    /// Open publishes per connection.
    pub window: u16,
    /// Payload bytes.
    pub size: usize,
    /// Also the figures whose bars belong to later work.
    pub more: bool,
    /// Where data directories are made.
    pub folder: PathBuf,
    /// Where the nodes' programs are.
    pub programs: Programs,
}

/// Why the bench could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A node failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A load generator failed.
    #[error("load generator: {0}")]
    Load(#[from] RawError),
    /// mosquitto, a folder, or `/proc`.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Messages got lost on the way, or took for ever.
    #[error("{broker}: only {received} of {expected} messages came within {} s", within.as_secs())]
    Incomplete {
        /// Whose path.
        broker: &'static str,
        /// How many came.
        received: u64,
        /// How many were sent.
        expected: u64,
        /// The limit.
        within: Duration,
    },
}

/// The two sides of each comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Fellbeck,
    Mosquitto,
}

/// Runs all rounds and prints the table; true when each `must` is met.
pub async fn run(plan: &BenchPlan) -> Result<bool, BenchError> {
    let mut report = Report::default();
    for round in 0..plan.rounds.max(1) {
        // Every second round begins with the other side.
        let mut sides = [Side::Mosquitto, Side::Fellbeck];
        if round % 2 == 1 {
            sides.reverse();
        }
        for figure in Figure::all(plan.more) {
            for side in sides {
                let folder = tempfile::Builder::new()
                    .prefix("fellbeck-bench-")
                    .tempdir_in(&plan.folder)?;
                let sample = measure(figure, side, plan, folder.path()).await?;
                eprintln!("round {}: {figure:?}, {side:?}: {sample}", round + 1);
                report.add(figure, side, sample);
            }
        }
    }
    println!("{}", report.to_markdown(plan, &super::mosquitto::version().await));
    Ok(report.meets_musts())
}

async fn measure(figure: Figure, side: Side, plan: &BenchPlan, folder: &Path) -> Result<Sample, BenchError> {
    match figure {
        Figure::IngestQos1 => ingest::measure(side, Qos::AtLeastOnce, plan, folder).await,
        Figure::IngestQos0 => ingest::measure(side, Qos::AtMostOnce, plan, folder).await,
        Figure::Path => path::measure(side, plan, folder).await,
        Figure::PathAt5000 => path::measure_latency(side, plan, folder).await,
    }
}
