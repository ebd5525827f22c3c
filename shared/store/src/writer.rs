//! The writer thread: the only one that changes the store.
//!
//! In: groups of submissions from the queue. Each group becomes one atomic batch, synced once; then the catalog, the tail and
//! the newest commit move, in this order, and each submission is answered. Only after that come memory tables, trimming and
//! sealing. Any error or panic halts the store: nothing that did not commit is ever answered (I1).

mod age;
mod draft;
mod housekeeping;
mod in_memory;
mod shed;
pub(crate) mod spare;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fellbeck_core::{CommitNumber, RecordBlock, Seq, TrackId, limits};
use fjall::Keyspace;

use self::age::AgeClock;
use self::draft::Draft;
use self::spare::Spare;
use crate::catalog::{Appended, Segment, Span};
use crate::codec;
use crate::commit::Committed;
use crate::committed::{CommittedBlock, TrackBlock};
use crate::config::Layout;
use crate::engine::Engine;
use crate::error::HaltError;
use crate::janitor::Job;
use crate::key::{Head, Seal, entry_key, index, stamped};
use crate::memory::Memory;
use crate::merge::{Merged, join};
use crate::queue::{Group, Queue, Submission};
use crate::shared::Shared;

/// How often the cloud looks for segments beyond their age.
const AGE_ROUND: Duration = Duration::from_secs(1);

/// What recovery hands to the writer.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Open segments to go on with: per track on the edge, the first one in the cloud.
    pub(crate) active: Vec<Option<u64>>,
    pub(crate) next_segment: u64,
    /// Segments with records in memory tables, oldest first, and how much.
    pub(crate) dirty: Vec<(u64, u64)>,
    /// Sealed segments that the index does not know yet.
    pub(crate) unindexed: Vec<u64>,
    pub(crate) floor: Option<CommitNumber>,
    /// What is set aside by topic, per track.
    pub(crate) spares: Vec<Spare>,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    engine: Engine,
    queue: Arc<Queue>,
    jobs: SyncSender<Job>,
    memory: Memory,
    active: Vec<Option<Active>>,
    next_segment: u64,
    /// Sealed since the last commit: their entry in the index rides in the next one.
    unindexed: Vec<u64>,
    /// Keys of the index that the next commit removes.
    obsolete: Vec<Vec<u8>>,
    floor: Option<CommitNumber>,
    age: AgeClock,
    /// What is set aside by topic, per track.
    spares: Vec<Spare>,
    /// A floor that goes with the next commit that is written.
    floor_waiting: Option<CommitNumber>,
    /// Segments are being given up; said once.
    shedding: bool,
    meters: Meters,
}

/// A segment that takes records.
#[derive(Clone)]
struct Active {
    id: u64,
    keyspace: Keyspace,
    since: Instant,
}

/// What a commit has written.
struct Written {
    appended: Vec<Appended>,
    bytes: u64,
    /// Something may have become free to trim.
    progressed: bool,
}

