//! Outbound packets in wire form, for both versions.
//!
//! In: a [`PacketOut`] of the session core. Out: its bytes, appended to a scratch buffer or to the write buffer of a connection.
//! Written by hand instead of through ntex-mqtt's packet types, since those own their topic and properties: a delivery would
//! allocate for each subscriber, and the properties of a record are in wire form already.
//! Knows nothing of connections, limits or order.

use crate::wire::{Delivery, PacketOut, Version};

const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;
const DISCONNECT: u8 = 0xE0;

/// PINGRESP.
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];

const EXPIRY: u8 = 0x02;
const SUBSCRIPTION_ID: u8 = 0x0B;
const REASON_STRING: u8 = 0x1F;

/// Bytes of the largest fixed header: type and a length of four bytes.
const FIXED_HEADER_MAX: u32 = 5;

/// Appends a packet other than PUBLISH and CONNACK, which have their own ways.
pub(super) fn put_control(out: &mut Vec<u8>, version: Version, packet: &PacketOut<'_>) {
    match *packet {
        PacketOut::PubAck { packet_id, reason } => put_ack(out, version, PUBACK, packet_id, reason),
        PacketOut::PubRec { packet_id, reason } => put_ack(out, version, PUBREC, packet_id, reason),
        PacketOut::PubRel { packet_id, reason } => put_ack(out, version, PUBREL, packet_id, reason),
        PacketOut::PubComp { packet_id, reason } => put_ack(out, version, PUBCOMP, packet_id, reason),
        PacketOut::SubAck { packet_id, reasons } => put_suback(out, version, packet_id, reasons),
        PacketOut::UnsubAck { packet_id, reasons } => put_unsuback(out, version, packet_id, reasons),
        PacketOut::ConnAck { .. } | PacketOut::Publish(_) => {}
    }
}

fn put_ack(out: &mut Vec<u8>, version: Version, first: u8, packet_id: u16, reason: u8) {
    let [high, low] = packet_id.to_be_bytes();
    // The reason code may be left out when it is 0 and there is no property ([MQTT5-3.4.2.1]).
    if version == Version::V3 || reason == 0 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason]);
    }
}

fn put_suback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[u8]) {
    out.push(SUBACK);
    match version {
        Version::V3 => {
            put_varint(out, 2 + reasons.len() as u32);
            out.extend_from_slice(&packet_id.to_be_bytes());
            // 3.1.1 knows one failure code.
            out.extend(reasons.iter().map(|&code| if code >= 0x80 { 0x80 } else { code }));
        }
        Version::V5 => {
            put_varint(out, 3 + reasons.len() as u32);
            out.extend_from_slice(&packet_id.to_be_bytes());
            out.push(0);
            out.extend_from_slice(reasons);
        }
    }
}

fn put_unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, reasons: &[u8]) {
    let [high, low] = packet_id.to_be_bytes();
    match version {
        Version::V3 => out.extend_from_slice(&[UNSUBACK, 2, high, low]),
        Version::V5 => {
            out.push(UNSUBACK);
            put_varint(out, 3 + reasons.len() as u32);
            out.extend_from_slice(&[high, low, 0]);
            out.extend_from_slice(reasons);
        }
    }
}

