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
