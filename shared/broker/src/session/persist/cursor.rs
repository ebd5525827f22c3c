//! The stored cursor of a session: head, in-flight table, snapshots of retained messages under way, books.
//!
//! One value, so that it is consistent with itself: every record below the head is acknowledged or in the table.

use bytes::Bytes;
use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{CommitNumber, DropReason, LogPosition, QoS};

use super::fields::{put_ledger, put_position, take_byte, take_ledger, take_list, take_position, take_u16};
use super::{DecodeError, VERSION, cursor_key, versioned};
use crate::session::in_flight::{Entry, Source, Step};
use crate::session::ledger::ReaderLedger;
use crate::session::retained::Snapshot;
use crate::session::state::Session;

/// Where a stored in-flight message can be had again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) enum StoredSource {
    Log(LogPosition),
    /// By the subscription in this slot.
    Group(u32, LogPosition),
    /// Key, commit of the value, slot of the subscription.
    Retained(Bytes, CommitNumber, u32),
}

/// One in-flight message as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct StoredEntry {
    pub(in crate::session) packet_id: u16,
    pub(in crate::session) qos: QoS,
    pub(in crate::session) step: Step,
    pub(in crate::session) source: StoredSource,
}

/// A session's cursor as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct StoredCursor {
    /// The head follows the level mark.
    pub(in crate::session) level: bool,
    pub(in crate::session) head: LogPosition,
    pub(in crate::session) last_packet_id: u16,
    pub(in crate::session) in_flight: Vec<StoredEntry>,
    /// Slot, `since`, and the last key sent, of each snapshot of retained messages that is not complete.
    pub(in crate::session) snapshots: Vec<(u32, CommitNumber, Option<Bytes>)>,
    pub(in crate::session) unread: u64,
    pub(in crate::session) ledger: ReaderLedger,
}

pub(in crate::session) fn cursor(session: &Session, fanned: CommitNumber) -> (Bytes, Bytes) {
    let stored = StoredCursor {
        level: session.reader.is_level(),
        head: session.reader.head(fanned),
        last_packet_id: session.in_flight.last_id(),
        in_flight: session
            .in_flight
            .iter()
            .filter_map(|entry| stored_entry(session, entry))
            .collect(),
        snapshots: session.snapshots.iter().map(stored_snapshot).collect(),
        unread: session.reader.unread,
        ledger: stored_ledger(session),
    };
    (cursor_key(&session.client_id), stored.encode())
}

/// The books as they are after a kill: what no log holds is lost with the process.
fn stored_ledger(session: &Session) -> ReaderLedger {
    let mut ledger = session.reader.ledger.clone();
    let in_memory = session
        .in_flight
        .iter()
        .filter(|entry| matches!(entry.source, Source::Memory(_)));
    ledger.drop_taken(DropReason::NotLogged, in_memory.count() as u64);
    ledger
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
        Source::Retained(topic, commit, slot, _) => StoredSource::Retained(topic.clone(), *commit, *slot),
        Source::Memory(_) | Source::GroupMemory { .. } | Source::GivenUp => return None,
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
    pub(in crate::session) fn encode(&self) -> Bytes {
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

    pub(in crate::session) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
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
                let after = match has_after {
                    0 if after.is_empty() => None,
                    1 => Some(after),
                    _ => return None,
                };
                Some((slot, since, after))
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
            StoredSource::Retained(topic, commit, slot) => {
                put_bytes(out, topic);
                put_u64(out, commit.0);
                put_u64(out, u64::from(*slot));
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
                    take_u32(input)?,
                ),
                _ => return None,
            },
        })
    }
}
