//! Session state (4.1, 3.1.2.4): kept, resumed, taken over, expired, restarted.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{AckKind, Answer, Connect, LastWill, Publish, Raw, Version, encode};
use fellbeck_tests::wait;

use crate::brokers::{Target, expect_nothing, on_each, on_each_v3, on_each_version, on_own, target, unique};

/// [MQTT5-3.1.2-23] [MQTT5-3.2.2-3] [MQTT3-3.1.2-4] [MQTT3-3.2.2-2] A kept session is there after the node was killed and started again.
#[test]
fn a_session_outlives_a_restart() {
    on_own(&[], |node| {
        let hellos = Version::BOTH.map(|version| Connect::kept(version, unique("kept")));
        for hello in &hellos {
            let (client, accepted) = Raw::connect(target(node, hello.version).at, hello);
            assert!(!accepted.session_present);
            client.disconnect();
        }
        node.kill();
        node.start();
        for hello in &hellos {
            let (_client, accepted) = Raw::connect(target(node, hello.version).at, hello);
            assert!(accepted.session_present, "{:?}", hello.version);
        }
    });
}

/// A session with one of everything: a subscription, unacknowledged deliveries of QoS 1 and 2, one that waits for PUBCOMP, and a QoS 2
/// message received and not released.
struct Furnished {
    hello: Connect,
    topic: String,
    first: u16,
    second: u16,
    released: u16,
}

const RECEIVED: u16 = 4711;

impl Furnished {
    fn new(target: Target) -> Self {
        let topic = unique("furnished");
        let hello = Connect::kept(target.version, unique("furnished"));
        let mut client = target.connect(&hello);
        assert_eq!(client.subscribe(&topic, 2), 2);
        let mut sender = target.client("furnisher");
        let mut deliver = |payload: &str, qos| {
            sender.publish(&Publish::new(&topic, payload).qos(qos));
            client.expect_message(payload).id
        };
        let (first, second, released) = (deliver("one", 1), deliver("two", 2), deliver("released", 2));
        client.send(&encode::ack(AckKind::PubRec, released));
        client.expect_ack(AckKind::PubRel, released, 0);
        client.send_publish(&Publish::new(&topic, "mine").qos(2).id(RECEIVED));
        // The own message comes back as well, before or behind its PUBREC; it is left open too.
        let mut seen = [client.recv(), client.recv()];
        seen.sort_by_key(|answer| matches!(answer, Answer::Publish(_)));
        assert!(
            matches!(
                seen[0],
                Answer::Ack {
                    kind: AckKind::PubRec,
                    id: RECEIVED,
                    reason: 0,
                    ..
                }
            ),
            "{seen:?}"
        );
        assert!(
            matches!(&seen[1], Answer::Publish(delivery) if delivery.text() == "mine"),
            "{seen:?}"
        );
        client.reset();
        for qos in 0..3 {
            sender.publish(&Publish::new(&topic, format!("absent {qos}")).qos(qos));
        }
        Self {
            hello,
            topic,
            first,
            second,
            released,
        }
    }

