//! QoS 1 and 2 with the node as receiver (4.3.2, 4.3.3): identifiers that come again, before and after the release.

use fellbeck_tests::mqtt::{AckKind, Connect, Publish, Raw, Version, encode};

use crate::brokers::{on_each, on_each_version, on_own, target, unique};
use crate::pair::{Pair, absent, resume, take, texts};

/// Sends PUBLISH at QoS 2 and demands PUBREC; the release is left to the test.
fn send_received(client: &mut Raw, message: &Publish) {
    client.send_publish(message);
    client.expect_ack(AckKind::PubRec, message.id, 0);
}

/// PUBREL, and the PUBCOMP that answers it.
fn release(client: &mut Raw, id: u16) {
    client.send(&encode::ack(AckKind::PubRel, id));
    client.expect_ack(AckKind::PubComp, id, 0);
}

/// [MQTT5-4.3.2-4] [MQTT5-4.3.2-5] [MQTT3-4.3.2-2] [MQTT3-2.3.1-3] After its PUBACK an identifier is a new message each
/// time, whatever DUP says.
#[test]
fn an_acknowledged_identifier_is_a_new_message() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "reuse", 1);
        for (payload, dup) in [("a", false), ("a", true), ("b", true), ("a", false)] {
            let message = Publish {
                dup,
                ..pair.message(payload).qos(1).id(65_535)
            };
            pair.from.publish(&message);
        }
        assert_eq!(texts(&take(&mut pair.to, 4)), ["a", "a", "b", "a"]);
        pair.expect_nothing(1);
    });
}

