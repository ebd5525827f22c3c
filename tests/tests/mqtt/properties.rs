//! Properties of PUBLISH (3.3.2.3) but for aliases and expiry: carried unchanged from publisher to subscriber, and refused when wrong.

use fellbeck_tests::mqtt::wire::{packet, property, text, varint};
use fellbeck_tests::mqtt::{Connect, Delivery, Property, Publish, Raw, Version};

use crate::brokers::{on_each, on_own, target, unique};
use crate::pair::{Pair, absent, expect_end_with, resume, take};

/// User Properties with duplicates, empty ones and the same name with other values.
const USER: [(&str, &str); 7] = [
    ("b", "1"),
    ("a", "2"),
    ("b", "1"),
    ("", ""),
    ("b", "0"),
    ("a", ""),
    ("ü\u{FEFF}", "\u{1F980}"),
];

/// A message with each property that is passed on, in no order of note.
fn rich(topic: &str) -> Publish {
    let (early, late) = USER.split_at(3);
    let mut message = Publish::new(topic, "rich").property(property::user(early[0].0, early[0].1));
    message = message.property(property::content_type("text/ü"));
    for (name, value) in &early[1..] {
        message = message.property(property::user(name, value));
    }
    message = message
        .property(property::correlation_data([0, 1, 0xFF, 0xC0, 0]))
        .property(property::payload_format(1))
        .property(property::response_topic("reply//to/ me"));
    late.iter().fold(message, |message, (name, value)| {
        message.property(property::user(name, value))
    })
}

/// Demands that a delivery has exactly the properties of [`rich`].
fn assert_rich(delivery: &Delivery) {
    assert_eq!(delivery.property(0x01), Some(&[1][..]));
    assert_eq!(delivery.property(0x03), Some("text/ü".as_bytes()));
    assert_eq!(delivery.property(0x08), Some(&b"reply//to/ me"[..]));
    assert_eq!(delivery.property(0x09), Some(&[0, 1, 0xFF, 0xC0, 0][..]));
    assert_eq!(user_properties(delivery), USER.map(pair).to_vec());
    assert_eq!(
        delivery.properties.len(),
        4 + USER.len(),
        "{:02x?}",
        delivery.properties
    );
}

fn pair((name, value): (&str, &str)) -> Vec<u8> {
    [text(name), text(value)].concat()
}

/// User Properties of a delivery in order, name and value with their lengths.
fn user_properties(delivery: &Delivery) -> Vec<Vec<u8>> {
    let user = |(id, value): &Property| (*id == 0x26).then(|| value.clone());
    delivery.properties.iter().filter_map(user).collect()
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20] Each property
/// arrives unchanged, the User Properties in order and with duplicates, and none is added: live at each QoS, from the
/// queue of an absent session, and retained.
#[test]
fn properties_arrive_unchanged() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "rich", 2);
        let away = absent(&target, "rich-away", &pair.topic, 2);
        for qos in [0, 1, 2] {
            pair.from.publish(&rich(&pair.topic).qos(qos).retain());
            let delivery = take(&mut pair.to, 1).remove(0);
            assert_eq!(delivery.qos, qos);
            assert_rich(&delivery);
        }
        let mut late = target.client("rich-late");
        assert_eq!(late.subscribe(&pair.topic, 0), 0);
        assert_rich(&late.expect_message("rich"));
        for delivery in take(&mut resume(&target, &away), 2) {
            assert_rich(&delivery);
        }
    });
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20] They are as
/// they were after the node was killed and started again: in the queue of an absent session, in what was in flight, and
/// in the retained message.
#[test]
fn properties_outlive_a_restart() {
    on_own(&[], |node| {
        let before = target(node, Version::V5);
        let topic = unique("rich");
        let away = absent(&before, "rich-away", &topic, 2);
        let mut publisher = before.client("rich");
        publisher.publish(&rich(&topic).qos(1));
        let mut holder = resume(&before, &away);
        assert_rich(&holder.expect_message("rich"));
        publisher.publish(&rich(&topic).qos(2).retain());
        node.kill();
        node.start();
        let after = target(node, Version::V5);
        let mut back = resume(&after, &away);
        let deliveries = take(&mut back, 2);
        assert_eq!((deliveries[0].qos, deliveries[1].qos), (1, 2));
        deliveries.iter().for_each(assert_rich);
        let mut late = after.client("rich-late");
        assert_eq!(late.subscribe(&topic, 2), 2);
        assert_rich(&take(&mut late, 1)[0]);
    });
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2.3.2] A Payload Format Indicator of 0 is passed on as 0, one that is absent stays
/// absent.
#[test]
fn a_payload_format_of_zero_is_not_lost() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "format", 2);
        let away = absent(&target, "format-away", &pair.topic, 1);
        let message = pair.message([0xFF]).qos(1);
        pair.from
            .publish(&message.clone().property(property::payload_format(0)));
        pair.from.publish(&message);
        for mut client in [pair.to, resume(&target, &away)] {
            let deliveries = take(&mut client, 2);
            assert_eq!(deliveries[0].properties, [(0x01, vec![0])]);
            assert_eq!(deliveries[1].properties, []);
        }
    });
}

