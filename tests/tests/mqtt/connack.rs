//! CONNACK (3.2): flags, reason codes, announced limits.

use fellbeck_tests::mqtt::wire::{hex, packet, property};
use fellbeck_tests::mqtt::{Connect, Publish, Raw, Version, encode};

use crate::brokers::{on_each, on_each_v3, on_each_version, on_own, target, unique};

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// [MQTT3-3.2.2-1] [MQTT3-3.2.2-2] [MQTT3-3.2.2-3] [MQTT3-3.1.4-4] CONNACK of 3.1.1 to the byte: Session Present only when a kept session is
/// resumed.
#[test]
fn connack_of_3_1_1_is_exact() {
    on_each_v3(|target| {
        let id = unique("exact");
        let kept = Connect::kept(target.version, &id);
        let clean = Connect::new(target.version, &id);
        let steps = [
            (&kept, "20020000"),
            (&kept, "20020100"),
            (&clean, "20020000"),
            (&kept, "20020000"),
        ];
        for (hello, connack) in steps {
            let mut client = target.open();
            client.send(&hello.bytes());
            client.expect_hex(connack);
            client.disconnect();
        }
    });
}

/// [MQTT5-3.2.2-1] [MQTT5-3.2.2-2] [MQTT5-3.2.2-3] [MQTT5-3.1.4-4] [MQTT5-3.1.4-5] The flags of CONNACK are 0 or 1, and 1 only when a session
/// is resumed with Clean Start 0; the reason is 0x00.
#[test]
fn session_present_says_whether_a_session_is_resumed() {
    on_each(|target| {
        let id = unique("present");
        let kept = Connect::kept(target.version, &id);
        let discarding = kept.clone().clean(true);
        for (hello, flags) in [(&kept, 0), (&kept, 1), (&discarding, 0), (&kept, 1)] {
            let mut client = target.open();
            client.send(&hello.bytes());
            let bytes = client.recv_bytes().expect("a CONNACK");
            assert_eq!((bytes[0], bytes[2], bytes[3]), (0x20, flags, 0), "{bytes:02x?}");
            client.disconnect();
        }
    });
}

/// [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT3-3.2.0-1] CONNACK comes before what waited in the session, and once.
#[test]
fn connack_comes_before_what_waited() {
    on_each_version(|target| {
        let topic = unique("waited");
        let hello = Connect::kept(target.version, unique("waiter"));
        let mut client = target.connect(&hello);
        assert_eq!(client.subscribe(&topic, 1), 1);
        client.disconnect();
        let mut sender = target.client("waited-sender");
        for n in 0..5 {
            sender.publish(&Publish::new(&topic, n.to_string()).qos(1));
        }
        let (mut again, accepted) = Raw::connect(target.at, &hello);
        assert!(accepted.session_present);
        for n in 0..5 {
            let delivery = again.expect_message(&n.to_string());
            again.acknowledge(&delivery);
        }
        again.ping();
    });
}

/// [MQTT5-3.2.2-6] [MQTT5-3.2.2-7] [MQTT5-3.2.2-8] [MQTT5-4.13.2-1] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5] A CONNACK that refuses has Session Present 0
/// although the client has a session, which stays; then comes the close.
#[test]
fn a_refusal_says_nothing_of_a_session() {
    on_each_version(|target| {
        let id = unique("refused");
        let kept = Connect::kept(target.version, &id);
        target.connect(&kept).disconnect();
        let mut client = target.open();
        match target.version {
            Version::V3 => {
                client.send(&kept.bytes_with(b"MQTT", 9, 0));
                client.expect_refused(1);
            }
            Version::V5 => {
                client.send(&kept.clone().property(property::receive_maximum(0)).bytes());
                client.expect_refused(0x82);
            }
        }
        let (_again, accepted) = Raw::connect(target.at, &kept);
        assert!(accepted.session_present);
    });
}