/// [MQTT5-4.3.3-10] [MQTT5-4.3.3-8] [MQTT3-4.3.3-2] Until PUBREL a PUBLISH with the identifier gets PUBREC again and is
/// not delivered again, with DUP or without, with the same payload or another.
#[test]
fn a_message_that_is_not_released_is_delivered_once() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "once", 2);
        for id in [1, 65_535] {
            let first = pair.message("first").qos(2).id(id);
            let burst = [
                first.clone(),
                first.clone().dup(),
                pair.message("second").qos(2).id(id),
                first.dup(),
            ];
            let bytes: Vec<u8> = burst
                .iter()
                .flat_map(|one| encode::publish(target.version, one))
                .collect();
            pair.from.send(&bytes);
            (0..4).for_each(|_| pair.from.expect_ack(AckKind::PubRec, id, 0));
            release(&mut pair.from, id);
            assert_eq!(texts(&take(&mut pair.to, 1)), ["first"]);
        }
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-11] [MQTT5-4.3.3-12] [MQTT3-4.3.3-2] [MQTT3-2.3.1-3] After its PUBCOMP an identifier is a new message
/// each time, whatever DUP says.
#[test]
fn a_released_identifier_is_a_new_message() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "released", 2);
        for (payload, dup) in [("a", false), ("a", true), ("b", true), ("a", false)] {
            let message = Publish {
                dup,
                ..pair.message(payload).qos(2).id(7)
            };
            send_received(&mut pair.from, &message);
            release(&mut pair.from, 7);
        }
        assert_eq!(texts(&take(&mut pair.to, 4)), ["a", "a", "b", "a"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-11] [MQTT5-3.7.2-1] [MQTT3-4.3.3-2] PUBREL is answered with PUBCOMP each time it comes; in 5.0 with
/// 0x92 once the identifier is unknown.
#[test]
fn each_pubrel_gets_a_pubcomp() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "pubrel", 2);
        let unknown = if target.is_v5() { 0x92 } else { 0 };
        let message = pair.message("x").qos(2).id(3);
        send_received(&mut pair.from, &message);
        pair.from.send(
            &[
                encode::ack(AckKind::PubRel, 3),
                encode::ack(AckKind::PubRel, 3),
                encode::ack(AckKind::PubRel, 9),
            ]
            .concat(),
        );
        pair.from.expect_ack(AckKind::PubComp, 3, 0);
        pair.from.expect_ack(AckKind::PubComp, 3, unknown);
        pair.from.expect_ack(AckKind::PubComp, 9, unknown);
        assert_eq!(texts(&take(&mut pair.to, 1)), ["x"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-10] [MQTT3-4.3.3-2] Many exchanges go on at once and are released in another order than they began; a
/// QoS 1 message between them may not disturb them.
#[test]
fn releases_come_in_any_order() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "any-order", 2);
        let ids = [65_535, 2, 1, 300, 256, 255];
        for (at, id) in ids.into_iter().enumerate() {
            let message = pair.message(format!("{at}")).qos(2).id(id);
            send_received(&mut pair.from, &message);
        }
        let between = pair.message("between").qos(1).id(3);
        pair.from.publish(&between);
        for id in [255, 65_535, 1, 2] {
            release(&mut pair.from, id);
        }
        // 2 is a new message by now, 300 still the old one.
        for (id, payload) in [(2, "new"), (300, "old")] {
            let message = pair.message(payload).qos(2).id(id).dup();
            send_received(&mut pair.from, &message);
        }
        [300, 256, 2].into_iter().for_each(|id| release(&mut pair.from, id));
        let mut got = texts(&take(&mut pair.to, 8));
        got.retain(|payload| payload != "between");
        assert_eq!(got, ["0", "1", "2", "3", "4", "5", "new"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-10] [MQTT5-4.1] [MQTT3-4.3.3-2] [MQTT3-4.1.0-1] What was received and not released is known after a
/// reconnect of the publisher: sent again it is not delivered again, and its release completes it.
#[test]
fn an_unreleased_message_is_known_after_a_reconnect() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "resent", 2);
        let hello = Connect::kept(target.version, unique("resent"));
        let message = pair.message("x").qos(2).id(11);
        let mut publisher = target.connect(&hello);
        send_received(&mut publisher, &message);
        publisher.reset();
        let mut publisher = resume(&target, &hello);
        send_received(&mut publisher, &message.clone().dup());
        drop(publisher);
        let mut publisher = resume(&target, &hello);
        release(&mut publisher, 11);
        send_received(&mut publisher, &message.dup());
        assert_eq!(texts(&take(&mut pair.to, 2)), ["x", "x"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-10] [MQTT5-4.1] [MQTT3-4.3.3-2] [MQTT3-4.1.0-1] What was received and not released is known after the
/// node was killed and started again.
#[test]
fn an_unreleased_message_is_known_after_a_restart() {
    on_own(&[], |node| {
        let topic = unique("restart");
        let hellos = Version::BOTH.map(|version| Connect::kept(version, unique("restart")));
        let reader = absent(&target(node, Version::V5), "restart-reader", &topic, 2);
        for hello in &hellos {
            let mut publisher = target(node, hello.version).connect(hello);
            send_received(&mut publisher, &Publish::new(&topic, "x").qos(2).id(65_535));
        }
        node.kill();
        node.start();
        for hello in &hellos {
            let mut publisher = resume(&target(node, hello.version), hello);
            send_received(&mut publisher, &Publish::new(&topic, "x").qos(2).id(65_535).dup());
            release(&mut publisher, 65_535);
            send_received(&mut publisher, &Publish::new(&topic, "y").qos(2).id(65_535));
        }
        let mut reader = resume(&target(node, Version::V5), &reader);
        assert_eq!(texts(&take(&mut reader, 4)), ["x", "x", "y", "y"]);
        reader.ping();
    });
}

/// [MQTT5-3.1.2-4] [MQTT5-4.3.3-10] [MQTT3-3.1.2-6] A clean connection forgets what was received and not released: the
/// same identifier is a new message.
#[test]
fn a_clean_start_forgets_what_was_not_released() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "forgotten", 2);
        let hello = Connect::kept(target.version, unique("forgotten"));
        let message = pair.message("x").qos(2).id(1);
        let mut publisher = target.connect(&hello);
        send_received(&mut publisher, &message);
        drop(publisher);
        let mut publisher = target.connect(&hello.clean(true));
        send_received(&mut publisher, &message.dup());
        assert_eq!(texts(&take(&mut pair.to, 2)), ["x", "x"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-9] A PUBLISH refused in PUBREC leaves nothing: the same identifier, with DUP too, is a new message, and
/// a PUBREL for it unknown.
#[test]
fn a_refused_identifier_is_a_new_message() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "refused", 2);
        let refused = Publish::new("$SYS/refused", "x").qos(2).id(5);
        for _ in 0..2 {
            pair.from.send_publish(&refused);
            pair.from.expect_ack(AckKind::PubRec, 5, 0x87);
        }
        pair.from.send(&encode::ack(AckKind::PubRel, 5));
        pair.from.expect_ack(AckKind::PubComp, 5, 0x92);
        let message = pair.message("new").qos(2).id(5).dup();
        send_received(&mut pair.from, &message);
        release(&mut pair.from, 5);
        assert_eq!(texts(&take(&mut pair.to, 1)), ["new"]);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.5.0-1] [MQTT3-4.5.0-1] [MQTT3-3.1.2-5] A message that the node has acknowledged reaches every session with
/// a matching subscription, present or absent, of either version, each at its own QoS.
#[test]
fn a_message_goes_to_every_matching_session() {
    on_each_version(|target| {
        let root = unique("every");
        let topic = format!("{root}/a/b");
        let filters = [format!("{root}/#"), topic.clone(), format!("{root}/+/b")];
        let mut present = Vec::new();
        let mut away = Vec::new();
        for filter in &filters {
            for qos in [1, 2] {
                let mut client = target.client("every");
                assert_eq!(client.subscribe(filter, qos), qos);
                present.push((client, qos));
                away.push((absent(&target, "every-away", filter, qos), qos));
            }
        }
        let mut publisher = target.client("every-publisher");
        for qos in [1, 2] {
            publisher.publish(&Publish::new(&topic, format!("{qos}")).qos(qos));
        }
        let back = away.iter().map(|(hello, qos)| (resume(&target, hello), *qos));
        for (mut client, granted) in back.chain(present) {
            let one = take(&mut client, 2);
            let wanted = [("1".to_owned(), 1), ("2".to_owned(), granted)];
            let mut got: Vec<_> = one.iter().map(|delivery| (delivery.text(), delivery.qos)).collect();
            got.sort();
            assert_eq!(got, wanted);
            client.ping();
        }
    });
}
