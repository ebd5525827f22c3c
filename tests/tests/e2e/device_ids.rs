//! S15: a message that its device sends again is stored once, whichever way it comes.
//!
//! In: devices that name their messages, two gateways, kills of every node, another routing. Out: the cloud's log holds each message
//! once, what was sent twice is counted, and nothing waits on an edge.

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Publish, Raw, Version};
use fellbeck_tests::{Device, DevicePlan, Kind, Node, World, join, names, token, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Messages per load.
const MESSAGES: usize = 40;
/// Kills in the gate.
const ROUNDS: usize = 8;

/// A second gateway of the same cloud, running.
fn second_edge(world: &World) -> Node {
    let mut edge = Node::new(Kind::Edge, &world.site.path("edge-2"));
    edge.set("uplink.cloud", &format!("[\"{}\"]", world.link.address()))
        .set("uplink.keep_alive_ms", "400")
        .set("uplink.idle_timeout_ms", "2000")
        .set("uplink.connect_timeout_ms", "2000")
        .set("uplink.backoff_max_ms", "500");
    join(&edge, &token(&world.cloud, "gate-2", Some(world.link.address()))).assert_ok();
    edge.start();
    edge
}

/// Publishes at QoS 1 as `client`, each message with its properties; returns when all are acknowledged.
fn publish(edge: &Node, client: &str, messages: impl Iterator<Item = Vec<u8>>) {
    let mut device = Raw::connected(edge.ready().mqtt, &Connect::new(Version::V5, client));
    for properties in messages {
        let id = device.fresh_id();
        device.publish(&Publish::new("site/pump/state", "x").qos(1).id(id).property(properties));
    }
    device.disconnect();
}

fn numbered(range: std::ops::Range<usize>) -> impl Iterator<Item = Vec<u8>> {
    range.map(|n| property::user("message-id", n.to_string()))
}

fn await_drained(edges: &[&Node]) {
    for edge in edges {
        wait::until_true("the edge's backlog is empty", wait::EVENTUALLY, || {
            edge.metric(names::TRACK_QUEUED, names::DEFAULT_LANE) == 0.0
        });
    }
}

/// Records of all streams but that of the gaps.
fn records(world: &World) -> usize {
    let metrics = world.cloud.metrics();
    let of = |stream: &str| metrics.sum_where(names::TRACK_END, stream).unwrap_or(0.0);
    (of("stream/") - of("stream/fellbeck.gaps/")) as usize
}

fn duplicates(world: &World) -> usize {
    world.cloud.metrics().sum(names::DEVICE_DUPLICATES).unwrap_or(0.0) as usize
}

#[test]
fn s15_a_message_sent_again_through_another_gateway_is_stored_once_across_restarts_and_a_new_routing() {
    let mut world = World::start();
    let mut other = second_edge(&world);
    // Both gateways hold the same messages when the link comes back: which of them is first is left to chance.
    world.link.aim(None);
    publish(&world.edge, "pump", numbered(0..MESSAGES));
    publish(&other, "pump", numbered(0..MESSAGES));
    world.link.aim(world.cloud.ready().link);
    await_drained(&[&world.edge, &other]);
    assert_eq!((records(&world), duplicates(&world)), (MESSAGES, MESSAGES));

    world.kill_cloud();
    other.kill();
    // Another number of partitions, and another stream for the topic.
    let streams =
        r##"[{name="pumps",filters=["site/pump/#"],partitions=3},{name="default",filters=["#"],partitions=5}]"##;
    world.cloud.set("stream", streams);
    world.start_cloud();
    other.start();
    publish(&other, "pump", numbered(0..MESSAGES + 10));
    await_drained(&[&world.edge, &other]);
    assert_eq!((records(&world), duplicates(&world)), (MESSAGES + 10, MESSAGES));

    // The identifier belongs to its device: that of another with the same number is another message.
    publish(&world.edge, "fan", numbered(0..MESSAGES));
    await_drained(&[&world.edge]);
    assert_eq!(records(&world), 2 * MESSAGES + 10);
}

#[test]
fn s15_a_cloud_event_is_stored_once_whichever_client_sends_it() {
    let world = World::start();
    let other = second_edge(&world);
    let event = |source: &str, n: usize| {
        [
            property::user("specversion", "1.0"),
            property::user("type", "pump.state"),
            property::user("source", source),
            property::user("id", n.to_string()),
        ]
        .concat()
    };
    publish(&world.edge, "client-a", (0..MESSAGES).map(|n| event("/pump/7", n)));
    publish(&other, "client-b", (0..MESSAGES).map(|n| event("/pump/7", n)));
    publish(&other, "client-b", (0..5).map(|n| event("/pump/8", n)));
    await_drained(&[&world.edge, &other]);
    assert_eq!((records(&world), duplicates(&world)), (MESSAGES + 5, MESSAGES));
}

#[test]
fn s15_the_window_is_bounded_and_what_it_forgets_is_counted() {
    let world = World::start_with(|_, cloud| {
        cloud.set("dedup.window_ids", "10");
    });
    publish(&world.edge, "pump", numbered(0..1));
    publish(&world.edge, "pump", numbered(100..111));
    publish(&world.edge, "pump", numbered(0..1));
    // An identifier that is too long is none: both copies are stored.
    let long = property::user("message-id", "x".repeat(300));
    publish(&world.edge, "pump", [long.clone(), long].into_iter());
    await_drained(&[&world.edge]);
    assert_eq!((records(&world), duplicates(&world)), (15, 0));
    let metrics = world.cloud.metrics();
    assert!(metrics.sum("fellbeck_dedup_ids").is_some_and(|ids| ids <= 10.0));
    assert!(
        metrics
            .sum("fellbeck_dedup_ids_forgotten_total")
            .is_some_and(|n| n >= 3.0)
    );
    assert_eq!(metrics.sum("fellbeck_link_bad_device_ids_total"), Some(2.0));
}

/// kill -9 of the cloud and of both gateways while one device sends everything through both: check and record are one commit.
#[test]
fn s15_kills_between_append_and_index_double_nothing_and_lose_nothing() {
    let from_env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = from_env("FELLBECK_SEED").unwrap_or_else(|| rand::rng().random());
    let rounds = from_env("FELLBECK_KILL_ROUNDS").map_or(ROUNDS, |n| usize::try_from(n).expect("a sane number"));
    println!("device IDs: FELLBECK_SEED={seed}, {rounds} rounds");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start();
    let mut other = second_edge(&world);
    let plan = DevicePlan {
        id_property: Some("message-id"),
        ..DevicePlan::steady("pump", Version::V5, 1)
    };
    let twins = [
        Device::start(plan.clone(), world.edge.mqtt()),
        Device::start(plan, other.mqtt()),
    ];
    for round in 0..rounds {
        for twin in &twins {
            twin.await_acked(twin.acked() + rng.random_range(1..100));
        }
        match rng.random_range(0..4) {
            0 => {
                world.edge.kill();
                world.edge.start();
            }
            1 => {
                other.kill();
                other.start();
            }
            _ => {
                world.kill_cloud();
                world.start_cloud();
            }
        }
        println!("round {round}");
    }
    let books = twins.map(Device::settle);
    await_drained(&[&world.edge, &other]);
    let distinct = books
        .iter()
        .map(|book| book.acked_count())
        .max()
        .expect("there are two");
    assert!(books.iter().all(|book| book.acked_count() == book.sends.len()));
    assert_eq!(records(&world), distinct, "each message once");
}
