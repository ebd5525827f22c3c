//! `$SYS` over real sockets: what it says of packets and bytes is what went over them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fellbeck_broker::front::MqttServerConfig;
use fellbeck_broker::session::CoreLimits;

use crate::client::{Client, ack, connect, publish, subscribe};
use crate::node::{Node, config};

/// Packets and bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum(u64, u64);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.0 += 1;
        self.1 += bytes.len() as u64;
    }
}

/// All that clients sent and got.
#[derive(Debug, Default)]
struct Book {
    sent: Sum,
    got: Sum,
}

impl Book {
    fn open(&mut self, addr: SocketAddr, version: u8, packet: &[u8]) -> Client {
        let (client, ack) = Client::connect(addr, version, packet);
        self.sent.add(packet);
        self.got.add(&ack);
        client
    }

    fn send(&mut self, client: &mut Client, packet: &[u8]) {
        client.send(packet);
        self.sent.add(packet);
    }

    fn get(&mut self, client: &mut Client) -> Vec<u8> {
        let packet = client.packet().expect("a packet");
        self.got.add(&packet);
        packet
    }

    /// Reads what comes before the end.
    fn get_rest(&mut self, client: &mut Client) {
        while let Some(packet) = client.packet() {
            self.got.add(&packet);
        }
    }
}

/// The values that a new subscription is sent, the last of which is `last`.
fn values(client: &mut Client, last: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    while !found.contains_key(last) {
        let message = client.publish();
        assert_eq!(message.flags, 0x01, "retained, at QoS 0: {message:?}");
        found.insert(message.topic, String::from_utf8(message.payload).unwrap());
    }
    found
}

fn value(values: &BTreeMap<String, String>, topic: &str) -> u64 {
    values[&format!("$SYS/broker/{topic}")].parse().unwrap()
}

/// Everything in alphabetical order: this comes last.
const LAST: &str = "$SYS/fellbeck/store/records/appended";

#[test]
fn packets_and_bytes_are_those_that_went_over_the_sockets() {
    let node = Node::start();
    let addr = node.addr();
    let mut book = Book::default();
    // The payload counts of what is published, in and out.
    let (mut taken, mut given) = (Sum::default(), Sum::default());
    for version in [4, 5] {
        let mut reader = book.open(addr, version, &connect(version, "reader", 0x02, 60, &[]));
        book.send(&mut reader, &subscribe(version, 1, "t/#", 1));
        book.get(&mut reader);
        let mut writer = book.open(addr, version, &connect(version, "writer", 0x02, 60, &[]));
        for (flags, payload) in [(0x00, &b"zero"[..]), (0x02, &[7; 3000])] {
            book.send(&mut writer, &publish(version, flags, "t/x", 3, payload));
            taken.add(payload);
            book.get(&mut reader);
            given.add(payload);
        }
        book.get(&mut writer);
        book.send(&mut writer, &[0xC0, 0]);
        book.get(&mut writer);
        book.send(&mut writer, &[0xE0, 0]);
        book.get_rest(&mut writer);
        // A second CONNECT: MQTT 5 is told before the end.
        book.send(&mut reader, &connect(version, "again", 0x02, 60, &[]));
        book.get_rest(&mut reader);
    }
    // Refused: an authentication method, and a level that nobody speaks.
    let mut refused = book.open(addr, 5, &connect(5, "refused", 0x02, 60, b"\x15\x00\x01x"));
    book.get_rest(&mut refused);
    let mut unknown = Client::open(addr);
    unknown.send(b"\x10\x0D\x00\x04MQTT\x07\x02\x00\x3C\x00\x01a");
    book.get(&mut unknown);

    let mut watcher = book.open(addr, 5, &connect(5, "watcher", 0x02, 60, &[]));
    book.send(&mut watcher, &subscribe(5, 1, "$SYS/#", 0));
    watcher.packet().expect("SUBACK, after the values were made");
    let values = values(&mut watcher, LAST);
    let found = |kind: &str, way: &str| value(&values, &format!("{kind}/{way}"));
    assert_eq!(
        Sum(found("messages", "received"), found("bytes", "received")),
        book.sent
    );
    assert_eq!(Sum(found("messages", "sent"), found("bytes", "sent")), book.got);
    let publish = |way: &str| Sum(found("publish/messages", way), found("publish/bytes", way));
    assert_eq!((publish("received"), publish("sent")), (taken, given));
    assert_eq!(value(&values, "clients/maximum"), 2);
    node.stop();
}

#[test]
fn values_follow_what_happens() {
    let node = Node::start();
    let addr = node.addr();
    let mut reader = Client::clean(addr, 5, "reader");
    reader.subscribe("$share/g/a/#", 1);
    reader.subscribe("b/#", 1);
    let (away, _) = Client::keep(addr, 5, "away");
    drop(away);
    let mut watcher = Client::clean(addr, 5, "watcher");
    watcher.send(&publish(5, 0x02, "kept", 1, b"x"));
    watcher.expect(&ack(0x40, 1));
    watcher.subscribe("$SYS/#", 2);
    let values = values(&mut watcher, LAST);
    let expected = [
        ("$SYS/broker/clients/total", "3"),
        ("$SYS/broker/subscriptions/count", "2"),
        ("$SYS/broker/shared_subscriptions/count", "1"),
        ("$SYS/broker/messages/stored", "1"),
        ("$SYS/fellbeck/node/name", "test"),
        ("$SYS/fellbeck/clock/quality", "synced"),
        ("$SYS/fellbeck/store/pressure", "normal"),
        ("$SYS/fellbeck/store/records/appended", "1"),
        ("$SYS/fellbeck/dropped/qos0_offline", "0"),
    ];
    for (topic, expected) in expected {
        assert_eq!(values[topic], expected, "{topic}");
    }
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    assert!(values["$SYS/broker/version"].starts_with("fellbeck version "));
    assert_eq!(values.keys().filter(|topic| topic.contains("/load/")).count(), 27);
    node.stop();
}

/// The interval brings changes, and nothing that has not changed.
#[test]
fn changes_come_at_the_interval() {
    let config = MqttServerConfig {
        sys_interval: Duration::from_secs(1),
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut watcher = Client::clean(node.addr(), 5, "watcher");
    for filter in ["$SYS/broker/uptime", "$SYS/broker/version", "$SYS/broker/clients/total"] {
        watcher.subscribe(filter, 0);
        assert_eq!(watcher.publish().topic, filter);
    }
    let other = Client::clean(node.addr(), 4, "other");
    let mut topics: Vec<_> = (0..4).map(|_| watcher.publish()).collect();
    topics.retain(|message| message.topic != "$SYS/broker/uptime");
    assert_eq!(topics.len(), 1, "{topics:?}");
    let total = &topics[0];
    assert_eq!((total.flags, &total.payload[..]), (0, &b"2"[..]));
    assert_eq!(total.topic, "$SYS/broker/clients/total");
    drop(other);
    node.stop();
}

#[test]
fn without_an_interval_there_are_no_values() {
    let config = MqttServerConfig {
        sys_interval: Duration::ZERO,
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut watcher = Client::clean(node.addr(), 4, "watcher");
    watcher.subscribe("$SYS/#", 0);
    watcher.expect_nothing();
    node.stop();
}
