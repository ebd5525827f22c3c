//! Wills (3.1.2.5): when they are published, when not, and with what QoS and RETAIN.

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::{packet, properties, property};
use fellbeck_tests::mqtt::{Connect, LastWill, Publish, Raw, Version, encode};

use crate::brokers::{Target, on_each, on_each_version, unique};
use crate::pair::{absent, elapse, resume, take, texts};

/// A client that watches a will topic, and the topic.
struct Watch {
    topic: String,
    watcher: Raw,
}

impl Watch {
    fn new(target: &Target) -> Self {
        let topic = unique("will");
        let mut watcher = target.client("will-watcher");
        assert_eq!(watcher.subscribe(&topic, 2), 2);
        Self { topic, watcher }
    }

    fn will(&self, payload: &str) -> LastWill {
        LastWill::new(&self.topic, payload)
    }

    /// Demands this will next, once.
    fn expect(&mut self, payload: &str) {
        assert_eq!(texts(&take(&mut self.watcher, 1)), [payload]);
    }

    /// Demands that no will is published up to now, at QoS 0 like the wills.
    fn expect_none(&mut self, target: &Target) {
        target
            .client("will-marker")
            .publish(&Publish::new(&self.topic, "marker"));
        self.expect("marker");
    }
}

/// [MQTT5-3.1.2-7] [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT3-3.1.2-8] [MQTT3-3.1.2-10] The will is published, once, when
/// the connection ends without DISCONNECT: closed, half closed, or reset, for a clean session and for a kept one; it is
/// not when the next connection has none.
#[test]
fn a_broken_connection_publishes_the_will() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        for is_kept in [false, true] {
            for how in 0..3 {
                let name = unique("broken");
                let hello = if is_kept {
                    Connect::kept(target.version, &name)
                } else {
                    Connect::new(target.version, &name)
                };
                let mut client = target.connect(&hello.clone().will(watch.will("gone")));
                client.ping();
                watch.expect_none(&target);
                match how {
                    0 => drop(client),
                    1 => {
                        client.finish();
                        client.expect_close();
                    }
                    _ => client.reset(),
                }
                watch.expect("gone");
                target.connect(&hello).reset();
                // The end of another connection behind it has been seen by now.
                let other = target.hello("broken-other").will(watch.will("other"));
                target.connect(&other).reset();
                watch.expect("other");
            }
        }
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT5-3.14.4-3] [MQTT3-3.1.2-8] [MQTT3-3.1.2-10] [MQTT3-3.14.4-3] DISCONNECT
/// deletes the will, also one with a delay, and that of a kept session.
#[test]
fn a_disconnect_deletes_the_will() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        for is_kept in [false, true] {
            let name = unique("polite");
            let hello = if is_kept {
                Connect::kept(target.version, &name)
            } else {
                Connect::new(target.version, &name)
            };
            target.connect(&hello.clone().will(watch.will("never"))).disconnect();
            let delayed = watch.will("never").property(property::will_delay(1));
            target.connect(&hello.clone().will(delayed)).disconnect();
            target.connect(&hello).reset();
        }
        elapse(&target, 2);
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.14.4-3] [MQTT5-3.14.4] [MQTT5-3.14.2.1] DISCONNECT 0x04, and one with any reason from 0x80 on, publishes
/// the will; 0x00, written out or with properties, does not.
#[test]
fn the_reason_of_disconnect_decides() {
    on_each(|target| {
        let mut watch = Watch::new(&target);
        for reason in [0x00, 0x04, 0x80, 0x81, 0x99] {
            let hello = target.hello("reason").will(watch.will("gone"));
            target
                .connect(&hello)
                .disconnect_with(reason, &[property::user("k", "v")]);
            if reason != 0 {
                watch.expect("gone");
            }
            let mut client = target.connect(&hello);
            client.send(&packet(0xE0, &[&[reason]]));
            client.expect_close();
            if reason != 0 {
                watch.expect("gone");
            }
        }
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-4.13.1-1] [MQTT3-3.1.2-8] [MQTT3-4.8.0-1] A connection that the node ends for a protocol
/// error or a malformed packet publishes the will.
#[test]
fn a_protocol_error_publishes_the_will() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        let hello = target.hello("error").will(watch.will("gone"));
        let wrong = [
            Publish::new("error", "x").qos(3).id(1),
            Publish::new("", "x").qos(1).id(1),
        ];
        let mut wrong: Vec<Vec<u8>> = wrong.iter().map(|one| encode::publish(target.version, one)).collect();
        wrong.extend([hello.bytes(), vec![0xD0, 0], vec![0x00, 0], vec![0xC1, 0]]);
        for bytes in wrong {
            let mut client = target.connect(&hello);
            client.send(&bytes);
            watch.expect("gone");
            while client.recv_bytes().is_some() {}
        }
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT5-3.1.2-12] [MQTT3-3.1.2-14] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17] The will has
/// the QoS that it was given; with Will Retain it is retained, without it is not. To the subscriber of before it has
/// RETAIN 0.
#[test]
fn the_will_has_its_qos_and_retain() {
    on_each_version(|target| {
        for qos in [0, 1, 2] {
            let mut watch = Watch::new(&target);
            for retain in [false, true] {
                let will = watch.will("gone").qos(qos);
                let will = if retain { will.retain() } else { will };
                target.connect(&target.hello("flags").will(will)).reset();
                let delivery = take(&mut watch.watcher, 1).remove(0);
                assert_eq!((delivery.qos, delivery.retain, delivery.dup), (qos, false, false));
                let mut late = target.client("flags-late");
                assert_eq!(late.subscribe(&watch.topic, 2), 2);
                if retain {
                    let kept = take(&mut late, 1).remove(0);
                    assert_eq!((kept.text().as_str(), kept.qos, kept.retain), ("gone", qos, true));
                }
                watch.expect_none(&target);
                assert_eq!(texts(&take(&mut late, 1)), ["marker"]);
            }
        }
    });
}

