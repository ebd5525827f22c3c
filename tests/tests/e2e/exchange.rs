//! T07 and the device's resends: kill -9 and cuts at every step of an acknowledged exchange, in both directions.
//!
//! In: a device that keeps its session and carries each exchange on where it was broken. Out: at QoS 2 each message once, at QoS 1 a
//! message once whose PUBACK the crash took, and no new message is ever taken for an old one.

use std::collections::HashSet;

use fellbeck_tests::mqtt::{AckKind, Answer, Connect, Publish, Raw, Version, encode};
use fellbeck_tests::{Kind, Node, Site, World, names, wait};

/// Exchanges per test: one break each.
const EXCHANGES: usize = 52;

/// Ends the connection at this place: kill -9 of the node, or a reset of the socket.
fn break_off(node: &mut Node, device: Raw, round: usize) {
    if round.is_multiple_of(2) {
        node.kill();
        drop(device);
        node.start();
    } else {
        device.reset();
    }
}

fn resume(node: &Node, version: Version, client: &str) -> Raw {
    let (device, accepted) = Raw::connect(node.ready().mqtt, &Connect::kept(version, client));
    assert!(accepted.session_present, "the session outlives a kill");
    device
}

fn lane_end(edge: &Node) -> usize {
    edge.metric(names::TRACK_END, names::DEFAULT_LANE) as usize
}

/// Exchange `round` on a node, broken off behind its step `round / 2 % 4`, and carried on to its end.
fn exchange(node: &mut Node, mut device: Raw, version: Version, round: usize) -> Raw {
    // The same packet ID every time: what is complete must not stand in the way of the next.
    let message = Publish::new("site/d/state", format!("{round}")).qos(2).id(7);
    let again = message.clone().dup();
    let step = round / 2 % 4;
    device.send_publish(&message);
    if step == 0 {
        break_off(node, device, round);
        device = resume(node, version, "d");
        device.send_publish(&again);
    }
    expect(&mut device, AckKind::PubRec);
    if step == 1 {
        break_off(node, device, round);
        device = resume(node, version, "d");
    }
    device.send(&encode::ack(AckKind::PubRel, 7));
    if step == 2 {
        break_off(node, device, round);
        device = resume(node, version, "d");
        device.send(&encode::ack(AckKind::PubRel, 7));
    }
    expect(&mut device, AckKind::PubComp);
    if step == 3 {
        break_off(node, device, round);
        device = resume(node, version, "d");
    }
    device
}

/// An acknowledgement of packet ID 7. PUBCOMP may say that the ID is not known: the release was complete before.
fn expect(device: &mut Raw, wanted: AckKind) {
    match device.recv() {
        Answer::Ack {
            kind, id: 7, reason, ..
        } if kind == wanted && (reason < 0x80 || wanted == AckKind::PubComp) => {}
        other => panic!("expected {wanted:?}, got {other:?}"),
    }
}

#[test]
fn t07_a_qos2_publish_broken_off_at_any_step_is_stored_once() {
    for version in Version::BOTH {
        let mut world = World::start();
        let mut device = Raw::connected(world.edge.ready().mqtt, &Connect::kept(version, "d"));
        for round in 0..EXCHANGES / 2 {
            device = exchange(&mut world.edge, device, version, round);
        }
        assert_eq!(
            lane_end(&world.edge),
            EXCHANGES / 2,
            "{version:?}: one record per message"
        );
        world.await_drained();
        assert_eq!(world.records_in_log(), EXCHANGES / 2);
    }
}

/// A subscriber at QoS 2 as the standard wants it: it knows the packet IDs that are not released.
#[derive(Default)]
struct Subscriber {
    unreleased: HashSet<u16>,
    got: Vec<String>,
}

