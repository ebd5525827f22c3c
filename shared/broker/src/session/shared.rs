//! Shared subscriptions: a group has one cursor of its own, and each message goes to one member.
//!
//! Members are the sessions subscribed at the moment. A message goes round robin to the next member that has room in its window;
//! when none has, it waits with the group. `outstanding` are the positions that members hold; `returned` those of them that came
//! back from members who left, to be given to others first. QoS 1 comes back; QoS 2 that was sent stays with its session until it
//! is complete, and is dropped if that session ends [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
//! A group with a durable member is durable: its head, outstanding and returned positions are stored with the cursors.

use std::collections::{BTreeSet, HashMap};

use fellbeck_core::{CommitNumber, DropReason, Filter, LogPosition, QoS, Record, ShareName};
use fellbeck_store::commit::Space;

use super::Core;
use super::fanout::Subscriber;
use super::in_flight::Source;
use super::message::{Ids, Item, MessageRef, Offer, Place};
use super::outbound::Fate;
use super::persist;
use super::reader::{Mode, Reader, Reading};
use super::session::{Session, SessionKey, Sessions};
use super::slab::{Key, Slab};
use super::subscription::Options;
use super::turn::Turn;
use super::work::{ReaderKey, Work};
use crate::wire::Wire;

pub(super) type GroupKey = Key<Group>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) session: SessionKey,
    /// Its subscription.
    slot: u32,
    options: Options,
    is_durable: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    key: GroupKey,
    pub(super) share: ShareName,
    pub(super) filter: Filter,
    pub(super) members: Vec<Member>,
    /// Sessions whose SUBSCRIBE is on its way to durable.
    expected: u32,
    /// Member to be asked next.
    next: usize,
    /// Newest commit when the first of its members was last connected: QoS 0 of commits up to here is not delivered.
    pub(super) connected_at: CommitNumber,
    /// Commit after which it began; `None` while that commit is not durable.
    pub(super) since: Option<CommitNumber>,
    pub(super) reader: Reader,
    pub(super) outstanding: BTreeSet<LogPosition>,
    pub(super) returned: BTreeSet<LogPosition>,
}

/// All groups, by key and by name.
#[derive(Debug, Default)]
pub(super) struct Groups {
    slab: Slab<Group>,
    by_name: HashMap<(ShareName, Filter), GroupKey>,
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn get(&self, key: GroupKey) -> Option<&Group> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: GroupKey) -> Option<&mut Group> {
        self.slab.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.slab.iter().map(|(_, group)| group)
    }

    pub(super) fn keys(&self) -> Vec<GroupKey> {
        self.slab.keys()
    }

    pub(super) fn find(&self, share: &ShareName, filter: &Filter) -> Option<GroupKey> {
        self.by_name.get(&(share.clone(), filter.clone())).copied()
    }

    pub(super) fn add(&mut self, share: ShareName, filter: Filter, reader: Reader) -> GroupKey {
        let name = (share.clone(), filter.clone());
        let key = self.slab.insert_with(|key| Group {
            key,
            share,
            filter,
            members: Vec::new(),
            expected: 0,
            next: 0,
            connected_at: CommitNumber(0),
            since: None,
            reader,
            outstanding: BTreeSet::new(),
            returned: BTreeSet::new(),
        });
        self.by_name.insert(name, key);
        key
    }

    fn remove(&mut self, key: GroupKey) -> Option<Box<Group>> {
        let group = self.slab.remove(key)?;
        self.by_name.remove(&(group.share.clone(), group.filter.clone()));
        Some(group)
    }
}

impl Group {
    pub(super) fn is_durable(&self) -> bool {
        self.members.iter().any(|member| member.is_durable)
    }

    pub(super) fn moved(&mut self, work: &mut Work) {
        if !self.reader.dirty && self.is_durable() {
            self.reader.dirty = true;
            work.cursors_later.push(ReaderKey::Group(self.key));
        }
    }

    fn store_now(&mut self, work: &mut Work) {
        self.reader.dirty = true;
        work.cursors_now.push(ReaderKey::Group(self.key));
    }

    fn has_connected_member(&self, sessions: &Sessions) -> bool {
        let connected = |member: &Member| sessions.get(member.session).is_some_and(|session| session.ready().is_some());
        self.members.iter().any(connected)
    }

    fn is_first_connected(&self, session: SessionKey, sessions: &Sessions) -> bool {
        let connected = |member: &&Member| sessions.get(member.session).is_some_and(|session| session.ready().is_some());
        self.members.iter().filter(connected).all(|member| member.session == session)
    }

