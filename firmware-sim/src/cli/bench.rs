//! Arguments of `bench`, `bench-pub` and `bench-sub`.
//!
//! In: what the user types. Out: plans, and for the two generators one JSON line on stdout.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio::sync::oneshot;

use super::{BrokerArgs, ProgramArgs, qos, seconds};
use crate::bench::publisher::{self, PubPlan, Until};
use crate::bench::sessions::SessionsPlan;
use crate::bench::subscriber::{self, SubPlan};
use crate::bench::suite::BenchPlan;
use crate::raw::RawError;

#[derive(Args)]
pub(super) struct BenchPubArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Publishing connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Open publishes per connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    window: u16,
    /// Payload bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Quality of service
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// How long to publish
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Publish so many messages instead of so long
    #[arg(long)]
    messages: Option<u64>,
    /// Messages per second, all connections together [default: as fast as it goes]
    #[arg(long)]
    rate: Option<f64>,
    /// Topics are PREFIX/number of the connection
    #[arg(long, default_value = "bench")]
    topic_prefix: String,
}

#[derive(Args)]
pub(super) struct BenchSubArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Subscribing connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Topic filter
    #[arg(long, default_value = "bench/#")]
    filter: String,
    /// QoS to ask for
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// End when so many messages have come, all connections together
    #[arg(long)]
    expect: Option<u64>,
    /// End after so many seconds at the latest
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

#[derive(Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    programs: ProgramArgs,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds per broker and round
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Messages per round through the whole path
    #[arg(long, default_value_t = 300_000)]
    path_messages: u64,
    /// Publishing connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Open publishes per connection
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    window: u16,
    /// Payload bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Also QoS 0 ingest, and the latency of the path at 5,000 messages/s
    #[arg(long)]
    more: bool,
    /// Folder for data directories; it decides whose disk is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Exit with 1 when a `must` is missed
    #[arg(long)]
    pub(super) strict: bool,
}

#[derive(Args)]
pub(super) struct BenchSessionsArgs {
    #[command(flatten)]
    programs: ProgramArgs,
    /// Idle connections
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Persistent sessions that go away
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Messages queued for each of them
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(..=60_000))]
    queued: u16,
    /// Payload bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Folder for data directories
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

impl BenchPubArgs {
    pub(super) async fn run(self) -> Result<bool, RawError> {
        let (host, port) = self.broker.broker;
        let plan = PubPlan {
            host,
            port,
            connections: usize::from(self.connections),
            window: self.window,
            size: self.size,
            qos: qos(self.qos),
            until: self
                .messages
                .map_or_else(|| Until::Elapsed(seconds(self.seconds)), Until::Messages),
            rate: self.rate,
            topic_prefix: self.topic_prefix,
        };
        print_json(&publisher::publish(&plan, &Arc::default()).await?);
        Ok(true)
    }
}

impl BenchSubArgs {
    pub(super) async fn run(self) -> Result<bool, RawError> {
        let (host, port) = self.broker.broker;
        let plan = SubPlan {
            host,
            port,
            connections: usize::from(self.connections),
            filter: self.filter,
            qos: qos(self.qos),
            expect: self.expect,
            at_most: seconds(self.seconds),
        };
        let (subscribed, awaited) = oneshot::channel();
        let tell = async {
            if awaited.await.is_ok() {
                eprintln!("subscribed");
            }
        };
        let received = Arc::default();
        let (report, ()) = tokio::join!(subscriber::subscribe(&plan, &received, subscribed), tell);
        let report = report?;
        print_json(&report);
        Ok(plan.expect.is_none_or(|expect| report.messages >= expect))
    }
}

impl BenchArgs {
    pub(super) fn plan(self) -> BenchPlan {
        BenchPlan {
            rounds: self.rounds,
            measure_for: seconds(self.seconds),
            path_messages: self.path_messages,
            connections: usize::from(self.connections),
            window: self.window,
            size: self.size,
            more: self.more,
            folder: self.dir,
            programs: self.programs.programs(),
        }
    }
}

impl BenchSessionsArgs {
    pub(super) fn plan(self) -> SessionsPlan {
        SessionsPlan {
            idle: self.idle,
            sessions: self.sessions,
            queued: usize::from(self.queued),
            size: self.size,
            folder: self.dir,
            programs: self.programs.programs(),
        }
    }
}

fn print_json(report: &impl serde::Serialize) {
    println!("{}", serde_json::to_string(report).expect("strings and numbers only"));
}
