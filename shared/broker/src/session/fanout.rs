//! Fan-out: from one message to every reader that it matches.
//!
//! Committed records go to sessions with a cursor and to groups, in commit order; messages are offered to sessions served from
//! memory when they come in. Several matching subscriptions of one session make one delivery, with the highest QoS and all
//! subscription identifiers [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4].
//! Nothing is allocated per record: matches are gathered in a list that is used again, and a reader is recognised by a stamp.

use std::sync::Arc;

use fellbeck_core::{CommitNumber, DropReason, LogPosition, QoS, Record, Trie};
use fellbeck_store::committed::CommittedBlock;

use super::edge::is_kept_back;
use super::message::{MemoryMessage, MessageRef, Offer, Place};
use super::reader::{Mode, Reader};
use super::shared::{Desk, GroupKey, GroupOffer, Groups};
use super::state::{Kind, Session, SessionKey, Sessions};
use super::turn::Turn;
use super::versions::{SubscriptionVersion, is_local};
use super::work::Work;
use super::{Core, CoreLimits, Now};
use crate::wire::Wire;

/// Who is subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Session(SessionKey),
    Group(GroupKey),
}

/// One subscription as it stands in the trie. Equal by its target and slot, so that a changed one replaces the old.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subscriber {
    target: Target,
    slot: u32,
    qos: QoS,
    no_local: bool,
    retain_as_published: bool,
    /// Subscription Identifier; 0: none.
    id: u32,
    /// In force for commits in `(since, until]`.
    since: CommitNumber,
    until: CommitNumber,
}

impl PartialEq for Subscriber {
    fn eq(&self, other: &Self) -> bool {
        (self.target, self.slot) == (other.target, other.slot)
    }
}

const FOR_EVER: CommitNumber = CommitNumber(u64::MAX);

impl Subscriber {
    pub(super) fn of_session(key: SessionKey, version: &SubscriptionVersion) -> Self {
        Self {
            target: Target::Session(key),
            slot: version.slot,
            qos: version.options.qos,
            no_local: version.options.no_local,
            retain_as_published: version.options.retain_as_published,
            id: version.options.id.unwrap_or(0),
            since: version.since.unwrap_or_default(),
            until: version.until.unwrap_or(FOR_EVER),
        }
    }

    /// The members decide on QoS and flags.
    pub(super) fn of_group(key: GroupKey, since: CommitNumber) -> Self {
        Self {
            target: Target::Group(key),
            slot: 0,
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: true,
            id: 0,
            since,
            until: FOR_EVER,
        }
    }

