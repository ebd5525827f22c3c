//! The authentication hook: plain decisions, the exchange of MQTT 5 before CONNACK, and re-authentication.

use std::sync::Arc;
use std::time::Duration;

use fellbeck_broker::front::{Authenticator, ConnectRequest, Decision, Exchange, MqttServerConfig, Step};
use fellbeck_broker::session::CoreLimits;

use crate::client::{Client, connect, frame, publish, text};
use crate::node::{Node, config};

/// Knows the method `echo`: the client must say back what it was told, with a `!`.
#[derive(Debug)]
struct EchoMethod;

struct Echo {
    told: Option<Vec<u8>>,
}

impl Authenticator for EchoMethod {
    fn connect(&self, request: &ConnectRequest<'_>) -> Decision {
        match (request.user_name, request.password) {
            (Some("mallory"), _) => Decision::Refuse(0x87),
            (Some("alice"), password) if password != Some(b"secret") => Decision::Refuse(0x86),
            _ => Decision::Accept,
        }
    }

    fn begin(&self, client_id: &str, method: &str) -> Option<Box<dyn Exchange>> {
        assert!(!client_id.is_empty());
        (method == "echo").then(|| Box::new(Echo { told: None }) as Box<dyn Exchange>)
    }
}

impl Exchange for Echo {
    fn step(&mut self, data: Option<&[u8]>) -> Step {
        let data = data.unwrap_or_default();
        match self.told.take() {
            None if data == b"at once" => Step::Done(Vec::new()),
            None => {
                let told = [data, b"?"].concat();
                self.told = Some(told.clone());
                Step::Continue(told)
            }
            Some(told) if *data == [&told[..], b"!"].concat() => Step::Done(b"done".to_vec()),
            Some(_) => Step::Refuse(0x87),
        }
    }
}

fn node() -> Node {
    node_within(Duration::from_secs(10))
}

fn node_within(first_packet_timeout: Duration) -> Node {
    let config = MqttServerConfig {
        authenticator: Arc::new(EchoMethod),
        first_packet_timeout,
        ..config()
    };
    Node::start_with(config, CoreLimits::default())
}

fn properties(method: &str, data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x15];
    text(&mut out, method);
    if !data.is_empty() {
        out.push(0x16);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    out
}

fn auth(reason: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let block = properties(method, data);
    frame(0xF0, &[&[reason, block.len() as u8], &block[..]].concat())
}

/// A client that has been told `hi?`.
fn told(node: &Node) -> Client {
    let (client, answer) = begun(node);
    assert_eq!(answer, auth(0x18, "echo", b"hi?")); // [MQTT5-4.12.0-2] [MQTT5-4.12.0-5]
    client
}

fn begun(node: &Node) -> (Client, Vec<u8>) {
    let mut client = Client::open_v5(node.addr());
    client.send(&connect(5, "c", 2, 60, &properties("echo", b"hi")));
    let answer = client.packet().expect("AUTH");
    (client, answer)
}

/// A client that is connected with the method.
fn connected(node: &Node) -> Client {
    let mut client = Client::open_v5(node.addr());
    client.send(&connect(5, "c", 2, 60, &properties("echo", b"at once")));
    let ack = client.packet().expect("CONNACK");
    assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02X?}");
    client
}

fn expect_refusal(mut client: Client, reason: u8) {
    let ack = client.packet().expect("CONNACK");
    assert_eq!((ack[0], ack[2], ack[3]), (0x20, 0, reason), "{ack:02X?}");
    assert_eq!(client.packet(), None);
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5]
#[test]
fn an_exchange_that_succeeds_ends_with_a_connack_that_names_the_method() {
    let node = node();
    let mut client = told(&node);
    client.send(&auth(0x18, "echo", b"hi?!"));
    let ack = client.packet().unwrap();
    assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02X?}");
    let named = properties("echo", b"done");
    assert!(ack.windows(named.len()).any(|part| part == named), "{ack:02X?}");
    client.expect_nothing();
}

/// [MQTT5-4.12.0-1] [MQTT5-4.12.0-4]
#[test]
fn an_exchange_that_fails_is_refused_with_its_reason() {
    let node = node();
    let mut client = told(&node);
    client.send(&auth(0x18, "echo", b"wrong"));
    expect_refusal(client, 0x87);
    let mut client = Client::open_v5(node.addr());
    client.send(&connect(5, "c", 2, 60, &properties("other", b"")));
    expect_refusal(client, 0x8C);
}

