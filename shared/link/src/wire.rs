//! Fields of a frame body: what is put by the encoders and taken, with its bound, by the decoders.
//!
//! Numbers are varints of `core::varint`; times and nonces are 8 bytes big-endian; identifiers are 16 raw bytes.
//! `None` means malformed.

use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{Epoch, Position, Run, Seq, WallTime};

use crate::LaneIndex;
use crate::limits::{EPOCH_MAX, LANES_MAX, SEQ_MAX};

pub(crate) fn put_fixed(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_be_bytes());
}

pub(crate) fn take_fixed(input: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = input.split_first_chunk::<8>()?;
    *input = rest;
    Some(u64::from_be_bytes(*bytes))
}

pub(crate) fn take_wall(input: &mut &[u8]) -> Option<WallTime> {
    take_fixed(input).map(WallTime)
}

pub(crate) fn take_u8(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

pub(crate) fn take_id(input: &mut &[u8]) -> Option<[u8; 16]> {
    let (bytes, rest) = input.split_first_chunk::<16>()?;
    *input = rest;
    Some(*bytes)
}

/// A flag byte: 0 absent, 1 present; anything else is malformed.
pub(crate) fn take_flag(input: &mut &[u8]) -> Option<bool> {
    match take_u8(input)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

pub(crate) fn take_text<'a>(input: &mut &'a [u8], bytes_max: usize) -> Option<&'a str> {
    let bytes = take_bytes(input)?;
    if bytes.len() > bytes_max {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn take_epoch(input: &mut &[u8]) -> Option<Epoch> {
    take_u32(input).filter(|epoch| *epoch <= EPOCH_MAX).map(Epoch)
}

pub(crate) fn take_seq(input: &mut &[u8]) -> Option<Seq> {
    take_u64(input).filter(|seq| *seq <= SEQ_MAX).map(Seq)
}

pub(crate) fn take_run(input: &mut &[u8]) -> Option<Run> {
    u16::try_from(take_u64(input)?).ok().map(Run)
}

pub(crate) fn put_position(out: &mut Vec<u8>, position: Position) {
    put_u64(out, u64::from(position.epoch.0));
    put_u64(out, position.seq.0);
}

pub(crate) fn take_position(input: &mut &[u8]) -> Option<Position> {
    Some(Position {
        epoch: take_epoch(input)?,
        seq: take_seq(input)?,
    })
}

pub(crate) fn take_lane(input: &mut &[u8]) -> Option<LaneIndex> {
    let index = take_u64(input)?;
    if index >= LANES_MAX as u64 {
        return None;
    }
    Some(LaneIndex(index as u16))
}

/// A list length, refused above `max`.
pub(crate) fn take_count(input: &mut &[u8], max: usize) -> Option<usize> {
    usize::try_from(take_u64(input)?).ok().filter(|count| *count <= max)
}