impl Subscriber {
    /// Carries on until `step` was done for the newest message: PUBLISH taken, PUBREC sent, PUBREL taken, PUBCOMP sent.
    fn until(&mut self, device: &mut Raw, step: usize) {
        let count = self.got.len() + 1;
        loop {
            match device.recv() {
                Answer::Publish(delivery) => {
                    let id = delivery.id;
                    if self.unreleased.insert(id) {
                        self.got.push(delivery.text().to_owned());
                    }
                    if step == 0 && self.got.len() == count {
                        return;
                    }
                    device.send(&encode::ack(AckKind::PubRec, id));
                    if step == 1 && self.got.len() == count {
                        return;
                    }
                }
                Answer::Ack {
                    kind: AckKind::PubRel,
                    id,
                    ..
                } => {
                    self.unreleased.remove(&id);
                    if step == 2 && self.got.len() == count {
                        return;
                    }
                    device.send(&encode::ack(AckKind::PubComp, id));
                    if step == 3 && self.got.len() == count {
                        return;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

#[test]
fn t07_a_qos2_delivery_broken_off_at_any_step_comes_once() {
    for kind in [Kind::Edge, Kind::Cloud] {
        let site = Site::new();
        let mut node = Node::new(kind, &site.path("node"));
        node.start();
        let mut device = Raw::connected(node.ready().mqtt, &Connect::kept(Version::V5, "reader"));
        assert_eq!(device.subscribe("site/#", 2), 2);
        let mut subscriber = Subscriber::default();
        for round in 0..EXCHANGES / 2 {
            let mut publisher = Raw::connected(node.ready().mqtt, &Connect::new(Version::V5, "publisher"));
            publisher.publish(&Publish::new("site/d/state", format!("{round}")).qos(2));
            publisher.disconnect();
            subscriber.until(&mut device, round / 2 % 4);
            break_off(&mut node, device, round);
            device = resume(&node, Version::V5, "reader");
        }
        // The end of the line: whatever was still to come again has come before it.
        let mut publisher = Raw::connected(node.ready().mqtt, &Connect::new(Version::V5, "publisher"));
        publisher.publish(&Publish::new("site/d/state", "end").qos(2));
        while subscriber.got.last().is_none_or(|last| last != "end") {
            subscriber.until(&mut device, 3);
        }
        let expected: Vec<_> = (0..EXCHANGES / 2)
            .map(|n| n.to_string())
            .chain(["end".into()])
            .collect();
        assert_eq!(subscriber.got, expected, "{kind:?}");
    }
}

/// The device never gets its PUBACK, since the edge is killed as soon as it was written, or before.
#[test]
fn a_qos1_message_whose_puback_the_crash_took_is_stored_once() {
    for version in Version::BOTH {
        let mut world = World::start();
        let mut device = Raw::connected(world.edge.ready().mqtt, &Connect::kept(version, "d"));
        for round in 0..12 {
            let id = 1 + round;
            let message = Publish::new("site/d/state", "on").qos(1).id(id);
            device.send_publish(&message);
            match round % 3 {
                // As soon as PUBACK is written. The device did not see it: something on the way swallowed it.
                0 => device.expect_ack(AckKind::PubAck, id, 0),
                // As soon as the record is committed, as far as can be told from outside.
                1 => wait::until_true("the record is committed", wait::SOON, || {
                    lane_end(&world.edge) > usize::from(round)
                }),
                // At some moment in between.
                _ => {}
            }
            world.edge.kill();
            world.edge.start();
            device = resume(&world.edge, version, "d");
            device.send_publish(&message.dup());
            device.expect_ack(AckKind::PubAck, id, 0);
            assert_eq!(
                lane_end(&world.edge),
                usize::from(round) + 1,
                "{version:?}, round {round}"
            );
        }
        world.await_drained();
        assert_eq!(world.records_in_log(), 12);
    }
}

/// MQTT 4.3.2: after PUBACK the packet ID is a new message. And without DUP nothing is a resend.
#[test]
fn a_new_message_with_a_used_packet_id_and_an_equal_payload_is_never_taken_for_a_resend() {
    let site = Site::new();
    let mut edge = Node::new(Kind::Edge, &site.path("edge"));
    edge.start();
    let message = Publish::new("site/d/state", "on").qos(1).id(7);
    let mut device = Raw::connected(edge.ready().mqtt, &Connect::kept(Version::V5, "d"));
    for _ in 0..2 {
        device.publish(&message);
    }
    device.reset();
    // DUP: the first copy of this third message was lost on the way. The edge lives and knows that PUBACK was written.
    let mut device = resume(&edge, Version::V5, "d");
    device.publish(&message.clone().dup());
    assert_eq!(lane_end(&edge), 3);
    edge.kill();
    edge.start();
    let mut device = resume(&edge, Version::V5, "d");
    device.publish(&message);
    // Another packet ID, another payload: not that message.
    device.publish(&message.clone().id(8).dup());
    device.publish(&Publish::new("site/d/state", "off").qos(1).id(7).dup());
    assert_eq!(lane_end(&edge), 6);
}
