//! SUBSCRIBE and SUBACK (3.8, 3.9): options, identifiers, reason codes.

use fellbeck_tests::mqtt::wire::{hex, packet, properties, property, text};
use fellbeck_tests::mqtt::{AckKind, Answer, Connect, Publish, encode};

use crate::brokers::{
    Target, expect_nothing, expect_nothing_own, on_each, on_each_v3, on_each_version, on_own, target, unique,
};
use crate::cases::{MALFORMED, PROTOCOL_ERROR, WRONG, case, each_ends};

/// A SUBSCRIBE to one filter with this options byte.
fn request(target: Target, filter: &str, options: u8) -> Vec<u8> {
    encode::subscribe(target.version, 1, &[(filter, options)])
}

/// [MQTT5-3.8.3-2] [MQTT3-3.8.3-3] [MQTT3-4.8.0-1] A SUBSCRIBE without a filter is a protocol error.
#[test]
fn a_subscribe_needs_a_filter() {
    on_each_version(|target| {
        let bytes = encode::subscribe(target.version, 1, &[]);
        each_ends(target, [case("no filter", bytes, PROTOCOL_ERROR)]);
    });
}

/// [MQTT5-3.8.3-5] [MQTT5-3.8.3.1] Reserved bits in the options are malformed; QoS 3 and Retain Handling 3 are protocol errors.
#[test]
fn wrong_subscription_options_end_the_connection() {
    on_each(|target| {
        let filter = unique("options");
        let with = |what: &str, options, reasons| case(what, request(target, &filter, options), reasons);
        let second = encode::subscribe(target.version, 1, &[(&filter, 0), (&filter, 0x40)]);
        each_ends(
            target,
            [
                with("bit 6", 0x40, MALFORMED),
                with("bit 7", 0x80, MALFORMED),
                with("both bits", 0xC1, MALFORMED),
                case("bit 6 of the second filter", second, MALFORMED),
                with("QoS 3", 0x03, PROTOCOL_ERROR),
                with("Retain Handling 3", 0x30, PROTOCOL_ERROR),
            ],
        );
    });
}

/// [MQTT3-3.8.3-4] [MQTT3-4.8.0-1] In 3.1.1 all but the two bits of the QoS are reserved, and QoS 3 is none.
#[test]
fn wrong_requested_qos_closes_in_3_1_1() {
    on_each_v3(|target| {
        let filter = unique("requested");
        let cases = [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF]
            .map(|options| case(format!("{options:02x}"), request(target, &filter, options), MALFORMED));
        each_ends(target, cases);
    });
}

/// [MQTT5-3.8.2.1.2] A Subscription Identifier of 0, or two of them, is a protocol error; the largest one is taken and comes back.
#[test]
fn a_subscription_identifier_is_from_1_on_and_comes_once() {
    on_each(|target| {
        let filter = unique("identifier");
        let with = |list: &[Vec<u8>]| packet(0x82, &[&hex("0001"), &properties(list), &text(&filter), &[0]]);
        let id = property::subscription_id;
        each_ends(
            target,
            [
                case("0", with(&[id(0)]), PROTOCOL_ERROR),
                case("two", with(&[id(1), id(2)]), PROTOCOL_ERROR),
                case("the same twice", with(&[id(1), id(1)]), PROTOCOL_ERROR),
            ],
        );
        let mut client = target.client("identifier");
        for largest in [1, 127, 128, 268_435_455_usize] {
            assert_eq!(client.subscribe_all(&[id(largest)], &[(&filter, 0)]), [0]);
            client.publish(&Publish::new(&filter, "x"));
            let delivery = client.expect_message("x");
            assert_eq!(delivery.property(0x0B), Some(&(largest as u32).to_be_bytes()[..]));
        }
        assert_eq!(client.subscribe(&filter, 0), 0);
        client.publish(&Publish::new(&filter, "none"));
        assert_eq!(client.expect_message("none").property(0x0B), None);
    });
}

/// [MQTT5-3.8.3-3] With No Local a client does not get its own messages, others do, and it gets those of others; without it, it gets its own.
#[test]
fn no_local_keeps_the_own_messages_away() {
    on_each(|target| {
        let topic = unique("no-local");
        let mut client = target.client("no-local");
        let mut other = target.client("no-local-other");
        assert_eq!(client.subscribe(&topic, 0x04 | 1), 1);
        assert_eq!(other.subscribe(&topic, 0), 0);
        for qos in 0..3 {
            client.publish(&Publish::new(&topic, "own").qos(qos));
            other.expect_message("own");
        }
        other.publish(&Publish::new(&topic, "other"));
        client.expect_message("other");
        other.expect_message("other");
        assert_eq!(client.subscribe(&topic, 0), 0);
        client.publish(&Publish::new(&topic, "own again"));
        client.expect_message("own again");
    });
}

/// [MQTT5-3.8.3-4] No Local on a shared subscription is a protocol error, also behind a filter that is right.
#[test]
fn no_local_on_a_shared_subscription_ends_the_connection() {
    on_each(|target| {
        let shared = format!("$share/g/{}", unique("no-local"));
        let second = encode::subscribe(target.version, 1, &[(&unique("plain"), 0x04), (&shared, 0x05)]);
        each_ends(
            target,
            [
                case("alone", request(target, &shared, 0x04), PROTOCOL_ERROR),
                case("second", second, PROTOCOL_ERROR),
            ],
        );
    });
}

