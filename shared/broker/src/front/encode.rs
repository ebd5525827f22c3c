//! Outbound packets in wire form, for both versions.
//!
//! In: a [`PacketOut`] of the session core. Out: its bytes, appended to a scratch buffer or to the write buffer of a connection.
//! Written by hand instead of through ntex-mqtt's packet types, since those own their topic and properties: a delivery would
//! allocate for each subscriber, and the properties of a record are in wire form already.
//! Knows nothing of connections, limits or order.

use super::aliases::Form;
use super::connection::Client;
use super::reasons;
use crate::wire::{Delivery, PacketOut, Version};

const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xB0;
const DISCONNECT: u8 = 0xE0;
const AUTH: u8 = 0xF0;

/// PINGRESP.
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0];

const EXPIRY: u8 = 0x02;
const SUBSCRIPTION_ID: u8 = 0x0B;
const AUTH_METHOD: u8 = 0x15;
const AUTH_DATA: u8 = 0x16;
const REASON_STRING: u8 = 0x1F;
const TOPIC_ALIAS: u8 = 0x23;

/// Bytes of the largest fixed header: type and a length of four bytes.
const FIXED_HEADER_MAX: u32 = 5;

/// Appends a packet other than PUBLISH and CONNACK, which have their own ways. False, with `out` as it was, when the client does
/// not take a packet of that size. [MQTT5-3.1.2-24]
pub(super) fn put_control(out: &mut Vec<u8>, client: &Client, packet: &PacketOut<'_>) -> bool {
    match *packet {
        PacketOut::PubAck { packet_id, reason } => put_ack(out, client, PUBACK, packet_id, reason),
        PacketOut::PubRec { packet_id, reason } => put_ack(out, client, PUBREC, packet_id, reason),
        PacketOut::PubRel { packet_id, reason } => put_ack(out, client, PUBREL, packet_id, reason),
        PacketOut::PubComp { packet_id, reason } => put_ack(out, client, PUBCOMP, packet_id, reason),
        PacketOut::SubAck { packet_id, reasons } => put_list(out, client, SUBACK, packet_id, reasons),
        PacketOut::UnsubAck { packet_id, reasons } => put_list(out, client, UNSUBACK, packet_id, reasons),
        PacketOut::ConnAck { .. } | PacketOut::Publish(_) => true,
    }
}

fn put_ack(out: &mut Vec<u8>, client: &Client, first: u8, packet_id: u16, reason: u8) -> bool {
    let [high, low] = packet_id.to_be_bytes();
    // The reason code may be left out when it is 0 and there is no property (section 3.4.2.1).
    if client.version == Version::V3 || reason == 0 {
        out.extend_from_slice(&[first, 2, high, low]);
        return true;
    }
    // [MQTT5-3.4.2-2] [MQTT5-3.5.2-2] [MQTT5-3.6.2-2] [MQTT5-3.7.2-2]
    match reason_string(client, reason, 3) {
        Some(text) => {
            out.push(first);
            put_varint(out, 3 + block_len(text));
            out.extend_from_slice(&[high, low, reason]);
            put_reason_string(out, text);
        }
        None => out.extend_from_slice(&[first, 3, high, low, reason]),
    }
    true
}

/// SUBACK and UNSUBACK.
fn put_list(out: &mut Vec<u8>, client: &Client, first: u8, packet_id: u16, reasons: &[u8]) -> bool {
    let id = packet_id.to_be_bytes();
    let bare = 2 + reasons.len() as u32;
    match client.version {
        Version::V3 if first == UNSUBACK => out.extend_from_slice(&[UNSUBACK, 2, id[0], id[1]]),
        Version::V3 => {
            out.push(first);
            put_varint(out, bare);
            out.extend_from_slice(&id);
            // 3.1.1 knows one failure code.
            out.extend(reasons.iter().map(|&code| if code >= 0x80 { 0x80 } else { code }));
        }
        Version::V5 if 1 + varint_len(bare + 1) + bare + 1 > client.packet_max => return false,
        Version::V5 => {
            let failed = reasons.iter().copied().find(|&code| code >= 0x80);
            // [MQTT5-3.9.2-1] [MQTT5-3.11.2-1]
            let text = failed.and_then(|code| reason_string(client, code, bare));
            out.push(first);
            put_varint(out, bare + text.map_or(1, block_len));
            out.extend_from_slice(&id);
            match text {
                Some(text) => put_reason_string(out, text),
                None => out.push(0),
            }
            out.extend_from_slice(reasons);
        }
    }
    true
}

