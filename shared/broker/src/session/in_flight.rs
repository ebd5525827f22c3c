//! Outbound in-flight table of one session: what was sent at QoS 1 or 2 and is not complete, in the order of sending.
//!
//! O(in flight), never O(backlog): an entry holds a position, not a payload (but for messages that no log holds).
//! Packet IDs rise from entry to entry, cyclically from 1 to 65,535, and the table never spans the whole cycle; so an entry is
//! found by bisection. Removed entries leave a hole that goes when it reaches the front. An entry that is still there when the cycle
//! comes round is overdue: it stands apart, before all others, and its packet ID is passed over [MQTT5-2.2.1-4].

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use fellbeck_core::{CommitNumber, LogPosition, QoS};

use super::message::{Item, Offer, Place};
use super::shared::GroupKey;

const CYCLE: u32 = 65_535;
/// The oldest entry becomes overdue before packet IDs could lap it.
const SPAN_MAX: u32 = CYCLE - 1;

/// Bytes of retained messages that one session keeps until they are acknowledged. What is beyond is looked up to be sent again, and
/// given up, counted, where the value was replaced meanwhile.
const RETAINED_BYTES_MAX: usize = 256 << 10;

/// Where an in-flight message can be had again.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// The log, by the session's own subscriptions.
    Log(LogPosition),
    /// The log, as member of a shared group; `slot` is the member's subscription.
    Group {
        group: GroupKey,
        slot: u32,
        position: LogPosition,
    },
    /// A group's message that no log holds: kept, so that another member can take it.
    GroupMemory {
        group: GroupKey,
        slot: u32,
        item: Option<Box<Item>>,
    },
    /// The retained store: key, the commit that wrote the value, and the subscription that it was sent for. The message itself is
    /// kept where there is room, since the value may be replaced.
    Retained(Bytes, CommitNumber, u32, Option<Box<Item>>),
    /// No log holds it; kept where the session may resume.
    Memory(Option<Box<Item>>),
    /// The message is lost and entered as dropped; the entry stays until the client has released its packet ID. Not stored.
    GivenUp,
}

impl Source {
    pub(super) fn of(offer: &Offer<'_>) -> Self {
        match offer.place {
            Place::Log(position) => Self::Log(position),
            Place::Retained(topic, commit, slot) => Self::Retained(topic.clone(), commit, slot, None),
            Place::Memory => Self::Memory(None),
            Place::Group(group, slot, Some(position)) => Self::Group { group, slot, position },
            Place::Group(group, slot, None) => Self::GroupMemory {
                group,
                slot,
                item: None,
            },
        }
    }

    /// Puts the message itself into the entry, where nothing else holds it.
    pub(super) fn keep(&mut self, message: impl FnOnce() -> Item) {
        if let Self::Memory(item) | Self::GroupMemory { item, .. } | Self::Retained(.., item) = self {
            *item = Some(Box::new(message()));
        }
    }

    /// The message itself, where the entry holds it.
    pub(super) fn kept(&self) -> Option<&Item> {
        match self {
            Self::Memory(item) | Self::GroupMemory { item, .. } | Self::Retained(.., item) => item.as_deref(),
            Self::Log(_) | Self::Group { .. } | Self::GivenUp => None,
        }
    }

    /// Bytes of a retained message that is kept.
    fn retained_bytes(&self) -> usize {
        match self {
            Self::Retained(.., Some(item)) => item.bytes(),
            _ => 0,
        }
    }

    pub(super) fn position(&self) -> Option<LogPosition> {
        match self {
            Self::Log(position) | Self::Group { position, .. } => Some(*position),
            Self::GroupMemory { .. } | Self::Retained(..) | Self::Memory(_) | Self::GivenUp => None,
        }
    }

