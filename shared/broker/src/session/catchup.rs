//! Reading the log: for readers that are behind, and for messages that must be sent again.
//!
//! One read per reader is out at a time, and a bounded number over all. The answer is offered to every reader that waits at a
//! position within it, so that sessions at near positions share one decode.
//! A reader that is level with the fan-out when its answer comes is live from there: no gap, no double at the seam.

use std::sync::Arc;

use fellbeck_core::{CommitNumber, DropReason, LogPosition, QoS};
use fellbeck_store::committed::{CommittedBlock, LogRead};

use super::expiry::RETRY_AFTER;
use super::in_flight::Source;
use super::message::{Ids, Item, Message, MessageRef};
use super::reader::{Mode, Reading};
use super::shared::{Desk, GroupKey, GroupOffer};
use super::state::{Session, SessionKey};
use super::turn::Turn;
use super::work::{ReaderKey, Work};
use super::{Core, Now, ReadRequest, ReaderId};
use crate::wire::Wire;

/// Whole blocks of the log, and what they say about the range asked for.
struct Passage {
    blocks: Vec<Arc<CommittedBlock>>,
    from: LogPosition,
    next: LogPosition,
    skipped: u64,
}

/// One record of a passage.
#[derive(Clone, Copy)]
struct Spot<'a> {
    block: &'a Arc<CommittedBlock>,
    track: u32,
    index: u32,
    position: LogPosition,
}

impl Spot<'_> {
    fn message(&self) -> Message {
        Message::Logged(self.block.clone(), self.track, self.index)
    }
}

impl Passage {
    /// Whether a reader that wants to go on at `position` finds it here.
    fn covers(&self, position: LogPosition) -> bool {
        self.from <= position && position < self.next
    }

    /// The records at and behind `from`.
    fn spots(&self, from: LogPosition) -> impl Iterator<Item = Spot<'_>> {
        let start = self.blocks.partition_point(|block| block.commit < from.commit);
        self.blocks[start..].iter().flat_map(move |block| {
            block.tracks.iter().enumerate().flat_map(move |(track, part)| {
                (0..part.block.len() as u32).filter_map(move |index| {
                    let position = LogPosition {
                        commit: block.commit,
                        index: part.first_index + index,
                    };
                    (position >= from).then_some(Spot {
                        block,
                        track: track as u32,
                        index,
                        position,
                    })
                })
            })
        })
    }

    fn find(&self, position: LogPosition) -> Option<Spot<'_>> {
        let index = self
            .blocks
            .binary_search_by_key(&position.commit, |block| block.commit)
            .ok()?;
        let block = &self.blocks[index];
        let (track, part) = block.tracks.iter().enumerate().find(|(_, part)| {
            (part.first_index..part.first_index + part.block.len() as u32).contains(&position.index)
        })?;
        Some(Spot {
            block,
            track: track as u32,
            index: position.index - part.first_index,
            position,
        })
    }
}

impl Core {
    /// Next read of the log that somebody needs.
    pub fn poll_read(&mut self, now: Now) -> Option<ReadRequest> {
        self.list_retries(now);
        while self.reads.len() < self.config.limits.reads_max {
            let key = self.work.reads.pop_front()?;
            let Some(from) = self.wanted_position(key) else {
                continue;
            };
            self.set_reading(key, Reading::Asked);
            self.lookups += 1;
            let reader = ReaderId(self.lookups);
            self.reads.insert(
                reader,
                Asked {
                    key,
                    from,
                    fanned: self.fanned,
                },
            );
            let bytes_max = self.config.limits.read_bytes;
            return Some(ReadRequest {
                reader,
                from,
                bytes_max,
            });
        }
        None
    }

    /// Takes a reader off the list, and says where it wants to read, if it still does.
    fn wanted_position(&mut self, key: ReaderKey) -> Option<LogPosition> {
        self.set_reading(key, Reading::No);
        match key {
            ReaderKey::Session(key) => {
                let session = self.sessions.get(key).filter(|session| session.wants_read())?;
                Some(
                    session
                        .resend_position()
                        .unwrap_or_else(|| session.reader.filled(self.fanned)),
                )
            }
            ReaderKey::Group(key) => {
                let group = self.groups.get(key).filter(|group| group.wants_read(&self.sessions))?;
                Some(group.read_from(self.fanned, &self.sessions))
            }
        }
    }

    fn set_reading(&mut self, key: ReaderKey, reading: Reading) {
        let reader = match key {
            ReaderKey::Session(key) => self.sessions.get_mut(key).map(|session| &mut session.reader),
            ReaderKey::Group(key) => self.groups.get_mut(key).map(|group| &mut group.reader),
        };
        if let Some(reader) = reader {
            reader.reading = reading;
        }
    }

