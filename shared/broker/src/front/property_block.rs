//! Reads a property block of MQTT 5 from a client: checks it whole, and names its properties one by one.
//!
//! In: the bytes of the block and the packet that it belongs to. Out: each property as a span of the block, or the reason that
//! the standard names for what is unknown, repeated, of another packet, or of an illegal value. Nothing is stored or copied.

use super::fields::{shortest_varint, take_field, take_text};
use super::frames::Fault;

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

/// One property: its identifier, and where in the block it begins and ends, identifier included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span<'a> {
    pub(super) id: u8,
    pub(super) start: usize,
    /// The value as on the wire, lengths of strings included.
    pub(super) value: &'a [u8],
}

impl<'a> Span<'a> {
    /// First byte behind it.
    pub(super) fn end(&self) -> usize {
        self.start + 1 + self.value.len()
    }

    /// The value of a byte, a two byte or a four byte integer.
    pub(super) fn number(&self) -> u32 {
        self.value.iter().fold(0, |n, &byte| n << 8 | u32::from(byte))
    }

    /// The value of a string or binary, without its length.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.value.get(2..).unwrap_or_default()
    }

    /// The value of a string; the block was checked.
    pub(super) fn text(&self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
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
    /// A string that is a topic name.
    Topic,
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

/// Table 2-4 of the standard, without what only a server sends in packets that a client does not. A SUBSCRIBE and a PUBLISH may
/// have the identifier 0x0B; that a client's PUBLISH may not is a protocol error of its own.
fn describe(id: u8) -> Option<(Kind, u8)> {
    Some(match id {
        0x01 => (Kind::Bool, PUBLISH | WILL),
        0x02 => (Kind::U32, PUBLISH | WILL),
        0x03 => (Kind::Text, PUBLISH | WILL),
        0x08 => (Kind::Topic, PUBLISH | WILL),
        0x09 => (Kind::Binary, PUBLISH | WILL),
        0x0B => (Kind::Varint, PUBLISH | SUBSCRIBE),
        0x11 => (Kind::U32, CONNECT | DISCONNECT),
        0x15 => (Kind::Text, CONNECT | AUTH),
        0x16 => (Kind::Binary, CONNECT | AUTH),
        0x17 | 0x19 => (Kind::Bool, CONNECT),
        0x18 => (Kind::U32, WILL),
        0x1C => (Kind::Text, DISCONNECT),
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

/// A checked block and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) after: &'a [u8],
}

/// Checks the block at the front of `bytes`, its length included, and returns what follows it.
pub(super) fn check(place: Place, bytes: &[u8]) -> Result<&[u8], Fault> {
    walk(place, bytes, |_| {}).map(|block| block.after)
}

/// Checks the block at the front of `bytes`, its length included, and shows each property that is legal.
pub(super) fn walk<'a>(place: Place, bytes: &'a [u8], mut each: impl FnMut(Span<'a>)) -> Result<Block<'a>, Fault> {
    let (length, used) = shortest_varint(bytes)?.ok_or(CUT_OFF)?;
    let (block, after) = bytes[used..].split_at_checked(length as usize).ok_or(CUT_OFF)?;
    let mut seen = 0u64;
    let mut rest = block;
    while let Some((&id, tail)) = rest.split_first() {
        let (kind, places) = describe(id).ok_or(Fault::malformed("unknown property"))?;
        if places & place as u8 == 0 {
            return Err(Fault::malformed("property of another packet")); // section 2.2.2.2
        }
        if id != USER_PROPERTY && seen & 1 << id != 0 {
            return Err(Fault::protocol("property is repeated"));
        }
        seen |= 1 << id;
        let start = block.len() - rest.len();
        rest = skip(kind, tail)?;
        let value = &tail[..tail.len() - rest.len()];
        each(Span { id, start, value });
    }
    Ok(Block { bytes: block, after })
}

fn skip(kind: Kind, bytes: &[u8]) -> Result<&[u8], Fault> {
    const ZERO: Fault = Fault::protocol("property may not be 0");
    const ALIAS_ZERO: Fault = Fault {
        reason: 0x94,
        text: "topic alias 0",
    };
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
        Kind::TopicAlias => not_zero(2, ALIAS_ZERO), // [MQTT5-3.3.2-8]
        Kind::U32 => fixed(4).map(|(_, rest)| rest),
        Kind::U32NotZero => not_zero(4, ZERO),
        Kind::Varint => match shortest_varint(bytes)?.ok_or(CUT_OFF)? {
            (0, _) => Err(ZERO),
            (_, used) => Ok(&bytes[used..]),
        },
        Kind::Text => take_text(bytes).map(|(_, rest)| rest),
        Kind::Topic => skip_topic(bytes),
        Kind::Binary => take_field(bytes).map(|(_, rest)| rest).ok_or(CUT_OFF),
        // [MQTT5-1.5.7-1]
        Kind::Pair => take_text(take_text(bytes)?.1).map(|(_, rest)| rest),
    }
}

/// [MQTT5-3.3.2-13] [MQTT5-3.3.2-14] [MQTT5-4.7.3-1]
fn skip_topic(bytes: &[u8]) -> Result<&[u8], Fault> {
    let (topic, rest) = take_text(bytes)?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Fault::protocol("response topic is not a topic name"));
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
            (Place::Publish, b"\x08\x00\x03a/b", None),
            (Place::Publish, b"\x08\x00\x03a/+", Some(0x82)),
            (Place::Will, b"\x08\x00\x00", Some(0x82)),
            (Place::Disconnect, b"\x1C\x00\x01a", None),
            (Place::Subscribe, b"\x0B\x81\x00", Some(0x81)),
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

    #[test]
    fn properties_are_shown_in_order_with_their_place() {
        let mut seen = Vec::new();
        let bytes = b"\x0E\x23\x01\x02\x26\x00\x01a\x00\x01b\x02\x00\x00rest";
        assert!(walk(Place::Publish, bytes, |_| {}).is_err(), "the last one is cut off");
        let bytes = b"\x0F\x23\x01\x02\x26\x00\x01a\x00\x01b\x02\x00\x00\x00\x09rest";
        let block = walk(Place::Publish, bytes, |span| {
            seen.push((span.id, span.start, span.end(), span.number()))
        });
        assert_eq!(block.unwrap().after, b"rest");
        assert_eq!(seen[0], (0x23, 0, 3, 0x0102));
        assert_eq!((seen[1].0, seen[1].1, seen[1].2), (0x26, 3, 10));
        assert_eq!(seen[2], (0x02, 10, 15, 9));
    }

    #[test]
    fn a_length_that_is_not_in_its_shortest_form_is_malformed() {
        assert_eq!(check(Place::Ack, &[0x80, 0x00]).unwrap_err().reason, 0x81);
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