    pub(super) fn group(&self) -> Option<GroupKey> {
        match self {
            Self::Group { group, .. } | Self::GroupMemory { group, .. } => Some(*group),
            Self::Log(_) | Self::Retained(..) | Self::Memory(_) | Self::GivenUp => None,
        }
    }
}

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// QoS 2 of a durable session: waits for the commit that holds the packet ID; not sent yet.
    Reserved,
    /// PUBLISH was sent.
    Sent,
    /// QoS 2: PUBREC was seen and waits for its commit (durable sessions only).
    Received,
    /// QoS 2: PUBREL was sent.
    Released,
    /// Complete; a hole.
    Gone,
}

/// One message in flight.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) packet_id: u16,
    pub(super) qos: QoS,
    pub(super) step: Step,
    /// It uses up one unit of the client's Receive Maximum on the present connection.
    pub(super) counted: bool,
    pub(super) source: Source,
}

impl Entry {
    /// It holds a message of the session's own subscriptions.
    pub(super) fn is_of_its_own(&self) -> bool {
        self.source.group().is_none() && !matches!(self.source, Source::GivenUp)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    entries: VecDeque<Entry>,
    /// Entries that packet IDs have lapped, in the order of sending. All are older than `entries`.
    overdue: BTreeMap<u64, Entry>,
    overdue_at: HashMap<u16, u64>,
    /// Entries that ever became overdue.
    overdue_count: u64,
    live: usize,
    last_id: u16,
    /// Bytes of the retained messages that are kept.
    retained_bytes: usize,
}

/// Steps from packet ID `from` to `to` in the cycle.
fn distance(from: u16, to: u16) -> u32 {
    (u32::from(to) + CYCLE - u32::from(from)) % CYCLE
}

impl InFlight {
    /// Entries that are not complete.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Messages that are not complete.
    pub(super) fn messages(&self) -> usize {
        let given_up = |entry: &&Entry| matches!(entry.source, Source::GivenUp);
        self.live - self.iter().filter(given_up).count()
    }

    /// Messages that are not complete and were not sent for a shared group.
    pub(super) fn of_its_own(&self) -> usize {
        self.iter().filter(|entry| entry.is_of_its_own()).count()
    }

    /// False while no packet ID can be given.
    pub(super) fn has_free_id(&self) -> bool {
        self.live < CYCLE as usize
    }

    /// Adds an entry at the end and gives its packet ID. The caller has checked [`InFlight::has_free_id`].
    pub(super) fn add(&mut self, qos: QoS, step: Step, source: Source) -> u16 {
        assert!(self.has_free_id(), "a packet ID in use would be given again");
        loop {
            let last = self.last_id;
            let spans_all = |front: &Entry| distance(front.packet_id, last) >= SPAN_MAX - 1;
            while self.entries.front().is_some_and(spans_all) {
                self.front_is_overdue();
            }
            self.last_id = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
            if !self.overdue_at.contains_key(&self.last_id) {
                break;
            }
        }
        self.put_back(Entry {
            packet_id: self.last_id,
            qos,
            step,
            counted: true,
            source,
        });
        self.last_id
    }

    fn front_is_overdue(&mut self) {
        if let Some(entry) = self.entries.pop_front().filter(|entry| entry.step != Step::Gone) {
            self.overdue_count += 1;
            self.overdue_at.insert(entry.packet_id, self.overdue_count);
            self.overdue.insert(self.overdue_count, entry);
        }
    }

    /// Appends an entry as it was stored. Entries are put back in the order of sending; false when its packet ID is there already.
    pub(super) fn restore(&mut self, entry: Entry) -> bool {
        if entry.packet_id == 0 || self.get(entry.packet_id).is_some() {
            return false;
        }
        let is_lapped = |front: &Entry, last: u16| {
            let steps = distance(front.packet_id, entry.packet_id);
            steps <= distance(front.packet_id, last) || steps >= SPAN_MAX
        };
        let last = self.last_id;
        while self.entries.front().is_some_and(|front| is_lapped(front, last)) {
            self.front_is_overdue();
        }
        self.last_id = entry.packet_id;
        self.put_back(entry);
        true
    }

