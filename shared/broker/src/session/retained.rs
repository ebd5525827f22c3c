//! Retained messages: the codec of stored values, and what a new subscription is sent of them.
//!
//! A snapshot is taken as of the commit `since` at which the subscription began: values of later commits come live. It is read in
//! pages by key, sent in order, and the key reached is kept with the session's cursor. Until it is complete, the session's live
//! messages wait behind it, so that an older value never follows a newer one.

use std::collections::{HashSet, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};
use fellbeck_core::{CommitNumber, DropReason, Filter, Record, RecordBlock};
use fellbeck_store::commit::{Delete, Put, Space, Stored};

use super::edge::{is_edge, is_kept_back};
use super::in_flight::Source;
use super::inflow::is_inflow;
use super::message::{Ids, Item, Message, MessageRef, Offer, Place, block_of_one};
use super::reader::Reading;
use super::state::{Kind, Session, SessionKey};
use super::turn::Turn;
use super::versions::is_local;
use super::work::{Awaited, ReaderKey, Work};
use super::{Core, Now, Route, ScanId, ScanRequest};
use crate::wire::{ConnId, Wire};

/// First byte of a stored value.
const VALUE_VERSION: u8 = 1;
/// Bytes of one page.
const PAGE_BYTES: usize = 64 << 10;
/// Scans that are asked for at the same time.
const SCANS_MAX: usize = 4;

/// What a message with the RETAIN flag does to the retained store.
#[derive(Debug, Clone)]
pub enum RetainedChange {
    /// It replaces the value of its topic. [MQTT5-3.3.1-5] [MQTT3-3.3.1-5]
    Put(Put),
    /// An empty payload removes the value. [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
    Delete(Delete),
}

/// The change that `record` makes; it belongs in the commit that holds the record.
#[must_use]
pub fn retained_change(record: &Record<'_>) -> RetainedChange {
    let space = Space::Retained;
    let key = Bytes::copy_from_slice(record.topic.as_bytes());
    if record.payload.is_empty() {
        return RetainedChange::Delete(Delete { space, key });
    }
    let block = block_of_one(record);
    let mut value = BytesMut::with_capacity(1 + block.bytes().len());
    value.put_u8(VALUE_VERSION);
    value.extend_from_slice(block.bytes());
    RetainedChange::Put(Put {
        space,
        key,
        value: value.freeze(),
    })
}

pub(super) fn decode(value: &Bytes) -> Option<RecordBlock> {
    match value.first() {
        Some(&VALUE_VERSION) => RecordBlock::parse(value.slice(1..), 1).ok(),
        _ => None,
    }
}

/// Retained messages that one subscription is still to be sent.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The subscription.
    pub(super) slot: u32,
    /// The subscription that asked for it; another than `slot` once that was replaced.
    pub(super) asked: u32,
    pub(super) filter: Filter,
    /// Values of later commits are not part of it, if the topic is logged: they come live.
    pub(super) since: CommitNumber,
    /// Up to here, values of topics that are not logged are part of it: they may have been published before the subscription was in
    /// force. `None`: that commit is not durable, and nothing is read before it is.
    pub(super) unlogged_until: Option<CommitNumber>,
    /// Values of commits up to here were there when the subscription came into force.
    pub(super) in_force: CommitNumber,
    /// Last key that was sent or passed over.
    pub(super) after: Option<Bytes>,
}

impl Snapshot {
    fn has(&self, stored: &Stored, came_live: &HashSet<Box<str>>, route: &dyn Route) -> bool {
        let topic = std::str::from_utf8(&stored.key).ok();
        let Some(topic) = topic.filter(|topic| self.filter.matches(topic)) else {
            return false;
        };
        if stored.commit > self.in_force && came_live.contains(topic) {
            return false;
        }
        if stored.commit <= self.since {
            return true;
        }
        let is_early = self.unlogged_until.is_some_and(|until| stored.commit <= until);
        let is_logged = |record: &Record<'_>| route.route(topic, record.device).is_some() && !is_inflow(record);
        is_early && decode(&stored.value).is_some_and(|block| !is_logged(&block.get(0)))
    }
}

