//! MAIN.11 (e): persistent subscribers, at the edge and at the cloud, that were away get all of it once.
//!
//! In: readers that leave and come back, also across a restart of the node that keeps their session.
//! Out: balanced books for each QoS and version.

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, World, judge, wait};

/// Messages of each device while the readers are away.
const MESSAGES: usize = 1500;

fn readers(world: &World) -> Vec<Reader> {
    let mut readers = Vec::new();
    for version in Version::BOTH {
        for qos in [1, 2] {
            let plan = ReaderPlan::all(&format!("reader-{version:?}-{qos}"), version, qos);
            readers.push(Reader::start(&plan, &world.edge.mqtt()));
            readers.push(Reader::start(&plan, &world.cloud.mqtt()));
        }
    }
    readers
}

fn publish(world: &World, prefix: &str) -> Vec<DeviceBook> {
    let plan = |qos: u8| DevicePlan::burst(&format!("{prefix}-{qos}"), Version::V5, qos, MESSAGES);
    let devices: Vec<Device> = [1, 2].map(|qos| Device::start(plan(qos), world.edge.mqtt())).into();
    devices.into_iter().map(Device::finish).collect()
}

fn check(readers: &[Reader], books: &[DeviceBook]) {
    for (n, reader) in readers.iter().enumerate() {
        reader.await_all_acked(books);
        let book = reader.book();
        let verdict = judge(books, &book);
        verdict.assert_clean(&format!("reader {n}"));
        assert_eq!(verdict.received, verdict.published, "reader {n}");
        assert_eq!(book.sessions_lost, 0, "reader {n} was forgotten");
    }
}

#[test]
fn readers_that_were_away_get_everything_once() {
    let world = World::start();
    let away: Vec<_> = readers(&world).into_iter().map(Reader::leave).collect();
    let mut books = publish(&world, "absent");
    world.await_drained();
    let readers: Vec<_> = away.into_iter().map(|away| away.come_back()).collect();
    // Live messages follow what was missed: the seam has no hole and no double.
    books.extend(publish(&world, "present"));
    check(&readers, &books);
}

#[test]
fn readers_that_were_away_while_both_nodes_restarted_get_everything_once() {
    let mut world = World::start();
    let away: Vec<_> = readers(&world).into_iter().map(Reader::leave).collect();
    let mut books = publish(&world, "before");
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    world.link.aim(None);
    assert_eq!(world.cloud.terminate(wait::SOON).code(), Some(0));
    world.start_cloud();
    world.edge.start();
    books.extend(publish(&world, "after"));
    world.edge.kill();
    world.edge.start();
    world.await_drained();
    let readers: Vec<_> = away.into_iter().map(|away| away.come_back()).collect();
    check(&readers, &books);
}

#[test]
fn a_reader_that_comes_and_goes_under_load_gets_everything_once() {
    let world = World::start();
    for (tier, node) in [("edge", world.edge.mqtt()), ("cloud", world.cloud.mqtt())] {
        let device = Device::start(
            DevicePlan::steady(&format!("dev-{tier}"), Version::V3, 1),
            world.edge.mqtt(),
        );
        let plan = ReaderPlan {
            filter: format!("site/dev-{tier}/+"),
            ..ReaderPlan::all("restless", Version::V5, 2)
        };
        let mut reader = Reader::start(&plan, &node);
        // Only what is sent after SUBACK is owed.
        let owed_from = device.acked() + 40;
        for _ in 0..8 {
            device.await_acked(device.acked() + 60);
            let away = reader.leave();
            device.await_acked(device.acked() + 60);
            reader = away.come_back();
        }
        let mut book = device.settle();
        for seq in 0..owed_from {
            book.acked[seq] = false;
        }
        let books = [book];
        reader.await_all_acked(&books);
        judge(&books, &reader.book()).assert_clean(tier);
    }
}
