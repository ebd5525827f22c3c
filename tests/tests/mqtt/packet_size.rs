//! Maximum Packet Size in both directions (3.1.2.11.4, 3.2.2.3.6).

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{AckKind, Connect, LastWill, Publish, Raw, Version, encode};

use crate::brokers::{on_each, on_own, target, unique};
use crate::pair::{Pair, absent, resume, take, texts};

/// A payload that makes the PUBLISH to the subscriber `size` bytes long.
fn sized(message: &Publish, size: usize) -> Publish {
    let empty = Publish {
        payload: Vec::new(),
        ..message.clone()
    };
    let head = encode::publish(Version::V5, &empty).len();
    // Beyond 127 bytes the Remaining Length has a second byte.
    let head = if size > 129 { head + 1 } else { head };
    Publish {
        payload: vec![b'x'; size - head],
        ..message.clone()
    }
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25] A message that makes a packet of exactly the maximum is delivered, one of a byte
/// more is not and takes no room in the Receive Maximum; what follows it comes.
#[test]
fn a_delivery_above_the_maximum_is_left_out() {
    on_each(|target| {
        for maximum in [100, 300] {
            let hello = target.hello("size").property(property::packet_maximum(maximum));
            let hello = hello.property(property::receive_maximum(1));
            let mut pair = Pair::with(&target, "size", 2, &hello);
            for qos in [0, 1, 2] {
                let message = pair.message("").qos(qos);
                let (fits, above) = (sized(&message, maximum as usize), sized(&message, maximum as usize + 1));
                for one in [&above, &fits, &above, &above] {
                    pair.from.publish(one);
                }
                let delivery = take(&mut pair.to, 1).remove(0);
                assert_eq!((delivery.payload.len(), delivery.qos), (fits.payload.len(), qos));
                pair.expect_nothing(qos);
            }
        }
    });
}

/// [MQTT5-3.1.2-24] Properties count: those that came with the message, and the Subscription Identifiers that the node
/// adds.
#[test]
fn properties_count_against_the_maximum() {
    on_each(|target| {
        let hello = target.hello("count").property(property::packet_maximum(100));
        let topic = unique("count");
        let mut reader = target.connect(&hello);
        reader.subscribe_all(&[property::subscription_id(268_435_455)], &[(&topic, 1)]);
        let mut publisher = target.client("count-publisher");
        let message = Publish::new(&topic, "").qos(1);
        publisher.publish(&sized(&message, 96).property(property::user("", "")));
        publisher.publish(&sized(&message, 96));
        publisher.publish(&sized(&message, 95));
        let delivery = take(&mut reader, 1).remove(0);
        assert_eq!(delivery.payload.len(), sized(&message, 95).payload.len());
        reader.ping();
    });
}

