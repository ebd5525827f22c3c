//! A store in memory with the promises of the real one, and with its way to die.
//!
//! In: submissions of several submitters. Out: numbered atomic commits, answers in order, the tail, reads. One commit syncs at a time
//! and becomes durable when the world says so. A crash loses what waits and, by the throw of a die, what was syncing; the commit
//! that was durable last can be lost to damage, which the next open declares as gaps, as the high-water file lets the real one do.
//! Joining and trimming are the real store's ([`fellbeck_store::pure`]).

mod crash;
mod read;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_core::{Batch, CommitNumber, Epoch, IncarnationChain, RecordBlock, Seq, TrackId};
use fellbeck_store::pure::Merged;
use fellbeck_store::{
    Commit, Committed, CommittedBlock, Space, Stored, Ticket, TrackBlock, TrackBounds, TrackEntry, Urgency,
};

use super::plan::{Plan, Planted};

/// How long a lazy submission may wait.
const LAZY_MS: u64 = 1000;

/// Names a submitter since the last start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seat(usize);

#[derive(Debug)]
struct Seated {
    last: u64,
    outstanding: usize,
    outstanding_max: usize,
    answers: VecDeque<Committed>,
}

#[derive(Debug)]
struct Submission {
    seat: usize,
    ticket: Ticket,
    commit: Commit,
    at_ms: u64,
}

/// A commit that is being synced.
#[derive(Debug)]
struct Syncing {
    merged: Merged,
    commit: CommitNumber,
    waiting: Vec<(usize, Ticket)>,
}

/// An entry of a track, as the uplink reads it.
#[derive(Debug, Clone)]
struct Held {
    entry: TrackEntry,
    first: Seq,
    last: Seq,
    commit: CommitNumber,
}

/// What is on flash of one track.
#[derive(Debug, Clone)]
struct Track {
    name: String,
    sessions_only: bool,
    held: VecDeque<Held>,
    first: Seq,
    end: Seq,
    acked: Seq,
}

/// A commit with records as it is on flash.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) block: Arc<CommittedBlock>,
    /// Damaged: it cannot be read.
    pub(crate) lost: bool,
}

/// What is on flash.
#[derive(Debug, Clone)]
struct Disk {
    tracks: Vec<Track>,
    values: [BTreeMap<Bytes, Stored>; 4],
    log: Vec<Kept>,
    newest: CommitNumber,
    floor: Option<CommitNumber>,
    chain: IncarnationChain,
}

/// How the commit before the newest looked, in what the newest changed.
#[derive(Debug, Default)]
struct Undo {
    values: Vec<(usize, Bytes, Option<Stored>)>,
    acked: Vec<(TrackId, Seq)>,
    floor: Option<CommitNumber>,
}

/// What a commit did, for the oracle.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) commit: CommitNumber,
    pub(crate) block: Option<Arc<CommittedBlock>>,
    /// It wrote to the marks of the cloud.
    pub(crate) moved_marks: bool,
    /// Ranges that were trimmed behind it: track, first, end.
    pub(crate) trimmed: Vec<(TrackId, Seq, Seq)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct MemStore {
    disk: Disk,
    snapshot: Option<Disk>,
    undo: Option<Undo>,
    layout: Layout,
    waiting: VecDeque<Submission>,
    syncing: Option<Syncing>,
    seats: Vec<Seated>,
    tail: VecDeque<Arc<CommittedBlock>>,
    tail_bytes: usize,
    covers_from: CommitNumber,
    /// Marks that a planted bug writes one commit late.
    late: Vec<(Space, Bytes, Option<Bytes>)>,
    settings: Settings,
}

/// What of the real store's two layouts matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Edge,
    Cloud,
}

#[derive(Debug)]
struct Settings {
    segment_records: Option<u64>,
    grace_bytes: u64,
    pin_bytes: u64,
    tail_bytes: usize,
    planted: Option<Planted>,
}

fn number(space: Space) -> usize {
    match space {
        Space::Session => 0,
        Space::Retained => 1,
        Space::Mark => 2,
        Space::Node => 3,
    }
}