/// Appends a DISCONNECT of MQTT 5. The text is left out when it would exceed `packet_max`.
pub(super) fn put_disconnect(out: &mut Vec<u8>, reason: u8, text: &str, packet_max: u32) {
    let text = &text.as_bytes()[..text.len().min(128)];
    let property_len = 3 + text.len() as u32;
    if text.is_empty() || FIXED_HEADER_MAX + 2 + property_len > packet_max {
        out.extend_from_slice(&[DISCONNECT, 1, reason]);
        return;
    }
    out.push(DISCONNECT);
    put_varint(out, 1 + varint_len(property_len) + property_len);
    out.push(reason);
    put_varint(out, property_len);
    out.push(REASON_STRING);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// Appends all of a PUBLISH but its payload. Returns false, with `out` as it was, when the whole would exceed `packet_max`
/// or what the protocol can express.
pub(super) fn put_publish_head(out: &mut Vec<u8>, version: Version, delivery: &Delivery<'_>, packet_max: u32) -> bool {
    let record = &delivery.record;
    let Ok(topic_len) = u16::try_from(record.topic.len()) else {
        return false;
    };
    let property_len = match version {
        Version::V3 => 0,
        Version::V5 => property_len(delivery),
    };
    let head = 2 + record.topic.len() + if delivery.packet_id.is_some() { 2 } else { 0 };
    let properties = match version {
        Version::V3 => 0,
        Version::V5 => varint_len(property_len as u32) as usize + property_len,
    };
    let remaining = head + properties + record.payload.len();
    let whole = 1 + varint_len(remaining as u32) as usize + remaining;
    if remaining > MAX_REMAINING || whole > packet_max as usize {
        return false;
    }
    out.push(PUBLISH | u8::from(delivery.dup) << 3 | (delivery.qos as u8) << 1 | u8::from(delivery.retain));
    put_varint(out, remaining as u32);
    out.extend_from_slice(&topic_len.to_be_bytes());
    out.extend_from_slice(record.topic.as_bytes());
    if let Some(packet_id) = delivery.packet_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        put_varint(out, property_len as u32);
        put_properties(out, delivery);
    }
    true
}

/// Largest value of the Remaining Length field.
const MAX_REMAINING: usize = 268_435_455;

fn property_len(delivery: &Delivery<'_>) -> usize {
    let expiry = if delivery.expiry_secs.is_some() { 5 } else { 0 };
    let ids: u32 = delivery.subscription_ids.iter().map(|&id| 1 + varint_len(id)).sum();
    expiry + ids as usize + delivery.record.properties.as_bytes().len()
}

fn put_properties(out: &mut Vec<u8>, delivery: &Delivery<'_>) {
    if let Some(secs) = delivery.expiry_secs {
        out.push(EXPIRY);
        out.extend_from_slice(&secs.to_be_bytes());
    }
    for &id in delivery.subscription_ids {
        out.push(SUBSCRIPTION_ID);
        put_varint(out, id);
    }
    out.extend_from_slice(delivery.record.properties.as_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut n: u32) {
    loop {
        let byte = (n & 0x7F) as u8;
        n >>= 7;
        if n == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn varint_len(n: u32) -> u32 {
    match n {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fellbeck_core::{ClockQuality, Properties, QoS, Record, WallTime};

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
        }
    }

    #[test]
    fn a_publish_has_the_layout_of_its_version() {
        let delivery = delivery(b"xy", &[1, 1], &[5, 300]);
        let mut out = Vec::new();
        assert!(put_publish_head(&mut out, Version::V3, &delivery, u32::MAX));
        assert_eq!(out, [0x3A, 9, 0, 3, b'a', b'/', b'b', 0, 7]);
        out.clear();
        assert!(put_publish_head(&mut out, Version::V5, &delivery, u32::MAX));
        let properties = [12, 0x02, 0, 0, 0, 9, 0x0B, 5, 0x0B, 0xAC, 0x02, 1, 1];
        assert_eq!(out[..9], [0x3A, 22, 0, 3, b'a', b'/', b'b', 0, 7]);
        assert_eq!(out[9..], properties);
    }

    #[test]
    fn a_publish_of_exactly_the_maximum_packet_size_is_sent_and_one_byte_more_is_not() {
        let delivery = delivery(b"xy", &[], &[]);
        let mut out = Vec::new();
        assert!(put_publish_head(&mut out, Version::V3, &delivery, 11));
        out.clear();
        assert!(!put_publish_head(&mut out, Version::V3, &delivery, 10));
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
        put_control(&mut out, Version::V3, &packet);
        put_control(&mut out, Version::V5, &packet);
        assert_eq!(out, [0x40, 2, 1, 2, 0x40, 3, 1, 2, 0x10]);
        out.clear();
        let packet = PacketOut::SubAck {
            packet_id: 1,
            reasons: &[1, 0x87],
        };
        put_control(&mut out, Version::V3, &packet);
        put_control(&mut out, Version::V5, &packet);
        assert_eq!(out, [0x90, 4, 0, 1, 1, 0x80, 0x90, 5, 0, 1, 0, 1, 0x87]);
    }
}
