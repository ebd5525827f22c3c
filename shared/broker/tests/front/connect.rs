//! CONNECT, CONNACK, keep-alive, takeover, shutdown.

use std::time::{Duration, Instant};

use fellbeck_broker::front::{CoreSetup, FrontError, MqttServerConfig, Shutdown};
use fellbeck_broker::session::{CoreLimits, Route};
use fellbeck_core::TrackId;

use crate::client::{Client, ack, connect, frame, publish, text};
use crate::node::{Node, config};

#[test]
fn both_versions_connect_on_one_port() {
    let node = Node::start();
    let (_v3, ack) = Client::connect(node.addr(), 4, &connect(4, "a", 2, 60, &[]));
    assert_eq!(ack, [0x20, 2, 0, 0]);
    let (_v5, ack) = Client::connect(node.addr(), 5, &connect(5, "b", 2, 60, &[]));
    assert_eq!(ack[2..4], [0, 0]);
    // Receive Maximum 1,024; Maximum Packet Size 1 MiB; Topic Alias Maximum 64.
    for property in [&[0x21, 4, 0][..], &[0x27, 0, 0x10, 0, 0], &[0x22, 0, 64]] {
        assert!(ack.windows(property.len()).any(|part| part == property), "{ack:02X?}");
    }
    node.stop();
}

#[test]
fn an_empty_client_id_is_assigned_where_the_standard_allows_it() {
    let node = Node::start();
    let (_v5, ack) = Client::connect(node.addr(), 5, &connect(5, "", 2, 60, &[]));
    assert_eq!(ack[3], 0);
    // Assigned Client Identifier. [MQTT5-3.2.2-16]
    assert!(ack.windows(8).any(|part| part == b"\x12\x00\x25auto-"), "{ack:02X?}");
    let (_v3, ack) = Client::connect(node.addr(), 4, &connect(4, "", 2, 60, &[]));
    assert_eq!(ack, [0x20, 2, 0, 0]);
    // [MQTT3-3.1.3-8]
    let (mut refused, ack) = Client::connect(node.addr(), 4, &connect(4, "", 0, 60, &[]));
    assert_eq!(ack, [0x20, 2, 0, 2]);
    assert_eq!(refused.packet(), None);
}

#[test]
fn an_unknown_level_gets_its_code_and_mqtt_3_1_is_served() {
    let node = Node::start();
    let (mut refused, ack) = Client::connect(node.addr(), 4, &connect(9, "a", 2, 60, &[]));
    assert_eq!(ack, [0x20, 2, 0, 1]);
    assert_eq!(refused.packet(), None);
    let mut body = Vec::new();
    text(&mut body, "MQIsdp");
    body.extend_from_slice(&[3, 2, 0, 60]);
    text(&mut body, "old");
    let (mut old, ack) = Client::connect(node.addr(), 4, &frame(0x10, &body));
    assert_eq!(ack, [0x20, 2, 0, 0]);
    old.expect_nothing();
}

#[test]
fn enhanced_authentication_is_refused() {
    let node = Node::start();
    let (mut refused, ack) = Client::connect(node.addr(), 5, &connect(5, "a", 2, 60, b"\x15\x00\x01x"));
    assert_eq!(ack[3], 0x8C); // [MQTT5-4.12.0-1]
    assert_eq!(refused.packet(), None);
}

#[test]
fn a_second_connect_closes_the_connection() {
    let node = Node::start();
    let mut v3 = Client::clean(node.addr(), 4, "a");
    v3.send(&connect(4, "a", 2, 60, &[]));
    assert_eq!(v3.packet(), None); // [MQTT3-3.1.0-2]
    let mut v5 = Client::clean(node.addr(), 5, "b");
    v5.send(&connect(5, "b", 2, 60, &[]));
    v5.expect_disconnect(0x82); // [MQTT5-3.1.0-2]
}

#[test]
fn silence_beyond_one_and_a_half_keep_alives_ends_the_connection() {
    let node = Node::start();
    let started = Instant::now();
    let (mut quiet, _) = Client::connect(node.addr(), 5, &connect(5, "quiet", 2, 1, &[]));
    let (mut forever, _) = Client::connect(node.addr(), 5, &connect(5, "forever", 2, 0, &[]));
    quiet.expect_disconnect(0x8D); // [MQTT5-3.1.2-22]
    let silent_for = started.elapsed();
    assert!(
        silent_for >= Duration::from_millis(1500) && silent_for < Duration::from_secs(5),
        "{silent_for:?}"
    );
    forever.expect_nothing();
}

