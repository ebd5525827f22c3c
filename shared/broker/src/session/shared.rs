//! Shared subscriptions: a group has one cursor of its own, and each message goes to one member.
//!
//! Members are the sessions subscribed at the moment. A message goes round robin to the next member that has room in its window;
//! when none has, it waits with the group. `outstanding` are the positions that members hold; `returned` those of them that came
//! back from members who left, to be given to others first. QoS 1 comes back; QoS 2 that was sent stays with its session until it
//! is complete, and is dropped if that session ends [MQTT5-4.8.2-4] [MQTT5-4.8.2-5].
//! A group with a durable member is durable: its head, outstanding and returned positions are stored with the cursors.

use std::collections::{BTreeSet, HashMap};

use fellbeck_core::{CommitNumber, DropReason, Filter, LogPosition, QoS, Record, ShareName};

use super::fanout::Bounds;
use super::in_flight::Source;
use super::message::{Ids, Item, MemoryMessage, MessageRef, Offer, Place};
use super::outbound::Fate;
use super::reader::{Mode, Reader};
use super::slab::{Key, Slab};
use super::state::{SessionKey, Sessions};
use super::turn::Turn;
use super::versions::Options;
use super::work::{ReaderKey, Work};
use crate::wire::Wire;

pub(super) type GroupKey = Key<Group>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) session: SessionKey,
    /// Its subscription.
    pub(super) slot: u32,
    pub(super) options: Options,
    pub(super) is_durable: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(super) key: GroupKey,
    pub(super) share: ShareName,
    pub(super) filter: Filter,
    pub(super) members: Vec<Member>,
    /// Sessions whose SUBSCRIBE is on its way to durable.
    pub(super) expected: u32,
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

    pub(super) fn remove(&mut self, key: GroupKey) -> Option<Box<Group>> {
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

    pub(super) fn has_connected_member(&self, sessions: &Sessions) -> bool {
        let connected = |member: &Member| {
            sessions
                .get(member.session)
                .is_some_and(|session| session.ready().is_some())
        };
        self.members.iter().any(connected)
    }

    pub(super) fn is_first_connected(&self, session: SessionKey, sessions: &Sessions) -> bool {
        let connected = |member: &&Member| {
            sessions
                .get(member.session)
                .is_some_and(|session| session.ready().is_some())
        };
        self.members
            .iter()
            .filter(connected)
            .all(|member| member.session == session)
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
            let takes = sessions
                .get(member.session)
                .is_some_and(|session| session.is_caught_up() && session.may_send(qos.min(member.options.qos), turn));
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
    pub(super) fn has_room<W: Wire>(&self, sessions: &Sessions, turn: &Turn<'_, W>) -> bool {
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
    pub(super) fn give<W: Wire>(
        &mut self,
        offer: &GroupOffer<'_>,
        desk: &mut Desk<'_>,
        turn: &mut Turn<'_, W>,
    ) -> bool {
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
            ids: member.options.id.as_slice(),
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
        bounds: Bounds,
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
        if connected && bounds.allow(&self.reader) {
            self.reader.queue.push(self.item(offer), bounds.age);
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
        bounds: Bounds,
        desk: &mut Desk<'_>,
        turn: &mut Turn<'_, W>,
    ) {
        if self.reader.queue.is_empty() && self.give(offer, desk, turn) {
            return;
        }
        let reason = if !self.has_connected_member(desk.sessions) {
            DropReason::Qos0Offline
        } else if bounds.have_room(&self.reader) {
            return self.reader.queue.push(self.item(offer), bounds.age);
        } else {
            DropReason::SessionQueueFull
        };
        self.reader.ledger.drop_matched(reason, 1);
        desk.work.counters.dropped(reason, 1);
    }

    /// Gives a value of the node's own to the next member that can take it now. Nothing waits for one, and nothing is stored.
    pub(super) fn offer_status<W: Wire>(
        &mut self,
        message: &MemoryMessage<'_>,
        desk: &mut Desk<'_>,
        turn: &mut Turn<'_, W>,
    ) {
        if !self.has_connected_member(desk.sessions) {
            return;
        }
        let member = self.pick(QoS::AtMostOnce, desk.sessions, turn);
        let session = member.and_then(|member| Some((member, desk.sessions.get_mut(member.session)?)));
        let fate = match session {
            Some((member, session)) => {
                let offer = Offer {
                    record: message.record,
                    message: MessageRef::Memory(message),
                    place: Place::Group(self.key, member.slot, None),
                    qos: QoS::AtMostOnce,
                    retain: member.options.retain_as_published && message.record.retain,
                    ids: member.options.id.as_slice(),
                };
                session.deliver(&offer, desk.work, turn)
            }
            None => Fate::Dropped(DropReason::Qos0SlowReader),
        };
        fate.count(&mut self.reader.ledger, desk.work);
    }

    pub(super) fn item(&self, offer: &GroupOffer<'_>) -> Item {
        let (group, slot) = (self.key, 0);
        let source = match offer.position {
            Some(position) => Source::Group { group, slot, position },
            None => Source::GroupMemory {
                group,
                slot,
                item: None,
            },
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
    pub(super) fn pump<W: Wire>(&mut self, desk: &mut Desk<'_>, turn: &mut Turn<'_, W>) {
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
    pub(super) fn take_back(&mut self, source: Source, work: &mut Work) {
        self.reader.ledger.matched = self.reader.ledger.matched.saturating_sub(1);
        match source {
            Source::Group { position, .. } => {
                self.outstanding.remove(&position);
                self.returned.insert(position);
            }
            Source::GroupMemory { item: Some(item), .. } => self.reader.queue.push_front(*item, u64::MAX),
            Source::GroupMemory { item: None, .. }
            | Source::Log(_)
            | Source::Retained(..)
            | Source::Memory(_)
            | Source::GivenUp => {}
        }
        self.moved(work);
    }
}
