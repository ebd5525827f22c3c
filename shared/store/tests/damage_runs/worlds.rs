//! Stores to damage, each with all that is known of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fellbeck_core::{CommitNumber, Seq, TrackId};
use fellbeck_store::{Append, Commit, Put, Space, StoreConfig};

use crate::common::{Node, block, noise, small_edge};
use crate::image::{self, Image};

pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) config: StoreConfig,
    pub(crate) image: Image,
    /// All records ever appended.
    pub(crate) records: BTreeMap<(u32, u64), Vec<u8>>,
    /// Per track: first held, end, last acknowledged.
    pub(crate) bounds: Vec<(u64, u64, u64)>,
    pub(crate) newest: CommitNumber,
    /// Keyed values by space and key.
    pub(crate) keyed: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u32,
}

/// Nothing is written out.
pub(crate) fn journals() -> StoreConfig {
    StoreConfig {
        segment_bytes: 20_000,
        ram_window: 1 << 20,
        journal_nudge: 1 << 30,
        ..small_edge()
    }
}

/// One segment with several tables of many blocks.
pub(crate) fn large_tables() -> StoreConfig {
    StoreConfig {
        segment_bytes: 1 << 30,
        ram_window: 30_000,
        journal_nudge: 40_000,
        ..small_edge()
    }
}

pub(crate) const SPACES: [Space; 4] = [Space::Session, Space::Retained, Space::Mark, Space::Node];

/// It is written each second.
const HIGH_WATER_WITHIN: Duration = Duration::from_secs(60);

/// What the newest slot of the high-water file says: the newest commit, and per track the next number and the last one done with.
fn high_water(dir: &Path) -> Option<(u64, Vec<(u64, u64)>)> {
    let slots = ["high-water.a", "high-water.b"].map(|name| std::fs::read(dir.join(name)).ok());
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    // One that is being written is looked at again.
    let whole = |slot: &Vec<u8>| {
        let content = slot.len().checked_sub(8);
        content.is_some_and(|at| at >= 25 && xxhash_rust::xxh3::xxh3_64(&slot[..at]) == number(&slot[at..]))
    };
    let newest = slots
        .into_iter()
        .flatten()
        .filter(whole)
        .max_by_key(|slot| number(&slot[1..9]))?;
    let tracks = newest[25..newest.len() - 8].chunks_exact(16);
    let tracks = tracks.map(|track| (number(&track[..8]), number(&track[8..])));
    Some((number(&newest[13..21]), tracks.collect()))
}

/// Waits until the high-water file names all: what it does not name yet could not be told from a torn end.
fn await_high_water(node: &Node, dir: &Path, edge: bool, tracks: u32) {
    let done = |track: u32| {
        let bounds = node.store.bounds(TrackId(track));
        let acknowledged = edge && track == 0;
        let done = if acknowledged {
            bounds.acked.0
        } else {
            bounds.first.0 - 1
        };
        (bounds.end.0, done)
    };
    let wanted = Some((node.store.newest_commit().0, (0..tracks).map(done).collect()));
    let deadline = Instant::now() + HIGH_WATER_WITHIN;
    while high_water(dir) != wanted {
        assert!(Instant::now() < deadline, "the high-water file follows");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

impl World {
    pub(crate) fn edge(name: &'static str, config: StoreConfig, closed: bool) -> Self {
        Self::build(name, config, closed, 2)
    }

    pub(crate) fn cloud(name: &'static str, config: StoreConfig, closed: bool) -> Self {
        Self::build(name, config, closed, 3)
    }

    /// Three incarnations, 240 commits, keyed values that change; on an edge a third of the first lane is acknowledged.
    fn build(name: &'static str, config: StoreConfig, closed: bool, tracks: u32) -> Self {
        let dir = image::scratch();
        let mut records = BTreeMap::new();
        let mut keyed = BTreeMap::new();
        let mut ends = vec![1u64; tracks as usize];
        let edge = config.layout == fellbeck_store::Layout::Edge;
        let mut node = Node::open(dir.path(), config.clone());
        for n in 1..=240u64 {
            if n == 80 || n == 160 {
                node.store.close();
                node = Node::open(dir.path(), config.clone());
            }
            let track = TrackId((n % u64::from(tracks)) as u32);
            let count = 1 + n % 2;
            let payloads: Vec<Vec<u8>> = (0..count).map(|k| noise(n * 10 + k)).collect();
            for payload in &payloads {
                records.insert((track.0, ends[track.0 as usize]), payload.clone());
                ends[track.0 as usize] += 1;
            }
            let space = (n % 4) as usize;
            let key = format!("key-{}", n % 20).into_bytes();
            keyed.insert((space as u8, key.clone()), n.to_string().into_bytes());
            let acked = (edge && n == 150).then_some((TrackId(0), Seq(50)));
            node.commit(Commit {
                appends: vec![Append {
                    track,
                    block: block(payloads),
                }],
                puts: vec![Put {
                    space: SPACES[space],
                    key: key.into(),
                    value: n.to_string().into(),
                }],
                acked: acked.into_iter().collect(),
                session_floor: (edge && n == 150).then_some(CommitNumber(1)),
                ..Commit::default()
            });
        }
        node.settle();
        if closed {
            node.store.close();
        } else {
            await_high_water(&node, dir.path(), edge, tracks);
        }
        let bounds = (0..tracks)
            .map(|track| {
                let bounds = node.store.bounds(TrackId(track));
                (bounds.first.0, bounds.end.0, bounds.acked.0)
            })
            .collect();
        let image = Image::read(dir.path());
        Self {
            name,
            config,
            image,
            records,
            bounds,
            newest: node.store.newest_commit(),
            keyed,
            log_id: node.store.log_id(),
            epoch: node.store.bounds(TrackId(0)).epoch.0,
        }
    }
}
