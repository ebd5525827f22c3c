//! MAIN.11 (d) and (h): no cloud from the start, and an edge that is restarted meanwhile.
//!
//! In: an edge that has joined and then finds nobody. Out: devices served, a backlog on disk and not in memory, and a drain that needs no
//! further publish.

use std::time::Duration;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, World, disk, judge, wait};

const MIB: u64 = 1024 * 1024;
/// Payload of the backlog test.
const SIZE: usize = 1024;
/// Messages per part of the backlog test: 24 MiB to fill all windows, then 40 MiB in which memory must stay flat.
const WARM_UP: usize = 24 * 1024;
const BACKLOG: usize = 40 * 1024;
/// Growth of memory that is not a sign of a backlog in memory.
const RSS_SLACK: u64 = 16 * MIB;

/// A world whose edge has joined and runs, and whose cloud is gone.
fn offline_world() -> World {
    let mut world = World::prepare();
    world.start_cloud();
    world.join();
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    world.edge.start();
    world
}

/// Starts the cloud, lets a reader subscribe, and only then opens the link.
fn appear(world: &mut World) -> Reader {
    let ready = world.cloud.start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    world.link.aim(ready.link);
    reader
}

fn check(world: &World, reader: &Reader, books: &[DeviceBook]) {
    reader.await_all_acked(books);
    world.await_drained();
    let verdict = judge(books, &reader.book());
    verdict.assert_clean("reader");
    assert_eq!(
        world.records_in_log(),
        verdict.received,
        "each record of the log came once"
    );
}

#[test]
fn a_backlog_grows_on_disk_not_in_memory_and_drains_without_a_further_publish() {
    let mut world = offline_world();
    let burst = |name: &str, count| {
        let plan = DevicePlan {
            size: SIZE,
            ..DevicePlan::burst(name, Version::V5, 1, count)
        };
        Device::start(plan, world.edge.mqtt()).finish()
    };
    let mut books = vec![burst("warm", WARM_UP)];
    let (rss_before, disk_before) = (world.edge.rss_bytes(), disk::bytes(&world.edge.data_dir()));
    books.push(burst("bulk", BACKLOG));
    let grown = disk::bytes(&world.edge.data_dir()).saturating_sub(disk_before);
    let published = (BACKLOG * SIZE) as u64;
    assert!(grown > published / 2, "{grown} bytes on disk for {published} published");
    let rss = world.edge.rss_bytes();
    assert!(
        rss < rss_before + RSS_SLACK,
        "resident memory went from {rss_before} to {rss}"
    );

    let reader = appear(&mut world);
    check(&world, &reader, &books);
    assert_eq!(reader.received(), WARM_UP + BACKLOG);
}

#[test]
fn an_edge_restarted_several_times_while_offline_is_not_fenced() {
    let mut world = offline_world();
    let device = Device::start(DevicePlan::steady("dev", Version::V3, 2), world.edge.mqtt());
    for round in 0..5 {
        device.await_acked(device.acked() + 100);
        if round % 2 == 0 {
            world.edge.kill();
        } else {
            assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
        }
        world.edge.start();
    }
    device.await_acked(device.acked() + 100);
    let reader = appear(&mut world);
    let books = [device.settle()];
    check(&world, &reader, &books);
    for log in [world.edge.log(), world.cloud.log()] {
        assert!(!log.to_lowercase().contains("fenced"), "{log}");
    }
}

#[test]
fn local_devices_are_served_as_usual_while_the_cloud_is_away() {
    let world = offline_world();
    let reader = Reader::start(&ReaderPlan::all("local", Version::V3, 1), &world.edge.mqtt());
    let device = Device::start(DevicePlan::burst("dev", Version::V5, 1, 500), world.edge.mqtt());
    let books = [device.finish()];
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("local reader");
    assert_eq!(world.records_queued(), 500);
    wait::throughout(
        "the backlog stays while nobody takes it",
        Duration::from_millis(500),
        || world.records_queued() == 500,
    );
}