/// Snapshots of one session, in the order of the subscriptions.
#[derive(Debug)]
pub(super) struct Snapshots {
    list: VecDeque<Snapshot>,
    /// Values read for the first of the list, and whether each is part of it.
    page: VecDeque<(Stored, bool)>,
    page_is_last: bool,
    /// Topics whose newest value came from memory, as a live message, since the first of the list came into force. Bounded as the
    /// live queue is, where these messages wait.
    came_live: HashSet<Box<str>>,
    /// The request that is out belongs to another page than the one now wanted.
    stale: bool,
    pub(super) scanning: Reading,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            list: VecDeque::new(),
            page: VecDeque::new(),
            page_is_last: false,
            came_live: HashSet::new(),
            stale: false,
            scanning: Reading::No,
        }
    }
}

impl Snapshots {
    pub(super) fn is_active(&self) -> bool {
        !self.list.is_empty()
    }

    /// Snapshots that are not complete.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn push(&mut self, snapshot: Snapshot) {
        self.list.push_back(snapshot);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Snapshot> {
        self.list.iter()
    }

    /// A retained message of `topic` that no log holds waits in the live queue: it is not to come twice.
    pub(super) fn note_live(&mut self, topic: &str) {
        if self.is_active() {
            self.came_live.insert(topic.into());
        }
    }

    /// The connection is gone, and the live queue with it.
    pub(super) fn forget_live(&mut self) {
        self.came_live.clear();
    }

    /// Forgets what was read and not sent.
    pub(super) fn rewind(&mut self) {
        self.page.clear();
        self.page_is_last = false;
        self.stale = self.scanning == Reading::Asked;
    }

    /// The subscription has ended.
    pub(super) fn cancel(&mut self, slot: u32) {
        if self.list.front().is_some_and(|snapshot| snapshot.slot == slot) {
            self.rewind();
        }
        self.list.retain(|snapshot| snapshot.slot != slot);
    }

    /// A newer version of the subscription is owed what the old one was.
    pub(super) fn pass_on(&mut self, slot: u32, heir: u32) {
        for snapshot in self.list.iter_mut().filter(|snapshot| snapshot.slot == slot) {
            snapshot.slot = heir;
        }
    }

    /// The oldest one of that subscription that still waits to be read.
    fn held_for(&mut self, slot: u32) -> Option<&mut Snapshot> {
        let is_held = |snapshot: &&mut Snapshot| snapshot.asked == slot && snapshot.unlogged_until.is_none();
        self.list.iter_mut().find(is_held)
    }

    /// Lets one held snapshot of each of these subscriptions be read.
    fn release(&mut self, slots: &[u32], unlogged_until: CommitNumber) {
        let mut wanted: HashSet<u32> = slots.iter().copied().collect();
        for snapshot in &mut self.list {
            if snapshot.unlogged_until.is_none() && wanted.remove(&snapshot.asked) {
                snapshot.unlogged_until = Some(unlogged_until);
            }
        }
    }

    fn wants_page(&self) -> bool {
        let may_read = self
            .list
            .front()
            .is_some_and(|snapshot| snapshot.unlogged_until.is_some());
        may_read && self.page.is_empty() && !self.page_is_last
    }
}

impl Session {
    /// Whether a scan of the retained store would let the session go on.
    pub(super) fn wants_scan(&self) -> bool {
        let Some(attached) = self.ready() else {
            return false;
        };
        let resends = self.resend_topic().is_some() && attached.used < attached.window;
        resends || (self.resend.is_empty() && self.snapshots.wants_page())
    }

    /// Key of the retained message that must be sent again next.
    fn resend_topic(&self) -> Option<&Bytes> {
        match &self.in_flight.get(*self.resend.front()?)?.source {
            Source::Retained(topic, _, _, None) => Some(topic),
            _ => None,
        }
    }

