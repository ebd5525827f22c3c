//! MAIN.11 (g): the cloud's data directory is put back to an older copy.
//!
//! In: a copy made between two loads. Out: the edge resends what its grace window holds, or a gap is declared; either way new messages
//! flow and neither side is in an error loop.

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, World, disk, judge, names, wait};

/// Messages per load.
const MESSAGES: usize = 600;
/// Lines at warning level and above that a restore may cost on one side; a loop would write without end.
const COMPLAINTS_MAX: usize = 30;

fn publish(world: &World, name: &str) -> DeviceBook {
    let plan = DevicePlan::burst(name, Version::V5, 1, MESSAGES);
    let book = Device::start(plan, world.edge.mqtt()).finish();
    world.await_drained();
    book
}

fn stop_cloud(world: &mut World) {
    world.link.aim(None);
    assert_eq!(world.cloud.terminate(wait::SOON).code(), Some(0));
}

fn complaints(log: &str) -> usize {
    log.lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .count()
}

#[test]
fn a_restored_cloud_gets_resent_what_it_lost_or_declares_a_gap() {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    let before = publish(&world, "before");
    reader.await_all_acked(std::slice::from_ref(&before));
    let away = reader.leave();
    stop_cloud(&mut world);
    let copy = world.site.path("copy");
    disk::copy(&world.cloud.data_dir(), &copy);

    world.start_cloud();
    let lost = publish(&world, "lost");
    assert_eq!(world.records_in_log(), 2 * MESSAGES);
    stop_cloud(&mut world);
    disk::replace(&world.cloud.data_dir(), &copy);

    world.start_cloud();
    let reader = away.come_back();
    let after = publish(&world, "after");
    let gaps = || world.cloud.metrics().sum(names::LINK_GAPS).unwrap_or(0.0);
    wait::until_true("what was lost is resent or declared", wait::EVENTUALLY, || {
        world.records_in_log() == 3 * MESSAGES || gaps() > 0.0
    });
    reader.await_all_acked(std::slice::from_ref(&after));
    if gaps() == 0.0 {
        let books = [before, lost, after];
        reader.await_all_acked(&books);
        judge(&books, &reader.book()).assert_clean("reader");
    }
    for (node, log) in [("edge", world.edge.log()), ("cloud", world.cloud.log())] {
        let complaints = complaints(&log);
        assert!(
            complaints <= COMPLAINTS_MAX,
            "{node}: {complaints} complaints look like a loop:\n{log}"
        );
    }
}
