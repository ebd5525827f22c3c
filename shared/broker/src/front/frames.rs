//! Cuts the bytes of a connection into MQTT packets.
//!
//! In: bytes as they arrive. Out: where the packet at their front ends; the bytes of a packet that is not whole yet are kept
//! here, so that no decoder ever sees a partial one.
//! Bounded by the largest packet per connection, and by the [`Assembly`] budget of the node, which the broker enforces: it ends
//! the connection that has used most of it. Knows nothing of what is in a packet.

use std::cell::Cell;
use std::rc::Rc;

use super::fields::{shortest_varint, varint};
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
    pub(super) fn set(&mut self, len: usize) {
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

/// Bytes of a packet that every connection may hold outside the budget, so that small packets never depend on it.
const FREE_BYTES: usize = 4096;

/// What stands at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Not enough bytes to know the length.
    Short,
    /// Whole length of the packet, fixed header included, and the length of that header. It may not all be there.
    Known { header: usize, whole: usize },
}

/// Partial packet of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    version: Version,
    packet_max: u32,
    partial: Vec<u8>,
    charge: Charge,
}

/// What became of fresh bytes behind a partial packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completed {
    /// Bytes that were taken.
    pub(super) used: usize,
    /// The packet, once it is whole.
    pub(super) packet: Option<Vec<u8>>,
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

    /// Looks at the front of `bytes`.
    pub(super) fn head(&self, bytes: &[u8]) -> Result<Head, Fault> {
        head(bytes, self.version, self.packet_max)
    }

    /// Keeps the beginning of a packet. Only when nothing is kept.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        debug_assert!(!self.is_partial(), "a packet follows its predecessor");
        self.partial.extend_from_slice(bytes);
        self.charge.set(self.partial.len());
    }

    /// Adds to the kept bytes what is missing.
    pub(super) fn complete(&mut self, fresh: &[u8]) -> Result<Completed, Fault> {
        let mut used = 0;
        let whole = loop {
            match self.head(&self.partial)? {
                Head::Known { whole, .. } => break whole,
                Head::Short => match fresh.get(used) {
                    Some(&byte) => self.partial.push(byte),
                    None => return Ok(Completed { used, packet: None }),
                },
            }
            used += 1;
        };
        let more = (whole - self.partial.len()).min(fresh.len() - used);
        self.partial.extend_from_slice(&fresh[used..used + more]);
        used += more;
        let packet = (self.partial.len() == whole).then(|| std::mem::take(&mut self.partial));
        self.charge.set(self.partial.len());
        Ok(Completed { used, packet })
    }

    /// Takes the memory of a packet back that was completed here, for the next one.
    pub(super) fn recycle(&mut self, mut packet: Vec<u8>) {
        if self.partial.capacity() == 0 && packet.capacity() <= FREE_BYTES {
            packet.clear();
            self.partial = packet;
        }
    }

    /// Drops the kept bytes: nothing of this connection will be read any more.
    pub(super) fn forget(&mut self) {
        self.partial = Vec::new();
        self.charge.set(0);
    }
}

/// Looks at the front of `bytes`.
pub(super) fn head(bytes: &[u8], version: Version, packet_max: u32) -> Result<Head, Fault> {
    let Some(rest) = bytes.get(1..) else {
        return Ok(Head::Short);
    };
    let length = match version {
        // 3.1.1 does not ask for the shortest form.
        Version::V3 => varint(rest)?,
        Version::V5 => shortest_varint(rest)?,
    };
    let Some((remaining, used)) = length else {
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

#[cfg(test)]
mod tests;
