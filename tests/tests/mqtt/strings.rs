//! Strings, binary data and integers (1.5).

use fellbeck_tests::mqtt::wire::{hex, packet, properties, property, text};
use fellbeck_tests::mqtt::{Connect, LastWill, Publish, Raw, encode};

use crate::brokers::{Target, on_each, on_each_v3, on_each_version, unique};
use crate::cases::{Case, MALFORMED, case, each_ends, each_is_refused};

/// What is no UTF-8: a lone continuation, a cut sequence, overlong forms, surrogates, beyond U+10FFFF, bytes that never occur.
const ILL_FORMED: [&str; 10] = [
    "80", "61e282", "c080", "c1bf", "e08080", "eda080", "edbfbf", "f0808080", "f4908080", "fe",
];

/// A CONNECT with each of its strings replaced in turn.
fn bad_openers(target: Target, bad: &[u8]) -> Vec<Case> {
    let hello = || target.hello("bad");
    let will = |topic: &[u8]| LastWill::new(topic, "x");
    let mut connects = vec![
        ("client identifier", Connect::new(target.version, bad)),
        ("user name", hello().user(bad)),
        ("will topic", hello().will(will(bad))),
    ];
    if target.is_v5() {
        let with = |property| hello().will(will(b"bad/will").property(property));
        connects.extend([
            ("user property, name", hello().property(property::user(bad, "v"))),
            ("user property, value", hello().property(property::user("k", bad))),
            ("authentication method", hello().property(property::auth_method(bad))),
            ("will, content type", with(property::content_type(bad))),
            ("will, response topic", with(property::response_topic(bad))),
            ("will, user property, name", with(property::user(bad, "v"))),
            ("will, user property, value", with(property::user("k", bad))),
        ]);
    }
    let named = connects.into_iter();
    named
        .map(|(what, connect)| case(format!("CONNECT, {what}, {bad:02x?}"), connect.bytes(), MALFORMED))
        .collect()
}

