//! `$SYS`: what the node says of itself, as messages that exist in memory only.
//!
//! In: topics with their newest values, from the front. Out: at QoS 0, the values as retained messages to a new subscription
//! below `$SYS/`, and each change to the subscribers that are connected. Nothing of it is logged, kept in the retained store or
//! queued for a session that is away, and no commit is made for it. Owned by the [`Core`].
//! A subscription that is new waits for room in the write buffer, with the values as they are when they are sent, so that an
//! older one never follows a newer one; a change that meets a full write buffer is dropped and counted.
//! Shared subscriptions: each change goes to one member; there are no values at the start, as with retained messages.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use fellbeck_core::{DropReason, Filter, Properties, QoS, Record};

use super::message::{MemoryMessage, MessageRef, Offer, Place};
use super::state::{Session, SessionKey};
use super::turn::Turn;
use super::work::Work;
use super::{Core, Now};
use crate::wire::{ConnId, Wire};

/// What every topic of the node's own begins with.
const PREFIX: &str = "$SYS/";
/// First level of these topics.
const FIRST_LEVEL: &str = "$SYS";
/// Values that are kept; what is beyond is refused and counted.
const VALUES_MAX: usize = 512;
/// Bytes of one topic or value.
const BYTES_MAX: usize = 1024;

/// Whether a filter, as it stands in a SUBSCRIBE, reaches nothing but the node's own topics. Shared ones are sent no values at the
/// start, and so do not count.
#[must_use]
pub fn is_status_filter(filter: &str) -> bool {
    filter.starts_with(PREFIX)
}

/// Newest value of each topic.
#[derive(Debug, Default)]
pub(super) struct Status {
    values: BTreeMap<Box<str>, Box<str>>,
}

impl Status {
    /// Takes a value. True when it is new.
    fn set(&mut self, topic: &str, value: &str) -> bool {
        let present = self.values.get(topic);
        if present.is_some_and(|present| **present == *value) {
            return false;
        }
        let has_room = present.is_some() || self.values.len() < VALUES_MAX;
        let fits = topic.len() <= BYTES_MAX && value.len() <= BYTES_MAX && topic.starts_with(PREFIX);
        if !has_room || !fits {
            metrics::counter!("fellbeck_broker_status_refused_total").increment(1);
            return false;
        }
        self.values.insert(topic.into(), value.into());
        true
    }

    /// First topic behind `after` that `filter` matches, and its value.
    fn next(&self, filter: &Filter, after: Option<&str>) -> Option<(&str, &str)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.values.range::<str, _>((from, Bound::Unbounded));
        rest.find(|(topic, _)| filter.matches(topic))
            .map(|(topic, value)| (&**topic, &**value))
    }
}

/// The message that says that `topic` has `value`.
fn record<'a>(topic: &'a str, value: &'a str, now: Now) -> Record<'a> {
    Record {
        // No client has an empty identifier, so No Local leaves nothing out.
        device: "",
        topic,
        payload: value.as_bytes(),
        qos: QoS::AtMostOnce,
        retain: true,
        properties: Properties::default(),
        accepted_at: now.wall,
        clock: now.clock,
        expiry_secs: None,
        origin: None,
        path: "",
    }
}

/// Subscriptions of one session that have not been sent all values yet. Bounded by the subscriptions of the session.
#[derive(Debug, Default)]
pub(super) struct StatusOwed {
    list: VecDeque<Owed>,
}

#[derive(Debug)]
struct Owed {
    /// The subscription.
    slot: u32,
    /// Last topic that was sent.
    after: Option<Box<str>>,
}

impl StatusOwed {
    fn add(&mut self, slot: u32) {
        self.cancel(slot);
        self.list.push_back(Owed { slot, after: None });
    }

    /// The subscription has ended.
    pub(super) fn cancel(&mut self, slot: u32) {
        self.list.retain(|owed| owed.slot != slot);
    }

