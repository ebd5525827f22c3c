//! What must hold after an open of a damaged store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use fellbeck_core::TrackId;
use fellbeck_store::{Layout, OpenReport, Space};

use crate::common::{Node, append, noise};
use crate::worlds::{SPACES, World};

/// Opens, checks all, appends, opens again. `once`: one hit only, so that one of two copies of everything is sound. Says what became of it.
pub(crate) fn check(world: &World, dir: &Path, once: bool, open_max: Duration) -> String {
    let began = Instant::now();
    let mut node = Node::open(dir, world.config.clone());
    let took = began.elapsed();
    assert!(took < open_max, "opened in {took:?}");
    let report = node.report.clone();
    let seen = Seen::read(world, &node);
    let lost = seen.check(world, once);
    let keyed_lost = keyed(world, &node, &report);
    if once {
        assert_eq!(node.store.log_id(), world.log_id, "the log keeps its identity");
        assert!(node.store.bounds(TrackId(0)).epoch.0 > world.epoch, "the epoch rises");
    }

    // It takes new records, above everything.
    let mut expected = seen.records.clone();
    for track in 0..world.bounds.len() as u32 {
        let seq = node.store.bounds(TrackId(track)).end.0;
        let committed = node.commit(append(TrackId(track), [noise(1_000_000 + seq)]));
        assert!(
            !once || committed.commit > world.newest,
            "a commit number is never reused (I5)"
        );
        expected.insert((track, seq), noise(1_000_000 + seq));
    }
    let again = Seen::read(world, &node);
    assert_eq!(again.records, expected, "what was read and what was added");
    assert_eq!(again.gaps, seen.gaps, "gaps stay");
    node.store.close();

    // A second open is stable.
    let node = Node::open(dir, world.config.clone());
    assert!(
        !node.report.is_damaged(),
        "reported once: {:?}, first {report:?}",
        node.report
    );
    let second = Seen::read(world, &node);
    assert_eq!(second.records, expected, "after a second open");
    assert_eq!(second.gaps, seen.gaps, "gaps after a second open");
    node.store.close();
    say(&report, lost, keyed_lost)
}

/// The open refuses, and names the file that is damaged.
pub(crate) fn is_refused(world: &World, dir: &Path, file: &str) -> bool {
    let Err(error) = fellbeck_store::open(dir, world.config.clone()) else {
        return false;
    };
    assert!(error.to_string().contains(file), "{error}");
    true
}

fn say(report: &OpenReport, lost: u64, keyed_lost: u64) -> String {
    let mut words = Vec::new();
    if report.quarantined.is_some() {
        words.push("quarantine");
    }
    if lost > 0 {
        words.push("records lost");
    }
    if keyed_lost > 0 {
        words.push("keyed values lost");
    }
    if words.is_empty() {
        words.push(if report.is_damaged() { "mended" } else { "whole" });
    }
    words.join(", ")
}

/// All that a reader sees.
struct Seen {
    records: BTreeMap<(u32, u64), Vec<u8>>,
    gaps: BTreeSet<(u32, u64)>,
    /// Those of the store's own list; a reader that asks for what was acknowledged gets a gap, too, where that is gone.
    losses: BTreeSet<(u32, u64)>,
    /// Per track: first, end.
    bounds: Vec<(u64, u64)>,
}

impl Seen {
    fn read(world: &World, node: &Node) -> Self {
        let (mut records, mut gaps) = (BTreeMap::new(), BTreeSet::new());
        let back = |text: String, seq: u64, track: u32| -> Vec<u8> {
            // Payloads come as text; the one that was appended has the same.
            let known = world.records.get(&(track, seq)).cloned();
            let fresh = noise(1_000_000 + seq);
            let same = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes) == text;
            known
                .filter(same)
                .or_else(|| Some(fresh).filter(same))
                .unwrap_or_else(|| panic!("wrong record {track}/{seq}"))
        };
        let tracks = world.bounds.len() as u32;
        let mut bounds = Vec::new();
        if world.config.layout == Layout::Edge {
            for track in 0..tracks {
                let (read, missing) = node.track_from(TrackId(track), 1);
                for (seq, text) in read {
                    let old = records.insert((track, seq), back(text, seq, track));
                    assert!(old.is_none(), "record {track}/{seq} came twice");
                }
                for (first, last) in missing {
                    gaps.extend((first..=last).map(|seq| (track, seq)));
                }
            }
        }
        let mut log = BTreeMap::new();
        let mut commit = 0;
        let mut losses = BTreeSet::new();
        for (number, track, seq, text) in node.log_from(1, 50_000) {
            assert!(number >= commit, "commits rise");
            commit = number;
            assert!(
                log.insert((track, seq), back(text, seq, track)).is_none(),
                "{track}/{seq} came twice"
            );
        }
        for loss in node.store.losses() {
            losses.extend((loss.gap.first.0..=loss.gap.last.0).map(|seq| (loss.track.0, seq)));
        }
        gaps.extend(&losses);
        for track in 0..tracks {
            let held = node.store.bounds(TrackId(track));
            bounds.push((held.first.0, held.end.0));
        }
        if world.config.layout == Layout::Edge {
            assert_eq!(log, records, "both ways of reading show the same");
        } else {
            records = log;
        }
        Self {
            records,
            gaps,
            losses,
            bounds,
        }
    }

    /// Each record is there, or missing and named; nothing else is named. Returns how many are lost.
    fn check(&self, world: &World, once: bool) -> u64 {
        let mut lost = 0;
        for ((track, seq), payload) in &world.records {
            let (first, _, acked) = world.bounds[*track as usize];
            match self.records.get(&(*track, *seq)) {
                Some(found) => {
                    assert_eq!(found, payload);
                    assert!(
                        !self.gaps.contains(&(*track, *seq)),
                        "{track}/{seq} is there and in a gap"
                    );
                }
                None if *seq <= acked || *seq < first => {}
                None => {
                    assert!(
                        !once || self.gaps.contains(&(*track, *seq)),
                        "{track}/{seq} is silently gone"
                    );
                    lost += 1;
                }
            }
        }
        for (track, seq) in &self.gaps {
            assert!(
                world.records.contains_key(&(*track, *seq)),
                "a gap at {track}/{seq}, which never was"
            );
        }
        for (track, seq) in &self.losses {
            let (first, _, acked) = world.bounds[*track as usize];
            assert!(
                *seq > acked && (*seq >= first || !once),
                "{track}/{seq} was done with and is called lost"
            );
        }
        for (track, (_, end)) in self.bounds.iter().enumerate() {
            assert!(!once || *end >= world.bounds[track].1, "a number is never reused (I5)");
        }
        lost
    }
}

/// Keyed values are there, or their loss is named.
fn keyed(world: &World, node: &Node, report: &OpenReport) -> u64 {
    let mut lost = 0;
    for (at, space) in SPACES.into_iter().enumerate() {
        let loaded = load(node, space);
        for ((_, key), value) in world.keyed.iter().filter(|((space, _), _)| *space as usize == at) {
            lost += u64::from(loaded.get(key) != Some(value));
        }
        for key in loaded.keys() {
            assert!(
                world.keyed.contains_key(&(at as u8, key.clone())),
                "a key that never was"
            );
        }
    }
    assert!(
        lost == 0 || report.is_damaged(),
        "{lost} keyed values are silently gone: {report:?}"
    );
    lost
}

fn load(node: &Node, space: Space) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let loaded = node.store.load(space).unwrap();
    loaded
        .into_iter()
        .map(|stored| (stored.key.to_vec(), stored.value.to_vec()))
        .collect()
}
