//! The stored cursor of a shared group: head, positions that members hold, books.

use bytes::Bytes;
use fellbeck_core::varint::{put_u64, take_u64};
use fellbeck_core::{CommitNumber, DropReason, LogPosition};

use super::fields::{put_ledger, put_position, take_byte, take_ledger, take_list, take_position};
use super::{DecodeError, VERSION, group_key, versioned};
use crate::session::ledger::ReaderLedger;
use crate::session::shared::Group;

const LEVEL: u8 = 1;

/// A group as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct StoredGroup {
    pub(in crate::session) level: bool,
    /// `None`: the commit that wrote it.
    pub(in crate::session) since: Option<CommitNumber>,
    pub(in crate::session) head: LogPosition,
    /// Positions that members hold or gave back.
    pub(in crate::session) outstanding: Vec<LogPosition>,
    pub(in crate::session) unread: u64,
    pub(in crate::session) ledger: ReaderLedger,
}

pub(in crate::session) fn group(group: &Group, fanned: CommitNumber) -> (Bytes, Bytes) {
    let stored = StoredGroup {
        level: group.reader.is_level(),
        since: group.since,
        head: group.reader.head(fanned),
        outstanding: group.outstanding.union(&group.returned).copied().collect(),
        unread: group.reader.unread,
        ledger: stored_ledger(group),
    };
    (group_key(&group.share, &group.filter), stored.encode())
}

/// The books as they are after a kill: what came back counts as taken up again, like all that is outstanding; what no log holds
/// is lost with the process.
fn stored_ledger(group: &Group) -> ReaderLedger {
    let mut ledger = group.reader.ledger.clone();
    let in_memory = ledger.in_flight().saturating_sub(group.outstanding.len() as u64);
    ledger.drop_taken(DropReason::NotLogged, in_memory);
    ledger.matched += group.returned.difference(&group.outstanding).count() as u64;
    ledger
}

const GROUP_SINCE: u8 = 2;

impl StoredGroup {
    pub(in crate::session) fn encode(&self) -> Bytes {
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

    pub(in crate::session) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
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
