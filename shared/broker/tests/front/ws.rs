//! MQTT over WebSocket: frames of every shape, clients that break the rules, and the same bounds as over TCP.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fellbeck_broker::front::{MqttServerConfig, Transport};
use fellbeck_broker::session::CoreLimits;

use crate::client::{Client, ack, connect, frame as mqtt_frame, publish, subscribe, text};
use crate::load::resident_bytes;
use crate::node::{Node, config};
use crate::ws_client::{BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, WsClient, frame};

const LOOPBACK: [SocketAddr; 1] = [SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0)];

fn ws_config() -> MqttServerConfig {
    MqttServerConfig {
        ws_listen: LOOPBACK.to_vec(),
        ..config()
    }
}

fn start() -> Node {
    Node::start_with(ws_config(), CoreLimits::default())
}

fn ws_addr(node: &Node) -> SocketAddr {
    let listeners = node.server.as_ref().unwrap().listeners();
    let found = listeners.iter().find(|(transport, _)| *transport == Transport::Ws);
    found.unwrap().1
}

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn open(node: &Node) -> WsClient<TcpStream> {
    WsClient::open(tcp(ws_addr(node)))
}

fn connected(node: &Node, version: u8, id: &str) -> WsClient<TcpStream> {
    let mut client = open(node);
    client.send_mqtt(&connect(version, id, 2, 60, &[]));
    let answer = client.packet().expect("CONNACK");
    assert_eq!((answer[0], answer[3]), (0x20, 0), "{answer:02X?}");
    client
}

const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

#[test]
fn both_versions_are_served_and_messages_cross_to_plain_clients() {
    let node = start();
    for version in [4, 5] {
        let mut plain = Client::clean(node.addr(), version, "plain");
        plain.subscribe("to/plain", 1);
        let mut web = connected(&node, version, "web");
        web.send_mqtt(&subscribe(version, 1, "to/web", 1));
        assert_eq!(web.packet().unwrap()[0], 0x90);
        web.send_mqtt(&publish(version, 0x02, "to/plain", 9, b"from the web"));
        assert_eq!(web.packet().unwrap()[..4], ack(0x40, 9)[..]);
        assert_eq!(plain.publish().payload, b"from the web");
        plain.send(&publish(version, 0x02, "to/web", 3, b"to the web"));
        let message = web.packet().unwrap();
        assert_eq!(message[0] & 0xF0, 0x30);
        assert!(message.ends_with(b"to the web"), "{message:02X?}");
    }
    node.stop();
}

/// Frames without data were once read without a pause for anybody else.
#[test]
fn a_flood_of_frames_without_data_ends_the_connection() {
    let node = start();
    for first in [PING, PONG, BINARY] {
        let mut web = connected(&node, 4, "flood");
        let flood = frame(first | 0x80, &[]).repeat(1500);
        // The end may come before all of it is written.
        drop(web.stream.write_all(&flood));
        let close = loop {
            match web.frame() {
                Some((opcode, payload)) if opcode & 0x0F == CLOSE & 0x0F => break payload,
                Some(_) => {}
                None => panic!("closed without a word"),
            }
        };
        assert_eq!(close, 1008u16.to_be_bytes());
    }
    node.stop();
}