    /// Demands all of it on a new connection.
    fn check(&self, target: Target) {
        let (mut client, accepted) = Raw::connect(target.at, &self.hello);
        assert!(accepted.session_present);
        let (mut publishes, mut releases) = (Vec::new(), Vec::new());
        while publishes.last() != Some(&("absent 2".to_owned(), 2, false)) {
            match client.recv() {
                Answer::Publish(delivery) => {
                    if delivery.dup {
                        assert!(
                            [self.first, self.second].contains(&delivery.id) || delivery.text() == "mine",
                            "{delivery:?}"
                        );
                    }
                    publishes.push((delivery.text(), delivery.qos, delivery.dup));
                    if delivery.qos == 1 {
                        client.send(&encode::ack(AckKind::PubAck, delivery.id));
                    }
                }
                Answer::Ack {
                    kind: AckKind::PubRel,
                    id,
                    ..
                } => releases.push(id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(releases, [self.released]);
        // A QoS 0 message may be kept for an absent client or not.
        publishes.retain(|(text, ..)| text != "absent 0");
        let wanted = [
            ("one", 1, true),
            ("two", 2, true),
            ("mine", 2, true),
            ("absent 1", 1, false),
            ("absent 2", 2, false),
        ];
        assert_eq!(publishes, wanted.map(|(text, qos, dup)| (text.to_owned(), qos, dup)));
        self.check_received(target, client);
    }

    /// The message that the node had received is not published again; its exchange goes on.
    fn check_received(&self, target: Target, mut client: Raw) {
        let mut watcher = target.client("furnished-watcher");
        assert_eq!(watcher.subscribe(&self.topic, 0), 0);
        client.send_publish(&Publish::new(&self.topic, "mine").qos(2).id(RECEIVED).dup());
        client.expect_ack(AckKind::PubRec, RECEIVED, 0);
        client.send(&encode::ack(AckKind::PubRel, RECEIVED));
        client.expect_ack(AckKind::PubComp, RECEIVED, 0);
        client.unsubscribe(&[&self.topic]);
        client.publish(&Publish::new(&self.topic, "marker"));
        watcher.expect_message("marker");
    }
}

/// [MQTT5-4.1] [MQTT5-4.1.0-1] [MQTT5-4.4.0-1] [MQTT5-3.1.2-5] [MQTT5-3.1.2-23] [MQTT5-4.3.3-6] [MQTT5-4.3.3-10] [MQTT5-3.3.1-1] [MQTT3-4.1.0-1]
/// [MQTT3-4.1.0-2] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT3-3.1.2-4] [MQTT3-3.1.2-5] [MQTT3-3.3.1-1] A session that is resumed has its
/// subscriptions, what was in flight both ways with its identifiers, and what came meanwhile, in order.
#[test]
fn a_resumed_session_has_all_its_state() {
    on_each_version(|target| Furnished::new(target).check(target));
}

/// [MQTT5-4.1] [MQTT5-4.1.0-1] [MQTT5-4.4.0-1] [MQTT3-4.1.0-1] [MQTT3-4.4.0-1] [MQTT3-3.1.2-5] The same after the node was killed and started
/// again.
#[test]
fn a_restarted_node_has_all_state_of_its_sessions() {
    on_own(&[], |node| {
        let sessions = Version::BOTH.map(|version| (version, Furnished::new(target(node, version))));
        node.kill();
        node.start();
        for (version, session) in sessions {
            session.check(target(node, version));
        }
    });
}

/// [MQTT5-3.1.2-4] [MQTT5-3.2.2-2] [MQTT5-3.1.4-4] [MQTT5-4.4.0-1] [MQTT3-3.1.2-6] [MQTT3-3.1.4-3] [MQTT3-3.2.2-1] A clean start discards all of
/// an older session: its subscriptions, what it had in flight and what waited.
#[test]
fn a_clean_start_discards_the_older_session() {
    on_each_version(|target| {
        let Furnished { hello, topic, .. } = Furnished::new(target);
        let (mut clean, accepted) = Raw::connect(target.at, &hello.clone().clean(true));
        assert!(!accepted.session_present);
        let mut sender = target.client("clean-sender");
        sender.publish(&Publish::new(&topic, "never").qos(1));
        expect_nothing(&mut clean, &mut sender);
        // The identifier that was open before is a new message now.
        assert_eq!(clean.subscribe(&topic, 0), 0);
        clean.send_publish(&Publish::new(&topic, "new").qos(2).id(RECEIVED));
        let mut seen = [clean.recv(), clean.recv()];
        seen.sort_by_key(|answer| matches!(answer, Answer::Publish(_)));
        assert!(
            matches!(&seen[1], Answer::Publish(delivery) if delivery.text() == "new"),
            "{seen:?}"
        );
    });
}

/// [MQTT3-3.1.2-6] [MQTT3-3.2.2-3] The state of a clean session is used for no later one: neither subscriptions nor messages are there.
#[test]
fn a_clean_session_ends_with_its_connection_in_3_1_1() {
    on_each_v3(|target| {
        let topic = unique("ends");
        let clean = target.hello("ends");
        let mut client = target.connect(&clean);
        assert_eq!(client.subscribe(&topic, 1), 1);
        client.disconnect();
        let (mut kept, accepted) = Raw::connect(target.at, &clean.clean(false));
        assert!(!accepted.session_present);
        let mut sender = target.client("ends-sender");
        sender.publish(&Publish::new(&topic, "never").qos(1));
        expect_nothing(&mut kept, &mut sender);
    });
}

/// [MQTT5-3.1.2-6] [MQTT5-3.1.2.11.2] [MQTT5-4.1.0-2] A session with an expiry of 0, given or not, ends with its connection, also when that
/// breaks off; Clean Start 0 then makes a new one.
#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    on_each(|target| {
        let topic = unique("ends");
        let hello = target.hello("ends").clean(false);
        for hello in [hello.clone(), hello.property(property::session_expiry(0))] {
            let (mut client, accepted) = Raw::connect(target.at, &hello);
            assert!(!accepted.session_present);
            assert_eq!(client.subscribe(&topic, 1), 1);
            client.reset();
            // A taken over session could still be resumed; once the node has seen the reset there is none.
            wait::until_true("the session is gone", wait::SOON, || {
                let (client, accepted) = Raw::connect(target.at, &hello);
                client.disconnect();
                !accepted.session_present
            });
            let mut again = target.connect(&hello);
            let mut sender = target.client("ends-sender");
            sender.publish(&Publish::new(&topic, "never").qos(1));
            expect_nothing(&mut again, &mut sender);
            again.disconnect();
        }
    });
}