    /// No member is connected.
    pub(super) fn is_away(&self, sessions: &Sessions) -> bool {
        !self.has_connected_member(sessions)
    }

    /// Next member that can take a message at `qos` now, round robin.
    fn pick<W: Wire>(&mut self, qos: QoS, sessions: &Sessions, turn: &Turn<'_, W>) -> Option<Member> {
        for step in 0..self.members.len() {
            let index = (self.next + step) % self.members.len();
            let member = self.members[index];
            let takes = sessions.get(member.session).is_some_and(|session| {
                session.is_caught_up() && session.may_send(qos.min(member.options.qos), turn)
            });
            if takes {
                self.next = index + 1;
                return Some(member);
            }
        }
        None
    }

    pub(super) fn wants_read(&self, sessions: &Sessions) -> bool {
        if !self.has_connected_member(sessions) {
            return self.is_durable() && self.reader.mode == Mode::Behind && !self.reader.found;
        }
        !self.returned.is_empty() || (self.reader.mode == Mode::Behind && self.reader.queue.is_empty())
    }

    /// Whether some member could take a message now; if not, a read would be in vain.
    fn has_room<W: Wire>(&self, sessions: &Sessions, turn: &Turn<'_, W>) -> bool {
        let takes = |member: &Member| {
            let session = sessions.get(member.session);
            session.is_some_and(|session| session.is_caught_up() && session.may_send(QoS::AtLeastOnce, turn))
        };
        !self.has_connected_member(sessions) || self.members.iter().any(takes)
    }

    /// Where the next read for it begins.
    pub(super) fn read_from(&self, fanned: CommitNumber, sessions: &Sessions) -> LogPosition {
        let returned = self.returned.first().copied().filter(|_| !self.is_away(sessions));
        returned.unwrap_or_else(|| self.reader.filled(fanned))
    }
}

/// One message for a group: the record and where it is.
#[derive(Clone, Copy)]
pub(super) struct GroupOffer<'a> {
    pub(super) record: Record<'a>,
    pub(super) message: MessageRef<'a>,
    /// `None`: no log holds it.
    pub(super) position: Option<LogPosition>,
}

/// What a group works with.
pub(super) struct Desk<'a> {
    pub(super) sessions: &'a mut Sessions,
    pub(super) work: &'a mut Work,
}

impl Group {
    /// Gives one message to a member. False when none can take it now.
    pub(super) fn give<W: Wire>(&mut self, offer: &GroupOffer<'_>, desk: &mut Desk<'_>, turn: &mut Turn<'_, W>) -> bool {
        let Some(member) = self.pick(offer.record.qos, desk.sessions, turn) else {
            return false;
        };
        let Some(session) = desk.sessions.get_mut(member.session) else {
            return false;
        };
        let qos = offer.record.qos.min(member.options.qos);
        let delivery = Offer {
            record: offer.record,
            message: offer.message,
            place: Place::Group(self.key, member.slot, offer.position),
            qos,
            retain: member.options.retain_as_published && offer.record.retain,
            ids: member.options.id.as_ref().map_or(&[], std::slice::from_ref),
        };
        let fate = session.deliver(&delivery, desk.work, turn);
        fate.count(&mut self.reader.ledger, desk.work);
        if let (Fate::InFlight, Some(position)) = (fate, offer.position) {
            self.outstanding.insert(position);
            if qos == QoS::ExactlyOnce && session.is_durable() {
                // The packet ID and the group's head are one commit: nobody else may get the message after a crash.
                self.store_now(desk.work);
            }
        }
        self.moved(desk.work);
        true
    }

    /// Offers one committed record that is fanned out.
    pub(super) fn offer<W: Wire>(
        &mut self,
        offer: &GroupOffer<'_>,
        bounds: (usize, usize, u64),
        desk: &mut Desk<'_>,
        turn: &mut Turn<'_, W>,
    ) {
        let Some(position) = offer.position else {
            return self.offer_unlogged(offer, bounds, desk, turn);
        };
        if !self.reader.takes(position) {
            let is_new = self.reader.mode == Mode::Behind && offer.record.qos != QoS::AtMostOnce;
            self.reader.unread += u64::from(is_new);
            return;
        }
        if self.reader.queue.is_empty() && self.returned.is_empty() && self.give(offer, desk, turn) {
            return;
        }
        let connected = self.has_connected_member(desk.sessions);
        if !connected && offer.record.qos == QoS::AtMostOnce {
            self.reader.ledger.drop_matched(DropReason::Qos0Offline, 1);
            desk.work.counters.dropped(DropReason::Qos0Offline, 1);
            return;
        }
        let (records, bytes, age) = bounds;
        if connected && self.reader.queue.len() < records && self.reader.queue.bytes() < bytes {
            self.reader.queue.push(self.item(offer), age);
        } else {
            self.reader.fall_behind(position);
            self.reader.found = !connected;
            self.reader.unread += u64::from(offer.record.qos != QoS::AtMostOnce);
        }
        self.moved(desk.work);
    }

