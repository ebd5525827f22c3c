//! PUBLISH (3.3): its flags, its Topic Name, its Packet Identifier, its payload, and what it is answered with.

use std::collections::HashSet;

use fellbeck_tests::mqtt::wire::{packet, property, text};
use fellbeck_tests::mqtt::{AckKind, Answer, Delivery, Publish, Raw, encode};

use crate::brokers::{on_each, on_each_v3, on_each_version, unique};
use crate::pair::{Pair, expect_end_with, take, texts};

/// [MQTT5-3.3.1-3] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2] [MQTT3-3.3.1-3] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] What came with DUP 1
/// goes out with DUP 0, since it is sent to this subscriber for the first time.
#[test]
fn dup_of_the_publisher_is_not_passed_on() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "dup", 2);
        for qos in [1, 2] {
            let message = pair.message(format!("{qos}")).qos(qos).dup();
            pair.from.publish(&message);
            let delivery = pair.to.expect_message(&qos.to_string());
            assert_eq!((delivery.qos, delivery.dup), (qos, false));
            pair.to.acknowledge(&delivery);
        }
    });
}

/// [MQTT5-3.3.1-2] [MQTT5-4.3.1-1] [MQTT5-2.2.1-2] [MQTT3-3.3.1-2] [MQTT3-4.3.1-1] [MQTT3-2.3.1-5] At QoS 0 a delivery
/// has DUP 0 and no Packet Identifier, whatever QoS and DUP the message came with.
#[test]
fn a_delivery_at_qos_0_has_neither_dup_nor_identifier() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "qos0", 0);
        for qos in [0, 1, 2] {
            // A payload that a reader who expects an identifier would cut short.
            let message = Publish {
                dup: qos > 0,
                ..pair.message("\u{1}\u{2}xy").qos(qos)
            };
            pair.from.publish(&message);
            let bytes = pair.to.recv_bytes().expect("a delivery");
            let topic = text(&pair.topic);
            let wanted = packet(0x30, &[&topic, &pair.to.section(&[]), b"\x01\x02xy"]);
            assert_eq!(bytes, wanted);
        }
    });
}

/// [MQTT5-3.3.1-2] [MQTT3-3.3.1-2] [MQTT3-4.8.0-1] A client that sends DUP 1 at QoS 0 is disconnected.
#[test]
fn dup_at_qos_0_ends_the_connection() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "dup0", 0);
        let wrong = pair.message("wrong").dup();
        pair.from.send_publish(&wrong);
        expect_end_with(&mut pair.from, &[0x81, 0x82]);
        pair.from = target.client("dup0");
        pair.expect_nothing(0);
    });
}

/// [MQTT5-3.3.1-4] [MQTT3-3.3.1-4] QoS 3 is malformed: the connection ends, and nobody gets the message.
#[test]
fn qos_3_ends_the_connection() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "qos3", 2);
        let wrong = pair.message("wrong").qos(3).id(1);
        pair.from.send_publish(&wrong);
        pair.from.expect_end(0x81);
        pair.from = target.client("qos3");
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.3.2-3] [MQTT3-3.3.2-3] Each subscriber gets the Topic Name as it was published, also through wildcards.
#[test]
fn a_delivery_has_the_topic_name_that_was_published() {
    on_each_version(|target| {
        let root = unique("name");
        let topic = format!("{root}//ü/ Ab/");
        let filters = [topic.clone(), format!("{root}/#"), format!("{root}/+/+/+/+")];
        let mut readers: Vec<_> = filters.iter().map(|_| target.client("name-reader")).collect();
        for (reader, filter) in readers.iter_mut().zip(&filters) {
            assert_eq!(reader.subscribe(filter, 1), 1);
        }
        target.client("name").publish(&Publish::new(&topic, "x").qos(1));
        for reader in &mut readers {
            assert_eq!(reader.expect_message("x").topic, topic);
        }
    });
}

