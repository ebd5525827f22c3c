//! Limits of the node that are no part of the standard: what a client sees at each, and where it is counted (`docs/limits.md`).

use std::collections::VecDeque;

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Delivery, Raw, Version};
use fellbeck_tests::{Node, wait};

use crate::brokers::{Target, on_own, target, unique};
use crate::pair::Pair;

const REJECTS: &str = "fellbeck_broker_rejects_total";
const LIMITED: &str = "fellbeck_broker_limited_total";

/// How often something with this label was counted.
fn counted(node: &Node, name: &str, label: &str) -> f64 {
    node.metrics().sum_where(name, label).unwrap_or(0.0)
}

/// Tries to connect. `None`: closed without a word.
fn try_connect(target: &Target, name: &str) -> Option<Raw> {
    let mut client = target.open();
    client.send_anyway(&target.hello(name).bytes());
    let answer = client.recv_bytes()?;
    assert_eq!((answer[0], answer[3]), (0x20, 0), "a CONNACK that accepts");
    Some(client)
}

#[test]
fn a_socket_beyond_the_connections_is_closed_without_a_word_until_one_leaves() {
    on_own(&[("mqtt.connections_max", "3")], |node| {
        for version in Version::BOTH {
            let before = counted(node, REJECTS, "too_many_connections");
            let target = target(node, version);
            let mut clients: Vec<Raw> = Vec::new();
            wait::until_true("three have room", wait::SOON, || {
                clients.extend(try_connect(&target, "room"));
                clients.len() == 3
            });
            let tried = counted(node, REJECTS, "too_many_connections");
            assert!(try_connect(&target, "beyond").is_none());
            Raw::open(target.ws, version).expect_close();
            assert_eq!(counted(node, REJECTS, "too_many_connections") - tried, 2.0);
            assert!(tried >= before);
            for client in &mut clients {
                client.ping();
            }
            clients.remove(0).disconnect();
            wait::until_true("who left made room", wait::SOON, || {
                clients.extend(try_connect(&target, "next"));
                clients.len() == 3
            });
            clients.into_iter().for_each(Raw::disconnect);
        }
    });
}

#[test]
fn a_group_beyond_the_groups_is_refused_and_those_that_there_are_take_members() {
    on_own(&[("session.groups_max", "2")], |node| {
        for (version, refusal) in [(Version::V5, 0x97), (Version::V3, 0x80)] {
            let before = counted(node, LIMITED, "subscriptions");
            let target = target(node, version);
            let share = |group: &str| format!("$share/{group}/{}", unique("groups"));
            let (first, second, third) = (share("a"), share("b"), share("c"));
            let mut client = target.client("groups");
            for group in [&first, &second] {
                wait::until_true("an earlier group is gone", wait::SOON, || {
                    client.subscribe(group, 1) == 1
                });
            }
            let waited = counted(node, LIMITED, "subscriptions");
            let answers = client.subscribe_all(&[], &[(&third, 1), ("plain", 1), (&first, 0)]);
            assert_eq!(answers, [refusal, 1, 0], "a group more, none, and one that there is");
            let mut member = target.client("member");
            assert_eq!(member.subscribe(&second, 1), 1, "a further member is no further group");
            assert_eq!(member.subscribe(&third, 1), refusal);
            assert_eq!(counted(node, LIMITED, "subscriptions") - waited, 2.0);
            assert!(waited >= before);
            client.unsubscribe(&[&first]);
            wait::until_true("a group without members makes room", wait::SOON, || {
                client.subscribe(&third, 1) == 1
            });
            client.disconnect();
            member.disconnect();
        }
    });
}

#[test]
fn no_session_is_sent_more_at_once_than_the_node_allows() {
    on_own(&[("session.in_flight_max", "3")], |node| {
        for version in Version::BOTH {
            let target = target(node, version);
            for qos in [1, 2] {
                burst(&target, qos, &target.hello("window"), 3);
            }
        }
        let target = target(node, Version::V5);
        let wide = target.hello("wide").property(property::receive_maximum(100));
        burst(&target, 1, &wide, 3);
        let narrow = target.hello("narrow").property(property::receive_maximum(2));
        burst(&target, 1, &narrow, 2);
    });
}

/// Of ten messages exactly `window` come, and one more for each that is acknowledged; none is lost.
fn burst(target: &Target, qos: u8, hello: &Connect, window: usize) {
    const MESSAGES: usize = 10;
    let mut pair = Pair::with(target, "window", qos, hello);
    for at in 0..MESSAGES {
        pair.publish(qos, &at.to_string());
    }
    let mut held: VecDeque<Delivery> = (0..window).map(|_| pair.to.expect_publish()).collect();
    let mut texts: Vec<String> = held.iter().map(Delivery::text).collect();
    while let Some(first) = held.pop_front() {
        pair.to.ping();
        pair.to.acknowledge(&first);
        if texts.len() < MESSAGES {
            let next = pair.to.expect_publish();
            texts.push(next.text());
            held.push_back(next);
        }
    }
    pair.to.ping();
    let all: Vec<String> = (0..MESSAGES).map(|at| at.to_string()).collect();
    assert_eq!(texts, all);
}