    /// `None`: a message that is in no commit; only what is in force for good counts.
    fn covers(&self, commit: Option<CommitNumber>) -> bool {
        match commit {
            Some(commit) => self.since < commit && commit <= self.until,
            None => self.until == FOR_EVER,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Match {
    target: Target,
    qos: QoS,
    retain: bool,
    id: u32,
    /// There are more identifiers in `more_ids`.
    has_more_ids: bool,
}

/// The readers that one message matches. Kept between messages for its memory.
#[derive(Debug, Default)]
pub(super) struct Matches {
    list: Vec<Match>,
    more_ids: Vec<(u32, u32)>,
    ids: Vec<u32>,
    stamp: u64,
}

impl Matches {
    fn collect(
        &mut self,
        trie: &Trie<Subscriber>,
        record: &Record<'_>,
        commit: Option<CommitNumber>,
        (sessions, groups): (&mut Sessions, &mut Groups),
    ) {
        self.list.clear();
        self.more_ids.clear();
        self.stamp += 1;
        trie.matches(record.topic, |subscriber| {
            if !subscriber.covers(commit) {
                return;
            }
            let reader = match subscriber.target {
                Target::Session(key) => match sessions.get_mut(key) {
                    Some(session) if subscriber.no_local && is_local(record, &session.client_id) => None,
                    Some(session) if is_kept_back(record, &session.client_id, Some(subscriber.id)) => None,
                    Some(session) => Some(&mut session.reader),
                    None => None,
                },
                Target::Group(key) => groups.get_mut(key).map(|group| &mut group.reader),
            };
            if let Some(reader) = reader {
                self.add(subscriber, record, reader);
            }
        });
    }

    fn add(&mut self, subscriber: &Subscriber, record: &Record<'_>, reader: &mut Reader) {
        let qos = subscriber.qos.min(record.qos);
        let retain = subscriber.retain_as_published && record.retain;
        if reader.stamp != self.stamp {
            reader.stamp = self.stamp;
            reader.match_at = self.list.len() as u32;
            self.list.push(Match {
                target: subscriber.target,
                qos,
                retain,
                id: subscriber.id,
                has_more_ids: false,
            });
            return;
        }
        let present = &mut self.list[reader.match_at as usize];
        present.qos = present.qos.max(qos);
        present.retain |= retain;
        if subscriber.id != 0 {
            if present.id == 0 {
                present.id = subscriber.id;
            } else {
                present.has_more_ids = true;
                self.more_ids.push((reader.match_at, subscriber.id));
            }
        }
    }

    /// The match at `index` with its subscription identifiers.
    fn get(&mut self, index: usize) -> (Match, &[u32]) {
        let found = self.list[index];
        self.ids.clear();
        if found.id != 0 {
            self.ids.push(found.id);
        }
        if found.has_more_ids {
            let of_this = self.more_ids.iter().filter(|(at, _)| *at as usize == index);
            self.ids.extend(of_this.map(|(_, id)| *id));
        }
        (found, &self.ids)
    }
}

impl Core {
    /// Fans out the records of one commit. Blocks come in commit order, without holes.
    ///
    /// Every `Committed` of a commit below `block.commit` must have been given to `handle_committed` before: see [`Core`].
    pub fn handle_tail<W: Wire>(&mut self, block: &Arc<CommittedBlock>, now: Now, wire: &mut W) {
        if block.commit <= self.fanned {
            return;
        }
        let turn = &mut Turn::new(now, wire);
        self.fanned_bytes += block.byte_len() as u64;
        if !self.committed.is_empty() {
            for (track, part) in block.tracks.iter().enumerate() {
                for (index, record) in part.block.iter().enumerate() {
                    let position = LogPosition {
                        commit: block.commit,
                        index: part.first_index + index as u32,
                    };
                    let message = MessageRef::Logged(block, track as u32, index as u32);
                    self.fan_out_committed(&record, message, position, turn);
                }
            }
        }
        self.fanned = block.commit;
        self.mark_due = true;
        self.work.newest = self.work.newest.max(block.commit);
        self.drop_ended();
        self.settle_groups(turn);
    }

    /// The tail was just read and holds no block that the core has not been given: call it before further `handle_committed`.
    ///
    /// It lets heads move over commits that hold no records.
    pub fn handle_tail_empty(&mut self) {
        self.fanned = self.fanned.max(self.work.newest);
        self.drop_ended();
    }

    /// The tail has moved past what the core was given: `next` is the first commit whose block will come. Live readers go on in
    /// the log.
    pub fn handle_tail_behind(&mut self, next: CommitNumber) {
        self.mark_due = true;
        let missed = LogPosition::after(self.fanned);
        for key in self.sessions.keys() {
            if let Some(session) = self.sessions.get_mut(key)
                && session.kind != Kind::Immediate
                && session.reader.mode == Mode::Live
            {
                let from = session.reader.filled(self.fanned).max(missed);
                session.reader.fall_behind(from);
                session.moved(&mut self.work);
                session.enlist(&mut self.work);
            }
        }
        for key in self.groups.keys() {
            if let Some(group) = self.groups.get_mut(key)
                && group.reader.mode == Mode::Live
            {
                let from = group.reader.filled(self.fanned).max(missed);
                group.reader.fall_behind(from);
                group.moved(&mut self.work);
            }
            self.enlist_group(key);
        }
        self.fanned = self.fanned.max(CommitNumber(next.0.saturating_sub(1)));
        self.work.newest = self.work.newest.max(self.fanned);
        self.drop_ended();
    }

    fn fan_out_committed<W: Wire>(
        &mut self,
        record: &Record<'_>,
        message: MessageRef<'_>,
        position: LogPosition,
        turn: &mut Turn<'_, W>,
    ) {
        let mut matches = std::mem::take(&mut self.matches);
        let readers = (&mut self.sessions, &mut self.groups);
        matches.collect(&self.committed, record, Some(position.commit), readers);
        for index in 0..matches.list.len() {
            let (found, ids) = matches.get(index);
            match found.target {
                Target::Session(key) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        let offer = Offer {
                            record: *record,
                            message,
                            place: Place::Log(position),
                            qos: found.qos,
                            retain: found.retain,
                            ids,
                        };
                        let bounds = Bounds::of(&self.config.limits, self.fanned_bytes);
                        session.offer_committed(&offer, position, bounds, &mut self.work, turn);
                    }
                }
                Target::Group(key) => self.offer_group(
                    key,
                    &GroupOffer {
                        record: *record,
                        message,
                        position: Some(position),
                    },
                    turn,
                ),
            }
        }
        self.matches = matches;
    }

    fn offer_group<W: Wire>(&mut self, key: GroupKey, offer: &GroupOffer<'_>, turn: &mut Turn<'_, W>) {
        let bounds = Bounds::of(&self.config.limits, self.fanned_bytes);
        let mut desk = Desk {
            sessions: &mut self.sessions,
            work: &mut self.work,
        };
        if let Some(group) = self.groups.get_mut(key) {
            group.offer(offer, bounds, &mut desk, turn);
        }
    }

    /// Offers a message that comes in to the sessions that are served from memory.
    pub(super) fn fan_out_immediate<W: Wire>(&mut self, message: &MemoryMessage<'_>, turn: &mut Turn<'_, W>) {
        if self.immediate.is_empty() {
            return;
        }
        let mut matches = std::mem::take(&mut self.matches);
        let readers = (&mut self.sessions, &mut self.groups);
        matches.collect(&self.immediate, &message.record, None, readers);
        self.offer_from_memory(&mut matches, message, turn);
        self.matches = matches;
    }

    /// Offers a message that no log holds to everybody who is connected.
    pub(super) fn fan_out_unlogged<W: Wire>(&mut self, message: &MemoryMessage<'_>, turn: &mut Turn<'_, W>) {
        self.fan_out_immediate(message, turn);
        if self.committed.is_empty() {
            return;
        }
        let mut matches = std::mem::take(&mut self.matches);
        let readers = (&mut self.sessions, &mut self.groups);
        matches.collect(&self.committed, &message.record, None, readers);
        self.offer_from_memory(&mut matches, message, turn);
        self.matches = matches;
        self.settle_groups(turn);
    }

    /// Offers a value of the node's own to everybody who is connected; of a group, to one member.
    pub(super) fn fan_out_status<W: Wire>(&mut self, message: &MemoryMessage<'_>, turn: &mut Turn<'_, W>) {
        let mut matches = std::mem::take(&mut self.matches);
        for trie in [&self.immediate, &self.committed] {
            let readers = (&mut self.sessions, &mut self.groups);
            matches.collect(trie, &message.record, None, readers);
            for index in 0..matches.list.len() {
                let (found, ids) = matches.get(index);
                match found.target {
                    Target::Session(key) => {
                        if let Some(session) = self.sessions.get_mut(key) {
                            session.offer_status(message, found.retain, ids, &mut self.work, turn);
                        }
                    }
                    Target::Group(key) => {
                        let mut desk = Desk {
                            sessions: &mut self.sessions,
                            work: &mut self.work,
                        };
                        if let Some(group) = self.groups.get_mut(key) {
                            group.offer_status(message, &mut desk, turn);
                        }
                    }
                }
            }
        }
        self.matches = matches;
    }

    fn offer_from_memory<W: Wire>(
        &mut self,
        matches: &mut Matches,
        message: &MemoryMessage<'_>,
        turn: &mut Turn<'_, W>,
    ) {
        for index in 0..matches.list.len() {
            let (found, ids) = matches.get(index);
            match found.target {
                Target::Session(key) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        let offer = Offer {
                            record: message.record,
                            message: MessageRef::Memory(message),
                            place: Place::Memory,
                            qos: found.qos,
                            retain: found.retain,
                            ids,
                        };
                        let bounds = Bounds::of(&self.config.limits, self.fanned_bytes);
                        session.offer_from_memory(&offer, bounds, &mut self.work, turn);
                    }
                }
                Target::Group(key) => self.offer_group(
                    key,
                    &GroupOffer {
                        record: message.record,
                        message: MessageRef::Memory(message),
                        position: None,
                    },
                    turn,
                ),
            }
        }
    }

    /// Whether a message to `topic` would be missed by a durable session or group if it were not logged.
    pub(super) fn matches_durable(&self, topic: &str) -> bool {
        let mut found = false;
        self.committed.matches(topic, |subscriber| {
            found |= subscriber.until == FOR_EVER
                && match subscriber.target {
                    Target::Session(key) => self.sessions.get(key).is_some_and(Session::is_durable),
                    Target::Group(key) => self.groups.get(key).is_some_and(super::shared::Group::is_durable),
                };
        });
        found
    }
}

