//! Headers of a Kafka record: everything of a message but device, payload and time.
//!
//! Ours come first, in a fixed order; then one per MQTT property, in the publisher's order. A user property keeps its name, unless
//! that begins like one of ours: it is then escaped, so that no publisher can forge a header of ours.

use super::zigzag;
use crate::properties::{Property, put as put_property};
use crate::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use crate::{ClockQuality, CommitNumber, Epoch, Origin, Properties, QoS, Record, Run, Seq, WallTime};

const TOPIC: &str = "mqtt.topic";
const META: &str = "fellbeck.meta";
const EDGE: &str = "fellbeck.edge";
const PATH: &str = "fellbeck.path";

const PAYLOAD_FORMAT: &str = "mqtt.payload_format";
const CONTENT_TYPE: &str = "mqtt.content_type";
const RESPONSE_TOPIC: &str = "mqtt.response_topic";
const CORRELATION_DATA: &str = "mqtt.correlation_data";
const ESCAPE: &str = "mqtt.user.";
const RESERVED: [&str; 2] = ["mqtt.", "fellbeck."];

const META_VERSION: u8 = 1;
const FLAG_QOS: u8 = 0b0000_0011;
const FLAG_RETAIN: u8 = 0b0000_0100;
const FLAG_EXPIRY: u8 = 0b0000_1000;
const FLAG_ORIGIN: u8 = 0b0001_0000;
const FLAG_PATH: u8 = 0b0010_0000;
const FLAGS_UNKNOWN: u8 = 0b1100_0000;

/// Appends all headers and returns their number.
pub(super) fn put_headers(out: &mut Vec<u8>, record: &Record<'_>, commit: CommitNumber) -> i32 {
    let mut count = 2;
    put(out, TOPIC, record.topic.as_bytes());
    zigzag::put_len(out, META.len());
    out.extend_from_slice(META.as_bytes());
    put_meta(out, record, commit);
    if let Some(origin) = &record.origin {
        put(out, EDGE, origin.edge.as_bytes());
        count += 1;
    }
    if !record.path.is_empty() {
        put(out, PATH, record.path.as_bytes());
        count += 1;
    }
    for property in record.properties.iter() {
        count += 1;
        match property {
            Property::PayloadFormat(n) => put(out, PAYLOAD_FORMAT, &[n]),
            Property::ContentType(text) => put(out, CONTENT_TYPE, text.as_bytes()),
            Property::ResponseTopic(text) => put(out, RESPONSE_TOPIC, text.as_bytes()),
            Property::CorrelationData(bytes) => put(out, CORRELATION_DATA, bytes),
            Property::User(name, value) => put_user(out, name, value),
        }
    }
    count
}

fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    zigzag::put_len(out, name.len());
    out.extend_from_slice(name.as_bytes());
    zigzag::put_len(out, value.len());
    out.extend_from_slice(value);
}

fn put_user(out: &mut Vec<u8>, name: &str, value: &str) {
    if !RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
        return put(out, name, value.as_bytes());
    }
    zigzag::put_len(out, ESCAPE.len() + name.len());
    out.extend_from_slice(ESCAPE.as_bytes());
    out.extend_from_slice(name.as_bytes());
    zigzag::put_len(out, value.len());
    out.extend_from_slice(value.as_bytes());
}