/// [MQTT5-3.8.4-1] [MQTT5-3.8.4-2] [MQTT5-3.8.4-5] [MQTT5-3.8.4-6] [MQTT5-3.8.4-7] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT5-2.4] [MQTT3-3.8.4-1]
/// [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2] Several filters get one SUBACK with a code for each in
/// their order: the QoS granted, or the failure; those that succeed are in force.
#[test]
fn a_suback_answers_each_filter_in_order() {
    on_each_version(|target| {
        let [a, b, c] = ["a", "b", "c"].map(|name| unique(&format!("order/{name}")));
        let deep = format!("{a}{}", "/".repeat(300));
        let mut client = target.client("order");
        let failed = if target.is_v5() { 0x8F } else { 0x80 };
        let codes = client.subscribe_all(&[], &[(&a, 2), (&deep, 1), (&b, 0), (&c, 1)]);
        assert_eq!(codes, [2, failed, 0, 1]);
        let mut sender = target.client("order-sender");
        for (topic, qos) in [(&a, 2), (&b, 0), (&c, 1)] {
            sender.publish(&Publish::new(topic, "x").qos(2));
            let delivery = client.expect_message("x");
            assert_eq!((delivery.topic.as_str(), delivery.qos), (topic.as_str(), qos));
            client.acknowledge(&delivery);
        }
        expect_nothing(&mut client, &mut sender);
    });
}

/// [MQTT5-3.8.4-8] [MQTT5-4.8.2-3] [MQTT3-3.8.4-6] Each QoS of a message meets each QoS granted: the lower one is delivered, for a shared
/// subscription as well.
#[test]
fn a_delivery_has_the_lower_qos() {
    on_each_version(|target| {
        let mut client = target.client("lower");
        let mut sender = target.client("lower-sender");
        for granted in 0..3 {
            let topic = unique("lower");
            let shared = format!("$share/g/{topic}");
            let filter = if granted == 2 { &topic } else { &shared };
            for filter in [&topic, filter] {
                assert_eq!(client.subscribe(filter, granted), granted);
                for qos in 0..3 {
                    sender.publish(&Publish::new(&topic, "x").qos(qos));
                    let delivery = client.expect_message("x");
                    assert_eq!(delivery.qos, qos.min(granted));
                    client.acknowledge(&delivery);
                }
                client.unsubscribe(&[filter]);
            }
        }
        expect_nothing(&mut client, &mut sender);
    });
}

/// [MQTT5-3.8.4-5] [MQTT3-3.8.4-4] The same filter twice in one SUBSCRIBE: the later one counts, and a message comes once.
#[test]
fn the_last_of_equal_filters_counts() {
    on_each_version(|target| {
        let topic = unique("equal");
        let mut client = target.client("equal");
        assert_eq!(
            client.subscribe_all(&[], &[(&topic, 2), (&topic, 0), (&topic, 1)]),
            [2, 0, 1]
        );
        let mut sender = target.client("equal-sender");
        sender.publish(&Publish::new(&topic, "x").qos(2));
        let delivery = client.expect_message("x");
        assert_eq!(delivery.qos, 1);
        client.acknowledge(&delivery);
        expect_nothing(&mut client, &mut sender);
    });
}

/// [MQTT5-3.8.4-3] [MQTT5-3.8.4-4] [MQTT3-3.8.4-3] A second SUBSCRIBE with the same filter replaces the first: the new QoS counts, a message
/// comes once, and the retained one comes again.
#[test]
fn an_equal_filter_replaces_the_subscription() {
    on_each_version(|target| {
        let topic = unique("replaced");
        let mut client = target.client("replaced");
        client.publish(&Publish::new(&topic, "retained").retain().qos(2));
        for qos in [2, 0, 1] {
            assert_eq!(client.subscribe(&topic, qos), qos);
            let retained = client.expect_message("retained");
            assert_eq!((retained.qos, retained.retain), (qos, true));
            client.acknowledge(&retained);
            client.send_publish(&Publish::new(&topic, "live"));
            client.expect_message("live");
        }
        expect_nothing_own(&mut client);
        client.publish(&Publish::new(&topic, "").retain());
    });
}

/// [MQTT5-3.8.4-4] [MQTT3-3.8.4-3] While a subscription is replaced over and over, another client publishes: every message comes, once and
/// in order.
#[test]
fn no_message_is_lost_while_a_subscription_is_replaced() {
    on_each_version(|target| {
        let topic = unique("flow");
        let mut client = target.client("flow");
        assert_eq!(client.subscribe(&topic, 1), 1);
        let (mut next, mut answered) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut sender = target.client("flow-sender");
                for n in 0..100 {
                    sender.publish(&Publish::new(&topic, n.to_string()).qos(1));
                }
            });
            while next < 100 || answered < 50 {
                if answered < 50 && answered <= next {
                    client.send(&request(target, &topic, 1));
                    answered += 1;
                }
                match client.recv() {
                    Answer::Publish(delivery) => {
                        assert_eq!(delivery.text(), next.to_string());
                        client.send(&encode::ack(AckKind::PubAck, delivery.id));
                        next += 1;
                    }
                    Answer::SubAck { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        });
    });
}