#[test]
fn a_keep_alive_beyond_the_bound_is_replaced() {
    let config = MqttServerConfig {
        keep_alive_max: Some(30),
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    for asked in [0, 31] {
        let (_client, ack) = Client::connect(node.addr(), 5, &connect(5, "a", 2, asked, &[]));
        assert!(ack.windows(3).any(|part| part == [0x13, 0, 30]), "{ack:02X?}");
    }
    let (_client, ack) = Client::connect(node.addr(), 5, &connect(5, "a", 2, 30, &[]));
    assert!(!ack.windows(3).any(|part| part == [0x13, 0, 30]), "{ack:02X?}");
}

#[test]
fn a_takeover_closes_the_older_connection_with_its_reason() {
    let node = Node::start();
    let mut first = Client::clean(node.addr(), 5, "same");
    let mut second = Client::clean(node.addr(), 5, "same");
    first.expect_disconnect(0x8E); // [MQTT5-3.1.4-3]
    second.expect_nothing();
}

#[test]
fn a_socket_that_says_nothing_is_closed_in_time() {
    let config = MqttServerConfig {
        first_packet_timeout: Duration::from_millis(200),
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut silent = Client::open(node.addr());
    let mut half = Client::open(node.addr());
    half.send(&connect(5, "a", 2, 60, &[])[..9]);
    assert_eq!(silent.packet(), None);
    assert_eq!(half.packet(), None);
}

#[test]
fn connections_beyond_the_bound_are_closed_at_once() {
    let config = MqttServerConfig {
        connections_max: 2,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let _one = Client::clean(node.addr(), 4, "one");
    let two = Client::clean(node.addr(), 4, "two");
    let mut three = Client::open(node.addr());
    three.try_send(&connect(4, "three", 2, 60, &[]));
    assert_eq!(three.packet(), None);
    // Room again once one has left.
    drop(two);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut four = Client::open(node.addr());
        four.try_send(&connect(4, "four", 2, 60, &[]));
        if four.packet().is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "no room after a client left");
    }
}

#[test]
fn shutdown_tells_version_5_clients() {
    let mut node = Node::start();
    let mut v5 = Client::clean(node.addr(), 5, "five");
    let mut v3 = Client::clean(node.addr(), 4, "three");
    let server = node.server.take().unwrap();
    assert_eq!(server.shutdown(Duration::from_secs(10)), Shutdown::Clean);
    v5.expect_disconnect(0x8B);
    assert_eq!(v3.packet(), None);
}

#[test]
fn a_used_port_is_named() {
    let node = Node::start();
    let taken = node.addr();
    let config = MqttServerConfig {
        listen: vec![taken],
        ..config()
    };
    let setup = crate::node::setup(&node.store, CoreLimits::default());
    let error = fellbeck_broker::front::start(config, setup, node.store.clone()).unwrap_err();
    assert!(matches!(error, FrontError::Bind { address, .. } if address == taken));
    let line = error.to_string();
    assert!(
        line.contains("mqtt.listen") && line.contains(&taken.to_string()),
        "{line}"
    );
}

#[test]
fn packets_sent_behind_connect_without_waiting_are_served_after_connack() {
    let node = Node::start();
    for version in [4, 5] {
        let mut client = Client::open(node.addr());
        client.send(
            &[
                connect(version, "eager", 2, 60, &[]),
                publish(version, 0x02, "t", 7, b"x"),
                vec![0xC0, 0],
            ]
            .concat(),
        );
        assert_eq!(client.packet().unwrap()[0], 0x20);
        let mut rest = [client.packet().unwrap(), client.packet().unwrap()];
        rest.sort();
        assert_eq!(rest, [ack(0x40, 7), vec![0xD0, 0]]);
    }
}

#[test]
fn a_panic_in_the_core_is_reported_and_ends_the_server() {
    struct Boom;
    impl Route for Boom {
        fn route(&self, topic: &str, _: &str) -> Option<TrackId> {
            assert_ne!(topic, "boom");
            None
        }
    }
    let node = Node::start();
    let setup = CoreSetup {
        route: Box::new(|| Box::new(Boom)),
        ..crate::node::setup(&node.store, CoreLimits::default())
    };
    let server = fellbeck_broker::front::start(config(), setup, node.store.clone()).unwrap();
    let mut failed = server.failed();
    let mut client = Client::clean(server.addresses()[0], 4, "a");
    client.send(&publish(4, 0x02, "boom", 1, b""));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let report = runtime.block_on(async {
        let waiting = failed.wait_for(Option::is_some);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap()
            .clone()
    });
    assert!(report.unwrap().contains("panicked"));
    assert_eq!(client.packet(), None);
    assert_eq!(server.shutdown(Duration::from_secs(10)), Shutdown::Failed);
}

fn connect_with(version: u8, flags: u8, properties: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    let mut body = connect(version, "c", flags, 60, properties)[2..].to_vec();
    for field in rest {
        body.extend_from_slice(&(field.len() as u16).to_be_bytes());
        body.extend_from_slice(field);
    }
    frame(0x10, &body)
}

/// [MQTT5-3.1.4-1] [MQTT5-3.1.4-2] [MQTT3-3.1.4-1]
#[test]
fn a_connect_that_breaks_a_rule_is_refused_with_its_reason() {
    let node = Node::start();
    let mut overlong = connect(5, "c", 2, 60, &[]);
    overlong.splice(1..2, [overlong[1] | 0x80, 0]);
    let mut with_flags = connect(5, "c", 2, 60, &[]);
    with_flags[0] = 0x12;
    let table: &[(&str, Vec<u8>, u8)] = &[
        ("reserved flag", connect_with(5, 0x03, &[], &[]), 0x81),
        ("flags of the fixed header", with_flags, 0x81),
        ("user name without its flag", connect_with(5, 0x02, &[], &[b"u"]), 0x81),
        (
            "password without its flag",
            connect_with(5, 0x82, &[], &[b"u", b"p"]),
            0x81,
        ),
        ("user name is missing", connect_with(5, 0x82, &[], &[]), 0x81),
        (
            "null character in the user name",
            connect_with(5, 0x82, &[], &[b"a\0"]),
            0x81,
        ),
        ("length not in its shortest form", overlong, 0x81),
        ("property of a PUBLISH", connect_with(5, 0x02, &[0x23, 0, 1], &[]), 0x81),
        ("receive maximum 0", connect_with(5, 0x02, &[0x21, 0, 0], &[]), 0x82),
        (
            "property twice",
            connect_with(5, 0x02, &[0x22, 0, 1, 0x22, 0, 1], &[]),
            0x82,
        ),
        (
            "authentication data alone",
            connect_with(5, 0x02, b"\x16\x00\x01a", &[]),
            0x82,
        ),
        (
            "method that nobody knows",
            connect_with(5, 0x02, b"\x15\x00\x01a", &[]),
            0x8C,
        ),
    ];
    for (name, packet, reason) in table {
        let (mut client, ack) = Client::connect(node.addr(), 5, packet);
        // A refusal says that there is no session. [MQTT5-3.2.2-6]
        assert_eq!((ack[2], ack[3]), (0, *reason), "{name}: {ack:02X?}");
        // And why, in words.
        assert_eq!(
            (ack[5], ack.len()),
            (0x1F, usize::from(ack[1]) + 2),
            "{name}: {ack:02X?}"
        );
        assert_eq!(client.packet(), None, "{name}"); // [MQTT5-3.2.2-7]
    }
    for packet in [
        connect_with(4, 0x03, &[], &[]),
        connect_with(4, 0x82, &[], &[b"a\0"]),
        connect_with(4, 0x02, &[], &[b"u"]),
    ] {
        let mut client = Client::open(node.addr());
        client.send(&packet);
        assert_eq!(client.packet(), None, "{packet:02X?}");
    }
}

#[test]
fn a_will_that_could_not_be_published_is_refused() {
    let node = Node::start();
    let ask = |properties: &[u8], topic: &[u8], payload: &[u8]| {
        let mut body = connect(5, "c", 0x06, 60, &[])[2..].to_vec();
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
        for field in [topic, payload] {
            body.extend_from_slice(&(field.len() as u16).to_be_bytes());
            body.extend_from_slice(field);
        }
        Client::connect(node.addr(), 5, &frame(0x10, &body)).1[3]
    };
    assert_eq!(ask(b"\x02\x00\x00\x00\x00\x01\x00", b"t", b"x"), 0);
    assert_eq!(ask(&[], b"a/+", b"x"), 0x90);
    assert_eq!(ask(&[], b"", b"x"), 0x90);
    assert_eq!(ask(&[], b"a\0", b"x"), 0x81);
    assert_eq!(ask(&[0x01, 1], b"t", b"\xFF"), 0x99);
    assert_eq!(ask(b"\x08\x00\x01#", b"t", b"x"), 0x82);
}

/// As mosquitto does: no reserved bits, but a client identifier is wanted.
#[test]
fn mqtt_3_1_is_served_with_its_own_rules() {
    let node = Node::start();
    let packet = |first: u8, flags: u8, id: &str| {
        let mut body = Vec::new();
        text(&mut body, "MQIsdp");
        body.extend_from_slice(&[3, flags, 0, 60]);
        text(&mut body, id);
        frame(first, &body)
    };
    let ask = |packet: &[u8]| Client::connect(node.addr(), 4, packet).1;
    assert_eq!(ask(&packet(0x10, 0x01, "p")), [0x20, 2, 0, 0]);
    assert_eq!(ask(&packet(0x14, 0x02, "p")), [0x20, 2, 0, 0]);
    assert_eq!(ask(&packet(0x10, 0x02, "")), [0x20, 2, 0, 2]);
    // Control packets that are sent again have DUP; 3.1.1 has reserved it.
    let (mut old, _) = Client::connect(node.addr(), 4, &packet(0x10, 0x02, "again"));
    old.send(&[0x8A, 6, 0, 1, 0, 1, b't', 0]);
    old.expect(&[0x90, 3, 0, 1, 0]);
    old.send(&[0x6A]);
    old.send(&[2, 0, 1]);
    old.expect(&[0x70, 2, 0, 1]);
    let mut newer = Client::clean(node.addr(), 4, "newer");
    newer.send(&[0x6A, 2, 0, 1]);
    assert_eq!(newer.packet(), None);
    // A session that goes on is not announced: the byte is reserved.
    for _ in 0..2 {
        assert_eq!(ask(&packet(0x10, 0x00, "kept")), [0x20, 2, 0, 0]);
    }
}

/// A byte within a payload was once taken for the first of a packet, its DUP taken off, and the message stored and acknowledged wrong.
#[test]
fn a_payload_of_a_3_1_client_that_arrives_in_parts_is_not_changed() {
    let node = Node::start();
    let mut body = Vec::new();
    text(&mut body, "MQIsdp");
    body.extend_from_slice(&[3, 0x02, 0, 60]);
    text(&mut body, "parts");
    let (mut old, _) = Client::connect(node.addr(), 4, &frame(0x10, &body));
    let mut reader = Client::clean(node.addr(), 4, "reader");
    reader.subscribe("parts", 1);
    let packet = publish(4, 0x02, "parts", 9, b"jjjj");
    let (start, end) = packet.split_at(packet.len() - 3);
    old.send(start);
    // The node has read the first part when it has answered somebody who came later.
    Client::clean(node.addr(), 4, "later").expect_nothing();
    old.send(end);
    old.expect(&ack(0x40, 9));
    assert_eq!(reader.publish().payload, b"jjjj");
}

/// A CONNECT whose length ends within its protocol name once made a thread panic, and once waited for ever.
#[test]
fn a_connect_that_ends_too_early_is_closed_at_once() {
    let node = Node::start();
    for remaining in 0..7 {
        let mut client = Client::open(node.addr());
        client.send(&[&[0x10, remaining][..], b"\x00\x04MQTT\x05"].concat());
        assert_eq!(client.packet(), None, "{remaining}");
    }
    Client::clean(node.addr(), 4, "a").expect_nothing();
    assert!(node.server.as_ref().unwrap().failed().borrow().is_none());
}

#[test]
fn half_sent_connects_are_bounded_and_lock_nobody_out() {
    // The budget is four packets of the largest size.
    let config = MqttServerConfig {
        packet_max: 500_000,
        partial_bytes_max: 0,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let value = "x".repeat(60_000);
    let mut block = Vec::new();
    for _ in 0..8 {
        block.push(0x26);
        text(&mut block, "a");
        text(&mut block, &value);
    }
    let mut body = b"\x00\x04MQTT\x05\x02\x00\x3C".to_vec();
    body.extend_from_slice(&frame(0, &block)[1..]);
    text(&mut body, "holder");
    let whole = frame(0x10, &body);
    let mut holders: Vec<Client> = (0..5)
        .map(|_| {
            let mut holder = Client::open_v5(node.addr());
            holder.send(&whole[..whole.len() - 1]);
            holder
        })
        .collect();
    // One of them has to make way, and is told. The others may go on.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holders.iter().any(Client::has_something_to_read) {
        assert!(Instant::now() < deadline, "nobody made way");
        std::thread::yield_now();
    }
    let mut reasons: Vec<u8> = holders
        .iter_mut()
        .map(|holder| {
            holder.try_send(&whole[whole.len() - 1..]);
            holder.packet().map_or(0xFF, |ack| ack[3])
        })
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [0, 0, 0, 0, 0x97]);
}
