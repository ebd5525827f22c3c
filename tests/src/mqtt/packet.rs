//! MQTT packets as bytes: what a client sends, and what a server answers.
//!
//! In: plain values. Out: bytes, and back. Properties stay encoded; `property_u32` looks one up.
//! Both versions share the types; a reason that 3.1.1 does not have is 0. Holds no state and does no I/O.

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// Both versions, for tests that must hold for each.
    pub const BOTH: [Self; 2] = [Self::V3, Self::V5];
}

/// A will.
#[derive(Debug, Clone)]
pub struct Will {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
}

/// What CONNECT says.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Protocol version.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Clean Session or Clean Start.
    pub clean: bool,
    /// Session Expiry Interval (5.0 only).
    pub session_expiry: u32,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Receive Maximum (5.0 only).
    pub receive_maximum: Option<u16>,
    /// The will.
    pub will: Option<Will>,
}

impl ConnectOptions {
    /// A session that ends with its connection.
    #[must_use]
    pub fn clean(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean: true,
            session_expiry: 0,
            keep_alive: 0,
            receive_maximum: None,
            will: None,
        }
    }

    /// A session that outlives its connection.
    #[must_use]
    pub fn persistent(version: Version, client_id: &str) -> Self {
        Self {
            clean: false,
            session_expiry: 86_400,
            ..Self::clean(version, client_id)
        }
    }
}

/// A PUBLISH, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: u8,
    /// Retain flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Packet ID; 0 at QoS 0.
    pub id: u16,
    /// Encoded properties (5.0 only).
    pub properties: Vec<u8>,
}

impl Publish {
    /// A message at QoS 0, not retained.
    #[must_use]
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos: 0,
            retain: false,
            dup: false,
            id: 0,
            properties: Vec::new(),
        }
    }

    /// Sets the QoS.
    #[must_use]
    pub fn qos(mut self, qos: u8) -> Self {
        self.qos = qos;
        self
    }

    /// Sets the Packet Identifier.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    /// Sets RETAIN.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sets DUP.
    #[must_use]
    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    /// Adds a property (5.0 only).
    #[must_use]
    pub fn property(mut self, property: impl AsRef<[u8]>) -> Self {
        self.properties.extend_from_slice(property.as_ref());
        self
    }
}

/// The four acknowledgements, by packet type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    /// PUBACK.
    PubAck = 4,
    /// PUBREC.
    PubRec = 5,
    /// PUBREL.
    PubRel = 6,
    /// PUBCOMP.
    PubComp = 7,
}

/// A packet from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK.
    ConnAck {
        /// Session Present.
        session_present: bool,
        /// Return code or reason code.
        reason: u8,
        /// Encoded properties.
        properties: Vec<u8>,
    },
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which one.
        kind: AckKind,
        /// Packet ID.
        id: u16,
        /// Reason code.
        reason: u8,
    },
    /// SUBACK.
    SubAck {
        /// Packet ID.
        id: u16,
        /// One code per filter.
        reasons: Vec<u8>,
    },
    /// UNSUBACK.
    UnsubAck {
        /// Packet ID.
        id: u16,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT (5.0 only).
    Disconnect {
        /// Reason code.
        reason: u8,
    },
}

/// Encoders of what a client sends.
pub mod encode {
    use super::{AckKind, ConnectOptions, Publish, Version};

    fn text(out: &mut Vec<u8>, bytes: &[u8]) {
        let len = u16::try_from(bytes.len()).expect("test strings are short");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(bytes);
    }

    fn varint(out: &mut Vec<u8>, mut n: usize) {
        loop {
            let low = (n % 128) as u8;
            n /= 128;
            out.push(if n > 0 { low | 0x80 } else { low });
            if n == 0 {
                return;
            }
        }
    }

    fn block(out: &mut Vec<u8>, version: Version, properties: &[u8]) {
        if version == Version::V5 {
            varint(out, properties.len());
            out.extend_from_slice(properties);
        }
    }

    fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        varint(&mut out, body.len());
        out.extend_from_slice(body);
        out
    }

    /// CONNECT.
    #[must_use]
    pub fn connect(options: &ConnectOptions) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        body.push(if options.version == Version::V3 { 4 } else { 5 });
        let will = options
            .will
            .as_ref()
            .map_or(0, |w| 0x04 | (w.qos << 3) | (u8::from(w.retain) << 5));
        body.push(will | (u8::from(options.clean) << 1));
        body.extend_from_slice(&options.keep_alive.to_be_bytes());
        let mut properties = Vec::new();
        if options.session_expiry > 0 {
            properties.push(0x11);
            properties.extend_from_slice(&options.session_expiry.to_be_bytes());
        }
        if let Some(maximum) = options.receive_maximum {
            properties.push(0x21);
            properties.extend_from_slice(&maximum.to_be_bytes());
        }
        block(&mut body, options.version, &properties);
        text(&mut body, options.client_id.as_bytes());
        if let Some(will) = &options.will {
            block(&mut body, options.version, &[]);
            text(&mut body, will.topic.as_bytes());
            text(&mut body, &will.payload);
        }
        packet(0x10, &body)
    }

    /// PUBLISH.
    #[must_use]
    pub fn publish(version: Version, message: &Publish) -> Vec<u8> {
        let mut body = Vec::with_capacity(message.payload.len() + message.topic.len() + 8);
        text(&mut body, message.topic.as_bytes());
        if message.qos > 0 {
            body.extend_from_slice(&message.id.to_be_bytes());
        }
        block(&mut body, version, &message.properties);
        body.extend_from_slice(&message.payload);
        packet(
            0x30 | (u8::from(message.dup) << 3) | (message.qos << 1) | u8::from(message.retain),
            &body,
        )
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP with reason 0.
    #[must_use]
    pub fn ack(kind: AckKind, id: u16) -> Vec<u8> {
        let flags = if kind == AckKind::PubRel { 2 } else { 0 };
        packet(((kind as u8) << 4) | flags, &id.to_be_bytes())
    }

    /// SUBSCRIBE to `filters` with their options byte (the QoS in 3.1.1).
    #[must_use]
    pub fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        block(&mut body, version, &[]);
        for (filter, options) in filters {
            text(&mut body, filter.as_bytes());
            body.push(*options);
        }
        packet(0x82, &body)
    }

    /// UNSUBSCRIBE.
    #[must_use]
    pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
        let mut body = id.to_be_bytes().to_vec();
        block(&mut body, version, &[]);
        for filter in filters {
            text(&mut body, filter.as_bytes());
        }
        packet(0xA2, &body)
    }

    /// PINGREQ.
    #[must_use]
    pub fn ping() -> Vec<u8> {
        vec![0xC0, 0]
    }

    /// DISCONNECT with reason 0.
    #[must_use]
    pub fn disconnect() -> Vec<u8> {
        vec![0xE0, 0]
    }
}

/// What a server must not send; the text says which rule it broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads one packet from the front of `bytes`: the packet and its length, or `None` while it is incomplete.
pub(super) fn decode(version: Version, bytes: &[u8]) -> Result<Option<(Packet, usize)>, Malformed> {
    let Some((len, head)) = remaining_length(bytes)? else {
        return Ok(None);
    };
    let total = head + len;
    let Some(body) = bytes.get(head..total) else {
        return Ok(None);
    };
    let packet = decode_body(version, bytes[0], Cursor(body))?;
    Ok(Some((packet, total)))
}

fn decode_body(version: Version, first: u8, mut body: Cursor<'_>) -> Result<Packet, Malformed> {
    Ok(match first >> 4 {
        2 => {
            let flags = body.u8()?;
            let reason = body.u8()?;
            let properties = body.block(version)?;
            Packet::ConnAck {
                session_present: flags & 1 == 1,
                reason,
                properties,
            }
        }
        3 => Packet::Publish(publish(version, first, body)?),
        4 => ack(AckKind::PubAck, body)?,
        5 => ack(AckKind::PubRec, body)?,
        6 => ack(AckKind::PubRel, body)?,
        7 => ack(AckKind::PubComp, body)?,
        9 => {
            let id = body.u16()?;
            body.block(version)?;
            Packet::SubAck {
                id,
                reasons: body.0.to_vec(),
            }
        }
        11 => Packet::UnsubAck { id: body.u16()? },
        13 => Packet::PingResp,
        14 => Packet::Disconnect {
            reason: body.u8().unwrap_or(0),
        },
        _ => return Err(Malformed("a server never sends this packet type")),
    })
}

