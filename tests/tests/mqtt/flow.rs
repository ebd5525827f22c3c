//! Flow control (3.3.4, 4.9): the client's Receive Maximum is never exceeded, the node's own is announced and enforced.

use std::collections::{HashMap, VecDeque};

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{AckKind, Answer, Connect, Delivery, Publish, Raw, Version, encode};

use crate::brokers::{on_each, on_each_version, on_own, target, unique};
use crate::pair::{Pair, absent, ack_with, resume, take, texts};

/// A connection that takes no more than `maximum` at once.
fn narrow(hello: Connect, maximum: u16) -> Connect {
    hello.property(property::receive_maximum(maximum))
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-3.1.2.11.3] Of a burst exactly as many messages come as the
/// Receive Maximum allows, and one more for each PUBACK.
#[test]
fn a_burst_stops_at_the_receive_maximum() {
    on_each(|target| {
        for maximum in [1, 2, 7] {
            let mut pair = Pair::with(&target, "burst", 2, &narrow(target.hello("burst"), maximum));
            for at in 0..20 {
                pair.publish(1, &at.to_string());
            }
            let mut held: VecDeque<_> = (0..maximum).map(|_| pair.to.expect_publish()).collect();
            for _ in maximum..20 {
                pair.to.ping();
                let first = held.pop_front().expect("one is held");
                pair.to.acknowledge(&first);
                held.push_back(pair.to.expect_publish());
            }
            pair.to.ping();
            let last: Vec<_> = held.iter().map(Delivery::text).collect();
            assert_eq!(last.last().map(String::as_str), Some("19"));
        }
    });
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-2] [MQTT5-4.9] At QoS 2 PUBREC gives nothing back, only PUBCOMP does, or a PUBREC from
/// 0x80 on.
#[test]
fn pubrec_gives_no_room() {
    on_each(|target| {
        let mut pair = Pair::with(&target, "room", 2, &narrow(target.hello("room"), 1));
        for payload in ["a", "b", "c"] {
            pair.publish(2, payload);
        }
        let one = pair.to.expect_message("a");
        pair.to.send(&encode::ack(AckKind::PubRec, one.id));
        pair.to.expect_ack(AckKind::PubRel, one.id, 0);
        pair.to.ping();
        pair.to.send(&encode::ack(AckKind::PubComp, one.id));
        let two = pair.to.expect_message("b");
        pair.to.ping();
        pair.to.send(&ack_with(AckKind::PubRec, two.id, 0x80));
        let three = pair.to.expect_message("c");
        pair.to.acknowledge(&three);
        pair.to.ping();
    });
}

/// [MQTT5-4.9.0-3] [MQTT5-3.3.4-10] At a quota of 0 everything but PUBLISH goes on: SUBACK, UNSUBACK, PINGRESP, and
/// what the client itself publishes.
#[test]
fn other_packets_pass_at_a_quota_of_zero() {
    on_each(|target| {
        let mut pair = Pair::with(&target, "pass", 2, &narrow(target.hello("pass"), 1));
        pair.publish(1, "held");
        pair.publish(1, "waits");
        let held = pair.to.expect_message("held");
        let other = unique("pass/other");
        assert_eq!(pair.to.subscribe(&other, 2), 2);
        pair.to.publish(&Publish::new("pass/up", "x").qos(1));
        pair.to.publish(&Publish::new("pass/up", "x").qos(2));
        pair.to.unsubscribe(&[&other]);
        pair.to.ping();
        pair.to.acknowledge(&held);
        pair.to.expect_message("waits");
    });
}

