//! Input that breaks the protocol: the right reason, a closed socket, and nobody else notices.

use std::cell::RefCell;
use std::time::Duration;

use fellbeck_broker::front::MqttServerConfig;
use fellbeck_broker::session::CoreLimits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::client::{Client, ack, connect, publish, publish_with, subscribe};
use crate::node::{Node, config};

/// Packets after a good CONNECT, and the reason that a version 5 client is told.
fn table() -> Vec<(&'static str, Vec<u8>, u8)> {
    vec![
        ("reserved type", vec![0x00, 0], 0x81),
        ("length in two bytes that needs one", vec![0xC0, 0x80, 0x00], 0x81),
        (
            "property length in two bytes that needs one",
            vec![0x30, 5, 0, 1, b'a', 0x80, 0x00],
            0x81,
        ),
        (
            "response topic with a wildcard",
            publish_with(5, 0, "a", 0, b"\x08\x00\x01#", b""),
            0x82,
        ),
        (
            "empty response topic",
            publish_with(5, 0, "a", 0, b"\x08\x00\x00", b""),
            0x82,
        ),
        (
            "null character in a content type",
            publish_with(5, 0, "a", 0, b"\x03\x00\x01\x00", b""),
            0x81,
        ),
        ("flags of PINGREQ", vec![0xC1, 0], 0x81),
        ("PINGREQ with a body", vec![0xC0, 1, 0], 0x81),
        ("QoS 3", vec![0x36, 6, 0, 1, b'a', 0, 1, 0], 0x81),
        ("DUP with QoS 0", vec![0x38, 4, 0, 1, b'a', 0], 0x81),
        ("packet id 0", publish(5, 0x02, "a", 0, b"x"), 0x82),
        ("topic longer than its packet", vec![0x30, 3, 0, 9, b'a'], 0x81),
        (
            "property length of 256 MB",
            vec![0x30, 7, 0, 1, b'a', 0xFF, 0xFF, 0xFF, 0x7F],
            0x81,
        ),
        ("length of five bytes", vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81),
        ("unknown property", publish_with(5, 0, "a", 0, &[0x7F, 1], b""), 0x81),
        (
            "property twice",
            publish_with(5, 0, "a", 0, &[0x23, 0, 1, 0x23, 0, 1], b""),
            0x82,
        ),
        ("topic is not UTF-8", vec![0x30, 5, 0, 2, 0xC3, 0x28, 0], 0x81),
        ("null character in a topic", publish(5, 0, "a\0b", 0, b""), 0x81),
        ("surrogate in a topic", vec![0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0], 0x81),
        ("wildcard in a topic", publish(5, 0, "a/+", 0, b""), 0x81),
        ("no topic, no alias", publish(5, 0, "", 0, b""), 0x82),
        (
            "subscription identifier",
            publish_with(5, 0, "a", 0, &[0x0B, 1], b""),
            0x82,
        ),
        ("alias 0", publish_with(5, 0, "a", 0, &[0x23, 0, 0], b""), 0x94),
    ]
}

/// The same for control packets.
fn control_table() -> Vec<(&'static str, Vec<u8>, u8)> {
    vec![
        (
            "subscription identifier in two bytes",
            vec![0x82, 10, 0, 1, 3, 0x0B, 0x81, 0, 0, 1, b'a', 0],
            0x81,
        ),
        ("packet id 0 in PUBACK", vec![0x40, 2, 0, 0], 0x82),
        ("packet id 0 in SUBSCRIBE", subscribe(5, 0, "a", 0), 0x82),
        ("packet id 0 in UNSUBSCRIBE", vec![0xA2, 6, 0, 0, 0, 0, 1, b'a'], 0x82),
        ("reason code that PUBACK does not know", vec![0x40, 3, 0, 1, 0x05], 0x82),
        ("reason code that PUBREL does not know", vec![0x62, 3, 0, 1, 0x10], 0x82),
        ("reason code that a client may not send", vec![0xE0, 1, 0x8E], 0x82),
        ("empty filter", subscribe(5, 1, "", 0), 0x81),
        ("wildcard within a level", subscribe(5, 1, "a#", 0), 0x81),
        ("null character in a filter", subscribe(5, 1, "a\0", 0), 0x81),
        ("share without a filter", subscribe(5, 1, "$share/g", 0), 0x82),
        ("QoS 3 in SUBSCRIBE", subscribe(5, 1, "a", 3), 0x82),
        ("AUTH with flags", vec![0xF1, 0], 0x81),
        ("DISCONNECT with flags", vec![0xE1, 0], 0x81),
        ("CONNACK from a client", vec![0x20, 2, 0, 0], 0x82),
        ("PINGRESP from a client", vec![0xD0, 0], 0x82),
        ("SUBSCRIBE without a filter", vec![0x82, 3, 0, 1, 0], 0x82),
        ("SUBSCRIBE flags", vec![0x80, 7, 0, 1, 0, 0, 1, b'a', 0], 0x81),
        ("SUBSCRIBE reserved bits", subscribe(5, 1, "a", 0xC0), 0x81),
        ("SUBSCRIBE retain handling 3", subscribe(5, 1, "a", 0x30), 0x82),
        ("UNSUBSCRIBE without a filter", vec![0xA2, 3, 0, 1, 0], 0x82),
        ("AUTH", vec![0xF0, 0], 0x82),
        ("PUBREL flags", vec![0x60, 2, 0, 1], 0x81),
        ("too large", vec![0x30, 0x80, 0x80, 0x80, 1], 0x95),
        (
            "session expiry at DISCONNECT",
            vec![0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9],
            0x82,
        ),
    ]
}

