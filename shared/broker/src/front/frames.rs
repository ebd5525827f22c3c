//! Finds whole MQTT packets in a read buffer and checks their outer shape before ntex-mqtt decodes them.
//!
//! In: the bytes of a connection as they arrive. Out: how many whole, well-formed packets stand at the front of the buffer;
//! the bytes of a packet that is not whole yet are kept here, so that the codec never sees a partial one.
//! The reason: the codec of ntex-mqtt 8.2.1 subtracts unchecked lengths, believes a property length of 256 MB, reads on past
//! the end of a PUBLISH, and ignores reserved bits. With whole, checked packets none of that is reached.
//! Bounded by the largest packet per connection, and by the [`Assembly`] budget of the node, which the broker enforces: it ends
//! the connection that has used most of it. Knows nothing of sessions.

use std::cell::Cell;
use std::rc::Rc;

use super::property_block::{self, Place};
use crate::wire::Version;

/// Why a packet is refused: a reason code of MQTT 5, and a text for the log and the DISCONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: u8,
    pub(super) text: &'static str,
}

impl Fault {
    /// Close without a word.
    pub(super) const SILENT: Self = Self { reason: 0, text: "" };

    /// The bytes do not follow the specification.
    pub(super) const fn malformed(text: &'static str) -> Self {
        Self { reason: 0x81, text }
    }

    /// Well formed, but not allowed here.
    pub(super) const fn protocol(text: &'static str) -> Self {
        Self { reason: 0x82, text }
    }
}

/// Node-wide budget for bytes of packets that are not whole yet, or whole and held.
#[derive(Debug)]
pub(super) struct Assembly {
    used: Cell<usize>,
    max: usize,
}

impl Assembly {
    pub(super) fn new(max: usize) -> Rc<Self> {
        Rc::new(Self {
            used: Cell::new(0),
            max,
        })
    }

    /// Bytes held by all connections.
    pub(super) fn used(&self) -> usize {
        self.used.get()
    }

    /// More is held than there should be: somebody has to go.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used.get() > self.max
    }

    /// Charges `bytes` of one packet until the answer is dropped.
    pub(super) fn charge(self: &Rc<Self>, bytes: usize) -> Charge {
        let mut charge = Charge {
            budget: self.clone(),
            bytes: 0,
        };
        charge.set(bytes);
        charge
    }
}

/// Share of one packet in the [`Assembly`] budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Rc<Assembly>,
    bytes: usize,
}

impl Charge {
    /// The packet has `len` bytes now.
    fn set(&mut self, len: usize) {
        let bytes = len.saturating_sub(FREE_BYTES);
        self.budget.used.set(self.budget.used.get() - self.bytes + bytes);
        self.bytes = bytes;
    }

    /// Bytes charged.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Partial packet of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    version: Version,
    packet_max: u32,
    partial: Vec<u8>,
    charge: Charge,
}

/// Bytes of a packet that every connection may hold outside the budget, so that small packets never depend on it.
const FREE_BYTES: usize = 4096;

/// Outcome of looking at the front of a buffer.
enum Head {
    /// Not enough bytes to know the length.
    Short,
    /// Whole length of the packet, fixed header included, and the length of that header.
    Known { header: usize, whole: usize },
}

impl Frames {
    pub(super) fn new(version: Version, packet_max: u32, budget: &Rc<Assembly>) -> Self {
        Self {
            version,
            packet_max,
            partial: Vec::new(),
            charge: budget.charge(0),
        }
    }

    /// A packet has begun and is not whole.
    pub(super) fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Bytes of it that count for the budget.
    pub(super) fn charged(&self) -> usize {
        self.charge.bytes()
    }

