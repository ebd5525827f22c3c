//! Checks a property block of MQTT 5 from a client, before ntex-mqtt decodes it.
//!
//! In: the bytes of the block and the packet that it belongs to. Out: nothing, or the reason that the standard names: ntex-mqtt
//! has one error for all of unknown, repeated and zero, and closes without telling them apart. Nothing is stored.

use super::frames::{Fault, take_field, varint};

/// Packets that a client sends, as bits, so that a property can name those it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect = 1,
    Will = 2,
    Publish = 4,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack = 8,
    Subscribe = 16,
    Unsubscribe = 32,
    Disconnect = 64,
    Auth = 128,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Bool,
    U16,
    /// Zero is a protocol error.
    U16NotZero,
    TopicAlias,
    U32,
    U32NotZero,
    /// A variable byte integer that may not be 0.
    Varint,
    Text,
    Binary,
    Pair,
}

const CONNECT: u8 = Place::Connect as u8;
const WILL: u8 = Place::Will as u8;
const PUBLISH: u8 = Place::Publish as u8;
const ACK: u8 = Place::Ack as u8;
const SUBSCRIBE: u8 = Place::Subscribe as u8;
const UNSUBSCRIBE: u8 = Place::Unsubscribe as u8;
const DISCONNECT: u8 = Place::Disconnect as u8;
const AUTH: u8 = Place::Auth as u8;

/// Table 2-4 of the standard, without what only a server sends. A SUBSCRIBE and a PUBLISH may have the identifier 0x0B; that a
/// client's PUBLISH may not is a protocol error of its own.
fn describe(id: u8) -> Option<(Kind, u8)> {
    Some(match id {
        0x01 => (Kind::Bool, PUBLISH | WILL),
        0x02 => (Kind::U32, PUBLISH | WILL),
        0x03 | 0x08 => (Kind::Text, PUBLISH | WILL),
        0x09 => (Kind::Binary, PUBLISH | WILL),
        0x0B => (Kind::Varint, PUBLISH | SUBSCRIBE),
        0x11 => (Kind::U32, CONNECT | DISCONNECT),
        0x15 => (Kind::Text, CONNECT | AUTH),
        0x16 => (Kind::Binary, CONNECT | AUTH),
        0x17 | 0x19 => (Kind::Bool, CONNECT),
        0x18 => (Kind::U32, WILL),
        0x1F => (Kind::Text, ACK | DISCONNECT | AUTH),
        0x21 => (Kind::U16NotZero, CONNECT),
        0x22 => (Kind::U16, CONNECT),
        0x23 => (Kind::TopicAlias, PUBLISH),
        0x26 => (
            Kind::Pair,
            CONNECT | WILL | PUBLISH | ACK | SUBSCRIBE | UNSUBSCRIBE | DISCONNECT | AUTH,
        ),
        0x27 => (Kind::U32NotZero, CONNECT),
        _ => return None,
    })
}

const CUT_OFF: Fault = Fault::malformed("property is cut off");
const USER_PROPERTY: u8 = 0x26;

/// Checks the block at the front of `bytes`, its length included, and returns what follows it.
pub(super) fn check(place: Place, bytes: &[u8]) -> Result<&[u8], Fault> {
    let (length, used) = varint(bytes)?.ok_or(CUT_OFF)?;
    let (mut block, after) = bytes[used..].split_at_checked(length as usize).ok_or(CUT_OFF)?;
    let mut seen = 0u64;
    while let Some((&id, rest)) = block.split_first() {
        let (kind, places) = describe(id).ok_or(Fault::malformed("unknown property"))?;
        if places & place as u8 == 0 {
            return Err(Fault::malformed("property of another packet")); // [MQTT5-2.2.2.2]
        }
        if id != USER_PROPERTY && seen & 1 << id != 0 {
            return Err(Fault::protocol("property is repeated"));
        }
        seen |= 1 << id;
        block = skip(kind, rest)?;
    }
    Ok(after)
}

