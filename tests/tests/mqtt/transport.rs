//! Transports (4.2, 6): MQTT over WebSocket frames; TCP is what all other tests use.

use std::net::{SocketAddr, TcpStream};

use fellbeck_tests::mqtt::wire::hex;
use fellbeck_tests::mqtt::{Publish, encode};
use fellbeck_tests::wait;
use fellbeck_tests::ws::{BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, WsClient};

use crate::brokers::{Target, on_each_version, unique};

fn tcp(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&at, wait::SOON).expect("the node accepts");
    stream
        .set_read_timeout(Some(wait::SOON))
        .expect("a socket takes options");
    stream.set_nodelay(true).expect("a socket takes options");
    stream
}

/// An upgraded connection on which no MQTT was spoken yet.
fn open(target: Target) -> WsClient<TcpStream> {
    WsClient::open(tcp(target.ws))
}

/// The same, with CONNECT accepted.
fn connected(target: Target) -> WsClient<TcpStream> {
    let mut web = open(target);
    web.send_mqtt(&target.hello("web").bytes());
    let connack = web.packet().expect("a CONNACK");
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    web
}

fn expect_pong(web: &mut WsClient<TcpStream>) {
    assert_eq!(web.packet(), Some(hex("d000")));
}

/// [MQTT5-6.0.0-4] [MQTT5-6.0.0-3] [MQTT5-4.2.0-1] [MQTT3-6.0.0-4] [MQTT3-6.0.0-3] The answer to an upgrade that offers "mqtt", alone or among
/// others, selects it, and MQTT is spoken.
#[test]
fn the_sub_protocol_mqtt_is_selected() {
    on_each_version(|target| {
        let mut web = connected(target);
        web.send_mqtt(&hex("c000"));
        expect_pong(&mut web);
        for offer in ["mqtt, other", "other, mqtt", "mqttv3.1, mqtt"] {
            let request = UPGRADE.replace("Protocol: mqtt", &format!("Protocol: {offer}"));
            let (_web, answer) = WsClient::request(tcp(target.ws), request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 101 "), "{offer}: {answer}");
            let selected = answer.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("sec-websocket-protocol")
                    .then(|| value.trim().to_owned())
            });
            let known = selected
                .as_deref()
                .is_some_and(|name| name == "mqtt" || (name == "mqttv3.1" && offer.contains(name)));
            assert!(known, "{offer}: {answer}");
        }
    });
}

/// [MQTT5-6.0.0-1] [MQTT3-6.0.0-1] A text frame closes the connection, first of all, behind CONNECT, and between the frames of a packet.
#[test]
fn a_text_frame_closes() {
    on_each_version(|target| {
        let hello = target.hello("text").bytes();
        let mut first = open(target);
        first.send(TEXT, &hello);
        first.expect_close(1003);
        let mut later = connected(target);
        later.send(TEXT, &hex("c000"));
        later.expect_close(1003);
        let mut within = open(target);
        within.send(BINARY, &hello[..5]);
        within.send(TEXT, &hello[5..]);
        within.expect_close(1003);
    });
}

/// [MQTT5-6.0.0-1] [MQTT5-3.1.2-8] [MQTT3-6.0.0-1] [MQTT3-3.1.2-8] What the node sends is in binary frames only, and the close for a text frame
/// counts as a failure: the will is published.
#[test]
fn a_text_frame_publishes_the_will() {
    on_each_version(|target| {
        let topic = unique("web/will");
        let mut watcher = target.client("web-watcher");
        assert_eq!(watcher.subscribe(&topic, 0), 0);
        let mut web = open(target);
        web.send_mqtt(
            &target
                .hello("web")
                .will(fellbeck_tests::mqtt::LastWill::new(&topic, "gone"))
                .bytes(),
        );
        let (first, _) = web.frame().expect("a CONNACK");
        assert_eq!(first, BINARY);
        web.send(TEXT, b"x");
        watcher.expect_message("gone");
    });
}

/// [MQTT5-6.0.0-2] [MQTT3-6.0.0-2] A packet may be cut over many frames, fragments of a message and single bytes, and several may share one.
#[test]
fn packets_need_not_be_aligned_with_frames() {
    on_each_version(|target| {
        let topic = unique("web/frames");
        let mut web = open(target);
        for byte in target.hello("web").bytes() {
            web.send(BINARY, &[byte]);
        }
        assert_eq!(web.packet().expect("a CONNACK")[0], 0x20);
        let subscribe = encode::subscribe(target.version, 1, &[(&topic, 0)]);
        let publish = |text: &str| encode::publish(target.version, &Publish::new(&topic, text));
        web.send_mqtt(&[subscribe, publish("one"), publish("two"), publish("three")].concat());
        assert_eq!(web.packet().expect("a SUBACK")[0], 0x90);
        for text in ["one", "two", "three"] {
            let packet = web.packet().expect("a PUBLISH");
            assert!(packet.ends_with(text.as_bytes()), "{packet:02x?}");
        }
        // One message of three fragments, with a Ping between them and nothing in the middle one.
        let both = [publish("four"), publish("five")].concat();
        let (head, tail) = both.split_at(7);
        web.send(0x02, head);
        web.send(PING, b"?");
        web.send(0x00, &[]);
        web.send(0x80, tail);
        assert_eq!(web.frame(), Some((PONG, b"?".to_vec())));
        for text in ["four", "five"] {
            let packet = web.packet().expect("a PUBLISH");
            assert!(packet.ends_with(text.as_bytes()), "{packet:02x?}");
        }
    });
}

/// [MQTT5-6.0.0-2] [MQTT3-6.0.0-2] A large message from TCP to WebSocket and back is whole, however the frames are cut.
#[test]
fn large_messages_cross_transports() {
    on_each_version(|target| {
        let topic = unique("web/large");
        let payload: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let mut tcp = target.client("web-tcp");
        assert_eq!(tcp.subscribe(&topic, 0), 0);
        let mut web = connected(target);
        web.send_mqtt(&encode::subscribe(target.version, 1, &[(&topic, 0)]));
        assert_eq!(web.packet().expect("a SUBACK")[0], 0x90);
        let publish = encode::publish(target.version, &Publish::new(&topic, &payload));
        for part in publish.chunks(70_000) {
            web.send(BINARY, part);
        }
        assert_eq!(tcp.expect_publish().payload, payload);
        assert_eq!(web.packet(), Some(publish.clone()));
        tcp.send(&publish);
        assert_eq!(web.packet(), Some(publish));
    });
}

/// [MQTT5-4.13.1] [MQTT5-3.14.4-2] [MQTT3-4.8.0-1] [MQTT3-3.14.4] Over WebSocket too an error gets its DISCONNECT in 5.0 before the close, and
/// a DISCONNECT of the client the close.
#[test]
fn errors_end_a_web_socket_as_they_end_tcp() {
    on_each_version(|target| {
        let mut web = connected(target);
        web.send_mqtt(&hex("8000"));
        if target.is_v5() {
            let disconnect = web.packet().expect("a DISCONNECT");
            assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x81), "{disconnect:02x?}");
        }
        assert_eq!(web.packet(), None);
        let mut web = connected(target);
        web.send_mqtt(&hex("e000"));
        assert_eq!(web.packet(), None);
        let mut web = connected(target);
        web.send(CLOSE, &[0x03, 0xE8]);
        assert_eq!(web.packet(), None);
    });
}
