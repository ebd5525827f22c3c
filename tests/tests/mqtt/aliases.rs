//! Topic Aliases (3.3.2.3.4) in both directions.

use std::collections::HashMap;

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Delivery, Publish, Raw};

use crate::brokers::{Target, on_each, unique};
use crate::pair::{Pair, absent, expect_end_with, take, texts};

/// Topic Alias Maximum of the node.
fn maximum(target: &Target) -> u16 {
    let (_client, accepted) = Raw::connect(target.at, &target.hello("alias-max"));
    let value = accepted.property(0x22).map_or([0, 0], |value| [value[0], value[1]]);
    u16::from_be_bytes(value)
}

/// [MQTT5-3.3.2-12] [MQTT5-3.3.2.3.4] Each alias from 1 to the maximum announced is accepted, at each QoS, stands for
/// the topic that it was given with, and for another one after it was given with that. It is not passed on.
#[test]
fn every_alias_up_to_the_maximum_stands_for_its_topic() {
    on_each(|target| {
        let maximum = maximum(&target);
        assert!(maximum > 0, "the node takes aliases");
        let root = unique("alias");
        let (mut publisher, mut reader) = (target.client("alias"), target.client("alias-reader"));
        assert_eq!(reader.subscribe(&format!("{root}/#"), 2), 2);
        for alias in 1..=maximum {
            let message = Publish::new(&format!("{root}/{alias}"), "set").qos((alias % 3) as u8);
            publisher.publish(&message.property(property::alias(alias)));
            assert_eq!(take(&mut reader, 1)[0].topic, format!("{root}/{alias}"));
        }
        let moved = Publish::new(&format!("{root}/moved"), "moved").property(property::alias(maximum));
        publisher.publish(&moved.qos(1));
        take(&mut reader, 1);
        for alias in (1..=maximum).rev() {
            let message = Publish::new("", "used")
                .qos((alias % 3) as u8)
                .property(property::alias(alias));
            publisher.publish(&message);
            let delivery = take(&mut reader, 1).remove(0);
            let wanted = if alias == maximum {
                "moved".to_owned()
            } else {
                alias.to_string()
            };
            assert_eq!(delivery.topic, format!("{root}/{wanted}"));
            assert_eq!(delivery.properties, [], "the reader has no Topic Alias Maximum");
        }
    });
}

/// [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.2.2-17] An alias of 0, or above the maximum announced, ends the connection,
/// the latter with 0x94.
#[test]
fn an_alias_out_of_range_ends_the_connection() {
    on_each(|target| {
        let above = maximum(&target) + 1;
        for (alias, qos) in [(0, 0), (0, 1), (above, 0), (above, 2), (65_535, 1)] {
            let mut client = target.client("range");
            client.send_publish(
                &Publish::new("range", "x")
                    .qos(qos)
                    .id(1)
                    .property(property::alias(alias)),
            );
            // For 0 the standard names no code of its own.
            let reasons: &[u8] = if alias == 0 { &[0x94, 0x82] } else { &[0x94] };
            expect_end_with(&mut client, reasons);
        }
    });
}

/// [MQTT5-3.3.2.3.4] [MQTT5-3.3.2-7] An alias without a topic that was not given one on this connection is a protocol
/// error, also when the session had it on the connection before.
#[test]
fn an_unknown_alias_is_a_protocol_error() {
    on_each(|target| {
        let hello = Connect::kept(target.version, unique("unknown"));
        let (topic, mut reader) = (unique("unknown"), target.client("unknown-reader"));
        assert_eq!(reader.subscribe(&topic, 1), 1);
        let mut client = target.connect(&hello);
        client.publish(&Publish::new(&topic, "known").qos(1).property(property::alias(1)));
        client.publish(&Publish::new("", "again").qos(1).property(property::alias(1)));
        assert_eq!(texts(&take(&mut reader, 2)), ["known", "again"]);
        client.send_publish(&Publish::new("", "x").qos(1).id(9).property(property::alias(2)));
        client.expect_end(0x82);
        let mut client = target.connect(&hello);
        client.send_publish(&Publish::new("", "x").qos(1).id(9).property(property::alias(1)));
        client.expect_end(0x82);
        reader.ping();
    });
}

/// What a client with aliases knows of the connection: topics by alias, within its maximum.
struct Aliases {
    maximum: u16,
    topics: HashMap<u16, String>,
}

impl Aliases {
    fn new(maximum: u16) -> Self {
        Self {
            maximum,
            topics: HashMap::new(),
        }
    }

