//! An edge in 64 MB: a backlog far larger than that is taken, survives a restart, and is drained (P6).
//!
//! In: an edge in a group of processes with a bound on its memory, page cache included. Out: it is never killed for want of memory, and the cloud
//! has every message. `FELLBECK_BACKLOG_MB` makes the backlog longer than in the gate. Flash wear is looked at on the way.

use std::time::{Duration, Instant};

use fellbeck_tests::cgroup::MemoryGroup;
use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, World, names, wait};

const MEMORY: u64 = 64 << 20;
const SIZE: usize = 4 << 10;
const BACKLOG_MB: usize = 400;
const DEVICES: usize = 4;

#[test]
fn an_edge_in_64_mb_takes_keeps_and_drains_a_backlog_many_times_as_large() {
    let asked = std::env::var("FELLBECK_BACKLOG_MB").ok();
    let backlog = asked.and_then(|mb| mb.parse().ok()).unwrap_or(BACKLOG_MB) << 20;
    let long = wait::EVENTUALLY.max(Duration::from_secs(backlog as u64 >> 20));
    let group = MemoryGroup::new("edge", MEMORY);
    let mut world = World::prepare();
    world
        .edge
        .set(names::QUOTA_KEY, &(2 * backlog).to_string())
        .set("store.endurance", "\"20 TB\"");
    world.start_cloud();
    world.join();
    world.link.cut();
    world.edge.spawn();
    group.add(world.edge.pid());
    world.edge.await_ready();

    let begun = Instant::now();
    let count = backlog / SIZE / DEVICES;
    let plan = |n: usize| DevicePlan {
        size: SIZE,
        window: 64,
        ..DevicePlan::burst(&format!("dev-{n}"), Version::BOTH[n % 2], 1, count)
    };
    let devices: Vec<Device> = (0..DEVICES)
        .map(|n| Device::start(plan(n), world.edge.mqtt()))
        .collect();
    wait::until_true("the backlog is taken", long, || {
        assert!(world.edge.is_running(), "the edge ended: {} killed", group.killed());
        devices.iter().all(|device| device.acked() >= count)
    });
    let acked: usize = devices.into_iter().map(|device| device.settle().acked_count()).sum();
    let (taken, rss) = (begun.elapsed(), world.edge.rss_bytes());
    let written = world.edge.metric("fellbeck_flash_written_per_accepted", "");
    assert!(
        written > 0.5 && written < 4.0,
        "bytes written per byte accepted: {written}"
    );
    let accepted = world.edge.metric("fellbeck_flash_accepted_bytes_total", "") as usize;
    assert!(accepted >= acked * SIZE, "{accepted} bytes accepted");

    world.edge.kill();
    let begun = Instant::now();
    world.edge.spawn();
    group.add(world.edge.pid());
    world.edge.await_ready();
    let (restarted, rss_at_start) = (begun.elapsed(), world.edge.rss_bytes());
    let begun = Instant::now();
    world.link.heal();
    wait::until_true("the backlog is drained", long, || {
        assert!(world.edge.is_running(), "the edge ended: {} killed", group.killed());
        world.records_in_log() >= acked
    });
    assert_eq!((world.records_in_log(), group.killed()), (acked, 0));
    println!(
        "{acked} messages, {} MB: taken in {taken:?} at {} MB resident, {written:.2} bytes written per byte; ready again in {restarted:?} at {} MB; \
         drained in {:?} at {} MB; peak of the group {:?} MB of {}",
        backlog >> 20,
        rss >> 20,
        rss_at_start >> 20,
        begun.elapsed(),
        world.edge.rss_bytes() >> 20,
        group.peak().map(|bytes| bytes >> 20),
        MEMORY >> 20,
    );
    drop(world);
    drop(group);
}