    /// Looks at new bytes at the front of a read buffer. Returns the number of whole packets that `buffer` then begins with;
    /// it holds nothing else. Call again only when all of them have been taken out.
    ///
    /// On a fault, `buffer` keeps the whole packets before it: their number is in the error, and they are valid.
    pub(super) fn admit(&mut self, buffer: &mut impl Buffer) -> Result<u32, (u32, Fault)> {
        if !self.partial.is_empty() && !self.rejoin(buffer).map_err(|fault| (0, fault))? {
            return Ok(0);
        }
        let mut count = 0;
        let mut at = 0;
        let fault = loop {
            let bytes = &buffer.bytes()[at..];
            let (header, whole) = match head(bytes, self.packet_max) {
                Ok(Head::Known { header, whole }) if bytes.len() >= whole => (header, whole),
                Ok(_) => break None,
                Err(fault) => break Some(fault),
            };
            if let Err(fault) = check(self.version, bytes[0], &bytes[header..whole]) {
                break Some(fault);
            }
            at += whole;
            count += 1;
        };
        if let Some(fault) = fault {
            buffer.truncate(at);
            return Err((count, fault));
        }
        let rest = &buffer.bytes()[at..];
        if !rest.is_empty() {
            self.partial.extend_from_slice(rest);
            buffer.truncate(at);
            self.charge.set(self.partial.len());
        }
        Ok(count)
    }

    /// Drops the kept bytes: nothing of this connection will be read any more.
    pub(super) fn forget(&mut self) {
        self.partial = Vec::new();
        self.charge.set(0);
    }

    /// Puts the kept bytes back before those in `buffer` once they make a whole packet; else keeps the new ones too.
    fn rejoin(&mut self, buffer: &mut impl Buffer) -> Result<bool, Fault> {
        let fresh = buffer.bytes();
        if fresh.is_empty() {
            return Ok(false);
        }
        let had = self.partial.len();
        // The fixed header has at most five bytes; with those, the length is known.
        if had < 5 {
            self.partial.extend_from_slice(&fresh[..fresh.len().min(5)]);
        }
        let head = head(&self.partial, self.packet_max);
        self.partial.truncate(had);
        let complete = matches!(head?, Head::Known { whole, .. } if had + fresh.len() >= whole);
        if complete {
            buffer.prepend(&self.partial);
            self.partial.clear();
            if self.partial.capacity() > FREE_BYTES {
                self.partial = Vec::new();
            }
        } else {
            self.partial.extend_from_slice(fresh);
            buffer.truncate(0);
        }
        self.charge.set(self.partial.len());
        Ok(complete)
    }
}

/// The read buffer as this module needs it.
pub(super) trait Buffer {
    fn bytes(&self) -> &[u8];
    fn truncate(&mut self, len: usize);
    fn prepend(&mut self, bytes: &[u8]);
}

impl Buffer for ntex::util::BytesMut {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn truncate(&mut self, len: usize) {
        ntex::util::BytesMut::truncate(self, len);
    }

    fn prepend(&mut self, bytes: &[u8]) {
        let mut joined = ntex::util::BytesMut::with_capacity(bytes.len() + self.len());
        joined.extend_from_slice(bytes);
        joined.extend_from_slice(self);
        *self = joined;
    }
}

fn head(bytes: &[u8], packet_max: u32) -> Result<Head, Fault> {
    let Some(rest) = bytes.get(1..) else {
        return Ok(Head::Short);
    };
    let Some((remaining, used)) = varint(rest)? else {
        return Ok(Head::Short);
    };
    let header = 1 + used;
    let whole = header + remaining as usize;
    if whole > packet_max as usize {
        // [MQTT5-3.2.2-15]
        return Err(Fault {
            reason: 0x95,
            text: "packet exceeds the maximum packet size",
        });
    }
    Ok(Head::Known { header, whole })
}

/// A variable byte integer and its length; `None` while it is cut off.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Fault::malformed("length of more than four bytes"));
    }
    Ok(None)
}

const MALFORMED_FLAGS: Fault = Fault::malformed("reserved flags of the fixed header are set");

