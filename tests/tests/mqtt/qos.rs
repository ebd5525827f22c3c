//! QoS 1 and 2 with the node as sender (4.3.2, 4.3.3), on one connection.

use fellbeck_tests::mqtt::{AckKind, Answer, Publish, Raw, encode};

use crate::brokers::{on_each, on_each_version, unique};
use crate::pair::{Pair, absent, ack_with, resume, take};

/// [MQTT5-4.3.3-4] [MQTT5-2.2.1-5] [MQTT5-3.6.1-1] [MQTT3-4.3.3-1] [MQTT3-3.6.1-1] [MQTT3-2.3.1-6] PUBREC is answered
/// with PUBREL, its flags 0010 and its identifier that of the PUBLISH; after PUBCOMP nothing follows.
#[test]
fn a_pubrec_is_answered_with_pubrel() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "pubrec", 2);
        for _ in 0..3 {
            pair.publish(2, "x");
            let delivery = pair.to.expect_message("x");
            pair.to.send(&encode::ack(AckKind::PubRec, delivery.id));
            let [high, low] = delivery.id.to_be_bytes();
            let bytes = pair.to.recv_bytes().expect("PUBREL");
            assert_eq!(bytes, [0x62, 2, high, low]);
            pair.to.send(&encode::ack(AckKind::PubComp, delivery.id));
            pair.to.ping();
        }
    });
}

/// [MQTT5-4.3.3-4] [MQTT5-4.3.3-6] [MQTT3-4.3.3-1] A PUBREC that comes again before PUBCOMP is answered with PUBREL
/// again, never with PUBLISH.
#[test]
fn a_second_pubrec_gets_pubrel_again() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "pubrec-twice", 2);
        pair.publish(2, "x");
        let id = pair.to.expect_message("x").id;
        for _ in 0..3 {
            pair.to.send(&encode::ack(AckKind::PubRec, id));
            pair.to.expect_ack(AckKind::PubRel, id, 0);
        }
        pair.to.send(&encode::ack(AckKind::PubComp, id));
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT5-4.4.0-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] While the connection
/// lives nothing is sent again: neither PUBLISH nor PUBREL, however much else goes on.
#[test]
fn nothing_is_sent_again_on_a_live_connection() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "patience", 2);
        pair.publish(1, "one");
        let one = pair.to.expect_message("one");
        pair.publish(2, "two");
        let two = pair.to.expect_message("two");
        pair.publish(2, "three");
        let three = pair.to.expect_message("three");
        pair.to.send(&encode::ack(AckKind::PubRec, three.id));
        pair.to.expect_ack(AckKind::PubRel, three.id, 0);
        for at in 0..50 {
            pair.expect_nothing(at % 3);
        }
        pair.to.ping();
        pair.to.acknowledge(&one);
        pair.to.acknowledge(&two);
        pair.to.send(&encode::ack(AckKind::PubComp, three.id));
        pair.to.ping();
    });
}

/// [MQTT5-4.3.2-3] [MQTT5-4.3.3-3] [MQTT5-4.3.3-5] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1] Acknowledgements come in any order,
/// PUBREC before PUBACK, the last first: each completes its own message, and then nothing is left of the session's.
#[test]
fn acknowledgements_come_in_any_order() {
    on_each_version(|target| {
        let mut pair = Pair::with(&target, "mixed", 2, &target.hello("unused"));
        let hello = absent(&target, "mixed-away", &pair.topic, 2);
        for at in 0..24 {
            pair.publish(1 + at % 2, "x");
        }
        let mut client = resume(&target, &hello);
        let mut all: Vec<_> = (0..24).map(|_| client.expect_publish()).collect();
        all.reverse();
        let (twos, ones): (Vec<_>, Vec<_>) = all.into_iter().partition(|delivery| delivery.qos == 2);
        let mut burst = Vec::new();
        for (one, two) in ones.iter().zip(&twos) {
            burst.extend(encode::ack(AckKind::PubRec, two.id));
            burst.extend(encode::ack(AckKind::PubAck, one.id));
        }
        client.send(&burst);
        let mut released: Vec<u16> = twos.iter().map(|_| released(&mut client)).collect();
        released.rotate_left(5);
        client.send(
            &released
                .iter()
                .flat_map(|id| encode::ack(AckKind::PubComp, *id))
                .collect::<Vec<u8>>(),
        );
        released.sort_unstable();
        let mut wanted: Vec<u16> = twos.iter().map(|delivery| delivery.id).collect();
        wanted.sort_unstable();
        assert_eq!(released, wanted);
        client.ping();
        drop(client);
        resume(&target, &hello).ping();
        take(&mut pair.to, 24);
    });
}

