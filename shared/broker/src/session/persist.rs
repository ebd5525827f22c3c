//! Codec of what is stored of sessions and groups, in `Space::Session`. Drawn in `docs/format/session.md`.
//!
//! Each value begins with a version byte; numbers are varints. A value of a newer version stops the restore, a damaged one costs
//! what it described. When a subscription begins and ends is not in
//! any value: it is the store's stamp on the two keys that were written then.

use bytes::Bytes;
use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{ClockQuality, CommitNumber, DropReason, Filter, LogPosition, QoS, ShareName, WallTime};

use super::Now;
use super::in_flight::{Entry, Source, Step};
use super::ledger::ReaderLedger;
use super::retained::Snapshot;
use super::session::Session;
use super::shared::Group;
use super::subscription::{Options, SubscriptionVersion};
use crate::wire::Will;

pub(super) const VERSION: u8 = 1;

const SESSION: u8 = b'M';
const CURSOR: u8 = b'C';
const SUBSCRIPTION: u8 = b'S';
const ENDED: u8 = b'E';
const RECEIVED: u8 = b'Q';
const GROUP: u8 = b'G';
const MARK: u8 = b'L';

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

/// Key and value of the level mark.
pub(super) fn mark(commit: CommitNumber) -> (Bytes, Bytes) {
    let mut out = vec![VERSION];
    put_u64(&mut out, commit.0);
    (key(MARK, &[]), out.into())
}

pub(super) fn decode_mark(value: &[u8]) -> Result<CommitNumber, DecodeError> {
    let mut input = versioned(value)?;
    let mark = take_u64(&mut input).map(CommitNumber);
    mark.filter(|_| input.is_empty()).ok_or(DecodeError::Damaged)
}

/// Checks the version byte and gives what follows.
pub(super) fn versioned(value: &[u8]) -> Result<&[u8], DecodeError> {
    match value.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&newer, _)) if newer > VERSION => Err(DecodeError::Newer(newer)),
        _ => Err(DecodeError::Damaged),
    }
}

/// What is stored of a session apart from its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredSession {
    pub(super) expiry_secs: u32,
    /// When it lost its connection; `None`: it was connected.
    pub(super) left: Option<(WallTime, ClockQuality)>,
    pub(super) will: Option<Will>,
}

pub(super) fn session(session: &Session, now: Now) -> (Bytes, Bytes) {
    let stored = StoredSession {
        expiry_secs: session.expiry_secs,
        left: session.attached.is_none().then_some((now.wall, now.clock)),
        will: session.will.as_deref().cloned(),
    };
    (session_key(&session.client_id), stored.encode())
}

const HAS_LEFT: u8 = 1;
const HAS_WILL: u8 = 2;
const WILL_RETAIN: u8 = 4;
const WILL_EXPIRY: u8 = 8;

impl StoredSession {
    fn encode(&self) -> Bytes {
        let will = self.will.as_ref();
        let mut flags = 0;
        for (flag, set) in [
            (HAS_LEFT, self.left.is_some()),
            (HAS_WILL, will.is_some()),
            (WILL_RETAIN, will.is_some_and(|will| will.retain)),
            (WILL_EXPIRY, will.is_some_and(|will| will.expiry_secs.is_some())),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut out = vec![VERSION, flags];
        put_u64(&mut out, u64::from(self.expiry_secs));
        if let Some((at, clock)) = self.left {
            put_u64(&mut out, at.0);
            out.push(clock as u8);
        }
        if let Some(will) = will {
            out.push(will.qos as u8);
            put_bytes(&mut out, will.topic.as_bytes());
            put_bytes(&mut out, &will.payload);
            put_bytes(&mut out, &will.properties);
            put_u64(&mut out, u64::from(will.delay_secs));
            if let Some(secs) = will.expiry_secs {
                put_u64(&mut out, u64::from(secs));
            }
        }
        out.into()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(value)?;
        let stored = Self::take(&mut input).filter(|_| input.is_empty());
        stored.ok_or(DecodeError::Damaged)
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let flags = take_byte(input)?;
        if flags > (HAS_LEFT | HAS_WILL | WILL_RETAIN | WILL_EXPIRY) {
            return None;
        }
        Some(Self {
            expiry_secs: take_u32(input)?,
            left: match flags & HAS_LEFT {
                0 => None,
                _ => Some((WallTime(take_u64(input)?), ClockQuality::from_u8(take_byte(input)?)?)),
            },
            will: match flags & HAS_WILL {
                0 => None,
                _ => Some(take_will(input, flags)?),
            },
        })
    }
}

fn take_will(input: &mut &[u8], flags: u8) -> Option<Will> {
    let qos = QoS::from_u8(take_byte(input)?)?;
    let topic = take_text(input)?.to_owned();
    fellbeck_core::validate_topic_name(&topic).ok()?;
    let payload = take_bytes(input)?.to_vec();
    let properties = take_bytes(input)?.to_vec();
    fellbeck_core::Properties::parse(&properties).ok()?;
    Some(Will {
        topic,
        payload,
        qos,
        retain: flags & WILL_RETAIN != 0,
        properties,
        delay_secs: take_u32(input)?,
        expiry_secs: match flags & WILL_EXPIRY {
            0 => None,
            _ => Some(take_u32(input)?),
        },
    })
}

/// Where a stored in-flight message can be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StoredSource {
    Log(LogPosition),
    /// By the subscription in this slot.
    Group(u32, LogPosition),
    Retained(Bytes, CommitNumber),
}