    /// Sends what is there of the snapshots.
    pub(super) fn pump_retained<W: Wire>(&mut self, work: &mut Work, turn: &mut Turn<'_, W>) {
        while let Some(snapshot) = self.snapshots.list.front() {
            let slot = snapshot.slot;
            while let Some((stored, is_part)) = self.snapshots.page.front() {
                if *is_part {
                    let stored = stored.clone();
                    if !self.send_retained(slot, &stored, work, turn) {
                        return;
                    }
                }
                let passed = self.snapshots.page.pop_front();
                if let (Some(snapshot), Some((passed, _))) = (self.snapshots.list.front_mut(), passed) {
                    snapshot.after = Some(passed.key);
                }
                self.moved(work);
            }
            if !self.snapshots.page_is_last {
                return;
            }
            self.snapshots.list.pop_front();
            self.snapshots.page_is_last = false;
            if !self.snapshots.is_active() {
                self.snapshots.came_live = HashSet::new();
            }
            self.moved(work);
        }
    }

    /// False when it may not be sent now.
    fn send_retained<W: Wire>(&mut self, slot: u32, stored: &Stored, work: &mut Work, turn: &mut Turn<'_, W>) -> bool {
        let Some(version) = self.subscriptions.get(slot) else {
            return true;
        };
        let Some(block) = decode(&stored.value) else {
            self.drop_matched(DropReason::Damaged, 1, work);
            return true;
        };
        let message = Message::Memory(block);
        let record = message.record();
        // [MQTT5-3.8.3-3]
        let is_local = version.options.no_local && is_local(&record, &self.client_id);
        if is_local || is_kept_back(&record, &self.client_id, version.options.id) {
            return true;
        }
        let qos = record.qos.min(version.options.qos);
        let ids = Ids::of(version.options.id.as_slice());
        if !self.may_send(qos, turn) {
            return false;
        }
        let offer = Offer {
            record,
            message: MessageRef::Owned(&message),
            place: Place::Retained(&stored.key, stored.commit, slot),
            qos,
            // [MQTT3-3.3.1-8]; 5.0: section 3.3.1.3.
            retain: true,
            ids: ids.as_slice(),
        };
        let fate = self.deliver(&offer, work, turn);
        fate.count(&mut self.reader.ledger, work);
        true
    }

    /// Adds a snapshot for the subscription in `slot`, or for the one that replaced it. False when that has ended.
    pub(super) fn hold_snapshot(
        &mut self,
        asked: u32,
        since: CommitNumber,
        unlogged_until: Option<CommitNumber>,
    ) -> bool {
        let Some(version) = self.subscriptions.open_heir_of(asked) else {
            return false;
        };
        self.snapshots.push(Snapshot {
            slot: version.slot,
            asked,
            filter: version.filter.clone(),
            since,
            unlogged_until,
            in_force: since,
            after: None,
        });
        true
    }

    /// Answer to the lookup of a retained message that must be sent again.
    fn resend_retained<W: Wire>(&mut self, page: &[Stored], work: &mut Work, turn: &mut Turn<'_, W>) {
        let Some(packet_id) = self.resend.front().copied() else {
            return;
        };
        if !self.may_resend(turn) {
            return;
        }
        let Some(entry) = self.in_flight.get(packet_id) else {
            return;
        };
        let Source::Retained(topic, commit, slot, None) = &entry.source else {
            return;
        };
        let id = self.subscriptions.get(*slot).and_then(|version| version.options.id);
        let found = page
            .first()
            .filter(|stored| stored.key == *topic && stored.commit == *commit);
        let item = found.and_then(|stored| decode(&stored.value)).map(|block| Item {
            message: Message::Memory(block),
            source: entry.source.clone(),
            qos: entry.qos,
            retain: true,
            ids: Ids::of(id.as_slice()),
        });
        match item {
            Some(item) => {
                if !is_edge(&self.client_id) {
                    self.in_flight.keep_retained(packet_id, &item);
                }
                self.send_again(packet_id, &item, work, turn);
            }
            // The value has been replaced since; the new one comes, or came, by the subscription.
            None => self.give_up(packet_id, DropReason::Trimmed, work),
        }
        self.resend.pop_front();
    }
}