/// [MQTT5-3.1.2-15] [MQTT5-3.3.1-6] [MQTT3-3.1.2-17] [MQTT3-3.3.1-10] A retained will replaces a retained message, and
/// one with an empty payload removes it.
#[test]
fn a_retained_will_replaces_and_removes() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        target
            .client("replace")
            .publish(&Publish::new(&watch.topic, "online").qos(1).retain());
        watch.expect("online");
        for (payload, kept) in [("offline", Some("offline")), ("", None)] {
            target
                .connect(&target.hello("replace").will(watch.will(payload).qos(1).retain()))
                .reset();
            watch.expect(payload);
            let mut late = target.client("replace-late");
            assert_eq!(late.subscribe(&watch.topic, 2), 2);
            if let Some(kept) = kept {
                assert_eq!(texts(&take(&mut late, 1)), [kept]);
            }
            watch.expect_none(&target);
            assert_eq!(texts(&take(&mut late, 1)), ["marker"]);
        }
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.4-3] [MQTT5-3.1.3-9] [MQTT3-3.1.2-8] [MQTT3-3.1.4-2] A takeover ends the older connection
/// without DISCONNECT: its will, without a delay, is published, also when the session goes on, and the will of the
/// newer connection is not.
#[test]
fn a_takeover_publishes_the_will_of_the_older_connection() {
    on_each_version(|target| {
        for is_clean in [false, true] {
            let mut watch = Watch::new(&target);
            let hello = Connect::kept(target.version, unique("takeover")).clean(is_clean);
            let mut old = target.connect(&hello.clone().will(watch.will("old")));
            let new = target.connect(&hello.clone().will(watch.will("new")));
            old.expect_end(0x8E);
            watch.expect("old");
            watch.expect_none(&target);
            new.disconnect();
            watch.expect_none(&target);
        }
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9] [MQTT5-3.1.3.2.2] A takeover that resumes the session cancels a will with a delay;
/// one with Clean Start 1 ends the session, and the will is published at once.
#[test]
fn a_takeover_cancels_a_delayed_will_unless_it_starts_clean() {
    on_each(|target| {
        for is_clean in [false, true] {
            let mut watch = Watch::new(&target);
            let hello = Connect::kept(target.version, unique("delayed")).clean(false);
            let will = watch
                .will("old")
                .property(property::will_delay(if is_clean { 1000 } else { 1 }));
            let mut old = target.connect(&hello.clone().will(will));
            let mut new = target.connect(&hello.clone().clean(is_clean));
            old.expect_end(0x8E);
            if is_clean {
                watch.expect("old");
            } else {
                elapse(&target, 2);
            }
            watch.expect_none(&target);
            new.ping();
        }
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3.2.2] A will with a delay is published when that has passed, not before; without one, or
/// with 0, at once.
#[test]
fn a_delayed_will_waits() {
    on_each(|target| {
        let mut watch = Watch::new(&target);
        let hello = |delay| {
            let will = watch.will("gone").property(property::will_delay(delay));
            Connect::kept(Version::V5, unique("delay")).will(will)
        };
        let (at_once, later) = (hello(0), hello(2));
        let since = Instant::now();
        target.connect(&later).reset();
        target.connect(&at_once).reset();
        watch.expect("gone");
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "the will without a delay came late"
        );
        watch.expect_none(&target);
        watch.expect("gone");
        let passed = since.elapsed();
        assert!((2..8).contains(&passed.as_secs()), "{passed:?}");
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.3-9] [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] A client that is back before the delay has passed cancels its will,
/// also when it goes again without one; the delay of its next will begins anew.
#[test]
fn a_resumed_session_cancels_its_delayed_will() {
    on_each(|target| {
        let mut watch = Watch::new(&target);
        let hello = Connect::kept(Version::V5, unique("cancel"));
        let with = |payload: &str, delay| {
            hello
                .clone()
                .will(watch.will(payload).property(property::will_delay(delay)))
        };
        let (first, second) = (with("first", 1), with("second", 1));
        target.connect(&first).reset();
        resume(&target, &hello).reset();
        elapse(&target, 2);
        watch.expect_none(&target);
        let old = target.connect(&first);
        old.reset();
        resume(&target, &second).reset();
        watch.expect("second");
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3.2.2] A session that ends before the delay has passed publishes its will then: at its
/// Session Expiry, at once without one, at a clean start, and when DISCONNECT sets the expiry to 0.
#[test]
fn the_end_of_the_session_publishes_a_delayed_will() {
    on_each(|target| {
        let mut watch = Watch::new(&target);
        let will = |payload: &str| watch.will(payload).property(property::will_delay(1000));
        let (expires, ends, cleaned, shortened) = (will("expires"), will("ends"), will("cleaned"), will("shortened"));
        let hello = Connect::new(Version::V5, unique("ends")).will(ends);
        target.connect(&hello).reset();
        watch.expect("ends");
        let hello = Connect::kept(Version::V5, unique("cleaned"));
        target.connect(&hello.clone().will(cleaned)).reset();
        target.connect(&hello.clean(true)).disconnect();
        watch.expect("cleaned");
        let hello = Connect::kept(Version::V5, unique("shortened")).will(shortened);
        let mut client = target.connect(&hello);
        client.send(&packet(0xE0, &[&[4], &properties(&[property::session_expiry(0)])]));
        client.expect_close();
        watch.expect("shortened");
        let hello = Connect::new(Version::V5, unique("expires")).property(property::session_expiry(1));
        let since = Instant::now();
        target.connect(&hello.will(expires)).reset();
        watch.expect("expires");
        assert!(since.elapsed() >= Duration::from_secs(1));
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.2-7] [MQTT5-3.1.2-10] [MQTT3-3.1.2-10] [MQTT3-3.1.2-12] Each connection has the will of its own CONNECT,
/// or none, whatever the session had before.
#[test]
fn a_will_belongs_to_its_connection() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        let hello = Connect::kept(target.version, unique("own"));
        for payload in ["one", "two"] {
            target.connect(&hello.clone().will(watch.will(payload))).reset();
            watch.expect(payload);
        }
        target.connect(&hello.clone().will(watch.will("three"))).disconnect();
        target.connect(&hello).reset();
        // The will of a later connection shows that the end of that one has been seen.
        target.connect(&hello.will(watch.will("four"))).reset();
        watch.expect("four");
        watch.expect_none(&target);
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-4.5.0-1] [MQTT3-3.1.2-8] [MQTT3-4.5.0-1] A will waits for absent sessions like any message,
/// also for that of the client whose will it is.
#[test]
fn a_will_reaches_absent_sessions() {
    on_each_version(|target| {
        let mut watch = Watch::new(&target);
        let other = absent(&target, "absent", &watch.topic, 1);
        let own = absent(&target, "absent-own", &watch.topic, 2);
        resume(&target, &own.clone().will(watch.will("gone").qos(2))).reset();
        watch.expect("gone");
        for (hello, qos) in [(other, 1), (own, 2)] {
            let mut client = resume(&target, &hello);
            let delivery = take(&mut client, 1).remove(0);
            assert_eq!((delivery.text().as_str(), delivery.qos), ("gone", qos));
            client.ping();
        }
    });
}
