//! The command line: what the user types becomes a plan, a verdict becomes an exit code.
//!
//! Exit codes: 0 clean, 1 the books do not balance or the run failed, 2 bad arguments.

mod bench;
mod fleet;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::bench::{sessions, suite};
use crate::demo::{self, DemoPlan};
use crate::node::{self, Programs};
use crate::qos::Qos;
use crate::scenario;

use bench::{BenchArgs, BenchPubArgs, BenchSessionsArgs, BenchSubArgs};
use fleet::{CheckArgs, RunArgs};

#[derive(Parser)]
#[command(
    name = "firmware-sim",
    version,
    about = "Simulated devices, checks, demo and bench for Fellbeck"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish as a fleet of devices to any MQTT broker
    Run(RunArgs),
    /// Subscribe and check what comes for loss, doubles and order
    Check(CheckArgs),
    /// Show the whole system at work and under faults; ends with a ledger
    Demo(DemoArgs),
    /// Load a broker as fast as it goes; prints one JSON line
    BenchPub(BenchPubArgs),
    /// Count what a broker delivers; prints one JSON line
    BenchSub(BenchSubArgs),
    /// Compare Fellbeck with mosquitto; prints a markdown table
    Bench(BenchArgs),
    /// Compare the memory that idle connections and absent sessions take; prints a markdown table
    BenchSessions(BenchSessionsArgs),
}

#[derive(Args)]
struct BrokerArgs {
    /// Address of the broker
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address, default_value = "127.0.0.1:1883")]
    broker: (String, u16),
}

#[derive(Args)]
struct ProgramArgs {
    /// Run this fellbeck-edge instead of the one built in
    #[arg(long, value_name = "FILE")]
    edge_bin: Option<PathBuf>,
    /// Run this fellbeck-cloud instead of the one built in
    #[arg(long, value_name = "FILE")]
    cloud_bin: Option<PathBuf>,
}

#[derive(Args)]
struct DemoArgs {
    #[command(flatten)]
    programs: ProgramArgs,
    /// Number of devices
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    devices: u16,
    /// Messages per second, all devices together
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// How long the devices publish
    #[arg(long, default_value_t = 25.0)]
    seconds: f64,
    /// Data directory of the nodes [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Leave the nodes running at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Seed; also part of the device names [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the program with its arguments, the program name included.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    if let Some(code) = node::run_if_asked(&arguments) {
        return code;
    }
    let cli = Cli::parse_from(arguments);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match cli.command {
        Command::Run(args) => verdict(runtime.block_on(scenario::run(args.plan()))),
        Command::Check(args) => verdict(runtime.block_on(scenario::check(args.plan()))),
        Command::Demo(args) => verdict(runtime.block_on(demo::run(args.plan()))),
        Command::BenchPub(args) => verdict(runtime.block_on(args.run())),
        Command::BenchSub(args) => verdict(runtime.block_on(args.run())),
        Command::BenchSessions(args) => verdict(runtime.block_on(sessions::run(&args.plan()))),
        Command::Bench(args) => {
            let strict = args.strict;
            verdict(runtime.block_on(suite::run(&args.plan())).map(|met| met || !strict))
        }
    }
}

fn verdict<E: std::fmt::Display>(outcome: Result<bool, E>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("firmware-sim: {error}");
    ExitCode::FAILURE
}

impl ProgramArgs {
    fn programs(self) -> Programs {
        Programs {
            edge: self.edge_bin,
            cloud: self.cloud_bin,
        }
    }
}

impl DemoArgs {
    fn plan(self) -> DemoPlan {
        DemoPlan {
            devices: usize::from(self.devices),
            rate: self.rate,
            publish_for: seconds(self.seconds),
            data_dir: self.data_dir,
            keep: self.keep,
            programs: self.programs.programs(),
            seed: self.seed.unwrap_or_else(seed_from_clock),
        }
    }
}

fn qos(level: u8) -> Qos {
    Qos::from_level(level).expect("the argument parser allows 0 to 2")
}

/// Negative and absurd times become the nearest that make sense.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.clamp(0.0, 1e9)).unwrap_or(Duration::ZERO)
}

/// Six digits are enough to keep two fleets apart and short enough for a name.
fn seed_from_clock() -> u64 {
    crate::payload::now_us() / 1000 % 1_000_000
}

fn parse_address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("expected HOST:PORT")?;
    let port = port.parse().map_err(|_| format!("{port:?} is no port number"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}