#[test]
fn packets_may_share_frames_and_span_them() {
    let node = start();
    let mut web = open(&node);
    // One packet, a frame for each byte.
    for byte in connect(4, "web", 2, 60, &[]) {
        web.send_mqtt(&[byte]);
    }
    assert_eq!(web.packet(), Some(vec![0x20, 2, 0, 0]));
    // Several packets in a frame, the last one cut, its rest in the next with another.
    let large = publish(4, 0x02, "t", 7, &[0x55; 300]);
    web.send_mqtt(&[&PINGREQ[..], &PINGREQ, &large[..100]].concat());
    assert_eq!(web.packet().unwrap(), PINGRESP);
    assert_eq!(web.packet().unwrap(), PINGRESP);
    web.send_mqtt(&[&large[100..], &PINGREQ].concat());
    let mut rest = [web.packet().unwrap(), web.packet().unwrap()];
    rest.sort();
    assert_eq!(rest, [ack(0x40, 7), PINGRESP.to_vec()]);
    // One message of fragments, one of them empty, with control frames in between.
    web.send(0x02, &large[..1]);
    web.send(PING, b"still there?");
    web.send(0x00, &large[1..50]);
    web.send(PONG, b"unasked");
    web.send(0x00, b"");
    web.send(0x80, &large[50..]);
    assert_eq!(web.frame(), Some((PONG, b"still there?".to_vec())));
    assert_eq!(web.packet().unwrap(), ack(0x40, 7));
    // A frame that comes byte by byte.
    for byte in frame(BINARY, &PINGREQ) {
        web.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(web.packet().unwrap(), PINGRESP);
    node.stop();
}

#[test]
fn large_packets_pass_in_both_directions() {
    let node = start();
    let mut web = connected(&node, 4, "web");
    web.send_mqtt(&subscribe(4, 1, "t", 0));
    assert_eq!(web.packet().unwrap()[0], 0x90);
    let payload: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    web.send_mqtt(&publish(4, 0, "t", 0, &payload));
    let message = web.packet().unwrap();
    assert!(message.ends_with(&payload), "{} bytes", message.len());
    node.stop();
}

/// [MQTT5-6.0.0-1]
#[test]
fn what_is_no_binary_frame_closes_with_its_code() {
    let node = start();
    let cases: [(Vec<u8>, u16); 7] = [
        (frame(TEXT, &PINGREQ), 1003),
        (frame(0x01, &PINGREQ), 1003),
        (frame(0xC2, &PINGREQ), 1002),
        (frame(0x83, &PINGREQ), 1002),
        (frame(0x80, &PINGREQ), 1002),
        ([BINARY, 2, 0xC0, 0].to_vec(), 1002),
        ([&[BINARY, 0xFF][..], &[0x7F; 12]].concat(), 1009),
    ];
    for (bytes, code) in cases {
        let mut web = connected(&node, 5, "web");
        // What stands behind it is not read.
        web.stream
            .write_all(&[bytes.clone(), frame(BINARY, &PINGREQ)].concat())
            .unwrap();
        assert_eq!(web.frame(), Some((CLOSE, code.to_be_bytes().to_vec())), "{bytes:02X?}");
        assert_eq!(web.frame(), None);
    }
    // The same before the CONNECT.
    let mut web = open(&node);
    web.send(TEXT, &connect(4, "web", 2, 60, &[]));
    web.expect_close(1003);
    await_connections(&node, 0);
    node.stop();
}

#[test]
fn a_close_is_answered_and_ends_the_session_s_connection() {
    let node = start();
    let mut web = connected(&node, 4, "web");
    await_connections(&node, 1);
    // What came before the Close is still taken.
    web.stream
        .write_all(
            &[
                frame(BINARY, &publish(4, 0x02, "t", 5, b"last")),
                frame(CLOSE, &1001_u16.to_be_bytes()),
            ]
            .concat(),
        )
        .unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = web.frame() {
        frames.push(frame);
    }
    assert_eq!(frames.last(), Some(&(CLOSE, 1001_u16.to_be_bytes().to_vec())));
    await_connections(&node, 0);
    let lane = node.store.track("lane/default/0").unwrap();
    await_true("the last message is appended", || node.store.bounds(lane).end.0 == 1);
    node.stop();
}

#[test]
fn a_goodbye_of_the_server_comes_in_a_frame_and_before_the_close() {
    let node = start();
    let mut first = connected(&node, 5, "same");
    let _second = connected(&node, 5, "same");
    let goodbye = first.packet().expect("DISCONNECT");
    assert_eq!((goodbye[0], goodbye[2]), (0xE0, 0x8E));
    first.expect_close(1000);
    let mut last = connected(&node, 5, "last");
    let stopping = std::thread::spawn(move || node.stop());
    let goodbye = last.packet().expect("DISCONNECT");
    assert_eq!((goodbye[0], goodbye[2]), (0xE0, 0x8B));
    last.expect_close(1000);
    stopping.join().unwrap();
}

#[test]
fn hostile_upgrades_get_a_clear_answer_and_the_end() {
    let node = start();
    let with = |from: &str, to: &str| UPGRADE.replace(from, to).into_bytes();
    let cases = [
        (with("GET", "POST"), "400"),
        (with("HTTP/1.1", "HTTP/1.0"), "400"),
        (with("Connection: Upgrade\r\n", ""), "426"),
        (with("Upgrade: websocket\r\n", ""), "426"),
        (with("Version: 13", "Version: 12"), "426"),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "x"), "400"),
        (with("Protocol: mqtt", "Protocol: chat, amqp"), "400"),
        (with("Host: localhost\r\n", ""), "400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "426"),
        (connect(4, "plain", 2, 60, &[]), "400"),
        (vec![0x16, 0x03, 0x01, 0x02, 0x00], "400"),
        (
            [UPGRADE.trim_end().as_bytes(), b"\r\nX: ", &[b'a'; 9000]].concat(),
            "431",
        ),
        (
            [UPGRADE.trim_end().as_bytes(), b"\r\n", &b"A: b\r\n".repeat(80), b"\r\n"].concat(),
            "431",
        ),
    ];
    for (request, status) in cases {
        let (mut client, answer) = WsClient::request(tcp(ws_addr(&node)), &request);
        let shown = String::from_utf8_lossy(&request).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
        assert!(answer.contains("Sec-WebSocket-Version: 13\r\n"), "{answer}");
        // The line of the body, and then the end.
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut client.stream, &mut body).ok();
    }
    connected(&node, 4, "bystander");
    node.stop();
}

