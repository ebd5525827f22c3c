//! Retained messages (3.3.1.3): stored, replaced, removed, sent at subscribe, durable.

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Delivery, Publish, Raw, Version};

use crate::brokers::{Target, on_each, on_each_v3, on_each_version, on_own, target, unique};
use crate::pair::{Pair, absent, elapse, resume, take, take_until, texts};

/// Retain Handling in the Subscription Options.
const WHEN_NEW: u8 = 0x10;
const NEVER: u8 = 0x20;
/// Retain As Published in the Subscription Options.
const AS_PUBLISHED: u8 = 0x08;

/// What a new subscriber gets, up to a marker that is published to `marker` behind its subscription.
fn snapshot(target: &Target, filter: &str, options: u8, marker: &str) -> Vec<Delivery> {
    let mut client = target.client("snapshot");
    assert_eq!(client.subscribe(filter, options), options & 3);
    up_to_marker(target, &mut client, marker)
}

/// What the client gets until a marker that is published now. The marker is not retained.
fn up_to_marker(target: &Target, client: &mut Raw, marker: &str) -> Vec<Delivery> {
    target.client("marker").publish(&Publish::new(marker, "marker").qos(1));
    take_until(client, "marker")
}

/// [MQTT5-3.3.1-5] [MQTT5-3.3.1.3] [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-7] [MQTT3-3.3.1-8] The newest retained
/// message of a topic, of any QoS, goes to each new subscriber, once, with RETAIN 1 and DUP 0, at its QoS or that of
/// the subscription.
#[test]
fn the_newest_retained_message_goes_to_new_subscribers() {
    on_each_version(|target| {
        let topic = unique("newest");
        let mut publisher = target.client("newest");
        for (at, qos) in [1, 0, 2, 1, 0].into_iter().enumerate() {
            publisher.publish(&Publish::new(&topic, at.to_string()).qos(qos).retain());
            publisher.ping();
            for granted in [0, 1, 2] {
                let got = snapshot(&target, &topic, granted, &topic);
                assert_eq!(texts(&got), [at.to_string()]);
                assert_eq!((got[0].retain, got[0].dup, got[0].qos), (true, false, qos.min(granted)));
                assert_eq!(got[0].topic, topic);
            }
        }
    });
}

/// [MQTT5-3.3.1-8] [MQTT3-3.3.1-12] A message without RETAIN changes nothing, also one with an empty payload.
#[test]
fn a_message_without_retain_changes_no_retained_message() {
    on_each_version(|target| {
        let (topic, never) = (unique("unchanged"), unique("never"));
        let mut publisher = target.client("unchanged");
        publisher.publish(&Publish::new(&topic, "kept").qos(1).retain());
        for (payload, qos) in [("other", 0), ("other", 1), ("other", 2), ("", 0), ("", 1), ("", 2)] {
            publisher.publish(&Publish::new(&topic, payload).qos(qos));
            publisher.publish(&Publish::new(&never, payload).qos(qos));
        }
        publisher.ping();
        assert_eq!(texts(&snapshot(&target, &topic, 1, &topic)), ["kept"]);
        assert_eq!(texts(&snapshot(&target, &never, 1, &never)), [] as [&str; 0]);
    });
}

/// [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11] An empty payload with RETAIN removes what is
/// retained, at each QoS and with properties too; it is delivered as usual to those that have subscribed, and never
/// kept itself.
#[test]
fn an_empty_retained_message_removes() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "remove", 2);
        for qos in [0, 1, 2] {
            let message = pair.message("kept").qos(qos).retain();
            pair.from.publish(&message);
            let empty = pair.message("").qos(qos).retain();
            let empty = if target.is_v5() {
                empty
                    .property(property::user("k", "v"))
                    .property(property::message_expiry(100))
            } else {
                empty
            };
            pair.from.publish(&empty);
            let got = take(&mut pair.to, 2);
            assert_eq!(texts(&got), ["kept", ""]);
            assert!(got.iter().all(|delivery| !delivery.retain && delivery.qos == qos));
            pair.from.ping();
            assert_eq!(snapshot(&target, &pair.topic, 2, &pair.topic), []);
            take(&mut pair.to, 1);
            // Once more, when there is nothing to remove.
            pair.from.publish(&empty);
            assert_eq!(texts(&take(&mut pair.to, 1)), [""]);
            assert_eq!(snapshot(&target, &pair.topic, 2, &pair.topic), []);
            take(&mut pair.to, 1);
        }
    });
}

/// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] Without Retain As Published what an established subscription gets has RETAIN 0,
/// with it RETAIN as it came; live, and from the queue of an absent session.
#[test]
fn retain_as_published_decides_what_is_forwarded() {
    on_each(|target| {
        let topic = unique("forward");
        for options in [1, 1 | AS_PUBLISHED] {
            let mut live = target.client("forward");
            assert_eq!(live.subscribe(&topic, options | NEVER), 1);
            let away = absent(&target, "forward-away", &topic, options | NEVER);
            let mut publisher = target.client("forward-publisher");
            for retain in [true, false, true] {
                let message = Publish::new(&topic, retain.to_string()).qos(1);
                publisher.publish(&Publish { retain, ..message });
            }
            for mut client in [live, resume(&target, &away)] {
                for delivery in take(&mut client, 3) {
                    let was = delivery.text() == "true";
                    assert_eq!(delivery.retain, was && options & AS_PUBLISHED != 0, "{delivery:?}");
                }
                client.ping();
            }
        }
    });
}

/// [MQTT5-3.3.1-12] [MQTT5-3.3.1.3] What is sent because of a new subscription has RETAIN 1 with and without Retain As
/// Published; a copy for several subscriptions has it if one of them asks for it.
#[test]
fn a_new_subscription_gets_retain_1_whatever_it_asks_for() {
    on_each(|target| {
        let root = unique("asks");
        let topic = format!("{root}/a");
        let mut publisher = target.client("asks");
        publisher.publish(&Publish::new(&topic, "kept").qos(1).retain());
        for options in [1, 1 | AS_PUBLISHED] {
            let got = snapshot(&target, &topic, options, &topic);
            assert_eq!((texts(&got), got[0].retain), (vec!["kept".to_owned()], true));
        }
        let mut client = target.client("asks-both");
        assert_eq!(client.subscribe(&topic, 1 | NEVER), 1);
        assert_eq!(client.subscribe(&format!("{root}/#"), 1 | NEVER | AS_PUBLISHED), 1);
        publisher.publish(&Publish::new(&topic, "both").qos(1).retain());
        assert!(take(&mut client, 1)[0].retain);
        client.ping();
    });
}

