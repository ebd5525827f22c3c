//! What a server sends, read strictly: each packet must be well formed to the last bit.
//!
//! In: one whole packet. Out: its fields with all properties, or the rule that it broke. Stricter than a client needs to be: a test that
//! reads an answer proves its form as well.

use super::packet::{AckKind, Malformed, Version};

/// A property: its identifier and its value as encoded (a string or binary value without its length).
pub type Property = (u8, Vec<u8>);

/// A PUBLISH from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Topic Name; empty when only an alias is given.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// DUP.
    pub dup: bool,
    /// Packet Identifier; 0 at QoS 0.
    pub id: u16,
    /// Properties in order.
    pub properties: Vec<Property>,
}

impl Delivery {
    /// Value of the first property `id`.
    #[must_use]
    pub fn property(&self, id: u8) -> Option<&[u8]> {
        value_of(&self.properties, id)
    }

    /// Payload as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A packet from the server. A reason that 3.1.1 does not have is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// CONNACK.
    ConnAck {
        /// Session Present.
        session_present: bool,
        /// Return code or reason code.
        reason: u8,
        /// Properties in order.
        properties: Vec<Property>,
    },
    /// PUBLISH.
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which one.
        kind: AckKind,
        /// Packet Identifier.
        id: u16,
        /// Reason code.
        reason: u8,
        /// Properties in order.
        properties: Vec<Property>,
    },
    /// SUBACK.
    SubAck {
        /// Packet Identifier.
        id: u16,
        /// One code per filter.
        reasons: Vec<u8>,
        /// Properties in order.
        properties: Vec<Property>,
    },
    /// UNSUBACK.
    UnsubAck {
        /// Packet Identifier.
        id: u16,
        /// One code per filter (5.0 only).
        reasons: Vec<u8>,
        /// Properties in order.
        properties: Vec<Property>,
    },
    /// PINGRESP.
    PingResp,
    /// DISCONNECT (5.0 only).
    Disconnect {
        /// Reason code.
        reason: u8,
        /// Properties in order.
        properties: Vec<Property>,
    },
    /// AUTH (5.0 only).
    Auth {
        /// Reason code.
        reason: u8,
        /// Properties in order.
        properties: Vec<Property>,
    },
}

/// Value of the first property `id` in a list.
#[must_use]
pub fn value_of(properties: &[Property], id: u8) -> Option<&[u8]> {
    let found = properties.iter().find(|(own, _)| *own == id);
    found.map(|(_, value)| value.as_slice())
}

/// Reads one whole packet whose body is `body`.
pub(super) fn read(version: Version, first: u8, body: &[u8]) -> Result<Answer, Malformed> {
    let mut rest = Rest(body);
    let flags = first & 0x0F;
    let demanded = if first >> 4 == 6 { 2 } else { 0 };
    if first >> 4 != 3 && flags != demanded {
        return Err(Malformed("reserved flags are set"));
    }
    let answer = match first >> 4 {
        2 => conn_ack(version, &mut rest)?,
        3 => Answer::Publish(publish(version, flags, &mut rest)?),
        4 => ack(version, AckKind::PubAck, &mut rest)?,
        5 => ack(version, AckKind::PubRec, &mut rest)?,
        6 => ack(version, AckKind::PubRel, &mut rest)?,
        7 => ack(version, AckKind::PubComp, &mut rest)?,
        9 => {
            let (id, properties) = (rest.id()?, rest.properties(version, &[0x1F, 0x26])?);
            let reasons = rest.all().to_vec();
            Answer::SubAck {
                id,
                reasons,
                properties,
            }
        }
        11 => {
            let (id, properties) = (rest.id()?, rest.properties(version, &[0x1F, 0x26])?);
            let reasons = if version == Version::V5 {
                rest.all().to_vec()
            } else {
                Vec::new()
            };
            Answer::UnsubAck {
                id,
                reasons,
                properties,
            }
        }
        13 => Answer::PingResp,
        14 if version == Version::V5 => {
            let (reason, properties) = rest.reason(&[0x1F, 0x26, 0x1C])?;
            Answer::Disconnect { reason, properties }
        }
        15 if version == Version::V5 => {
            let (reason, properties) = rest.reason(&[0x15, 0x16, 0x1F, 0x26])?;
            Answer::Auth { reason, properties }
        }
        _ => return Err(Malformed("a server never sends this packet type")),
    };
    if rest.0.is_empty() {
        Ok(answer)
    } else {
        Err(Malformed("bytes are left over"))
    }
}

const CONNACK_PROPERTIES: [u8; 17] = [
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A,
];
const PUBLISH_PROPERTIES: [u8; 8] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];

fn conn_ack(version: Version, rest: &mut Rest<'_>) -> Result<Answer, Malformed> {
    let flags = rest.u8()?;
    if flags > 1 {
        return Err(Malformed("reserved bits of the Connect Acknowledge Flags are set"));
    }
    let reason = rest.u8()?;
    let properties = rest.properties(version, &CONNACK_PROPERTIES)?;
    Ok(Answer::ConnAck {
        session_present: flags == 1,
        reason,
        properties,
    })
}

