//! Will properties (3.1.3.2): carried into the will that is published, and refused when wrong.

use fellbeck_tests::mqtt::wire::{property, text};
use fellbeck_tests::mqtt::{Answer, Connect, LastWill, Property, Version};

use crate::brokers::{Target, on_each, on_each_version, unique};
use crate::pair::{absent, elapse, resume, take};

/// [MQTT5-3.1.3.2.3] [MQTT5-3.1.3.2.5] [MQTT5-3.1.3.2.6] [MQTT5-3.1.3.2.7] [MQTT5-3.1.3-10] Each property of a will is
/// in the message, unchanged, the User Properties in order and with duplicates; the delay is not, and none is added.
#[test]
fn the_properties_of_a_will_are_published_with_it() {
    on_each(|target| {
        let topic = unique("will");
        let mut watcher = target.client("will-watcher");
        assert_eq!(watcher.subscribe(&topic, 2), 2);
        let away = absent(&target, "will-away", &topic, 1);
        let user = [("b", "1"), ("a", ""), ("b", "1"), ("b", "0"), ("", "é")];
        for (format, payload) in [(0, &b"\xFF\x00"[..]), (1, "é".as_bytes())] {
            let mut will = LastWill::new(&topic, payload)
                .qos(1)
                .retain()
                .property(property::user(user[0].0, user[0].1))
                .property(property::correlation_data([0, 0xFF]))
                .property(property::payload_format(format))
                .property(property::will_delay(0))
                .property(property::response_topic("reply/é"))
                .property(property::content_type("type"));
            for (name, value) in &user[1..] {
                will = will.property(property::user(name, value));
            }
            target.connect(&target.hello("rich").will(will)).reset();
            let live = take(&mut watcher, 1).remove(0);
            let mut late = target.client("will-late");
            assert_eq!(late.subscribe(&topic, 0), 0);
            let kept = late.expect_publish();
            let mut back = resume(&target, &away);
            let queued = take(&mut back, 1).remove(0);
            back.disconnect();
            for delivery in [live, kept, queued] {
                assert_eq!(delivery.payload, payload);
                assert_eq!(delivery.property(0x01), Some(&[format][..]));
                assert_eq!(delivery.property(0x03), Some(&b"type"[..]));
                assert_eq!(delivery.property(0x08), Some("reply/é".as_bytes()));
                assert_eq!(delivery.property(0x09), Some(&[0, 0xFF][..]));
                let own = |(id, value): &Property| (*id == 0x26).then(|| value.clone());
                let got: Vec<Vec<u8>> = delivery.properties.iter().filter_map(own).collect();
                assert_eq!(got, user.map(|(name, value)| [text(name), text(value)].concat()));
                assert_eq!(delivery.properties.len(), 4 + user.len());
            }
        }
    });
}

/// [MQTT5-3.1.3.2.4] [MQTT5-3.3.2-6] [MQTT5-3.3.2-5] The Message Expiry Interval of a will counts from its publication:
/// a delay does not shorten it, waiting for an absent client does.
#[test]
fn the_interval_of_a_will_counts_from_its_publication() {
    on_each(|target| {
        let topic = unique("will");
        let (away, mut watcher) = (absent(&target, "interval-away", &topic, 1), target.client("interval"));
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        for (interval, delay) in [(1, 2), (500, 0)] {
            let will = LastWill::new(&topic, interval.to_string())
                .qos(1)
                .property(property::message_expiry(interval));
            let will = will.property(property::will_delay(delay));
            target
                .connect(&Connect::kept(Version::V5, unique("interval")).will(will))
                .reset();
            let delivery = take(&mut watcher, 1).remove(0);
            assert_eq!(delivery.text(), interval.to_string());
            let left = delivery
                .property(0x02)
                .map(|value| u32::from_be_bytes([value[0], value[1], value[2], value[3]]));
            let allowed = interval.saturating_sub(5)..=interval;
            assert!(
                left.is_some_and(|left| allowed.contains(&left)),
                "{left:?} of {interval}"
            );
        }
        elapse(&target, 2);
        let mut client = resume(&target, &away);
        let delivery = take(&mut client, 1).remove(0);
        assert_eq!(delivery.text(), "500");
        assert!(
            delivery
                .property(0x02)
                .is_some_and(|left| left <= &498_u32.to_be_bytes()[..])
        );
        client.ping();
    });
}

