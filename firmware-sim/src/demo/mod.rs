//! The demo: everything runs, everything breaks, the books balance.
//!
//! In: a [`DemoPlan`]. Out: a line per second, a line per fault, the final ledger, and whether it balances.
//! A cloud node and an edge node run as processes of their own; a UDP forwarder stands for the radio between them. Devices
//! publish to the edge, two consumers listen at the cloud: one live at QoS 1, one with a persistent session at QoS 2 that
//! goes away for a while. Meanwhile the link is cut and the edge is killed with SIGKILL.

mod report;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::device::lock;
use crate::node::{NodeError, Programs};
use crate::scenario::{Fleet, every_second};

use report::Progress;
use world::World;

/// After the last publish: acks, the backlog, and the consumers have so long.
const DRAIN: Duration = Duration::from_secs(25);
/// A double that is still under way shows up within this time.
const SETTLE: Duration = Duration::from_millis(500);

/// What the user asks for.
#[derive(Debug, Clone)]
pub struct DemoPlan {
    /// Devices.
    pub devices: usize,
    /// Messages per second of all devices together.
    pub rate: f64,
    /// How long the devices publish; the faults are spread over it.
    pub publish_for: Duration,
    /// Where the nodes keep their data; a temporary directory without it.
    pub data_dir: Option<PathBuf>,
    /// Leave the nodes running at the end, until Ctrl-C.
    pub keep: bool,
    /// Where the nodes' programs are.
    pub programs: Programs,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Why the demo could not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A node failed.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The data directory or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cloud serves no subscriptions.
    #[error("the consumers were not subscribed within {} s", .0.as_secs())]
    Subscribe(Duration),
}

/// Something that happens in mid-load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    CutLink,
    HealLink,
    KillEdge,
    StartEdge,
    LeaveArchive,
    ReturnArchive,
}

/// What happens when, as shares of the publishing time.
const SCRIPT: [(f64, Act); 8] = [
    (0.16, Act::CutLink),
    (0.24, Act::LeaveArchive),
    (0.32, Act::KillEdge),
    (0.36, Act::StartEdge),
    (0.48, Act::HealLink),
    (0.60, Act::ReturnArchive),
    (0.72, Act::KillEdge),
    (0.76, Act::StartEdge),
];

impl Act {
    const fn told(self) -> &'static str {
        match self {
            Self::CutLink => "the link between edge and cloud is cut",
            Self::HealLink => "the link is healed",
            Self::KillEdge => "the edge is killed (kill -9)",
            Self::StartEdge => "the edge is started again",
            Self::LeaveArchive => "the persistent subscriber goes away",
            Self::ReturnArchive => "the persistent subscriber is back",
        }
    }
}

/// Runs the demo; true when the books balance.
pub async fn run(plan: DemoPlan) -> Result<bool, DemoError> {
    let mut world = World::create(&plan).await?;
    let mut progress = Progress::new(Instant::now());
    let mut fleet = Fleet::start(world.fleet_plan(&plan), &world.ledger);
    perform(&mut world, &mut progress, plan.publish_for).await?;
    println!("-- the devices stop publishing; everything under way arrives");
    finish(&world, &mut fleet, &mut progress).await;
    fleet.forget().await;
    let balanced = report::print_ledger(&world).await;
    if plan.keep {
        report::print_hints(&world)?;
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be awaited");
        }
    }
    world.shut_down().await?;
    Ok(balanced)
}

/// Plays the script while the devices publish.
async fn perform(world: &mut World, progress: &mut Progress, publish_for: Duration) -> Result<(), DemoError> {
    let start = Instant::now();
    let mut script = SCRIPT.iter();
    let mut next = script.next();
    let mut seconds = every_second();
    loop {
        let at = next.map_or(publish_for, |(share, _)| publish_for.mul_f64(*share));
        tokio::select! {
            biased;
            () = sleep_until(start + at) => match next {
                Some((_, act)) => {
                    println!("-- {}", act.told());
                    world.play(*act).await?;
                    next = script.next();
                }
                None => return Ok(()),
            },
            _ = seconds.tick() => println!("{}", progress.line(world).await),
        }
    }
}

/// Waits until all that was acknowledged has reached both consumers.
async fn finish(world: &World, fleet: &mut Fleet, progress: &mut Progress) {
    let deadline = Instant::now() + DRAIN;
    let mut seconds = every_second();
    let drained = fleet.drain(deadline);
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => break,
            _ = seconds.tick() => println!("{}", progress.line(world).await),
        }
    }
    while Instant::now() < deadline && !world.all_received() {
        seconds.tick().await;
        println!("{}", progress.line(world).await);
    }
    sleep(SETTLE).await;
    tracing::debug!(totals = ?lock(&world.ledger).totals(), "the load has ended");
}
