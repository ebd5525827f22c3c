//! Decodes a PUBLISH from a client, of either version.
//!
//! In: a whole packet. Out: a [`PublishIn`] that borrows from it, with the properties that travel in wire form: their order,
//! duplicates of User Property, a Payload Format Indicator of 0 and a Message Expiry Interval of 0 are kept, since the next
//! reader is told what the publisher said. Our own and not that of ntex-mqtt, which refuses some of it, drops other of it, and
//! allocates for each property (ADR 0006). Nothing is allocated here.
//! Knows no connection: aliases are resolved, and QoS is answered, elsewhere.

use fellbeck_core::QoS;

use super::fields::{SHORT, take_topic};
use super::frames::Fault;
use super::property_block::{self, Place, Span};
use crate::wire::{PublishIn, Version};

/// A PUBLISH as decoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decoded<'a> {
    /// All that the core wants. The topic is empty when only an alias names it.
    pub(super) publish: PublishIn<'a>,
    /// Topic Alias, not 0.
    pub(super) alias: Option<u16>,
    /// The publisher says that the payload is UTF-8 text.
    pub(super) is_text: bool,
}

const DUP: u8 = 0x08;
const RETAIN: u8 = 0x01;

/// `first` is the first byte of the fixed header, `body` what follows that header. `scratch` is empty, and used when the
/// properties that travel do not stand together.
pub(super) fn decode<'a>(
    version: Version,
    first: u8,
    body: &'a [u8],
    scratch: &'a mut Vec<u8>,
) -> Result<Decoded<'a>, Fault> {
    let qos = match first >> 1 & 3 {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(Fault::malformed("PUBLISH with QoS 3")), // [MQTT5-3.3.1-4] [MQTT3-3.3.1-4]
    };
    let dup = first & DUP != 0;
    if dup && qos == QoS::AtMostOnce {
        return Err(Fault::malformed("PUBLISH with DUP and QoS 0")); // [MQTT5-3.3.1-2] [MQTT3-3.3.1-2]
    }
    let (topic, rest) = take_topic(body)?;
    let (packet_id, rest) = match qos {
        QoS::AtMostOnce => (None, rest),
        QoS::AtLeastOnce | QoS::ExactlyOnce => {
            let (id, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
            (Some(u16::from_be_bytes(*id)), rest)
        }
    };
    if packet_id == Some(0) {
        return Err(Fault::protocol("packet identifier 0")); // [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
    }
    let (properties, payload) = match version {
        Version::V3 => (Properties::default(), rest),
        Version::V5 => read_properties(rest, scratch)?,
    };
    if topic.is_empty() && properties.alias.is_none() {
        // [MQTT5-4.7.3-1] [MQTT3-4.7.3-1]
        return Err(Fault::protocol("PUBLISH with neither topic nor topic alias"));
    }
    Ok(Decoded {
        publish: PublishIn {
            topic,
            payload,
            qos,
            retain: first & RETAIN != 0,
            dup,
            packet_id,
            properties: properties.travelling,
            expiry_secs: properties.expiry_secs,
        },
        alias: properties.alias,
        is_text: properties.is_text,
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Properties<'a> {
    travelling: &'a [u8],
    expiry_secs: Option<u32>,
    alias: Option<u16>,
    is_text: bool,
}

const PAYLOAD_FORMAT: u8 = 0x01;
const EXPIRY: u8 = 0x02;
const SUBSCRIPTION_ID: u8 = 0x0B;
const TOPIC_ALIAS: u8 = 0x23;

fn read_properties<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<(Properties<'a>, &'a [u8]), Fault> {
    let mut found = Properties::default();
    let mut has_subscription_id = false;
    let mut travelling = Travelling::default();
    let block = property_block::walk(Place::Publish, bytes, |span| match span.id {
        EXPIRY => found.expiry_secs = Some(span.number()),
        TOPIC_ALIAS => found.alias = Some(span.number() as u16),
        SUBSCRIPTION_ID => has_subscription_id = true,
        id => {
            found.is_text |= id == PAYLOAD_FORMAT && span.number() == 1;
            travelling.add(&span, scratch);
        }
    })?;
    if has_subscription_id {
        // [MQTT5-3.3.4-6]
        return Err(Fault::protocol("PUBLISH of a client with a subscription identifier"));
    }
    found.travelling = travelling.finish(block.bytes, scratch);
    Ok((found, block.after))
}

/// Gathers the properties that travel with a message: one run of the block as long as they stand together, else a copy.
#[derive(Debug, Default)]
pub(super) struct Travelling {
    start: usize,
    end: usize,
    /// More travel behind the run, apart from it: they are in `scratch`, and the run is put before them at the end.
    is_scattered: bool,
}

impl Travelling {
    pub(super) fn add(&mut self, span: &Span<'_>, scratch: &mut Vec<u8>) {
        if self.end == 0 && !self.is_scattered {
            (self.start, self.end) = (span.start, span.end());
        } else if !self.is_scattered && span.start == self.end {
            self.end = span.end();
        } else {
            self.is_scattered = true;
            scratch.push(span.id);
            scratch.extend_from_slice(span.value);
        }
    }

    /// The gathered properties in wire form. `block` is the one that the spans came from.
    pub(super) fn finish<'a>(&self, block: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let run = &block[self.start..self.end];
        if !self.is_scattered {
            return run;
        }
        scratch.splice(0..0, run.iter().copied());
        scratch
    }
}

#[cfg(test)]
mod tests;