struct Meters {
    commits: metrics::Counter,
    records: metrics::Counter,
    bytes: metrics::Counter,
    seconds: metrics::Histogram,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        engine: Engine,
        queue: Arc<Queue>,
        jobs: SyncSender<Job>,
        plan: Plan,
    ) -> Self {
        let config = &shared.config;
        let mut memory = Memory::new(config.ram_window, config.memtable_bytes, config.journal_nudge);
        for (segment, bytes) in plan.dirty {
            memory.wrote(segment, bytes);
        }
        let catalog = shared.catalog();
        let handle = |id: u64| {
            catalog.segments.get(&id).map(|segment| Active {
                id,
                keyspace: segment.keyspace.clone(),
                since: Instant::now(),
            })
        };
        let active = plan.active.into_iter().map(|id| id.and_then(handle)).collect();
        drop(catalog);
        Self {
            shared,
            engine,
            queue,
            jobs,
            memory,
            active,
            next_segment: plan.next_segment,
            unindexed: plan.unindexed,
            obsolete: Vec::new(),
            floor: plan.floor,
            age: AgeClock::default(),
            spares: plan.spares,
            floor_waiting: None,
            shedding: false,
            meters: Meters {
                commits: metrics::counter!("fellbeck_store_commits_total"),
                records: metrics::counter!("fellbeck_store_records_total"),
                bytes: metrics::counter!("fellbeck_store_commit_bytes_total"),
                seconds: metrics::histogram!("fellbeck_store_commit_seconds"),
            },
        }
    }

    /// Runs until the queue is closed and empty, or the writer fails.
    pub(crate) fn run(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let reason = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(panic.as_ref()),
        };
        self.queue.halt();
        self.shared.halt(reason);
    }

    fn serve(&mut self) -> Result<(), HaltError> {
        let ageing = self.shared.config.layout == Layout::Cloud && self.shared.config.retention_age.is_some();
        let mut last_start = None;
        let mut round = Instant::now();
        loop {
            let now = Instant::now();
            if now >= round {
                let wall = self.age.look(now, now_ms());
                self.trim(wall.filter(|_| ageing));
                self.make_room()?;
                round = now + AGE_ROUND;
            }
            let looks = ageing || self.is_sparing() || self.shedding;
            match self.queue.collect(last_start, looks.then_some(round)) {
                Group::Work(group) => {
                    let start = Instant::now();
                    last_start = Some(start);
                    if self.commit(group)? {
                        self.meters.seconds.record(start.elapsed());
                    }
                }
                Group::Idle => {}
                Group::Closed => return self.settle_memory(),
            }
        }
    }

    /// Commits a group and answers it. Returns whether anything was written.
    fn commit(&mut self, mut group: Vec<Submission>) -> Result<bool, HaltError> {
        let commits = group
            .iter_mut()
            .map(|submission| std::mem::take(&mut submission.commit));
        let mut merged = Merged::of(commits);
        self.drop_stale_progress(&mut merged);
        if merged.is_empty() {
            answer(group, self.shared.newest());
            return Ok(false);
        }
        let mut draft = Draft::new(&self.engine, self.shared.newest().next());
        let commit = draft.commit;
        let accepted = merged
            .appends
            .values()
            .flatten()
            .map(|block| block.bytes().len() as u64);
        self.shared
            .gauges
            .accepted_bytes
            .fetch_add(accepted.sum(), Ordering::Relaxed);
        for (track, blocks) in std::mem::take(&mut merged.appends) {
            let blocks = self.spare(&mut draft, track, blocks);
            if !blocks.is_empty() {
                self.append(&mut draft, track, blocks)?;
            }
        }
        for (space, key, value) in merged.keyed.drain(..) {
            let keyspace = self.engine.space(space);
            match value {
                Some(value) => draft.put(keyspace, key, stamped(commit, &value)),
                None => draft.remove(keyspace, key),
            }
        }
        let written = self.write(draft, &merged)?;
        answer(group, commit);
        self.tidy(&written)?;
        if written.progressed || self.pressed() {
            self.trim(None);
        }
        if written.progressed || self.is_short() {
            self.make_room()?;
        }
        Ok(true)
    }

    /// Makes a draft durable, then shows it: catalog, tail, newest commit.
    fn write(&mut self, mut draft: Draft, merged: &Merged) -> Result<Written, HaltError> {
        let is_durable = draft.is_durable || self.has_durable(merged);
        if is_durable {
            self.note_progress(&mut draft, merged);
        }
        let Draft {
            batch,
            commit,
            bytes,
            index,
            appended,
            tracks,
            declared,
            set_aside,
            in_memory,
            reserved,
            ..
        } = draft;
        if is_durable {
            self.wait_for_room()?;
            batch.commit()?;
            self.shared.durable.store(commit.0, Ordering::Release);
        }

        {
            let mut catalog = self.shared.catalog_mut();
            for (track, up_to) in reserved {
                catalog.tracks[track.0 as usize].ring.reserved = up_to;
            }
            for (track, batch) in in_memory {
                catalog.keep_in_memory(track, batch);
            }
            for (track, aside, owed) in set_aside {
                let track = &mut catalog.tracks[track.0 as usize];
                (track.aside, track.owed) = (aside, owed);
            }
        }
        let progressed = self.publish(&appended, merged, is_durable.then_some(commit));
        if !declared.is_empty() {
            let mut catalog = self.shared.catalog_mut();
            declared
                .into_iter()
                .for_each(|(track, gap)| catalog.declare(track, gap));
        }
        if !tracks.is_empty() {
            self.shared.tail.push(Arc::new(CommittedBlock { commit, tracks }));
        }
        self.shared.newest.send_replace(commit);
        self.count(bytes, index);
        Ok(Written {
            appended,
            bytes,
            progressed,
        })
    }

    /// What follows a commit: sealing and memory tables.
    fn tidy(&mut self, written: &Written) -> Result<(), HaltError> {
        self.seal_full()?;
        self.tidy_memory(&written.appended, written.bytes)
    }

    /// Removes acknowledgements and floors that move nothing, and refuses impossible ones.
    fn drop_stale_progress(&self, merged: &mut Merged) {
        let catalog = self.shared.catalog();
        merged.acked.retain(|id, acked| {
            let track = &catalog.tracks[id.0 as usize];
            if *acked >= track.end {
                tracing::error!(
                    track = track.name,
                    acked = acked.0,
                    end = track.end.0,
                    "acknowledged beyond the end"
                );
                *acked = Seq(track.end.0 - 1);
            }
            *acked > track.acked
        });
        merged.session_floor = merged.session_floor.max(self.floor_waiting);
        if merged.session_floor <= self.floor {
            merged.session_floor = None;
        }
    }

    fn append(&mut self, draft: &mut Draft, track: TrackId, blocks: Vec<RecordBlock>) -> Result<(), HaltError> {
        let layout = self.shared.config.layout;
        let batch_max = self.shared.config.batch_max;
        if self.shared.catalog().tracks[track.0 as usize]
            .policy
            .memory_bytes
            .is_some()
        {
            self.append_in_memory(draft, track, blocks);
            return Ok(());
        }
        let mut first = self.shared.catalog().tracks[track.0 as usize].end;
        let Active {
            id: segment, keyspace, ..
        } = self.segment(track)?;
        for block in join(blocks, batch_max, limits::BATCH_RECORDS_MAX) {
            let count = u32::try_from(block.len()).map_err(|_| HaltError::Broken("a batch of 2^32 records"))?;
            let head = Head {
                commit: draft.commit,
                first_index: draft.index,
                count,
                epoch: self.shared.epoch,
            };
            let value = codec::encode(layout, head, first, &block);
            let span = Span {
                track,
                first,
                end: first.plus(u64::from(count)),
            };
            draft.appended.push(Appended {
                segment,
                span,
                bytes: (value.len() + 12) as u64,
            });
            draft.put(&keyspace, entry_key(track, first), value);
            draft.tracks.push(TrackBlock {
                track,
                epoch: self.shared.epoch,
                first,
                first_index: draft.index,
                block,
            });
            draft.index += count;
            first = span.end;
        }
        Ok(())
    }

    /// Acknowledgements, the floor, sealed segments and the commit number itself.
    fn note_progress(&mut self, draft: &mut Draft, merged: &Merged) {
        let catalog = self.shared.catalog();
        let index_keyspace = self.engine.index.clone();
        for (track, acked) in &merged.acked {
            draft.put(&index_keyspace, index::acked(*track), acked.0.to_be_bytes().to_vec());
        }
        if let Some(floor) = merged.session_floor {
            draft.put(&index_keyspace, index::FLOOR, floor.0.to_be_bytes().to_vec());
        }
        for id in &self.unindexed {
            let Some(segment) = catalog.segments.get(id) else {
                continue;
            };
            draft.put(&index_keyspace, index::sealed(*id), segment.seal.encode());
            for span in &segment.seal.spans {
                // That of the track, not of the segment: one that came back after a crash ends below what is known.
                let end = catalog.tracks[span.track.0 as usize].end;
                draft.put(&index_keyspace, index::end(span.track), end.0.to_be_bytes().to_vec());
            }
        }
        for key in self.obsolete.drain(..) {
            draft.remove(&index_keyspace, key);
        }
        draft.put(&index_keyspace, index::COMMIT, draft.commit.0.to_be_bytes().to_vec());
    }

    /// Moves the catalog. Returns whether something may have become free to trim.
    fn publish(&mut self, appended: &[Appended], merged: &Merged, durable: Option<CommitNumber>) -> bool {
        let Some(commit) = durable else {
            self.floor_waiting = merged.session_floor.max(self.floor_waiting);
            let mut catalog = self.shared.catalog_mut();
            for (track, acked) in &merged.acked {
                catalog.acknowledge(*track, *acked);
                // In memory only, as the gaps of such a track are.
                drop(catalog.prune_gaps(*track));
            }
            drop(catalog);
            self.shared.weigh();
            return false;
        };
        let now_ms = now_ms();
        let mut catalog = self.shared.catalog_mut();
        let indexed = !self.unindexed.is_empty();
        for id in self.unindexed.drain(..) {
            if let Some(segment) = catalog.segments.get_mut(&id) {
                segment.indexed = true;
            }
        }
        for entry in appended {
            catalog.append(entry, commit, now_ms);
        }
        for (track, acked) in &merged.acked {
            catalog.acknowledge(*track, *acked);
            let pruned = catalog.prune_gaps(*track);
            self.obsolete
                .extend(pruned.into_iter().map(|first| index::gap(*track, first)));
        }
        drop(catalog);
        if merged.session_floor.is_some() {
            self.floor = merged.session_floor;
        }
        self.shared.weigh();
        indexed || !merged.acked.is_empty() || merged.session_floor.is_some()
    }

    fn count(&self, bytes: u64, records: u32) {
        let gauges = &self.shared.gauges;
        gauges.commits.fetch_add(1, Ordering::Relaxed);
        gauges.records.fetch_add(u64::from(records), Ordering::Relaxed);
        gauges.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meters.commits.increment(1);
        self.meters.records.increment(u64::from(records));
        self.meters.bytes.increment(bytes);
    }

    fn slot(&self, track: TrackId) -> usize {
        match self.shared.config.layout {
            Layout::Edge => track.0 as usize,
            Layout::Cloud => 0,
        }
    }

    /// The segment that takes the next records of a track; made when there is none.
    fn segment(&mut self, track: TrackId) -> Result<Active, HaltError> {
        let slot = self.slot(track);
        if let Some(active) = &self.active[slot] {
            return Ok(active.clone());
        }
        let id = self.next_segment;
        let keyspace = self.engine.create_segment(id)?;
        self.next_segment += 1;
        let segment = Segment {
            keyspace: keyspace.clone(),
            seal: Seal::default(),
            sealed: false,
            indexed: false,
        };
        self.shared.catalog_mut().insert(id, segment);
        let active = Active {
            id,
            keyspace,
            since: Instant::now(),
        };
        self.active[slot] = Some(active.clone());
        Ok(active)
    }
}

fn answer(group: Vec<Submission>, commit: CommitNumber) {
    for submission in group {
        let ticket = submission.ticket;
        // A submitter that has gone away wants no answer.
        drop(submission.permit.send(Committed { ticket, commit }));
    }
}

/// Milliseconds of the wall clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the writer panicked: {}", text.unwrap_or_default())
}
