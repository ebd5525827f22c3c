//! Just enough MQTT, 3.1.1 and 5.0, to publish and subscribe by hand.
//!
//! In: bytes from a broker. Out: packets, and the bytes of those that a client sends.
//! The consumers and the load generators use it, since they must count what is on the wire and not what a library
//! makes of it. Properties of MQTT 5 are skipped, except for those that bound what we may send.
//! Bytes from the broker are hostile: parsing never panics and holds no more than one packet.

use crate::qos::Qos;

/// Longest packet believed from a broker: the limit of the cloud node.
pub const PACKET_MAX: usize = 17 * 1024 * 1024;

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// First byte of the four acknowledgements, with the flags that the standard fixes.
pub const PUBACK: u8 = 0x40;
/// See [`PUBACK`].
pub const PUBREC: u8 = 0x50;
/// See [`PUBACK`].
pub const PUBREL: u8 = 0x62;
/// See [`PUBACK`].
pub const PUBCOMP: u8 = 0x70;
const DUP: u8 = 0x08;

/// A CONNECT to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    /// Protocol version.
    pub version: Version,
    /// Client ID.
    pub client_id: &'a str,
    /// Clean session, or clean start.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// Seconds that the session outlives the connection (MQTT 5 only).
    pub session_expiry: u32,
}

/// A packet from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNACK with its return or reason code.
    ConnAck {
        /// The broker kept the session.
        session_present: bool,
        /// 0 is success.
        code: u8,
    },
    /// PUBLISH.
    Publish {
        /// Topic name as bytes.
        topic: &'a [u8],
        /// Quality of service.
        qos: Qos,
        /// 0 at QoS 0.
        packet_id: u16,
        /// Sent before.
        dup: bool,
        /// Message bytes.
        payload: &'a [u8],
    },
    /// One of the four acknowledgements.
    Ack {
        /// [`PUBACK`], [`PUBREC`], [`PUBREL`] or [`PUBCOMP`].
        kind: u8,
        /// Which packet.
        packet_id: u16,
        /// 0 in 3.1.1.
        reason: u8,
    },
    /// SUBACK with the code of its first filter.
    SubAck {
        /// Which SUBSCRIBE.
        packet_id: u16,
        /// Granted QoS, or an error from 0x80 on.
        code: u8,
    },
    /// PINGRESP.
    Pong,
    /// DISCONNECT by the broker.
    Disconnect {
        /// Reason code.
        reason: u8,
    },
    /// Anything else that needs no answer.
    Other,
}

/// The broker sent what is not MQTT. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Remaining length of five bytes, or above [`PACKET_MAX`].
    #[error("the broker sent a packet with an impossible length")]
    Length,
    /// A field ends behind the packet.
    #[error("the broker sent a packet of type {kind} that is cut short")]
    Short {
        /// Packet type, 1 to 15.
        kind: u8,
    },
    /// QoS 3.
    #[error("the broker sent a PUBLISH with QoS 3")]
    Qos,
}

/// Appends a CONNECT.
pub fn put_connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let mut body = Vec::with_capacity(32 + connect.client_id.len());
    put_string(&mut body, "MQTT");
    body.push(if connect.version == Version::V4 { 4 } else { 5 });
    body.push(u8::from(connect.clean) << 1);
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    if connect.version == Version::V5 {
        // Property length 5, then 0x11: Session Expiry Interval.
        body.extend_from_slice(&[5, 0x11]);
        body.extend_from_slice(&connect.session_expiry.to_be_bytes());
    }
    put_string(&mut body, connect.client_id);
    put_packet(out, 0x10, &body);
}

/// Appends a SUBSCRIBE of one filter.
pub fn put_subscribe(out: &mut Vec<u8>, version: Version, packet_id: u16, filter: &str, qos: Qos) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    put_string(&mut body, filter);
    body.push(qos.level());
    put_packet(out, 0x82, &body);
}

/// Appends a PUBLISH and returns where in `out` its packet ID and its payload begin.
pub fn put_publish(out: &mut Vec<u8>, version: Version, topic: &str, qos: Qos, payload: &[u8]) -> (usize, usize) {
    let id_bytes = if qos == Qos::AtMostOnce { 0 } else { 2 };
    let property_bytes = usize::from(version == Version::V5);
    out.push(0x30 | (qos.level() << 1));
    put_length(out, 2 + topic.len() + id_bytes + property_bytes + payload.len());
    put_string(out, topic);
    let id_at = out.len();
    out.resize(id_at + id_bytes + property_bytes, 0);
    let payload_at = out.len();
    out.extend_from_slice(payload);
    (id_at, payload_at)
}

/// Appends an acknowledgement of one of the four kinds.
pub fn put_ack(out: &mut Vec<u8>, kind: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

/// Appends a PINGREQ.
pub fn put_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// Appends a DISCONNECT.
pub fn put_disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xE0, 0]);
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    put_length(out, body.len());
    out.extend_from_slice(body);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("client IDs, topics and filters of ours are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Takes one packet from the front of `bytes`: the packet and its length, or `None` while it is incomplete.
pub fn parse(bytes: &[u8], version: Version) -> Result<Option<(Packet<'_>, usize)>, WireError> {
    let Some((body_at, length)) = parse_length(bytes)? else {
        return Ok(None);
    };
    let Some(body) = bytes.get(body_at..body_at + length) else {
        return Ok(None);
    };
    let packet = parse_body(bytes[0], body, version)?;
    Ok(Some((packet, body_at + length)))
}

/// Where the body begins, and its length.
fn parse_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0_usize;
    for index in 0..4 {
        let Some(byte) = bytes.get(1 + index) else {
            return Ok(None);
        };
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return if length > PACKET_MAX {
                Err(WireError::Length)
            } else {
                Ok(Some((2 + index, length)))
            };
        }
    }
    Err(WireError::Length)
}

