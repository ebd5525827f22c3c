//! The books of the lanes of an edge (P9): what became of each position that the cloud has acknowledged.
//!
//! In: ranges that were declared as expired or lost, W as it moves, and what the store held at start. Out: counters per lane, kept in
//! the commit of the cursor, and the node's ledger. A position that W has passed is counted once: as expired or gap where that was
//! declared, else as acked. After a kill the cloud may tell a W beyond the last counters; what expired in between, at most what
//! was acknowledged within a second, then counts as acked. The cloud's own book of the lane is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fellbeck_core::varint::{put_u64, take_u64};
use fellbeck_core::{Seq, TrackId};
use fellbeck_node::ledger::{Ledger, Shelf, TrackBook, track_book};
use fellbeck_store::{Put, Space, Store, TrackLedger};

use crate::rules::{LOCAL_LANE, track_name};

const VERSION: u8 = 1;
const KEY_PREFIX: &str = "ledger/lane/";
/// Times that a lane is counted again since it moved meanwhile.
const TRIES: usize = 8;

/// What became of the positions of a lane up to `through`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LaneCounts {
    /// W.
    pub(crate) through: u64,
    /// Records that the cloud has.
    pub(crate) acked: u64,
    /// Records that had expired.
    pub(crate) expired: u64,
    /// Lost and declared.
    pub(crate) gap: u64,
}

/// What a declared range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Its records had expired.
    Expired,
    /// Its records are lost.
    Gap,
}

/// One lane.
#[derive(Debug, Default)]
struct LaneBook {
    counts: LaneCounts,
    /// Declared ranges above `through`, by first number: last number and kind. They do not overlap. Bounded by what is on its way.
    declared: BTreeMap<u64, (u64, Declared)>,
}

impl LaneBook {
    /// Notes a declared range. What was declared before stays as it was.
    fn declare(&mut self, first: u64, last: u64, what: Declared) {
        let mut first = first.max(self.counts.through + 1);
        while first <= last {
            let before = self.declared.range(..=first).next_back();
            if let Some((_, (end, _))) = before.filter(|(_, (end, _))| *end >= first) {
                first = *end + 1;
                continue;
            }
            let next = self.declared.range(first..).next();
            let end = next.map_or(last, |(next, _)| last.min(*next - 1));
            self.declared.insert(first, (end, what));
            first = end + 1;
        }
    }

    /// W has moved to `w`.
    fn advance(&mut self, w: u64) {
        if w <= self.counts.through {
            return;
        }
        let mut left = w - self.counts.through;
        while let Some(range) = self.declared.first_entry().filter(|range| *range.key() <= w) {
            let (first, (last, what)) = range.remove_entry();
            let count = last.min(w) - first + 1;
            left -= count;
            match what {
                Declared::Expired => self.counts.expired += count,
                Declared::Gap => self.counts.gap += count,
            }
            if last > w {
                self.declared.insert(w + 1, (last, what));
            }
        }
        self.counts.acked += left;
        self.counts.through = w;
    }
}

/// The lanes of this edge. Shared by the uplink, which moves them, and by who looks.
#[derive(Debug, Default)]
pub(crate) struct LaneBooks {
    // Held for a few instructions, never across an await.
    lanes: Mutex<BTreeMap<TrackId, LaneBook>>,
    /// Tracks that write nothing to flash, nor may their books.
    unwritten: BTreeSet<TrackId>,
}

impl LaneBooks {
    /// The books as the store has them. Blocks. What was acknowledged before there were books counts as acked, and so does what
    /// was acknowledged in a lane in memory before this start. `unwritten` are the tracks of such lanes.
    pub(crate) fn load(store: &Store, unwritten: &[String]) -> Self {
        let unwritten: BTreeSet<_> = unwritten.iter().filter_map(|name| store.track(name)).collect();
        let lanes = store.tracks().into_iter().map(|(track, name)| {
            let stored = store.get(Space::Node, &key(&name)).ok().flatten();
            let acked = store.bounds(track).acked.0;
            let new = LaneCounts {
                through: acked,
                acked,
                ..LaneCounts::default()
            };
            let counts = stored.and_then(|stored| decode(&stored.value)).unwrap_or(new);
            let mut book = LaneBook {
                counts,
                declared: BTreeMap::new(),
            };
            if unwritten.contains(&track) {
                book.advance(acked);
            }
            (track, book)
        });
        let books = Self {
            lanes: Mutex::new(lanes.collect()),
            unwritten: unwritten.clone(),
        };
        books.take_gaps(store);
        books
    }

    /// Notes the gaps that the store knows.
    pub(crate) fn take_gaps(&self, store: &Store) {
        for (track, _) in store.tracks() {
            for gap in store.gaps(track) {
                self.declare(track, (gap.first, gap.last), Declared::Gap);
            }
        }
    }

