//! The real edge and the real cloud lose power under load, each alone and both at once, in the middle of any operation, also while they open.
//!
//! In: a seed and a number of cuts. Out: after each cut the node opens by itself and says that nothing is missing; what was acknowledged
//! arrives at readers of both nodes, once and in order; sessions and retained messages are there.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::power_cut::CutPlan;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Kind, names, wait};
use rand::Rng;
use rand::rngs::StdRng;

use crate::world::{Keeper, PowerWorld, Readers, rng};
use crate::{Progress, cuts, seed, skipped, trigger};

/// Cuts in the gate.
const SHORT: u64 = 60;
/// Cuts of one pair of nodes before a new one takes its place.
const LIFE: u64 = 20;
/// Operations on a disk before a cut, at most.
const OPERATIONS: u64 = 400;
/// Time for the load before a cut, whether or not the chosen operation has come.
const LOAD_MAX: Duration = Duration::from_millis(700);
/// Devices under load.
const DEVICES: usize = 4;

#[test]
fn power_cuts_of_both_nodes_lose_nothing_and_double_nothing() {
    if skipped() {
        return;
    }
    let seed = seed("power cuts");
    let total = cuts(SHORT);
    let progress = Progress::new("power cuts", total);
    let (mut done, mut acked) = (0, 0);
    while done < total {
        let seed = seed.wrapping_add(done / LIFE);
        let cuts = LIFE.min(total - done);
        acked += Life::start(seed).run(cuts);
        done += cuts;
        progress.tell(
            done,
            &format!("{acked} messages acknowledged, none lost, none doubled (seed {seed})"),
        );
    }
}

/// A command that said that it was done has synced what it did, and so has the cloud that it spoke to.
#[test]
fn a_token_and_a_join_that_said_done_outlive_a_power_cut() {
    if skipped() {
        return;
    }
    let mut rng = rng(seed("join"));
    let mut world = PowerWorld::prepare(&mut rng);
    world.start_cloud();
    let token = world.token();
    let cut_cloud = |world: &mut PowerWorld| {
        world.cloud.lose_power();
        world.cloud.disk.restore(&CutPlan::lose_all(), 0);
        world.start_cloud();
    };
    cut_cloud(&mut world);
    fellbeck_tests::join(&world.edge.node, &token).assert_ok();
    world.edge.disk.fail();
    world.edge.disk.off();
    world.edge.disk.restore(&CutPlan::lose_all(), 0);
    cut_cloud(&mut world);
    world.edge.node.start();
    let device = Device::start(DevicePlan::burst("dev", Version::V5, 1, 20), world.edge.node.mqtt());
    let book = device.finish();
    world.await_drained();
    let readers = world.cloud.node.metric(names::TRACK_END, names::DEFAULT_STREAM) as usize;
    assert_eq!((book.acked_count(), readers), (20, 20));
}

struct Life {
    seed: u64,
    rng: StdRng,
    readers: Readers,
    devices: Vec<Device>,
    keeper: Keeper,
    world: PowerWorld,
}

impl Life {
    fn start(seed: u64) -> Self {
        let mut rng = rng(seed);
        let world = PowerWorld::start(&mut rng);
        println!("seed {seed} in {}", world.path());
        let readers = Readers::start(&world);
        let size = [60, 400, 1500][rng.random_range(0..3)];
        let plan = |n: usize| DevicePlan {
            size,
            // As much as a QoS 2 reader, which needs two commits for each message, can follow on a slow machine.
            window: 2,
            ..DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2)
        };
        let devices: Vec<Device> = (0..DEVICES)
            .map(|n| Device::start(plan(n), world.edge.node.mqtt()))
            .collect();
        for device in &devices {
            device.await_acked(1);
        }
        Self {
            seed,
            rng,
            readers,
            devices,
            keeper: Keeper::new(),
            world,
        }
    }

    /// Returns the messages that were acknowledged.
    fn run(mut self, cuts: u64) -> usize {
        for cut in 0..cuts {
            self.cut(cut);
        }
        let books: Vec<DeviceBook> = self.devices.into_iter().map(Device::settle).collect();
        self.readers.check(&self.world, &books, self.keeper.writes);
        books.iter().map(DeviceBook::acked_count).sum()
    }

    fn cut(&mut self, cut: u64) {
        let kinds: &[Kind] =
            [&[Kind::Edge][..], &[Kind::Cloud], &[Kind::Edge, Kind::Cloud]][self.rng.random_range(0..3)];
        for kind in kinds {
            let trigger = trigger(OPERATIONS, &mut self.rng);
            let slow = [0, 0, 0, 2, 10][self.rng.random_range(0..5)];
            let disk = &self.world.powered(*kind).disk;
            disk.faults(|faults| faults.set_slow_sync(Duration::from_millis(slow)));
            disk.arm(trigger);
        }
        self.load(kinds);
        let mut context = format!("FELLBECK_POWER_SEED={} cut {cut} {kinds:?}", self.seed);
        self.lose_power(kinds, &mut context);
        // What was acknowledged by now is acknowledged for ever.
        let books: Vec<DeviceBook> = self.devices.iter().map(Device::book).collect();
        if self.rng.random_bool(0.25) {
            self.cut_while_opening(kinds, &mut context);
        }
        println!("{context}");
        self.world.restart(kinds);
        self.readers.await_all_acked(&books);
        self.keeper.check(&self.world.edge.node, &context);
        self.world.edge.assert_undamaged(&context);
        self.world.cloud.assert_undamaged(&context);
    }

    /// Lets the load run until the power has gone somewhere.
    fn load(&mut self, kinds: &[Kind]) {
        let deadline = Instant::now() + LOAD_MAX;
        while Instant::now() < deadline {
            self.keeper.turn(&self.world.edge.node, Duration::from_millis(5));
            if kinds
                .iter()
                .any(|kind| self.world.powered(*kind).disk.await_cut(Duration::ZERO))
            {
                return;
            }
        }
    }

    fn lose_power(&mut self, kinds: &[Kind], context: &mut String) {
        // At one moment, as one plug.
        for kind in kinds {
            self.world.powered(*kind).disk.fail();
        }
        if kinds.contains(&Kind::Cloud) {
            self.world.link.aim(None);
        }
        for kind in kinds {
            let powered = self.world.powered(*kind);
            powered.lose_power();
            let how = powered.regain_power(&mut self.rng);
            context.push_str(&format!("; {kind:?}: {how}"));
        }
    }

    fn cut_while_opening(&mut self, kinds: &[Kind], context: &mut String) {
        context.push_str("; again while opening");
        for kind in kinds {
            let trigger = trigger(120, &mut self.rng);
            let powered = self.world.powered(*kind);
            powered.disk.arm(trigger);
            powered.node.spawn();
        }
        let deadline = Instant::now() + Duration::from_millis(400);
        for kind in kinds {
            let left = deadline.saturating_duration_since(Instant::now());
            let powered = self.world.powered(*kind);
            wait::until_true("the node opens or is cut", Duration::from_secs(5), || {
                powered.disk.await_cut(left) || Instant::now() >= deadline
            });
        }
        self.lose_power(kinds, context);
    }
}
