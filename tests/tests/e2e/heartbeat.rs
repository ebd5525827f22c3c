//! Heartbeats make the health of a link true: a link that swallows everything shows as degraded on both sides within two of them,
//! although its socket stays open, and heals. They cost no consumer a message.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Books, Device, DevicePlan, Reader, ReaderPlan, World, names, wait};

/// Interval of heartbeats in the test of a black hole.
const INTERVAL: Duration = Duration::from_secs(3);
/// What a loaded machine may add to two intervals: turns of two processes, and the polls of the test.
const SLACK: Duration = Duration::from_secs(3);

fn with_heartbeats(interval: Duration, idle: &str) -> World {
    let millis = interval.as_millis().to_string();
    World::start_with(|edge, cloud| {
        edge.set("uplink.heartbeat_ms", &millis);
        edge.set("uplink.idle_timeout_ms", idle);
        cloud.set("link.idle_timeout_ms", idle);
    })
}

fn status(node: &fellbeck_tests::Node) -> serde_json::Value {
    serde_json::from_str(&node.get("/api/v1/status").body).expect("the status is JSON")
}

fn edge_health(world: &World) -> String {
    status(&world.edge)["uplink"]["health"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}

fn cloud_health(world: &World) -> String {
    status(&world.cloud)["edges"][0]["health"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}

fn beats(world: &World) -> u64 {
    status(&world.cloud)["edges"][0]["heartbeat"]["number"]
        .as_u64()
        .unwrap_or(0)
}

fn await_health(world: &World, health: &str, within: Duration) {
    let what = format!("the link is {health} on both sides");
    wait::until_true(&what, within, || {
        edge_health(world) == health && cloud_health(world) == health
    });
}

#[test]
fn a_black_hole_is_degraded_within_two_heartbeats_and_heals() {
    let world = with_heartbeats(INTERVAL, "600000");
    wait::until_true("heartbeats come", wait::EVENTUALLY, || beats(&world) >= 2);
    await_health(&world, "up", wait::SOON);
    let beat = status(&world.cloud)["edges"][0]["heartbeat"].clone();
    assert_eq!(beat["interval_ms"], 3000, "{beat}");
    assert!(
        beat["last_round_trip_ms"].is_u64(),
        "the second one tells of the first: {beat}"
    );

    world.link.cut();
    let cut = Instant::now();
    await_health(&world, "degraded", 2 * INTERVAL + SLACK);
    println!(
        "degraded on both sides {:?} after the cut, interval {INTERVAL:?}",
        cut.elapsed()
    );
    let state = status(&world.edge)["uplink"]["link"]["state"].clone();
    assert_eq!(state, "connected", "the socket is open");
    assert_eq!(world.edge.metric(names::LINK_UP, ""), 1.0);
    assert_eq!(world.edge.metric("fellbeck_link_health", "degraded"), 1.0);
    assert_eq!(world.cloud.metric("fellbeck_link_edges_health", "degraded"), 1.0);
    assert_eq!(world.edge.get("/readyz").status, 200, "devices are served all the same");
    world.edge.await_log(&["WARN", "the link is degraded"]);
    world.cloud.await_log(&["WARN", "the link is degraded", "gate-1"]);

    world.link.heal();
    await_health(&world, "up", wait::EVENTUALLY);
    assert_eq!(
        world.edge.metric("fellbeck_link_connects_total", ""),
        1.0,
        "it is the same connection"
    );
    Books::of(&world.cloud).assert_closed("cloud");
    Books::of(&world.edge).assert_closed("edge");
}

#[test]
fn a_link_that_is_lost_is_down_and_leaves_one_heartbeat_at_most() {
    let mut world = with_heartbeats(Duration::from_millis(200), "2000");
    wait::until_true("heartbeats come", wait::EVENTUALLY, || beats(&world) >= 3);
    world.kill_cloud();
    wait::until_true("the edge sees it", wait::EVENTUALLY, || edge_health(&world) == "down");
    let end = world.edge.metric(names::TRACK_END, names::DEFAULT_LANE);
    wait::throughout("no heartbeat is put in", Duration::from_secs(2), || {
        world.edge.metric(names::TRACK_END, names::DEFAULT_LANE) == end
    });
    assert!(world.records_queued() <= 1, "{} queued", world.records_queued());
    world.start_cloud();
    let known = status(&world.cloud)["edges"][0].clone();
    assert!(
        known["heartbeat"]["number"].as_u64() >= Some(3),
        "the last heartbeat is durable: {known}"
    );
    wait::until_true("it goes on", wait::EVENTUALLY, || {
        edge_health(&world) == "up" && cloud_health(&world) == "up"
    });
}

#[test]
fn heartbeats_reach_no_consumer_and_no_partition() {
    let world = with_heartbeats(Duration::from_millis(100), "2000");
    let all = |name: &str| ReaderPlan {
        filter: "#".to_owned(),
        ..ReaderPlan::all(name, Version::V5, 1)
    };
    let readers = [
        Reader::start(&all("at-cloud"), &world.cloud.mqtt()),
        Reader::start(&all("at-edge"), &world.edge.mqtt()),
    ];
    wait::until_true("heartbeats come", wait::EVENTUALLY, || beats(&world) >= 10);
    let sent = Device::start(DevicePlan::burst("dev", Version::V5, 1, 50), world.edge.mqtt()).finish();
    assert_eq!(sent.sends.len(), 50);
    let seen = beats(&world);
    wait::until_true("more come", wait::EVENTUALLY, || beats(&world) >= seen + 5);
    for reader in &readers {
        wait::until_true("the messages come", wait::EVENTUALLY, || reader.received() == 50);
        assert_eq!(reader.book().strange, 0, "messages that no device sent");
    }
    assert_eq!(world.cloud.metric(names::TRACK_END, "stream/"), 50.0, "of all streams");
    let books = Books::of(&world.cloud);
    books.assert_closed("cloud");
    assert!(books.sum("lanes", "heartbeats") >= 15, "{:#}", books.0);
}

#[test]
fn heartbeats_can_be_turned_off() {
    let world = World::start_with(|edge, _| {
        edge.set("uplink.heartbeat_ms", "0");
    });
    wait::until_true("the link is up", wait::EVENTUALLY, || {
        world.edge.metric(names::LINK_UP, "") == 1.0
    });
    wait::throughout("nothing is put in", Duration::from_secs(1), || {
        world.edge.metric(names::TRACK_END, names::DEFAULT_LANE) == 0.0
    });
    assert_eq!(edge_health(&world), "none");
    assert_eq!(cloud_health(&world), "up");
}