/// Every other packet with each of its strings replaced in turn.
fn bad_packets(target: Target, bad: &[u8]) -> Vec<Case> {
    let section = |list: &[Vec<u8>]| if target.is_v5() { properties(list) } else { Vec::new() };
    let (none, id, good) = (section(&[]), hex("0001"), text(unique("bad")));
    let mut packets = vec![
        ("PUBLISH, topic", packet(0x30, &[&text(bad), &none])),
        ("SUBSCRIBE, filter", packet(0x82, &[&id, &none, &text(bad), &[0]])),
        (
            "SUBSCRIBE, second filter",
            packet(0x82, &[&id, &none, &good, &[0], &text(bad), &[0]]),
        ),
        ("UNSUBSCRIBE, filter", packet(0xA2, &[&id, &none, &text(bad)])),
    ];
    if target.is_v5() {
        let publish = |property| packet(0x30, &[&good, &section(&[property])]);
        let pairs = [property::user(bad, "v"), property::user("k", bad)];
        let reason = section(&[property::reason_string(bad)]);
        packets.extend([
            ("PUBLISH, content type", publish(property::content_type(bad))),
            ("PUBLISH, response topic", publish(property::response_topic(bad))),
        ]);
        for pair in pairs {
            let pair = section(&[pair]);
            packets.extend([
                ("PUBLISH, user property", packet(0x30, &[&good, &pair])),
                ("SUBSCRIBE, user property", packet(0x82, &[&id, &pair, &good, &[0]])),
                ("UNSUBSCRIBE, user property", packet(0xA2, &[&id, &pair, &good])),
                ("PUBACK, user property", packet(0x40, &[&id, &[0], &pair])),
                ("DISCONNECT, user property", packet(0xE0, &[&[0], &pair])),
            ]);
        }
        for (what, first) in [("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70)] {
            packets.push((what, packet(first, &[&id, &[0], &reason])));
        }
        packets.push(("DISCONNECT, reason string", packet(0xE0, &[&[0], &reason])));
    }
    let named = packets.into_iter();
    named
        .map(|(what, bytes)| case(format!("{what}, {bad:02x?}"), bytes, MALFORMED))
        .collect()
}

/// [MQTT5-1.5.4-1] [MQTT5-1.5.7-1] [MQTT5-3.1.3-4] [MQTT5-3.1.3-11] [MQTT5-3.1.3-12] [MQTT5-3.3.2-1] [MQTT5-3.3.2-13] [MQTT5-3.3.2-19]
/// [MQTT5-3.8.3-1] [MQTT5-3.10.3-1] [MQTT3-1.5.3-1] [MQTT3-3.1.3-4] [MQTT3-3.1.3-10] [MQTT3-3.1.3-11] [MQTT3-3.3.2-1] [MQTT3-3.8.3-1]
/// [MQTT3-3.10.3-1] Ill-formed UTF-8 in any string of any packet is malformed.
#[test]
fn ill_formed_utf_8_ends_the_connection() {
    on_each_version(|target| {
        for bad in ILL_FORMED.map(hex) {
            // Each string in view with one wrong form, and each wrong form in the strings of every version.
            let all = bad == hex("eda080");
            let some = |cases: Vec<Case>| cases.into_iter().take(if all { usize::MAX } else { 4 });
            each_ends(target, some(bad_packets(target, &bad)));
            each_is_refused(target, some(bad_openers(target, &bad)));
        }
    });
}

/// [MQTT5-1.5.4-2] [MQTT5-4.7.3-2] [MQTT3-1.5.3-2] [MQTT3-4.7.3-2] U+0000 in any string of any packet is malformed.
#[test]
fn u_0000_ends_the_connection() {
    on_each_version(|target| {
        for bad in [&b"a\0b"[..], b"\0"] {
            each_ends(target, bad_packets(target, bad));
            each_is_refused(target, bad_openers(target, bad));
        }
    });
}

/// [MQTT5-1.5.4-3] [MQTT3-1.5.3-3] U+FEFF at the front of a topic is part of it: it arrives, and the topic without it is another one.
#[test]
fn a_byte_order_mark_is_kept() {
    on_each_version(|target| {
        let plain = unique("bom");
        let marked = format!("\u{FEFF}{plain}");
        let mut client = target.client("bom");
        assert_eq!(client.subscribe(&marked, 0), 0);
        client.publish(&Publish::new(&plain, "without"));
        client.publish(&Publish::new(&marked, "with"));
        assert_eq!(client.expect_message("with").topic, marked);
        client.ping();
    });
}

/// [MQTT5-1.5.4] A topic with a control character or a non-character is passed on unchanged, or malformed.
#[test]
fn discouraged_characters_are_passed_on_or_refused() {
    on_each_version(|target| {
        for odd in [
            "\u{1}",
            "\u{1F}",
            "\u{7F}",
            "\u{9F}",
            "\u{FDD0}",
            "\u{FFFF}",
            "\u{10FFFF}",
        ] {
            let topic = format!("{} {odd}", unique("odd"));
            let mut client = target.client("odd");
            client.send(&encode::publish(target.version, &Publish::new(&topic, "x").retain()));
            client.send(&encode::subscribe(target.version, 1, &[(&topic, 0)]));
            match client.recv_bytes() {
                Some(bytes) if bytes[0] == 0x90 => {
                    assert_eq!(client.expect_message("x").topic, topic);
                    client.publish(&Publish::new(&topic, "").retain());
                }
                Some(bytes) => assert_eq!((bytes[0], bytes[2]), (0xE0, 0x81), "{odd:?}"),
                None => assert!(!target.is_v5(), "{odd:?}"),
            }
        }
    });
}

/// [MQTT5-1.5.4] [MQTT5-4.7.3-4] [MQTT3-4.7.3-4] [MQTT3-1.5.3-1] Characters of every length of UTF-8, at the edges of what is legal, combining
/// and invisible ones, are passed on unchanged.
#[test]
fn unusual_characters_are_passed_on_unchanged() {
    on_each_version(|target| {
        let mut client = target.client("chars");
        let odd = "\u{A0}\u{7FF}\u{800}|\u{D7FF}\u{E000}\u{FFFD}|\u{10000}\u{10FFFD}|\u{E9} e\u{301}|\u{202E}\u{200B}";
        let topic = format!("{} {odd}", unique("chars"));
        assert_eq!(client.subscribe(&topic, 0), 0);
        let list = if target.is_v5() {
            property::user(odd, odd)
        } else {
            Vec::new()
        };
        client.publish(&Publish::new(&topic, "x").property(&list));
        let delivery = client.expect_message("x");
        assert_eq!(delivery.topic, topic);
        if target.is_v5() {
            assert_eq!(delivery.property(0x26), Some(&list[1..]));
        }
    });
}

/// [MQTT5-1.5.5-1] [MQTT5-1.5.5] A variable byte integer in more bytes than it needs, or in more than four, is malformed, wherever it
/// stands.
#[test]
fn variable_byte_integers_have_the_fewest_bytes() {
    on_each(|target| {
        each_ends(
            target,
            [
                case("Remaining Length, PINGREQ", hex("c0 8000"), MALFORMED),
                case("Remaining Length, PUBLISH", hex("30 8400 0001 61 00"), MALFORMED),
                case(
                    "Remaining Length of four bytes",
                    hex("30 84808000 0001 61 00"),
                    MALFORMED,
                ),
                case("Property Length, PUBLISH", hex("30 05 0001 61 8000"), MALFORMED),
                case(
                    "Property Length of five bytes",
                    hex("30 08 0001 61 8080808000"),
                    MALFORMED,
                ),
                case(
                    "Property Length, SUBSCRIBE",
                    hex("82 08 0001 8000 0001 61 00"),
                    MALFORMED,
                ),
                case(
                    "Subscription Identifier",
                    hex("82 0a 0001 03 0b8100 0001 61 00"),
                    MALFORMED,
                ),
                case(
                    "identifier of five bytes",
                    hex("82 0d 0001 06 0b8080808001 0001 61 00"),
                    MALFORMED,
                ),
            ],
        );
        let body = target.hello("varint").bytes().split_off(2);
        let with = |at: usize| [&body[..at], &[0x80, 0x00], &body[at + 1..]].concat();
        let long = [&[0x10, 0x80 | body.len() as u8, 0][..], &body].concat();
        each_is_refused(
            target,
            [
                case("Remaining Length, CONNECT", long, MALFORMED),
                case("Property Length, CONNECT", packet(0x10, &[&with(10)]), MALFORMED),
            ],
        );
    });
}

/// [MQTT3-2.2.3] 3.1.1 has no rule against a Remaining Length in more bytes than it needs.
#[test]
fn a_long_form_of_the_remaining_length_is_legal_in_3_1_1() {
    on_each_v3(|target| {
        let mut client = target.client("varint");
        client.send(&hex("c0 8000"));
        client.expect_hex("d000");
    });
}

/// [MQTT5-1.5.6] Binary data of 65,535 bytes of any value goes through: correlation data, user name's password, will payload.
#[test]
fn binary_data_may_have_65_535_bytes() {
    on_each(|target| {
        let data: Vec<u8> = (0..65_535_u32).map(|n| n as u8).collect();
        let topic = unique("binary");
        let mut client = target.client("binary");
        assert_eq!(client.subscribe(&topic, 0), 0);
        client.publish(&Publish::new(&topic, "x").property(property::correlation_data(&data)));
        assert_eq!(client.expect_message("x").property(0x09), Some(&data[..]));
        let will = LastWill::new(&topic, &data);
        let hello = target.hello("binary-will").user("u").password(&data).will(will);
        Raw::connected(target.at, &hello).reset();
        assert_eq!(client.expect_publish().payload, data);
    });
}

/// [MQTT5-2.1.4] [MQTT3-2.2.3] Remaining Lengths of one, two and three bytes, at the edges of each.
#[test]
fn every_size_of_remaining_length_is_read() {
    on_each_version(|target| {
        let topic = unique("sizes");
        let mut client = target.client("sizes");
        assert_eq!(client.subscribe(&topic, 0), 0);
        let head = text(&topic).len() + client.section(&[]).len();
        for total in [head, 127, 128, 16_383, 16_384, 1_000_000] {
            let payload = vec![b'x'; total - head];
            client.publish(&Publish::new(&topic, &payload));
            assert_eq!(client.expect_publish().payload, payload);
        }
    });
}
