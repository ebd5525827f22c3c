//! The first packet of a connection, looked at before ntex-mqtt takes over.
//!
//! In: the first bytes of a socket. Out: a whole CONNECT of a version that we speak, left in the buffer; or a refusal with the
//! bytes to answer. Exists since ntex-mqtt closes without an answer on an unknown level or a missing client identifier, and
//! accepts contradicting flags. Turns a CONNECT of MQTT 3.1 (`MQIsdp`, level 3) into one of 3.1.1, which differs in the name only.

use std::rc::Rc;

use ntex::codec::Decoder;
use ntex::util::BytesMut;

use super::fields::{take_field, varint};
use super::frames::Fault;
use super::property_block::{self, Place};
use super::traffic::Traffic;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preface {
    /// A whole CONNECT stands at the front of the buffer.
    Connect,
    /// Not for us: answer with the bytes, if any, and close.
    Refuse {
        answer: &'static [u8],
        reason: &'static str,
    },
}

/// Reads a [`Preface`] without taking the CONNECT out of the buffer.
pub(super) struct PrefaceCodec {
    pub(super) packet_max: u32,
    pub(super) traffic: Rc<Traffic>,
}

/// Largest CONNECT: its five fields have at most 64 KiB each, and user properties want some room.
const CONNECT_MAX: u32 = 512 << 10;

const V3_BAD_LEVEL: &[u8] = &[0x20, 2, 0, 1];
const V3_BAD_CLIENT_ID: &[u8] = &[0x20, 2, 0, 2];
const V5_MALFORMED: &[u8] = &[0x20, 3, 0, 0x81, 0];
const V5_PROTOCOL_ERROR: &[u8] = &[0x20, 3, 0, 0x82, 0];
const V5_TOO_LARGE: &[u8] = &[0x20, 3, 0, 0x95, 0];

const FLAG_RESERVED: u8 = 0x01;
const FLAG_CLEAN: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const FLAGS_WILL_QOS: u8 = 0x18;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USER: u8 = 0x80;

const fn refuse(answer: &'static [u8], reason: &'static str) -> Preface {
    Preface::Refuse { answer, reason }
}

impl Decoder for PrefaceCodec {
    type Item = Preface;
    type Error = std::convert::Infallible;

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Preface>, Self::Error> {
        // Before it is changed into one of 3.1.1.
        let bytes = packet_len(buffer);
        let preface = look(buffer, self.packet_max.min(CONNECT_MAX));
        if preface == Some(Preface::Connect) {
            self.traffic.receive(bytes);
            self.traffic.connects.increment(1);
        }
        Ok(preface)
    }
}

/// Length of the packet that the buffer begins with; 0 while it cannot be told.
fn packet_len(buffer: &[u8]) -> usize {
    let remaining = buffer.get(1..).and_then(|rest| varint(rest).ok()?);
    remaining.map_or(0, |(remaining, used)| 1 + used + remaining as usize)
}

fn look(buffer: &mut BytesMut, max: u32) -> Option<Preface> {
    let &first = buffer.first()?;
    if first != 0x10 {
        // [MQTT5-3.1.0-1]
        return Some(refuse(&[], "first packet is not a CONNECT"));
    }
    let (remaining, used) = match varint(&buffer[1..]) {
        Ok(known) => known?,
        Err(_) => return Some(refuse(&[], "malformed CONNECT")),
    };
    let body = 1 + used;
    let (name, rest) = take_field(&buffer[body..])?;
    let legacy = match name {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Some(refuse(&[], "unknown protocol name")),
    };
    let &level = rest.first()?;
    if (legacy && level != 3) || (!legacy && level != 4 && level != 5) {
        // [MQTT3-3.1.2-2]
        return Some(refuse(V3_BAD_LEVEL, "unknown protocol level"));
    }
    let v5 = level == 5;
    if remaining > max {
        return Some(refuse(if v5 { V5_TOO_LARGE } else { &[] }, "CONNECT is too large"));
    }
    if buffer.len() < body + remaining as usize {
        return None;
    }
    let packet = &buffer[body..body + remaining as usize];
    if let Err(refusal) = check(&packet[name.len() + 2..], v5) {
        return Some(refusal);
    }
    if legacy {
        modernise(buffer, body, remaining);
    }
    Some(Preface::Connect)
}