fn parse_body(first: u8, body: &[u8], version: Version) -> Result<Packet<'_>, WireError> {
    let kind = first >> 4;
    let short = WireError::Short { kind };
    match kind {
        2 => {
            let [flags, code, ..] = body else { return Err(short) };
            Ok(Packet::ConnAck {
                session_present: flags & 1 == 1,
                code: *code,
            })
        }
        3 => parse_publish(first, body, version),
        4..=7 => {
            let [high, low, rest @ ..] = body else {
                return Err(short);
            };
            let fixed = if kind == 6 { PUBREL } else { first & 0xf0 };
            let packet_id = u16::from_be_bytes([*high, *low]);
            Ok(Packet::Ack {
                kind: fixed,
                packet_id,
                reason: rest.first().copied().unwrap_or(0),
            })
        }
        9 => {
            let [high, low, ..] = body else { return Err(short) };
            let code = *body.last().ok_or(short)?;
            Ok(Packet::SubAck {
                packet_id: u16::from_be_bytes([*high, *low]),
                code,
            })
        }
        13 => Ok(Packet::Pong),
        14 => Ok(Packet::Disconnect {
            reason: body.first().copied().unwrap_or(0),
        }),
        _ => Ok(Packet::Other),
    }
}

fn parse_publish(first: u8, body: &[u8], version: Version) -> Result<Packet<'_>, WireError> {
    let short = WireError::Short { kind: 3 };
    let qos = Qos::from_level((first >> 1) & 3).ok_or(WireError::Qos)?;
    let [high, low, rest @ ..] = body else {
        return Err(short);
    };
    let topic_length = usize::from(u16::from_be_bytes([*high, *low]));
    let (topic, mut rest) = rest.split_at_checked(topic_length).ok_or(short)?;
    let mut packet_id = 0;
    if qos != Qos::AtMostOnce {
        let [high, low, behind @ ..] = rest else {
            return Err(short);
        };
        packet_id = u16::from_be_bytes([*high, *low]);
        rest = behind;
    }
    if version == Version::V5 {
        let (length, at) = parse_property_length(rest).ok_or(short)?;
        rest = rest.get(at + length..).ok_or(short)?;
    }
    Ok(Packet::Publish {
        topic,
        qos,
        packet_id,
        dup: first & DUP != 0,
        payload: rest,
    })
}

/// Length of the properties, and bytes taken by the length itself.
fn parse_property_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0_usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_comes_back_in_both_versions() {
        for version in [Version::V4, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut bytes = Vec::new();
                let (id_at, payload_at) = put_publish(&mut bytes, version, "a/b", qos, &[7; 300]);
                assert_eq!(bytes[payload_at..], [7; 300]);
                let mut packet_id = 0;
                if qos != Qos::AtMostOnce {
                    packet_id = 0x1234;
                    bytes[id_at..id_at + 2].copy_from_slice(&0x1234_u16.to_be_bytes());
                }
                let expected = Packet::Publish {
                    topic: b"a/b",
                    qos,
                    packet_id,
                    dup: false,
                    payload: &[7; 300],
                };
                assert_eq!(parse(&bytes, version), Ok(Some((expected, bytes.len()))));
                for end in 0..bytes.len() {
                    assert_eq!(
                        parse(&bytes[..end], version),
                        Ok(None),
                        "a packet cut at {end} was taken for whole"
                    );
                }
            }
        }
    }

    #[test]
    fn acks_are_told_apart() {
        for kind in [PUBACK, PUBREC, PUBREL, PUBCOMP] {
            let mut bytes = Vec::new();
            put_ack(&mut bytes, kind, 513);
            assert_eq!(
                parse(&bytes, Version::V4),
                Ok(Some((
                    Packet::Ack {
                        kind,
                        packet_id: 513,
                        reason: 0
                    },
                    4
                )))
            );
        }
        let refused = [PUBACK, 3, 2, 1, 0x97];
        let expected = Packet::Ack {
            kind: PUBACK,
            packet_id: 513,
            reason: 0x97,
        };
        assert_eq!(parse(&refused, Version::V5), Ok(Some((expected, 5))));
    }

    /// All two-byte beginnings with short bodies: an answer or an error, never a panic.
    #[test]
    fn hostile_bytes_give_an_error_or_a_packet() {
        for first in 0..=u8::MAX {
            for length in 0..8_u8 {
                for fill in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bytes = vec![first, length];
                    bytes.resize(2 + usize::from(length), fill);
                    for version in [Version::V4, Version::V5] {
                        if let Ok(Some((_, used))) = parse(&bytes, version) {
                            assert_eq!(used, bytes.len());
                        }
                    }
                }
            }
        }
        assert_eq!(
            parse(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], Version::V4),
            Err(WireError::Length)
        );
        assert_eq!(
            parse(&[0x30, 0xff, 0xff, 0xff, 0x7f], Version::V4),
            Err(WireError::Length)
        );
    }
}
