//! Message expiry across the link: the time without a link counts, and what has expired meanwhile does not come.
//!
//! In: messages with and without an interval, published at the edge while the link is down. Out: what is left of each interval at a
//! consumer in the cloud, and the counts of those that have expired.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Delivery, Publish, Raw, Version};
use fellbeck_tests::{World, wait};

/// Interval of what is to expire, in seconds.
const SHORT: u32 = 2;
/// Interval of what is to come.
const LONG: u32 = 1000;
/// Seconds without a link, at least.
const AWAY: u32 = 4;
/// Messages of each kind and order.
const EACH: usize = 3;

/// Seconds that a delivery has left.
fn left(delivery: &Delivery) -> Option<u32> {
    let value: [u8; 4] = delivery.property(0x02)?.try_into().expect("four bytes");
    Some(u32::from_be_bytes(value))
}

/// What the cloud has counted as expired: whole batches at its link, single records at its readers.
fn expired(world: &World) -> f64 {
    let metrics = world.cloud.metrics();
    ["fellbeck_link_expired_records_total", "fellbeck_broker_expired_total"]
        .into_iter()
        .filter_map(|name| metrics.sum(name))
        .sum()
}

#[test]
fn an_interval_is_counted_down_while_there_is_no_link_and_what_expired_does_not_come() {
    let world = World::start();
    let hello = Connect::kept(Version::V5, "consumer");
    let mut consumer = Raw::connected(world.cloud.ready().mqtt, &hello);
    assert_eq!(consumer.subscribe("expiry/#", 1), 1);
    let mut device = Raw::connected(world.edge.ready().mqtt, &Connect::new(Version::V5, "device"));
    // The way is open, and costs no more than it took.
    let since = Instant::now();
    device.publish(
        &Publish::new("expiry/first", "first")
            .qos(1)
            .property(property::message_expiry(LONG)),
    );
    let first = consumer.expect_message("first");
    assert_left(&first, since, 0);
    consumer.acknowledge(&first);

    world.link.aim(None);
    let since = Instant::now();
    let mut publish = |kind: &str, interval: Option<u32>| {
        let message = Publish::new(&format!("expiry/{kind}"), kind).qos(1);
        device.publish(&match interval {
            Some(seconds) => message.property(property::message_expiry(seconds)),
            None => message,
        });
    };
    // In a row, so that a batch has none but these, and between others.
    (0..EACH).for_each(|_| publish("short", Some(SHORT)));
    for _ in 0..EACH {
        publish("long", Some(LONG));
        publish("short", Some(SHORT));
        publish("ever", None);
    }
    wait::until_true("the short interval is over", wait::SOON, || {
        since.elapsed() > Duration::from_secs(u64::from(AWAY))
    });
    assert_eq!(world.records_queued(), 4 * EACH, "all waits at the edge");
    world.link.aim(world.cloud.ready().link);

    for _ in 0..EACH {
        let long = consumer.expect_message("long");
        assert_left(&long, since, AWAY);
        consumer.acknowledge(&long);
        let ever = consumer.expect_message("ever");
        assert_eq!(left(&ever), None);
        consumer.acknowledge(&ever);
    }
    world.await_drained();
    consumer.ping();
    wait::until_true("each that expired is counted once", wait::SOON, || {
        expired(&world) == 2.0 * EACH as f64
    });
}

/// Demands that a message with the long interval has lost at least `away` seconds and no more than have passed.
fn assert_left(delivery: &Delivery, since: Instant, away: u32) {
    let passed = u32::try_from(since.elapsed().as_secs()).expect("a test is short") + 1;
    let left = left(delivery).expect("a Message Expiry Interval");
    let allowed = LONG.saturating_sub(passed)..=LONG - away;
    assert!(allowed.contains(&left), "{left} left, {allowed:?} allowed");
}
