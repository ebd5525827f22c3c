//! MAIN.11 (c): kill -9 of edge, cloud and both, and link cuts, at random moments under load.
//!
//! In: a seed, and the number of rounds: `FELLBECK_KILL_ROUNDS` (20), `FELLBECK_SEED` (random, printed). For hundreds of rounds:
//! `FELLBECK_KILL_ROUNDS=500 cargo test -p fellbeck-tests --test e2e kill_loop -- --nocapture`.
//! Out: nothing acknowledged is lost, per-device order is kept, what QoS 2 devices sent reaches QoS 2 readers once, and the log holds
//! nothing twice apart from what a QoS 1 device itself resent since a kill took its PUBACK. The log is counted by its end offsets.

use std::time::Duration;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, World, judge, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Rounds in the gate.
const ROUNDS: usize = 20;
/// Devices under load.
const DEVICES: usize = 6;
/// Messages acknowledged before a fault, at most.
const LOAD_MAX: usize = 600;
/// Length of an outage in milliseconds, at most.
const OUTAGE_MAX: u64 = 400;

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillEdge,
    KillCloud,
    KillBoth,
    CutLink,
    KillEdgeWhileCut,
    KillCloudTwice,
    KillEdgeTwice,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::KillEdge,
        Self::KillCloud,
        Self::KillBoth,
        Self::CutLink,
        Self::KillEdgeWhileCut,
        Self::KillCloudTwice,
        Self::KillEdgeTwice,
    ];

    /// Inflicts the fault and repairs it: afterwards both nodes are up and the link passes.
    fn inflict(self, world: &mut World, rng: &mut StdRng) {
        match self {
            Self::KillEdge => {
                world.edge.kill();
                outage(rng);
                world.edge.start();
            }
            Self::KillCloud => {
                world.kill_cloud();
                outage(rng);
                world.start_cloud();
            }
            Self::KillBoth => {
                world.kill_cloud();
                world.edge.kill();
                world.edge.start();
                outage(rng);
                world.start_cloud();
            }
            Self::CutLink => {
                world.link.cut();
                outage(rng);
                world.link.heal();
            }
            Self::KillEdgeWhileCut => {
                world.link.cut();
                outage(rng);
                world.edge.kill();
                world.edge.start();
                world.link.heal();
            }
            Self::KillCloudTwice => {
                world.kill_cloud();
                world.cloud.spawn();
                outage(rng);
                world.cloud.kill();
                world.start_cloud();
            }
            Self::KillEdgeTwice => {
                world.edge.kill();
                world.edge.spawn();
                outage(rng);
                world.edge.kill();
                world.edge.start();
            }
        }
    }
}

fn outage(rng: &mut StdRng) {
    wait::last(Duration::from_millis(rng.random_range(0..=OUTAGE_MAX)));
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text:?}"))
    })
}

fn total_acked(devices: &[Device]) -> usize {
    devices.iter().map(Device::acked).sum()
}

#[test]
fn random_kills_and_cuts_lose_nothing_and_double_nothing() {
    let seed = from_env("FELLBECK_SEED").unwrap_or_else(|| rand::rng().random());
    let rounds = from_env("FELLBECK_KILL_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).expect("a sane number"));
    println!("kill loop: FELLBECK_SEED={seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start();
    let readers = Readers::start(&world);
    let plan = |n: usize| DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2);
    let devices: Vec<Device> = (0..DEVICES)
        .map(|n| Device::start(plan(n), world.edge.mqtt()))
        .collect();
    for round in 0..rounds {
        let goal = total_acked(&devices) + rng.random_range(1..=LOAD_MAX);
        wait::until_true("devices are served", wait::EVENTUALLY, || total_acked(&devices) >= goal);
        let fault = Fault::ALL[rng.random_range(0..Fault::ALL.len())];
        println!("round {round}: {fault:?} after {goal} acknowledged");
        fault.inflict(&mut world, &mut rng);
    }
    let books: Vec<DeviceBook> = devices.into_iter().map(Device::settle).collect();
    readers.check(&world, &books);
}

struct Readers {
    cloud_twice: Reader,
    cloud_once: Reader,
    edge_twice: Reader,
}

impl Readers {
    fn start(world: &World) -> Self {
        Self {
            cloud_twice: Reader::start(&ReaderPlan::all("cloud-2", Version::V5, 2), &world.cloud.mqtt()),
            cloud_once: Reader::start(&ReaderPlan::all("cloud-1", Version::V3, 1), &world.cloud.mqtt()),
            edge_twice: Reader::start(&ReaderPlan::all("edge-2", Version::V3, 2), &world.edge.mqtt()),
        }
    }

    fn check(&self, world: &World, books: &[DeviceBook]) {
        for reader in [&self.cloud_twice, &self.cloud_once, &self.edge_twice] {
            reader.await_all_acked(books);
        }
        world.await_drained();
        let verdict = judge(books, &self.cloud_twice.book());
        println!("{verdict:?}");
        verdict.assert_clean_across_kills("QoS 2 reader at the cloud");
        judge(books, &self.edge_twice.book()).assert_clean_across_kills("QoS 2 reader at the edge");
        judge(books, &self.cloud_once.book()).assert_complete("QoS 1 reader at the cloud");
        let published: usize = books.iter().map(|book| book.sends.len()).sum();
        let by_devices: usize = books.iter().filter(|book| book.qos == 1).map(DeviceBook::resends).sum();
        let log = world.records_in_log();
        assert!(log >= published, "the log holds {log} records of {published} messages");
        assert!(
            log <= published + by_devices,
            "the log holds {log} records of {published} messages, of which QoS 1 devices resent {by_devices}"
        );
        for book in books {
            assert_eq!(
                book.sessions_lost, 0,
                "{}: the edge forgot a persistent session",
                book.device
            );
            assert!(book.rejected.is_empty(), "{}: {:?}", book.device, book.rejected);
        }
        for reader in [&self.cloud_twice, &self.cloud_once, &self.edge_twice] {
            assert_eq!(reader.book().sessions_lost, 0, "a node forgot a persistent reader");
        }
    }
}
