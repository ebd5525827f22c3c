//! What a client of MQTT 5 may ask of every packet that it is sent: its size, its words, its topic aliases.

use fellbeck_broker::front::MqttServerConfig;
use fellbeck_broker::session::CoreLimits;

use crate::client::{Client, connect, publish, subscribe, text};
use crate::node::{Node, config};

fn with(node: &Node, id: &str, properties: &[u8]) -> Client {
    let (client, ack) = Client::connect(node.addr(), 5, &connect(5, id, 2, 60, properties));
    assert_eq!(ack[3], 0, "{ack:02X?}");
    client
}

/// [MQTT5-3.1.2-29]
#[test]
fn reason_strings_are_left_out_where_they_are_not_wanted() {
    let node = Node::start();
    let forbidden = publish(5, 0x02, "$SYS/x", 7, b"");
    let mut chatty = with(&node, "chatty", &[]);
    chatty.send(&forbidden);
    let mut told = vec![0x40, 21, 0, 7, 0x87, 17, 0x1F];
    text(&mut told, "not authorized");
    chatty.expect(&told);
    let mut terse = with(&node, "terse", &[0x17, 0]);
    terse.send(&forbidden);
    terse.expect(&[0x40, 3, 0, 7, 0x87]);
}

/// [MQTT5-3.1.2-24] [MQTT5-3.4.2-2]
#[test]
fn a_reason_string_that_does_not_fit_is_left_out() {
    let node = Node::start();
    let mut small = with(&node, "small", &[0x27, 0, 0, 0, 20]);
    small.send(&publish(5, 0x02, "$SYS/x", 7, b""));
    small.expect(&[0x40, 3, 0, 7, 0x87]);
    small.send(&[0xC1, 0]);
    small.expect(&[0xE0, 1, 0x81]);
}

/// [MQTT5-3.1.2-24]: a client that does not take the answer it needs is told so.
#[test]
fn a_suback_that_does_not_fit_ends_the_connection() {
    let node = Node::start();
    let mut small = with(&node, "small", &[0x27, 0, 0, 0, 24]);
    let mut packet = subscribe(5, 9, "a", 0);
    for _ in 0..25 {
        packet.extend_from_slice(b"\x00\x01b\x00");
        packet[1] += 4;
    }
    small.send(&packet);
    small.expect_disconnect(0x95);
}

/// [MQTT5-3.1.2-24]
#[test]
fn a_client_that_does_not_take_the_connack_is_closed_without_one() {
    let node = Node::start();
    let whole = {
        let (_client, ack) = Client::connect(node.addr(), 5, &connect(5, "a", 2, 60, &[]));
        ack.len() as u8
    };
    let mut client = Client::open_v5(node.addr());
    client.send(&connect(5, "b", 2, 60, &[0x27, 0, 0, 0, whole - 1]));
    assert_eq!(client.packet(), None);
    with(&node, "c", &[0x27, 0, 0, 0, whole]).expect_nothing();
}

/// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
#[test]
fn a_topic_goes_by_its_alias_once_it_was_introduced() {
    let node = Node::start();
    let mut aliased = with(&node, "aliased", &[0x22, 0, 1]);
    let mut plain = with(&node, "plain", &[]);
    aliased.subscribe("#", 1);
    plain.subscribe("#", 1);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    for (id, topic) in [(1, "a"), (2, "a"), (3, "b"), (4, "a")] {
        publisher.send(&publish(4, 0x02, topic, id, topic.as_bytes()));
        assert_eq!(publisher.packet().unwrap()[..2], [0x40, 2]);
    }
    let alias = &[0x23, 0, 1][..];
    for (topic, properties) in [("a", alias), ("", alias), ("b", &[]), ("", alias)] {
        let message = aliased.publish();
        assert_eq!(
            (message.topic.as_str(), message.properties.as_slice()),
            (topic, properties)
        );
    }
    for topic in ["a", "a", "b", "a"] {
        let message = plain.publish();
        assert_eq!((message.topic.as_str(), message.properties.len()), (topic, 0));
    }
    // Aliases end with the connection. [MQTT5-3.3.2-7]
    drop(aliased);
    let mut again = with(&node, "aliased", &[0x22, 0, 1]);
    again.subscribe("#", 0);
    publisher.send(&publish(4, 0x00, "a", 0, b"x"));
    assert_eq!(again.publish().topic, "a");
}

/// [MQTT5-3.2.2-21] [MQTT5-3.2.2-22] and all limits of the node.
#[test]
fn connack_announces_the_limits_and_nothing_that_is_the_default() {
    let config = MqttServerConfig {
        topic_alias_maximum: 0,
        keep_alive_max: Some(30),
        ..config()
    };
    let limits = CoreLimits {
        receive_maximum: 7,
        session_expiry_max_secs: 100,
        ..CoreLimits::default()
    };
    let node = Node::start_with(config, limits);
    let (_client, ack) = Client::connect(node.addr(), 5, &connect(5, "a", 2, 60, &[0x11, 0, 0, 1, 0]));
    let mut properties = Vec::new();
    properties.extend_from_slice(&[0x11, 0, 0, 0, 100]);
    properties.extend_from_slice(&[0x21, 0, 7]);
    properties.extend_from_slice(&[0x27, 0, 0x10, 0, 0]);
    properties.extend_from_slice(&[0x13, 0, 30]);
    assert_eq!(ack[..5], [0x20, 19, 0, 0, 16]);
    assert_eq!(ack[5..], properties);
}
