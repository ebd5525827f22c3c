//! Arguments of `run` and `check`.
//!
//! In: what the user types. Out: plans.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{BrokerArgs, qos, seconds, seed_from_clock};
use crate::consumer::ConsumerSpec;
use crate::qos::QosChoice;
use crate::scenario::{CheckPlan, FleetPlan, RunPlan, VersionChoice};
use crate::wire::Version;

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Number of devices
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    devices: u16,
    /// Messages per second, all devices together
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long to publish
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to wait for acks at the end
    #[arg(long, default_value_t = 10)]
    drain_seconds: u64,
    /// Protocol versions of the devices
    #[arg(long, value_enum, default_value_t = VersionChoice::Mix)]
    version: VersionChoice,
    /// Quality of service of the messages
    #[arg(long, value_enum, default_value_t = QosChoice::Mix)]
    qos: QosChoice,
    /// Seed; also part of the device names [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// First level of the topics
    #[arg(long, default_value = "fell")]
    topic_prefix: String,
    /// Most messages that a device has open; keep it below the broker's receive maximum
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    window: u16,
    /// Each device drops its connection about every so many seconds
    #[arg(long, value_name = "SECONDS")]
    reconnect_every: Option<f64>,
    /// Write the books of the devices to this file, for `check --ledger`
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Topic filter
    #[arg(long, default_value = "fell/#")]
    filter: String,
    /// QoS to ask for
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Protocol version: 4 is 3.1.1
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(4..=5))]
    mqtt: u8,
    /// Client ID of a session that outlives the connection [default: a clean session]
    #[arg(long, value_name = "CLIENT_ID")]
    session: Option<String>,
    /// End when so many different messages have come
    #[arg(long)]
    expect: Option<u64>,
    /// End after so many seconds at the latest
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// End when nothing came for so many seconds, once something came
    #[arg(long, default_value_t = 3.0)]
    idle: f64,
    /// Books of the devices, written by `run --ledger`; read when the count has ended
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
}

impl RunArgs {
    pub(super) fn plan(self) -> RunPlan {
        let (host, port) = self.broker.broker;
        let fleet = FleetPlan {
            host,
            port,
            devices: usize::from(self.devices),
            rate: self.rate,
            version: self.version,
            qos: self.qos,
            seed: self.seed.unwrap_or_else(seed_from_clock),
            topic_prefix: self.topic_prefix,
            window: self.window,
            reconnect_every: self.reconnect_every.map(seconds),
        };
        RunPlan {
            fleet,
            publish_for: Duration::from_secs(self.seconds),
            drain_for: Duration::from_secs(self.drain_seconds),
            ledger_file: self.ledger,
        }
    }
}

impl CheckArgs {
    pub(super) fn plan(self) -> CheckPlan {
        let (host, port) = self.broker.broker;
        let clean = self.session.is_none();
        let consumer = ConsumerSpec {
            host,
            port,
            version: if self.mqtt == 4 { Version::V4 } else { Version::V5 },
            client_id: self
                .session
                .unwrap_or_else(|| format!("sim-check-{}", seed_from_clock())),
            filter: self.filter,
            qos: qos(self.qos),
            clean,
            discover: true,
        };
        CheckPlan {
            consumer,
            ledger_file: self.ledger,
            expect: self.expect,
            seconds: seconds(self.seconds),
            idle: seconds(self.idle),
        }
    }
}
