//! Message Expiry Interval (3.3.2.3.3): counted down while a message waits, and its end.

use std::time::Instant;

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{AckKind, Answer, Delivery, Publish, Version, encode};

use crate::brokers::{on_each, on_own, target, unique};
use crate::pair::{Pair, absent, elapse, resume, take, texts};

/// Seconds that a delivery has left.
fn left(delivery: &Delivery) -> Option<u32> {
    let value = delivery.property(0x02)?;
    Some(u32::from_be_bytes([value[0], value[1], value[2], value[3]]))
}

/// Demands that a delivery that was given `interval` has lost at least `waited` seconds and no more than have passed.
fn assert_left(delivery: &Delivery, interval: u32, waited: u32, since: Instant) {
    let passed = u32::try_from(since.elapsed().as_secs()).expect("a test is short") + 1;
    let left = left(delivery).expect("a Message Expiry Interval");
    let allowed = interval.saturating_sub(passed)..=interval - waited;
    assert!(allowed.contains(&left), "{left} left, {allowed:?} allowed");
}

fn expiring(topic: &str, payload: &str, interval: u32) -> Publish {
    Publish::new(topic, payload).property(property::message_expiry(interval))
}

/// [MQTT5-3.3.2-6] A message that is delivered at once has the interval that it came with, the greatest too; a second
/// at most is lost on the way.
#[test]
fn the_interval_is_passed_on() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "interval", 2);
        for (at, interval) in [u32::MAX, 3600, 60].into_iter().enumerate() {
            let since = Instant::now();
            let qos = u8::try_from(at).expect("there are three");
            pair.from.publish(&expiring(&pair.topic, "x", interval).qos(qos));
            let delivery = take(&mut pair.to, 1).remove(0);
            assert_left(&delivery, interval, 0, since);
        }
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6] [MQTT5-3.3.2.3.3] For an absent client the interval is counted down, what has
/// expired is gone, and what has no interval stays; a retained message likewise.
#[test]
fn the_interval_is_counted_down_while_a_message_waits() {
    on_each(|target| {
        let topic = unique("wait");
        let away = absent(&target, "wait", &topic, 2);
        let mut publisher = target.client("wait-publisher");
        let since = Instant::now();
        for qos in [1, 2] {
            publisher.publish(&expiring(&topic, "gone", 1).qos(qos));
            publisher.publish(&expiring(&topic, "left", 1000).qos(qos));
            publisher.publish(&Publish::new(&topic, "ever").qos(qos));
        }
        let (long, short) = (unique("wait/long"), unique("wait/short"));
        publisher.publish(&expiring(&long, "long", 1000).qos(1).retain());
        publisher.publish(&expiring(&short, "short", 1).qos(1).retain());
        elapse(&target, 2);
        let mut client = resume(&target, &away);
        let (bounded, ever): (Vec<_>, Vec<_>) = take(&mut client, 4).into_iter().partition(|one| left(one).is_some());
        assert_eq!(
            (texts(&bounded), texts(&ever)),
            (vec!["left".into(); 2], vec!["ever".into(); 2])
        );
        bounded
            .iter()
            .for_each(|delivery| assert_left(delivery, 1000, 2, since));
        client.ping();
        let mut late = target.client("wait-late");
        assert_eq!(late.subscribe_all(&[], &[(&long, 1), (&short, 1)]), [1, 1]);
        assert_left(&take(&mut late, 1)[0], 1000, 2, since);
        publisher.publish(&Publish::new(&short, "marker").qos(1));
        assert_eq!(texts(&take(&mut late, 1)), ["marker"]);
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6] The time that the node is down counts as well, in the queue of an absent session and
/// for a retained message.
#[test]
fn the_interval_is_counted_down_over_a_restart() {
    on_own(&[], |node| {
        let before = target(node, Version::V5);
        let topic = unique("down");
        let away = absent(&before, "down", &topic, 1);
        let mut publisher = before.client("down-publisher");
        let since = Instant::now();
        publisher.publish(&expiring(&topic, "gone", 1).qos(1).retain());
        let kept = format!("{topic}/kept");
        publisher.publish(&expiring(&kept, "kept", 1000).qos(1).retain());
        publisher.publish(&expiring(&topic, "left", 1000).qos(1));
        elapse(&before, 2);
        node.kill();
        node.start();
        let after = target(node, Version::V5);
        let mut client = resume(&after, &away);
        let delivery = take(&mut client, 1).remove(0);
        assert_eq!(delivery.text(), "left");
        assert_left(&delivery, 1000, 2, since);
        client.ping();
        let mut late = after.client("down-late");
        assert_eq!(late.subscribe(&format!("{topic}/#"), 1), 1);
        let delivery = take(&mut late, 1).remove(0);
        assert_eq!(delivery.text(), "kept");
        assert_left(&delivery, 1000, 2, since);
        late.ping();
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2.3.3] An interval of 0 is legal: the message is acknowledged, a client that is away
/// never gets it, and one that is present gets it with nothing left, or not at all.
#[test]
fn an_interval_of_zero_is_legal() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "zero", 2);
        let away = absent(&target, "zero-away", &pair.topic, 2);
        for qos in [0, 1, 2] {
            pair.from.publish(&expiring(&pair.topic, "zero", 0).qos(qos));
        }
        pair.from.ping();
        pair.publish(0, "end");
        pair.publish(1, "end");
        pair.publish(2, "end");
        let mut ends = 0;
        while ends < 3 {
            let delivery = take(&mut pair.to, 1).remove(0);
            if delivery.text() == "end" {
                ends += 1;
            } else {
                assert_eq!(left(&delivery), Some(0));
            }
        }
        elapse(&target, 1);
        let mut client = resume(&target, &away);
        assert_eq!(texts(&take(&mut client, 2)), ["end", "end"]);
        client.ping();
    });
}

