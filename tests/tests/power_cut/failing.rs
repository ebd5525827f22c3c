//! Disks that fail under the real nodes: errors on write, sync and read, no room, only to be read. A supervisor starts what has ended.
//!
//! In: an edge and a cloud under load, a fault on one disk. Out: what was acknowledged before, during and behind the fault is there at
//! the end, also behind a power cut; nobody restarts anything by hand, and nothing is set aside as damaged.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::power_cut::{Fault, OpKind, PowerDisk};
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Kind, wait};
use rand::rngs::StdRng;

use crate::world::{PowerWorld, Readers, rng};
use crate::{seed, skipped};

/// Messages of each device before a fault, and behind it.
const LOAD: usize = 60;
/// How long a fault lasts once it has been met.
const FAULT: Duration = Duration::from_millis(600);
/// How long a full disk that nobody writes to is waited for.
const HELD: Duration = Duration::from_secs(3);

/// A world under load.
struct Load {
    rng: StdRng,
    readers: Readers,
    devices: Vec<Device>,
    world: PowerWorld,
    kind: Kind,
}

impl Load {
    fn start(test: &str, kind: Kind) -> Self {
        let mut rng = rng(seed(test));
        let world = PowerWorld::start(&mut rng);
        let readers = Readers::start(&world);
        let plan = |n: usize| DevicePlan {
            window: 2,
            ..DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2)
        };
        let devices = (0..4).map(|n| Device::start(plan(n), world.edge.node.mqtt())).collect();
        let mut load = Self {
            rng,
            readers,
            devices,
            world,
            kind,
        };
        load.await_more();
        load
    }

    fn disk(&mut self) -> &PowerDisk {
        &self.world.powered(self.kind).disk
    }

    /// Waits until each device has some more acknowledged; nodes that end meanwhile are started again.
    fn await_more(&mut self) {
        let goals: Vec<usize> = self.devices.iter().map(|device| device.acked() + LOAD).collect();
        wait::until_true("devices are served", wait::EVENTUALLY, || {
            self.world.supervise();
            self.devices
                .iter()
                .zip(&goals)
                .all(|(device, goal)| device.acked() >= *goal)
        });
    }

    /// Supervises until the fault has been met, and for some time beyond.
    fn suffer(&mut self) {
        let before = self.disk().hits();
        // A disk whose fullness shows may never be written to: then the load is held back, and the fault is met like that.
        let held = Instant::now() + HELD;
        wait::until_true("the fault is met", wait::EVENTUALLY, || {
            self.world.supervise();
            self.disk().hits() > before || (self.disk().is_full() && Instant::now() > held)
        });
        let end = Instant::now() + FAULT;
        wait::until_true("the fault lasts", wait::EVENTUALLY, || {
            self.world.supervise();
            Instant::now() >= end
        });
    }

    /// The node with the fault loses power. Whatever was acknowledged by then has to outlive it.
    fn cut(&mut self) {
        let kind = self.kind;
        self.world.supervise();
        let powered = self.world.powered(kind);
        powered.lose_power();
        println!("cut: {}", powered.regain_power(&mut self.rng));
        let books: Vec<DeviceBook> = self.devices.iter().map(Device::book).collect();
        wait::until_true("both nodes are ready", wait::EVENTUALLY, || self.world.supervise());
        self.readers.await_all_acked(&books);
    }

    fn finish(mut self) {
        wait::until_true("both nodes are ready", wait::EVENTUALLY, || self.world.supervise());
        self.await_more();
        let devices = std::mem::take(&mut self.devices);
        let books: Vec<DeviceBook> = devices.into_iter().map(Device::settle).collect();
        self.readers.check_acked(&self.world, &books, 0);
        self.world.edge.assert_undamaged("edge");
        self.world.cloud.assert_undamaged("cloud");
    }
}

/// After a failed sync the kernel takes the pages for clean and goes on showing them. A node that reads them back and builds on them
/// acknowledges what no disk holds.
fn one_failed_sync(test: &str, kind: Kind) {
    if skipped() {
        return;
    }
    let mut load = Load::start(test, kind);
    for _ in 0..4 {
        let fault = Fault {
            suffix: ".jnl".to_owned(),
            times: 1,
            ..Fault::all(OpKind::Sync)
        };
        load.disk().faults(|faults| faults.fail(fault));
        load.suffer();
        load.await_more();
        load.cut();
    }
    load.finish();
}

#[test]
fn what_an_edge_acknowledges_behind_a_failed_fsync_outlives_a_power_cut() {
    one_failed_sync("edge, one failed fsync", Kind::Edge);
}

#[test]
fn what_a_cloud_acknowledges_behind_a_failed_fsync_outlives_a_power_cut() {
    one_failed_sync("cloud, one failed fsync", Kind::Cloud);
}

/// The fault comes, lasts and goes; then all goes on, first without and then with a power cut.
fn passing(test: &str, kind: Kind, fault: impl Fn(&PowerDisk)) {
    if skipped() {
        return;
    }
    let mut load = Load::start(test, kind);
    for cut in [false, true] {
        fault(load.disk());
        load.suffer();
        if cut {
            load.cut();
        } else {
            load.disk().faults(fellbeck_tests::power_cut::Faults::mend);
        }
        load.disk().set_quota(None);
        load.await_more();
    }
    load.finish();
}

fn fail_all(kind: OpKind) -> impl Fn(&PowerDisk) {
    move |disk| disk.faults(|faults| faults.fail(Fault::all(kind)))
}

#[test]
fn an_edge_whose_disk_fails_to_sync_keeps_what_it_acknowledged() {
    passing("edge, fsync", Kind::Edge, fail_all(OpKind::Sync));
}

#[test]
fn a_cloud_whose_disk_fails_to_sync_keeps_what_it_acknowledged() {
    passing("cloud, fsync", Kind::Cloud, fail_all(OpKind::Sync));
}

#[test]
fn an_edge_whose_disk_fails_to_write_keeps_what_it_acknowledged() {
    passing("edge, write", Kind::Edge, fail_all(OpKind::Write));
}

#[test]
fn a_cloud_whose_disk_fails_to_write_keeps_what_it_acknowledged() {
    passing("cloud, write", Kind::Cloud, fail_all(OpKind::Write));
}

#[test]
fn an_edge_whose_disk_may_only_be_read_goes_on_when_it_may_be_written_again() {
    passing("edge, read-only", Kind::Edge, |disk| {
        disk.faults(|faults| faults.set_read_only(true))
    });
}

#[test]
fn an_edge_whose_disk_is_full_goes_on_by_itself_when_there_is_room() {
    passing("edge, full", Kind::Edge, full);
}

#[test]
fn a_cloud_whose_disk_is_full_goes_on_by_itself_when_there_is_room() {
    passing("cloud, full", Kind::Cloud, full);
}

/// No byte more, at once: the reserve that the store keeps free is gone with it.
fn full(disk: &PowerDisk) {
    disk.set_quota(Some(disk.used()));
}

#[test]
fn a_store_that_cannot_be_read_for_a_moment_is_not_set_aside() {
    if skipped() {
        return;
    }
    for kind in [Kind::Edge, Kind::Cloud] {
        let mut load = Load::start("read", kind);
        for after in [0, 3, 10, 20, 40] {
            load.world.powered(kind).node.kill();
            let fault = Fault {
                after,
                times: 2,
                ..Fault::all(OpKind::Read)
            };
            load.disk().faults(|faults| faults.fail(fault));
            wait::until_true("both nodes are ready", wait::EVENTUALLY, || load.world.supervise());
            load.await_more();
        }
        load.finish();
    }
}
