//! Counters of one lane of one edge instance, moved in the commit that moves W.
//!
//! In: for each ingest, where it begins and ends and what was in it. Out: the counters, and their bytes (`docs/format/ledger.md`).
//! The counters come from what the records were, `through` from where they lay: a hole in between shows as a difference.

use bytes::Bytes;
use fellbeck_core::Run;
use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_node::ledger::LaneBook;
use fellbeck_store::{Put, Space};

const VERSION: u8 = 1;
/// What keys of lanes begin with.
pub(super) const KEY_PREFIX: &[u8] = b"ledger/link/";

/// One run of one lane of one instance of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId {
    pub instance: u32,
    pub lane: String,
    pub run: Run,
}

/// What became of the positions of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Positions before the first that was counted.
    pub base: u64,
    /// Last position that was counted: W.
    pub through: u64,
    pub stored: u64,
    pub known: u64,
    pub heartbeats: u64,
    pub expired: u64,
    pub gap: u64,
}

/// What one ingest brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// Its first position that is new.
    pub(crate) first: u64,
    /// Its last position.
    pub(crate) through: u64,
    /// Records appended to partitions.
    pub(crate) stored: u64,
    /// Records that their partition had already.
    pub(crate) known: u64,
    /// Heartbeats.
    pub(crate) heartbeats: u64,
    /// Positions declared as expired.
    pub(crate) expired: u64,
    /// Positions declared as lost.
    pub(crate) gap: u64,
}

impl LaneCounts {
    /// The counters before the first ingest, which begins at `first`.
    pub(crate) fn before(first: u64) -> Self {
        let base = first.saturating_sub(1);
        Self {
            base,
            through: base,
            ..Self::default()
        }
    }

    /// Adds an ingest.
    pub(crate) fn add(&mut self, brought: &Brought) {
        self.through = brought.through;
        for (count, more) in [
            (&mut self.stored, brought.stored),
            (&mut self.known, brought.known),
            (&mut self.heartbeats, brought.heartbeats),
            (&mut self.expired, brought.expired),
            (&mut self.gap, brought.gap),
        ] {
            *count = count.saturating_add(more);
        }
    }

    /// The entry of the store.
    pub(crate) fn put(&self, edge: &str, lane: &LaneId) -> Put {
        let mut key = KEY_PREFIX.to_vec();
        put_bytes(&mut key, edge.as_bytes());
        put_u64(&mut key, u64::from(lane.instance));
        put_bytes(&mut key, lane.lane.as_bytes());
        put_u64(&mut key, u64::from(lane.run.0));
        let mut value = vec![VERSION];
        for number in [
            self.base,
            self.through,
            self.stored,
            self.known,
            self.heartbeats,
            self.expired,
            self.gap,
        ] {
            put_u64(&mut value, number);
        }
        Put {
            space: Space::Node,
            key: key.into(),
            value: Bytes::from(value),
        }
    }

    /// Reads an entry of the store: edge, lane, counters.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(String, LaneId, Self)> {
        let mut key = key.strip_prefix(KEY_PREFIX)?;
        let edge = take_text(&mut key)?;
        let lane = LaneId {
            instance: take_u32(&mut key)?,
            lane: take_text(&mut key)?,
            run: Run(u16::try_from(take_u64(&mut key)?).ok()?),
        };
        let (&version, mut value) = value.split_first()?;
        let counts = Self {
            base: take_u64(&mut value)?,
            through: take_u64(&mut value)?,
            stored: take_u64(&mut value)?,
            known: take_u64(&mut value)?,
            heartbeats: take_u64(&mut value)?,
            expired: take_u64(&mut value)?,
            gap: take_u64(&mut value)?,
        };
        let is_whole = version == VERSION && key.is_empty() && value.is_empty();
        is_whole.then_some((edge, lane, counts))
    }

    /// The book for the ledger. `edge_appended`: what the edge said last.
    pub(crate) fn book(&self, edge: &str, lane: &LaneId, edge_appended: Option<u64>) -> LaneBook {
        LaneBook {
            edge: edge.to_owned(),
            instance: lane.instance,
            lane: lane.lane.clone(),
            run: lane.run.0,
            through: self.through,
            base: self.base,
            stored: self.stored,
            known: self.known,
            heartbeats: self.heartbeats,
            expired: self.expired,
            gap: self.gap,
            edge_appended,
            ..LaneBook::default()
        }
        .balanced()
    }
}

pub(super) fn take_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(input)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> LaneId {
        LaneId {
            instance: 2,
            lane: "default".into(),
            run: Run(0),
        }
    }

    #[test]
    fn a_hole_that_nobody_declared_is_a_difference_for_ever() {
        let mut counts = LaneCounts::before(1);
        counts.add(&Brought {
            first: 1,
            through: 10,
            stored: 7,
            heartbeats: 1,
            gap: 2,
            ..Brought::default()
        });
        assert_eq!(counts.book("barn", &lane(), None).difference, 0);
        counts.add(&Brought {
            first: 14,
            through: 20,
            stored: 7,
            ..Brought::default()
        });
        counts.add(&Brought {
            first: 21,
            through: 21,
            expired: 1,
            ..Brought::default()
        });
        assert_eq!(counts.book("barn", &lane(), None).difference, 3);
    }

    #[test]
    fn a_book_that_begins_in_the_middle_has_a_base() {
        let mut counts = LaneCounts::before(101);
        counts.add(&Brought {
            first: 101,
            through: 110,
            stored: 8,
            known: 2,
            ..Brought::default()
        });
        let book = counts.book("barn", &lane(), Some(115));
        assert_eq!((book.base, book.difference, book.waiting), (100, 0, Some(5)));
    }

    /// Frozen as version 1: `docs/format/ledger.md`.
    #[test]
    fn counters_have_the_bytes_of_the_documented_format() {
        let counts = LaneCounts {
            base: 1,
            through: 300,
            stored: 290,
            known: 2,
            heartbeats: 3,
            expired: 4,
            gap: 0,
        };
        let put = counts.put("barn", &lane());
        assert_eq!(&put.key[..], b"ledger/link/\x04barn\x02\x07default\x00");
        assert_eq!(&put.value[..], [1, 1, 0xAC, 2, 0xA2, 2, 2, 3, 4, 0]);
        assert_eq!(
            LaneCounts::decode(&put.key, &put.value),
            Some(("barn".into(), lane(), counts))
        );
        for cut in 0..put.value.len() {
            assert_eq!(LaneCounts::decode(&put.key, &put.value[..cut]), None);
        }
        for cut in 0..put.key.len() {
            assert_eq!(LaneCounts::decode(&put.key[..cut], &put.value), None);
        }
    }
}