/// [MQTT5-3.1.3.2.4] [MQTT5-3.3.2.3.3] A will with an interval of 0 is a legal one: the CONNECT is accepted, and an
/// absent client never gets it.
#[test]
fn a_will_with_an_interval_of_zero_is_legal() {
    on_each(|target| {
        let topic = unique("will");
        let away = absent(&target, "zero-away", &topic, 1);
        let will = LastWill::new(&topic, "zero")
            .qos(1)
            .property(property::message_expiry(0));
        target.connect(&target.hello("zero").will(will)).reset();
        elapse(&target, 1);
        let will = LastWill::new(&topic, "end").qos(1);
        target.connect(&target.hello("zero").will(will)).reset();
        let mut client = resume(&target, &away);
        assert_eq!(take(&mut client, 1)[0].text(), "end");
        client.ping();
    });
}

/// Sends a CONNECT with this will and demands that it is refused, in 5.0 with one of these reasons if anything is said.
fn expect_will_refused(target: Target, will: LastWill, wanted: &[u8]) {
    let mut client = target.open();
    client.send(&target.hello("wrong").will(will).bytes());
    if let Some(bytes) = client.recv_bytes() {
        assert!(target.is_v5(), "3.1.1 closes without CONNACK: {bytes:02x?}");
        assert_eq!(bytes[..3], [0x20, bytes[1], 0], "{bytes:02x?}");
        assert!(wanted.contains(&bytes[3]), "{bytes:02x?}");
        client.expect_close();
    }
}

/// [MQTT5-3.1.3.2.2] [MQTT5-3.1.3.2.3] [MQTT5-3.1.3.2.4] [MQTT5-3.1.3.2.5] [MQTT5-3.1.3.2.6] [MQTT5-3.1.3.2.7] A will
/// property that comes twice is a protocol error.
#[test]
fn a_will_property_that_comes_twice_is_a_protocol_error() {
    on_each(|target| {
        let twice = [
            property::will_delay(1),
            property::payload_format(1),
            property::message_expiry(1),
            property::content_type("t"),
            property::response_topic("r"),
            property::correlation_data("c"),
        ];
        for one in twice {
            let will = LastWill::new("twice", "x")
                .property(one.clone())
                .property(property::user("k", "v"));
            expect_will_refused(target, will.property(one), &[0x82]);
        }
    });
}

/// [MQTT5-3.1.3.2.3] [MQTT5-2.2.2.2] [MQTT5-3.1.3-11] [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] A Payload Format Indicator of 2,
/// a property that a will does not have, and strings that are not valid, are refused.
#[test]
fn wrong_will_properties_are_refused() {
    on_each(|target| {
        let will = || LastWill::new("wrong", "x");
        expect_will_refused(target, will().property(property::payload_format(2)), &[0x81, 0x82]);
        for foreign in [
            property::alias(1),
            property::session_expiry(1),
            property::reason_string("r"),
            property::receive_maximum(1),
            property::subscription_id(1),
        ] {
            expect_will_refused(target, will().property(foreign), &[0x81]);
        }
        for wrong in [&b"a\xFF"[..], b"a\0b", b"\xED\xA0\x80"] {
            for one in [
                property::content_type(wrong),
                property::response_topic(wrong),
                property::user(wrong, "v"),
                property::user("k", wrong),
            ] {
                expect_will_refused(target, will().property(one), &[0x81]);
            }
        }
    });
}

