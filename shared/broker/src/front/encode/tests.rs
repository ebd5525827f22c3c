//! Outbound packets have the layout of their version and the size that the client takes.

use super::*;
use fellbeck_core::{ClockQuality, Properties, QoS, Record, WallTime};

const V3: Client = Client {
    version: Version::V3,
    packet_max: u32::MAX,
    problem_information: true,
    may_repeat: false,
};
const V5: Client = Client {
    version: Version::V5,
    ..V3
};

fn delivery<'a>(payload: &'a [u8], properties: &'a [u8], ids: &'a [u32]) -> Delivery<'a> {
    Delivery {
        packet_id: Some(7),
        dup: true,
        qos: QoS::AtLeastOnce,
        retain: false,
        record: Record {
            device: "d",
            topic: "a/b",
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::parse(properties).unwrap(),
            accepted_at: WallTime(0),
            clock: ClockQuality::Synced,
            expiry_secs: Some(9),
            origin: None,
            path: "",
        },
        expiry_secs: Some(9),
        subscription_ids: ids,
        position: None,
    }
}

#[test]
fn a_publish_has_the_layout_of_its_version() {
    let delivery = delivery(b"xy", &[1, 1], &[5, 300]);
    let mut out = Vec::new();
    assert!(put_publish_head(&mut out, &V3, &delivery, Form::Named));
    assert_eq!(out, [0x3A, 9, 0, 3, b'a', b'/', b'b', 0, 7]);
    out.clear();
    assert!(put_publish_head(&mut out, &V5, &delivery, Form::Named));
    let properties = [12, 0x02, 0, 0, 0, 9, 0x0B, 5, 0x0B, 0xAC, 0x02, 1, 1];
    assert_eq!(out[..9], [0x3A, 22, 0, 3, b'a', b'/', b'b', 0, 7]);
    assert_eq!(out[9..], properties);
}

#[test]
fn a_publish_of_exactly_the_maximum_packet_size_is_sent_and_one_byte_more_is_not() {
    let delivery = delivery(b"xy", &[], &[]);
    let mut out = Vec::new();
    let takes = |packet_max| Client { packet_max, ..V3 };
    assert!(put_publish_head(&mut out, &takes(11), &delivery, Form::Named));
    out.clear();
    assert!(!put_publish_head(&mut out, &takes(10), &delivery, Form::Named));
    assert!(out.is_empty());
}

#[test]
fn a_disconnect_drops_its_text_before_it_exceeds_the_clients_maximum() {
    let mut out = Vec::new();
    put_disconnect(&mut out, 0x95, "too large", 10);
    assert_eq!(out, [0xE0, 1, 0x95]);
    out.clear();
    put_disconnect(&mut out, 0x95, "ab", u32::MAX);
    assert_eq!(out, [0xE0, 7, 0x95, 5, 0x1F, 0, 2, b'a', b'b']);
}

#[test]
fn acks_carry_a_reason_only_in_version_5() {
    let packet = PacketOut::PubAck {
        packet_id: 0x0102,
        reason: 0x10,
    };
    let mut out = Vec::new();
    put_control(&mut out, &V3, &packet);
    put_control(&mut out, &V5, &packet);
    assert_eq!(out, [0x40, 2, 1, 2, 0x40, 3, 1, 2, 0x10]);
    out.clear();
    let packet = PacketOut::SubAck {
        packet_id: 1,
        reasons: &[1, 0x87],
    };
    let terse = Client {
        problem_information: false,
        ..V5
    };
    put_control(&mut out, &V3, &packet);
    put_control(&mut out, &terse, &packet);
    assert_eq!(out, [0x90, 4, 0, 1, 1, 0x80, 0x90, 5, 0, 1, 0, 1, 0x87]);
}

/// [MQTT5-3.1.2-29] [MQTT5-3.4.2-2] [MQTT5-3.9.2-1]
#[test]
fn a_reason_string_comes_where_it_is_wanted_and_fits() {
    let encode = |packet_max, problem_information, packet| {
        let mut out = Vec::new();
        let client = Client {
            packet_max,
            problem_information,
            ..V5
        };
        assert!(put_control(&mut out, &client, &packet));
        assert!(out.len() <= packet_max as usize);
        out
    };
    let ack = PacketOut::PubAck {
        packet_id: 1,
        reason: 0x97,
    };
    let told = b"\x40\x15\x00\x01\x97\x11\x1F\x00\x0Equota exceeded";
    assert_eq!(encode(u32::MAX, true, ack), told);
    assert_eq!(encode(u32::MAX, false, ack), [0x40, 3, 0, 1, 0x97]);
    assert_eq!(encode(20, true, ack), [0x40, 3, 0, 1, 0x97]);
    let list = PacketOut::SubAck {
        packet_id: 1,
        reasons: &[0, 0x97],
    };
    assert_eq!(
        encode(u32::MAX, true, list),
        b"\x90\x16\x00\x01\x11\x1F\x00\x0Equota exceeded\x00\x97"
    );
    assert_eq!(encode(10, true, list), [0x90, 5, 0, 1, 0, 0, 0x97]);
    let fine = PacketOut::PubRec {
        packet_id: 1,
        reason: 0x10,
    };
    assert_eq!(encode(u32::MAX, true, fine), [0x50, 3, 0, 1, 0x10]);
}

#[test]
fn a_list_that_the_client_does_not_take_is_not_written() {
    let packet = PacketOut::UnsubAck {
        packet_id: 1,
        reasons: &[0; 10],
    };
    let mut out = Vec::new();
    assert!(put_control(&mut out, &Client { packet_max: 15, ..V5 }, &packet));
    assert_eq!(out.len(), 15);
    out.clear();
    assert!(!put_control(&mut out, &Client { packet_max: 14, ..V5 }, &packet));
    assert!(out.is_empty());
}

#[test]
fn an_alias_stands_for_the_topic_once_it_was_introduced() {
    let delivery = delivery(b"xy", &[1, 1], &[]);
    let mut out = Vec::new();
    assert!(put_publish_head(&mut out, &V5, &delivery, Form::Introduced(3)));
    assert_eq!(out[..9], [0x3A, 20, 0, 3, b'a', b'/', b'b', 0, 7]);
    assert_eq!(out[9..], [10, 0x02, 0, 0, 0, 9, 0x23, 0, 3, 1, 1]);
    out.clear();
    assert!(put_publish_head(&mut out, &V5, &delivery, Form::Alias(3)));
    assert_eq!(out[..6], [0x3A, 17, 0, 0, 0, 7]);
    assert_eq!(out[6..], [10, 0x02, 0, 0, 0, 9, 0x23, 0, 3, 1, 1]);
}

#[test]
fn an_auth_names_its_method_and_leaves_out_what_is_empty() {
    let mut out = Vec::new();
    put_auth(&mut out, 0x18, "m", b"de");
    put_auth(&mut out, 0, "m", b"");
    assert_eq!(
        out,
        b"\xF0\x0B\x18\x09\x15\x00\x01m\x16\x00\x02de\xF0\x06\x00\x04\x15\x00\x01m"
    );
}
