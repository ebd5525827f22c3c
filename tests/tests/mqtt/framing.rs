//! Fixed header, Remaining Length, Packet Identifiers, properties (2) in every packet.

use std::collections::BTreeSet;

use fellbeck_tests::mqtt::wire::{hex, packet, properties, property, text};
use fellbeck_tests::mqtt::{AckKind, Answer, Connect, LastWill, Publish, Version, encode};

use crate::brokers::{Target, on_each, on_each_v3, on_each_version, unique};
use crate::cases::{Case, MALFORMED, PROTOCOL_ERROR, WRONG, case, each_ends, each_is_refused};

/// Body of a packet of this type that would be right, for all types but PUBLISH whose flags are fixed.
fn sound_bodies(target: Target) -> Vec<(&'static str, u8, Vec<u8>)> {
    let section = if target.is_v5() { hex("00") } else { Vec::new() };
    let filter = text(unique("framing/flags"));
    let mut bodies = vec![
        ("PUBACK", 0x40, hex("0001")),
        ("PUBREC", 0x50, hex("0001")),
        ("PUBREL", 0x62, hex("0001")),
        ("PUBCOMP", 0x70, hex("0001")),
        ("SUBSCRIBE", 0x82, [&hex("0001")[..], &section, &filter, &[0]].concat()),
        ("UNSUBSCRIBE", 0xA2, [&hex("0001")[..], &section, &filter].concat()),
        ("PINGREQ", 0xC0, Vec::new()),
        ("DISCONNECT", 0xE0, Vec::new()),
    ];
    if target.is_v5() {
        bodies.push(("AUTH", 0xF0, Vec::new()));
    }
    bodies
}

/// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT5-3.15.1-1] [MQTT5-4.13.1-1] [MQTT5-4.13.1]
/// [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1] [MQTT3-3.14.1-1] [MQTT3-4.8.0-1] Each single wrong
/// flag of each packet type ends the connection: 0x81.
#[test]
fn wrong_flags_of_the_fixed_header_are_malformed() {
    on_each_version(|target| {
        let cases = sound_bodies(target).into_iter().flat_map(|(name, first, body)| {
            [1, 2, 4, 8].map(|bit| case(format!("{name}, bit {bit}"), packet(first ^ bit, &[&body]), MALFORMED))
        });
        each_ends(target, cases);
    });
}

/// [MQTT5-2.1.3-1] [MQTT3-2.2.2-2] A CONNECT with flags in its fixed header gets no CONNACK that accepts.
#[test]
fn a_connect_with_flags_is_not_accepted() {
    on_each_version(|target| {
        for bit in [1, 2, 4, 8] {
            let mut bytes = target.hello("flags").bytes();
            bytes[0] |= bit;
            let mut client = target.open();
            client.send_anyway(&bytes);
            if let Some(seen) = client.recv_bytes() {
                assert!(target.is_v5(), "{seen:02x?}");
                assert_eq!((seen[0], seen[3]), (0x20, 0x81), "{seen:02x?}");
                client.expect_close();
            }
        }
    });
}

/// [MQTT5-2.1.2] [MQTT5-4.13.1-1] [MQTT3-4.8.0-1] Packet type 0, and packets that only a server sends, end the connection. Type 15 does in
/// 3.1.1, where it is reserved.
#[test]
fn packets_that_no_client_sends_end_the_connection() {
    on_each_version(|target| {
        let section = if target.is_v5() { "00" } else { "" };
        let mut cases = vec![
            case("type 0", hex("0000"), MALFORMED),
            case("type 0 with a body", hex("00020001"), MALFORMED),
            case("CONNACK", packet(0x20, &[&hex("0000"), &hex(section)]), WRONG),
            case("SUBACK", packet(0x90, &[&hex("0001"), &hex(section), &[0]]), WRONG),
            case("UNSUBACK", packet(0xB0, &[&hex("0001"), &hex(section)]), WRONG),
            case("PINGRESP", hex("d000"), WRONG),
        ];
        if !target.is_v5() {
            cases.push(case("type 15", hex("f000"), &[]));
            cases.push(case("type 15 with a body", hex("f0021900"), &[]));
        }
        each_ends(target, cases);
    });
}

/// [MQTT5-2.1.4] [MQTT3-2.2.3] [MQTT3-4.8.0-1] A Remaining Length that cuts a field, leaves bytes over or has more than four bytes ends the
/// connection: 0x81.
#[test]
fn lengths_that_do_not_fit_are_malformed() {
    on_each_version(|target| {
        each_ends(
            target,
            misfits(target.version).map(|(what, bytes)| case(what, hex(bytes), MALFORMED)),
        );
    });
}