    /// After a restart packet IDs go on behind `last`, so that one that was completed is not used again at once: not every entry is
    /// stored, and a client may still hold the packet ID of one that was not.
    pub(super) fn go_on_behind(&mut self, last: u16) {
        let lies_ahead = self.entries.front().is_none_or(|front| {
            let steps = distance(front.packet_id, last);
            steps > distance(front.packet_id, self.last_id) && steps < SPAN_MAX
        });
        if lies_ahead {
            self.last_id = last;
        }
    }

    pub(super) fn last_id(&self) -> u16 {
        self.last_id
    }

    /// Whether a retained message of that size may be kept until it is acknowledged.
    pub(super) fn has_room_for_retained(&self, bytes: usize) -> bool {
        self.retained_bytes + bytes <= RETAINED_BYTES_MAX
    }

    /// Keeps a retained message that was looked up to be sent again, where there is room.
    pub(super) fn keep_retained(&mut self, packet_id: u16, item: &Item) {
        if self.has_room_for_retained(item.bytes())
            && let Some(entry) = self.get_mut(packet_id)
        {
            entry.source.keep(|| item.clone());
            self.retained_bytes += item.bytes();
        }
    }

    fn put_back(&mut self, entry: Entry) {
        self.retained_bytes += entry.source.retained_bytes();
        self.entries.push_back(entry);
        self.live += 1;
    }

    fn index(&self, packet_id: u16) -> Option<usize> {
        let front = self.entries.front()?.packet_id;
        let wanted = distance(front, packet_id);
        let index = self
            .entries
            .binary_search_by_key(&wanted, |entry| distance(front, entry.packet_id))
            .ok()?;
        (self.entries[index].step != Step::Gone).then_some(index)
    }

    pub(super) fn get(&self, packet_id: u16) -> Option<&Entry> {
        match self.index(packet_id) {
            Some(index) => self.entries.get(index),
            None => self.overdue.get(self.overdue_at.get(&packet_id)?),
        }
    }

    pub(super) fn get_mut(&mut self, packet_id: u16) -> Option<&mut Entry> {
        match self.index(packet_id) {
            Some(index) => self.entries.get_mut(index),
            None => self.overdue.get_mut(self.overdue_at.get(&packet_id)?),
        }
    }

    /// Completes the entry and hands it out.
    pub(super) fn remove(&mut self, packet_id: u16) -> Option<Entry> {
        let removed = match self.index(packet_id) {
            Some(index) => self.take(index),
            None => self.overdue.remove(&self.overdue_at.remove(&packet_id)?)?,
        };
        self.live -= 1;
        self.retained_bytes -= removed.source.retained_bytes();
        Some(removed)
    }

    /// Leaves a hole, and sweeps holes.
    fn take(&mut self, index: usize) -> Entry {
        let entry = &mut self.entries[index];
        let removed = Entry {
            source: std::mem::replace(&mut entry.source, Source::Memory(None)),
            ..*entry
        };
        entry.step = Step::Gone;
        while self.entries.front().is_some_and(|front| front.step == Step::Gone) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + 64 {
            self.entries.retain(|entry| entry.step != Step::Gone);
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
        removed
    }

    /// The entries in the order of sending.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        let present = self.entries.iter().filter(|entry| entry.step != Step::Gone);
        self.overdue.values().chain(present)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let present = self.entries.iter_mut().filter(|entry| entry.step != Step::Gone);
        self.overdue.values_mut().chain(present)
    }

    /// Subscriptions that retained messages were sent for which may have to be sent again.
    pub(super) fn retained_slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self
            .iter()
            .filter(|entry| matches!(entry.step, Step::Reserved | Step::Sent))
            .filter_map(|entry| match entry.source {
                Source::Retained(_, _, slot, _) => Some(slot),
                _ => None,
            })
            .collect();
        slots.dedup();
        slots
    }