fn publish(version: Version, flags: u8, rest: &mut Rest<'_>) -> Result<Delivery, Malformed> {
    let qos = (flags >> 1) & 3;
    let dup = flags & 8 != 0;
    if qos == 3 || (qos == 0 && dup) {
        return Err(Malformed("QoS 3, or DUP at QoS 0"));
    }
    let topic = String::from_utf8(rest.text()?.to_vec()).map_err(|_| Malformed("the topic is not UTF-8"))?;
    if topic.contains(['#', '+', '\0']) {
        return Err(Malformed("the topic has a wildcard or U+0000"));
    }
    let id = if qos > 0 { rest.id()? } else { 0 };
    let properties = rest.properties(version, &PUBLISH_PROPERTIES)?;
    if topic.is_empty() && value_of(&properties, 0x23).is_none() {
        return Err(Malformed("neither topic nor alias"));
    }
    Ok(Delivery {
        topic,
        payload: rest.all().to_vec(),
        qos,
        retain: flags & 1 != 0,
        dup,
        id,
        properties,
    })
}

fn ack(version: Version, kind: AckKind, rest: &mut Rest<'_>) -> Result<Answer, Malformed> {
    let id = rest.id()?;
    let (reason, properties) = match version {
        Version::V3 => (0, Vec::new()),
        Version::V5 => rest.reason(&[0x1F, 0x26])?,
    };
    Ok(Answer::Ack {
        kind,
        id,
        reason,
        properties,
    })
}

/// What of the body is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(n)
            .ok_or(Malformed("the packet ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))
    }

    fn id(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        match u16::from_be_bytes([bytes[0], bytes[1]]) {
            0 => Err(Malformed("the Packet Identifier is 0")),
            id => Ok(id),
        }
    }

    /// A reason code and properties at the end of a packet, either of which may be left out.
    fn reason(&mut self, allowed: &[u8]) -> Result<(u8, Vec<Property>), Malformed> {
        if self.0.is_empty() {
            return Ok((0, Vec::new()));
        }
        let reason = self.u8()?;
        if self.0.is_empty() {
            return Ok((reason, Vec::new()));
        }
        Ok((reason, self.properties(Version::V5, allowed)?))
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(Malformed("a variable byte integer has more bytes than it needs"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(Malformed("a variable byte integer has more than four bytes"))
    }

    fn properties(&mut self, version: Version, allowed: &[u8]) -> Result<Vec<Property>, Malformed> {
        let mut list: Vec<Property> = Vec::new();
        if version == Version::V3 {
            return Ok(list);
        }
        let len = self.varint()?;
        let mut rest = Rest(self.take(len)?);
        while !rest.0.is_empty() {
            let id = rest.u8()?;
            if !allowed.contains(&id) {
                return Err(Malformed("a property that this packet does not allow"));
            }
            if ![0x26, 0x0B].contains(&id) && value_of(&list, id).is_some() {
                return Err(Malformed("a property comes twice"));
            }
            list.push((id, rest.value(id)?));
        }
        Ok(list)
    }

    fn value(&mut self, id: u8) -> Result<Vec<u8>, Malformed> {
        Ok(match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => self.take(1)?.to_vec(),
            0x13 | 0x21 | 0x22 | 0x23 => self.take(2)?.to_vec(),
            0x02 | 0x11 | 0x18 | 0x27 => self.take(4)?.to_vec(),
            0x0B => u32::try_from(self.varint()?).map_or_else(|_| Vec::new(), |id| id.to_be_bytes().to_vec()),
            0x26 => {
                let whole = self.0;
                self.text()?;
                self.text()?;
                whole[..whole.len() - self.0.len()].to_vec()
            }
            0x09 | 0x16 => self.text()?.to_vec(),
            _ => {
                let text = self.text()?;
                if std::str::from_utf8(text).is_err() {
                    return Err(Malformed("a string property is not UTF-8"));
                }
                text.to_vec()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, read, value_of};
    use crate::mqtt::packet::{Malformed, Version};
    use crate::mqtt::wire::{hex, properties, property};

    #[test]
    fn a_connack_is_read_with_its_properties() {
        let section = properties(&[property::receive_maximum(7), property::reason_string("why")]);
        let body = [vec![0, 0x85], section].concat();
        let Ok(Answer::ConnAck { reason, properties, .. }) = read(Version::V5, 0x20, &body) else {
            panic!("a CONNACK");
        };
        assert_eq!(reason, 0x85);
        assert_eq!(value_of(&properties, 0x1F), Some(&b"why"[..]));
        assert_eq!(value_of(&properties, 0x21), Some(&[0, 7][..]));
    }

    #[test]
    fn what_is_not_exactly_right_is_refused() {
        let wrong = |version, bytes: &str| read(version, hex(bytes)[0], &hex(bytes)[1..]);
        assert_eq!(wrong(Version::V3, "21 0000"), Err(Malformed("reserved flags are set")));
        assert_eq!(wrong(Version::V3, "20 0000 00"), Err(Malformed("bytes are left over")));
        assert_eq!(
            wrong(Version::V3, "40 0000"),
            Err(Malformed("the Packet Identifier is 0"))
        );
        assert_eq!(
            wrong(Version::V5, "40 0001 00 03 230001"),
            Err(Malformed("a property that this packet does not allow"))
        );
        assert_eq!(
            wrong(Version::V5, "e0 00 8000"),
            Err(Malformed("a variable byte integer has more bytes than it needs"))
        );
        assert!(wrong(Version::V3, "e0").is_err());
    }
}