#[test]
fn slow_openers_are_closed_wherever_they_stop() {
    let config = MqttServerConfig {
        first_packet_timeout: Duration::from_millis(600),
        ..ws_config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let start = Instant::now();
    // One budget for all of it.
    let silent = tcp(ws_addr(&node));
    let mut half = tcp(ws_addr(&node));
    half.write_all(&UPGRADE.as_bytes()[..40]).unwrap();
    let mut no_connect = open(&node);
    let mut half_connect = open(&node);
    half_connect.send_mqtt(&connect(4, "half", 2, 60, &[])[..5]);
    for stream in [silent, half] {
        ends(stream);
    }
    while no_connect.frame().is_some() {}
    while half_connect.frame().is_some() {}
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(500) && took < Duration::from_secs(5),
        "{took:?}"
    );
    node.stop();
}

fn ends(mut stream: TcpStream) {
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut all).ok();
    assert!(all.is_empty(), "{all:02X?}");
}

#[test]
fn a_reader_that_stands_still_is_closed_in_the_end() {
    let config = MqttServerConfig {
        stalled_after: Duration::from_secs(1),
        ..ws_config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut still = connected(&node, 4, "still");
    still.send_mqtt(&subscribe(4, 1, "t", 0));
    assert_eq!(still.packet().unwrap()[0], 0x90);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let payload = vec![0x55; 100_000];
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while node.server.as_ref().unwrap().connections() == 2 {
        n = n % 60_000 + 1;
        publisher.send(&publish(4, 0x02, "t", n, &payload));
        publisher.expect(&ack(0x40, n));
        assert!(Instant::now() < deadline, "still connected");
    }
    publisher.expect_nothing();
    drop(still);
}

#[test]
fn pings_of_a_client_that_reads_nothing_cost_bounded_memory_and_end_it() {
    let node = start();
    let mut web = connected(&node, 4, "web");
    let before = resident_bytes();
    let pings = frame(PING, &[0x55; 125]).repeat(8000);
    // 80 MB of pings, each of which would be answered by as much. The node reads a few megabytes of it, and resets.
    let is_cut = (0..80).any(|_| web.stream.write_all(&pings).is_err());
    assert!(is_cut, "all of it was taken");
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 20 << 20, "grew by {grown} bytes");
    Client::clean(node.addr(), 4, "other").expect_nothing();
    node.stop();
}