fn misfits(version: Version) -> impl Iterator<Item = (&'static str, &'static str)> {
    let both = [
        ("Remaining Length of five bytes", "30 80808080 01 0001 61"),
        ("PUBLISH without a body", "3000"),
        ("PUBLISH whose topic overruns it", "30 04 0005 6161"),
        ("PUBLISH that ends within the topic length", "30 01 00"),
        ("PUBLISH of QoS 1 that ends before its identifier", "32 03 0001 61"),
        ("PUBLISH of QoS 1 that ends within its identifier", "32 04 0001 61 00"),
        ("PUBACK without a body", "4000"),
        ("PUBACK with half an identifier", "4001 00"),
        ("PUBREC with half an identifier", "5001 00"),
        ("PUBREL with half an identifier", "6201 00"),
        ("PUBCOMP with half an identifier", "7001 00"),
        ("SUBSCRIBE without a body", "8200"),
        ("UNSUBSCRIBE without a body", "a200"),
        ("PINGREQ with a body", "c001 00"),
    ];
    let own: &[(&str, &str)] = match version {
        Version::V3 => &[
            ("PUBACK with a third byte", "4003 0001 00"),
            ("PUBREC with a third byte", "5003 0001 00"),
            ("PUBREL with a third byte", "6203 0001 00"),
            ("PUBCOMP with a third byte", "7003 0001 00"),
            ("SUBSCRIBE without a QoS", "8205 0001 0001 61"),
            ("SUBSCRIBE whose filter overruns it", "8206 0001 0003 61 00"),
            (
                "SUBSCRIBE that ends within a second filter",
                "8208 0001 0001 61 00 0001",
            ),
            ("UNSUBSCRIBE whose filter overruns it", "a205 0001 0003 61"),
            ("DISCONNECT with a body", "e001 00"),
        ],
        Version::V5 => &[
            ("PUBLISH without a property length", "3003 0001 61"),
            ("PUBLISH whose properties overrun it", "3004 0001 61 05"),
            ("PUBACK whose properties overrun it", "4004 0001 00 04"),
            ("PUBACK with bytes left over", "4006 0001 00 00 0000"),
            ("PUBREC with bytes left over", "5005 0001 00 00 00"),
            ("PUBREL with bytes left over", "6205 0001 00 00 00"),
            ("PUBCOMP with bytes left over", "7005 0001 00 00 00"),
            ("SUBSCRIBE without options", "8206 0001 00 0001 61"),
            ("SUBSCRIBE whose filter overruns it", "8207 0001 00 0003 61 00"),
            (
                "SUBSCRIBE that ends within a second filter",
                "8209 0001 00 0001 61 00 0001",
            ),
            ("UNSUBSCRIBE whose filter overruns it", "a206 0001 00 0003 61"),
            ("DISCONNECT whose properties overrun it", "e002 00 05"),
            ("DISCONNECT with bytes left over", "e003 00 00 00"),
            ("a property that its section cuts", "3006 0001 61 02 02 00"),
            (
                "a string property that overruns its section",
                "3008 0001 61 04 03 0009 61",
            ),
        ],
    };
    both.into_iter().chain(own.iter().copied())
}

/// [MQTT5-4.13.1] [MQTT5-2.1.4] [MQTT3-2.2.3] [MQTT3-3.1.4-1] [MQTT3-3.2.2-6] A CONNECT that ends within a field, at every byte, is refused:
/// 0x81 in 5.0 as soon as its level is known, without CONNACK in 3.1.1.
#[test]
fn a_connect_that_is_cut_is_refused() {
    on_each_version(|target| {
        let will = LastWill::new("cut/will", "x");
        let whole = target.hello("cut").will(will).user("u").password("p").bytes();
        let body = &whole[2..];
        for length in 0..body.len() {
            let mut client = target.open();
            client.send_anyway(&packet(0x10, &[&body[..length]]));
            let seen = client.recv_bytes();
            let level_known = target.is_v5() && length >= 7;
            match seen {
                Some(seen) if level_known => {
                    assert_eq!((seen[0], seen[3]), (0x20, 0x81), "{length} bytes: {seen:02x?}");
                    client.expect_close();
                }
                seen => assert_eq!((seen, level_known && length > 7), (None, false), "{length} bytes"),
            }
        }
    });
}

