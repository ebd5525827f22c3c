//! Fleets and checks against any broker: what `run` and `check` do.
//!
//! In: a plan from the command line. Out: progress lines on stderr, the final books on stdout, and a verdict.
//! `run` owns the devices' side of the ledger and can write it to a file; `check` owns a reader's side and can read
//! that file. Without the file, `check` takes each hole in a device's sequence for a loss.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::client::ClientOptions;
use crate::consumer::{self, ConsumerSpec, ConsumerState, Presence};
use crate::device::{self, DeviceSpec, Phase, SharedLedger, lock};
use crate::ledger::{Ledger, ReaderKey, ReaderVerdict, Totals};
use crate::ledger_file::{self, LedgerFileError};
use crate::progress::Rate;
use crate::qos::QosChoice;
use crate::raw;
use crate::wire::Version;

/// Which protocol versions a fleet speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum VersionChoice {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
    /// Every second device.
    Mix,
}

impl VersionChoice {
    fn of(self, index: usize) -> Version {
        match self {
            Self::V4 => Version::V4,
            Self::V5 => Version::V5,
            Self::Mix if index.is_multiple_of(2) => Version::V4,
            Self::Mix => Version::V5,
        }
    }
}

/// A fleet of devices.
#[derive(Debug, Clone)]
pub struct FleetPlan {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How many devices.
    pub devices: usize,
    /// Messages per second of all devices together.
    pub rate: f64,
    /// Protocol versions.
    pub version: VersionChoice,
    /// Qualities of service.
    pub qos: QosChoice,
    /// Seed of everything random; also part of the device names, so that two fleets do not meet.
    pub seed: u64,
    /// First level of all topics.
    pub topic_prefix: String,
    /// Span of open messages per device.
    pub window: u16,
    /// Each device drops its connection about this often.
    pub reconnect_every: Option<Duration>,
}

impl FleetPlan {
    fn device(&self, index: usize) -> DeviceSpec {
        let client = ClientOptions {
            client_id: self.device_name(index),
            host: self.host.clone(),
            port: self.port,
            version: self.version.of(index),
            window: self.window,
            keep_alive: Duration::from_secs(10),
        };
        DeviceSpec {
            client,
            index,
            rate: self.rate / self.devices.max(1) as f64,
            seed: self.seed,
            qos: self.qos,
            topic_prefix: self.topic_prefix.clone(),
            reconnect_every: self.reconnect_every,
        }
    }

    fn device_name(&self, index: usize) -> String {
        format!("sim-{}-{index:04}", self.seed)
    }
}

/// A running fleet.
pub struct Fleet {
    plan: FleetPlan,
    phase: watch::Sender<Phase>,
    devices: JoinSet<()>,
}

impl Fleet {
    /// Starts all devices.
    pub fn start(plan: FleetPlan, ledger: &SharedLedger) -> Self {
        let (phase, follow) = watch::channel(Phase::Publish);
        let mut devices = JoinSet::new();
        for index in 0..plan.devices {
            devices.spawn(device::run(plan.device(index), Arc::clone(ledger), follow.clone()));
        }
        Self { plan, phase, devices }
    }

    /// Publishes nothing new and waits for what is open, until the deadline.
    pub async fn drain(&mut self, deadline: Instant) {
        self.phase.send_replace(Phase::Drain);
        loop {
            tokio::select! {
                ended = self.devices.join_next() => match ended {
                    Some(ended) => ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
                    None => return,
                },
                () = sleep_until(deadline) => {
                    self.phase.send_replace(Phase::Stop);
                    break;
                }
            }
        }
        while let Some(ended) = self.devices.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
    }

    /// Makes the broker forget the sessions of the fleet: they are of no use to anybody.
    pub async fn forget(&self) {
        for index in 0..self.plan.devices {
            let name = self.plan.device_name(index);
            if let Err(error) = raw::forget_session(&self.plan.host, self.plan.port, &name).await {
                tracing::debug!(device = name, %error, "session not forgotten");
                return;
            }
        }
    }
}

/// What `run` is asked for.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// The devices.
    pub fleet: FleetPlan,
    /// How long they publish.
    pub publish_for: Duration,
    /// How long they then wait for what is open.
    pub drain_for: Duration,
    /// Where the device books go.
    pub ledger_file: Option<PathBuf>,
}