#[test]
fn malformed_packets_get_their_reason_and_a_closed_socket() {
    let node = Node::start();
    let mut bystander = Client::clean(node.addr(), 4, "bystander");
    for (name, packet, reason) in table().into_iter().chain(control_table()) {
        let mut client = Client::clean(node.addr(), 5, "bad");
        client.send(&packet);
        let answer = client.packet().unwrap_or_else(|| panic!("{name}: no DISCONNECT"));
        assert_eq!((answer[0], answer[2]), (0xE0, reason), "{name}: {answer:02X?}");
        assert_eq!(client.packet(), None, "{name}");
        bystander.expect_nothing();
    }
    node.stop();
}

#[test]
fn a_version_3_client_is_closed_without_a_word() {
    let node = Node::start();
    for packet in [
        vec![0x00, 0],
        publish(4, 0, "a/+", 0, b""),
        publish(4, 0x02, "a", 0, b""),
        subscribe(4, 1, "a\0", 0),
        subscribe(4, 1, "", 0),
        subscribe(4, 1, "#/a", 0),
        vec![0xA2, 4, 0, 1, 0, 0],
        vec![0xE1, 0],
        vec![0xE0, 1, 0],
        vec![0x82, 2, 0, 1],
        vec![0xF0, 0],
    ] {
        let mut client = Client::clean(node.addr(), 4, "bad");
        client.send(&packet);
        assert_eq!(client.packet(), None, "{packet:02X?}");
    }
}

/// A reset once overtook the DISCONNECT of a client that was still sending.
#[test]
fn a_client_that_is_still_sending_can_read_why_it_was_disconnected() {
    let node = Node::start();
    for fault in [vec![0xC1, 0], vec![0x30, 0x80, 0x80, 0x80, 1]] {
        let reason = if fault.len() == 2 { 0x81 } else { 0x95 };
        let mut client = Client::clean(node.addr(), 5, "talker");
        client.send(&publish(5, 0x02, "t", 1, b"x"));
        client.send(&fault);
        for _ in 0..32 {
            client.send(&[0xAA; 32 << 10]);
        }
        let mut answer = client.packet().expect("PUBACK or DISCONNECT");
        if answer[0] == 0x40 {
            answer = client.packet().expect("DISCONNECT");
        }
        assert_eq!((answer[0], answer[2]), (0xE0, reason), "{answer:02X?}");
        assert_eq!(client.packet(), None);
    }
}

/// A client behind a slow link goes on sending after a pause that is longer than any quiet moment.
#[test]
fn a_client_that_pauses_and_sends_on_is_not_reset() {
    let node = Node::start();
    let mut client = Client::clean(node.addr(), 5, "slow");
    client.send(&[0xC1, 0]);
    // The end is there at once, and the DISCONNECT before it.
    client.expect_disconnect(0x81);
    let paused = std::time::Instant::now();
    while paused.elapsed() < Duration::from_millis(500) {
        std::thread::yield_now();
    }
    for _ in 0..10 {
        assert!(client.try_write(&[0xAA; 1000]), "reset while it may still send");
    }
}

/// A client that never stops talking is closed all the same.
#[test]
fn the_wait_for_a_client_to_read_its_disconnect_is_bounded() {
    let node = Node::start();
    let mut client = Client::clean(node.addr(), 5, "talker");
    client.send(&[0xC1, 0]);
    client.stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    let started = std::time::Instant::now();
    while client.try_write(&[0xAA; 64]) {
        assert!(started.elapsed() < Duration::from_secs(10), "still open");
    }
}