/// [MQTT5-4.2.0-1] [MQTT3-7.1.1-1] Packets may come byte by byte, or many in one write; each is processed, in order.
#[test]
fn packets_need_not_come_in_one_piece() {
    on_each_version(|target| {
        let topic = unique("pieces");
        let mut client = target.open();
        for byte in target.hello("pieces").bytes() {
            client.send(&[byte]);
        }
        client.expect_accepted();
        let subscribe = encode::subscribe(target.version, 1, &[(&topic, 0)]);
        let publish = |n: u32| encode::publish(target.version, &Publish::new(&topic, n.to_string()));
        for byte in [subscribe, publish(0)].concat() {
            client.send(&[byte]);
        }
        assert!(matches!(client.recv(), Answer::SubAck { id: 1, .. }));
        client.expect_message("0");
        let many: Vec<u8> = (1..=200).flat_map(publish).collect();
        client.send(&many);
        for n in 1..=200 {
            client.expect_message(&n.to_string());
        }
    });
}

/// [MQTT5-2.2.1-2] [MQTT5-2.2.2-1] [MQTT3-2.3.1-5] A PUBLISH of QoS 0 has no Packet Identifier either way, and without properties a length
/// of 0 stands in their place: exact bytes.
#[test]
fn a_publish_of_qos_0_has_no_packet_identifier() {
    on_each_version(|target| {
        let topic = unique("no-id");
        let mut client = target.client("no-id");
        assert_eq!(client.subscribe(&topic, 2), 2);
        let section = client.section(&[]);
        let bytes = packet(0x30, &[&text(&topic), &section, &hex("00011234")]);
        client.send(&bytes);
        assert_eq!(client.recv_bytes(), Some(bytes));
    });
}

/// [MQTT5-2.2.1-4] [MQTT5-4.3.2-1] [MQTT5-4.3.3-1] [MQTT3-2.3.1-4] Many unacknowledged deliveries at once: each has an identifier of its own,
/// never 0, and none is taken again before its exchange is over.
#[test]
fn packet_identifiers_of_the_server_are_unique_while_in_use() {
    on_each_version(|target| {
        let topic = unique("ids");
        let mut client = target.client("ids");
        assert_eq!(client.subscribe(&topic, 2), 2);
        let mut sender = target.client("ids-sender");
        let mut open = BTreeSet::new();
        let mut round = |client: &mut fellbeck_tests::mqtt::Raw, open: &mut BTreeSet<u16>| {
            for n in 0..40 {
                sender.publish(&Publish::new(&topic, "x").qos(1 + n % 2));
            }
            (0..40)
                .map(|_| {
                    let delivery = client.expect_publish();
                    assert!(open.insert(delivery.id), "{} is in use", delivery.id);
                    delivery
                })
                .collect::<Vec<_>>()
        };
        for delivery in round(&mut client, &mut open).iter().step_by(3) {
            client.acknowledge(delivery);
            open.remove(&delivery.id);
        }
        round(&mut client, &mut open);
    });
}

/// [MQTT5-2.2.1] [MQTT5-2.2.1-5] [MQTT5-2.2.1-6] [MQTT3-2.3.1-6] [MQTT3-2.3.1-7] Both sides may use one number at once, for whatever packets;
/// each acknowledgement carries the one of its request.
#[test]
fn both_sides_number_their_packets_independently() {
    on_each_version(|target| {
        let topic = unique("numbers");
        let mut client = target.client("numbers");
        assert_eq!(client.subscribe(&topic, 1), 1);
        target
            .client("numbers-sender")
            .publish(&Publish::new(&topic, "in").qos(1));
        let delivery = client.expect_message("in");
        let other = unique("numbers/other");
        client.send_publish(&Publish::new(&other, "out").qos(2).id(delivery.id));
        assert!(
            matches!(client.recv(), Answer::Ack { kind: AckKind::PubRec, id, reason: 0 | 0x10, .. } if id == delivery.id)
        );
        client.send(&encode::ack(AckKind::PubRel, delivery.id));
        client.expect_ack(AckKind::PubComp, delivery.id, 0);
        client.send(&encode::subscribe(target.version, delivery.id, &[(&other, 0)]));
        assert!(matches!(client.recv(), Answer::SubAck { id, .. } if id == delivery.id));
        client.send(&encode::unsubscribe(target.version, delivery.id, &[&other]));
        assert!(matches!(client.recv(), Answer::UnsubAck { id, .. } if id == delivery.id));
        client.acknowledge(&delivery);
        client.ping();
    });
}

