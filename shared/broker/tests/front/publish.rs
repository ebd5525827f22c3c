//! Messages through the broker: QoS 0, 1 and 2, both versions, properties, aliases, retained.

use crate::client::{Client, ack, frame, publish, publish_with, subscribe, text};
use crate::node::Node;

#[test]
fn every_quality_of_service_reaches_subscribers_of_both_versions() {
    let node = Node::start();
    for (sender, receiver) in [(4, 4), (4, 5), (5, 4), (5, 5)] {
        let mut subscriber = Client::clean(node.addr(), receiver, "sub");
        subscriber.subscribe("t/#", 2);
        let mut publisher = Client::clean(node.addr(), sender, "pub");
        publisher.send(&publish(sender, 0x00, "t/0", 0, b"zero"));
        publisher.send(&publish(sender, 0x02, "t/1", 11, b"one"));
        publisher.send(&publish(sender, 0x04, "t/2", 12, b"two"));
        publisher.expect(&ack(0x40, 11));
        publisher.expect(&ack(0x50, 12));
        publisher.send(&ack(0x62, 12));
        publisher.expect(&ack(0x70, 12));
        for (qos, payload) in [(0, "zero"), (1, "one"), (2, "two")] {
            let message = subscriber.publish();
            assert_eq!(message.payload, payload.as_bytes());
            assert_eq!((message.flags, message.topic), (qos << 1, format!("t/{qos}")));
            match (qos, message.packet_id) {
                (0, None) => {}
                (1, Some(id)) => subscriber.send(&ack(0x40, id)),
                (2, Some(id)) => {
                    subscriber.send(&ack(0x50, id));
                    subscriber.expect(&ack(0x62, id));
                    subscriber.send(&ack(0x70, id));
                }
                other => panic!("{other:?}"),
            }
        }
        subscriber.expect_nothing();
    }
    node.stop();
}

#[test]
fn acks_leave_in_the_order_of_the_publishes() {
    let node = Node::start();
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let burst: Vec<u8> = (1..=500u16)
        .flat_map(|id| publish(4, 0x02, "t", id, &id.to_be_bytes()))
        .collect();
    publisher.send(&burst);
    for id in 1..=500 {
        publisher.expect(&ack(0x40, id));
    }
}

#[test]
fn a_qos_2_publish_sent_again_is_stored_once() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 4, "sub");
    subscriber.subscribe("t", 2);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    publisher.send(&publish(4, 0x04, "t", 5, b"x"));
    publisher.expect(&ack(0x50, 5));
    publisher.send(&publish(4, 0x0C, "t", 5, b"x"));
    publisher.expect(&ack(0x50, 5));
    publisher.send(&ack(0x62, 5));
    publisher.expect(&ack(0x70, 5));
    let id = subscriber.publish().packet_id.unwrap();
    subscriber.send(&ack(0x50, id));
    subscriber.expect(&ack(0x62, id));
    subscriber.send(&ack(0x70, id));
    subscriber.expect_nothing();
}

#[test]
fn properties_travel_unchanged() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 5, "sub");
    subscriber.subscribe("t", 1);
    let mut publisher = Client::clean(node.addr(), 5, "pub");
    // Payload format, content type, response topic, correlation data, two equal user properties.
    let properties =
        b"\x01\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x02\x00\xFF\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01b";
    publisher.send(&publish_with(5, 0x02, "t", 1, properties, b"x"));
    publisher.expect(&ack(0x40, 1));
    let message = subscriber.publish();
    assert_eq!(message.properties, properties);
    // A 3.1.1 subscriber gets the payload without them.
    let mut old = Client::clean(node.addr(), 4, "old");
    old.subscribe("t", 0);
    publisher.send(&publish_with(5, 0x00, "t", 0, properties, b"y"));
    assert_eq!(old.publish().payload, b"y");
}

#[test]
fn inbound_topic_aliases_are_resolved_and_bad_ones_refused() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 5, "sub");
    subscriber.subscribe("#", 0);
    let mut publisher = Client::clean(node.addr(), 5, "pub");
    publisher.send(&publish_with(5, 0, "first", 0, &[0x23, 0, 1], b"1"));
    publisher.send(&publish_with(5, 0, "", 0, &[0x23, 0, 1], b"2"));
    publisher.send(&publish_with(5, 0, "second", 0, &[0x23, 0, 1], b"3"));
    publisher.send(&publish_with(5, 0, "", 0, &[0x23, 0, 1], b"4"));
    for topic in ["first", "first", "second", "second"] {
        let message = subscriber.publish();
        assert_eq!(
            (message.topic.as_str(), message.properties.as_slice()),
            (topic, &[][..])
        );
    }
    publisher.send(&publish_with(5, 0, "third", 0, &[0x23, 0, 65], b"5"));
    publisher.expect_disconnect(0x94); // [MQTT5-3.3.2-9]
    let mut unknown = Client::clean(node.addr(), 5, "unknown");
    unknown.send(&publish_with(5, 0, "", 0, &[0x23, 0, 2], b"6"));
    unknown.expect_disconnect(0x82);
}

