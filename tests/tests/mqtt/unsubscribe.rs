//! UNSUBSCRIBE and UNSUBACK (3.10, 3.11).

use fellbeck_tests::mqtt::{AckKind, Publish, encode};

use crate::brokers::{expect_nothing, expect_nothing_own, on_each, on_each_version, unique};
use crate::cases::{PROTOCOL_ERROR, case, each_ends};

/// [MQTT5-3.10.3-2] [MQTT3-3.10.3-2] [MQTT3-4.8.0-1] An UNSUBSCRIBE without a filter is a protocol error.
#[test]
fn an_unsubscribe_needs_a_filter() {
    on_each_version(|target| {
        let bytes = encode::unsubscribe(target.version, 1, &[]);
        each_ends(target, [case("no filter", bytes, PROTOCOL_ERROR)]);
    });
}

/// [MQTT5-3.10.4-4] [MQTT5-3.10.4-5] [MQTT5-3.10.4-6] [MQTT5-3.11.3-1] [MQTT5-3.11.3-2] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5] [MQTT3-3.10.4-6]
/// Several filters get one UNSUBACK, in 5.0 with a code for each in their order: deleted (0x00) or not there (0x11).
#[test]
fn an_unsuback_answers_each_filter_in_order() {
    on_each_version(|target| {
        let [a, b, c] = ["a", "b", "c"].map(|name| unique(&format!("several/{name}")));
        let mut client = target.client("several");
        client.subscribe_all(&[], &[(&a, 0), (&c, 0)]);
        let codes = client.unsubscribe(&[&a, &b, &c, &a]);
        let wanted: &[u8] = if target.is_v5() { &[0, 0x11, 0, 0x11] } else { &[] };
        assert_eq!(codes, wanted);
        client.unsubscribe(&[&b]);
        for topic in [&a, &c] {
            client.publish(&Publish::new(topic, "never"));
        }
        expect_nothing_own(&mut client);
    });
}

/// [MQTT5-3.10.4-1] [MQTT3-3.10.4-1] Only the filter that is equal to the character is deleted: not those that match it, that it matches,
/// or that differ in case, a separator or the share.
#[test]
fn filters_are_compared_character_by_character() {
    on_each_version(|target| {
        let base = unique("compare");
        let topic = format!("{base}/a");
        let mut client = target.client("compare");
        assert_eq!(client.subscribe(&topic, 0), 0);
        let upper = topic.to_uppercase();
        let others = [
            format!("{base}/+"),
            format!("{base}/#"),
            "#".to_owned(),
            format!("{topic}/"),
            format!("/{topic}"),
            format!("{topic}/#"),
            format!("$share/g/{topic}"),
            upper,
            format!("{topic} "),
        ];
        for other in &others {
            let codes = client.unsubscribe(&[other]);
            assert!(codes.iter().all(|code| *code == 0x11), "{other}: {codes:02x?}");
        }
        client.publish(&Publish::new(&topic, "still"));
        client.expect_message("still");
        client.unsubscribe(&[&topic]);
        client.publish(&Publish::new(&topic, "never"));
        expect_nothing_own(&mut client);
    });
}

/// [MQTT5-3.10.4-1] [MQTT3-3.10.4-1] A filter with wildcards is deleted as such, and another subscription that matches goes on.
#[test]
fn a_filter_with_wildcards_is_deleted_alone() {
    on_each_version(|target| {
        let base = unique("wild");
        let (topic, wild) = (format!("{base}/a"), format!("{base}/+"));
        let mut client = target.client("wild");
        client.subscribe_all(&[], &[(&topic, 0), (&wild, 0)]);
        client.unsubscribe(&[&wild]);
        client.publish(&Publish::new(format!("{base}/b").as_str(), "never"));
        client.publish(&Publish::new(&topic, "still"));
        client.expect_message("still");
        expect_nothing_own(&mut client);
    });
}

/// [MQTT5-3.10.4-2] [MQTT5-3.10.4-3] [MQTT3-3.10.4-2] [MQTT3-3.10.4-3] After UNSUBACK no message is added, while exchanges of QoS 1 and 2
/// that had begun are completed, also on a new connection.
#[test]
fn started_deliveries_are_completed_after_unsubscribe() {
    on_each_version(|target| {
        let topic = unique("started");
        let hello = fellbeck_tests::mqtt::Connect::kept(target.version, unique("started"));
        let mut client = target.connect(&hello);
        assert_eq!(client.subscribe(&topic, 2), 2);
        let mut sender = target.client("started-sender");
        for qos in [1, 2, 2] {
            sender.publish(&Publish::new(&topic, "begun").qos(qos));
        }
        let deliveries = [(); 3].map(|()| client.expect_message("begun"));
        client.unsubscribe(&[&topic]);
        for qos in 0..3 {
            sender.publish(&Publish::new(&topic, "never").qos(qos));
        }
        client.acknowledge(&deliveries[1]);
        expect_nothing(&mut client, &mut sender);
        drop(client);
        let mut client = target.connect(&hello);
        for open in [&deliveries[0], &deliveries[2]] {
            let again = client.expect_message("begun");
            assert_eq!((again.id, again.qos, again.dup), (open.id, open.qos, true));
            client.send(&encode::ack(
                if open.qos == 1 {
                    AckKind::PubAck
                } else {
                    AckKind::PubRec
                },
                open.id,
            ));
        }
        client.expect_ack(AckKind::PubRel, deliveries[2].id, 0);
        client.send(&encode::ack(AckKind::PubComp, deliveries[2].id));
        client.ping();
    });
}

/// [MQTT5-3.10.4-2] [MQTT5-3.11.3-2] A shared subscription is deleted by its whole filter, and the rest of the share goes on.
#[test]
fn a_shared_subscription_is_deleted_by_its_whole_filter() {
    on_each(|target| {
        let topic = unique("share");
        let shared = format!("$share/g/{topic}");
        let (mut leaver, mut stayer) = (target.client("leaver"), target.client("stayer"));
        assert_eq!((leaver.subscribe(&shared, 1), stayer.subscribe(&shared, 1)), (1, 1));
        assert_eq!(leaver.unsubscribe(&[&topic, &shared]), [0x11, 0]);
        let mut sender = target.client("share-sender");
        for n in 0..4 {
            sender.publish(&Publish::new(&topic, n.to_string()).qos(1));
            let delivery = stayer.expect_message(&n.to_string());
            stayer.acknowledge(&delivery);
        }
        expect_nothing(&mut leaver, &mut sender);
    });
}