    /// Topic of a delivery; an alias must be within the maximum, and be given a topic before it stands alone.
    fn topic(&mut self, delivery: &Delivery) -> String {
        let Some(alias) = delivery.property(0x23) else {
            return delivery.topic.clone();
        };
        let alias = u16::from_be_bytes([alias[0], alias[1]]);
        assert!((1..=self.maximum).contains(&alias), "alias {alias} of {}", self.maximum);
        if !delivery.topic.is_empty() {
            self.topics.insert(alias, delivery.topic.clone());
        }
        self.topics.get(&alias).expect("an alias that has a topic").clone()
    }
}

/// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-8] [MQTT5-3.3.2-11] Aliases of the node are within the maximum of the
/// client, none without one; with more topics than aliases each delivery still names its own.
#[test]
fn the_node_stays_within_the_alias_maximum_of_the_client() {
    on_each(|target| {
        for maximum in [None, Some(0), Some(1), Some(3), Some(65_535)] {
            let mut hello = target.hello("out");
            if let Some(maximum) = maximum {
                hello = hello.property(property::alias_maximum(maximum));
            }
            let (root, mut reader) = (unique("out"), target.connect(&hello));
            assert_eq!(reader.subscribe(&format!("{root}/#"), 2), 2);
            let mut publisher = target.client("out-publisher");
            let mut known = Aliases::new(maximum.unwrap_or(0));
            for at in 0..30_u8 {
                let topic = format!("{root}/{}", at % 5);
                publisher.publish(&Publish::new(&topic, at.to_string()).qos(at % 3));
                let delivery = take(&mut reader, 1).remove(0);
                assert_eq!((known.topic(&delivery), delivery.text()), (topic, at.to_string()));
            }
        }
    });
}

/// [MQTT5-3.3.2-11] [MQTT5-3.3.2.3.4] A topic that comes again to a client that takes aliases comes as an alias alone,
/// and what the node numbers does not depend on what the publisher has numbered, nor on what the client numbers itself.
#[test]
fn a_topic_that_repeats_gets_an_alias() {
    on_each(|target| {
        let hello = target.hello("repeat").property(property::alias_maximum(2));
        let mut pair = Pair::with(&target, "repeat", 2, &hello);
        let own = unique("repeat/own");
        pair.to.publish(&Publish::new(&own, "own").property(property::alias(1)));
        let mut known = Aliases::new(2);
        for (at, qos) in [0, 1, 2, 0].into_iter().enumerate() {
            let message = pair.message(at.to_string()).qos(qos).property(property::alias(7));
            pair.from.publish(&message);
            let delivery = take(&mut pair.to, 1).remove(0);
            assert_eq!(known.topic(&delivery), pair.topic);
            assert_eq!(delivery.topic.is_empty(), at > 0, "{delivery:?}");
        }
        let mut witness = target.client("repeat-witness");
        assert_eq!(witness.subscribe(&own, 0), 0);
        pair.to.publish(&Publish::new("", "again").property(property::alias(1)));
        witness.expect_message("again");
    });
}

/// [MQTT5-3.3.2-7] [MQTT5-4.4.0-1] What is sent again on a new connection has its topic: aliases of the old one are
/// gone, also for a client that comes back without a maximum.
#[test]
fn what_is_sent_again_has_its_topic() {
    on_each(|target| {
        let topic = unique("again");
        let hello = absent(&target, "again", &topic, 2);
        let mut publisher = target.client("again-publisher");
        for maximum in [1, 5, 0] {
            let mut reader = target.connect(&hello.clone().property(property::alias_maximum(maximum)));
            let mut known = Aliases::new(maximum);
            let before = if maximum == 1 { 0 } else { 3 };
            for delivery in (0..before).map(|_| reader.expect_publish()) {
                assert_eq!(known.topic(&delivery), topic);
                assert!(delivery.dup, "{delivery:?}");
            }
            if maximum == 1 {
                (0..3).for_each(|_| publisher.publish(&Publish::new(&topic, "x").qos(1)));
                for delivery in (0..3).map(|_| reader.expect_publish()) {
                    assert_eq!(known.topic(&delivery), topic);
                }
            }
            reader.ping();
        }
    });
}

/// [MQTT5-3.3.2.3.4] Topics under aliases are kept by the node, so their bytes have a bound (128 KiB): a client that exceeds it is told 0x97.
#[test]
fn topics_under_aliases_have_a_bound_in_bytes() {
    on_each(|target| {
        let mut client = target.client("alias-bytes");
        for alias in 1..=3u16 {
            let topic = format!("{}{alias}", "a".repeat(60_000));
            client.send_publish(&Publish::new(&topic, "x").property(property::alias(alias)));
        }
        client.expect_end(0x97);
    });
}