/// [MQTT5-3.3.2-1] [MQTT3-3.3.2-1] [MQTT3-1.5.3-1] A Topic Name that is not UTF-8, or has a surrogate, ends the
/// connection.
#[test]
fn a_topic_name_that_is_no_valid_string_ends_the_connection() {
    on_each_version(|target| {
        for name in [&b"a\xC3"[..], b"\xED\xA0\x80", b"\xC0\x80", b"\xF5\x80\x80\x80"] {
            let mut client = target.client("utf8");
            client.send(&packet(0x30, &[&text(name), &client.section(&[]), b"x"]));
            client.expect_end(0x81);
        }
    });
}

/// [MQTT5-3.3.2-2] [MQTT5-4.7.0-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1] A Topic Name with a wildcard ends the connection,
/// and matches nothing.
#[test]
fn a_wildcard_in_a_topic_name_ends_the_connection() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "wild", 2);
        for (end, qos) in [("/#", 0), ("/+", 1), ("/x+", 2), ("#", 0)] {
            let mut client = target.client("wild");
            client.send_publish(&Publish::new(&format!("{}{end}", pair.topic), "x").qos(qos).id(5));
            expect_end_with(&mut client, &[0x81, 0x82]);
        }
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.3.2.1] [MQTT5-4.7.3-1] An empty Topic Name without a Topic Alias is a protocol error.
#[test]
fn an_empty_topic_name_without_alias_is_a_protocol_error() {
    on_each(|target| {
        for qos in [0, 1, 2] {
            let mut client = target.client("empty-name");
            client.send_publish(&Publish::new("", "x").qos(qos).id(7));
            client.expect_end(0x82);
        }
    });
}

/// [MQTT3-4.7.3-1] [MQTT3-4.8.0-1] An empty Topic Name closes the connection.
#[test]
fn an_empty_topic_name_closes_the_connection() {
    on_each_v3(|target| {
        let mut client = target.client("empty-name");
        client.send_publish(&Publish::new("", "x").qos(1).id(7));
        client.expect_close();
    });
}

/// [MQTT5-3.3.2.2] [MQTT5-2.2.1-3] [MQTT3-2.3.1-1] [MQTT3-4.8.0-1] A Packet Identifier of 0 is a protocol error.
#[test]
fn a_packet_identifier_of_zero_ends_the_connection() {
    on_each_version(|target| {
        for qos in [1, 2] {
            let mut client = target.client("id0");
            client.send_publish(&Publish::new("id0", "x").qos(qos));
            client.expect_end(0x82);
        }
    });
}

/// [MQTT5-2.1.4] [MQTT3-2.2.3] [MQTT3-4.8.0-1] A PUBLISH that is too short for its fields is malformed.
#[test]
fn a_publish_that_is_cut_short_ends_the_connection() {
    on_each_version(|target| {
        for (first, body) in [
            (0x30, &b""[..]),
            (0x30, b"\x00"),
            (0x30, b"\x00\x05abc"),
            (0x32, b"\x00\x01a"),
            (0x32, b"\x00\x01a\x00"),
            (0x34, b"\x00\x01a"),
        ] {
            let mut client = target.client("cut");
            client.send(&packet(first, &[body]));
            client.expect_end(0x81);
        }
    });
}

/// [MQTT5-3.3.3] An empty payload and one of 300,000 bytes of every value arrive as they were sent, at each QoS.
#[test]
fn payloads_arrive_unchanged() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "payload", 2);
        let long: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8 ^ (at >> 11) as u8).collect();
        for qos in [0, 1, 2] {
            for payload in [&b""[..], b"\x00", &long] {
                let message = pair.message(payload).qos(qos);
                pair.from.publish(&message);
                let delivery = take(&mut pair.to, 1).remove(0);
                assert_eq!(delivery.qos, qos);
                assert!(delivery.payload == payload, "{} bytes", delivery.payload.len());
            }
        }
    });
}