fn check(version: Version, first: u8, body: &[u8]) -> Result<(), Fault> {
    let flags = first & 0x0F;
    match first >> 4 {
        3 => check_publish(version, flags, body),
        8 if flags == 2 => check_filters(version, body, true),
        10 if flags == 2 => check_filters(version, body, false),
        6 if flags == 2 => check_ack(version, body),
        4 | 5 | 7 if flags == 0 => check_ack(version, body),
        1 if flags == 0 => Ok(()),
        12 if flags == 0 && body.is_empty() => Ok(()),
        12 if flags == 0 => Err(Fault::malformed("PINGREQ with a body")),
        14 if flags == 0 && version == Version::V5 => check_reason_and_properties(Place::Disconnect, body),
        14 if flags == 0 && body.is_empty() => Ok(()),
        14 if flags == 0 => Err(Fault::malformed("DISCONNECT with a body")),
        15 if flags == 0 && version == Version::V5 => check_reason_and_properties(Place::Auth, body),
        2 | 9 | 11 | 13 => Err(Fault::protocol("packet that only a server may send")),
        0 | 15 => Err(Fault::malformed("reserved packet type")),
        _ => Err(MALFORMED_FLAGS),
    }
}

fn check_publish(version: Version, flags: u8, body: &[u8]) -> Result<(), Fault> {
    const SHORT: Fault = Fault::malformed("PUBLISH is shorter than its fields");
    let qos = flags >> 1 & 3;
    if qos == 3 {
        return Err(Fault::malformed("PUBLISH with QoS 3")); // [MQTT5-3.3.1-4]
    }
    if qos == 0 && flags & 8 != 0 {
        return Err(Fault::malformed("PUBLISH with DUP and QoS 0")); // [MQTT5-3.3.1-2]
    }
    let topic = take_field(body).ok_or(SHORT)?.1;
    let rest = if qos > 0 { topic.get(2..).ok_or(SHORT)? } else { topic };
    if version == Version::V5 {
        property_block::check(Place::Publish, rest)?;
    }
    Ok(())
}

fn check_ack(version: Version, body: &[u8]) -> Result<(), Fault> {
    let rest = body
        .get(2..)
        .ok_or(Fault::malformed("ack without a packet identifier"))?;
    match version {
        Version::V3 if rest.is_empty() => Ok(()),
        Version::V3 => Err(Fault::malformed("ack is longer than its packet identifier")),
        Version::V5 => check_reason_and_properties(Place::Ack, rest),
    }
}

/// Both may be left out, the properties first.
fn check_reason_and_properties(place: Place, rest: &[u8]) -> Result<(), Fault> {
    match rest {
        [] | [_] => Ok(()),
        [_, block @ ..] if property_block::check(place, block)?.is_empty() => Ok(()),
        _ => Err(Fault::malformed("packet is longer than its fields")),
    }
}

/// SUBSCRIBE (`with_options`) and UNSUBSCRIBE: a list of at least one filter, nothing behind it, no reserved bit set.
fn check_filters(version: Version, body: &[u8], with_options: bool) -> Result<(), Fault> {
    const SHORT: Fault = Fault::malformed("list of filters is cut off");
    let mut rest = body.get(2..).ok_or(SHORT)?;
    if version == Version::V5 {
        let place = if with_options {
            Place::Subscribe
        } else {
            Place::Unsubscribe
        };
        rest = property_block::check(place, rest)?;
    }
    if rest.is_empty() {
        return Err(Fault::protocol("list of filters is empty")); // [MQTT5-3.8.3-2], [MQTT5-3.10.3-2]
    }
    while !rest.is_empty() {
        rest = take_field(rest).ok_or(SHORT)?.1;
        if with_options {
            let (&options, tail) = rest.split_first().ok_or(SHORT)?;
            check_options(version, options)?;
            rest = tail;
        }
    }
    Ok(())
}

fn check_options(version: Version, options: u8) -> Result<(), Fault> {
    let reserved = match version {
        Version::V3 => 0xFC,
        Version::V5 => 0xC0,
    };
    if options & reserved != 0 || options & 3 == 3 {
        return Err(Fault::malformed("reserved bits of the subscription options")); // [MQTT5-3.8.3-5], [MQTT3-3.8.3-4]
    }
    if options & 0x30 == 0x30 {
        return Err(Fault::protocol("retain handling 3"));
    }
    Ok(())
}

/// A field with a length of two bytes, and what follows it.
pub(super) fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests;