/// [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20] The longest values and 500 User Properties
/// arrive unchanged, as do empty ones.
#[test]
fn long_and_empty_properties_arrive_unchanged() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "long", 1);
        let long = "é".repeat(32_767);
        let data: Vec<u8> = (0..65_535_u32).map(|at| (at % 256) as u8).collect();
        let message = pair
            .message("long")
            .qos(1)
            .property(property::content_type(&long))
            .property(property::response_topic(&long))
            .property(property::correlation_data(&data));
        let message = (0..500).fold(message, |message, at| {
            message.property(property::user(format!("{}", at % 7), format!("{at}")))
        });
        pair.from.publish(&message);
        let delivery = take(&mut pair.to, 1).remove(0);
        assert!(delivery.property(0x03) == Some(long.as_bytes()), "Content Type");
        assert!(delivery.property(0x08) == Some(long.as_bytes()), "Response Topic");
        assert!(delivery.property(0x09) == Some(&data[..]), "Correlation Data");
        let wanted: Vec<Vec<u8>> = (0..500)
            .map(|at| [text((at % 7).to_string()), text(at.to_string())].concat())
            .collect();
        assert_eq!(user_properties(&delivery), wanted);
        let empty = pair.message("empty").qos(1);
        let empty = empty
            .property(property::content_type(""))
            .property(property::correlation_data(""));
        pair.from.publish(&empty);
        let delivery = take(&mut pair.to, 1).remove(0);
        assert_eq!(
            (delivery.property(0x03), delivery.property(0x09)),
            (Some(&b""[..]), Some(&b""[..]))
        );
    });
}

/// [MQTT5-3.3.2-3] [MQTT5-3.3.2-6] A subscriber of 3.1.1 gets the payload of a message with properties, and one of 5.0
/// gets that of 3.1.1 without any.
#[test]
fn messages_cross_the_versions() {
    on_each(|target| {
        let topic = unique("cross");
        let mut old = target.connect(&Connect::new(Version::V3, unique("cross")));
        let mut new = target.client("cross");
        assert_eq!((old.subscribe(&topic, 1), new.subscribe(&topic, 1)), (1, 1));
        let mut publisher = target.client("cross-publisher");
        publisher.publish(&rich(&topic).qos(1).property(property::message_expiry(1000)));
        assert_eq!(take(&mut old, 1)[0].text(), "rich");
        assert_eq!(take(&mut new, 1)[0].text(), "rich");
        let mut publisher = target.connect(&Connect::new(Version::V3, unique("cross-old")));
        publisher.publish(&Publish::new(&topic, "old").qos(1));
        assert_eq!(take(&mut old, 1)[0].text(), "old");
        let delivery = take(&mut new, 1).remove(0);
        assert_eq!((delivery.text().as_str(), delivery.properties), ("old", Vec::new()));
    });
}