/// The words for a code, where there are any, the client wants them ([MQTT5-3.1.2-29]), and takes them beside `others` bytes of
/// the packet.
fn reason_string(client: &Client, reason: u8, others: u32) -> Option<&'static str> {
    let text = reasons::text(reason).filter(|_| client.problem_information && reason >= 0x80)?;
    (FIXED_HEADER_MAX + others + block_len(text) <= client.packet_max).then_some(text)
}

/// Bytes of a property block that holds one reason string.
fn block_len(text: &str) -> u32 {
    let property = 3 + text.len() as u32;
    varint_len(property) + property
}

fn put_reason_string(out: &mut Vec<u8>, text: &str) {
    put_varint(out, 3 + text.len() as u32);
    out.push(REASON_STRING);
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends an AUTH. The data is left out when it is empty.
pub(super) fn put_auth(out: &mut Vec<u8>, reason: u8, method: &str, data: &[u8]) {
    let mut block = Vec::new();
    for (id, value) in [(AUTH_METHOD, method.as_bytes()), (AUTH_DATA, data)] {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        if id == AUTH_METHOD || !value.is_empty() {
            block.push(id);
            block.extend_from_slice(&(value.len() as u16).to_be_bytes());
            block.extend_from_slice(value);
        }
    }
    let length = block.len() as u32;
    out.push(AUTH);
    put_varint(out, 1 + varint_len(length) + length);
    out.push(reason);
    put_varint(out, length);
    out.extend_from_slice(&block);
}

/// Appends a DISCONNECT of MQTT 5. The text is left out when it would exceed `packet_max`. [MQTT5-3.14.2-3]
pub(super) fn put_disconnect(out: &mut Vec<u8>, reason: u8, text: &'static str, packet_max: u32) {
    if text.is_empty() || FIXED_HEADER_MAX + 1 + block_len(text) > packet_max {
        out.extend_from_slice(&[DISCONNECT, 1, reason]);
        return;
    }
    out.push(DISCONNECT);
    put_varint(out, 1 + block_len(text));
    out.push(reason);
    put_reason_string(out, text);
}

/// Appends all of a PUBLISH but its payload. Returns false, with `out` as it was, when the whole would exceed what the client
/// takes or what the protocol can express. [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]
pub(super) fn put_publish_head(out: &mut Vec<u8>, client: &Client, delivery: &Delivery<'_>, form: Form) -> bool {
    let record = &delivery.record;
    let topic = match form {
        Form::Named | Form::Introduced(_) => record.topic,
        Form::Alias(_) => "",
    };
    let Ok(topic_len) = u16::try_from(topic.len()) else {
        return false;
    };
    let property_len = match client.version {
        Version::V3 => 0,
        Version::V5 => property_len(delivery, form),
    };
    let head = 2 + topic.len() + if delivery.packet_id.is_some() { 2 } else { 0 };
    let properties = match client.version {
        Version::V3 => 0,
        Version::V5 => varint_len(property_len as u32) as usize + property_len,
    };
    let remaining = head + properties + record.payload.len();
    let whole = 1 + varint_len(remaining as u32) as usize + remaining;
    if remaining > MAX_REMAINING || whole > client.packet_max as usize {
        return false;
    }
    out.push(PUBLISH | u8::from(delivery.dup) << 3 | (delivery.qos as u8) << 1 | u8::from(delivery.retain));
    put_varint(out, remaining as u32);
    out.extend_from_slice(&topic_len.to_be_bytes());
    out.extend_from_slice(topic.as_bytes());
    if let Some(packet_id) = delivery.packet_id {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if client.version == Version::V5 {
        put_varint(out, property_len as u32);
        put_properties(out, delivery, form);
    }
    true
}

/// Largest value of the Remaining Length field.
const MAX_REMAINING: usize = 268_435_455;

fn property_len(delivery: &Delivery<'_>, form: Form) -> usize {
    let expiry = if delivery.expiry_secs.is_some() { 5 } else { 0 };
    let alias = if form == Form::Named { 0 } else { 3 };
    let ids: u32 = delivery.subscription_ids.iter().map(|&id| 1 + varint_len(id)).sum();
    expiry + alias + ids as usize + delivery.record.properties.as_bytes().len()
}

fn put_properties(out: &mut Vec<u8>, delivery: &Delivery<'_>, form: Form) {
    if let Some(secs) = delivery.expiry_secs {
        out.push(EXPIRY);
        out.extend_from_slice(&secs.to_be_bytes());
    }
    if let Form::Introduced(alias) | Form::Alias(alias) = form {
        out.push(TOPIC_ALIAS);
        out.extend_from_slice(&alias.to_be_bytes());
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
mod tests;