impl MemStore {
    /// `tracks`: names, and whether only sessions read it.
    pub(crate) fn new(layout: Layout, tracks: &[(String, bool)], plan: &Plan) -> Self {
        let track = |(name, sessions_only): &(String, bool)| Track {
            name: name.clone(),
            sessions_only: *sessions_only,
            held: VecDeque::new(),
            first: Seq(1),
            end: Seq(1),
            acked: Seq(0),
        };
        let disk = Disk {
            tracks: tracks.iter().map(track).collect(),
            values: Default::default(),
            log: Vec::new(),
            newest: CommitNumber(0),
            floor: None,
            chain: IncarnationChain::default(),
        };
        let mut store = Self {
            disk,
            snapshot: None,
            undo: None,
            layout,
            waiting: VecDeque::new(),
            syncing: None,
            seats: Vec::new(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            covers_from: CommitNumber(1),
            late: Vec::new(),
            settings: Settings {
                segment_records: plan.segment_records.filter(|_| layout == Layout::Edge),
                grace_bytes: plan.grace_bytes,
                pin_bytes: plan.pin_bytes,
                tail_bytes: plan.tail_bytes,
                planted: plan.planted,
            },
        };
        store.open([1; 16]);
        store
    }

    fn plants(&self, planted: Planted) -> bool {
        self.settings.planted == Some(planted)
    }

    /// A new incarnation begins.
    fn open(&mut self, id: [u8; 16]) {
        let begun = self.disk.chain.succeed(id, Epoch(1));
        begun.expect("the incarnations of a world are few and told apart");
        self.covers_from = self.disk.newest.next();
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.disk
            .chain
            .newest()
            .expect("an open store has an incarnation")
            .epoch
    }

    pub(crate) fn chain(&self) -> &IncarnationChain {
        &self.disk.chain
    }

    pub(crate) fn newest(&self) -> CommitNumber {
        self.disk.newest
    }

    pub(crate) fn log(&self) -> &[Kept] {
        &self.disk.log
    }

    pub(crate) fn tracks(&self) -> impl Iterator<Item = (TrackId, &str)> {
        let numbered = self.disk.tracks.iter().enumerate();
        numbered.map(|(at, track)| (TrackId(at as u32), track.name.as_str()))
    }

    pub(crate) fn bounds(&self, track: TrackId) -> TrackBounds {
        let track = &self.disk.tracks[track.0 as usize];
        TrackBounds {
            first: track.first,
            end: track.end,
            epoch: self.epoch(),
            acked: track.acked,
        }
    }

    pub(crate) fn values_of(&self, space: Space) -> Vec<Stored> {
        self.disk.values[number(space)].values().cloned().collect()
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Option<&Stored> {
        self.disk.values[number(space)].get(key)
    }

    // ---- the way in

    pub(crate) fn seat(&mut self, outstanding_max: usize) -> Seat {
        self.seats.push(Seated {
            last: 0,
            outstanding: 0,
            outstanding_max,
            answers: VecDeque::new(),
        });
        Seat(self.seats.len() - 1)
    }

    pub(crate) fn has_room(&self, seat: Seat) -> bool {
        let seated = &self.seats[seat.0];
        seated.outstanding < seated.outstanding_max
    }

    /// Gives the commit back where the submitter has too much outstanding.
    pub(crate) fn submit(&mut self, seat: Seat, commit: Commit, at_ms: u64) -> Result<Ticket, Commit> {
        if !self.has_room(seat) {
            return Err(commit);
        }
        assert!(
            commit.appends.iter().all(|append| !append.block.is_empty()),
            "an empty block is submitted"
        );
        let seated = &mut self.seats[seat.0];
        seated.outstanding += 1;
        seated.last += 1;
        let ticket = Ticket(seated.last);
        let seat = seat.0;
        self.waiting.push_back(Submission {
            seat,
            ticket,
            commit,
            at_ms,
        });
        Ok(ticket)
    }

    pub(crate) fn take_answer(&mut self, seat: Seat) -> Option<Committed> {
        let seated = &mut self.seats[seat.0];
        let answer = seated.answers.pop_front()?;
        seated.outstanding -= 1;
        Some(answer)
    }

    /// Nothing waits or syncs, and this submitter has received all answers.
    pub(crate) fn is_idle(&self, seat: Seat) -> bool {
        self.waiting.is_empty() && self.syncing.is_none() && self.seats[seat.0].outstanding == 0
    }

    /// Takes up to `count` submissions into a commit that begins to sync, when one is due. Returns its number.
    pub(crate) fn begin(&mut self, count: usize, at_ms: u64) -> Option<CommitNumber> {
        if self.syncing.is_some() || self.waiting.is_empty() {
            return None;
        }
        let urgent = self.waiting.iter().any(|one| one.commit.urgency == Urgency::Now);
        let oldest = self.waiting.front().map_or(at_ms, |one| one.at_ms);
        if !urgent && at_ms < oldest + LAZY_MS {
            return None;
        }
        let count = count.min(self.waiting.len());
        let mut waiting = Vec::with_capacity(count);
        let mut commits = Vec::with_capacity(count);
        for submission in self.waiting.drain(..count) {
            waiting.push((submission.seat, submission.ticket));
            commits.push(submission.commit);
        }
        let mut merged = Merged::of(commits.into_iter());
        self.drop_stale_progress(&mut merged);
        self.plant(&mut merged);
        let commit = self.disk.newest.next();
        if merged.is_empty() {
            self.answer(&waiting, self.disk.newest);
            return None;
        }
        if self.plants(Planted::AckBeforeCommit) {
            self.answer(&waiting, commit);
            waiting.clear();
        }
        self.syncing = Some(Syncing {
            merged,
            commit,
            waiting,
        });
        Some(commit)
    }

    fn plant(&mut self, merged: &mut Merged) {
        if self.plants(Planted::MarkNotAtomic) && self.layout == Layout::Cloud {
            let late = std::mem::take(&mut self.late);
            let (marks, others) = std::mem::take(&mut merged.keyed)
                .into_iter()
                .partition(|(space, _, _)| *space == Space::Mark);
            merged.keyed = others;
            self.late = marks;
            let ours = |key: &Bytes| merged.keyed.iter().any(|(_, known, _)| known == key);
            let late: Vec<_> = late.into_iter().filter(|(_, key, _)| !ours(key)).collect();
            merged.keyed.extend(late);
        }
    }

    /// As the real writer: acknowledgements and floors that move nothing go.
    fn drop_stale_progress(&self, merged: &mut Merged) {
        merged.acked.retain(|id, acked| {
            let track = &self.disk.tracks[id.0 as usize];
            assert!(
                *acked < track.end,
                "I2: {} is acknowledged up to {acked}, and ends at {}",
                track.name,
                track.end
            );
            *acked > track.acked
        });
        if merged.session_floor <= self.disk.floor {
            merged.session_floor = None;
        }
    }

    fn answer(&mut self, waiting: &[(usize, Ticket)], commit: CommitNumber) {
        for (seat, ticket) in waiting {
            let ticket = *ticket;
            self.seats[*seat].answers.push_back(Committed { ticket, commit });
        }
    }

    /// The sync has ended: the commit is durable and answered.
    pub(crate) fn finish(&mut self) -> Option<Durable> {
        let Syncing {
            merged,
            commit,
            waiting,
        } = self.syncing.take()?;
        let durable = self.apply(merged, commit);
        if let Some(block) = &durable.block {
            self.push_tail(block.clone());
        }
        self.answer(&waiting, commit);
        Some(durable)
    }

    fn apply(&mut self, merged: Merged, commit: CommitNumber) -> Durable {
        assert!(commit > self.disk.newest, "I5: commit number {commit} is not new");
        let mut undo = Undo {
            floor: self.disk.floor,
            ..Undo::default()
        };
        let moved_marks = merged.keyed.iter().any(|(space, _, _)| *space == Space::Mark);
        let block = self.append(merged.appends, commit);
        for (space, key, value) in merged.keyed {
            let values = &mut self.disk.values[number(space)];
            let old = match value {
                Some(value) => {
                    let stored = Stored {
                        key: key.clone(),
                        value,
                        commit,
                    };
                    values.insert(key.clone(), stored)
                }
                None => values.remove(&key),
            };
            undo.values.push((number(space), key, old));
        }
        let progressed = !merged.acked.is_empty() || merged.session_floor.is_some();
        for (track, acked) in merged.acked {
            let state = &mut self.disk.tracks[track.0 as usize];
            undo.acked.push((track, state.acked));
            state.acked = acked;
        }
        self.disk.floor = merged.session_floor.or(self.disk.floor);
        self.disk.newest = commit;
        self.undo = Some(undo);
        let trimmed = if progressed { self.trim() } else { Vec::new() };
        Durable {
            commit,
            block,
            moved_marks,
            trimmed,
        }
    }

    fn append(
        &mut self,
        appends: BTreeMap<TrackId, Vec<RecordBlock>>,
        commit: CommitNumber,
    ) -> Option<Arc<CommittedBlock>> {
        let epoch = self.epoch();
        let mut tracks = Vec::with_capacity(appends.len());
        let mut first_index = 0;
        for (id, blocks) in appends {
            let track = &mut self.disk.tracks[id.0 as usize];
            let block = if blocks.len() == 1 {
                blocks[0].clone()
            } else {
                RecordBlock::concat(&blocks)
            };
            let first = track.end;
            track.end = first.plus(block.len() as u64);
            if self.layout == Layout::Edge {
                let entry = TrackEntry::Batch(Batch::seal(epoch, first, &block));
                let last = Seq(track.end.0 - 1);
                track.held.push_back(Held {
                    entry,
                    first,
                    last,
                    commit,
                });
            }
            let count = block.len() as u32;
            tracks.push(TrackBlock {
                track: id,
                epoch,
                first,
                first_index,
                block,
            });
            first_index += count;
        }
        if tracks.is_empty() {
            return None;
        }
        let block = Arc::new(CommittedBlock { commit, tracks });
        let kept = Kept {
            block: block.clone(),
            lost: false,
        };
        self.disk.log.push(kept);
        Some(block)
    }

    fn push_tail(&mut self, block: Arc<CommittedBlock>) {
        self.tail_bytes += block.byte_len();
        self.tail.push_back(block);
        while self.tail_bytes > self.settings.tail_bytes && self.tail.len() > 1 {
            if let Some(oldest) = self.tail.pop_front() {
                self.tail_bytes -= oldest.byte_len();
                self.covers_from = oldest.commit.next();
            }
        }
    }
}