/// [MQTT5-3.3.4-1] [MQTT5-2.2.1-5] [MQTT5-4.3.2-4] [MQTT5-4.3.3-8] [MQTT5-4.3.3-11] [MQTT3-3.3.4-1] [MQTT3-2.3.1-6] QoS
/// 0 is not answered, QoS 1 with PUBACK and QoS 2 with PUBREC and then PUBCOMP, each with the identifier that came, in
/// a burst of the least and the greatest.
#[test]
fn a_publish_is_answered_as_its_qos_says() {
    on_each_version(|target| {
        let mut client = target.client("answered");
        let topic = unique("answered");
        let burst = [(1, 1), (0, 0), (1, 65_535), (0, 0), (1, 256), (1, 255)];
        let bytes = |list: &[(u8, u16)]| -> Vec<u8> {
            let one = |&(qos, id)| encode::publish(target.version, &Publish::new(&topic, "x").qos(qos).id(id));
            list.iter().flat_map(one).collect()
        };
        client.send(&bytes(&burst));
        let mut wanted: HashSet<u16> = HashSet::from([1, 65_535, 256, 255]);
        while !wanted.is_empty() {
            let id = expect_acked(&mut client, AckKind::PubAck);
            assert!(wanted.remove(&id), "PUBACK {id} twice, or of nothing");
        }
        client.send(&bytes(&[(2, 65_535), (0, 0), (2, 1)]));
        let mut received = HashSet::new();
        received.insert(expect_acked(&mut client, AckKind::PubRec));
        received.insert(expect_acked(&mut client, AckKind::PubRec));
        assert_eq!(received, HashSet::from([1, 65_535]));
        for id in [1, 65_535] {
            client.send(&encode::ack(AckKind::PubRel, id));
            client.expect_ack(AckKind::PubComp, id, 0);
        }
        client.ping();
    });
}

/// Identifier of the acknowledgement that comes next; it must say success, with or without subscribers.
fn expect_acked(client: &mut Raw, wanted: AckKind) -> u16 {
    match client.recv() {
        Answer::Ack { kind, id, reason, .. } if kind == wanted && reason < 0x80 => id,
        other => panic!("expected {wanted:?}, got {other:02x?}"),
    }
}

/// [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT3-2.3.1-4] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] No two deliveries
/// that are not acknowledged share an identifier, nor do they with a PUBREL that is not.
#[test]
fn identifiers_of_deliveries_in_flight_are_all_different() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "ids", 2);
        for at in 0..60 {
            pair.publish(1 + at % 2, "x");
        }
        let all: Vec<Delivery> = (0..60).map(|_| pair.to.expect_publish()).collect();
        let held: HashSet<u16> = all.iter().map(|delivery| delivery.id).collect();
        assert_eq!(held.len(), 60);
        // Those of QoS 2 are released, but not completed: they stay in use. Those of QoS 1 are free.
        for delivery in all.iter().filter(|delivery| delivery.qos == 2) {
            pair.to.send(&encode::ack(AckKind::PubRec, delivery.id));
            pair.to.expect_ack(AckKind::PubRel, delivery.id, 0);
        }
        let in_use: HashSet<u16> = all.iter().filter(|one| one.qos == 2).map(|one| one.id).collect();
        for delivery in all.iter().filter(|delivery| delivery.qos == 1) {
            pair.to.acknowledge(delivery);
        }
        for at in 0..60 {
            pair.publish(1 + at % 2, "y");
        }
        let more: HashSet<u16> = (0..60).map(|_| pair.to.expect_message("y").id).collect();
        assert_eq!(more.len(), 60);
        assert!(more.is_disjoint(&in_use));
    });
}