    fn offer_unlogged<W: Wire>(
        &mut self,
        offer: &GroupOffer<'_>,
        (records, bytes, age): (usize, usize, u64),
        desk: &mut Desk<'_>,
        turn: &mut Turn<'_, W>,
    ) {
        if self.reader.queue.is_empty() && self.give(offer, desk, turn) {
            return;
        }
        let reason = if !self.has_connected_member(desk.sessions) {
            DropReason::Qos0Offline
        } else if self.reader.queue.len() < records && self.reader.queue.bytes() < bytes {
            return self.reader.queue.push(self.item(offer), age);
        } else {
            DropReason::SessionQueueFull
        };
        self.reader.ledger.drop_matched(reason, 1);
        desk.work.counters.dropped(reason, 1);
    }

    pub(super) fn item(&self, offer: &GroupOffer<'_>) -> Item {
        let (group, slot) = (self.key, 0);
        let source = match offer.position {
            Some(position) => Source::Group { group, slot, position },
            None => Source::GroupMemory { group, slot, item: None },
        };
        Item {
            message: offer.message.to_owned(),
            source,
            qos: offer.record.qos,
            retain: offer.record.retain,
            ids: Ids::None,
        }
    }

    /// Gives members what waits, as far as they can take it.
    fn pump<W: Wire>(&mut self, desk: &mut Desk<'_>, turn: &mut Turn<'_, W>) {
        if !self.returned.is_empty() {
            return;
        }
        while let Some(item) = self.reader.queue.front().cloned() {
            let offer = GroupOffer {
                record: item.message.record(),
                message: MessageRef::Owned(&item.message),
                position: item.position(),
            };
            if !self.give(&offer, desk, turn) {
                return;
            }
            self.reader.queue.pop();
        }
    }

    /// What a member held comes back.
    fn take_back(&mut self, source: Source, work: &mut Work) {
        self.reader.ledger.matched = self.reader.ledger.matched.saturating_sub(1);
        match source {
            Source::Group { position, .. } => {
                self.outstanding.remove(&position);
                self.returned.insert(position);
            }
            Source::GroupMemory { item: Some(item), .. } => self.reader.queue.push_front(*item, u64::MAX),
            Source::GroupMemory { item: None, .. } | Source::Log(_) | Source::Retained(..) | Source::Memory(_) => {}
        }
        self.moved(work);
    }
}

impl Core {
    /// A SUBSCRIBE to a group is on its way: the group must exist in the same commit.
    pub(super) fn expect_member(&mut self, session: SessionKey, share: &ShareName, filter: &Filter) {
        let key = self.groups.find(share, filter).unwrap_or_else(|| {
            let reader = Reader::live(self.fanned);
            self.groups.add(share.clone(), filter.clone(), reader)
        });
        let is_durable = self.sessions.get(session).is_some_and(Session::is_durable);
        let fanned = self.fanned;
        if let Some(group) = self.groups.get_mut(key) {
            group.expected += 1;
            if is_durable && !group.is_durable() {
                let (key, value) = persist::group(group, fanned);
                self.work.put(Space::Session, key, value);
            }
        }
    }

    /// A subscription to a group takes effect after `commit`.
    pub(super) fn join<W: Wire>(
        &mut self,
        session: SessionKey,
        slot: u32,
        (share, filter): (ShareName, Filter),
        commit: CommitNumber,
        turn: &mut Turn<'_, W>,
    ) {
        let Some(key) = self.groups.find(&share, &filter) else {
            return;
        };
        let (Some(group), Some(member)) = (self.groups.get_mut(key), self.sessions.get_mut(session)) else {
            return;
        };
        let Some(version) = member.subscriptions.get(slot) else {
            return;
        };
        group.expected = group.expected.saturating_sub(1);
        group.members.push(Member {
            session,
            slot,
            options: version.options,
            is_durable: member.is_durable(),
        });
        member.groups.push((slot, key));
        if group.since.is_none() {
            group.since = Some(commit);
            group.reader.advance(LogPosition::after(commit.max(self.fanned)), self.fanned.max(commit));
            self.committed.insert(&filter, Subscriber::of_group(key, commit));
        }
        let group = self.groups.get_mut(key);
        if let Some(group) = group.filter(|group| group.is_durable()) {
            group.moved(&mut self.work);
        }
        self.pump_group(key, turn);
    }

