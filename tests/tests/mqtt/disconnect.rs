//! DISCONNECT (3.14) and errors (4.13).

use fellbeck_tests::mqtt::wire::{hex, packet, properties, property};
use fellbeck_tests::mqtt::{Answer, Connect, LastWill, Publish, Raw, encode};

use crate::brokers::{Target, expect_nothing_own, on_each, on_each_v3, on_each_version, unique};
use crate::cases::{MALFORMED, PROTOCOL_ERROR, case, each_ends};

/// A watcher of wills on `topic`.
fn watcher(target: Target, topic: &str) -> Raw {
    let mut watcher = target.client("watcher");
    assert_eq!(watcher.subscribe(topic, 0), 0);
    watcher
}

/// [MQTT5-3.14.4-3] [MQTT5-3.14.2.1] [MQTT5-3.14.4-2] [MQTT5-3.14.4] [MQTT5-3.1.2-10] [MQTT3-3.14.4-3] [MQTT3-3.14.4] [MQTT3-3.14.4-1]
/// [MQTT3-3.1.2-10] DISCONNECT of two bytes closes the connection and discards the will; so does one that spells 0x00 out.
#[test]
fn a_plain_disconnect_closes_and_discards_the_will() {
    on_each_version(|target| {
        let topic = unique("goodbye");
        let mut watcher = watcher(target, &topic);
        let forms: &[&str] = if target.is_v5() {
            &["e000", "e00100", "e0020000"]
        } else {
            &["e000"]
        };
        for form in forms {
            let mut client = target.connect(&target.hello("goodbye").will(LastWill::new(&topic, "never")));
            client.send(&hex(form));
            client.expect_close();
        }
        target.client("goodbye-marker").publish(&Publish::new(&topic, "marker"));
        watcher.expect_message("marker");
    });
}

/// [MQTT5-3.14.4] [MQTT5-3.14.2-1] [MQTT5-3.14.4-2] Each other reason that a client may give closes the connection and publishes the will.
#[test]
fn a_disconnect_with_another_reason_publishes_the_will() {
    on_each(|target| {
        let topic = unique("will");
        let mut watcher = watcher(target, &topic);
        for reason in [
            0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
        ] {
            let will = LastWill::new(&topic, reason.to_string());
            let mut client = target.connect(&target.hello("leaving").will(will));
            client.send(&packet(
                0xE0,
                &[&[reason], &properties(&[property::reason_string("why")])],
            ));
            client.expect_close();
            watcher.expect_message(&reason.to_string());
        }
    });
}

/// [MQTT5-3.14.2-1] A reason that DISCONNECT does not have ends the connection as an error: the will is published.
#[test]
fn a_disconnect_with_an_unknown_reason_is_an_error() {
    on_each(|target| {
        let topic = unique("unknown");
        let mut watcher = watcher(target, &topic);
        for reason in [0x01, 0x10, 0x7F, 0xFF] {
            let mut client = target.connect(&target.hello("odd").will(LastWill::new(&topic, reason.to_string())));
            client.send(&[0xE0, 1, reason]);
            if let Some(bytes) = client.recv_bytes() {
                assert!(bytes[0] == 0xE0 && [0x81, 0x82].contains(&bytes[2]), "{bytes:02x?}");
                client.expect_close();
            }
            watcher.expect_message(&reason.to_string());
        }
    });
}

/// [MQTT5-3.14.4-1] [MQTT5-3.14.4-2] [MQTT3-3.14.4-2] [MQTT3-3.14.4] What a client sends behind its DISCONNECT is not processed and gets no
/// answer.
#[test]
fn nothing_is_processed_after_disconnect() {
    on_each_version(|target| {
        let topic = unique("after");
        let mut watcher = watcher(target, &topic);
        let mut client = target.client("after");
        let publish = encode::publish(target.version, &Publish::new(&topic, "never").qos(1).id(1));
        client.send_anyway(&[encode::disconnect(), publish, encode::ping()].concat());
        client.expect_close();
        target.client("after-marker").publish(&Publish::new(&topic, "marker"));
        watcher.expect_message("marker");
    });
}

