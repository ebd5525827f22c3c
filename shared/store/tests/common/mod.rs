//! What the tests of the store share: records with a recognisable payload, and a way to submit and wait.

#![allow(dead_code, reason = "each test binary uses a part")]

use fellbeck_core::{ClockQuality, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, Seq, TrackId, WallTime};
use fellbeck_store::{Append, Commit, Committed, LogRead, Store, StoreConfig, Submitter, TrackEntry, TrackRead, open};
use tokio::sync::mpsc::Receiver;

pub(crate) fn block<S: AsRef<[u8]>>(payloads: impl IntoIterator<Item = S>) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    for payload in payloads {
        builder.push(&Record {
            device: "device",
            topic: "a/b",
            payload: payload.as_ref(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}

pub(crate) fn payloads(block: &RecordBlock) -> Vec<String> {
    block
        .iter()
        .map(|record| String::from_utf8_lossy(record.payload).into_owned())
        .collect()
}

pub(crate) fn append<S: AsRef<[u8]>>(track: TrackId, records: impl IntoIterator<Item = S>) -> Commit {
    Commit {
        appends: vec![Append {
            track,
            block: block(records),
        }],
        ..Commit::default()
    }
}

/// An edge with tiny segments, so that tests reach roll-over.
pub(crate) fn small_edge() -> StoreConfig {
    StoreConfig {
        segment_bytes: 1500,
        ram_window: 6000,
        journal_nudge: 20_000,
        batch_target: 500,
        batch_max: 1000,
        linger: std::time::Duration::ZERO,
        grace_bytes: 0,
        sessions_only: vec!["lane/local/0".into()],
        ..StoreConfig::edge(vec!["lane/default/0".into(), "lane/local/0".into()])
    }
}

/// A cloud with tiny segments.
pub(crate) fn small_cloud() -> StoreConfig {
    StoreConfig {
        segment_bytes: 4000,
        ram_window: 6000,
        memtable_bytes: 3000,
        journal_nudge: 20_000,
        batch_target: 500,
        batch_max: 1000,
        linger: std::time::Duration::ZERO,
        ..StoreConfig::cloud((0..3).map(|n| format!("stream/default/{n}")).collect())
    }
}

/// A record by its sequence number.
pub(crate) type Numbered = (u64, String);

/// A store with one submitter.
pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) submitter: Submitter,
    pub(crate) answers: Receiver<Committed>,
    pub(crate) report: fellbeck_store::OpenReport,
}

impl Node {
    pub(crate) fn open(dir: &std::path::Path, config: StoreConfig) -> Self {
        let (store, report) = open(dir, config).unwrap();
        let (submitter, answers) = store.submitter(1000);
        Self {
            store,
            submitter,
            answers,
            report,
        }
    }

    /// Submits and waits until it is durable.
    pub(crate) fn commit(&mut self, commit: Commit) -> Committed {
        let ticket = self.submitter.submit(commit).unwrap();
        let committed = self.answers.blocking_recv().unwrap();
        assert_eq!(committed.ticket, ticket);
        committed
    }

    /// Waits until the writer has done what follows the last answer: sealing and trimming.
    pub(crate) fn settle(&mut self) {
        self.commit(Commit::default());
    }

    pub(crate) fn read_track(&self, track: TrackId, from: u64, bytes_max: usize) -> TrackRead {
        self.store
            .read_track(track, Seq(from), bytes_max)
            .blocking_recv()
            .unwrap()
            .unwrap()
    }

    /// All records of a track from `from` on as (seq, payload), and all gaps as (first, last).
    pub(crate) fn track_from(&self, track: TrackId, from: u64) -> (Vec<Numbered>, Vec<(u64, u64)>) {
        let (mut records, mut gaps) = (Vec::new(), Vec::new());
        let mut at = from;
        loop {
            let read = self.read_track(track, at, 1500);
            if read.entries.is_empty() {
                assert_eq!(read.next, self.store.bounds(track).end.max(Seq(from)));
                return (records, gaps);
            }
            for entry in read.entries {
                match entry {
                    TrackEntry::Batch(batch) => {
                        let block = batch.open(usize::MAX).unwrap();
                        let numbered = (batch.header.first.0..).zip(payloads(&block));
                        records.extend(numbered.filter(|(seq, _)| *seq >= from));
                    }
                    TrackEntry::Gap(gap) => gaps.push((gap.first.0, gap.last.0)),
                }
            }
            assert!(read.next.0 > at, "a read moves on");
            at = read.next.0;
        }
    }

    pub(crate) fn read_log(&self, from: fellbeck_core::LogPosition, bytes_max: usize) -> LogRead {
        self.store.read_log(from, bytes_max).blocking_recv().unwrap().unwrap()
    }

    /// All records from a commit on as (commit, track, seq, payload).
    pub(crate) fn log_from(&self, commit: u64, bytes_max: usize) -> Vec<(u64, u32, u64, String)> {
        let mut at = fellbeck_core::LogPosition::start_of(fellbeck_core::CommitNumber(commit));
        let mut records = Vec::new();
        loop {
            let read = self.read_log(at, bytes_max);
            for block in &read.blocks {
                for track in &block.tracks {
                    let numbered = (track.first.0..).zip(payloads(&track.block));
                    records.extend(numbered.map(|(seq, text)| (block.commit.0, track.track.0, seq, text)));
                }
            }
            if read.at_end {
                return records;
            }
            assert!(read.next > at, "a read moves on");
            at = read.next;
        }
    }
}

/// About 200 bytes that do not compress.
pub(crate) fn noise(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..200).map(|_| next()).collect()
}
