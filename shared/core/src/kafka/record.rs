//! One record of a Kafka batch.

use super::headers::{put_headers, take_headers};
use super::zigzag;
use crate::{CommitNumber, Record, WallTime};

/// What the headers of a plain record add to its block form: a guess that sizes a buffer.
pub(super) const HEADER_BYTES_TYPICAL: usize = 64;

/// What a record shares with its batch.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub(super) base_timestamp: i64,
    pub(super) commit: CommitNumber,
    pub(super) index: u32,
}

/// A record as taken from a batch.
pub(super) struct Taken<'a> {
    pub(super) record: Record<'a>,
    pub(super) commit: CommitNumber,
}

/// Appends one record. `scratch` is cleared and used for its headers.
pub(super) fn put_record(out: &mut Vec<u8>, scratch: &mut Vec<u8>, record: &Record<'_>, shared: Shared) {
    scratch.clear();
    let headers = put_headers(scratch, record, shared.commit);
    // Wrapping, here and when it is taken: whatever a clock says comes back unchanged.
    let timestamp_delta = (record.accepted_at.0 as i64).wrapping_sub(shared.base_timestamp);
    let (key, value) = (record.device.as_bytes(), record.payload);
    let len = 1
        + zigzag::size(timestamp_delta)
        + zigzag::size(i64::from(shared.index))
        + zigzag::size(key.len() as i64)
        + key.len()
        + zigzag::size(value.len() as i64)
        + value.len()
        + zigzag::size(i64::from(headers))
        + scratch.len();
    zigzag::put_len(out, len);
    let start = out.len();
    out.push(0);
    zigzag::put(out, timestamp_delta);
    zigzag::put(out, i64::from(shared.index));
    zigzag::put_len(out, key.len());
    out.extend_from_slice(key);
    zigzag::put_len(out, value.len());
    out.extend_from_slice(value);
    zigzag::put(out, i64::from(headers));
    out.extend_from_slice(scratch);
    debug_assert_eq!(out.len() - start, len, "a record is as long as it says");
}

/// Takes the record at `index`. `properties` is cleared and holds its MQTT properties.
pub(super) fn take_record<'a, 'r>(
    section: &mut &'a [u8],
    base_timestamp: i64,
    index: u32,
    properties: &'r mut Vec<u8>,
) -> Option<Taken<'r>>
where
    'a: 'r,
{
    let mut rest = zigzag::take_bytes(section)?;
    let rest = &mut rest;
    let (attributes, tail) = rest.split_first()?;
    *rest = tail;
    let timestamp_delta = zigzag::take(rest)?;
    let offset_delta = zigzag::take_i32(rest)?;
    if *attributes != 0 || i64::from(offset_delta) != i64::from(index) {
        return None;
    }
    let device = std::str::from_utf8(zigzag::take_bytes(rest)?).ok()?;
    let payload = zigzag::take_bytes(rest)?;
    let headers = u32::try_from(zigzag::take_i32(rest)?).ok()?;
    let accepted_at = WallTime(base_timestamp.wrapping_add(timestamp_delta) as u64);
    let (meta, record) = take_headers(rest, headers, properties)?;
    if !rest.is_empty() {
        return None;
    }
    Some(Taken {
        record: Record {
            device,
            payload,
            accepted_at,
            ..record
        },
        commit: meta,
    })
}