/// [MQTT5-3.14.4-1] [MQTT5-4.13.1-1] [MQTT5-4.13.2-1] [MQTT3-4.8.0-1] What comes behind an error is not processed, and nothing is sent behind
/// the DISCONNECT of the server.
#[test]
fn nothing_is_processed_after_an_error() {
    on_each_version(|target| {
        let topic = unique("error");
        let mut watcher = watcher(target, &topic);
        let mut client = target.client("error");
        let publish = encode::publish(target.version, &Publish::new(&topic, "never").qos(1).id(1));
        client.send_anyway(&[hex("8000"), publish, encode::ping()].concat());
        client.expect_end(0x81);
        target.client("error-marker").publish(&Publish::new(&topic, "marker"));
        watcher.expect_message("marker");
    });
}

/// [MQTT5-4.13.1-1] [MQTT5-3.14.4] [MQTT5-3.1.2-8] [MQTT3-4.8.0-1] [MQTT3-3.1.2-8] A connection that an error ends has its will published.
#[test]
fn an_error_publishes_the_will() {
    on_each_version(|target| {
        let topic = unique("error-will");
        let mut watcher = watcher(target, &topic);
        let mut client = target.connect(&target.hello("wrong").will(LastWill::new(&topic, "error")));
        client.send(&hex("8000"));
        client.expect_end(0x81);
        watcher.expect_message("error");
    });
}

/// [MQTT5-3.14.2-2] [MQTT5-3.14.2-1] [MQTT5-4.13.1] The DISCONNECT of the server has a listed reason, at most a Reason String, and no Session
/// Expiry Interval.
#[test]
fn the_disconnect_of_the_server_has_no_session_expiry() {
    on_each(|target| {
        for wrong in ["8000", "000100", "f000", "2003000000", "30 00"] {
            let mut client = target.connect(&Connect::kept(target.version, unique("said")));
            client.send(&hex(wrong));
            let Answer::Disconnect { reason, properties } = client.recv() else {
                panic!("a DISCONNECT for {wrong}");
            };
            assert!([0x81, 0x82].contains(&reason), "{wrong}: {reason:02x}");
            assert!(properties.iter().all(|(id, _)| *id == 0x1F), "{properties:?}");
            client.expect_close();
        }
    });
}

/// [MQTT5-3.14.2-3] The DISCONNECT of the server stays within the client's Maximum Packet Size, whatever that is.
#[test]
fn a_disconnect_stays_within_the_maximum_packet_size() {
    on_each(|target| {
        let hello = |maximum| target.hello("small").property(property::packet_maximum(maximum));
        let mut probe = target.open();
        probe.send(&hello(1000).bytes());
        let least = probe.recv_bytes().expect("a CONNACK").len() as u32;
        probe.send(&hex("8000"));
        let longest = probe.recv_bytes().expect("a DISCONNECT").len() as u32;
        for maximum in least..=least.max(longest + 1) {
            let mut client = target.connect(&hello(maximum));
            client.send(&hex("8000"));
            let bytes = client.recv_bytes().expect("a DISCONNECT");
            assert!(bytes.len() as u32 <= maximum, "{maximum}: {bytes:02x?}");
            client.expect_close();
        }
    });
}

/// [MQTT5-3.14.2.2.2] A session that was to end with its connection cannot be kept at DISCONNECT: 0x82, and there is no session afterwards.
#[test]
fn a_session_cannot_be_kept_at_disconnect_only() {
    on_each(|target| {
        let late = packet(0xE0, &[&[0], &properties(&[property::session_expiry(60)])]);
        each_ends(target, [case("absent at CONNECT", &late, PROTOCOL_ERROR)]);
        let id = unique("late");
        let hello = Connect::new(target.version, &id);
        let mut client = target.connect(&hello.clone().property(property::session_expiry(0)));
        client.send(&late);
        client.expect_end(0x82);
        let (_again, accepted) = Raw::connect(target.at, &hello.clean(false));
        assert!(!accepted.session_present);
    });
}