    /// Answer to a read. `None`: it failed and is tried again; the front logs why.
    pub fn handle_read<W: Wire>(&mut self, reader: ReaderId, read: Option<LogRead>, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some(asked) = self.reads.remove(&reader) else {
            return;
        };
        self.set_reading(asked.key, Reading::No);
        let Some(read) = read else {
            return self.retry_later(asked.key, now);
        };
        // Everything that was durable when the read was made is in it, so also all that had been fanned out when it was asked for.
        let level = LogPosition::after(asked.fanned);
        let next = if read.at_end { read.next.max(level) } else { read.next };
        // A reader does not pass commits that the core has not been told of: a subscription that begins at one of them could not be
        // in force for what follows it.
        let newest = self.newest();
        let known = read.blocks.into_iter().filter(|block| block.commit <= newest);
        let passage = Passage {
            blocks: known.map(Arc::new).collect(),
            from: asked.from,
            next: next.min(LogPosition::after(newest)).max(asked.from),
            skipped: read.skipped,
        };
        let sharing: Vec<ReaderKey> = self.work.reads.iter().copied().collect();
        self.absorb(asked.key, &passage, turn);
        for key in sharing {
            let wants = match key {
                ReaderKey::Session(key) => {
                    self.sessions
                        .get(key)
                        .filter(|session| session.wants_read())
                        .map(|session| {
                            session
                                .resend_position()
                                .unwrap_or_else(|| session.reader.filled(self.fanned))
                        })
                }
                ReaderKey::Group(key) => {
                    let group = self.groups.get(key).filter(|group| group.wants_read(&self.sessions));
                    group.map(|group| group.read_from(self.fanned, &self.sessions))
                }
            };
            // Records that were skipped concern the range before the first block, which is only his who asked.
            if passage.skipped == 0 && wants.is_some_and(|position| passage.covers(position)) {
                self.absorb(key, &passage, turn);
            }
        }
        self.settle_groups(turn);
    }

    fn absorb<W: Wire>(&mut self, key: ReaderKey, passage: &Passage, turn: &mut Turn<'_, W>) {
        match key {
            ReaderKey::Session(key) => self.absorb_session(key, passage, turn),
            ReaderKey::Group(key) => self.absorb_group(key, passage, turn),
        }
    }

    fn absorb_session<W: Wire>(&mut self, key: SessionKey, passage: &Passage, turn: &mut Turn<'_, W>) {
        let (fanned, age) = (self.fanned, self.fanned_bytes);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !session.wants_read() {
            return session.enlist(&mut self.work);
        }
        if session.resend_position().is_some() {
            session.resend_from(passage, &mut self.work, turn);
        } else if passage.covers(session.reader.filled(fanned)) || passage.from == session.reader.filled(fanned) {
            session.take_up(passage, (fanned, age), &mut self.work);
        }
        self.pump(key, turn);
        // One that is away has no pump to put it on the list again.
        if let Some(session) = self.sessions.get_mut(key)
            && session.attached.is_none()
        {
            session.enlist(&mut self.work);
        }
    }

    fn absorb_group<W: Wire>(&mut self, key: GroupKey, passage: &Passage, turn: &mut Turn<'_, W>) {
        let (fanned, age) = (self.fanned, self.fanned_bytes);
        let Some(group) = self.groups.get(key) else {
            return;
        };
        if group.returned.is_empty() || group.is_away(&self.sessions) {
            if group.reader.mode == Mode::Behind && passage.from <= group.reader.filled(fanned) {
                self.take_up_group(key, passage, (fanned, age));
            }
        } else {
            self.give_returned(key, passage, turn);
        }
        self.pump_group(key, turn);
        if self.groups.get(key).is_some_and(|group| group.is_away(&self.sessions)) {
            self.enlist_group(key);
        }
    }

    /// Gives what came back from members who left to others.
    fn give_returned<W: Wire>(&mut self, key: GroupKey, passage: &Passage, turn: &mut Turn<'_, W>) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        while let Some(position) = group
            .returned
            .first()
            .copied()
            .filter(|position| *position < passage.next)
        {
            if position < passage.from {
                return;
            }
            match passage.find(position) {
                Some(spot) => {
                    let message = spot.message();
                    let offer = GroupOffer {
                        record: message.record(),
                        message: MessageRef::Logged(spot.block, spot.track, spot.index),
                        position: Some(position),
                    };
                    let mut desk = Desk {
                        sessions: &mut self.sessions,
                        work: &mut self.work,
                    };
                    if !group.give(&offer, &mut desk, turn) {
                        return;
                    }
                }
                None => {
                    group.reader.ledger.drop_matched(DropReason::Trimmed, 1);
                    self.work.counters.dropped(DropReason::Trimmed, 1);
                }
            }
            group.returned.remove(&position);
            group.moved(&mut self.work);
        }
    }