/// Bounds of a live queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    records: usize,
    bytes: usize,
    window: u64,
    /// How far the fan-out has come, in bytes.
    pub(super) age: u64,
}

impl Bounds {
    fn of(limits: &CoreLimits, age: u64) -> Self {
        Self {
            records: limits.session_queue_records,
            bytes: limits.session_queue_bytes,
            window: limits.live_window_bytes,
            age,
        }
    }

    /// Whether a record that the log holds may wait in memory.
    pub(super) fn allow(&self, reader: &Reader) -> bool {
        let recent = reader
            .queue
            .front_age()
            .is_none_or(|age| self.age.saturating_sub(age) <= self.window);
        recent && self.have_room(reader)
    }

    pub(super) fn have_room(&self, reader: &Reader) -> bool {
        reader.queue.len() < self.records && reader.queue.bytes() < self.bytes
    }
}

impl Session {
    /// Takes one committed record that is fanned out: sends it, keeps it, or leaves it to the log.
    fn offer_committed<W: Wire>(
        &mut self,
        offer: &Offer<'_>,
        position: LogPosition,
        bounds: Bounds,
        work: &mut Work,
        turn: &mut Turn<'_, W>,
    ) {
        if !self.reader.takes(position) {
            let is_new = self.reader.mode == Mode::Behind && offer.qos != QoS::AtMostOnce;
            self.reader.unread += u64::from(is_new);
            return;
        }
        if self.takes_now(offer.qos, turn) {
            let fate = self.deliver(offer, work, turn);
            fate.count(&mut self.reader.ledger, work);
            return self.moved(work);
        }
        if self.attached.is_none() {
            if offer.qos == QoS::AtMostOnce {
                return self.drop_matched(DropReason::Qos0Offline, 1, work);
            }
            self.reader.fall_behind(position);
            self.reader.found = true;
            self.reader.unread += 1;
        } else if bounds.allow(&self.reader) {
            self.reader.queue.push(offer.to_item(), bounds.age);
        } else {
            self.reader.fall_behind(position);
            self.reader.unread += u64::from(offer.qos != QoS::AtMostOnce);
        }
        self.moved(work);
    }

