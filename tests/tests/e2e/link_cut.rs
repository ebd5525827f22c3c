//! MAIN.11 (b): the link is cut under load, again and again.
//!
//! In: a proxy that drops everything while it is cut. Out: balanced books. No process dies here, so nothing may be doubled anywhere.

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Reader, ReaderPlan, World, judge, wait};

/// Cuts in one test.
const CUTS: usize = 6;
/// Messages acknowledged between two events.
const LOAD: usize = 250;

#[test]
fn link_cuts_under_load_lose_and_double_nothing() {
    let world = World::start();
    let twice = Reader::start(&ReaderPlan::all("reader-2", Version::V5, 2), &world.cloud.mqtt());
    let once = Reader::start(&ReaderPlan::all("reader-1", Version::V3, 1), &world.cloud.mqtt());
    let plan = |n: usize| DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2);
    let devices: Vec<Device> = (0..4).map(|n| Device::start(plan(n), world.edge.mqtt())).collect();
    for _ in 0..CUTS {
        await_more(&devices);
        world.link.cut();
        // The edge serves its devices while the cloud is away.
        await_more(&devices);
        world.link.heal();
    }
    let books: Vec<_> = devices.into_iter().map(Device::settle).collect();
    assert!(
        books.iter().all(|book| book.connects == 1),
        "a link cut is no reason to drop a device"
    );
    for (who, reader) in [("QoS 2 reader", &twice), ("QoS 1 reader", &once)] {
        reader.await_all_acked(&books);
        let verdict = judge(&books, &reader.book());
        verdict.assert_clean(who);
        assert_eq!(verdict.received, verdict.published, "{who}");
    }
    world.await_drained();
    assert_eq!(
        world.records_in_log(),
        twice.received(),
        "the log holds each message once"
    );
    assert!(world.link.dropped() > 0, "the cuts dropped something");
}

#[test]
fn a_cloud_that_moves_to_another_port_is_found_again() {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    let device = Device::start(DevicePlan::steady("dev", Version::V5, 1), world.edge.mqtt());
    device.await_acked(LOAD);
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    world.start_cloud();
    device.await_acked(2 * LOAD);
    let books = [device.settle()];
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("reader");
}

fn await_more(devices: &[Device]) {
    for device in devices {
        device.await_acked(device.acked() + LOAD / devices.len());
    }
}
