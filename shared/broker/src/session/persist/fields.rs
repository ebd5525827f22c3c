//! Fields that several stored values have: positions, books, lists, text.

use fellbeck_core::varint::{put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{CommitNumber, DropReason, LogPosition};

use crate::session::ledger::ReaderLedger;

pub(super) fn put_ledger(out: &mut Vec<u8>, ledger: &ReaderLedger) {
    for n in [ledger.matched, ledger.acked, ledger.expired, ledger.skipped] {
        put_u64(out, n);
    }
    put_u64(out, ledger.dropped.len() as u64);
    for (reason, count) in &ledger.dropped {
        out.push(*reason as u8);
        put_u64(out, *count);
    }
}

pub(super) fn take_ledger(input: &mut &[u8]) -> Option<ReaderLedger> {
    Some(ReaderLedger {
        matched: take_u64(input)?,
        acked: take_u64(input)?,
        expired: take_u64(input)?,
        skipped: take_u64(input)?,
        dropped: take_list(input, |input| {
            let reason = DropReason::from_u8(take_byte(input)?)?;
            Some((reason, take_u64(input)?))
        })?,
    })
}

pub(super) fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    put_u64(out, position.commit.0);
    put_u64(out, u64::from(position.index));
}

pub(super) fn take_position(input: &mut &[u8]) -> Option<LogPosition> {
    Some(LogPosition {
        commit: CommitNumber(take_u64(input)?),
        index: take_u32(input)?,
    })
}

/// Takes a counted list. The count is never trusted for memory: each element takes at least one byte.
pub(super) fn take_list<T>(input: &mut &[u8], take: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(take_u64(input)?)
        .ok()
        .filter(|count| *count <= input.len())?;
    (0..count).map(|_| take(input)).collect()
}

pub(super) fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

pub(super) fn take_u16(input: &mut &[u8]) -> Option<u16> {
    u16::try_from(take_u64(input)?).ok()
}

pub(super) fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(input)?).ok()
}