    /// Takes one message that no log holds, or that this session does not read from one.
    fn offer_from_memory<W: Wire>(
        &mut self,
        offer: &Offer<'_>,
        bounds: Bounds,
        work: &mut Work,
        turn: &mut Turn<'_, W>,
    ) {
        if self.takes_now(offer.qos, turn) {
            let fate = self.deliver(offer, work, turn);
            return fate.count(&mut self.reader.ledger, work);
        }
        let is_qos0 = offer.qos == QoS::AtMostOnce;
        if self.attached.is_none() {
            let reason = if is_qos0 {
                DropReason::Qos0Offline
            } else {
                DropReason::NotLogged
            };
            return self.drop_matched(reason, 1, work);
        }
        // A full queue gives up its oldest QoS 0 messages first, then what is new.
        while !bounds.have_room(&self.reader) && self.kind == Kind::Immediate && self.reader.queue.drop_oldest_qos0() {
            self.drop_matched(DropReason::Qos0SlowReader, 1, work);
        }
        if bounds.have_room(&self.reader) {
            if offer.record.retain {
                self.snapshots.note_live(offer.record.topic);
            }
            self.reader.queue.push(offer.to_item(), bounds.age);
        } else {
            let reason = if is_qos0 {
                DropReason::Qos0SlowReader
            } else {
                DropReason::SessionQueueFull
            };
            self.drop_matched(reason, 1, work);
        }
    }
}
