//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7): their forms, flags, reason codes and properties, both ways.

use fellbeck_tests::mqtt::wire::{packet, properties, property};
use fellbeck_tests::mqtt::{AckKind, Answer, Publish, Raw, encode, value_of};

use crate::brokers::{Target, on_each, on_each_version, unique};
use crate::pair::{Pair, ack_with, first_byte};

const KINDS: [AckKind; 4] = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];

/// All forms in which 5.0 lets an acknowledgement that succeeds be written.
fn forms(kind: AckKind, id: u16) -> Vec<Vec<u8>> {
    let first = first_byte(kind);
    let id = id.to_be_bytes();
    let list = [
        property::user("k", "v"),
        property::reason_string("because"),
        property::user("k", "v"),
    ];
    let mut forms = vec![
        packet(first, &[&id]),
        packet(first, &[&id, &[0]]),
        packet(first, &[&id, &[0], &properties(&[])]),
        packet(first, &[&id, &[0], &properties(&list)]),
    ];
    if kind == AckKind::PubAck || kind == AckKind::PubRec {
        forms.push(packet(first, &[&id, &[0x10]]));
    }
    forms
}

/// [MQTT5-3.4.2.1] [MQTT5-3.4.2-1] [MQTT5-2.4] Each form of PUBACK completes its message: of two bytes, of three, and
/// with properties; the next one is sent at a quota of one.
#[test]
fn each_form_of_puback_is_understood() {
    on_each(|target| {
        let hello = target.hello("puback").property(property::receive_maximum(1));
        let mut pair = Pair::with(&target, "puback", 2, &hello);
        for at in 0..forms(AckKind::PubAck, 1).len() {
            pair.publish(1, &at.to_string());
            let delivery = pair.to.expect_message(&at.to_string());
            pair.to.send(&forms(AckKind::PubAck, delivery.id)[at]);
        }
        pair.expect_nothing(1);
    });
}

/// [MQTT5-3.5.2.1] [MQTT5-3.7.2.1] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1] [MQTT5-2.4] Each form of PUBREC is answered with
/// PUBREL, and each of PUBCOMP completes the message.
#[test]
fn each_form_of_pubrec_and_pubcomp_is_understood() {
    on_each(|target| {
        let hello = target.hello("pubrec").property(property::receive_maximum(1));
        let mut pair = Pair::with(&target, "pubrec", 2, &hello);
        let (received, completed) = (forms(AckKind::PubRec, 1).len(), forms(AckKind::PubComp, 1).len());
        for at in 0..received {
            pair.publish(2, &at.to_string());
            let delivery = pair.to.expect_message(&at.to_string());
            pair.to.send(&forms(AckKind::PubRec, delivery.id)[at]);
            pair.to.expect_ack(AckKind::PubRel, delivery.id, 0);
            pair.to.send(&forms(AckKind::PubComp, delivery.id)[at % completed]);
        }
        pair.expect_nothing(2);
    });
}

/// [MQTT5-3.6.2.1] [MQTT5-3.6.2-1] [MQTT5-2.4] Each form of PUBREL is answered with PUBCOMP, also one that says 0x92.
#[test]
fn each_form_of_pubrel_is_understood() {
    on_each(|target| {
        let mut pair = Pair::new(&target, "pubrel", 2);
        for at in 0..=forms(AckKind::PubRel, 1).len() {
            let message = pair.message(at.to_string()).qos(2).id(77);
            pair.from.send_publish(&message);
            pair.from.expect_ack(AckKind::PubRec, 77, 0);
            let forms = forms(AckKind::PubRel, 77);
            let gone = ack_with(AckKind::PubRel, 77, 0x92);
            pair.from.send(forms.get(at).unwrap_or(&gone));
            pair.from.expect_ack(AckKind::PubComp, 77, 0);
            let delivery = pair.to.expect_message(&at.to_string());
            pair.to.acknowledge(&delivery);
        }
        pair.expect_nothing(2);
    });
}