/// One in-flight message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredEntry {
    pub(super) packet_id: u16,
    pub(super) qos: QoS,
    pub(super) step: Step,
    pub(super) source: StoredSource,
}

/// A session's cursor as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredCursor {
    /// The head follows the level mark.
    pub(super) level: bool,
    pub(super) head: LogPosition,
    pub(super) last_packet_id: u16,
    pub(super) in_flight: Vec<StoredEntry>,
    /// Slot, `since`, and the last key sent, of each snapshot of retained messages that is not complete.
    pub(super) snapshots: Vec<(u32, CommitNumber, Option<Bytes>)>,
    pub(super) unread: u64,
    pub(super) ledger: ReaderLedger,
}

pub(super) fn cursor(session: &Session, fanned: CommitNumber) -> (Bytes, Bytes) {
    let stored = StoredCursor {
        level: session.reader.is_level(),
        head: session.reader.head(fanned),
        last_packet_id: session.in_flight.last_id(),
        in_flight: session.in_flight.iter().filter_map(|entry| stored_entry(session, entry)).collect(),
        snapshots: session.snapshots.iter().map(stored_snapshot).collect(),
        unread: session.reader.unread,
        ledger: session.reader.ledger.clone(),
    };
    (cursor_key(&session.client_id), stored.encode())
}

fn stored_snapshot(snapshot: &Snapshot) -> (u32, CommitNumber, Option<Bytes>) {
    (snapshot.slot, snapshot.since, snapshot.after.clone())
}

/// Messages that no log holds are lost with the process, so they are not stored.
fn stored_entry(session: &Session, entry: &Entry) -> Option<StoredEntry> {
    let source = match &entry.source {
        Source::Log(position) => StoredSource::Log(*position),
        Source::Group { group, position, .. } => {
            let (slot, _) = session.groups.iter().find(|(_, of)| of == group)?;
            StoredSource::Group(*slot, *position)
        }
        Source::Retained(topic, commit) => StoredSource::Retained(topic.clone(), *commit),
        Source::Memory(_) | Source::GroupMemory { .. } => return None,
    };
    Some(StoredEntry {
        packet_id: entry.packet_id,
        qos: entry.qos,
        step: match entry.step {
            // After a crash nobody knows whether it was sent.
            Step::Reserved | Step::Sent => Step::Sent,
            Step::Received => Step::Received,
            Step::Released => Step::Released,
            Step::Gone => return None,
        },
        source,
    })
}

const LEVEL: u8 = 1;