impl Core {
    /// Next page of retained messages to be read for somebody.
    pub fn poll_scan(&mut self, now: Now) -> Option<ScanRequest> {
        self.list_retries(now);
        while self.scans.len() < SCANS_MAX {
            let key = self.work.scans.pop_front()?;
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.snapshots.scanning = Reading::No;
            if !session.wants_scan() {
                continue;
            }
            session.snapshots.scanning = Reading::Asked;
            session.snapshots.stale = false;
            let (prefix, after) = match (session.resend_topic(), session.snapshots.list.front()) {
                (Some(topic), _) => (topic.clone(), None),
                (None, Some(snapshot)) => (
                    Bytes::copy_from_slice(snapshot.filter.literal_prefix().as_bytes()),
                    snapshot.after.clone(),
                ),
                (None, None) => continue,
            };
            self.lookups += 1;
            let id = ScanId(self.lookups);
            self.scans.insert(id, key);
            let bytes_max = PAGE_BYTES;
            return Some(ScanRequest {
                id,
                prefix,
                after,
                bytes_max,
            });
        }
        None
    }

    /// Answer to a scan, in key order; an empty page means that there is no more. `None`: it failed and is tried again.
    pub fn handle_scan<W: Wire>(&mut self, id: ScanId, page: Option<Vec<Stored>>, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some(key) = self.scans.remove(&id) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.snapshots.scanning = Reading::No;
        match page {
            None => self.retry_later(ReaderKey::Session(key), now),
            Some(_) if session.snapshots.stale => session.enlist(&mut self.work),
            Some(page) => {
                if session.resend_topic().is_some() {
                    session.resend_retained(&page, &mut self.work, turn);
                } else if let Some(snapshot) = session.snapshots.list.front() {
                    session.snapshots.page_is_last = page.is_empty() || !snapshot.filter.has_wildcard();
                    let came_live = &session.snapshots.came_live;
                    let mark = |stored: Stored| {
                        let is_part = snapshot.has(&stored, came_live, &*self.route);
                        (stored, is_part)
                    };
                    session.snapshots.page = page.into_iter().map(mark).collect();
                }
                self.pump(key, turn);
            }
        }
        self.settle_groups(turn);
    }

    /// Subscriptions in `slots` are in force after `since`: their snapshots can be taken once all that was published before now is
    /// in the store.
    pub(super) fn begin_snapshots(&mut self, conn: ConnId, key: SessionKey, mut slots: Vec<u32>, since: CommitNumber) {
        let Some(session) = self.sessions.get_mut(key).filter(|_| !slots.is_empty()) else {
            return;
        };
        let is_held = session.kind == Kind::Immediate;
        let unlogged_until = self.work.is_settled().then_some(since);
        slots.retain(|slot| {
            if is_held && let Some(held) = session.snapshots.held_for(*slot) {
                // Served from memory since it was asked for: all that came later is in the queue.
                (held.since, held.unlogged_until) = (since, Some(since));
                return false;
            }
            let begun = session.hold_snapshot(*slot, since, unlogged_until);
            begun && unlogged_until.is_none()
        });
        session.moved(&mut self.work);
        if !slots.is_empty() {
            self.work.wait(conn, Awaited::Snapshots { session: key, slots });
        }
    }

    /// All that was published before these snapshots began is in the store.
    pub(super) fn release_snapshots<W: Wire>(&mut self, key: SessionKey, slots: &[u32], turn: &mut Turn<'_, W>) {
        let newest = self.newest();
        if let Some(session) = self.sessions.get_mut(key) {
            session.snapshots.release(slots, newest);
        }
        self.pump(key, turn);
    }
}