/// Runs a fleet; true when everything at QoS 1 and 2 was acknowledged.
pub async fn run(plan: RunPlan) -> Result<bool, LedgerFileError> {
    let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::default()));
    let mut fleet = Fleet::start(plan.fleet, &ledger);
    let end = Instant::now() + plan.publish_for;
    let mut seconds = every_second();
    let mut rate = Rate::new(Instant::now());
    loop {
        tokio::select! {
            () = sleep_until(end) => break,
            _ = seconds.tick() => {
                let totals = lock(&ledger).totals();
                eprintln!("{}", run_line(&totals, rate.per_second(totals.acked, Instant::now())));
            }
        }
    }
    fleet.drain(Instant::now() + plan.drain_for).await;
    fleet.forget().await;
    let verdict = lock(&ledger).verdict();
    let totals = verdict.totals;
    println!(
        "published {} acked {} qos0 {} unacked {} refused {} resent {}",
        totals.published, totals.acked, verdict.qos_0, verdict.unacked, totals.refused, totals.resent
    );
    if let Some(path) = &plan.ledger_file {
        ledger_file::write(&lock(&ledger), path)?;
    }
    Ok(verdict.is_clean())
}

fn run_line(totals: &Totals, acked_per_s: f64) -> String {
    let Totals {
        published,
        acked,
        resent,
        refused,
    } = totals;
    format!("published {published}  acked {acked} ({acked_per_s:.0}/s)  resent {resent}  refused {refused}")
}

/// What `check` is asked for.
#[derive(Debug, Clone)]
pub struct CheckPlan {
    /// The subscription.
    pub consumer: ConsumerSpec,
    /// Device books written by `run`.
    pub ledger_file: Option<PathBuf>,
    /// Ends when so many different messages have come.
    pub expect: Option<u64>,
    /// Ends after this time at the latest.
    pub seconds: Duration,
    /// Ends when nothing came for so long, once something came.
    pub idle: Duration,
}

/// What `check` found, as its last line on stdout.
#[derive(Debug, serde::Serialize)]
struct CheckReport {
    ok: bool,
    #[serde(flatten)]
    verdict: ReaderVerdict,
    latency_p50_us: u64,
    latency_p99_us: u64,
}

/// Subscribes, counts, judges; true when nothing is lost, doubled or out of order, and all that was expected came.
pub async fn check(plan: CheckPlan) -> Result<bool, LedgerFileError> {
    let mut books = Ledger::default();
    let reader = books.reader("check");
    let ledger: SharedLedger = Arc::new(Mutex::new(books));
    let (state, mut watched) = watch::channel(ConsumerState::Away("not yet connected".to_owned()));
    let (presence, follow) = watch::channel(Presence::Here);
    let consumer = tokio::spawn(consumer::run(
        plan.consumer.clone(),
        reader,
        Arc::clone(&ledger),
        state,
        follow,
    ));
    tokio::select! {
        () = watch_check(&plan, &ledger, reader) => {}
        refused = watched.wait_for(|state| matches!(state, ConsumerState::Refused(_))) => {
            if let Ok(state) = refused {
                eprintln!("firmware-sim: the broker refuses the subscription: {:?}", *state);
            }
        }
    }
    if let ConsumerState::Away(why) = &*watched.borrow() {
        eprintln!("firmware-sim: not connected at the end: {why}");
    }
    presence.send_replace(Presence::Gone);
    if let Err(error) = consumer.await {
        std::panic::resume_unwind(error.into_panic());
    }
    let mut books = lock(&ledger);
    if let Some(path) = &plan.ledger_file {
        // Read last: the devices were writing their books while this reader counted.
        ledger_file::read(&mut books, path)?;
    }
    let verdict = books.judge(reader);
    let latency = books.take_latency(reader);
    let all_came = plan.expect.is_none_or(|expect| verdict.received >= expect);
    let ok = verdict.is_clean() && all_came && verdict.received > 0;
    let (latency_p50_us, latency_p99_us) = (latency.quantile(0.5), latency.quantile(0.99));
    let report = CheckReport {
        ok,
        verdict,
        latency_p50_us,
        latency_p99_us,
    };
    println!("{}", serde_json::to_string(&report).expect("strings and numbers only"));
    Ok(ok)
}

/// Returns when enough came, when it has gone quiet, or when time is up.
async fn watch_check(plan: &CheckPlan, ledger: &SharedLedger, reader: ReaderKey) {
    let end = Instant::now() + plan.seconds;
    let mut last = (0, Instant::now());
    let mut looks = interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            () = sleep_until(end) => return,
            _ = looks.tick() => {}
        }
        let deliveries = lock(ledger).deliveries(reader);
        if deliveries != last.0 {
            last = (deliveries, Instant::now());
        }
        let enough = plan
            .expect
            .is_some_and(|expect| deliveries >= expect && lock(ledger).judge(reader).received >= expect);
        let quiet = deliveries > 0 && last.1.elapsed() >= plan.idle;
        if enough || quiet {
            return;
        }
    }
}

/// Ticks once a second, without catching up.
pub(crate) fn every_second() -> tokio::time::Interval {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds
}