    /// A newer version of the subscription is owed what the old one was.
    pub(super) fn pass_on(&mut self, slot: u32, heir: u32) {
        for owed in self.list.iter_mut().filter(|owed| owed.slot == slot) {
            owed.slot = heir;
        }
    }

    pub(super) fn clear(&mut self) {
        self.list = VecDeque::new();
    }
}

impl Core {
    /// Whether there is a subscription below `$SYS/`. If not, nobody sees what [`Core::publish_status`] is given.
    #[must_use]
    pub fn wants_status(&self) -> bool {
        self.immediate.has_first_level(FIRST_LEVEL) || self.committed.has_first_level(FIRST_LEVEL)
    }

    /// The node's own topics, which begin with `$SYS/`, and their values. Those that changed go to the subscribers that are
    /// connected, all are kept for new subscriptions.
    pub fn publish_status<W: Wire>(&mut self, entries: &[(String, String)], now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        for (topic, value) in entries {
            if self.status.set(topic, value) {
                let message = MemoryMessage::new(record(topic, value, now));
                self.fan_out_status(&message, turn);
            }
        }
    }

    /// Subscriptions in `slots` are in force: they are to be sent the values that there are.
    pub(super) fn begin_status(&mut self, conn: ConnId, key: SessionKey, slots: &[u32]) {
        let Some(session) = self.sessions.get_mut(key).filter(|_| !slots.is_empty()) else {
            return;
        };
        if session.attached.is_none_or(|attached| attached.id != conn) {
            return;
        }
        for slot in slots {
            let heir = session.subscriptions.open_heir_of(*slot).map(|version| version.slot);
            if let Some(slot) = heir {
                session.status.add(slot);
            }
        }
    }
}

impl Session {
    /// Sends the values that new subscriptions are owed, as far as the connection takes them.
    pub(super) fn pump_status<W: Wire>(&mut self, status: &Status, work: &mut Work, turn: &mut Turn<'_, W>) {
        while let Some(owed) = self.status.list.front() {
            let version = self.subscriptions.get(owed.slot).filter(|version| version.is_open());
            let next = version.and_then(|version| {
                let (topic, value) = status.next(&version.filter, owed.after.as_deref())?;
                Some((topic, value, version.options.id))
            });
            let Some((topic, value, id)) = next else {
                self.status.list.pop_front();
                continue;
            };
            if !self.takes_status(turn) {
                return;
            }
            if let Some(owed) = self.status.list.front_mut() {
                owed.after = Some(topic.into());
            }
            let message = MemoryMessage::new(record(topic, value, turn.now));
            // [MQTT5-3.3.1-8]
            self.send_status(&message, true, id.as_slice(), work, turn);
        }
    }

    /// Offers a value that has changed. Who is away misses it; so does who does not read fast enough, which is counted.
    pub(super) fn offer_status<W: Wire>(
        &mut self,
        message: &MemoryMessage<'_>,
        retain: bool,
        ids: &[u32],
        work: &mut Work,
        turn: &mut Turn<'_, W>,
    ) {
        if self.ready().is_none() {
            return;
        }
        if self.takes_status(turn) {
            self.send_status(message, retain, ids, work, turn);
        } else {
            self.drop_matched(DropReason::Qos0SlowReader, 1, work);
        }
    }

    /// Other messages that wait do not matter: the order is that of the messages of one topic.
    fn takes_status<W: Wire>(&self, turn: &Turn<'_, W>) -> bool {
        self.ready()
            .is_some_and(|attached| !turn.wire.is_backlogged(attached.id))
    }

    fn send_status<W: Wire>(
        &mut self,
        message: &MemoryMessage<'_>,
        retain: bool,
        ids: &[u32],
        work: &mut Work,
        turn: &mut Turn<'_, W>,
    ) {
        let offer = Offer {
            record: message.record,
            message: MessageRef::Memory(message),
            place: Place::Memory,
            qos: QoS::AtMostOnce,
            retain,
            ids,
        };
        // The cursor is not marked as moved, so nothing is stored for this.
        let fate = self.deliver(&offer, work, turn);
        fate.count(&mut self.reader.ledger, work);
    }
}