/// [MQTT5-2.1.3-1] [MQTT5-3.6.1-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] Flags other than 0010 in PUBREL, or
/// than 0000 in the others, end the connection.
#[test]
fn wrong_flags_end_the_connection() {
    on_each_version(|target| {
        for kind in KINDS {
            for flags in [0, 1, 2, 3, 8, 15] {
                let right = first_byte(kind) & 0x0F;
                if flags != right {
                    let mut client = target.client("flags");
                    client.send(&[((kind as u8) << 4) | flags, 2, 0, 1]);
                    client.expect_end(0x81);
                }
            }
        }
    });
}

/// [MQTT5-2.1.4] [MQTT3-2.2.3] [MQTT3-4.8.0-1] An acknowledgement that ends within its identifier, or in 3.1.1 goes on
/// behind it, ends the connection.
#[test]
fn an_acknowledgement_of_the_wrong_length_ends_the_connection() {
    on_each_version(|target| {
        for kind in KINDS {
            let mut wrong = vec![packet(first_byte(kind), &[]), packet(first_byte(kind), &[&[1]])];
            if !target.is_v5() {
                wrong.push(packet(first_byte(kind), &[&[0, 1, 0]]));
            }
            for bytes in wrong {
                let mut client = target.client("length");
                client.send(&bytes);
                client.expect_end(0x81);
            }
        }
    });
}

/// [MQTT5-2.2.2.2] [MQTT5-2.1.4] [MQTT5-1.5.4-1] A property that acknowledgements do not have, a section that does not
/// fit, bytes behind it or a Reason String that is not UTF-8 make them malformed; a second Reason String is a protocol
/// error.
#[test]
fn wrong_properties_in_an_acknowledgement_end_the_connection() {
    on_each(|target| {
        let reason = property::reason_string("r");
        let twice = properties(&[reason.clone(), reason.clone()]);
        let cases = [
            (properties(&[property::content_type("t")]), 0x81),
            (properties(&[property::session_expiry(1)]), 0x81),
            (properties(&[property::reason_string([0xFF])]), 0x81),
            (vec![9, 0x1F, 0, 1, b'r'], 0x81),
            (vec![2, 0x1F, 0, 1, b'r'], 0x81),
            ([properties(&[reason]), vec![0]].concat(), 0x81),
            (twice, 0x82),
        ];
        for kind in KINDS {
            for (section, wanted) in &cases {
                let mut client = target.client("section");
                client.send(&packet(first_byte(kind), &[&[0, 1, 0], section]));
                client.expect_end(*wanted);
            }
        }
    });
}

/// [MQTT5-2.2.1-5] [MQTT5-3.3.2.2] [MQTT3-2.3.1-6] [MQTT3-4.8.0-1] An acknowledgement of identifier 0 acknowledges
/// nothing that can exist: a protocol error.
#[test]
fn an_acknowledgement_of_identifier_zero_ends_the_connection() {
    on_each_version(|target| {
        for kind in KINDS {
            let mut client = target.client("zero");
            client.send(&encode::ack(kind, 0));
            client.expect_end(0x82);
        }
    });
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] A reason code that the packet does not have is a
/// protocol error.
#[test]
fn a_reason_code_that_is_not_listed_is_a_protocol_error() {
    on_each(|target| {
        let wrong = [
            (AckKind::PubAck, [0x01, 0x05, 0x92, 0x9F]),
            (AckKind::PubRec, [0x01, 0x18, 0x92, 0xFF]),
            (AckKind::PubRel, [0x01, 0x10, 0x80, 0x97]),
            (AckKind::PubComp, [0x01, 0x10, 0x80, 0x91]),
        ];
        for (kind, reasons) in wrong {
            for reason in reasons {
                let mut client = target.client("reason");
                client.send(&ack_with(kind, 1, reason));
                client.expect_end(0x82);
            }
        }
    });
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] Every listed reason code of PUBACK and PUBREC is taken.
#[test]
fn each_listed_reason_code_is_taken() {
    on_each(|target| {
        let hello = target.hello("listed").property(property::receive_maximum(1));
        let mut pair = Pair::with(&target, "listed", 2, &hello);
        for reason in [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
            for (qos, kind) in [(1, AckKind::PubAck), (2, AckKind::PubRec)] {
                pair.publish(qos, "x");
                let id = pair.to.expect_message("x").id;
                pair.to.send(&ack_with(kind, id, reason));
                if qos == 2 && reason < 0x80 {
                    pair.to.expect_ack(AckKind::PubRel, id, 0);
                    pair.to.send(&encode::ack(AckKind::PubComp, id));
                }
                pair.to.ping();
            }
        }
    });
}

