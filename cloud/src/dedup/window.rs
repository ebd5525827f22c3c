//! The device message IDs that are remembered: the newest, up to a count and an age.
//!
//! In: the identifiers of each commit, in the order of commits. Out: whether one is known, and what to write and delete so that the
//! same answer comes after a restart. Pure.
//!
//! Identifiers stand in numbered blocks, one or more per commit. What is forgotten are whole blocks from the front: while they are
//! too old, and while there are more identifiers than the bound. That depends on the blocks and the time alone, so a node that reads
//! its blocks back forgets the same ones. Memory: at most about 120 bytes per identifier.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use fellbeck_core::WallTime;
use fellbeck_core::varint::{put_u64, take_u64};

use super::device_id::DeviceId;

/// Identifiers in one block at most.
const BLOCK_MAX: usize = 1024;
/// Blocks that one commit deletes at most; the rest follows with the next ones.
const DELETES_MAX: usize = 1024;
/// Block of an identifier whose commit is under construction.
const NOTED: u64 = u64::MAX;
const VERSION: u8 = 1;
const ID_BYTES: usize = 16;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Identifiers; at least 1.
    pub count: usize,
    /// Milliseconds since the commit.
    pub age_ms: u64,
}

/// What was forgotten since it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Forgotten {
    /// By count.
    pub(crate) by_count: u64,
    /// By age.
    pub(crate) by_age: u64,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    number: u64,
    at: WallTime,
    len: usize,
}

/// What a commit has to change.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Blocks to write, by number.
    pub(crate) puts: Vec<(u64, Bytes)>,
    /// Blocks to delete.
    pub(crate) deletes: Vec<u64>,
}

/// A block that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadBlock;

/// The identifiers.
#[derive(Debug)]
pub(crate) struct Window {
    limits: WindowLimits,
    /// With the block that holds it: one that is forgotten and still stored may have held it before.
    known: HashMap<DeviceId, u64>,
    /// Those of all blocks, in their order.
    ids: VecDeque<DeviceId>,
    blocks: VecDeque<Block>,
    next: u64,
    /// Blocks that are forgotten and still stored.
    stale: VecDeque<u64>,
    forgotten: Forgotten,
}

impl Window {
    pub(crate) fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            known: HashMap::new(),
            ids: VecDeque::new(),
            blocks: VecDeque::new(),
            next: 1,
            stale: VecDeque::new(),
            forgotten: Forgotten::default(),
        }
    }

    /// Takes a stored block. They come in rising number.
    pub(crate) fn load(&mut self, number: u64, value: &[u8]) -> Result<(), BadBlock> {
        let (at, ids) = decode(value).ok_or(BadBlock)?;
        if number < self.next || number == u64::MAX {
            return Err(BadBlock);
        }
        self.push(number, at, &ids);
        Ok(())
    }

    /// Identifiers that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// What was forgotten since the last call.
    pub(crate) fn take_forgotten(&mut self) -> Forgotten {
        std::mem::take(&mut self.forgotten)
    }

    /// Forgets what is too old at `now`.
    pub(crate) fn expire(&mut self, now: WallTime) {
        while self
            .blocks
            .front()
            .is_some_and(|block| block.at.0.saturating_add(self.limits.age_ms) <= now.0)
        {
            self.forgotten.by_age += self.forget_front();
        }
    }

    /// Notes an identifier for the commit under construction; false when it is known.
    pub(crate) fn note(&mut self, id: DeviceId) -> bool {
        match self.known.entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert(NOTED);
                true
            }
        }
    }

    /// Takes back what was noted: there will be no commit.
    pub(crate) fn unnote(&mut self, ids: &[DeviceId]) {
        for id in ids {
            self.known.remove(id);
        }
    }

    /// What the commit with the noted `ids` has to change.
    pub(crate) fn change(&self, ids: &[DeviceId], now: WallTime) -> Change {
        let blocks = ids.chunks(BLOCK_MAX).zip(self.next..);
        Change {
            puts: blocks.map(|(ids, number)| (number, encode(now, ids))).collect(),
            deletes: self.stale.iter().copied().take(DELETES_MAX).collect(),
        }
    }

    /// The commit with `change` was handed over: no later one is durable without it.
    pub(crate) fn committed(&mut self, change: &Change, ids: &[DeviceId], now: WallTime) {
        self.stale.drain(..change.deletes.len());
        for ids in ids.chunks(BLOCK_MAX) {
            self.push(self.next, now, ids);
        }
    }

    fn push(&mut self, number: u64, at: WallTime, ids: &[DeviceId]) {
        let len = ids.len();
        self.known.extend(ids.iter().map(|id| (*id, number)));
        self.blocks.push_back(Block { number, at, len });
        self.ids.extend(ids);
        self.next = number + 1;
        while self.ids.len() > self.limits.count {
            self.forgotten.by_count += self.forget_front();
        }
    }

    fn forget_front(&mut self) -> u64 {
        let Some(block) = self.blocks.pop_front() else { return 0 };
        for id in self.ids.drain(..block.len) {
            if self.known.get(&id) == Some(&block.number) {
                self.known.remove(&id);
            }
        }
        self.stale.push_back(block.number);
        block.len as u64
    }
}

fn encode(at: WallTime, ids: &[DeviceId]) -> Bytes {
    let mut value = vec![VERSION];
    put_u64(&mut value, at.0);
    for id in ids {
        value.extend_from_slice(&id.0);
    }
    value.into()
}