impl StoredCursor {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, u8::from(self.level)];
        put_position(&mut out, self.head);
        put_u64(&mut out, u64::from(self.last_packet_id));
        put_u64(&mut out, self.in_flight.len() as u64);
        for entry in &self.in_flight {
            entry.put(&mut out);
        }
        put_u64(&mut out, self.snapshots.len() as u64);
        for (slot, since, after) in &self.snapshots {
            put_u64(&mut out, u64::from(*slot));
            put_u64(&mut out, since.0);
            out.push(u8::from(after.is_some()));
            put_bytes(&mut out, after.as_deref().unwrap_or_default());
        }
        put_u64(&mut out, self.unread);
        put_ledger(&mut out, &self.ledger);
        out.into()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(value)?;
        let stored = Self::take(&mut input).filter(|_| input.is_empty());
        stored.ok_or(DecodeError::Damaged)
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let flags = take_byte(input).filter(|flags| *flags <= LEVEL)?;
        Some(Self {
            level: flags & LEVEL != 0,
            head: take_position(input)?,
            last_packet_id: take_u16(input)?,
            in_flight: take_list(input, StoredEntry::take)?,
            snapshots: take_list(input, |input| {
                let (slot, since) = (take_u32(input)?, CommitNumber(take_u64(input)?));
                let has_after = take_byte(input)?;
                let after = Bytes::copy_from_slice(take_bytes(input)?);
                Some((slot, since, (has_after == 1).then_some(after)))
            })?,
            unread: take_u64(input)?,
            ledger: take_ledger(input)?,
        })
    }
}

impl StoredEntry {
    fn put(&self, out: &mut Vec<u8>) {
        let step = match self.step {
            Step::Reserved | Step::Sent | Step::Gone => 0,
            Step::Received => 1,
            Step::Released => 2,
        };
        let source = match self.source {
            StoredSource::Log(_) => 0,
            StoredSource::Group(..) => 1,
            StoredSource::Retained(..) => 2,
        };
        put_u64(out, u64::from(self.packet_id));
        out.push(self.qos as u8 | step << 2 | source << 4);
        match &self.source {
            StoredSource::Log(position) => put_position(out, *position),
            StoredSource::Group(slot, position) => {
                put_u64(out, u64::from(*slot));
                put_position(out, *position);
            }
            StoredSource::Retained(topic, commit) => {
                put_bytes(out, topic);
                put_u64(out, commit.0);
            }
        }
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let packet_id = take_u16(input)?;
        let kind = take_byte(input)?;
        Some(Self {
            packet_id,
            qos: QoS::from_u8(kind & 3).filter(|qos| *qos != QoS::AtMostOnce)?,
            step: match kind >> 2 & 3 {
                0 => Step::Sent,
                1 => Step::Received,
                2 => Step::Released,
                _ => return None,
            },
            source: match kind >> 4 {
                0 => StoredSource::Log(take_position(input)?),
                1 => StoredSource::Group(take_u32(input)?, take_position(input)?),
                2 => StoredSource::Retained(
                    Bytes::copy_from_slice(take_bytes(input)?),
                    CommitNumber(take_u64(input)?),
                ),
                _ => return None,
            },
        })
    }
}

const SUB_SHARE: u8 = 1;
const SUB_NO_LOCAL: u8 = 2;
const SUB_RETAIN: u8 = 4;
const SUB_ID: u8 = 8;

