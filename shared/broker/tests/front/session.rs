//! Sessions that outlive their connection, and the restart of the broker.

use fellbeck_broker::session::CoreLimits;

use crate::client::{Client, ack, publish};
use crate::node::{Node, config};

#[test]
fn a_kept_session_gets_what_it_missed_in_order() {
    let node = Node::start();
    for version in [4, 5] {
        let id = format!("keeper-{version}");
        let (mut subscriber, present) = Client::keep(node.addr(), version, &id);
        assert!(!present);
        subscriber.subscribe("t", 1);
        subscriber.send(&[0xE0, 0]);
        assert_eq!(subscriber.packet(), None);
        let mut publisher = Client::clean(node.addr(), 4, "pub");
        for n in 1..=20u16 {
            publisher.send(&publish(4, 0x02, "t", n, &n.to_be_bytes()));
            publisher.expect(&ack(0x40, n));
        }
        let (mut subscriber, present) = Client::keep(node.addr(), version, &id);
        assert!(present);
        for n in 1..=20u16 {
            let message = subscriber.publish();
            assert_eq!(message.payload, n.to_be_bytes());
            subscriber.send(&ack(0x40, message.packet_id.unwrap()));
        }
        subscriber.expect_nothing();
        subscriber.send(&[0xE0, 0]);
    }
    node.stop();
}

#[test]
fn a_kept_session_survives_a_restart_of_the_broker() {
    let node = Node::start();
    let (mut subscriber, _) = Client::keep(node.addr(), 5, "keeper");
    subscriber.subscribe("t", 2);
    drop(subscriber);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    for n in 1..=10u16 {
        publisher.send(&publish(4, 0x04, "t", n, &n.to_be_bytes()));
        publisher.expect(&ack(0x50, n));
        publisher.send(&ack(0x62, n));
        publisher.expect(&ack(0x70, n));
    }
    let dir = node.stop();
    let node = Node::start_in(dir, config(), CoreLimits::default(), |store| store);
    let (mut subscriber, present) = Client::keep(node.addr(), 5, "keeper");
    assert!(present);
    for n in 1..=10u16 {
        let message = subscriber.publish();
        assert_eq!(message.payload, n.to_be_bytes());
        let id = message.packet_id.unwrap();
        subscriber.send(&ack(0x50, id));
    }
    for _ in 1..=10 {
        let release = subscriber.packet().expect("PUBREL");
        assert_eq!(release[0], 0x62);
        subscriber.send(&[0x70, 2, release[2], release[3]]);
    }
    subscriber.expect_nothing();
    node.stop();
}

#[test]
fn retained_messages_survive_a_restart_of_the_broker() {
    let node = Node::start();
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    publisher.send(&publish(4, 0x03, "state", 1, b"kept"));
    publisher.expect(&ack(0x40, 1));
    let node = Node::start_in(node.stop(), config(), CoreLimits::default(), |store| store);
    let mut subscriber = Client::clean(node.addr(), 4, "sub");
    subscriber.subscribe("state", 0);
    assert_eq!(subscriber.publish().payload, b"kept");
}

#[test]
fn an_unacked_delivery_comes_again_with_dup() {
    let node = Node::start();
    let (mut subscriber, _) = Client::keep(node.addr(), 4, "keeper");
    subscriber.subscribe("t", 1);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    publisher.send(&publish(4, 0x02, "t", 1, b"x"));
    publisher.expect(&ack(0x40, 1));
    let first = subscriber.publish();
    drop(subscriber);
    let (mut subscriber, present) = Client::keep(node.addr(), 4, "keeper");
    assert!(present);
    let again = subscriber.publish();
    assert_eq!(
        (again.flags, &again.payload, again.packet_id),
        (0x0A, &first.payload, first.packet_id)
    );
}