/// [MQTT5-4.9] [MQTT5-3.3.4-9] Acknowledgements of nothing, and a second one of the same message, do not raise the
/// quota.
#[test]
fn stray_acknowledgements_give_no_room() {
    on_each(|target| {
        let mut pair = Pair::with(&target, "stray", 2, &narrow(target.hello("stray"), 2));
        let stray = |client: &mut Raw, id: u16| {
            for kind in [AckKind::PubAck, AckKind::PubComp] {
                client.send(&encode::ack(kind, id));
            }
        };
        (60_000..60_010).for_each(|id| stray(&mut pair.to, id));
        for at in 0..8 {
            pair.publish(1 + at % 2, &at.to_string());
        }
        let mut held = vec![pair.to.expect_publish(), pair.to.expect_publish()];
        pair.to.ping();
        let one = held
            .iter()
            .position(|delivery| delivery.qos == 1)
            .expect("one of QoS 1");
        let one = held.remove(one);
        pair.to.acknowledge(&one);
        pair.to.send(&ack_with(AckKind::PubAck, one.id, 0x80));
        held.push(pair.to.expect_publish());
        // The identifier may be in use again by now; then its second PUBACK was that of the new message.
        if held[1].id != one.id {
            pair.to.ping();
        }
    });
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.4.0-1] The Receive Maximum is that of the connection: after a reconnect
/// with a smaller one no more come at once, each with its first identifier, and after one with a greater one all do.
#[test]
fn a_reconnect_may_bring_a_smaller_maximum() {
    on_each(|target| {
        let topic = unique("smaller");
        let hello = absent(&target, "smaller", &topic, 2);
        let mut publisher = target.client("smaller-publisher");
        for at in 0..10 {
            publisher.publish(&Publish::new(&topic, at.to_string()).qos(1 + at % 2));
        }
        let mut client = resume(&target, &narrow(hello.clone(), 8));
        let first: HashMap<String, u16> = (0..8)
            .map(|_| client.expect_publish())
            .map(|one| (one.text(), one.id))
            .collect();
        client.ping();
        client.reset();
        let mut client = resume(&target, &narrow(hello.clone(), 3));
        for at in 0..3 {
            let delivery = client.expect_message(&at.to_string());
            assert!(delivery.dup);
            assert_eq!(first.get(&delivery.text()), Some(&delivery.id));
        }
        client.ping();
        client.reset();
        let mut client = resume(&target, &hello);
        for at in 0..10 {
            let delivery = client.expect_publish();
            assert_eq!((delivery.text(), delivery.dup), (at.to_string(), at < 8));
        }
        client.ping();
    });
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-2] [MQTT5-4.9] Over 400 messages of both QoS with acknowledgements in odd orders the
/// count never exceeds the maximum, all come once, and each QoS in order; at a session that is present and at one that
/// was away.
#[test]
fn a_long_exchange_never_exceeds_the_maximum() {
    on_each(|target| {
        for is_away in [false, true] {
            let topic = unique("long");
            let hello = narrow(absent(&target, "long", &topic, 2), 5);
            let present = (!is_away).then(|| resume(&target, &hello));
            let mut publisher = target.client("long-publisher");
            for at in 0..400_u32 {
                publisher.publish(&Publish::new(&topic, at.to_string()).qos(qos_of(at)));
            }
            let mut client = present.unwrap_or_else(|| resume(&target, &hello));
            let mut seen: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
            drive(&mut client, 5, 400, &mut seen);
            client.ping();
            for (qos, list) in (1..).zip(&seen) {
                let wanted: Vec<u32> = (0..400).filter(|at| qos_of(*at) == qos).collect();
                assert_eq!(list, &wanted);
            }
        }
    });
}

/// QoS of a message of the long exchange.
fn qos_of(at: u32) -> u8 {
    if (at / 3).is_multiple_of(2) { 1 } else { 2 }
}

/// Receives `count` messages with at most `maximum` unacknowledged. It acknowledges only when the window is full, the
/// newest first.
fn drive(client: &mut Raw, maximum: usize, count: usize, seen: &mut [Vec<u32>; 2]) {
    let mut open: Vec<(u16, u8)> = Vec::new();
    let mut done = 0;
    while done < count {
        match client.recv() {
            Answer::Publish(delivery) => {
                seen[usize::from(delivery.qos) - 1].push(delivery.text().parse().expect("a number"));
                open.push((delivery.id, delivery.qos));
                assert!(open.len() <= maximum, "more than {maximum} at once");
            }
            Answer::Ack {
                kind: AckKind::PubRel,
                id,
                ..
            } => {
                client.send(&encode::ack(AckKind::PubComp, id));
                open.retain(|(own, _)| *own != id);
                done += 1;
            }
            other => panic!("expected PUBLISH or PUBREL, got {other:02x?}"),
        }
        let received: usize = seen.iter().map(Vec::len).sum();
        if open.len() == maximum || received == count {
            for (id, qos) in open.iter_mut().rev() {
                match qos {
                    1 => client.send(&encode::ack(AckKind::PubAck, *id)),
                    2 => client.send(&encode::ack(AckKind::PubRec, *id)),
                    _ => continue,
                }
                done += usize::from(*qos == 1);
                *qos += 2;
            }
            // 3: acknowledged. 4: the release is awaited.
            open.retain(|(_, state)| *state != 3);
        }
    }
}

