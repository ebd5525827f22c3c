//! Codec of what is stored of sessions and groups, in `Space::Session`. Drawn in `docs/format/session.md`.
//!
//! Each value begins with a version byte; numbers are varints. A value of a newer version stops the restore, a damaged one costs
//! what it described. When a subscription begins and ends is not in
//! any value: it is the store's stamp on the two keys that were written then.

mod cursor;
mod fields;
mod group;
mod resends;
mod session;
mod subscription;

use bytes::Bytes;
use fellbeck_core::varint::{put_u64, take_u64};
use fellbeck_core::{CommitNumber, Filter, ShareName};

pub(super) use cursor::{StoredCursor, StoredEntry, StoredSource, cursor};
pub(super) use group::{StoredGroup, group};
pub(super) use resends::{decode_resends, resends};
pub(super) use session::{StoredSession, session};
pub(super) use subscription::{decode_subscription, subscription};

pub(super) const VERSION: u8 = 1;

const SESSION: u8 = b'M';
const CURSOR: u8 = b'C';
const SUBSCRIPTION: u8 = b'S';
const ENDED: u8 = b'E';
const RECEIVED: u8 = b'Q';
const GROUP: u8 = b'G';
const MARK: u8 = b'L';
const RESENDS: u8 = b'D';
const BOUND: u8 = b'B';

/// Bytes that are not a value of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// Written by a newer program.
    Newer(u8),
    Damaged,
}

/// What a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredKey<'a> {
    Session(&'a str),
    Cursor(&'a str),
    Subscription(&'a str, u32),
    Ended(&'a str, u32),
    Received(&'a str, u16),
    Group(&'a str, &'a str),
    Resends(&'a str),
    Bound(&'a str),
    Mark,
}

pub(super) fn parse_key(key: &[u8]) -> Option<StoredKey<'_>> {
    let (&kind, rest) = key.split_first()?;
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let named = |rest: &'_ [u8]| {
        let end = rest.iter().position(|&byte| byte == 0)?;
        Some((end, end + 1))
    };
    Some(match kind {
        SESSION => StoredKey::Session(text(rest)?),
        CURSOR => StoredKey::Cursor(text(rest)?),
        RESENDS => StoredKey::Resends(text(rest)?),
        BOUND => StoredKey::Bound(text(rest)?),
        SUBSCRIPTION | ENDED => {
            let (end, tail) = named(rest)?;
            let (client, slot) = (text(&rest[..end])?, u32::from_be_bytes(rest[tail..].try_into().ok()?));
            match kind {
                SUBSCRIPTION => StoredKey::Subscription(client, slot),
                _ => StoredKey::Ended(client, slot),
            }
        }
        RECEIVED => {
            let (end, tail) = named(rest)?;
            StoredKey::Received(text(&rest[..end])?, u16::from_be_bytes(rest[tail..].try_into().ok()?))
        }
        GROUP => {
            let (end, tail) = named(rest)?;
            StoredKey::Group(text(&rest[..end])?, text(&rest[tail..])?)
        }
        MARK if rest.is_empty() => StoredKey::Mark,
        _ => return None,
    })
}

fn key(kind: u8, parts: &[&[u8]]) -> Bytes {
    let mut key = vec![kind];
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            key.push(0);
        }
        key.extend_from_slice(part);
    }
    key.into()
}

pub(super) fn session_key(client_id: &str) -> Bytes {
    key(SESSION, &[client_id.as_bytes()])
}

pub(super) fn cursor_key(client_id: &str) -> Bytes {
    key(CURSOR, &[client_id.as_bytes()])
}

pub(super) fn bound_key(client_id: &str) -> Bytes {
    key(BOUND, &[client_id.as_bytes()])
}

pub(super) fn subscription_key(client_id: &str, slot: u32) -> Bytes {
    key(SUBSCRIPTION, &[client_id.as_bytes(), &slot.to_be_bytes()])
}

/// Key and value that mark a version of a subscription as ended.
pub(super) fn ended(client_id: &str, slot: u32) -> (Bytes, Bytes) {
    let key = key(ENDED, &[client_id.as_bytes(), &slot.to_be_bytes()]);
    (key, Bytes::from_static(&[VERSION]))
}

pub(super) fn group_key(share: &ShareName, filter: &Filter) -> Bytes {
    key(GROUP, &[share.as_str().as_bytes(), filter.as_str().as_bytes()])
}

/// Key and value that mark an inbound QoS 2 packet ID as received.
pub(super) fn received(client_id: &str, packet_id: u16) -> (Bytes, Bytes) {
    let key = key(RECEIVED, &[client_id.as_bytes(), &packet_id.to_be_bytes()]);
    (key, Bytes::from_static(&[VERSION]))
}

pub(super) fn resends_key(client_id: &str) -> Bytes {
    key(RESENDS, &[client_id.as_bytes()])
}

/// Key and value of the level mark.
pub(super) fn mark(mark: CommitNumber) -> (Bytes, Bytes) {
    (key(MARK, &[]), commit(mark))
}

/// A value that is a commit: the level mark, or the bound of what a session may have been sent.
pub(super) fn commit(commit: CommitNumber) -> Bytes {
    let mut out = vec![VERSION];
    put_u64(&mut out, commit.0);
    out.into()
}

pub(super) fn decode_commit(value: &[u8]) -> Result<CommitNumber, DecodeError> {
    let mut input = versioned(value)?;
    let mark = take_u64(&mut input).map(CommitNumber);
    mark.filter(|_| input.is_empty()).ok_or(DecodeError::Damaged)
}

/// Checks a value whose key says all.
pub(super) fn decode_empty(value: &[u8]) -> Result<(), DecodeError> {
    let rest = versioned(value)?;
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Damaged)
    }
}

/// Checks the version byte and gives what follows.
fn versioned(value: &[u8]) -> Result<&[u8], DecodeError> {
    match value.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&newer, _)) if newer > VERSION => Err(DecodeError::Newer(newer)),
        _ => Err(DecodeError::Damaged),
    }
}