/// [MQTT5-3.1.3-11] [MQTT3-3.1.3-10] [MQTT3-3.1.4-1] [MQTT3-4.7.3-2] A will topic that is no valid string is refused,
/// in 3.1.1 without a CONNACK.
#[test]
fn a_will_topic_that_is_no_valid_string_is_refused() {
    on_each_version(|target| {
        for topic in [&b"a\0b"[..], b"a\xFF", b"\xED\xA0\x80"] {
            expect_will_refused(target, LastWill::new(topic, "x"), &[0x81]);
        }
    });
}

/// [MQTT5-4.7.0-1] [MQTT5-4.7.3-1] [MQTT3-4.7.1-1] [MQTT3-4.7.3-1] A will topic that is empty, or has a wildcard, is
/// refused.
#[test]
fn a_will_topic_to_which_nobody_can_publish_is_refused() {
    on_each_version(|target| {
        for topic in ["", "a/#", "+/a", "#", "a/b+"] {
            expect_will_refused(target, LastWill::new(topic, "x"), &[0x81, 0x82, 0x90]);
        }
    });
}

/// [MQTT5-3.1.2-12] [MQTT3-3.1.2-14] [MQTT3-3.1.4-1] A Will QoS of 3 makes the CONNECT malformed.
#[test]
fn a_will_qos_of_three_is_refused() {
    on_each_version(|target| {
        expect_will_refused(target, LastWill::new("qos3", "x").qos(3), &[0x81]);
    });
}

/// [MQTT5-3.1.2-11] [MQTT5-3.1.2-13] [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15] Will QoS or Will Retain without
/// the Will Flag make the CONNECT malformed.
#[test]
fn will_flags_without_a_will_are_refused() {
    on_each_version(|target| {
        let level = if target.is_v5() { 5 } else { 4 };
        for flags in [0x08, 0x10, 0x18, 0x20] {
            let mut client = target.open();
            client.send(&target.hello("no-will").bytes_with(b"MQTT", level, 2 | flags));
            if let Some(bytes) = client.recv_bytes() {
                assert!(target.is_v5(), "3.1.1 closes without CONNACK: {bytes:02x?}");
                assert_eq!((bytes[0], bytes[2], bytes[3]), (0x20, 0, 0x81), "{bytes:02x?}");
                client.expect_close();
            }
        }
    });
}

/// [MQTT5-3.1.2-9] [MQTT3-3.1.2-9] [MQTT3-3.1.4-1] The Will Flag without will topic and payload makes the CONNECT
/// malformed; a will payload may be empty, or hold any bytes.
#[test]
fn a_will_flag_needs_a_will() {
    on_each_version(|target| {
        let level = if target.is_v5() { 5 } else { 4 };
        let mut client = target.open();
        client.send(&target.hello("flag").bytes_with(b"MQTT", level, 2 | 0x04));
        if let Some(bytes) = client.recv_bytes() {
            assert!(target.is_v5(), "3.1.1 closes without CONNACK: {bytes:02x?}");
            assert_eq!((bytes[0], bytes[3]), (0x20, 0x81), "{bytes:02x?}");
            client.expect_close();
        }
        let (topic, mut watcher) = (unique("will"), target.client("flag-watcher"));
        assert_eq!(watcher.subscribe(&topic, 1), 1);
        for payload in [vec![], vec![0, 0xFF, 0xC0], vec![7; 60_000]] {
            let mut client = target.open();
            client.send(
                &target
                    .hello("flag")
                    .will(LastWill::new(&topic, &payload).qos(1))
                    .bytes(),
            );
            match client.recv() {
                Answer::ConnAck { reason: 0, .. } => {}
                other => panic!("expected a CONNACK that accepts, got {other:02x?}"),
            }
            client.reset();
            assert!(take(&mut watcher, 1)[0].payload == payload);
        }
    });
}