/// [MQTT5-2.2.1-6] [MQTT5-2.2.2-1] [MQTT5-3.8.4-2] [MQTT5-3.10.4-5] [MQTT3-2.3.1-7] [MQTT3-3.8.4-2] [MQTT3-3.10.4-4] SUBACK and UNSUBACK to
/// the byte, with the lowest and the highest identifier.
#[test]
fn suback_and_unsuback_are_exact() {
    on_each(|target| {
        let mut client = target.client("exact");
        let filter = unique("exact");
        for id in ["0001", "8001", "ffff"] {
            client.send(&packet(0x82, &[&hex(id), &[0], &text(&filter), &[1]]));
            client.expect_hex(&format!("90 04 {id} 00 01"));
            client.send(&packet(0xA2, &[&hex(id), &[0], &text(&filter)]));
            client.expect_hex(&format!("b0 04 {id} 00 00"));
        }
    });
    on_each_v3(|target| {
        let mut client = target.client("exact");
        let filter = unique("exact");
        for id in ["0001", "8001", "ffff"] {
            client.send(&packet(0x82, &[&hex(id), &text(&filter), &[1]]));
            client.expect_hex(&format!("90 03 {id} 01"));
            client.send(&packet(0xA2, &[&hex(id), &text(&filter)]));
            client.expect_hex(&format!("b0 02 {id}"));
        }
    });
}

/// [MQTT5-2.2.1-3] [MQTT5-3.3.2.2] [MQTT3-2.3.1-1] [MQTT3-4.8.0-1] A Packet Identifier of 0 ends the connection.
#[test]
fn a_packet_identifier_of_0_ends_the_connection() {
    on_each_version(|target| {
        let section = if target.is_v5() { hex("00") } else { Vec::new() };
        let filter = text(unique("id-0"));
        let zero = hex("0000");
        each_ends(
            target,
            [
                case("PUBLISH of QoS 1", packet(0x32, &[&filter, &zero, &section]), WRONG),
                case("PUBLISH of QoS 2", packet(0x34, &[&filter, &zero, &section]), WRONG),
                case("SUBSCRIBE", packet(0x82, &[&zero, &section, &filter, &[0]]), WRONG),
                case("UNSUBSCRIBE", packet(0xA2, &[&zero, &section, &filter]), WRONG),
            ],
        );
    });
}

/// A value of each property of the standard.
fn sample(id: u8) -> Vec<u8> {
    let value = match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A | 0x0B => hex("01"),
        0x13 | 0x21 | 0x22 | 0x23 => hex("0001"),
        0x02 | 0x11 | 0x18 | 0x27 => hex("00001000"),
        0x26 => [text("k"), text("v")].concat(),
        _ => text("v"),
    };
    [vec![id], value].concat()
}

const KNOWN: [u8; 27] = [
    0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x11, 0x12, 0x13, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C, 0x1F, 0x21, 0x22,
    0x23, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A,
];

/// A packet of a client with this property section.
type WithProperties = Box<dyn Fn(&[Vec<u8>]) -> Vec<u8>>;

/// Packets with properties that follow an accepted CONNECT: name, identifiers allowed, the packet.
fn places() -> Vec<(&'static str, &'static [u8], WithProperties)> {
    fn ack(first: u8) -> WithProperties {
        Box::new(move |list| packet(first, &[&hex("0001 00"), &properties(list)]))
    }
    let topic = text(unique("places"));
    let filter = topic.clone();
    let unfilter = topic.clone();
    vec![
        (
            "PUBLISH",
            &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26],
            Box::new(move |list| packet(0x30, &[&topic, &properties(list)])),
        ),
        ("PUBACK", &[0x1F, 0x26], ack(0x40)),
        ("PUBREC", &[0x1F, 0x26], ack(0x50)),
        ("PUBREL", &[0x1F, 0x26], ack(0x62)),
        ("PUBCOMP", &[0x1F, 0x26], ack(0x70)),
        (
            "SUBSCRIBE",
            &[0x0B, 0x26],
            Box::new(move |list| packet(0x82, &[&hex("0001"), &properties(list), &filter, &[0]])),
        ),
        (
            "UNSUBSCRIBE",
            &[0x26],
            Box::new(move |list| packet(0xA2, &[&hex("0001"), &properties(list), &unfilter])),
        ),
        (
            // A Server Reference is for the server, but the table of properties allows it without saying whose packet it is.
            "DISCONNECT",
            &[0x11, 0x1C, 0x1F, 0x26],
            Box::new(|list| packet(0xE0, &[&[0], &properties(list)])),
        ),
    ]
}