    /// Takes a stored subscription to a group. A group whose own value was lost goes on at the end of the log.
    pub(super) fn restore_member(
        &mut self,
        session: SessionKey,
        (share, filter): (ShareName, Filter),
        version: &super::subscription::SubscriptionVersion,
    ) {
        let fanned = self.fanned;
        let key = self.groups.find(&share, &filter).unwrap_or_else(|| {
            let key = self.groups.add(share, filter.clone(), Reader::live(fanned));
            self.committed.insert(&filter, Subscriber::of_group(key, fanned));
            key
        });
        if let (Some(group), Some(member)) = (self.groups.get_mut(key), self.sessions.get_mut(session)) {
            group.since.get_or_insert(fanned);
            group.members.push(Member {
                session,
                slot: version.slot,
                options: version.options,
                is_durable: true,
            });
            member.groups.push((version.slot, key));
        }
    }

    /// All sessions are restored: groups without a member go, the others look for what is unread.
    pub(super) fn finish_groups(&mut self) {
        for key in self.groups.keys() {
            if self.groups.get(key).is_some_and(|group| group.members.is_empty()) {
                self.end_group(key, true);
                continue;
            }
            if let Some(group) = self.groups.get_mut(key) {
                let returned = group.returned.len() as u64;
                group.reader.ledger.matched = group.reader.ledger.matched.saturating_sub(returned);
                group.moved(&mut self.work);
            }
            self.enlist_group(key);
        }
    }

    /// A session's subscription to a group has ended.
    pub(super) fn leave_group<W: Wire>(&mut self, session: SessionKey, slot: u32, turn: &mut Turn<'_, W>) {
        let Some(member) = self.sessions.get_mut(session) else {
            return;
        };
        let Some(index) = member.groups.iter().position(|(of, _)| *of == slot) else {
            return;
        };
        let (_, key) = member.groups.remove(index);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let was_durable = group.is_durable();
        group.members.retain(|member| !(member.session == session && member.slot == slot));
        let is_member_still = group.members.iter().any(|member| member.session == session);
        if group.members.is_empty() && group.expected == 0 {
            return self.end_group(key, was_durable);
        }
        if was_durable && !group.is_durable() {
            self.work.delete(Space::Session, persist::group_key(&group.share, &group.filter));
        }
        if !is_member_still {
            self.hand_back(session, key);
        }
        self.pump_group(key, turn);
    }

    fn end_group(&mut self, key: GroupKey, was_durable: bool) {
        let Some(group) = self.groups.remove(key) else {
            return;
        };
        let since = group.since.unwrap_or_default();
        self.committed.remove(&group.filter, &Subscriber::of_group(key, since));
        self.work.counters.dropped(DropReason::SessionEnded, group.reader.unread + group.reader.queue.len() as u64);
        if was_durable {
            self.work.delete(Space::Session, persist::group_key(&group.share, &group.filter));
        }
    }

    /// QoS 1 messages of `group` that `session` has not acknowledged go back to the group.
    fn hand_back(&mut self, session: SessionKey, group: GroupKey) {
        let (Some(holder), Some(group)) = (self.sessions.get_mut(session), self.groups.get_mut(group)) else {
            return;
        };
        // A QoS 2 message stays, also one whose packet ID only waits to be durable: it may be stored as his already.
        let is_his =
            |entry: &&super::in_flight::Entry| entry.source.group() == Some(group.key) && entry.qos == QoS::AtLeastOnce;
        let ids: Vec<u16> = holder.in_flight.iter().filter(is_his).map(|entry| entry.packet_id).collect();
        // Newest first, so that those that no log holds stand at the front of the queue in their order.
        for packet_id in ids.into_iter().rev() {
            if let Some(entry) = holder.in_flight.remove(packet_id) {
                if entry.counted {
                    holder.free_window();
                }
                group.take_back(entry.source, &mut self.work);
            }
        }
        holder.moved(&mut self.work);
    }