/// [MQTT5-3.1.2-25] What was too large counts as sent: it does not come after a reconnect without a maximum. For a
/// client that was away, the maximum of the connection at which it comes back is what counts.
#[test]
fn what_is_too_large_counts_as_sent() {
    on_each(|target| {
        let topic = unique("sent");
        let hello = absent(&target, "sent", &topic, 2);
        let mut publisher = target.client("sent-publisher");
        for qos in [1, 2] {
            publisher.publish(&Publish::new(&topic, vec![b'l'; 500]).qos(qos));
            publisher.publish(&Publish::new(&topic, format!("{qos}")).qos(qos));
        }
        let narrow = hello.clone().property(property::packet_maximum(200));
        let mut client = resume(&target, &narrow);
        let mut got = texts(&take(&mut client, 2));
        got.sort();
        assert_eq!(got, ["1", "2"]);
        client.ping();
        drop(client);
        let mut client = resume(&target, &hello);
        client.ping();
        publisher.publish(&Publish::new(&topic, "next").qos(2));
        assert_eq!(texts(&take(&mut client, 1)), ["next"]);
    });
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25] [MQTT5-4.4.0-1] A message in flight that is too large for the next connection is
/// not sent on it.
#[test]
fn what_is_sent_again_stays_within_the_maximum() {
    on_each(|target| {
        let topic = unique("again");
        let hello = absent(&target, "again", &topic, 1);
        let mut publisher = target.client("again-publisher");
        publisher.publish(&Publish::new(&topic, vec![b'l'; 500]).qos(1));
        publisher.publish(&Publish::new(&topic, "short").qos(1));
        let mut client = resume(&target, &hello);
        (0..2).for_each(|_| drop(client.expect_publish()));
        client.reset();
        let mut client = resume(&target, &hello.property(property::packet_maximum(200)));
        let delivery = client.expect_message("short");
        assert!(delivery.dup);
        client.acknowledge(&delivery);
        client.ping();
    });
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25] Retained messages and wills keep to it as well.
#[test]
fn retained_messages_and_wills_stay_within_the_maximum() {
    on_each(|target| {
        let root = unique("kept");
        let mut publisher = target.client("kept");
        publisher.publish(&Publish::new(&format!("{root}/large"), vec![b'l'; 500]).qos(1).retain());
        publisher.publish(&Publish::new(&format!("{root}/small"), "small").qos(1).retain());
        let mut reader = target.connect(&target.hello("kept").property(property::packet_maximum(200)));
        assert_eq!(reader.subscribe(&format!("{root}/#"), 1), 1);
        assert_eq!(texts(&take(&mut reader, 1)), ["small"]);
        for will in ["l".repeat(500), "will".to_owned()] {
            let will = LastWill::new(format!("{root}/will"), will);
            target.connect(&target.hello("kept-will").will(will)).reset();
        }
        assert_eq!(texts(&take(&mut reader, 1)), ["will"]);
        reader.ping();
    });
}

/// [MQTT5-3.2.2.3.6] [MQTT5-3.2.2-15] [MQTT3-4.8.0-1] The node announces its Maximum Packet Size; a packet of exactly
/// that size is taken, one of a byte more gets DISCONNECT 0x95, in 3.1.1 the close, even before its body has come.
#[test]
fn the_own_maximum_is_announced_and_enforced() {
    on_own(&[("mqtt.packet_max", "\"1 KiB\"")], |node| {
        for version in Version::BOTH {
            let target = target(node, version);
            let (mut client, accepted) = Raw::connect(target.at, &target.hello("own"));
            if target.is_v5() {
                assert_eq!(accepted.property(0x27), Some(&[0, 0, 4, 0][..]));
            }
            let mut reader = target.client("own-reader");
            assert_eq!(reader.subscribe("own", 1), 1);
            let exact = Publish::new("own", "").qos(1).id(1);
            let section = usize::from(version == Version::V5);
            let exact = Publish {
                payload: vec![b'x'; 1024 - 3 - 2 - 3 - 2 - section],
                ..exact
            };
            let bytes = encode::publish(version, &exact);
            assert_eq!(bytes.len(), 1024);
            client.send(&bytes);
            client.expect_ack(AckKind::PubAck, 1, 0);
            assert_eq!(take(&mut reader, 1)[0].payload, exact.payload);
            let mut above = exact.clone();
            above.payload.push(b'x');
            client.send(&encode::publish(version, &above)[..20]);
            client.expect_end(0x95);
            let mut huge = target.client("own-huge");
            huge.send(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
            huge.expect_end(0x95);
            reader.ping();
        }
    });
}

/// [MQTT5-3.2.2.3.6] [MQTT5-4.13.1] A CONNECT above the maximum is not accepted.
#[test]
fn a_connect_above_the_maximum_is_not_accepted() {
    on_own(&[("mqtt.packet_max", "\"1 KiB\"")], |node| {
        let target = target(node, Version::V5);
        let mut client = target.open();
        let hello = Connect::new(Version::V5, unique("large")).will(LastWill::new("w", vec![0; 1024]));
        client.send(&hello.bytes());
        if let Some(bytes) = client.recv_bytes() {
            assert_eq!((bytes[0], bytes[3]), (0x20, 0x95), "{bytes:02x?}");
            client.expect_close();
        }
    });
}