/// The binary header: what a Kafka consumer rarely reads, but a node must get back exactly.
fn put_meta(out: &mut Vec<u8>, record: &Record<'_>, commit: CommitNumber) {
    let mut flags = record.qos as u8;
    for (flag, set) in [
        (FLAG_RETAIN, record.retain),
        (FLAG_EXPIRY, record.expiry_secs.is_some()),
        (FLAG_ORIGIN, record.origin.is_some()),
        (FLAG_PATH, !record.path.is_empty()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    // The length is set at the end. One byte holds it, unless the lane's name is long.
    let length_at = out.len();
    out.push(0);
    out.extend_from_slice(&[META_VERSION, flags, record.clock as u8]);
    put_u64(out, commit.0);
    if let Some(secs) = record.expiry_secs {
        put_u64(out, u64::from(secs));
    }
    if let Some(origin) = &record.origin {
        put_u64(out, u64::from(origin.instance));
        put_bytes(out, origin.lane.as_bytes());
        put_u64(out, u64::from(origin.run.0));
        put_u64(out, u64::from(origin.epoch.0));
        put_u64(out, origin.seq.0);
    }
    set_length(out, length_at);
}

/// Writes the length of what follows the one byte kept free at `at`, and makes room where it needs more.
fn set_length(out: &mut Vec<u8>, at: usize) {
    let len = out.len() - at - 1;
    if len < 64 {
        out[at] = (len as u8) << 1;
        return;
    }
    let mut prefix = Vec::new();
    zigzag::put_len(&mut prefix, len);
    out.splice(at..=at, prefix);
}

/// Takes `count` headers. The device, payload and time of the record returned are empty: they stand outside the headers.
pub(super) fn take_headers<'a, 'r>(
    rest: &mut &'a [u8],
    count: u32,
    properties: &'r mut Vec<u8>,
) -> Option<(CommitNumber, Record<'r>)>
where
    'a: 'r,
{
    let topic = take_named_str(rest, TOPIC)?;
    let meta = Meta::take(take_named(rest, META)?)?;
    let mut ours = 2;
    let origin = match meta.origin {
        Some(origin) => {
            ours += 1;
            let edge = take_named_str(rest, EDGE)?;
            Some(Origin { edge, ..origin })
        }
        None => None,
    };
    let path = if meta.flags & FLAG_PATH != 0 {
        ours += 1;
        take_named_str(rest, PATH).filter(|path| !path.is_empty())?
    } else {
        ""
    };
    properties.clear();
    for _ in 0..count.checked_sub(ours)? {
        take_property(rest, properties)?;
    }
    let record = Record {
        device: "",
        topic,
        payload: b"",
        qos: QoS::from_u8(meta.flags & FLAG_QOS)?,
        retain: meta.flags & FLAG_RETAIN != 0,
        properties: Properties::parse(properties).ok()?,
        accepted_at: WallTime::default(),
        clock: meta.clock,
        expiry_secs: meta.expiry_secs,
        origin,
        path,
    };
    Some((meta.commit, record))
}

struct Meta<'a> {
    flags: u8,
    clock: ClockQuality,
    commit: CommitNumber,
    expiry_secs: Option<u32>,
    /// Its edge is a header of its own.
    origin: Option<Origin<'a>>,
}

impl<'a> Meta<'a> {
    fn take(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, flags, clock], mut rest) = bytes.split_first_chunk::<3>()?;
        let rest = &mut rest;
        if version != META_VERSION || flags & FLAGS_UNKNOWN != 0 {
            return None;
        }
        let meta = Self {
            flags,
            clock: ClockQuality::from_u8(clock)?,
            commit: CommitNumber(take_u64(rest)?),
            expiry_secs: if flags & FLAG_EXPIRY != 0 {
                Some(take_u32(rest)?)
            } else {
                None
            },
            origin: if flags & FLAG_ORIGIN != 0 {
                Some(take_origin(rest)?)
            } else {
                None
            },
        };
        rest.is_empty().then_some(meta)
    }
}

fn take_origin<'a>(rest: &mut &'a [u8]) -> Option<Origin<'a>> {
    Some(Origin {
        edge: "",
        instance: take_u32(rest)?,
        lane: std::str::from_utf8(take_bytes(rest)?).ok()?,
        run: Run(u16::try_from(take_u64(rest)?).ok()?),
        epoch: Epoch(take_u32(rest)?),
        seq: Seq(take_u64(rest)?),
    })
}

fn take_named<'a>(rest: &mut &'a [u8], name: &str) -> Option<&'a [u8]> {
    if zigzag::take_bytes(rest)? != name.as_bytes() {
        return None;
    }
    zigzag::take_bytes(rest)
}

fn take_named_str<'a>(rest: &mut &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(take_named(rest, name)?).ok()
}

/// Takes one header behind ours and appends it as an MQTT property.
fn take_property(rest: &mut &[u8], properties: &mut Vec<u8>) -> Option<()> {
    let name = std::str::from_utf8(zigzag::take_bytes(rest)?).ok()?;
    let value = zigzag::take_bytes(rest)?;
    let text = || std::str::from_utf8(value).ok();
    let property = match (name, value) {
        (PAYLOAD_FORMAT, &[n]) => Property::PayloadFormat(n),
        (CONTENT_TYPE, _) => Property::ContentType(text()?),
        (RESPONSE_TOPIC, _) => Property::ResponseTopic(text()?),
        (CORRELATION_DATA, _) => Property::CorrelationData(value),
        _ => Property::User(unescape(name)?, text()?),
    };
    put_property(properties, &property).ok()
}

/// The name of a user property. A reserved name that is not an escaped one belongs to a later version.
fn unescape(name: &str) -> Option<&str> {
    match name.strip_prefix(ESCAPE) {
        Some(original) => RESERVED
            .iter()
            .any(|prefix| original.starts_with(prefix))
            .then_some(original),
        None => (!RESERVED.iter().any(|prefix| name.starts_with(prefix))).then_some(name),
    }
}
