//! What is stored of inbound QoS 1 messages whose PUBACK may not have left.

use bytes::Bytes;
use fellbeck_core::varint::{put_u64, take_u64};

use super::{DecodeError, VERSION, versioned};

const HASH_BYTES: usize = 8;

/// The table: packet IDs in rising order, each with the hash of topic and payload.
pub(in crate::session) fn resends(table: &[(u16, u64)]) -> Bytes {
    let mut out = vec![VERSION];
    put_u64(&mut out, table.len() as u64);
    for (packet_id, hash) in table {
        out.extend_from_slice(&packet_id.to_be_bytes());
        out.extend_from_slice(&hash.to_be_bytes());
    }
    out.into()
}

pub(in crate::session) fn decode_resends(value: &[u8]) -> Result<Vec<(u16, u64)>, DecodeError> {
    let mut input = versioned(value)?;
    take(&mut input)
        .filter(|_| input.is_empty())
        .ok_or(DecodeError::Damaged)
}

fn take(input: &mut &[u8]) -> Option<Vec<(u16, u64)>> {
    let count = usize::try_from(take_u64(input)?).ok()?;
    if count > input.len() / (2 + HASH_BYTES) {
        return None;
    }
    let mut table = Vec::with_capacity(count);
    for _ in 0..count {
        let (packet_id, rest) = input.split_first_chunk::<2>()?;
        let (hash, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
        *input = rest;
        table.push((u16::from_be_bytes(*packet_id), u64::from_be_bytes(*hash)));
    }
    let rises = table.is_sorted_by(|(a, _), (b, _)| a < b) && table.first().is_none_or(|(id, _)| *id > 0);
    rises.then_some(table)
}