/// CONNECT and its will: name, identifiers allowed, the packet.
fn openers(target: Target) -> Vec<(&'static str, &'static [u8], WithProperties)> {
    let hello = move || target.hello("opener");
    vec![
        (
            "CONNECT",
            &[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27],
            Box::new(move |list| list.iter().cloned().fold(hello(), Connect::property).bytes()),
        ),
        (
            "will",
            &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26],
            Box::new(move |list| {
                let will = LastWill::new("opener/will", "x");
                hello()
                    .will(list.iter().cloned().fold(will, LastWill::property))
                    .bytes()
            }),
        ),
    ]
}

fn strangers(places: Vec<(&'static str, &'static [u8], WithProperties)>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, allowed, make) in places {
        for id in KNOWN.iter().filter(|id| !allowed.contains(id)) {
            // A Subscription Identifier from a client has a rule of its own in PUBLISH.
            let reasons = if (name, *id) == ("PUBLISH", 0x0B) {
                WRONG
            } else {
                MALFORMED
            };
            cases.push(case(
                format!("{name} with property {id:02x}"),
                make(&[sample(*id)]),
                reasons,
            ));
        }
        for unknown in ["00", "04", "2b", "7f", "8001"] {
            let what = format!("{name} with the unknown property {unknown}");
            cases.push(case(what, make(&[hex(unknown), hex("0001")]), MALFORMED));
        }
    }
    cases
}

fn doubles(places: Vec<(&'static str, &'static [u8], WithProperties)>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, allowed, make) in places {
        for id in allowed.iter().filter(|id| **id != 0x26) {
            let mut list = vec![sample(*id); 2];
            if *id == 0x16 {
                list.push(property::auth_method("m"));
            }
            cases.push(case(
                format!("{name} with two properties {id:02x}"),
                make(&list),
                PROTOCOL_ERROR,
            ));
        }
    }
    cases
}

/// [MQTT5-2.2.2.2] [MQTT5-3.3.4-6] A property that its packet does not allow, or that nobody knows, is malformed, in each packet of a client.
#[test]
fn properties_that_do_not_belong_there_are_malformed() {
    on_each(|target| {
        each_ends(target, strangers(places()));
        each_is_refused(target, strangers(openers(target)));
    });
}

/// [MQTT5-2.2.2.2] [MQTT5-3.1.2.11.2] [MQTT5-3.1.2.11.3] [MQTT5-3.1.2.11.4] [MQTT5-3.1.2.11.5] [MQTT5-3.1.2.11.6] [MQTT5-3.1.2.11.7]
/// [MQTT5-3.1.2.11.9] [MQTT5-3.1.2.11.10] [MQTT5-3.1.3.2.2] [MQTT5-3.1.3.2.3] [MQTT5-3.1.3.2.4] [MQTT5-3.1.3.2.5] [MQTT5-3.1.3.2.6]
/// [MQTT5-3.1.3.2.7] [MQTT5-3.3.2.3.2] [MQTT5-3.3.2.3.3] [MQTT5-3.3.2.3.4] [MQTT5-3.3.2.3.5] [MQTT5-3.3.2.3.6] [MQTT5-3.3.2.3.9]
/// [MQTT5-3.8.2.1.2] Each property that may come once comes twice: 0x82.
#[test]
fn properties_that_come_twice_are_protocol_errors() {
    on_each(|target| {
        each_ends(target, doubles(places()));
        each_is_refused(target, doubles(openers(target)));
    });
}

/// [MQTT5-2.2.2.2] [MQTT5-3.1.2.11.8] Each packet of a client may have several User Properties, also with the same name, and goes through.
#[test]
fn user_properties_may_come_more_than_once() {
    on_each(|target| {
        let pairs = [
            property::user("k", "1"),
            property::user("k", "2"),
            property::user("", ""),
        ];
        for (name, _, make) in openers(target) {
            let mut client = target.open();
            client.send(&make(&pairs));
            let accepted = client.expect_accepted();
            assert!(accepted.property(0x26).is_none(), "{name}");
        }
        for (name, _, make) in places() {
            let mut client = target.client("pairs");
            client.send(&make(&pairs));
            match name {
                "PUBLISH" | "PUBACK" | "PUBCOMP" => client.ping(),
                "DISCONNECT" => client.expect_close(),
                _ => {
                    let answer = client.recv();
                    assert!(!matches!(answer, Answer::Disconnect { .. }), "{name}: {answer:?}");
                    client.ping();
                }
            }
        }
    });
}