/// [MQTT5-3.9.2-1] [MQTT5-3.11.2-1] A SUBACK with its Reason String is left without it for a client that takes no more.
#[test]
fn a_suback_stays_within_the_maximum_packet_size() {
    on_each(|target| {
        let deep = format!("{}{}", unique("deep"), "/".repeat(300));
        let refused = |maximum| {
            let hello = target.hello("small").property(property::packet_maximum(maximum));
            let mut client = target.connect(&hello);
            client.send(&encode::subscribe(target.version, 1, &vec![(deep.as_str(), 0); 60]));
            client.recv_bytes().expect("a SUBACK")
        };
        let whole = refused(10_000);
        assert!(whole.len() > 5 + 60, "a Reason String when there is room: {whole:02x?}");
        for maximum in [whole.len() - 1, whole.len() - 10, 100 - 1, 5 + 60] {
            let answer = refused(maximum as u32);
            assert!(
                answer.len() <= maximum && answer.len() >= 5 + 60,
                "{maximum}: {answer:02x?}"
            );
        }
    });
}

/// [MQTT5-3.9.3-2] [MQTT5-4.13.2] [MQTT3-3.9.3-2] [MQTT3-3.8.4-5] One subscription more than a client may have is refused (0x97; 0x80 in
/// 3.1.1) while replacing one is not, and those that are there go on.
#[test]
fn a_subscription_too_many_is_refused() {
    on_own(&[("session.subscriptions_max", "2")], |node| {
        for version in fellbeck_tests::mqtt::Version::BOTH {
            let target = target(node, version);
            let mut client = target.client("many");
            let refused = if target.is_v5() { 0x97 } else { 0x80 };
            assert_eq!(
                client.subscribe_all(&[], &[("many/a", 0), ("many/b", 1), ("many/c", 2)]),
                [0, 1, refused]
            );
            assert_eq!(client.subscribe("many/a", 2), 2);
            client.publish(&Publish::new("many/c", "never"));
            client.publish(&Publish::new("many/b", "x"));
            client.expect_message("x");
            client.unsubscribe(&["many/a"]);
            assert_eq!(client.subscribe("many/c", 2), 2);
        }
    });
}

/// [MQTT5-4.7.3-1] [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT3-4.7.3-1] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] Filters that
/// break a rule of their form end the connection, in SUBSCRIBE and in UNSUBSCRIBE.
#[test]
fn ill_formed_filters_end_the_connection() {
    on_each_version(|target| {
        let mut filters = vec![
            "", "a#", "a/b#", "#/a", "a/#/b", "##", "a/##", "a+", "+a", "a/+b", "a/b+/c", "++", "a/++",
        ];
        if target.is_v5() {
            filters.extend([
                "$share",
                "$share/",
                "$share/g",
                "$share/g/",
                "$share//a",
                "$share/+/a",
                "$share/#/a",
            ]);
            filters.extend(["$share/g#/a", "$share/g+/a", "$share/g/a#", "$share/g/a+"]);
        }
        // "$share" alone is a filter without a ShareName; nothing forbids to take it for an ordinary one.
        filters.retain(|filter| *filter != "$share");
        let cases = filters.iter().flat_map(|filter| {
            let subscribe = request(target, filter, 0);
            let behind = encode::subscribe(target.version, 1, &[("right", 0), (filter, 0)]);
            let unsubscribe = encode::unsubscribe(target.version, 1, &[filter]);
            [
                case(format!("SUBSCRIBE {filter:?}"), subscribe, WRONG),
                case(format!("SUBSCRIBE, second {filter:?}"), behind, WRONG),
                case(format!("UNSUBSCRIBE {filter:?}"), unsubscribe, WRONG),
            ]
        });
        each_ends(target, cases);
    });
}

/// [MQTT5-4.1] [MQTT5-3.1.2-5] A session that is resumed has its subscriptions with their options and identifiers.
#[test]
fn subscriptions_are_kept_with_their_options() {
    on_each(|target| {
        let topic = unique("kept");
        let hello = Connect::kept(target.version, unique("kept"));
        let mut client = target.connect(&hello);
        // No Local, Retain As Published, QoS 1.
        assert_eq!(
            client.subscribe_all(&[property::subscription_id(77)], &[(&topic, 0x0D)]),
            [1]
        );
        client.disconnect();
        let mut client = target.connect(&hello);
        client.publish(&Publish::new(&topic, "own").qos(1));
        target
            .client("kept-sender")
            .publish(&Publish::new(&topic, "other").qos(2).retain());
        let delivery = client.expect_message("other");
        assert_eq!((delivery.qos, delivery.retain), (1, true));
        assert_eq!(delivery.property(0x0B), Some(&77_u32.to_be_bytes()[..]));
        client.publish(&Publish::new(&topic, "").retain());
    });
}