/// Draws PUBACK, PUBREC, PUBCOMP and PUBREL that say failure, and hands out their bytes.
fn failures(client: &mut Raw) -> Vec<Vec<u8>> {
    let refused = Publish::new("$SYS/refused", "x").id(1);
    client.send_publish(&refused.clone().qos(1));
    client.send_publish(&refused.qos(2));
    client.send(&encode::ack(AckKind::PubRel, 2));
    client.send(&encode::ack(AckKind::PubRec, 3));
    let all: Vec<Vec<u8>> = (0..4).map(|_| client.recv_bytes().expect("a failure")).collect();
    let types: Vec<u8> = all.iter().map(|bytes| bytes[0]).collect();
    assert_eq!(types, [0x40, 0x50, 0x70, 0x62]);
    let reasons: Vec<u8> = all.iter().map(|bytes| bytes[4]).collect();
    assert_eq!(reasons, [0x87, 0x87, 0x92, 0x92]);
    all
}

/// [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.6.2-2] [MQTT5-3.7.2-2] [MQTT5-3.1.2-24] No Reason String takes an
/// acknowledgement above the Maximum Packet Size of the client; without one it still comes.
#[test]
fn a_reason_string_that_does_not_fit_is_left_out() {
    on_each(|target| {
        for maximum in sizes(&target) {
            let hello = target.hello("fit").property(property::packet_maximum(maximum));
            for bytes in failures(&mut target.connect(&hello)) {
                assert!(bytes.len() <= maximum as usize, "{} of {maximum}", bytes.len());
            }
        }
    });
}

/// Maximum Packet Sizes at which a CONNACK fits, with little room and more.
fn sizes(target: &Target) -> std::ops::Range<u32> {
    let mut client = target.open();
    client.send(&target.hello("size").bytes());
    let bytes = client.recv_bytes().expect("a CONNACK");
    let least = u32::try_from(bytes.len()).expect("a CONNACK is short");
    least + 3..least + 27
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2.11.4] A client whose Maximum Packet Size is that of its CONNACK is served.
#[test]
fn a_connack_that_just_fits_is_sent() {
    on_each(|target| {
        let least = sizes(&target).start - 3;
        for maximum in least..least + 3 {
            let hello = target.hello("just").property(property::packet_maximum(maximum));
            target.connect(&hello).ping();
        }
    });
}

/// [MQTT5-3.1.2-29] [MQTT5-3.1.2.11.7] With Request Problem Information 0 no acknowledgement has a Reason String or
/// User Property.
#[test]
fn without_problem_information_there_is_no_reason_string() {
    on_each(|target| {
        let hello = target.hello("silent").property(property::request_problem(0));
        let mut client = target.connect(&hello);
        for bytes in failures(&mut client) {
            assert!(bytes.len() == 5 || bytes[5..] == [0], "{bytes:02x?}");
        }
        let reasons = client.subscribe_all(&[], &[(&format!("$share/g/{}", unique("silent")), 0)]);
        assert_eq!(reasons, [0]);
    });
}

/// [MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.6.2-1] [MQTT5-3.7.2-1] With Request Problem Information 1 what they say is
/// a listed code, and a Reason String is text.
#[test]
fn a_failure_says_why_in_a_listed_code() {
    on_each(|target| {
        let hello = target.hello("why").property(property::request_problem(1));
        let mut client = target.connect(&hello);
        client.send_publish(&Publish::new("$SYS/refused", "x").id(1).qos(1));
        match client.recv() {
            Answer::Ack {
                kind: AckKind::PubAck,
                id: 1,
                reason: 0x87,
                properties,
            } => {
                let why = value_of(&properties, 0x1F);
                assert!(
                    why.is_none_or(|text| !text.is_empty()),
                    "an empty Reason String says nothing"
                );
            }
            other => panic!("expected PUBACK 0x87, got {other:02x?}"),
        }
    });
}
