//! A message on its way to one reader: borrowed while it is offered, owned while it waits in a queue.
//!
//! A logged message is a reference into a committed block, never a copy. A message that is not logged is copied once, when the
//! first of its readers must wait for it, and then shared.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_core::{CommitNumber, LogPosition, QoS, Record, RecordBlock, RecordBlockBuilder};
use fellbeck_store::committed::CommittedBlock;

use super::in_flight::Source;
use super::shared::GroupKey;

/// Owned message.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Record `index` of the `track`th track block.
    Logged(Arc<CommittedBlock>, u32, u32),
    /// A block of one record.
    Memory(RecordBlock),
}

impl Message {
    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Logged(block, track, index) => block.tracks[*track as usize].block.get(*index as usize),
            Self::Memory(block) => block.get(0),
        }
    }
}

/// A message that is not logged, or not yet; becomes an owned copy at most once.
pub(super) struct MemoryMessage<'a> {
    pub(super) record: Record<'a>,
    copy: OnceCell<RecordBlock>,
}

impl<'a> MemoryMessage<'a> {
    pub(super) fn new(record: Record<'a>) -> Self {
        Self {
            record,
            copy: OnceCell::new(),
        }
    }

    pub(super) fn copy(&self) -> RecordBlock {
        self.copy.get_or_init(|| block_of_one(&self.record)).clone()
    }
}

pub(super) fn block_of_one(record: &Record<'_>) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    builder.push(record);
    builder.finish()
}

/// Borrowed message: where an owned one would come from.
#[derive(Clone, Copy)]
pub(super) enum MessageRef<'a> {
    Logged(&'a Arc<CommittedBlock>, u32, u32),
    Memory(&'a MemoryMessage<'a>),
    Owned(&'a Message),
}

impl MessageRef<'_> {
    pub(super) fn to_owned(self) -> Message {
        match self {
            Self::Logged(block, track, index) => Message::Logged(block.clone(), track, index),
            Self::Memory(message) => Message::Memory(message.copy()),
            Self::Owned(message) => message.clone(),
        }
    }
}

/// Subscription identifiers of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ids {
    None,
    One([u32; 1]),
    Many(Box<[u32]>),
}

impl Ids {
    pub(super) fn of(ids: &[u32]) -> Self {
        match ids {
            [] => Self::None,
            [only] => Self::One([*only]),
            many => Self::Many(many.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

/// One message as one reader is to see it.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) record: Record<'a>,
    pub(super) message: MessageRef<'a>,
    pub(super) place: Place<'a>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: &'a [u32],
}

/// Where a message comes from, as far as redelivery is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The log.
    Log(LogPosition),
    /// The retained store: the key, the commit that wrote the value, and the slot of the subscription that it is sent for.
    Retained(&'a Bytes, CommitNumber, u32),
    /// Memory alone.
    Memory,
    /// A shared group that the reader is a member of by its subscription `slot`; the position, if a log holds the message.
    Group(GroupKey, u32, Option<LogPosition>),
}

/// A message that waits.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) message: Message,
    pub(super) source: Source,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) ids: Ids,
}

impl Offer<'_> {
    pub(super) fn bytes(&self) -> usize {
        self.record.payload.len() + self.record.topic.len() + self.record.properties.as_bytes().len()
    }

    pub(super) fn to_item(self) -> Item {
        Item {
            message: self.message.to_owned(),
            source: Source::of(&self),
            qos: self.qos,
            retain: self.retain,
            ids: Ids::of(self.ids),
        }
    }
}

impl Item {
    pub(super) fn position(&self) -> Option<LogPosition> {
        self.source.position()
    }

    pub(super) fn bytes(&self) -> usize {
        let record = self.message.record();
        record.payload.len() + record.topic.len() + record.properties.as_bytes().len()
    }
}

/// Messages that wait for one reader, oldest first. Its owner enforces the bounds.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<(Item, u64)>,
    bytes: usize,
}

impl Queue {
    /// `age` tells how far the fan-out had come, so that old items can be found.
    pub(super) fn push(&mut self, item: Item, age: u64) {
        self.bytes += item.bytes();
        self.items.push_back((item, age));
    }

    pub(super) fn push_front(&mut self, item: Item, age: u64) {
        self.bytes += item.bytes();
        self.items.push_front((item, age));
    }

    pub(super) fn pop(&mut self) -> Option<Item> {
        let (item, _) = self.items.pop_front()?;
        self.bytes -= item.bytes();
        if self.items.is_empty() {
            // A queue is empty most of the time; its memory should not stay at the peak for every session.
            self.items = VecDeque::new();
        }
        Some(item)
    }

    pub(super) fn front(&self) -> Option<&Item> {
        self.items.front().map(|(item, _)| item)
    }

    pub(super) fn front_age(&self) -> Option<u64> {
        self.items.front().map(|(_, age)| *age)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().map(|(item, _)| item)
    }

    /// First position in the log among the items.
    pub(super) fn first_position(&self) -> Option<LogPosition> {
        self.items.iter().find_map(|(item, _)| item.position())
    }

    /// Removes the oldest item at QoS 0 that no log holds.
    pub(super) fn drop_oldest_qos0(&mut self) -> bool {
        let Some(index) = self.items.iter().position(|(item, _)| item.qos == QoS::AtMostOnce) else {
            return false;
        };
        if let Some((item, _)) = self.items.remove(index) {
            self.bytes -= item.bytes();
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = Item> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.items).into_iter().map(|(item, _)| item)
    }
}