#[test]
fn the_retained_message_of_a_topic_is_sent_to_new_subscribers_until_it_is_cleared() {
    let node = Node::start();
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    for (id, payload) in [(1, "old"), (2, "new")] {
        publisher.send(&publish(4, 0x03, "state/a", id, payload.as_bytes()));
        publisher.expect(&ack(0x40, id));
    }
    let mut subscriber = Client::clean(node.addr(), 4, "sub");
    subscriber.subscribe("state/+", 0);
    let message = subscriber.publish();
    assert_eq!((message.flags, message.payload.as_slice()), (1, &b"new"[..]));
    publisher.send(&publish(4, 0x03, "state/a", 3, b""));
    publisher.expect(&ack(0x40, 3));
    let mut late = Client::clean(node.addr(), 4, "late");
    late.subscribe("state/+", 0);
    // Retained messages follow SUBACK by way of the store; a publish behind it shows that none came.
    publisher.send(&publish(4, 0x02, "state/b", 4, b"live"));
    assert_eq!(late.publish().payload, b"live");
}

#[test]
fn a_ping_is_answered_before_an_ack_that_waits_for_the_disk() {
    let node = Node::start();
    let mut client = Client::clean(node.addr(), 5, "a");
    client.send(&[publish(5, 0x02, "t", 1, b"x"), vec![0xC0, 0]].concat());
    client.expect(&[0xD0, 0]);
    client.expect(&ack(0x40, 1));
}

#[test]
fn a_large_payload_arrives_whole() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 4, "sub");
    subscriber.subscribe("big", 0);
    let payload: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    publisher.send(&publish(4, 0x02, "big", 1, &payload));
    publisher.expect(&ack(0x40, 1));
    assert!(subscriber.publish().payload == payload);
}

#[test]
fn a_delivery_beyond_the_clients_maximum_packet_size_is_left_out() {
    let node = Node::start();
    // Maximum Packet Size 100.
    let small = crate::client::connect(5, "small", 2, 60, &[0x27, 0, 0, 0, 100]);
    let (mut subscriber, _) = Client::connect(node.addr(), 5, &small);
    subscriber.subscribe("t", 1);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    publisher.send(&publish(4, 0x02, "t", 1, &[7; 200]));
    publisher.send(&publish(4, 0x02, "t", 2, b"fits"));
    publisher.expect(&ack(0x40, 1));
    publisher.expect(&ack(0x40, 2));
    assert_eq!(subscriber.publish().payload, b"fits"); // [MQTT5-3.1.2-24], [MQTT5-3.1.2-25]
}

#[test]
fn several_filters_in_one_subscribe_get_one_code_each() {
    let node = Node::start();
    let mut client = Client::clean(node.addr(), 5, "a");
    let mut packet = subscribe(5, 9, "ok/a", 1);
    packet.extend_from_slice(b"\x00\x03b/#\x00");
    packet[1] += 6;
    client.send(&packet);
    client.expect(&[0x90, 5, 0, 9, 0, 1, 0]);
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-6] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]
#[test]
fn an_indicator_of_zero_and_the_order_of_scattered_properties_travel() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 5, "sub");
    subscriber.subscribe("t", 1);
    let mut publisher = Client::clean(node.addr(), 5, "pub");
    let sent =
        b"\x26\x00\x01b\x00\x011\x23\x00\x03\x01\x00\x02\x00\x00\x0E\x10\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011";
    publisher.send(&publish_with(5, 0x02, "t", 1, sent, b"\xFF"));
    publisher.expect(&ack(0x40, 1));
    let message = subscriber.publish();
    let travelling = b"\x26\x00\x01b\x00\x011\x01\x00\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011";
    assert_eq!(message.properties[..1], [0x02]);
    assert_eq!(message.properties[5..], travelling[..]);
}

/// The codec of ntex-mqtt refuses it; the standard does not.
#[test]
fn a_message_expiry_of_zero_is_taken() {
    let node = Node::start();
    let mut publisher = Client::clean(node.addr(), 5, "pub");
    publisher.send(&publish_with(5, 0x02, "t", 1, &[0x02, 0, 0, 0, 0], b"x"));
    publisher.expect(&ack(0x40, 1));
    publisher.expect_nothing();
}