/// [MQTT5-3.3.2-5] [MQTT5-4.9.0-2] What expires while it waits for room in the Receive Maximum is not delivered: its
/// delivery had not begun.
#[test]
fn what_expires_while_it_waits_for_room_is_gone() {
    on_each(|target| {
        let hello = target.hello("room").property(property::receive_maximum(1));
        let mut pair = Pair::with(&target, "room", 1, &hello);
        pair.publish(1, "first");
        pair.from.publish(&expiring(&pair.topic, "gone", 1).qos(1));
        pair.from.publish(&expiring(&pair.topic, "left", 1000).qos(1));
        let first = pair.to.expect_message("first");
        let since = Instant::now();
        elapse(&target, 2);
        pair.to.acknowledge(&first);
        let delivery = take(&mut pair.to, 1).remove(0);
        assert_eq!(delivery.text(), "left");
        assert_left(&delivery, 1000, 2, since);
        pair.expect_nothing(1);
    });
}

/// [MQTT5-4.3.3-7] [MQTT5-4.4.0-1] What was sent does not expire any more: after its interval has passed it comes again
/// at a reconnect, the QoS 2 exchange is completed, and the interval that it shows has not grown.
#[test]
fn what_was_sent_does_not_expire() {
    on_each(|target| {
        let topic = unique("sent");
        let hello = absent(&target, "sent", &topic, 2);
        let mut publisher = target.client("sent-publisher");
        let mut client = resume(&target, &hello);
        let mut ids = Vec::new();
        for (payload, qos) in [("one", 1), ("two", 2), ("three", 2)] {
            publisher.publish(&expiring(&topic, payload, 1).qos(qos));
            ids.push(client.expect_message(payload).id);
        }
        elapse(&target, 2);
        client.send(&encode::ack(AckKind::PubRec, ids[1]));
        client.expect_ack(AckKind::PubRel, ids[1], 0);
        client.reset();
        let mut client = resume(&target, &hello);
        let mut again = Vec::new();
        let mut released = 0;
        for _ in 0..3 {
            match client.recv() {
                Answer::Publish(delivery) => again.push(delivery),
                Answer::Ack {
                    kind: AckKind::PubRel,
                    id,
                    ..
                } => {
                    assert_eq!(id, ids[1]);
                    released += 1;
                }
                other => panic!("expected what is unacknowledged, got {other:02x?}"),
            }
        }
        assert_eq!(
            (texts(&again), released),
            (vec!["one".to_owned(), "three".to_owned()], 1)
        );
        assert_eq!([again[0].id, again[1].id], [ids[0], ids[2]]);
        assert!(
            again
                .iter()
                .all(|delivery| delivery.dup && left(delivery).is_none_or(|left| left <= 1))
        );
        client.ping();
    });
}

/// [MQTT5-4.3.3-13] [MQTT5-4.3.3-10] [MQTT5-4.3.3-11] As receiver the node completes a QoS 2 exchange whose message has
/// expired: PUBREC to a repeated PUBLISH, PUBCOMP 0x00 to PUBREL.
#[test]
fn an_exchange_is_completed_after_the_message_has_expired() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "complete", 2);
        let message = expiring(&pair.topic, "x", 1).qos(2).id(8);
        pair.from.send_publish(&message);
        pair.from.expect_ack(AckKind::PubRec, 8, 0);
        elapse(&target, 2);
        pair.from.send_publish(&message.dup());
        pair.from.expect_ack(AckKind::PubRec, 8, 0);
        pair.from.send(&encode::ack(AckKind::PubRel, 8));
        pair.from.expect_ack(AckKind::PubComp, 8, 0);
        assert_eq!(texts(&take(&mut pair.to, 1)), ["x"]);
        pair.expect_nothing(2);
    });
}