/// [MQTT5-3.3.2.3.2] [MQTT5-3.3.2.3.3] [MQTT5-3.3.2.3.4] [MQTT5-3.3.2.3.5] [MQTT5-3.3.2.3.6] [MQTT5-3.3.2.3.9]
/// [MQTT5-2.2.2.2] A property that comes twice, though it may come once only, is a protocol error.
#[test]
fn a_property_that_comes_twice_is_a_protocol_error() {
    on_each(|target| {
        let twice = [
            property::payload_format(1),
            property::message_expiry(9),
            property::alias(1),
            property::response_topic("r"),
            property::correlation_data("c"),
            property::content_type("t"),
        ];
        for one in twice {
            let mut client = target.client("twice");
            let message = Publish::new("twice", "x")
                .property(&one)
                .property(property::user("k", "v"));
            client.send_publish(&message.property(&one));
            client.expect_end(0x82);
        }
    });
}

/// [MQTT5-3.3.2.3.2] A Payload Format Indicator other than 0 and 1 ends the connection.
#[test]
fn a_payload_format_of_two_ends_the_connection() {
    on_each(|target| {
        for format in [2, 255] {
            let mut client = target.client("format");
            client.send_publish(&Publish::new("format", "x").property(property::payload_format(format)));
            expect_end_with(&mut client, &[0x81, 0x82]);
        }
    });
}

/// [MQTT5-3.3.2-14] A Response Topic with a wildcard ends the connection, and nobody gets the message.
#[test]
fn a_response_topic_with_a_wildcard_is_a_protocol_error() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "response", 2);
        for (name, qos) in [("#", 0), ("a/+/b", 1), ("a/#", 2), ("+", 0)] {
            let mut client = target.client("response");
            let message = pair.message("wrong").qos(qos).id(4);
            client.send_publish(&message.property(property::response_topic(name)));
            client.expect_end(0x82);
        }
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.3.2-13] [MQTT5-3.3.2-19] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT5-1.5.7-1] Response Topic, Content Type and
/// User Properties are valid strings; another one makes the packet malformed.
#[test]
fn a_string_property_that_is_not_valid_ends_the_connection() {
    on_each(|target| {
        for wrong in [&b"a\xFF"[..], b"\xED\xBF\xBF", b"a\0b", b"\xC3"] {
            let list = [
                property::response_topic(wrong),
                property::content_type(wrong),
                property::user(wrong, "v"),
                property::user("k", wrong),
            ];
            for one in list {
                let mut client = target.client("string");
                client.send_publish(&Publish::new("string", "x").qos(1).id(1).property(one));
                client.expect_end(0x81);
            }
        }
    });
}

/// [MQTT5-2.2.2.2] A property that PUBLISH does not have, or that does not exist, makes it malformed.
#[test]
fn a_property_that_publish_does_not_have_ends_the_connection() {
    on_each(|target| {
        let list = [
            property::session_expiry(1),
            property::reason_string("r"),
            property::receive_maximum(1),
            property::will_delay(1),
            property::assigned_client("c"),
            vec![0x00],
            vec![0x04, 0],
            vec![0x7F, 0],
            vec![0xA6, 0x01, 0],
        ];
        for one in list {
            let mut client = target.client("foreign");
            client.send_publish(&Publish::new("foreign", "x").qos(1).id(1).property(one));
            client.expect_end(0x81);
        }
    });
}

/// [MQTT5-2.1.4] [MQTT5-1.5.5] [MQTT5-2.2.2-1] A property section that does not fit into its packet, ends within a
/// property, or is absent, makes the packet malformed.
#[test]
fn a_property_section_of_the_wrong_length_ends_the_connection() {
    on_each(|target| {
        let name = text("section");
        let too_long = [varint(4), vec![0x01, 0]].concat();
        let within = [varint(3), property::message_expiry(1)].concat();
        let five_bytes = [0x80, 0x80, 0x80, 0x80, 0x00];
        for section in [
            &b""[..],
            &[0x80],
            &too_long,
            &within,
            &five_bytes,
            &[0xFF, 0xFF, 0xFF, 0x7F],
        ] {
            let mut client = target.client("section");
            client.send(&packet(0x30, &[&name, section]));
            client.expect_end(0x81);
        }
    });
}