    /// Oldest commit that is needed to send an entry again.
    pub(super) fn oldest_commit(&self) -> Option<CommitNumber> {
        self.iter()
            .filter(|entry| matches!(entry.step, Step::Reserved | Step::Sent))
            .filter_map(|entry| entry.source.position())
            .map(|position| position.commit)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(table: &mut InFlight) -> u16 {
        table.add(QoS::AtLeastOnce, Step::Sent, Source::Memory(None))
    }

    #[test]
    fn packet_ids_rise_and_skip_zero_when_they_wrap() {
        let mut table = InFlight::default();
        table.go_on_behind(65_534);
        assert_eq!([sent(&mut table), sent(&mut table), sent(&mut table)], [65_535, 1, 2]);
        assert!(table.remove(1).is_some() && table.remove(1).is_none() && table.get(1).is_none());
        assert_eq!(
            table.iter().map(|entry| entry.packet_id).collect::<Vec<_>>(),
            [65_535, 2]
        );
    }

    #[test]
    fn a_restored_table_goes_on_behind_the_last_packet_id_that_was_given() {
        for (stored, last, next) in [(1, 9, 10), (65_530, 3, 4), (5, 5, 6), (5, 4, 6)] {
            let mut table = InFlight::default();
            let entry = Entry {
                packet_id: stored,
                qos: QoS::ExactlyOnce,
                step: Step::Sent,
                counted: false,
                source: Source::Memory(None),
            };
            assert!(table.restore(entry));
            table.go_on_behind(last);
            assert_eq!(sent(&mut table), next, "stored {stored}, last {last}");
            assert!(table.get(stored).is_some() && table.get(next).is_some());
        }
    }

    /// One message that is never acknowledged must not see its packet ID given to another, nor stop the others.
    #[test]
    fn packet_ids_pass_over_an_entry_that_is_never_acknowledged() {
        let mut table = InFlight::default();
        let stuck = [sent(&mut table), sent(&mut table)];
        let mut last = None;
        for _ in 0..200_000 {
            assert!(table.has_free_id());
            let id = sent(&mut table);
            assert!(!stuck.contains(&id) && id != 0);
            if let Some(last) = last.replace(id) {
                assert!(last != id && table.remove(last).is_some());
            }
        }
        assert!(stuck.iter().all(|id| table.get(*id).is_some()) && table.len() == 3);
        assert_eq!(
            table.iter().map(|entry| entry.packet_id).collect::<Vec<_>>()[..2],
            stuck
        );
        assert!(table.entries.len() < 200, "holes are swept");
        assert!(stuck.iter().all(|id| table.remove(*id).is_some()));
        assert_eq!((table.len(), table.overdue.len(), table.overdue_at.len()), (1, 0, 0));
    }

    #[test]
    fn every_packet_id_can_be_in_flight_at_a_time() {
        let mut table = InFlight::default();
        table.go_on_behind(40_000);
        let all: std::collections::BTreeSet<u16> =
            std::iter::from_fn(|| table.has_free_id().then(|| sent(&mut table))).collect();
        assert_eq!((all.len(), all.first()), (65_535, Some(&1)));
        assert!(table.remove(7).is_some() && table.has_free_id());
        assert_eq!(sent(&mut table), 7);
    }

    #[test]
    fn a_stored_table_keeps_its_order_also_where_packet_ids_were_lapped_and_refuses_doubled_ones() {
        let entry = |packet_id| Entry {
            packet_id,
            qos: QoS::AtLeastOnce,
            step: Step::Sent,
            counted: false,
            source: Source::Memory(None),
        };
        let mut table = InFlight::default();
        assert!(!table.restore(entry(0)));
        let order = [65_000, 3, 65_001, 65_535, 2, 4];
        for id in order {
            assert!(table.restore(entry(id)) && !table.restore(entry(id)), "{id}");
        }
        assert_eq!(table.iter().map(|entry| entry.packet_id).collect::<Vec<_>>(), order);
        assert!(order.iter().all(|id| table.get(*id).is_some()));
        assert_eq!(sent(&mut table), 5);
    }
}