/// [MQTT5-2.2.1] An identifier may be in use in both directions at once: each exchange goes its own way.
#[test]
fn both_directions_number_their_packets_alone() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "ways", 2);
        pair.publish(2, "down");
        let down = pair.to.expect_message("down");
        let up = Publish::new(&unique("ways/up"), "up").qos(2).id(down.id);
        pair.to.send_publish(&up);
        assert_eq!(expect_acked(&mut pair.to, AckKind::PubRec), down.id);
        pair.to.send(&encode::ack(AckKind::PubRec, down.id));
        pair.to.expect_ack(AckKind::PubRel, down.id, 0);
        pair.to.send(&encode::ack(AckKind::PubRel, down.id));
        pair.to.expect_ack(AckKind::PubComp, down.id, 0);
        pair.to.send(&encode::ack(AckKind::PubComp, down.id));
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.3.4-2] [MQTT5-3.8.4-8] [MQTT3-3.3.5-1] [MQTT3-3.8.4-6] Several subscriptions of a client match: one copy
/// comes, at the highest QoS granted to them or that of the message, whichever is lower.
#[test]
fn overlapping_subscriptions_give_their_highest_qos() {
    on_each_version(|target| {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let (mut publisher, mut reader) = (target.client("overlap"), target.client("overlap-reader"));
            let root = unique("overlap");
            let topic = format!("{root}/a");
            let filters = [&topic, &format!("{root}/+"), &format!("{root}/#")];
            for (filter, qos) in filters.into_iter().zip(order) {
                assert_eq!(reader.subscribe(filter, qos), qos);
            }
            for qos in [0, 1, 2] {
                publisher.publish(&Publish::new(&topic, format!("{qos}")).qos(qos));
                let delivery = reader.expect_message(&qos.to_string());
                assert_eq!(delivery.qos, qos);
                reader.acknowledge(&delivery);
            }
            reader.ping();
        }
    });
}

/// [MQTT5-3.3.4] [MQTT5-4.13.2] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-4.3.3-9] What the node does not accept gets a
/// reason in PUBACK or PUBREC and is not delivered; the connection goes on, no PUBREL is awaited, and the identifier is
/// free at once.
#[test]
fn a_publish_that_is_not_accepted_gets_a_reason() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "denied", 2);
        let denied = "$SYS/broker/version";
        pair.from.send_publish(&Publish::new(denied, "x").qos(1).id(9));
        pair.from.expect_ack(AckKind::PubAck, 9, 0x87);
        pair.from.send_publish(&Publish::new(denied, "x").qos(2).id(9));
        pair.from.expect_ack(AckKind::PubRec, 9, 0x87);
        let next = pair.message("next").qos(2).id(9);
        pair.from.publish(&next);
        assert_eq!(texts(&take(&mut pair.to, 1)), ["next"]);
        pair.from.ping();
    });
}

/// [MQTT3-3.3.5-2] What the node does not accept closes the connection when it asks for an acknowledgement, and is not
/// delivered at any QoS.
#[test]
fn a_publish_that_is_not_allowed_closes_the_connection() {
    on_each_v3(|target| {
        let mut reader = target.client("denied-reader");
        let topic = format!("$SYS/{}", unique("denied"));
        assert_eq!(reader.subscribe(&topic, 2), 2);
        let mut client = target.client("denied");
        client.publish(&Publish::new(&topic, "x"));
        client.ping();
        for qos in [1, 2] {
            let mut client = target.client("denied");
            client.send_publish(&Publish::new(&topic, "x").qos(qos).id(1));
            client.expect_close();
        }
        reader.ping();
    });
}

/// [MQTT5-3.3.4-6] A Subscription Identifier in PUBLISH from a client is a protocol error, and nobody gets the message.
#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "sub-id", 2);
        let wrong = pair
            .message("wrong")
            .qos(2)
            .id(3)
            .property(property::subscription_id(1));
        pair.from.send_publish(&wrong);
        pair.from.expect_end(0x82);
        pair.from = target.client("sub-id");
        pair.expect_nothing(2);
    });
}
