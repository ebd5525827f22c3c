//! Random histories against a model in memory (MAIN.3.h): submissions, acknowledgements, floors, trims and reopens.
//!
//! The model keeps everything for ever; the store may forget only what is acknowledged (edge) or beyond retention (cloud), and
//! only from the front of a track. `FELLBECK_MODEL_CASES` sets the number of histories.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{Node, append, small_cloud, small_edge};
use fellbeck_core::{CommitNumber, Seq, TrackId};
use fellbeck_store::{Commit, Delete, Layout, Put, Space, StoreConfig, Urgency};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Action {
    /// Submissions handed over together: per submission a track, a number of records and a payload size.
    Append(Vec<(u32, usize, usize)>),
    /// Key and value; an empty value deletes.
    Write(Vec<(u8, u8)>),
    /// Acknowledges this share of a track.
    Ack(u32, u8),
    /// Moves the floor of sessions to this share of all commits.
    Floor(u8),
    Reopen,
}

fn action(tracks: u32) -> impl Strategy<Value = Action> {
    let append = (0..tracks, 0usize..20, 0usize..300);
    prop_oneof![
        6 => prop::collection::vec(append, 1..4).prop_map(Action::Append),
        2 => prop::collection::vec((0u8..6, 0u8..4), 1..4).prop_map(Action::Write),
        2 => (0..tracks, any::<u8>()).prop_map(|(track, share)| Action::Ack(track, share)),
        1 => any::<u8>().prop_map(Action::Floor),
        1 => Just(Action::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    /// Per track: commit and payload of each record.
    tracks: Vec<Vec<(u64, String)>>,
    keyed: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    acked: Vec<u64>,
    floor: u64,
    made: u64,
}

struct Run {
    dir: tempfile::TempDir,
    config: StoreConfig,
    node: Node,
    model: Model,
}

impl Run {
    fn new(config: StoreConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tracks = config.tracks.len();
        let mut node = Node::open(dir.path(), config.clone());
        // A session from the start: without one, nobody has to read what no uplink reads.
        let session_floor = Some(CommitNumber(1));
        node.commit(Commit {
            session_floor,
            ..Commit::default()
        });
        Self {
            node,
            dir,
            config,
            model: Model {
                tracks: vec![Vec::new(); tracks],
                acked: vec![0; tracks],
                floor: 1,
                ..Model::default()
            },
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Append(submissions) => self.append(submissions),
            Action::Write(writes) => self.write(writes),
            Action::Ack(track, share) => {
                let end = self.model.tracks[track as usize].len() as u64;
                let seq = end * u64::from(share) / 255;
                let acked = &mut self.model.acked[track as usize];
                *acked = seq.max(*acked);
                self.node.commit(Commit {
                    acked: vec![(TrackId(track), Seq(seq))],
                    urgency: Urgency::Now,
                    ..Commit::default()
                });
            }
            Action::Floor(share) => {
                let floor = self.node.store.newest_commit().0 * u64::from(share) / 255;
                self.model.floor = floor.max(self.model.floor);
                self.node.commit(Commit {
                    session_floor: Some(CommitNumber(floor)),
                    ..Commit::default()
                });
            }
            Action::Reopen => {
                self.node.store.close();
                self.node = Node::open(self.dir.path(), self.config.clone());
                assert!(!self.node.report.is_damaged(), "{:?}", self.node.report);
            }
        }
    }

    fn append(&mut self, submissions: Vec<(u32, usize, usize)>) {
        let mut made = Vec::new();
        for (track, records, len) in &submissions {
            let texts: Vec<_> = (0..*records).map(|n| self.payload(n as u64, *len)).collect();
            self.model.made += *records as u64;
            self.node.submitter.submit(append(TrackId(*track), &texts)).unwrap();
            made.push((*track, texts));
        }
        for (track, texts) in made {
            let committed = self.node.answers.blocking_recv().unwrap();
            let records = texts.into_iter().map(|text| (committed.commit.0, text));
            self.model.tracks[track as usize].extend(records);
        }
    }

    /// Half of the payloads compress.
    fn payload(&self, n: u64, len: usize) -> String {
        let n = self.model.made + n;
        let mut text = format!("{n} ");
        let mut state = n | 1;
        while text.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push(if n.is_multiple_of(2) {
                'x'
            } else {
                char::from(b'!' + (state >> 40) as u8 % 90)
            });
        }
        text
    }

    fn write(&mut self, writes: Vec<(u8, u8)>) {
        for (key, value) in &writes {
            let mut commit = Commit::default();
            let key = vec![b'k', *key];
            if *value == 0 {
                let (space, key) = (Space::Session, key.into());
                commit.deletes.push(Delete { space, key });
            } else {
                let (space, key, value) = (Space::Session, key.into(), vec![*value].into());
                commit.puts.push(Put { space, key, value });
            }
            self.node.submitter.submit(commit).unwrap();
        }
        for (key, value) in writes {
            let committed = self.node.answers.blocking_recv().unwrap();
            let key = vec![b'k', key];
            if value == 0 {
                self.model.keyed.remove(&key);
            } else {
                self.model.keyed.insert(key, (vec![value], committed.commit.0));
            }
        }
    }

    fn check(&mut self) {
        self.node.settle();
        let mut log = Vec::new();
        for (number, records) in self.model.tracks.iter().enumerate() {
            let track = TrackId(number as u32);
            let bounds = self.node.store.bounds(track);
            let end = records.len() as u64 + 1;
            let first = bounds.first.0;
            assert_eq!(bounds.end.0, end);
            assert!(first >= 1 && first <= end);
            if self.config.layout == Layout::Edge {
                let local = number == 1;
                assert_eq!(bounds.acked.0, self.model.acked[number]);
                assert!(
                    local || first <= bounds.acked.0 + 1,
                    "trimmed before it was acknowledged (I2): {bounds:?}"
                );
                let wanted = records.iter().position(|(commit, _)| *commit >= self.model.floor);
                assert!(
                    wanted.is_none_or(|wanted| first <= wanted as u64 + 1),
                    "trimmed although a session had to read it: {bounds:?}"
                );
                let held: Vec<_> = (first..)
                    .zip(&records[first as usize - 1..])
                    .map(|(seq, (_, text))| (seq, text.clone()))
                    .collect();
                assert_eq!(self.node.track_from(track, 1), (held, vec![]));
            }
            let held = (first..).zip(&records[first as usize - 1..]);
            log.extend(held.map(|(seq, (commit, text))| (*commit, track.0, seq, text.clone())));
        }
        log.sort();
        for bytes_max in [1, 2000] {
            assert_eq!(self.node.log_from(1, bytes_max), log);
        }
        let middle = self.node.store.newest_commit().0 / 2;
        log.retain(|record| record.0 >= middle);
        assert_eq!(self.node.log_from(middle, 1000), log);
        let keyed = self.node.store.load(Space::Session).unwrap();
        let keyed: BTreeMap<_, _> = keyed
            .into_iter()
            .map(|s| (s.key.to_vec(), (s.value.to_vec(), s.commit.0)))
            .collect();
        assert_eq!(keyed, self.model.keyed);
    }
}

fn run(config: StoreConfig, actions: Vec<Action>) {
    let mut run = Run::new(config);
    for action in actions {
        let check = matches!(action, Action::Reopen);
        run.perform(action);
        if check {
            run.check();
        }
    }
    run.check();
}

fn cases() -> u32 {
    std::env::var("FELLBECK_MODEL_CASES").map_or(16, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edge_store_agrees_with_the_model(actions in prop::collection::vec(action(2), 1..40)) {
        run(small_edge(), actions);
    }

    #[test]
    fn a_cloud_store_agrees_with_the_model(
        actions in prop::collection::vec(action(3), 1..40),
        retention in prop::option::of(8_000u64..30_000),
    ) {
        run(StoreConfig { retention_bytes: retention, ..small_cloud() }, actions);
    }
}