fn publish(version: Version, first: u8, mut body: Cursor<'_>) -> Result<Publish, Malformed> {
    let qos = (first >> 1) & 3;
    let len = usize::from(body.u16()?);
    let topic = String::from_utf8(body.take(len)?.to_vec()).map_err(|_| Malformed("topic is not UTF-8"))?;
    let id = if qos > 0 { body.u16()? } else { 0 };
    let properties = body.block(version)?;
    let (dup, retain) = (first & 8 != 0, first & 1 != 0);
    Ok(Publish {
        topic,
        payload: body.0.to_vec(),
        qos,
        retain,
        dup,
        id,
        properties,
    })
}

fn ack(kind: AckKind, mut body: Cursor<'_>) -> Result<Packet, Malformed> {
    Ok(Packet::Ack {
        kind,
        id: body.u16()?,
        reason: body.u8().unwrap_or(0),
    })
}

fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut len = 0;
    for at in 0..4 {
        let Some(byte) = bytes.get(1 + at) else {
            return Ok(None);
        };
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((len, 2 + at)));
        }
    }
    Err(Malformed("remaining length has more than four bytes"))
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed("packet ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn block(&mut self, version: Version) -> Result<Vec<u8>, Malformed> {
        if version == Version::V3 {
            return Ok(Vec::new());
        }
        let mut len = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            len |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(self.take(len)?.to_vec());
            }
        }
        Err(Malformed("property length has more than four bytes"))
    }
}

/// Value of the numeric property `wanted` in an encoded CONNACK block, if it is there.
pub(super) fn property_u32(properties: &[u8], wanted: u8) -> Option<u32> {
    let mut rest = Cursor(properties);
    while let Ok(key) = rest.u8() {
        let value = match key {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => u32::from(rest.u8().ok()?),
            0x13 | 0x21 | 0x22 => u32::from(rest.u16().ok()?),
            0x11 | 0x27 => (u32::from(rest.u16().ok()?) << 16) | u32::from(rest.u16().ok()?),
            0x26 => {
                for _ in 0..2 {
                    let len = usize::from(rest.u16().ok()?);
                    rest.take(len).ok()?;
                }
                0
            }
            _ => {
                let len = usize::from(rest.u16().ok()?);
                rest.take(len).ok()?;
                0
            }
        };
        if key == wanted {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Malformed, Packet, Publish, Version, decode, encode, property_u32};

    #[test]
    fn a_publish_comes_back_as_it_was_sent() {
        for version in Version::BOTH {
            let message = Publish {
                topic: "a/b".into(),
                payload: vec![7; 300],
                qos: 2,
                retain: true,
                dup: true,
                id: 513,
                properties: if version == Version::V5 {
                    vec![0x01, 0x01]
                } else {
                    Vec::new()
                },
            };
            let bytes = encode::publish(version, &message);
            assert_eq!(decode(version, &bytes[..bytes.len() - 1]), Ok(None));
            assert_eq!(
                decode(version, &bytes),
                Ok(Some((Packet::Publish(message), bytes.len())))
            );
        }
    }

    #[test]
    fn what_a_server_must_not_send_is_an_error() {
        assert!(decode(Version::V3, &[0x10, 0]).is_err());
        assert_eq!(
            decode(Version::V5, &[0x40, 1, 0]),
            Err(Malformed("packet ends too early"))
        );
        assert!(decode(Version::V3, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
    }

    #[test]
    fn a_numeric_property_is_found_behind_others() {
        let block = [
            0x12, 0, 1, b'x', 0x26, 0, 1, b'k', 0, 1, b'v', 0x21, 0x04, 0x00, 0x27, 0, 32, 0, 0,
        ];
        assert_eq!(property_u32(&block, 0x21), Some(1024));
        assert_eq!(property_u32(&block, 0x27), Some(2 * 1024 * 1024));
        assert_eq!(property_u32(&block, 0x11), None);
    }
}