fn skip(kind: Kind, bytes: &[u8]) -> Result<&[u8], Fault> {
    const ZERO: Fault = Fault::protocol("property may not be 0");
    let fixed = |length: usize| bytes.split_at_checked(length).ok_or(CUT_OFF);
    let not_zero = |length: usize, fault: Fault| {
        let (value, rest) = fixed(length)?;
        if value.iter().all(|&byte| byte == 0) {
            Err(fault)
        } else {
            Ok(rest)
        }
    };
    match kind {
        Kind::Bool => match bytes.split_first().ok_or(CUT_OFF)? {
            (0 | 1, rest) => Ok(rest),
            _ => Err(Fault::protocol("property is neither 0 nor 1")),
        },
        Kind::U16 => fixed(2).map(|(_, rest)| rest),
        Kind::U16NotZero => not_zero(2, ZERO),
        Kind::TopicAlias => not_zero(
            2,
            Fault {
                reason: 0x94,
                text: "topic alias 0",
            },
        ), // [MQTT5-3.3.2-8]
        Kind::U32 => fixed(4).map(|(_, rest)| rest),
        Kind::U32NotZero => not_zero(4, ZERO),
        Kind::Varint => match varint(bytes)?.ok_or(CUT_OFF)? {
            (0, _) => Err(ZERO),
            (_, used) => Ok(&bytes[used..]),
        },
        Kind::Text => skip_text(bytes),
        Kind::Binary => take_field(bytes).map(|(_, rest)| rest).ok_or(CUT_OFF),
        Kind::Pair => skip_text(skip_text(bytes)?),
    }
}

/// [MQTT5-1.5.4-1], [MQTT5-1.5.4-2]
fn skip_text(bytes: &[u8]) -> Result<&[u8], Fault> {
    let (text, rest) = take_field(bytes).ok_or(CUT_OFF)?;
    if text.contains(&0) || std::str::from_utf8(text).is_err() {
        return Err(Fault::malformed("property is not UTF-8 text"));
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(place: Place, block: &[u8]) -> Option<u8> {
        let bytes = [&[block.len() as u8], block].concat();
        check(place, &bytes).err().map(|fault| fault.reason)
    }

    #[test]
    fn each_mistake_has_the_reason_of_the_standard() {
        let table: &[(Place, &[u8], Option<u8>)] = &[
            (Place::Publish, &[], None),
            (Place::Publish, b"\x01\x01\x02\x00\x00\x00\x00\x23\x00\x01", None),
            (Place::Publish, b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01b", None),
            (Place::Publish, b"\x7F", Some(0x81)),
            (Place::Publish, b"\x11\x00\x00\x00\x01", Some(0x81)),
            (Place::Publish, b"\x01\x01\x01\x01", Some(0x82)),
            (Place::Publish, b"\x01\x02", Some(0x82)),
            (Place::Publish, b"\x23\x00\x00", Some(0x94)),
            (Place::Publish, b"\x23\x00", Some(0x81)),
            (Place::Publish, b"\x03\x00\x02\xC3\x28", Some(0x81)),
            (Place::Publish, b"\x03\x00\x01\x00", Some(0x81)),
            (Place::Publish, b"\x09\x00\x01\x00", None),
            (Place::Subscribe, b"\x0B\x00", Some(0x82)),
            (Place::Subscribe, b"\x0B\x01\x0B\x01", Some(0x82)),
            (Place::Subscribe, b"\x0B\xFF\xFF\xFF\x7F", None),
            (Place::Connect, b"\x21\x00\x00", Some(0x82)),
            (Place::Connect, b"\x27\x00\x00\x00\x00", Some(0x82)),
            (Place::Will, b"\x18\x00\x00\x00\x05", None),
            (Place::Connect, b"\x18\x00\x00\x00\x05", Some(0x81)),
        ];
        for (place, block, expected) in table {
            assert_eq!(reason(*place, block), *expected, "{place:?} {block:02X?}");
        }
    }

    #[test]
    fn what_follows_the_block_is_returned() {
        assert_eq!(check(Place::Ack, b"\x00rest").unwrap(), b"rest");
        assert!(check(Place::Ack, b"\x05rest").is_err());
    }

    proptest! {
        #[test]
        fn random_blocks_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for place in [Place::Connect, Place::Publish, Place::Subscribe, Place::Disconnect] {
                if let Ok(after) = check(place, &bytes) {
                    prop_assert!(after.len() < bytes.len());
                }
            }
        }
    }
}