/// Flags and client identifier; `rest` begins with the level.
fn check(rest: &[u8], v5: bool) -> Result<(), Preface> {
    let malformed = || refuse(if v5 { V5_MALFORMED } else { &[] }, "malformed CONNECT");
    let &flags = rest.get(1).ok_or_else(malformed)?;
    let will_only = FLAGS_WILL_QOS | FLAG_WILL_RETAIN;
    let contradicting = flags & FLAG_RESERVED != 0
        || (flags & FLAG_WILL == 0 && flags & will_only != 0)
        || flags & FLAGS_WILL_QOS == FLAGS_WILL_QOS
        || (!v5 && flags & FLAG_PASSWORD != 0 && flags & FLAG_USER == 0);
    if contradicting {
        return Err(malformed()); // [MQTT5-3.1.2-3], [MQTT5-3.1.2-11], [MQTT5-3.1.2-12], [MQTT5-3.1.2-13], [MQTT3-3.1.2-22]
    }
    let rest = rest.get(4..).ok_or_else(malformed)?;
    if v5 {
        return check_v5(flags, rest);
    }
    let (client_id, _) = take_field(rest).ok_or_else(malformed)?;
    if client_id.is_empty() && flags & FLAG_CLEAN == 0 {
        return Err(refuse(
            V3_BAD_CLIENT_ID,
            "empty client identifier with a session to keep",
        )); // [MQTT3-3.1.3-8]
    }
    Ok(())
}

/// Properties of the CONNECT and of the will; `rest` follows the keep-alive.
fn check_v5(flags: u8, rest: &[u8]) -> Result<(), Preface> {
    let refusal = |fault: Fault| {
        if fault.reason == 0x82 {
            refuse(V5_PROTOCOL_ERROR, "protocol error in CONNECT")
        } else {
            refuse(V5_MALFORMED, "malformed CONNECT")
        }
    };
    let rest = property_block::check(Place::Connect, rest).map_err(refusal)?;
    let (_, rest) = take_field(rest).ok_or(refuse(V5_MALFORMED, "malformed CONNECT"))?;
    if flags & FLAG_WILL != 0 {
        property_block::check(Place::Will, rest).map_err(refusal)?;
    }
    Ok(())
}

fn modernise(buffer: &mut BytesMut, body: usize, remaining: u32) {
    let mut packet = vec![0x10];
    let mut length = remaining - 2;
    loop {
        let byte = (length & 0x7F) as u8;
        length >>= 7;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(b"\x00\x04MQTT\x04");
    packet.extend_from_slice(&buffer[body + 9..]);
    buffer.clear();
    buffer.extend_from_slice(&packet);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(bytes: &[u8]) -> (Option<Preface>, Vec<u8>) {
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(bytes);
        let preface = look(&mut buffer, 1000);
        (preface, buffer.to_vec())
    }

    const V3: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a";

    #[test]
    fn a_connect_is_seen_only_when_it_is_whole() {
        for cut in 0..V3.len() {
            assert_eq!(see(&V3[..cut]).0, None, "{cut}");
        }
        assert_eq!(see(V3), (Some(Preface::Connect), V3.to_vec()));
    }

    #[test]
    fn what_cannot_be_served_gets_the_answer_of_its_version() {
        let answer = |bytes: &[u8]| match see(bytes).0 {
            Some(Preface::Refuse { answer, .. }) => Some(answer),
            _ => None,
        };
        assert_eq!(answer(b"\x30\x00"), Some(&[][..]));
        assert_eq!(answer(b"GET / HTTP/1.1\r\n\r\n"), Some(&[][..]));
        assert_eq!(
            answer(b"\x10\x0D\x00\x04MQTT\x06\x02\x00\x3C\x00\x01a"),
            Some(V3_BAD_LEVEL)
        );
        assert_eq!(answer(b"\x10\x0D\x00\x04MQXX\x04\x02\x00\x3C\x00\x01a"), Some(&[][..]));
        assert_eq!(
            answer(b"\x10\x0C\x00\x04MQTT\x04\x00\x00\x3C\x00\x00"),
            Some(V3_BAD_CLIENT_ID)
        );
        assert_eq!(answer(b"\x10\x0D\x00\x04MQTT\x04\x03\x00\x3C\x00\x01a"), Some(&[][..]));
        assert_eq!(
            answer(b"\x10\x0E\x00\x04MQTT\x05\x22\x00\x3C\x00\x00\x01a"),
            Some(V5_MALFORMED)
        );
        let zero_receive_maximum = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3C\x03\x21\x00\x00\x00\x01a";
        assert_eq!(answer(zero_receive_maximum), Some(V5_PROTOCOL_ERROR));
        assert_eq!(answer(b"\x10\xFF\xFF\x03\x00\x04MQTT\x05"), Some(V5_TOO_LARGE));
        assert_eq!(answer(b"\x10\x0D\x00\x04MQTT\x04\x42\x00\x3C\x00\x01a"), Some(&[][..]));
    }

    #[test]
    fn mqtt_3_1_is_read_as_3_1_1() {
        let (preface, bytes) = see(b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01aREST");
        assert_eq!(preface, Some(Preface::Connect));
        assert_eq!(bytes, [V3, b"REST"].concat());
    }
}