/// [MQTT5-3.2.2.3.3] [MQTT5-3.2.2.3.6] [MQTT5-3.2.2.3.11] [MQTT5-3.2.2.3.12] [MQTT5-3.2.2.3.13] [MQTT5-4.9.0-1] [MQTT5-3.2.2-22] The limits
/// announced are no zeros, what is available is not denied, and the client's own Keep Alive stands.
#[test]
fn announced_limits_are_usable() {
    on_each(|target| {
        let (_client, accepted) = Raw::connect(target.at, &target.hello("limits").keep_alive(77));
        for limit in [0x21, 0x27] {
            let value = accepted.property(limit).map(number);
            assert_ne!(value, Some(0), "{limit:02x}");
            assert!(value.is_some(), "{limit:02x} is announced");
        }
        for available in [0x25, 0x28, 0x29, 0x2A] {
            assert!(
                matches!(accepted.property(available), None | Some([1])),
                "{available:02x}"
            );
        }
        for absent in [0x13, 0x15, 0x16, 0x1C, 0x24] {
            assert_eq!(accepted.property(absent), None, "{absent:02x}");
        }
    });
}

/// [MQTT5-3.2.2.3.6] [MQTT5-3.2.2-15] A PUBLISH of exactly the announced Maximum Packet Size is taken; one byte more, sent whole, is answered
/// with DISCONNECT 0x95, which the client can read.
#[test]
fn a_packet_above_the_maximum_of_the_server_is_refused() {
    on_each(|target| {
        let topic = unique("maximum");
        let (mut client, accepted) = Raw::connect(target.at, &target.hello("maximum"));
        let maximum = accepted.property(0x27).map(number).expect("a Maximum Packet Size") as usize;
        let publish = |payload: usize| encode::publish(target.version, &Publish::new(&topic, vec![b'x'; payload]));
        let near = maximum - 100;
        let fits = near + maximum - publish(near).len();
        let exact = publish(fits);
        assert_eq!(exact.len(), maximum);
        client.send(&exact);
        client.ping();
        client.send_anyway(&publish(fits + 1));
        client.expect_end(0x95);
    });
}

/// [MQTT5-3.2.2-19] A client that takes no more than the bare refusal gets that, without a Reason String.
#[test]
fn a_refusal_stays_within_the_maximum_packet_size() {
    on_each(|target| {
        let refused = |packet_maximum| {
            let hello = target.hello("small").property(property::auth_method("none"));
            let mut client = target.open();
            client.send(&hello.property(property::packet_maximum(packet_maximum)).bytes());
            let bytes = client.recv_bytes().expect("a CONNACK");
            client.expect_close();
            bytes
        };
        let bare = refused(5);
        assert_eq!((bare.len(), bare[3] | 0x80), (5, bare[3]), "{bare:02x?}");
        let whole = refused(1000);
        assert!(whole.len() > 5, "a Reason String when there is room: {whole:02x?}");
        let exact = refused(whole.len() as u32);
        assert_eq!(exact, whole);
        let short = refused(whole.len() as u32 - 1);
        assert!(short.len() < whole.len(), "{short:02x?}");
    });
}

/// [MQTT5-3.2.2.3.2] [MQTT5-3.1.2.11.2] A Session Expiry Interval beyond the bound is cut, and the CONNACK says to what; within the bound
/// the client's stands.
#[test]
fn a_session_expiry_that_is_cut_is_announced() {
    on_own(&[("session.expiry_max_secs", "60")], |node| {
        let target = target(node, Version::V5);
        for (asked, answered) in [(u32::MAX, Some(60)), (61, Some(60)), (60, None), (1, None)] {
            let hello = Connect::new(target.version, unique("cut")).property(property::session_expiry(asked));
            let (_client, accepted) = Raw::connect(target.at, &hello);
            let announced = accepted.property(0x11).map(number);
            let unchanged = answered.is_none() && announced == Some(u64::from(asked));
            assert!(announced == answered || unchanged, "{asked}: {announced:?}");
        }
    });
}

/// [MQTT3-3.2.2-6] [MQTT3-3.1.4-1] What no return code fits is closed without CONNACK.
#[test]
fn what_no_return_code_fits_is_closed_without_connack() {
    on_each_v3(|target| {
        let mut client = target.open();
        client.send_anyway(&packet(0x10, &[&hex("0004 4d515454 04 02 0000 0005 61")]));
        client.expect_close();
    });
}