/// [MQTT5-3.1.2.11.2] [MQTT5-4.1.0-2] [MQTT5-3.1.2-23] A session is kept as long as its expiry says and no longer; the time counts from the
/// end of the connection, and anew after each.
#[test]
fn a_session_ends_when_its_expiry_has_passed() {
    on_each(|target| {
        let hello = |name: &str, expiry| {
            let hello = Connect::new(target.version, unique(name)).clean(false);
            hello.property(property::session_expiry(expiry))
        };
        let (short, long, never) = (hello("short", 2), hello("long", 3600), hello("never", u32::MAX));
        let mut open = target.connect(&short);
        for hello in [&long, &never] {
            target.connect(hello).disconnect();
        }
        // Longer than the expiry, connected: that does not count.
        wait::last(Duration::from_millis(2500));
        open.ping();
        let since = Instant::now();
        open.disconnect();
        let again = Raw::connect(target.at, &short);
        assert!(again.1.session_present || since.elapsed() > Duration::from_secs(2));
        again.0.disconnect();
        wait::last(Duration::from_millis(3500));
        assert!(!Raw::connect(target.at, &short).1.session_present);
        for hello in [&long, &never] {
            assert!(Raw::connect(target.at, hello).1.session_present);
        }
    });
}

/// [MQTT5-3.1.4-3] [MQTT5-3.1.3-2] [MQTT5-3.14.2-1] [MQTT3-3.1.4-2] [MQTT3-3.1.3-2] Who connects with an identifier in use takes over: the older
/// connection is told 0x8E and closed, the session goes on in the new one, and its messages with it.
#[test]
fn a_client_takes_its_session_over() {
    on_each_version(|target| {
        let topic = unique("over");
        let hello = Connect::kept(target.version, unique("over"));
        let mut older = target.connect(&hello);
        assert_eq!(older.subscribe(&topic, 1), 1);
        let mut sender = target.client("over-sender");
        sender.publish(&Publish::new(&topic, "open").qos(1));
        let open = older.expect_message("open");
        let (mut newer, accepted) = Raw::connect(target.at, &hello);
        assert!(accepted.session_present);
        older.expect_end(0x8E);
        let again = newer.expect_message("open");
        assert_eq!((again.id, again.dup), (open.id, true));
        newer.acknowledge(&again);
        sender.publish(&Publish::new(&topic, "next").qos(1));
        let next = newer.expect_message("next");
        newer.acknowledge(&next);
        expect_nothing(&mut newer, &mut sender);
    });
}

