//! What the core owes to the outside: changes for the store, answers that wait for them, reads and scans to be asked for.
//!
//! The commit under construction gets the ticket `open`. What waits for it is kept in one list in the order of tickets, which is
//! also the order in which answers leave each connection, as 5.0 asks of clients ([MQTT5-4.6.0-2] to [MQTT5-4.6.0-4]).
//! Keyed changes are gathered by key, the last one wins, so that a commit never holds two changes of one key.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use fellbeck_core::{CommitNumber, DropReason, LogPosition, Record, RecordBlockBuilder, TrackId};
use fellbeck_store::commit::{Append, Commit, Delete, Put, Space, Ticket, Urgency};

use super::counters::Counters;
use super::id_hash::BuildIdHasher;
use super::shared::GroupKey;
use super::state::SessionKey;
use super::subscription::{Subscribed, Unsubscribed};
use crate::wire::ConnId;

/// Submissions on their way beyond which one that nobody waits for is gathered, up to [`LAZY_BYTES`].
const LAZY_MAX: u64 = 8;
const LAZY_BYTES: usize = 64 << 10;

/// A reader of the log, for the list of those who want to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReaderKey {
    Session(SessionKey),
    Group(GroupKey),
}

/// Something that leaves when a commit is durable.
#[derive(Debug)]
pub(super) enum Awaited {
    ConnAck {
        session_present: bool,
    },
    PubAck {
        packet_id: u16,
        reason: u8,
    },
    PubRec {
        packet_id: u16,
        reason: u8,
    },
    PubComp {
        packet_id: u16,
        reason: u8,
    },
    Subscribed(Box<Subscribed>),
    Unsubscribed(Box<Unsubscribed>),
    /// Outbound QoS 2: the packet ID is durable.
    Publish {
        session: SessionKey,
        packet_id: u16,
    },
    /// The bound of what may be sent is durable.
    Bound {
        session: SessionKey,
    },
    /// What was published before these snapshots began is in the store.
    Snapshots {
        session: SessionKey,
        slots: Vec<u32>,
    },
    /// Messages that came down a link are durable.
    Inflow {
        number: u64,
    },
    /// Outbound QoS 2: that PUBREC was seen is durable.
    PubRel {
        session: SessionKey,
        packet_id: u16,
    },
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) conn: ConnId,
    pub(super) awaited: Awaited,
}

pub(super) struct Work {
    appends: Vec<(TrackId, RecordBlockBuilder)>,
    /// Where each track stands in `appends`.
    append_at: HashMap<TrackId, usize, BuildIdHasher>,
    /// Appends of a commit that was given back; they come first.
    given_back: Vec<Append>,
    bytes: usize,
    changes: Vec<(Space, Bytes, Option<Bytes>)>,
    change_at: HashMap<(Space, Bytes), usize>,
    floor: Option<CommitNumber>,
    /// Somebody waits for the commit under construction.
    urgent: bool,
    /// Last ticket that the store gave.
    last: Ticket,
    /// Last ticket that is durable.
    done: Ticket,
    /// Newest commit that is known to be durable.
    pub(super) newest: CommitNumber,
    pub(super) waiting: VecDeque<Waiting>,
    /// Readers whose cursor must be in the commit under construction.
    pub(super) cursors_now: Vec<ReaderKey>,
    /// Readers whose cursor moved; stored at the next flush.
    pub(super) cursors_later: Vec<ReaderKey>,
    /// Sessions whose table of open messages must be in the commit under construction.
    pub(super) resends_now: Vec<SessionKey>,
    /// Sessions whose table names more than it needs to; stored at the next flush.
    pub(super) resends_later: Vec<SessionKey>,
    pub(super) reads: VecDeque<ReaderKey>,
    pub(super) scans: VecDeque<SessionKey>,
    /// Deliveries of shared groups that members gave up; the groups are told when the call ends.
    pub(super) lost_by_group: Vec<(GroupKey, Option<LogPosition>, DropReason)>,
    pub(super) counters: Counters,
}

impl Work {
    pub(super) fn new() -> Self {
        Self {
            appends: Vec::new(),
            append_at: HashMap::default(),
            given_back: Vec::new(),
            bytes: 0,
            changes: Vec::new(),
            change_at: HashMap::new(),
            floor: None,
            urgent: false,
            last: Ticket(0),
            done: Ticket(0),
            newest: CommitNumber(0),
            waiting: VecDeque::new(),
            cursors_now: Vec::new(),
            cursors_later: Vec::new(),
            resends_now: Vec::new(),
            resends_later: Vec::new(),
            reads: VecDeque::new(),
            scans: VecDeque::new(),
            lost_by_group: Vec::new(),
            counters: Counters::new(),
        }
    }