/// [MQTT5-3.1.2-30] [MQTT5-3.1.4-6] [MQTT5-4.12.0-5]
#[test]
fn anything_but_a_fitting_auth_ends_the_exchange() {
    let node = node();
    for packet in [
        vec![0xC0, 0],
        publish(5, 0, "t", 0, b"x"),
        auth(0x18, "other", b"hi?!"),
        auth(0x19, "echo", b"hi?!"),
        auth(0x00, "echo", b"hi?!"),
        connect(5, "c", 2, 60, &[]),
    ] {
        let mut client = told(&node);
        client.send(&packet);
        expect_refusal(client, 0x82);
    }
    let mut malformed = told(&node);
    malformed.send(&[0xF1, 0]);
    expect_refusal(malformed, 0x81);
    let mut leaves = told(&node);
    leaves.send(&[0xE0, 0]);
    assert_eq!(leaves.packet(), None);
}

#[test]
fn an_auth_may_come_in_pieces() {
    let node = node();
    let mut client = told(&node);
    for byte in auth(0x18, "echo", b"hi?!") {
        client.send(&[byte]);
    }
    assert_eq!(client.packet().unwrap()[3], 0);
}

#[test]
fn an_exchange_counts_against_the_time_to_the_first_packet() {
    let node = node_within(Duration::from_millis(300));
    let mut client = told(&node);
    assert_eq!(client.packet(), None);
}

/// [MQTT5-4.12.1-1]
#[test]
fn a_client_may_authenticate_again_while_messages_flow() {
    let node = node();
    let mut client = connected(&node);
    client.subscribe("t", 0);
    for _ in 0..2 {
        client.send(&auth(0x19, "echo", b"again"));
        client.expect(&auth(0x18, "echo", b"again?"));
        client.send(&publish(5, 0, "t", 0, b"x"));
        assert_eq!(client.publish().payload, b"x");
        client.send(&auth(0x18, "echo", b"again?!"));
        client.expect(&auth(0x00, "echo", b"done"));
    }
    client.expect_nothing();
}

/// [MQTT5-4.12.1-2]
#[test]
fn a_re_authentication_that_fails_ends_the_connection() {
    let node = node();
    let mut client = connected(&node);
    client.send(&auth(0x19, "echo", b"again"));
    client.expect(&auth(0x18, "echo", b"again?"));
    client.send(&auth(0x18, "echo", b"wrong"));
    client.expect_disconnect(0x87);
    let out_of_turn: [&[Vec<u8>]; 5] = [
        &[auth(0x19, "other", b"")],
        &[auth(0x18, "echo", b"")],
        &[auth(0x00, "echo", b"")],
        &[vec![0xF0, 0]],
        &[auth(0x19, "echo", b"a"), auth(0x19, "echo", b"b")],
    ];
    for packets in out_of_turn {
        let mut client = connected(&node);
        client.send(&packets.concat());
        let mut answer = client.packet().unwrap();
        if answer[0] == 0xF0 {
            answer = client.packet().unwrap();
        }
        assert_eq!((answer[0], answer[2]), (0xE0, 0x82), "{packets:02X?}");
    }
}

#[test]
fn a_re_authentication_that_is_not_done_in_time_ends_the_connection() {
    let node = node_within(Duration::from_millis(300));
    let mut client = connected(&node);
    client.send(&auth(0x19, "echo", b"again"));
    client.expect(&auth(0x18, "echo", b"again?"));
    client.expect_disconnect(0x87);
}

/// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn without_a_method_no_auth_is_sent_and_none_is_taken() {
    let node = node();
    let mut client = Client::open_v5(node.addr());
    client.send(&connect(5, "plain", 2, 60, &[]));
    let ack = client.packet().unwrap();
    assert_eq!((ack[0], ack[3]), (0x20, 0), "{ack:02X?}");
    assert!(!ack.contains(&0x15), "{ack:02X?}");
    client.send(&auth(0x19, "echo", b""));
    client.expect_disconnect(0x82);
}

/// [MQTT5-3.1.4-2] [MQTT3-3.2.2-4]
#[test]
fn the_hook_sees_user_name_and_password_of_both_versions() {
    let node = node();
    let ask = |version: u8, user: &str, password: Option<&str>| {
        let mut packet = connect(version, "c", 0, 60, &[])[2..].to_vec();
        packet[7] |= 0x82 | if password.is_some() { 0x40 } else { 0 };
        text(&mut packet, user);
        if let Some(password) = password {
            text(&mut packet, password);
        }
        let (_client, ack) = Client::connect(node.addr(), version, &frame(0x10, &packet));
        ack[3]
    };
    assert_eq!((ask(4, "mallory", None), ask(5, "mallory", None)), (5, 0x87));
    assert_eq!((ask(4, "alice", Some("no")), ask(5, "alice", None)), (4, 0x86));
    assert_eq!(
        (ask(4, "alice", Some("secret")), ask(5, "alice", Some("secret"))),
        (0, 0)
    );
}
