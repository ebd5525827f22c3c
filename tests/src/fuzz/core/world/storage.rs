//! What happens between the core and its store: commits that come late, blocks, lookups in any order, retention.

use fellbeck_broker::session::Pressure;
use fellbeck_core::{CommitNumber, Properties, QoS, Record, RecordBlockBuilder, TrackId};

use super::World;
use crate::fuzz::core::client::{number_of, payload};

/// Rounds until a node that is left alone has to be quiet.
const ROUNDS_MAX: usize = 5_000;
const FOREIGN: TrackId = TrackId(5);

impl World {
    pub(in crate::fuzz::core) fn submit(&mut self) {
        while let Some(commit) = self.core.take_commit() {
            let ticket = self.store.submit(commit);
            self.core.handle_submitted(ticket);
        }
    }

    pub(in crate::fuzz::core) fn commit(&mut self, count: usize) {
        self.store.commit(count);
        self.note_log();
    }

    fn note_log(&mut self) {
        for block in &self.store.log[self.counted..] {
            for record in block.tracks.iter().flat_map(|track| track.block.iter()) {
                if let Some((_, number)) = number_of(record.payload) {
                    assert!(self.logged.insert(number), "message {number} is in the log twice");
                }
            }
        }
        self.counted = self.store.log.len();
    }

    /// Brings the store's answers and blocks to the core, in the order that it asks for.
    pub(in crate::fuzz::core) fn deliver(&mut self) {
        if self.store.tail.is_empty() {
            self.core.handle_tail_empty();
        }
        for committed in std::mem::take(&mut self.store.answers) {
            self.core.handle_committed(committed, self.now, &mut self.tape);
        }
        for block in std::mem::take(&mut self.store.tail) {
            self.core.handle_tail(&block, self.now, &mut self.tape);
        }
        self.listen();
        self.offer_held();
    }

    /// One turn of a store that keeps pace.
    pub(in crate::fuzz::core) fn turn(&mut self) {
        self.submit();
        self.commit(usize::MAX);
        self.deliver();
        self.ask();
        self.answer(0);
        self.listen();
    }

    /// Takes what the core wants to have looked up.
    pub(in crate::fuzz::core) fn ask(&mut self) {
        self.reads.extend(self.core.poll_read(self.now));
        self.scans.extend(self.core.poll_scan(self.now));
        assert!(
            self.reads.len() <= self.config.limits.reads_max,
            "too many reads at a time"
        );
    }

    /// Answers one of these, in any order, or says that it failed.
    pub(in crate::fuzz::core) fn answer(&mut self, which: u8) {
        let (which, fails) = (usize::from(which >> 1), which == 255);
        if !self.reads.is_empty() {
            let read = self.reads.remove(which % self.reads.len());
            let answer = (!fails).then(|| self.store.read(read.from, read.bytes_max));
            let records = answer.iter().flat_map(|read| &read.blocks);
            let records = records.map(|block| block.record_count() as usize).sum();
            self.read_max = self.read_max.max(records);
            self.core.handle_read(read.reader, answer, self.now, &mut self.tape);
        }
        if !self.scans.is_empty() {
            let scan = self.scans.remove(which % self.scans.len());
            let page = self.store.scan(&scan.prefix, scan.after.as_deref(), scan.bytes_max);
            self.core
                .handle_scan(scan.id, (!fails).then_some(page), self.now, &mut self.tape);
        }
    }

    /// Retention deletes records, no further than the floor that the core gave.
    pub(in crate::fuzz::core) fn trim(&mut self, share: u8) {
        let end = self.store.floor.unwrap_or(self.store.newest);
        let below = CommitNumber(end.0 * u64::from(share) / 255);
        self.store.trimmed_below = self.store.trimmed_below.max(below);
    }

    /// A record that another part of the node wrote.
    pub(in crate::fuzz::core) fn commit_foreign(&mut self, topic: &str) {
        self.numbers += 1;
        let payload = payload(topic, false, self.numbers);
        let mut builder = RecordBlockBuilder::default();
        builder.push(&Record {
            device: "elsewhere",
            topic,
            payload: &payload,
            qos: QoS::ExactlyOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: self.now.wall,
            clock: self.now.clock,
            expiry_secs: None,
            origin: None,
            path: "",
        });
        self.store.commit_foreign(FOREIGN, builder.finish());
        self.note_log();
    }

    /// Lets everything come to rest: each submission is a commit of its own.
    pub(in crate::fuzz::core) fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.submit();
            let held = self.clients.iter().filter_map(|client| client.link.as_ref());
            let is_held = held.into_iter().any(|link| !link.held.is_empty()) && self.pressure == Pressure::Normal;
            let mut is_busy = is_held || self.store.waiting() > 0 || !self.store.answers.is_empty();
            self.commit(1);
            self.deliver();
            self.ask();
            is_busy |= !self.reads.is_empty() || !self.scans.is_empty();
            self.answer(0);
            self.listen();
            if !is_busy {
                return;
            }
        }
        panic!("the core does not come to rest");
    }
}