    /// A range of a lane was declared to the cloud.
    pub(crate) fn declare(&self, track: TrackId, (first, last): (Seq, Seq), what: Declared) {
        self.lock().entry(track).or_default().declare(first.0, last.0, what);
    }

    /// W of a lane has moved. Returns the entry that goes into the commit of the cursor; none for a lane in memory.
    pub(crate) fn advance(&self, track: TrackId, name: &str, w: Seq) -> Option<Put> {
        let mut lanes = self.lock();
        let book = lanes.entry(track).or_default();
        book.advance(w.0);
        (!self.unwritten.contains(&track)).then(|| Put {
            space: Space::Node,
            key: key(name),
            value: encode(book.counts),
        })
    }

    fn counts(&self, track: TrackId) -> LaneCounts {
        self.lock().get(&track).map(|book| book.counts).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TrackId, LaneBook>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger of the node but for its readers.
    pub(crate) fn ledger(&self, store: &Store) -> Ledger {
        let local = track_name(LOCAL_LANE);
        let tracks = store.tracks().into_iter();
        let tracks = tracks.filter_map(|(track, name)| {
            if name == local {
                return Some(track_book(&store.ledger(track, Seq(0))?, Shelf::Sessions));
            }
            self.lane(store, track)
        });
        Ledger {
            node: "edge".to_owned(),
            tracks: tracks.collect(),
            ..Ledger::default()
        }
    }

    fn lane(&self, store: &Store, track: TrackId) -> Option<TrackBook> {
        let mut book = None;
        for _ in 0..TRIES {
            let counts = self.counts(track);
            book = Some(lane_book(counts, &store.ledger(track, Seq(counts.through))?));
            // What W has passed meanwhile may have been trimmed before it was counted.
            if self.counts(track) == counts {
                break;
            }
        }
        book
    }
}

/// The book of a forwarded lane: up to W by the counters, above it by what the store holds.
fn lane_book(counts: LaneCounts, track: &TrackLedger) -> TrackBook {
    TrackBook {
        track: track.name.clone(),
        appended: track.appended,
        acked: counts.acked,
        queued: track.above.records,
        expired: counts.expired,
        gap: counts.gap.saturating_add(track.above.gap),
        ..TrackBook::default()
    }
    .balanced()
}

fn key(track: &str) -> Bytes {
    format!("{KEY_PREFIX}{track}").into()
}

fn encode(counts: LaneCounts) -> Bytes {
    let mut value = vec![VERSION];
    for number in [counts.through, counts.acked, counts.expired, counts.gap] {
        put_u64(&mut value, number);
    }
    value.into()
}

fn decode(value: &[u8]) -> Option<LaneCounts> {
    let (&version, mut rest) = value.split_first()?;
    let counts = LaneCounts {
        through: take_u64(&mut rest)?,
        acked: take_u64(&mut rest)?,
        expired: take_u64(&mut rest)?,
        gap: take_u64(&mut rest)?,
    };
    (version == VERSION && rest.is_empty()).then_some(counts)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Frozen as version 1: `docs/format/ledger.md`.
    #[test]
    fn counters_have_the_bytes_of_the_documented_format() {
        let counts = LaneCounts {
            through: 300,
            acked: 290,
            expired: 7,
            gap: 3,
        };
        assert_eq!(&encode(counts)[..], [1, 0xAC, 0x02, 0xA2, 0x02, 7, 3]);
        assert_eq!(decode(&encode(counts)), Some(counts));
        assert_eq!(&key("lane/default/0")[..], b"ledger/lane/lane/default/0");
        for cut in 0..7 {
            assert_eq!(decode(&encode(counts)[..cut]), None);
        }
        assert_eq!(decode(&[&encode(counts)[..], &[0]].concat()), None);
    }

    /// Goal: each position is counted once, in the class in which it was declared first. Method: random declarations and moves against
    /// a plain list of positions.
    #[test]
    fn each_position_is_counted_once() {
        for seed in 0..500 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut book = LaneBook::default();
            let mut plain: Vec<Option<Declared>> = vec![None; 200];
            let mut w = 0;
            for _ in 0..40 {
                if random.random_bool(0.3) {
                    w = random.random_range(w..(w + 20).min(199));
                    book.advance(w);
                } else {
                    let first = random.random_range(1..180);
                    let last = first + random.random_range(0..15);
                    let what = if random.random_bool(0.5) {
                        Declared::Gap
                    } else {
                        Declared::Expired
                    };
                    book.declare(first, last, what);
                    for at in first.max(w + 1)..=last {
                        plain[at as usize].get_or_insert(what);
                    }
                }
                let passed = &plain[1..=w as usize];
                let count = |what| passed.iter().filter(|at| **at == what).count() as u64;
                let expected = LaneCounts {
                    through: w,
                    acked: count(None),
                    expired: count(Some(Declared::Expired)),
                    gap: count(Some(Declared::Gap)),
                };
                assert_eq!(book.counts, expected, "seed {seed}");
            }
        }
    }
}