/// [MQTT5-3.14.2.2.2] [MQTT5-4.1.0-2] A session that was to be kept ends at once when DISCONNECT says so; one that was to end soon is kept.
#[test]
fn a_session_expiry_may_change_at_disconnect() {
    on_each(|target| {
        let kept = |expiry| {
            Connect::new(target.version, unique("change"))
                .property(property::session_expiry(expiry))
                .clean(false)
        };
        let ended = kept(3600);
        target
            .connect(&ended)
            .disconnect_with(0, &[property::session_expiry(0)]);
        assert!(!Raw::connect(target.at, &ended).1.session_present);
        let (soon, longer) = (kept(1), kept(1));
        target
            .connect(&longer)
            .disconnect_with(0, &[property::session_expiry(3600)]);
        target.connect(&soon).disconnect();
        // Once the one that ends after a second is gone, the other one would be gone as well.
        fellbeck_tests::wait::until_true("the session ends", fellbeck_tests::wait::SOON, || {
            let (client, accepted) = Raw::connect(target.at, &soon);
            client.disconnect();
            fellbeck_tests::wait::last(std::time::Duration::from_millis(1500));
            !accepted.session_present
        });
        assert!(Raw::connect(target.at, &longer).1.session_present);
    });
}

/// [MQTT3-3.14.1-1] [MQTT3-4.8.0-1] [MQTT5-3.14.1-1] DISCONNECT with reserved bits is an error: the will is published.
#[test]
fn a_disconnect_with_reserved_bits_is_none() {
    on_each_version(|target| {
        let topic = unique("bits");
        let mut watcher = watcher(target, &topic);
        for bit in [1, 2, 4, 8] {
            let mut client = target.connect(&target.hello("bits").will(LastWill::new(&topic, bit.to_string())));
            client.send(&[0xE0 | bit, 0]);
            client.expect_end(0x81);
            watcher.expect_message(&bit.to_string());
        }
    });
}

/// [MQTT5-4.13.2] [MQTT5-2.4] [MQTT5-3.3.4] Requests that fail one by one are answered with a reason from 0x80 on, and the connection goes on.
#[test]
fn a_request_that_fails_does_not_end_the_connection() {
    on_each(|target| {
        let mut client = target.client("failing");
        let deep = format!("{}{}", unique("deep"), "/".repeat(300));
        assert!(client.subscribe(&deep, 0) >= 0x80);
        client.send_publish(&Publish::new("$SYS/none", "x").qos(1).id(9));
        assert!(matches!(
            client.recv(),
            Answer::Ack {
                id: 9,
                reason: 0x80..,
                ..
            }
        ));
        assert_eq!(client.unsubscribe(&[&unique("nothing")]), [0x11]);
        client.ping();
    });
}

/// [MQTT3-3.14.1-1] [MQTT3-2.2.3] A DISCONNECT of 3.1.1 with a reason, as in 5.0, is malformed.
#[test]
fn a_disconnect_of_3_1_1_has_no_reason() {
    on_each_v3(|target| {
        each_ends(
            target,
            [
                case("reason", hex("e00100"), MALFORMED),
                case("reason 04", hex("e0020400"), MALFORMED),
            ],
        );
    });
}

/// [MQTT5-3.14.4-3] [MQTT3-3.14.4-3] All that a client sent before it closed takes effect, though it waited for no answer:
/// SUBSCRIBE and UNSUBSCRIBE, the messages behind them, and the DISCONNECT that discards its will.
#[test]
fn what_was_sent_right_before_the_close_takes_effect() {
    on_each_version(|target| {
        let topic = unique("last-words");
        let mut watcher = watcher(target, &format!("{topic}/#"));
        for at in 0..20 {
            let mut hello = Connect::kept(target.version, unique("last-words").into_bytes());
            hello = hello.will(LastWill::new(format!("{topic}/will"), "will"));
            let mut client = target.connect(&hello);
            let packets = [
                encode::subscribe(target.version, 1, &[("some/filter", 1)]),
                encode::publish(target.version, &Publish::new(&format!("{topic}/{at}"), "last")),
                hex("E000"),
            ];
            client.send(&packets.concat());
            drop(client);
            assert_eq!(watcher.expect_message("last").topic, format!("{topic}/{at}"));
        }
        expect_nothing_own(&mut watcher);
    });
}