/// [MQTT5-3.3.4-7] [MQTT5-3.2.2.3.3] [MQTT5-4.9.0-1] The node announces its Receive Maximum; that many QoS 2 messages
/// may be open at once, one more gets DISCONNECT 0x93.
#[test]
fn the_own_receive_maximum_is_announced_and_enforced() {
    on_own(&[("mqtt.receive_maximum", "5")], |node| {
        let target = target(node, Version::V5);
        let (mut client, accepted) = Raw::connect(target.at, &target.hello("own"));
        assert_eq!(accepted.property(0x21), Some(&[0, 5][..]));
        let message = Publish::new("own", "x").qos(2);
        let open = |client: &mut Raw, ids: std::ops::Range<u16>| {
            let bytes: Vec<u8> = ids
                .clone()
                .flat_map(|id| encode::publish(Version::V5, &message.clone().id(id)))
                .collect();
            client.send(&bytes);
            for wanted in ids {
                match client.recv() {
                    Answer::Ack {
                        kind: AckKind::PubRec,
                        id,
                        reason,
                        ..
                    } if id == wanted && reason < 0x80 => {}
                    other => panic!("expected PUBREC {wanted}, got {other:02x?}"),
                }
            }
        };
        open(&mut client, 1..6);
        // None of these is a new message above the quota.
        client.send_publish(&Publish::new("own", "zero"));
        client.ping();
        for id in [3, 1] {
            client.send(&encode::ack(AckKind::PubRel, id));
            client.expect_ack(AckKind::PubComp, id, 0);
        }
        open(&mut client, 6..8);
        client.send_publish(&message.clone().id(8));
        client.expect_end(0x93);
    });
}

/// [MQTT5-3.3.4-7] [MQTT5-4.9] What is acknowledged in full, or refused, does not count: many times the maximum goes
/// through one after the other.
#[test]
fn what_is_completed_does_not_count_against_the_maximum() {
    on_own(&[("mqtt.receive_maximum", "2")], |node| {
        let target = target(node, Version::V5);
        let mut client = target.client("completed");
        for at in 0..20 {
            client.publish(&Publish::new("completed", "x").qos(1 + at % 2));
            client.send_publish(&Publish::new("$SYS/completed", "x").qos(2).id(9));
            client.expect_ack(AckKind::PubRec, 9, 0x87);
            client.send_publish(&Publish::new("$SYS/completed", "x").qos(1).id(9));
            client.expect_ack(AckKind::PubAck, 9, 0x87);
        }
        client.publish(&Publish::new("completed", "x").qos(2));
    });
}

/// [MQTT3-4.3.3-2] [MQTT3-3.3.4-1] 3.1.1 knows no Receive Maximum: a client may send many QoS 2 messages before it
/// releases the first one.
#[test]
fn a_client_of_311_may_release_late() {
    on_own(&[("mqtt.receive_maximum", "5")], |node| {
        let target = target(node, Version::V3);
        let mut pair = Pair::new(&target, "late", 2);
        let messages: Vec<_> = (1..=40).map(|id| pair.message(id.to_string()).qos(2).id(id)).collect();
        pair.from.send(
            &messages
                .iter()
                .flat_map(|one| encode::publish(Version::V3, one))
                .collect::<Vec<u8>>(),
        );
        pair.from.send(
            &(1..=40)
                .flat_map(|id| encode::ack(AckKind::PubRel, id))
                .collect::<Vec<u8>>(),
        );
        let mut left = 80;
        while left > 0 {
            match pair.from.recv() {
                Answer::Ack {
                    kind: AckKind::PubRec | AckKind::PubComp,
                    ..
                } => left -= 1,
                other => panic!("expected PUBREC or PUBCOMP, got {other:02x?}"),
            }
        }
        let wanted: Vec<String> = (1..=40).map(|id| id.to_string()).collect();
        assert_eq!(texts(&take(&mut pair.to, 40)), wanted);
    });
}

/// [MQTT5-4.9.0-2] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] A client that acknowledges nothing still gets QoS 0, and once it
/// acknowledges it gets all that it had not, in order.
#[test]
fn a_client_that_acknowledges_late_loses_nothing() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "slow", 1);
        for at in 0..150 {
            pair.publish(1, &at.to_string());
        }
        let all: Vec<_> = (0..150).map(|_| pair.to.expect_publish()).collect();
        pair.publish(0, "zero");
        pair.to.expect_message("zero");
        for delivery in &all {
            pair.to.acknowledge(delivery);
        }
        let wanted: Vec<String> = (0..150).map(|at| at.to_string()).collect();
        assert_eq!(texts(&all), wanted);
        pair.expect_nothing(1);
    });
}