fn released(client: &mut Raw) -> u16 {
    match client.recv() {
        Answer::Ack {
            kind: AckKind::PubRel,
            id,
            reason: 0,
            ..
        } => id,
        other => panic!("expected PUBREL, got {other:02x?}"),
    }
}

/// [MQTT5-4.3.3-4] [MQTT5-3.6.2-1] A PUBREC for an identifier that is not in use is answered with PUBREL 0x92, after
/// which nothing is awaited.
#[test]
fn a_pubrec_for_nothing_gets_pubrel_92() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "nothing", 2);
        for id in [1, 65_535] {
            pair.to.send(&encode::ack(AckKind::PubRec, id));
            pair.to.expect_ack(AckKind::PubRel, id, 0x92);
        }
        pair.publish(2, "x");
        let delivery = pair.to.expect_message("x");
        pair.to.acknowledge(&delivery);
        pair.to.ping();
        pair.to.send(&encode::ack(AckKind::PubRec, delivery.id));
        pair.to.expect_ack(AckKind::PubRel, delivery.id, 0x92);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-4.3.3-4] A PUBREC from 0x80 on is not answered, whether or not its identifier is in use.
#[test]
fn a_pubrec_that_says_failure_is_not_answered() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "failure", 2);
        pair.to.send(&ack_with(AckKind::PubRec, 1, 0x80));
        pair.to.ping();
        pair.publish(2, "x");
        let id = pair.to.expect_message("x").id;
        pair.to.send(&ack_with(AckKind::PubRec, id, 0x97));
        pair.to.ping();
        pair.to.send(&ack_with(AckKind::PubRec, id, 0x97));
        pair.to.ping();
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.4.2-1] [MQTT5-3.7.2-1] PUBACK and PUBCOMP for an identifier that is not in use change nothing.
#[test]
fn acknowledgements_for_nothing_change_nothing() {
    on_each_version(|target| {
        let mut pair = Pair::new(&target, "stray", 2);
        for kind in [AckKind::PubAck, AckKind::PubComp] {
            for id in [1, 2, 65_535] {
                pair.to.send(&encode::ack(kind, id));
            }
        }
        pair.to.ping();
        pair.expect_nothing(1);
        pair.expect_nothing(2);
    });
}

/// [MQTT5-2.2.1] [MQTT5-3.3.4-1] [MQTT5-4.3.3-4] [MQTT5-4.3.3-11] [MQTT3-3.3.4-1] [MQTT3-4.3.3-1] [MQTT3-4.3.3-2] A
/// client that has subscribed to what it publishes is sender and receiver at once: both exchanges are completed,
/// whatever order their packets come in.
#[test]
fn a_client_gets_what_it_publishes() {
    on_each_version(|target| {
        let topic = unique("own");
        let mut client = target.client("own");
        assert_eq!(client.subscribe(&topic, 2), 2);
        let messages = (1..=30).map(|id: u16| Publish::new(&topic, id.to_string()).qos(1 + (id % 2) as u8).id(id));
        let burst: Vec<u8> = messages.flat_map(|one| encode::publish(target.version, &one)).collect();
        client.send(&burst);
        let (mut acked, mut completed, mut got) = (0, 0, Vec::new());
        // Each message of QoS 2 is completed twice: as it came in and as it went out.
        while acked < 15 || completed < 30 || got.len() < 30 {
            match client.recv() {
                Answer::Publish(delivery) => {
                    let kind = if delivery.qos == 1 {
                        AckKind::PubAck
                    } else {
                        AckKind::PubRec
                    };
                    client.send(&encode::ack(kind, delivery.id));
                    got.push((delivery.qos, delivery.text()));
                }
                Answer::Ack { kind, id, reason, .. } => {
                    assert!(reason < 0x80, "{kind:?} {reason:#04x}");
                    match kind {
                        AckKind::PubAck => acked += 1,
                        AckKind::PubRec => client.send(&encode::ack(AckKind::PubRel, id)),
                        AckKind::PubRel => client.send(&encode::ack(AckKind::PubComp, id)),
                        AckKind::PubComp => {}
                    }
                    completed += usize::from(matches!(kind, AckKind::PubRel | AckKind::PubComp));
                }
                other => panic!("expected PUBLISH or an acknowledgement, got {other:02x?}"),
            }
        }
        client.ping();
        for qos in [1, 2] {
            let list: Vec<&str> = got
                .iter()
                .filter(|one| one.0 == qos)
                .map(|one| one.1.as_str())
                .collect();
            let wanted: Vec<String> = (1..=30)
                .filter(|id| 1 + id % 2 == qos)
                .map(|id: u8| id.to_string())
                .collect();
            assert_eq!(list, wanted);
        }
    });
}