#[test]
fn a_payload_that_is_not_the_text_it_says_is_refused_in_its_turn() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 5, "sub");
    subscriber.subscribe("t", 2);
    let mut publisher = Client::clean(node.addr(), 5, "pub");
    let text = &[0x01, 1][..];
    publisher.send(
        &[
            publish_with(5, 0x00, "t", 0, text, b"\xC3\x28"),
            publish_with(5, 0x02, "t", 1, text, "gr\u{FC}n".as_bytes()),
            publish_with(5, 0x02, "t", 2, text, b"\xC3\x28"),
            publish_with(5, 0x04, "t", 3, text, b"\xFF"),
            publish_with(5, 0x02, "t", 4, &[0x01, 0], b"\xFF"),
        ]
        .concat(),
    );
    let mut answers: Vec<_> = (0..4).map(|_| publisher.packet().unwrap()).collect();
    answers.sort_by_key(|answer| answer[3]);
    assert_eq!(answers[0], ack(0x40, 1));
    assert_eq!((answers[1][0], answers[1][4]), (0x40, 0x99));
    assert_eq!((answers[2][0], answers[2][4]), (0x50, 0x99));
    assert_eq!(answers[3], ack(0x40, 4));
    assert_eq!(subscriber.publish().payload, "gr\u{FC}n".as_bytes());
    assert_eq!(subscriber.publish().payload, b"\xFF");
    subscriber.expect_nothing();
}

/// Packets of every kind in one stream, cut everywhere: each is handled once, in order.
#[test]
fn packets_are_handled_in_order_however_the_stream_is_cut() {
    let node = Node::start();
    for (round, piece) in [1usize, 2, 3, 7, 50, 1000].into_iter().enumerate() {
        let mut client = Client::clean(node.addr(), 5, "cut");
        let large = vec![7; 40_000];
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        stream.extend(subscribe(5, 9, "cut/#", 0));
        for n in 0..6u8 {
            let payload = if n == 3 && piece > 3 { &large[..] } else { &[n][..] };
            stream.extend(publish(5, 0, "cut/a", 0, payload));
            stream.extend([0xC0, 0]);
            expected.push(payload.to_vec());
        }
        for part in stream.chunks(piece) {
            client.send(part);
        }
        let (mut messages, mut pings) = (Vec::new(), 0);
        while messages.len() < expected.len() || pings < expected.len() {
            let packet = client.packet().expect("the connection lives");
            match packet[0] >> 4 {
                3 => messages.push(crate::client::parse_publish(5, &packet).payload),
                13 => pings += 1,
                9 => {}
                _ => panic!("round {round}: {packet:02X?}"),
            }
        }
        assert!(messages == expected, "round {round}");
    }
}

/// A client that says all at once and leaves without waiting for an answer.
#[test]
fn who_publishes_and_leaves_before_connack_is_heard_to_the_end() {
    let node = Node::start();
    let mut subscriber = Client::clean(node.addr(), 5, "sub");
    subscriber.subscribe("#", 1);
    for version in [4, 5] {
        for (round, goodbye) in [(1, true), (2, false)] {
            // With a will: "gone" to "will".
            let mut body = Vec::new();
            text(&mut body, "MQTT");
            body.extend_from_slice(&[version, 0x06, 0, 60]);
            body.extend_from_slice(if version == 5 { &[0] } else { &[] });
            text(&mut body, "hasty");
            body.extend_from_slice(if version == 5 { &[0] } else { &[] });
            text(&mut body, "will");
            text(&mut body, "gone");
            let mut all = frame(0x10, &body);
            all.extend(publish(version, 0x00, "zero", 0, &[round]));
            all.extend(publish(version, 0x02, "one", 7, &[round]));
            if goodbye {
                all.extend([0xE0, 0]);
            }
            let mut hasty = Client::open(node.addr());
            hasty.send(&all);
            drop(hasty);
            let mut came: Vec<_> = (0..2).map(|_| subscriber.publish()).collect();
            came.sort_by(|a, b| a.topic.cmp(&b.topic));
            let came: Vec<_> = came
                .iter()
                .map(|publish| (publish.topic.as_str(), publish.payload[0]))
                .collect();
            assert_eq!(came, [("one", round), ("zero", round)], "version {version}");
            if !goodbye {
                let will = subscriber.publish();
                assert_eq!((will.topic.as_str(), &will.payload[..]), ("will", &b"gone"[..]));
            }
        }
    }
    // No will after DISCONNECT 0x00.
    subscriber.send(&publish(5, 0x00, "last", 0, b"x"));
    assert_eq!(subscriber.publish().topic, "last");
    node.stop();
}