    /// Moves a group that is behind over a passage; what matches is queued.
    fn take_up_group(&mut self, key: GroupKey, passage: &Passage, (fanned, age): (CommitNumber, u64)) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let from = group.reader.filled(fanned);
        count_skipped(&mut group.reader.ledger.skipped, passage.skipped, &self.work);
        let away = group.is_away(&self.sessions);
        let since = group.since.unwrap_or_default();
        for spot in passage.spots(from) {
            let record = spot.block.tracks[spot.track as usize].block.get(spot.index as usize);
            if spot.position.commit <= since || !group.filter.matches(record.topic) {
                continue;
            }
            if away && record.qos != QoS::AtMostOnce {
                group.reader.found = true;
                group.reader.advance_behind(spot.position);
                return group.moved(&mut self.work);
            }
            if record.qos == QoS::AtMostOnce && (away || spot.position.commit <= group.connected_at) {
                group.reader.ledger.drop_matched(DropReason::Qos0Offline, 1);
                self.work.counters.dropped(DropReason::Qos0Offline, 1);
                continue;
            }
            let offer = GroupOffer {
                record,
                message: MessageRef::Logged(spot.block, spot.track, spot.index),
                position: Some(spot.position),
            };
            let item = group.item(&offer);
            group.reader.queue.push(item, age);
            group.reader.unread = group.reader.unread.saturating_sub(1);
        }
        group.reader.advance(passage.next.max(from), fanned);
        group.moved(&mut self.work);
    }

    /// Lists those again whose lookup failed a while ago.
    pub(super) fn list_retries(&mut self, now: Now) {
        if self.retry_at.is_some_and(|at| at <= now.tick) {
            self.retry_at = None;
            for key in std::mem::take(&mut self.retries) {
                self.list_for_read(key);
            }
        }
    }

    pub(super) fn retry_later(&mut self, key: ReaderKey, now: Now) {
        self.retries.push(key);
        self.retry_at.get_or_insert(now.tick.after(RETRY_AFTER));
    }
}

/// A read that is out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    key: ReaderKey,
    from: LogPosition,
    /// Last commit that was fanned out when it was asked for.
    fanned: CommitNumber,
}

fn count_skipped(skipped: &mut u64, n: u64, work: &Work) {
    *skipped += n;
    if n > 0 {
        work.counters.skipped.increment(n);
        work.counters.dropped(DropReason::Trimmed, n);
    }
}

impl Session {
    /// Sends in-flight messages again, as far as the passage holds them.
    fn resend_from<W: Wire>(&mut self, passage: &Passage, work: &mut Work, turn: &mut Turn<'_, W>) {
        while let Some(position) = self.resend_position() {
            if position < passage.from || position >= passage.next || !self.may_resend(turn) {
                return;
            }
            let Some(packet_id) = self.resend.pop_front() else {
                return;
            };
            let item = passage
                .find(position)
                .and_then(|spot| self.item_again(packet_id, &spot));
            match item {
                Some(item) => self.send_again(packet_id, &item, work, turn),
                // Retention was faster than the client.
                None => self.give_up(packet_id, DropReason::Trimmed, work),
            }
        }
    }

    /// The delivery as it was made first.
    fn item_again(&self, packet_id: u16, spot: &Spot<'_>) -> Option<Item> {
        let entry = self.in_flight.get(packet_id)?;
        let message = spot.message();
        let record = message.record();
        let mut ids = Vec::new();
        let retain = match &entry.source {
            Source::Group { group, .. } => {
                let slot = self.groups.iter().find(|(_, of)| of == group).map(|(slot, _)| *slot);
                let options = slot
                    .and_then(|slot| self.subscriptions.get(slot))
                    .map(|version| version.options);
                ids.extend(options.and_then(|options| options.id));
                record.retain && options.is_some_and(|options| options.retain_as_published)
            }
            _ => {
                let commit = spot.position.commit;
                let matched = self.subscriptions.matching(&record, commit, &self.client_id, &mut ids);
                matched.is_some_and(|matched| matched.retain)
            }
        };
        Some(Item {
            source: entry.source.clone(),
            qos: entry.qos,
            retain,
            ids: Ids::of(&ids),
            message,
        })
    }

    /// Moves over a passage of the log; what matches is queued. A session that is away stops at the first message for it.
    fn take_up(&mut self, passage: &Passage, (fanned, age): (CommitNumber, u64), work: &mut Work) {
        let from = self.reader.filled(fanned);
        count_skipped(&mut self.reader.ledger.skipped, passage.skipped, work);
        let away = self.attached.is_none();
        let mut ids = Vec::new();
        for spot in passage.spots(from) {
            let record = spot.block.tracks[spot.track as usize].block.get(spot.index as usize);
            let commit = spot.position.commit;
            if !away && !self.is_within_bound(commit) {
                break;
            }
            let Some(matched) = self.subscriptions.matching(&record, commit, &self.client_id, &mut ids) else {
                continue;
            };
            if matched.qos == QoS::AtMostOnce && (away || commit <= self.connected_at) {
                self.drop_matched(DropReason::Qos0Offline, 1, work);
                continue;
            }
            if away {
                self.reader.found = true;
                self.reader.advance_behind(spot.position);
                return self.moved(work);
            }
            let item = Item {
                message: spot.message(),
                source: Source::Log(spot.position),
                qos: matched.qos,
                retain: matched.retain,
                ids: Ids::of(&ids),
            };
            self.reader.queue.push(item, age);
            self.reader.unread = self.reader.unread.saturating_sub(1);
        }
        self.advance_within_bound(passage.next.max(from), fanned);
        self.moved(work);
    }
}
