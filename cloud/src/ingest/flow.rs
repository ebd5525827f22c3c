//! What one link has under way to the log: the commit of each ingest, and the marks and counters above which the next one lies.
//!
//! In: ingests of the link's receiver, tickets of the store, what has become durable. Out: commits; then, and only then, what W of the
//! edge's book and of the receiver moves to (I3). Pure. A draft that the store did not take leaves nothing behind.

use std::collections::{HashMap, VecDeque};

use fellbeck_core::{BatchError, ClockQuality, Position, TrackId, WallTime};
use fellbeck_link::{Ingest, IngestEntry, LaneIndex};
use fellbeck_store::{Commit, Committed, Ticket};

use super::append::{Appender, Built, Moved, Places, Tally};
use crate::dedup::index::Intake;
use crate::ledger::{LaneCounts, LaneId};

/// Where, for whom and when a draft is made.
#[derive(Debug, Clone, Copy)]
pub struct Site<'p, 'a> {
    /// Where records of this node go.
    pub places: &'p Places,
    /// The edge and its instance.
    pub edge: (&'a str, u32),
    /// This node's clock.
    pub now: WallTime,
    /// What is known of it.
    pub clock: ClockQuality,
}

/// A commit for the store, and what follows when the store has taken it.
pub struct Drafted<'p> {
    /// For the store.
    pub commit: Commit,
    /// For [`Flow::submitted`].
    pub draft: Draft,
    /// To be settled when the store has taken the commit, and dropped when it has not.
    pub intake: Option<Intake<'p>>,
}

/// What remains of an ingest once its commit is handed over.
#[derive(Debug)]
pub struct Draft {
    lane: LaneIndex,
    raw: u64,
    moved: Moved,
    /// What was dropped on the way, to be counted.
    pub tally: Tally,
}

/// Commits of one link under way, oldest first.
#[derive(Debug, Default)]
pub struct Flow {
    under_way: VecDeque<(Ticket, Draft)>,
    /// Partition marks per lane, durable or under way: later records of the lane lie above them.
    marks: HashMap<LaneIndex, HashMap<TrackId, Position>>,
    /// Counters per lane, durable or under way.
    counts: HashMap<LaneIndex, LaneCounts>,
}

impl Flow {
    /// The commit for `ingest`. `marks` and `counts` are asked for what is durable of a lane of which nothing was under way yet.
    ///
    /// An error means a batch that does not open: the edge is broken or hostile.
    pub fn draft<'p>(
        &mut self,
        ingest: &Ingest,
        site: Site<'p, '_>,
        marks: impl FnOnce() -> HashMap<TrackId, Position>,
        counts: impl FnOnce(&LaneId) -> Option<LaneCounts>,
    ) -> Result<Drafted<'p>, BatchError> {
        let marks = self.marks.entry(ingest.lane).or_insert_with(marks);
        let known = self.counts.get(&ingest.lane).copied();
        let counts = known.or_else(|| counts(&LaneId::new(site.edge.1, &ingest.name, ingest.run)));
        let appender = Appender::new(site.places, site.edge, (marks, counts), site.now, site.clock);
        let Built {
            commit,
            moved,
            tally,
            intake,
        } = appender.build(ingest)?;
        let draft = Draft {
            lane: ingest.lane,
            raw: ingest.entries.iter().map(IngestEntry::raw_len).sum(),
            moved,
            tally,
        };
        Ok(Drafted { commit, draft, intake })
    }

    /// The store has taken the commit of `draft`.
    pub fn submitted(&mut self, ticket: Ticket, draft: Draft) {
        if let Some(marks) = self.marks.get_mut(&draft.lane) {
            marks.extend(draft.moved.partitions.iter().copied());
        }
        self.counts.insert(draft.lane, draft.moved.counts);
        self.under_way.push_back((ticket, draft));
    }

    /// What the commits up to `committed` move, one after another; to be called until there is nothing more.
    pub fn durable(&mut self, committed: Committed) -> Option<(LaneIndex, Moved)> {
        let oldest = self.under_way.front();
        if oldest.is_none_or(|(ticket, _)| *ticket > committed.ticket) {
            return None;
        }
        let (_, draft) = self.under_way.pop_front()?;
        Some((draft.lane, draft.moved))
    }

    /// Commits under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Raw bytes of the records under way.
    #[must_use]
    pub fn raw(&self) -> u64 {
        self.under_way.iter().map(|(_, draft)| draft.raw).sum()
    }
}
