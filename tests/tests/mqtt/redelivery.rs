//! Delivery again (4.4): after a reconnect, a takeover and a restart of the node, in the first order, with the first identifiers.

use fellbeck_tests::mqtt::{AckKind, Answer, Connect, Delivery, Publish, Raw, Version, encode};

use crate::brokers::{Target, on_each, on_each_version, on_own, target, unique};
use crate::pair::{absent, ack_with, resume, take, texts};

/// What a session holds unacknowledged: three messages that were delivered, of which the QoS 2 one in the middle is
/// released.
struct Held {
    hello: Connect,
    topic: String,
    one: Delivery,
    two: Delivery,
    three: Delivery,
}

impl Held {
    /// Also the connection that holds them.
    fn new(target: &Target) -> (Self, Raw) {
        let topic = unique("held");
        let hello = absent(target, "held", &topic, 2);
        let mut publisher = target.client("held-publisher");
        for (payload, qos) in [("one", 1), ("two", 2), ("three", 2), ("four", 1)] {
            publisher.publish(&Publish::new(&topic, payload).qos(qos));
        }
        let mut client = resume(target, &hello);
        let one = client.expect_message("one");
        let two = client.expect_message("two");
        let three = client.expect_message("three");
        let four = client.expect_message("four");
        for delivery in [&one, &two, &three, &four] {
            assert!(!delivery.dup, "for the first time: {delivery:?}");
        }
        client.acknowledge(&four);
        client.send(&encode::ack(AckKind::PubRec, two.id));
        client.expect_ack(AckKind::PubRel, two.id, 0);
        client.ping();
        let held = Self {
            hello,
            topic,
            one,
            two,
            three,
        };
        (held, client)
    }

    /// Demands that all is sent again, with DUP and the first identifiers, PUBREL in place of what was released, and
    /// nothing else.
    fn expect_again(&self, client: &mut Raw) {
        let mut publishes = Vec::new();
        let mut released = Vec::new();
        for _ in 0..3 {
            match client.recv() {
                Answer::Publish(delivery) => publishes.push(delivery),
                Answer::Ack {
                    kind: AckKind::PubRel,
                    id,
                    reason: 0,
                    ..
                } => released.push(id),
                other => panic!("expected what is unacknowledged, got {other:02x?}"),
            }
        }
        assert_eq!(released, [self.two.id]);
        assert_eq!(publishes, [&self.one, &self.three].map(again));
        client.ping();
    }

    /// Completes all, and shows that the identifiers are free and the session has nothing left.
    fn complete(&self, target: &Target, mut client: Raw) {
        client.send(&encode::ack(AckKind::PubComp, self.two.id));
        client.acknowledge(&self.three);
        client.acknowledge(&self.one);
        client.ping();
        drop(client);
        let mut client = resume(target, &self.hello);
        let mut publisher = target.client("held-publisher");
        publisher.publish(&Publish::new(&self.topic, "five").qos(2));
        let five = client.expect_message("five");
        assert!(!five.dup);
        client.acknowledge(&five);
        client.ping();
    }
}

/// A delivery as it is sent again.
fn again(delivery: &Delivery) -> Delivery {
    Delivery {
        dup: true,
        ..delivery.clone()
    }
}

/// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT5-2.2.1-4]
/// [MQTT3-4.4.0-1] [MQTT3-3.3.1-1] [MQTT3-4.6.0-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] [MQTT3-2.3.1-4] After each reconnect
/// all that is unacknowledged comes again in order, with DUP and its identifiers, PUBREL where PUBREC had come; what is
/// acknowledged does not.
#[test]
fn what_is_unacknowledged_comes_again_after_a_reconnect() {
    on_each_version(|target| {
        let (held, mut client) = Held::new(&target);
        for round in 0..3 {
            match round {
                0 => client.reset(),
                1 => client.disconnect(),
                _ => drop(client),
            }
            client = resume(&target, &held.hello);
            held.expect_again(&mut client);
        }
        held.complete(&target, client);
    });
}

/// [MQTT5-4.4.0-1] [MQTT5-3.1.4-3] [MQTT3-4.4.0-1] [MQTT3-3.1.4-2] It comes again to a connection that takes the
/// session over.
#[test]
fn what_is_unacknowledged_comes_again_after_a_takeover() {
    on_each_version(|target| {
        let (held, mut old) = Held::new(&target);
        let mut client = resume(&target, &held.hello);
        old.expect_end(0x8E);
        held.expect_again(&mut client);
        held.complete(&target, client);
    });
}

/// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT5-4.1] [MQTT3-4.4.0-1] [MQTT3-3.3.1-1] [MQTT3-4.1.0-1] [MQTT3-4.6.0-1] It comes
/// again after the node was killed and started again, and after it was stopped.
#[test]
fn what_is_unacknowledged_comes_again_after_a_restart() {
    on_own(&[], |node| {
        let all = Version::BOTH.map(|version| (version, Held::new(&target(node, version))));
        let held = all.map(|(version, (held, client))| {
            drop(client);
            (version, held)
        });
        for round in 0..2 {
            if round == 0 {
                node.kill();
            } else {
                assert!(node.terminate(fellbeck_tests::wait::EVENTUALLY).success());
            }
            node.start();
            for (version, held) in &held {
                let target = target(node, *version);
                let mut client = resume(&target, &held.hello);
                held.expect_again(&mut client);
                if round == 1 {
                    held.complete(&target, client);
                }
            }
        }
    });
}

/// [MQTT5-4.4.0-2] [MQTT5-4.3.3-4] A PUBACK or PUBREC from 0x80 on acknowledges: the message does not come again.
#[test]
fn a_refused_delivery_does_not_come_again() {
    on_each(|target| {
        let topic = unique("refused");
        let hello = absent(&target, "refused", &topic, 2);
        let mut publisher = target.client("refused-publisher");
        publisher.publish(&Publish::new(&topic, "one").qos(1));
        publisher.publish(&Publish::new(&topic, "two").qos(2));
        let mut client = resume(&target, &hello);
        let (one, two) = (client.expect_message("one"), client.expect_message("two"));
        client.send(&ack_with(AckKind::PubRec, two.id, 0x80));
        client.send(&ack_with(AckKind::PubAck, one.id, 0x99));
        client.ping();
        drop(client);
        resume(&target, &hello).ping();
    });
}

/// [MQTT5-4.4.0-1] [MQTT5-4.6.0-5] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT3-4.6.0-6] What comes again keeps its order and
/// comes before what is new, over many messages and several broken connections.
#[test]
fn what_comes_again_keeps_its_order() {
    on_each_version(|target| {
        let topic = unique("order");
        let hello = absent(&target, "order", &topic, 1);
        let mut publisher = target.client("order-publisher");
        let mut next = 0;
        let mut open: Vec<(u16, String)> = Vec::new();
        for round in 0..4 {
            let mut client = resume(&target, &hello);
            for (id, payload) in &open {
                let delivery = client.expect_message(payload);
                assert_eq!((delivery.id, delivery.dup), (*id, true));
            }
            for _ in 0..20 {
                publisher.publish(&Publish::new(&topic, next.to_string()).qos(1));
                let delivery = client.expect_message(&next.to_string());
                assert!(!delivery.dup);
                open.push((delivery.id, delivery.text()));
                next += 1;
            }
            // Every third one is acknowledged, the last first.
            for at in (0..open.len()).rev().filter(|at| at % 3 == round % 3) {
                client.send(&encode::ack(AckKind::PubAck, open[at].0));
            }
            let mut at = 0;
            open.retain(|_| {
                at += 1;
                (at - 1) % 3 != round % 3
            });
            client.ping();
            client.reset();
        }
    });
}

/// [MQTT5-3.1.2-4] [MQTT5-4.4.0-1] [MQTT3-3.1.2-6] After a clean start nothing comes again, neither messages nor
/// PUBREL.
#[test]
fn nothing_comes_again_after_a_clean_start() {
    on_each_version(|target| {
        let (held, client) = Held::new(&target);
        drop(client);
        let mut client = target.connect(&held.hello.clone().clean(true));
        client.ping();
        drop(client);
        // In 3.1.1 the clean session is gone as well.
        let (mut client, accepted) = Raw::connect(target.at, &held.hello);
        assert_eq!(accepted.session_present, target.is_v5());
        client.ping();
    });
}

/// [MQTT5-4.3.1-1] [MQTT5-4.4.0-1] [MQTT3-4.3.1-1] [MQTT3-4.4.0-1] A message of QoS 0 does not come again.
#[test]
fn qos_0_does_not_come_again() {
    on_each_version(|target| {
        let topic = unique("zero");
        let hello = absent(&target, "zero", &topic, 2);
        let mut client = resume(&target, &hello);
        let mut publisher = target.client("zero-publisher");
        publisher.publish(&Publish::new(&topic, "zero"));
        client.expect_message("zero");
        publisher.publish(&Publish::new(&topic, "one").qos(1));
        client.expect_message("one");
        client.reset();
        let mut client = resume(&target, &hello);
        assert!(client.expect_message("one").dup);
        client.ping();
    });
}