/// [MQTT5-3.1.4-3] [MQTT5-3.1.2-4] [MQTT5-3.1.2-8] [MQTT3-3.1.4-2] [MQTT3-3.1.2-6] A takeover with a clean start discards the session; the will
/// of the older connection is published, and across the versions it works as well.
#[test]
fn a_takeover_may_start_clean() {
    on_each_version(|target| {
        let topic = unique("over-clean");
        let id = unique("over-clean");
        let mut watcher = target.client("over-watcher");
        assert_eq!(watcher.subscribe(&topic, 0), 0);
        for version in Version::BOTH {
            let hello = Connect::kept(target.version, &id).will(LastWill::new(&topic, "will"));
            let mut older = target.connect(&hello);
            assert_eq!(older.subscribe(&topic, 0), 0);
            let (mut newer, accepted) = Raw::connect(target.at, &Connect::new(version, &id));
            assert!(!accepted.session_present);
            older.expect_end(0x8E);
            watcher.expect_message("will");
            newer.ping();
            newer.disconnect();
        }
    });
}

/// [MQTT5-3.1.3-2] [MQTT3-3.1.3-2] [MQTT5-1.5.4-3] [MQTT3-1.5.3-3] Identifiers that differ in case, in a space or in U+FEFF name different
/// sessions.
#[test]
fn identifiers_are_compared_exactly() {
    on_each_version(|target| {
        let id = unique("same");
        let variants = [
            id.clone(),
            id.to_uppercase(),
            format!("{id} "),
            format!("\u{FEFF}{id}"),
            format!("/{id}"),
        ];
        let mut clients: Vec<Raw> = Vec::new();
        for variant in &variants {
            let (client, accepted) = Raw::connect(target.at, &Connect::kept(target.version, variant));
            assert!(!accepted.session_present, "{variant:?}");
            clients.push(client);
        }
        for client in &mut clients {
            client.ping();
        }
    });
}

/// [MQTT3-3.1.2-7] [MQTT5-4.1] Retained messages are no part of the session: they stay when that of their sender ends.
#[test]
fn retained_messages_outlive_the_session_of_their_sender() {
    on_each_version(|target| {
        let topic = unique("retained");
        let hello = target.hello("retained");
        let mut sender = target.connect(&hello);
        sender.publish(&Publish::new(&topic, "stays").qos(1).retain());
        sender.disconnect();
        let mut again = target.connect(&hello);
        assert_eq!(again.subscribe(&topic, 0), 0);
        again.expect_message("stays");
        again.unsubscribe(&[&topic]);
        again.publish(&Publish::new(&topic, "").retain());
    });
}

/// [MQTT5-4.4.0-1] [MQTT3-4.4.0-1] While the connection lasts nothing is sent again: what is not acknowledged comes once, also when more
/// comes behind it.
#[test]
fn nothing_is_sent_again_on_the_same_connection() {
    on_each_version(|target| {
        let topic = unique("once");
        let mut client = target.connect(&Connect::kept(target.version, unique("once")));
        assert_eq!(client.subscribe(&topic, 2), 2);
        let mut sender = target.client("once-sender");
        for n in 0..3 {
            for qos in [1, 2] {
                let payload = format!("{n} at {qos}");
                sender.publish(&Publish::new(&topic, &payload).qos(qos));
                assert!(!client.expect_message(&payload).dup);
                client.ping();
            }
        }
        expect_nothing(&mut client, &mut sender);
    });
}