    /// Adds a record to the commit under construction. Whoever waits for it asks for that commit.
    pub(super) fn append(&mut self, track: TrackId, record: &Record<'_>) {
        let index = *self.append_at.entry(track).or_insert_with(|| {
            self.appends.push((track, RecordBlockBuilder::default()));
            self.appends.len() - 1
        });
        let builder = &mut self.appends[index].1;
        let before = builder.byte_len();
        builder.push(record);
        self.bytes += builder.byte_len() - before;
    }

    pub(super) fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.change(space, key, Some(value));
    }

    pub(super) fn delete(&mut self, space: Space, key: Bytes) {
        self.change(space, key, None);
    }

    fn change(&mut self, space: Space, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        match self.change_at.get(&(space, key.clone())) {
            Some(&index) => self.changes[index].2 = value,
            None => {
                self.change_at.insert((space, key.clone()), self.changes.len());
                self.changes.push((space, key, value));
            }
        }
    }

    pub(super) fn set_floor(&mut self, floor: CommitNumber) {
        self.floor = Some(floor);
    }

    /// The commit under construction must be made at once, even if it is empty.
    pub(super) fn want_commit(&mut self) {
        self.urgent = true;
    }

    /// Everything accepted before now will be durable with this ticket.
    pub(super) fn open(&self) -> Ticket {
        Ticket(self.last.0 + 1)
    }

    /// Nothing that was accepted still waits for its commit.
    pub(super) fn is_settled(&self) -> bool {
        self.done == self.last && !self.urgent && self.appends.is_empty() && self.changes.is_empty()
    }

    /// Last ticket that is durable.
    pub(super) fn done(&self) -> Ticket {
        self.done
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.last.0 - self.done.0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `awaited` leaves when all that was accepted so far is durable.
    pub(super) fn wait(&mut self, conn: ConnId, awaited: Awaited) {
        self.urgent = true;
        let ticket = self.open();
        self.waiting.push_back(Waiting { ticket, conn, awaited });
    }

    /// `awaited` needs no commit, but leaves behind what waits already.
    pub(super) fn wait_in_line(&mut self, conn: ConnId, awaited: Awaited) {
        let ticket = self.waiting.back().map_or(self.done, |last| last.ticket);
        self.waiting.push_back(Waiting { ticket, conn, awaited });
    }

    /// Next that may leave.
    pub(super) fn next_durable(&mut self) -> Option<Waiting> {
        if self.waiting.front()?.ticket > self.done {
            return None;
        }
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.urgent
            && self.appends.is_empty()
            && self.given_back.is_empty()
            && self.changes.is_empty()
            && self.floor.is_none()
    }

    /// Nobody waits for what there is, and enough of the kind is on its way: it is gathered, so that it stops nobody from reading.
    pub(super) fn may_wait(&self) -> bool {
        !self.urgent && self.outstanding() >= LAZY_MAX && self.bytes < LAZY_BYTES
    }

    pub(super) fn take(&mut self) -> Commit {
        let mut commit = Commit {
            appends: std::mem::take(&mut self.given_back),
            session_floor: self.floor.take(),
            urgency: if self.urgent { Urgency::Now } else { Urgency::Lazy },
            ..Commit::default()
        };
        for (track, mut builder) in self.appends.drain(..) {
            let block = builder.finish();
            commit.appends.push(Append { track, block });
        }
        self.append_at.clear();
        self.change_at.clear();
        for (space, key, value) in self.changes.drain(..) {
            match value {
                Some(value) => commit.puts.push(Put { space, key, value }),
                None => commit.deletes.push(Delete { space, key }),
            }
        }
        self.bytes = 0;
        self.urgent = false;
        commit
    }

    /// The store did not take `commit`: it is part of the next one, before everything newer.
    pub(super) fn give_back(&mut self, commit: Commit) {
        let newer = std::mem::take(&mut self.changes);
        self.change_at.clear();
        self.bytes += commit
            .appends
            .iter()
            .map(|append| append.block.bytes().len())
            .sum::<usize>();
        let mut appends = commit.appends;
        appends.append(&mut self.given_back);
        self.given_back = appends;
        for put in commit.puts {
            self.put(put.space, put.key, put.value);
        }
        for delete in commit.deletes {
            self.delete(delete.space, delete.key);
        }
        for (space, key, value) in newer {
            self.change(space, key, value);
        }
        self.floor = self.floor.or(commit.session_floor);
        self.urgent |= commit.urgency == Urgency::Now;
    }

    pub(super) fn submitted(&mut self, ticket: Ticket) {
        assert_eq!(ticket, self.open(), "tickets rise by one from 1");
        self.last = ticket;
    }

    pub(super) fn committed(&mut self, ticket: Ticket, commit: CommitNumber) {
        assert!(
            ticket > self.done && ticket <= self.last,
            "each ticket is answered once, in order"
        );
        self.done = ticket;
        self.newest = self.newest.max(commit);
    }
}