#[test]
fn accepts_beyond_the_rate_wait_and_are_served() {
    let config = MqttServerConfig {
        connect_rate: 20,
        connect_burst: 2,
        ..ws_config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let start = Instant::now();
    let clients: Vec<_> = (0..12).map(|n| connected(&node, 4, &format!("c{n}"))).collect();
    let took = start.elapsed();
    // Two at once, then one each 50 ms.
    assert!(took >= Duration::from_millis(400), "{took:?}");
    assert_eq!(clients.len(), 12);
    node.stop();
}

/// A refusal must not be overtaken by the reset of a socket that is closed with unread bytes.
#[test]
fn who_goes_on_sending_can_still_read_why_it_was_refused() {
    let node = start();
    let mut web = connected(&node, 5, "web");
    let more = frame(BINARY, &[0; 30_000]).repeat(50);
    let start = Instant::now();
    web.stream.write_all(&[frame(TEXT, b"text"), more].concat()).unwrap();
    web.expect_close(1003);
    // The node has read on for a moment before it closed: else the next write would be met by a reset.
    assert!(start.elapsed() >= Duration::from_millis(45), "{:?}", start.elapsed());
    let long = [b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), vec![b'x'; 500_000]].concat();
    let start = Instant::now();
    let (mut client, answer) = WsClient::request(tcp(ws_addr(&node)), &long);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    std::io::Read::read_to_end(&mut client.stream, &mut Vec::new()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(45), "{:?}", start.elapsed());
    node.stop();
}

#[test]
fn a_listener_that_nobody_asked_for_may_be_missing() {
    let taken = std::net::TcpListener::bind(LOOPBACK[0]).unwrap();
    let config = MqttServerConfig {
        ws_listen: vec![taken.local_addr().unwrap()],
        optional: vec![Transport::Ws],
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let listeners = node.server.as_ref().unwrap().listeners();
    assert_eq!(listeners, [(Transport::Tcp, node.addr())]);
    node.stop();
}

#[test]
fn topics_of_more_levels_than_allowed_are_refused() {
    let config = MqttServerConfig {
        topic_levels_max: 3,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut client = Client::clean(node.addr(), 5, "deep");
    client.send(&publish(5, 0x02, "a/b/c", 1, b"x"));
    assert_eq!(client.packet().unwrap()[..4], ack(0x40, 1)[..]);
    client.send(&publish(5, 0x02, "a/b/c/", 2, b"x"));
    let refusal = client.packet().unwrap();
    assert_eq!(
        (refusal[0], &refusal[2..5]),
        (0x40, &[0, 2, 0x90][..]),
        "{refusal:02X?}"
    );
    client.expect_nothing();
    node.stop();
}

/// As for PUBLISH: what could not be published is told at CONNECT.
#[test]
fn a_will_whose_topic_has_more_levels_than_allowed_is_refused_at_connect() {
    let config = MqttServerConfig {
        topic_levels_max: 3,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    for (topic, reason) in [("a/b/c", 0), ("a/b/c/d", 0x90)] {
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend_from_slice(&[5, 0x06, 0, 60, 0]);
        text(&mut body, "deep");
        body.push(0);
        text(&mut body, topic);
        text(&mut body, "gone");
        let (_client, ack) = Client::connect(node.addr(), 5, &mqtt_frame(0x10, &body));
        assert_eq!(ack[3], reason, "{topic}: {ack:02X?}");
    }
    node.stop();
}

#[test]
fn a_full_node_serves_who_comes_right_behind_one_that_left() {
    let config = MqttServerConfig {
        connections_max: 4,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    for round in 0..50 {
        let clients: Vec<_> = (0..4)
            .map(|n| Client::clean(node.addr(), 4, &format!("c{round}-{n}")))
            .collect();
        // Closed and opened again without a pause.
        drop(clients);
    }
    let _four: Vec<_> = (0..4)
        .map(|n| Client::clean(node.addr(), 4, &format!("d{n}")))
        .collect();
    assert_eq!(Client::open(node.addr()).packet(), None, "the fifth");
}

fn await_connections(node: &Node, count: usize) {
    await_true("the number of connections", || {
        node.server.as_ref().unwrap().connections() == count
    });
}

fn await_true(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !probe() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