/// [MQTT5-3.3.1-1] [MQTT5-4.3.2-2] [MQTT5-4.3.3-2] [MQTT3-3.1.2-5] [MQTT3-4.3.2-1] What waited for an absent session
/// has DUP 0 when it is sent for the first time, also after a restart of the node.
#[test]
fn what_waited_has_dup_0() {
    on_own(&[], |node| {
        let topic = unique("waited");
        let hellos = Version::BOTH.map(|version| absent(&target(node, version), "waited", &topic, 2));
        let mut publisher = target(node, Version::V5).client("waited-publisher");
        for at in 0..10 {
            publisher.publish(&Publish::new(&topic, at.to_string()).qos(1 + at % 2));
        }
        node.kill();
        node.start();
        for hello in &hellos {
            let mut client = resume(&target(node, hello.version), hello);
            let all = take(&mut client, 10);
            assert!(all.iter().all(|delivery| !delivery.dup));
            for parity in [0, 1] {
                let one: Vec<_> = all.iter().filter(|one| one.qos == 1 + parity).cloned().collect();
                let wanted: Vec<String> = (0..10).filter(|at| at % 2 == parity).map(|at| at.to_string()).collect();
                assert_eq!(texts(&one), wanted);
            }
            client.ping();
        }
    });
}

/// Two messages are delivered right before the node is killed; they must be the first that come then, with DUP and
/// their identifiers.
fn kill_right_after_a_delivery(qos: u8) {
    on_own(&[], |node| {
        for version in Version::BOTH {
            let before = target(node, version);
            let topic = unique("right-before");
            let hello = absent(&before, "right-before", &topic, 2);
            let mut client = resume(&before, &hello);
            let mut publisher = before.client("right-before-publisher");
            // The identifiers differ from those that a session begins with.
            publisher.publish(&Publish::new(&topic, "zero").qos(qos));
            take(&mut client, 1);
            publisher.publish(&Publish::new(&topic, "one").qos(qos));
            publisher.publish(&Publish::new(&topic, "two").qos(qos));
            let held = [client.expect_message("one"), client.expect_message("two")];
            node.kill();
            node.start();
            let mut client = resume(&target(node, version), &hello);
            for delivery in &held {
                assert_eq!(client.expect_publish(), again(delivery), "{version:?}");
            }
            client.ping();
        }
    });
}

/// [MQTT5-4.4.0-1] [MQTT5-3.3.1-1] [MQTT3-4.4.0-1] [MQTT3-3.3.1-1] [MQTT3-4.1.0-1] At QoS 2 what was delivered right
/// before the node was killed comes again with DUP and its identifiers, and what was completed does not.
#[test]
fn qos_2_right_before_a_kill_comes_again_with_dup() {
    kill_right_after_a_delivery(2);
}

/// [MQTT5-3.3.1-1] [MQTT3-3.3.1-1] [MQTT3-4.1.0-1] At QoS 1 what was delivered right before the node was killed comes again, in
/// order and with DUP. So may what was acknowledged in the last second: cursors are not synced for each acknowledgement.
#[test]
fn qos_1_right_before_a_kill_comes_again_with_dup() {
    on_own(&[], |node| {
        for version in Version::BOTH {
            let before = target(node, version);
            let topic = unique("right-before");
            let hello = absent(&before, "right-before", &topic, 2);
            let mut client = resume(&before, &hello);
            let mut publisher = before.client("right-before-publisher");
            publisher.publish(&Publish::new(&topic, "zero").qos(1));
            take(&mut client, 1);
            publisher.publish(&Publish::new(&topic, "one").qos(1));
            publisher.publish(&Publish::new(&topic, "two").qos(1));
            client.expect_message("one");
            client.expect_message("two");
            node.kill();
            node.start();
            let after = target(node, version);
            let mut client = resume(&after, &hello);
            let mut publisher = after.client("right-before-publisher");
            publisher.publish(&Publish::new(&topic, "three").qos(1));
            let mut again = Vec::new();
            while again.last().is_none_or(|last: &Delivery| last.text() != "three") {
                again.push(client.expect_publish());
                client.acknowledge(again.last().expect("just pushed"));
            }
            let new = again.pop().expect("the loop ends with it");
            assert!(!new.dup, "{version:?}: it was never sent before");
            assert!(again.iter().all(|delivery| delivery.dup), "{version:?}: {again:?}");
            let came: Vec<_> = again.iter().map(|delivery| delivery.text()).collect();
            assert!(
                came == ["one", "two"] || came == ["zero", "one", "two"],
                "{version:?}: {came:?}"
            );
        }
    });
}