/// [MQTT3-3.3.1-9] What an established subscription gets has RETAIN 0, live and from the queue of an absent session.
#[test]
fn an_established_subscription_gets_retain_0() {
    on_each_v3(|target| {
        let mut pair = Pair::new(&target, "established", 2);
        let away = absent(&target, "established-away", &pair.topic, 2);
        for qos in [0, 1, 2] {
            let message = pair.message("x").qos(qos).retain();
            pair.from.publish(&message);
            assert!(!take(&mut pair.to, 1)[0].retain);
        }
        assert!(
            take(&mut resume(&target, &away), 2)
                .iter()
                .all(|delivery| !delivery.retain)
        );
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-3.8.4-4] [MQTT3-3.8.4-3] [MQTT3-3.3.1-6] Retain Handling 0, and 3.1.1: each subscribe brings
/// the retained messages again, a repeated one too.
#[test]
fn retain_handling_0_sends_at_each_subscribe() {
    on_each_version(|target| {
        let topic = unique("handling0");
        target
            .client("handling0")
            .publish(&Publish::new(&topic, "kept").qos(1).retain());
        let mut client = target.client("handling0-reader");
        for _ in 0..3 {
            assert_eq!(client.subscribe(&topic, 1), 1);
            let got = up_to_marker(&target, &mut client, &topic);
            assert_eq!((texts(&got), got[0].retain), (vec!["kept".to_owned()], true));
        }
    });
}

/// [MQTT5-3.3.1-10] Retain Handling 1: a new subscription brings them, a repeated one does not, also after a reconnect;
/// after UNSUBSCRIBE it is new.
#[test]
fn retain_handling_1_sends_to_new_subscriptions() {
    on_each(|target| {
        let topic = unique("handling1");
        target
            .client("handling1")
            .publish(&Publish::new(&topic, "kept").qos(1).retain());
        let hello = absent(&target, "handling1-reader", "no/match", 1);
        let mut client = resume(&target, &hello);
        for is_new in [true, false, false] {
            assert_eq!(client.subscribe(&topic, 1 | WHEN_NEW), 1);
            let got = up_to_marker(&target, &mut client, &topic);
            assert_eq!(got.len(), usize::from(is_new), "{got:?}");
        }
        client.disconnect();
        let mut client = resume(&target, &hello);
        assert_eq!(client.subscribe(&topic, 2 | WHEN_NEW), 2);
        assert_eq!(up_to_marker(&target, &mut client, &topic), []);
        assert_eq!(client.unsubscribe(&[&topic]), [0]);
        assert_eq!(client.subscribe(&topic, 1 | WHEN_NEW), 1);
        assert_eq!(texts(&up_to_marker(&target, &mut client, &topic)), ["kept"]);
    });
}

/// [MQTT5-3.3.1-11] Retain Handling 2: no subscribe brings them, neither a new one nor a repeated one.
#[test]
fn retain_handling_2_sends_nothing() {
    on_each(|target| {
        let topic = unique("handling2");
        target
            .client("handling2")
            .publish(&Publish::new(&topic, "kept").qos(1).retain());
        let mut client = target.client("handling2-reader");
        for _ in 0..2 {
            assert_eq!(client.subscribe(&topic, 1 | NEVER), 1);
            assert_eq!(up_to_marker(&target, &mut client, &topic), []);
        }
        assert_eq!(client.subscribe(&topic, 1), 1);
        assert_eq!(texts(&up_to_marker(&target, &mut client, &topic)), ["kept"]);
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.2-3] [MQTT3-3.3.1-6] A filter with wildcards brings the retained message of each matching
/// topic, once, and of no other.
#[test]
fn wildcards_bring_all_that_match() {
    on_each_version(|target| {
        let root = unique("tree");
        let mut publisher = target.client("tree");
        let topics: Vec<String> = (0..60).map(|at| format!("{root}/{}/{at}", at % 3)).collect();
        for (at, topic) in topics.iter().enumerate() {
            publisher.publish(&Publish::new(topic, at.to_string()).qos((at % 3) as u8).retain());
        }
        publisher.publish(&Publish::new(&root, "parent").qos(1).retain());
        publisher.publish(&Publish::new(&format!("{root}x/0/0"), "other").qos(1).retain());
        for (filter, wanted) in [
            (format!("{root}/#"), 61),
            (format!("{root}/+/+"), 60),
            (format!("{root}/1/+"), 20),
            (format!("{root}/+"), 0),
        ] {
            let mut client = target.client("tree-reader");
            let marker = unique("tree-marker");
            assert_eq!(client.subscribe_all(&[], &[(&marker, 1), (&filter, 2)]), [1, 2]);
            let mut got = texts(&take(&mut client, wanted));
            got.sort();
            got.dedup();
            assert_eq!(got.len(), wanted);
            assert_eq!(up_to_marker(&target, &mut client, &marker), []);
        }
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-3.8.4-5] [MQTT3-3.3.1-6] [MQTT3-3.8.4-4] Each filter of a SUBSCRIBE brings its own, also
/// where they overlap.
#[test]
fn each_filter_of_a_subscribe_brings_its_own() {
    on_each_version(|target| {
        let root = unique("filters");
        let topic = format!("{root}/a");
        target
            .client("filters")
            .publish(&Publish::new(&topic, "kept").qos(2).retain());
        let mut client = target.client("filters-reader");
        let filters = [(topic.as_str(), 0), (&format!("{root}/#"), 1), ("no/match", 2)];
        assert_eq!(client.subscribe_all(&[], &filters), [0, 1, 2]);
        let got = take(&mut client, 2);
        assert!(got.iter().all(|delivery| delivery.retain && delivery.text() == "kept"));
        let mut qos: Vec<u8> = got.iter().map(|delivery| delivery.qos).collect();
        qos.sort_unstable();
        assert_eq!(qos, [0, 1]);
        assert_eq!(up_to_marker(&target, &mut client, &topic), []);
    });
}

/// [MQTT5-3.3.1-5] [MQTT5-3.3.1-6] [MQTT5-4.1] [MQTT3-3.1.2-7] [MQTT3-3.3.1-5] [MQTT3-3.3.1-10] A retained message
/// stays when the session that published it ends, and the node is killed and started again; one that was removed stays
/// away.
#[test]
fn retained_messages_outlive_session_and_restart() {
    on_own(&[], |node| {
        let root = unique("durable");
        let before = target(node, Version::V5);
        let mut publisher = before.client("durable");
        for qos in [0, 1, 2] {
            for end in ["kept", "removed", "replaced"] {
                publisher.publish(&Publish::new(&format!("{root}/{end}/{qos}"), end).qos(qos).retain());
            }
            publisher.publish(&Publish::new(&format!("{root}/removed/{qos}"), "").qos(qos).retain());
            publisher.publish(&Publish::new(&format!("{root}/replaced/{qos}"), "new").qos(qos).retain());
        }
        // The PUBACK says that all before it is durable too.
        publisher.publish(&Publish::new(&format!("{root}/last"), "last").qos(1).retain());
        publisher.disconnect();
        for round in 0..2 {
            if round == 0 {
                node.kill();
            } else {
                assert!(node.terminate(fellbeck_tests::wait::EVENTUALLY).success());
            }
            node.start();
            for version in Version::BOTH {
                let after = target(node, version);
                let mut client = after.client("durable-reader");
                assert_eq!(client.subscribe(&format!("{root}/#"), 2), 2);
                let mut got = texts(&take(&mut client, 7));
                got.sort();
                assert_eq!(got, ["kept", "kept", "kept", "last", "new", "new", "new"]);
                client.ping();
                assert_eq!(up_to_marker(&after, &mut client, &format!("{root}/x")), []);
            }
        }
    });
}

/// [MQTT5-3.3.1-5] [MQTT5-3.3.2-5] A retained message with an interval is removed when that has passed; one without
/// takes its place for good, and the interval of the older one does not remove the newer.
#[test]
fn the_interval_of_a_replaced_message_is_gone_with_it() {
    on_each(|target| {
        let topic = unique("interval");
        let mut publisher = target.client("interval");
        publisher.publish(
            &Publish::new(&topic, "old")
                .qos(1)
                .retain()
                .property(property::message_expiry(1)),
        );
        publisher.publish(&Publish::new(&topic, "new").qos(1).retain());
        elapse(&target, 2);
        let got = snapshot(&target, &topic, 1, &topic);
        assert_eq!((texts(&got), got[0].properties.len()), (vec!["new".to_owned()], 0));
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-4.4.0-1] [MQTT5-4.3.3-4] [MQTT3-3.3.1-6] [MQTT3-4.4.0-1] A retained message in flight is a
/// delivery like any other: unacknowledged it comes again at a reconnect, with RETAIN 1.
#[test]
fn an_unacknowledged_retained_delivery_comes_again() {
    on_each_version(|target| {
        let topic = unique("flight");
        for qos in [1, 2] {
            target
                .client("flight")
                .publish(&Publish::new(&topic, "kept").qos(qos).retain());
            let hello = absent(&target, "flight-reader", "no/match", 0);
            let mut client = resume(&target, &hello);
            assert_eq!(client.subscribe(&topic, 2), 2);
            let first = client.expect_message("kept");
            client.reset();
            let mut client = resume(&target, &hello);
            let again = client.expect_message("kept");
            assert_eq!(again, Delivery { dup: true, ..first });
            client.acknowledge(&again);
            client.ping();
            assert_eq!(up_to_marker(&target, &mut client, &topic), []);
        }
    });
}