/// One version of a subscription. It is written once: the commit that wrote it is the one after which it is in force.
pub(super) fn subscription(version: &SubscriptionVersion) -> Bytes {
    let mut flags = 0;
    for (flag, set) in [
        (SUB_SHARE, version.share.is_some()),
        (SUB_NO_LOCAL, version.options.no_local),
        (SUB_RETAIN, version.options.retain_as_published),
        (SUB_ID, version.options.id.is_some()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let mut out = vec![VERSION, flags, version.options.qos as u8];
    put_bytes(&mut out, version.filter.as_str().as_bytes());
    if let Some(share) = &version.share {
        put_bytes(&mut out, share.as_str().as_bytes());
    }
    if let Some(id) = version.options.id {
        put_u64(&mut out, u64::from(id));
    }
    out.into()
}

/// Reads a version that `commit` wrote under `slot`.
pub(super) fn decode_subscription(
    value: &[u8],
    slot: u32,
    commit: CommitNumber,
) -> Result<SubscriptionVersion, DecodeError> {
    let mut input = versioned(value)?;
    let stored = take_subscription(&mut input, slot, commit).filter(|_| input.is_empty());
    stored.ok_or(DecodeError::Damaged)
}

fn take_subscription(input: &mut &[u8], slot: u32, commit: CommitNumber) -> Option<SubscriptionVersion> {
    let flags = take_byte(input).filter(|flags| *flags < 16)?;
    let has = |flag: u8| flags & flag != 0;
    let qos = QoS::from_u8(take_byte(input)?)?;
    let filter = take_text(input)?;
    let subscription = match has(SUB_SHARE) {
        // A share name is checked where a SUBSCRIBE is.
        true => Filter::parse_subscription(&format!("$share/{}/{filter}", take_text(input)?)).ok()?,
        false => fellbeck_core::Subscription {
            share: None,
            filter: Filter::parse(filter).ok()?,
        },
    };
    let id = if has(SUB_ID) { Some(take_u32(input)?) } else { None };
    Some(SubscriptionVersion {
        slot,
        share: subscription.share,
        filter: subscription.filter,
        options: Options {
            qos,
            no_local: has(SUB_NO_LOCAL),
            retain_as_published: has(SUB_RETAIN),
            id,
        },
        since: Some(commit),
        until: None,
        closing: false,
    })
}

/// A group as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredGroup {
    pub(super) level: bool,
    /// `None`: the commit that wrote it.
    pub(super) since: Option<CommitNumber>,
    pub(super) head: LogPosition,
    /// Positions that members hold or gave back.
    pub(super) outstanding: Vec<LogPosition>,
    pub(super) unread: u64,
    pub(super) ledger: ReaderLedger,
}

pub(super) fn group(group: &Group, fanned: CommitNumber) -> (Bytes, Bytes) {
    let stored = StoredGroup {
        level: group.reader.is_level(),
        since: group.since,
        head: group.reader.head(fanned),
        outstanding: group.outstanding.union(&group.returned).copied().collect(),
        unread: group.reader.unread,
        ledger: group.reader.ledger.clone(),
    };
    (group_key(&group.share, &group.filter), stored.encode())
}

const GROUP_SINCE: u8 = 2;

impl StoredGroup {
    fn encode(&self) -> Bytes {
        let since = if self.since.is_some() { GROUP_SINCE } else { 0 };
        let mut out = vec![VERSION, u8::from(self.level) | since];
        if let Some(since) = self.since {
            put_u64(&mut out, since.0);
        }
        put_position(&mut out, self.head);
        put_u64(&mut out, self.outstanding.len() as u64);
        for position in &self.outstanding {
            put_position(&mut out, *position);
        }
        put_u64(&mut out, self.unread);
        put_ledger(&mut out, &self.ledger);
        out.into()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(value)?;
        let stored = Self::take(&mut input).filter(|_| input.is_empty());
        stored.ok_or(DecodeError::Damaged)
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let flags = take_byte(input).filter(|flags| *flags <= LEVEL | GROUP_SINCE)?;
        Some(Self {
            level: flags & LEVEL != 0,
            since: match flags & GROUP_SINCE {
                0 => None,
                _ => Some(CommitNumber(take_u64(input)?)),
            },
            head: take_position(input)?,
            outstanding: take_list(input, take_position)?,
            unread: take_u64(input)?,
            ledger: take_ledger(input)?,
        })
    }
}

fn put_ledger(out: &mut Vec<u8>, ledger: &ReaderLedger) {
    for n in [ledger.matched, ledger.acked, ledger.expired, ledger.skipped] {
        put_u64(out, n);
    }
    put_u64(out, ledger.dropped.len() as u64);
    for (reason, count) in &ledger.dropped {
        out.push(*reason as u8);
        put_u64(out, *count);
    }
}

fn take_ledger(input: &mut &[u8]) -> Option<ReaderLedger> {
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

fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    put_u64(out, position.commit.0);
    put_u64(out, u64::from(position.index));
}

fn take_position(input: &mut &[u8]) -> Option<LogPosition> {
    Some(LogPosition {
        commit: CommitNumber(take_u64(input)?),
        index: take_u32(input)?,
    })
}

/// Takes a counted list. The count is never trusted for memory: each element takes at least one byte.
fn take_list<T>(input: &mut &[u8], take: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = usize::try_from(take_u64(input)?).ok().filter(|count| *count <= input.len())?;
    (0..count).map(|_| take(input)).collect()
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

fn take_u16(input: &mut &[u8]) -> Option<u16> {
    u16::try_from(take_u64(input)?).ok()
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(input)?).ok()
}
