//! The durability class `memory`: 0 bytes to flash; gone with the process, and named.
//!
//! In: an edge with such a lane and its link. Out: what the system has counted as written for the process, before and behind thousands of messages;
//! what the cloud has; behind a kill, a gap and numbers that go on.

use std::net::SocketAddr;
use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Version};
use fellbeck_tests::{World, names, wait};

const MESSAGES: usize = 20_000;
const WINDOW: usize = 64;

fn world() -> World {
    World::start_with(|edge, _| {
        let rules = "[{filter=\"fast/#\",lane=\"fast\",durability=\"memory\"},{filter=\"#\"}]";
        edge.set("forward", rules);
        // A heartbeat is a record more in the first lane, and these tests count exactly.
        edge.set("uplink.heartbeat_ms", "0");
    })
}

/// Publishes `count` messages at QoS 1 and waits for all acknowledgements.
fn publish(at: SocketAddr, topic: &str, count: usize) {
    let mut client = Client::connected(at, ConnectOptions::clean(Version::V3, "device"));
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && client.in_flight() < WINDOW && client.has_room() {
            client.publish(topic, vec![b'x'; 100], 1, sent);
            sent += 1;
        }
        let events = client.poll(Duration::from_millis(10));
        acked += events
            .iter()
            .filter(|event| matches!(event, Event::Acked { .. }))
            .count();
        assert!(client.is_connected(), "the edge ended the connection");
    }
    client.disconnect();
}

fn await_quiet(world: &World) -> u64 {
    let mut before = world.edge.written_bytes();
    wait::until("the edge writes nothing", wait::EVENTUALLY, || {
        wait::last(Duration::from_millis(2500));
        let now = world.edge.written_bytes();
        (std::mem::replace(&mut before, now) == now).then_some(now)
    })
}

fn await_records(world: &World, count: usize) {
    wait::until_true("the cloud has them", wait::EVENTUALLY, || {
        world.records_in_log() >= count
    });
}

#[test]
fn a_lane_in_memory_writes_no_byte_and_is_forwarded() {
    let world = world();
    let at = world.edge.ready().mqtt;
    // The first message reserves numbers; the link remembers the cloud's log.
    publish(at, "fast/a", 1);
    publish(at, "slow/a", 1);
    await_records(&world, 2);
    let before = await_quiet(&world);
    publish(at, "fast/a", MESSAGES);
    await_records(&world, MESSAGES + 2);
    assert_eq!(await_quiet(&world), before, "bytes written for {MESSAGES} messages");
    publish(at, "slow/a", 1);
    assert!(world.edge.written_bytes() > before, "the system counts what is written");
    await_records(&world, MESSAGES + 3);
}

#[test]
fn what_a_kill_takes_of_a_lane_in_memory_is_named_and_no_number_is_used_again() {
    let mut world = world();
    publish(world.edge.ready().mqtt, "fast/a", 50);
    await_records(&world, 50);
    world.link.cut();
    publish(world.edge.ready().mqtt, "fast/a", 100);
    world.edge.kill();
    world.edge.start();
    publish(world.edge.ready().mqtt, "fast/a", 70);
    world.link.heal();
    await_records(&world, 120);
    let gap = world.cloud.metrics().sum(names::GAP_RECORDS).unwrap_or(0.0) as usize;
    assert!((100..=2 * 65_536).contains(&gap), "{gap}");
    world.link.cut();
    publish(world.edge.ready().mqtt, "fast/a", 30);
    world.edge.terminate(wait::EVENTUALLY);
    world.edge.start();
    world.link.heal();
    wait::until_true("an end in order names exactly what is lost", wait::EVENTUALLY, || {
        world.cloud.metrics().sum(names::GAP_RECORDS) == Some((gap + 30) as f64)
    });
    assert_eq!(world.records_in_log(), 120);
}

#[test]
fn an_interval_lane_acknowledges_at_once_and_is_on_flash_within_a_second() {
    let mut world = World::start_with(|edge, _| {
        edge.set("forward", "[{filter=\"#\",durability=\"interval\"}]");
    });
    world.link.cut();
    publish(world.edge.ready().mqtt, "a", 3000);
    wait::until_true("they are in the log of the edge", wait::EVENTUALLY, || {
        world.records_queued() == 3000
    });
    world.edge.kill();
    world.edge.start();
    world.link.heal();
    await_records(&world, 3000);
    assert_eq!(world.records_in_log(), 3000);
}