    /// The session has lost its connection: others may take what it has not acknowledged.
    pub(super) fn leave_groups_for_now<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        for (_, key) in groups {
            let others = self.groups.get(key).is_some_and(|group| group.has_connected_member(&self.sessions));
            if others {
                self.hand_back(session, key);
                self.pump_group(key, turn);
            } else {
                self.group_is_alone(key);
            }
        }
    }

    /// No member is connected: what waits in memory is given up to the log.
    fn group_is_alone(&mut self, key: GroupKey) {
        let fanned = self.fanned;
        if let Some(group) = self.groups.get_mut(key) {
            let lost = group.reader.rewind(fanned).len() as u64;
            group.reader.ledger.drop_matched(DropReason::Qos0Offline, lost);
            self.work.counters.dropped(DropReason::Qos0Offline, lost);
            group.moved(&mut self.work);
        }
    }

    /// The session ends: its memberships go, and what it held.
    pub(super) fn leave_groups<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        for (slot, key) in groups {
            self.leave_group(session, slot, turn);
            let Some(group) = self.groups.get_mut(key) else {
                continue;
            };
            let held = self.sessions.get(session).into_iter().flat_map(|session| session.in_flight.iter());
            // [MQTT5-4.8.2-5]: QoS 2 in flight is not given to another session.
            let held = held.filter(|entry| entry.source.group() == Some(key));
            for position in held.filter_map(|entry| entry.source.position()) {
                if group.outstanding.remove(&position) {
                    group.reader.ledger.drop_taken(DropReason::SessionEnded, 1);
                    self.work.counters.dropped(DropReason::SessionEnded, 1);
                }
            }
            group.moved(&mut self.work);
        }
        self.forget_expected(session);
    }

    /// Groups that were made for SUBSCRIBEs of a session that is gone before they were durable.
    fn forget_expected(&mut self, session: SessionKey) {
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        let pending = session.subscriptions.iter().filter(|version| version.since.is_none());
        let names: Vec<_> = pending
            .filter_map(|version| Some((version.share.clone()?, version.filter.clone())))
            .collect();
        let was_durable = session.is_durable();
        for (share, filter) in names {
            let Some(key) = self.groups.find(&share, &filter) else {
                continue;
            };
            let is_unused = self.groups.get_mut(key).is_some_and(|group| {
                group.expected = group.expected.saturating_sub(1);
                group.expected == 0 && group.members.is_empty()
            });
            if is_unused {
                self.end_group(key, was_durable);
            }
        }
    }

    /// A member is connected: it and others may take what members that are away have not acknowledged.
    pub(super) fn reclaim_for<W: Wire>(&mut self, session: SessionKey, turn: &mut Turn<'_, W>) {
        let Some(groups) = self.sessions.get(session).map(|session| session.groups.clone()) else {
            return;
        };
        for (_, key) in groups {
            let members = self.groups.get(key).map(|group| group.members.clone()).unwrap_or_default();
            for member in members {
                let is_away = self.sessions.get(member.session).is_some_and(|session| session.attached.is_none());
                if is_away {
                    self.hand_back(member.session, key);
                }
            }
            let newest = self.newest();
            if let Some(group) = self.groups.get_mut(key) {
                group.reader.found = false;
                if group.is_first_connected(session, &self.sessions) {
                    group.connected_at = newest;
                }
            }
            self.pump_group(key, turn);
        }
    }

    /// Gives members of one group what waits for them.
    pub(super) fn pump_group<W: Wire>(&mut self, key: GroupKey, turn: &mut Turn<'_, W>) {
        let mut desk = Desk {
            sessions: &mut self.sessions,
            work: &mut self.work,
        };
        if let Some(group) = self.groups.get_mut(key) {
            group.pump(&mut desk, turn);
        }
        if self.groups.get(key).is_some_and(|group| group.has_room(&self.sessions, turn)) {
            self.enlist_group(key);
        }
    }

    pub(super) fn enlist_group(&mut self, key: GroupKey) {
        if let Some(group) = self.groups.get_mut(key)
            && group.reader.reading == Reading::No
            && group.wants_read(&self.sessions)
        {
            group.reader.reading = Reading::Listed;
            self.work.reads.push_back(ReaderKey::Group(key));
        }
    }

    /// A member has acknowledged a message of the group.
    pub(super) fn group_acked(&mut self, key: GroupKey, position: Option<LogPosition>) {
        if let Some(group) = self.groups.get_mut(key) {
            if let Some(position) = position {
                group.outstanding.remove(&position);
            }
            group.reader.ledger.acked += 1;
            group.moved(&mut self.work);
        }
    }

    /// Tells groups what their members gave up during the call.
    pub(super) fn settle_groups<W: Wire>(&mut self, _turn: &mut Turn<'_, W>) {
        while let Some((key, position, reason)) = self.work.lost_by_group.pop() {
            if let Some(group) = self.groups.get_mut(key) {
                if let Some(position) = position {
                    group.outstanding.remove(&position);
                }
                group.reader.ledger.drop_taken(reason, 1);
                group.moved(&mut self.work);
            }
        }
    }
}