/// Subscription Identifiers of a delivery in rising order.
fn subscription_ids(delivery: &Delivery) -> Vec<u32> {
    let id = |(id, value): &Property| {
        let value: [u8; 4] = value.as_slice().try_into().ok().filter(|_| *id == 0x0B)?;
        Some(u32::from_be_bytes(value))
    };
    let mut ids: Vec<u32> = delivery.properties.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids
}

fn subscribe_as(client: &mut Raw, id: usize, filter: &str, options: u8) {
    assert!(client.subscribe_all(&[property::subscription_id(id)], &[(filter, options)])[0] <= 2);
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT5-3.3.2.3.8] One copy comes, with the identifiers of all subscriptions that
/// match and have one, live and retained; a message that one of them matches has only that.
#[test]
fn a_delivery_has_the_identifiers_of_all_its_subscriptions() {
    on_each(|target| {
        let root = unique("ids");
        let (one, other) = (format!("{root}/a"), format!("{root}/b"));
        let mut reader = target.client("ids");
        subscribe_as(&mut reader, 268_435_455, &format!("{root}/#"), 1);
        subscribe_as(&mut reader, 1, &format!("{root}/a"), 0);
        subscribe_as(&mut reader, 16_384, &format!("{root}/+"), 2);
        assert_eq!(reader.subscribe(&format!("{root}/a/#"), 1), 1);
        subscribe_as(&mut reader, 127, "no/match", 2);
        let mut publisher = target.client("ids-publisher");
        for qos in [0, 1, 2] {
            publisher.publish(&Publish::new(&one, "one").qos(qos));
            let delivery = take(&mut reader, 1).remove(0);
            assert_eq!(subscription_ids(&delivery), [1, 16_384, 268_435_455]);
            assert_eq!(delivery.qos, qos);
            publisher.publish(&Publish::new(&other, "other").qos(qos));
            let delivery = take(&mut reader, 1).remove(0);
            assert_eq!(subscription_ids(&delivery), [16_384, 268_435_455]);
        }
        reader.ping();
        publisher.publish(&Publish::new(&one, "kept").qos(1).retain());
        assert_eq!(subscription_ids(&take(&mut reader, 1)[0]), [1, 16_384, 268_435_455]);
        subscribe_as(&mut reader, 128, &format!("{root}/a/+"), 0);
        subscribe_as(&mut reader, 2_097_152, &one, 1);
        let kept = take(&mut reader, 1).remove(0);
        assert_eq!(
            (subscription_ids(&kept).contains(&2_097_152), kept.retain),
            (true, true)
        );
    });
}

/// [MQTT5-3.3.4-3] [MQTT5-4.1] A subscription keeps its identifier over a reconnect and a restart; made anew it has the
/// new one, or none.
#[test]
fn a_subscription_keeps_its_identifier() {
    on_own(&[], |node| {
        let before = target(node, Version::V5);
        let topic = unique("id-kept");
        let hello = Connect::kept(Version::V5, unique("id-kept"));
        let mut client = before.connect(&hello);
        subscribe_as(&mut client, 2_097_151, &topic, 1);
        client.disconnect();
        before
            .client("publisher")
            .publish(&Publish::new(&topic, "queued").qos(1));
        node.kill();
        node.start();
        let after = target(node, Version::V5);
        let (mut client, mut publisher) = (resume(&after, &hello), after.client("publisher"));
        assert_eq!(subscription_ids(&take(&mut client, 1)[0]), [2_097_151]);
        publisher.publish(&Publish::new(&topic, "live").qos(1));
        assert_eq!(subscription_ids(&take(&mut client, 1)[0]), [2_097_151]);
        subscribe_as(&mut client, 5, &topic, 1);
        publisher.publish(&Publish::new(&topic, "changed").qos(1));
        assert_eq!(subscription_ids(&take(&mut client, 1)[0]), [5]);
        assert_eq!(client.subscribe(&topic, 1), 1);
        publisher.publish(&Publish::new(&topic, "without").qos(1));
        assert_eq!(subscription_ids(&take(&mut client, 1)[0]), [] as [u32; 0]);
    });
}