fn decode(value: &[u8]) -> Option<(WallTime, Vec<DeviceId>)> {
    let (&version, mut rest) = value.split_first()?;
    let at = WallTime(take_u64(&mut rest)?);
    let (ids, left) = rest.as_chunks::<ID_BYTES>();
    let fits = version == VERSION && left.is_empty() && (1..=BLOCK_MAX).contains(&ids.len());
    fits.then(|| (at, ids.iter().copied().map(DeviceId).collect()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn id(n: u64) -> DeviceId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        DeviceId(bytes)
    }

    /// A window and what the store would hold of it.
    struct Stored {
        window: Window,
        blocks: BTreeMap<u64, Bytes>,
        limits: WindowLimits,
    }

    impl Stored {
        fn new(count: usize, age_ms: u64) -> Self {
            let limits = WindowLimits { count, age_ms };
            Self {
                window: Window::new(limits),
                blocks: BTreeMap::new(),
                limits,
            }
        }

        /// One commit of `ids`; returns those that were new.
        fn commit(&mut self, ids: &[u64], now: u64) -> Vec<u64> {
            let now = WallTime(now);
            self.window.expire(now);
            let new: Vec<u64> = ids.iter().copied().filter(|n| self.window.note(id(*n))).collect();
            let fresh: Vec<DeviceId> = new.iter().map(|n| id(*n)).collect();
            let change = self.window.change(&fresh, now);
            self.window.committed(&change, &fresh, now);
            for (number, value) in change.puts {
                assert!(self.blocks.insert(number, value).is_none(), "a number is used once");
            }
            for number in change.deletes {
                assert!(self.blocks.remove(&number).is_some(), "what is deleted was stored");
            }
            new
        }

        fn restart(&mut self) {
            let mut window = Window::new(self.limits);
            for (number, value) in &self.blocks {
                window.load(*number, value).unwrap();
            }
            self.window = window;
        }
    }

    /// An identifier that was stored anew was forgotten with a block that had held it before and was not yet deleted.
    #[test]
    fn a_stale_block_takes_nothing_of_a_later_one_with_it() {
        let mut stored = Stored::new(10_000, 1_000);
        for n in 0..3_000 {
            stored.commit(&[n], 0);
        }
        assert_eq!(stored.commit(&[2_500], 1_000), [2_500], "its first block is too old");
        stored.restart();
        assert_eq!(stored.commit(&[1], 1_000), [1]);
        assert_eq!(stored.commit(&[2_500], 1_000), [0; 0]);
    }

    #[test]
    fn what_is_known_is_told_also_after_a_restart() {
        let mut stored = Stored::new(100, 1_000);
        assert_eq!(stored.commit(&[1, 2, 2, 3], 0), [1, 2, 3]);
        stored.restart();
        assert_eq!(stored.commit(&[3, 4], 999), [4]);
        assert_eq!(
            stored.commit(&[1, 4], 1_000),
            [1],
            "the first commit is too old now, the second is not"
        );
        assert_eq!(stored.window.take_forgotten(), Forgotten { by_count: 0, by_age: 3 });
    }

    #[test]
    fn a_commit_that_does_not_come_about_leaves_nothing_behind() {
        let mut window = Window::new(WindowLimits { count: 10, age_ms: 10 });
        assert!(window.note(id(1)));
        assert!(!window.note(id(1)));
        window.unnote(&[id(1)]);
        assert!(window.note(id(1)));
    }

    #[test]
    fn the_bound_holds_for_a_commit_that_alone_is_larger() {
        let mut stored = Stored::new(10, u64::MAX);
        let many: Vec<u64> = (0..5_000).collect();
        assert_eq!(stored.commit(&many, 0).len(), 5_000);
        assert!(stored.window.len() <= 10);
        stored.commit(&[9_999], 0);
        assert!(
            stored.blocks.len() <= 2,
            "what is forgotten is deleted with the next commit"
        );
    }

    /// Against a plain list: the answers are those of the newest blocks within count and age, whatever restarts come between.
    #[test]
    fn restarts_change_no_answer() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (count, age) = (rng.random_range(1..60), rng.random_range(1..400));
            let mut stored = Stored::new(count, age);
            let mut model: Vec<(u64, Vec<u64>)> = Vec::new();
            let mut now = 1_000;
            for _ in 0..300 {
                now += rng.random_range(0..20);
                let ids: Vec<u64> = (0..rng.random_range(1..8)).map(|_| rng.random_range(0..90)).collect();
                while model.first().is_some_and(|(at, _)| at + age <= now) {
                    model.remove(0);
                }
                let mut fresh = Vec::new();
                for n in &ids {
                    if !fresh.contains(n) && !model.iter().any(|(_, block)| block.contains(n)) {
                        fresh.push(*n);
                    }
                }
                assert_eq!(stored.commit(&ids, now), fresh, "seed {seed}");
                if !fresh.is_empty() {
                    model.push((now, fresh));
                }
                while model.iter().map(|(_, block)| block.len()).sum::<usize>() > count {
                    model.remove(0);
                }
                assert!(stored.window.len() <= count, "seed {seed}");
                if rng.random_bool(0.1) {
                    stored.restart();
                }
            }
            assert!(
                stored.blocks.len() <= count + 8,
                "seed {seed}: {} blocks",
                stored.blocks.len()
            );
        }
    }

    #[test]
    fn blocks_that_are_not_ours_are_refused() {
        let mut window = Window::new(WindowLimits { count: 10, age_ms: 10 });
        let good = encode(WallTime(5), &[id(1), id(2)]);
        for cut in 0..good.len() {
            if cut != good.len() - ID_BYTES {
                assert_eq!(window.load(1, &good[..cut]), Err(BadBlock), "{cut}");
            }
        }
        let mut newer = good.to_vec();
        newer[0] = 2;
        assert_eq!(window.load(1, &newer), Err(BadBlock));
        assert_eq!(window.load(3, &good), Ok(()));
        assert_eq!(window.load(3, &good), Err(BadBlock), "numbers rise");
    }
}