#[test]
fn packets_before_a_broken_one_are_served() {
    let node = Node::start();
    let mut client = Client::clean(node.addr(), 5, "a");
    client.send(&[publish(5, 0x02, "t", 1, b"x"), vec![0xC0, 0], vec![0xC1, 0]].concat());
    client.expect(&[0xD0, 0]);
    client.expect_disconnect(0x81);
}

#[test]
fn a_first_packet_that_is_no_connect_closes_the_socket() {
    let node = Node::start();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xC0, 0],
        &[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
    ] {
        let mut client = Client::open(node.addr());
        client.send(bytes);
        assert_eq!(client.packet(), None);
    }
    let bystander = Client::clean(node.addr(), 4, "bystander");
    drop(bystander);
}

#[test]
fn half_sent_large_packets_are_bounded_and_lock_nobody_out() {
    // The budget is four packets of the largest size.
    let config = MqttServerConfig {
        packet_max: 600_000,
        partial_bytes_max: 700_000,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let whole = publish(5, 0, "t", 0, &[0; 590_000]);
    let mut holders: Vec<Client> = (0..4)
        .map(|n| Client::clean(node.addr(), 5, &format!("holder{n}")))
        .collect();
    for holder in &mut holders {
        holder.send(&whole[..589_000]);
    }
    // Four more would be refused for ever if whoever grows last had to go.
    let mut bystander = Client::clean(node.addr(), 4, "bystander");
    let large = publish(4, 0x02, "t", 7, &[0; 300_000]);
    for _ in 0..3 {
        bystander.send(&large[..200_000]);
        let mut other = Client::clean(node.addr(), 4, "other");
        other.expect_nothing();
        bystander.send(&large[200_000..]);
        bystander.expect(&ack(0x40, 7));
    }
    // One of those who held on to their share made way, no more than needed.
    let mut gone = 0;
    for mut holder in holders {
        holder.try_send(&whole[589_000..]);
        holder.try_send(&[0xC0, 0]);
        let answer = holder.packet().expect("PINGRESP or DISCONNECT");
        match answer[0] {
            0xE0 => {
                assert_eq!(answer[2], 0x97);
                gone += 1;
            }
            _ => assert_eq!(answer, [0xD0, 0]),
        }
    }
    assert_eq!(gone, 1);
}

#[test]
fn a_packet_that_is_not_whole_in_time_ends_its_connection() {
    let config = MqttServerConfig {
        partial_within: Duration::from_millis(500),
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut idle = Client::clean(node.addr(), 5, "idle");
    let mut half = Client::clean(node.addr(), 5, "half");
    let whole = publish(5, 0, "t", 0, &[0; 100]);
    // A whole packet before it is no excuse.
    half.send(&[&whole[..], &whole[..50]].concat());
    half.expect_disconnect(0x80);
    idle.expect_nothing();
}

#[test]
fn random_and_mutated_bytes_never_disturb_a_bystander() {
    let node = Node::start();
    let bystander = RefCell::new(Client::clean(node.addr(), 4, "bystander"));
    let good: Vec<Vec<u8>> = table()
        .into_iter()
        .chain(control_table())
        .map(|(_, packet, _)| packet)
        .chain([publish(5, 2, "t", 1, b"x")])
        .collect();
    let packets = prop::collection::vec(
        (prop::sample::select(good), any::<prop::sample::Index>(), any::<u8>()),
        1..6,
    );
    let garbage = prop::collection::vec(any::<u8>(), 0..200);
    let mut runner = TestRunner::new(Config {
        cases: 150,
        ..Config::default()
    });
    runner
        .run(&(any::<bool>(), packets, garbage), |(v5, packets, garbage)| {
            let version = if v5 { 5 } else { 4 };
            let mut client = Client::clean(node.addr(), version, "mutant");
            for (mut packet, at, byte) in packets {
                let at = at.index(packet.len());
                packet[at] ^= byte;
                client.try_send(&packet);
            }
            client.try_send(&garbage);
            let mut raw = Client::open(node.addr());
            raw.try_send(&garbage);
            let mut connecting = connect(version, "mutant", 2, 60, &[]);
            let at = garbage.len() % connecting.len();
            connecting[at] ^= garbage.first().copied().unwrap_or(1);
            let mut mutated = Client::open(node.addr());
            mutated.try_send(&connecting);
            bystander.borrow_mut().expect_nothing();
            Ok(())
        })
        .unwrap();
    assert!(node.server.as_ref().unwrap().failed().borrow().is_none());
    node.stop();
}
