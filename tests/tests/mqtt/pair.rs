//! A publisher and a subscriber of one topic, and what most tests of deliveries do with them.
//!
//! In: a target. Out: connections that are ready. Nothing is waited for that is not a packet: time passes while a will with a delay is
//! awaited ([`elapse`]), and absence is shown by a marker from the same publisher at the same QoS, which keeps its place in the order.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::{packet, property};
use fellbeck_tests::mqtt::{AckKind, Answer, Connect, Delivery, LastWill, Publish, Raw, Version, encode};

use crate::brokers::{Target, unique};

/// A publisher, a subscriber, and the topic between them.
#[derive(Debug)]
pub(crate) struct Pair {
    /// It publishes.
    pub(crate) from: Raw,
    /// It has subscribed.
    pub(crate) to: Raw,
    /// The topic.
    pub(crate) topic: String,
}

impl Pair {
    /// Two clean clients; the subscription has these options.
    pub(crate) fn new(target: &Target, name: &str, options: u8) -> Self {
        Self::with(target, name, options, &target.hello(name))
    }

    /// The same with a subscriber of its own kind.
    pub(crate) fn with(target: &Target, name: &str, options: u8, subscriber: &Connect) -> Self {
        let topic = unique(&format!("{name}/topic"));
        let mut to = target.connect(subscriber);
        assert!(to.subscribe(&topic, options) <= 2);
        let from = target.client(name);
        Self { from, to, topic }
    }

    /// A message to the topic.
    pub(crate) fn message(&self, payload: impl AsRef<[u8]>) -> Publish {
        Publish::new(&self.topic, payload)
    }

    /// Publishes to the topic, with all acknowledgements.
    pub(crate) fn publish(&mut self, qos: u8, payload: &str) {
        let message = self.message(payload).qos(qos);
        self.from.publish(&message);
    }

    /// Demands that nothing but a marker comes to the subscriber next.
    pub(crate) fn expect_nothing(&mut self, qos: u8) {
        self.publish(qos, "marker");
        let marker = self.to.expect_message("marker");
        self.to.acknowledge(&marker);
    }
}

/// Makes a session that has subscribed and is away: what is published from now on waits for it.
pub(crate) fn absent(target: &Target, name: &str, filter: &str, options: u8) -> Connect {
    let hello = Connect::kept(target.version, unique(name));
    let mut client = target.connect(&hello);
    assert!(client.subscribe(filter, options) <= 2);
    client.disconnect();
    hello
}

/// Resumes a session that must be there.
pub(crate) fn resume(target: &Target, hello: &Connect) -> Raw {
    let (client, accepted) = Raw::connect(target.at, hello);
    assert!(accepted.session_present, "the session is gone");
    client
}

/// Receives `count` messages, acknowledges each when it comes, and carries their exchanges through to the end. A PUBREL
/// may come between other deliveries.
pub(crate) fn take(client: &mut Raw, count: usize) -> Vec<Delivery> {
    let got = take_while(client, |got| got.len() < count);
    assert_eq!(got.len(), count, "more than was awaited");
    got
}

/// The same up to a message with this payload, which must be the last one and is left out.
pub(crate) fn take_until(client: &mut Raw, end: &str) -> Vec<Delivery> {
    let mut got = take_while(client, |got| got.last().is_none_or(|last| last.text() != end));
    got.pop();
    got
}

fn take_while(client: &mut Raw, goes_on: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
    let mut got = Vec::new();
    let mut open = 0;
    while goes_on(&got) || open > 0 {
        match client.recv() {
            Answer::Publish(delivery) => {
                match delivery.qos {
                    1 => client.send(&encode::ack(AckKind::PubAck, delivery.id)),
                    2 => {
                        client.send(&encode::ack(AckKind::PubRec, delivery.id));
                        open += 1;
                    }
                    _ => {}
                }
                got.push(delivery);
            }
            Answer::Ack {
                kind: AckKind::PubRel,
                id,
                reason: 0,
                ..
            } => {
                client.send(&encode::ack(AckKind::PubComp, id));
                open -= 1;
            }
            other => panic!("expected PUBLISH or PUBREL, got {other:02x?}"),
        }
    }
    got
}

/// Payloads as text.
pub(crate) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(Delivery::text).collect()
}

/// Demands that the node ends the connection, in 5.0 with one of these reasons: where the standard leaves the choice.
pub(crate) fn expect_end_with(client: &mut Raw, reasons: &[u8]) {
    if client.version == Version::V5 {
        match client.recv() {
            Answer::Disconnect { reason, .. } if reasons.contains(&reason) => {}
            other => panic!("expected DISCONNECT with one of {reasons:02x?}, got {other:02x?}"),
        }
    }
    client.expect_close();
}

/// An acknowledgement of 5.0 with a reason code.
pub(crate) fn ack_with(kind: AckKind, id: u16, reason: u8) -> Vec<u8> {
    packet(first_byte(kind), &[&id.to_be_bytes(), &[reason]])
}

/// Packet type and flags of an acknowledgement.
pub(crate) fn first_byte(kind: AckKind) -> u8 {
    ((kind as u8) << 4) | if kind == AckKind::PubRel { 2 } else { 0 }
}

/// Lets `seconds` pass by the clock of the node: a will with this delay is awaited.
pub(crate) fn elapse(target: &Target, seconds: u32) {
    let topic = unique("clock");
    let mut watcher = Raw::connected(target.at, &Connect::new(Version::V5, unique("clock-watcher")));
    assert_eq!(watcher.subscribe(&topic, 0), 0);
    let will = LastWill::new(&topic, "now").property(property::will_delay(seconds));
    let since = Instant::now();
    let ticking = Connect::kept(Version::V5, unique("clock")).will(will);
    Raw::connected(target.at, &ticking).reset();
    watcher.expect_message("now");
    let passed = since.elapsed();
    assert!(passed >= Duration::from_secs(u64::from(seconds)), "{passed:?}");
}
