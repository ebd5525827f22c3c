//! What one link has under way to the log: the commit of each ingest, and the marks above which the next one lies.
//!
//! In: ingests of the link's receiver, tickets of the store, what has become durable. Out: commits; then, and only then, W of the
//! edge's book and of the receiver move (I3). Pure. A draft that the store did not take leaves nothing behind.

use std::collections::{HashMap, VecDeque};

use fellbeck_core::{ClockQuality, Position, TrackId, WallTime};
use fellbeck_link::{Ingest, IngestEntry, LaneIndex, Receiver};
use fellbeck_store::{Commit, Committed, Ticket};

use super::append::{Appender, Moved, Places, Tally};
use crate::dedup::book::Book;

/// Where, for whom and when a draft is made.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// Where records of this node go.
    pub places: &'a Places,
    /// The edge and its instance.
    pub edge: (&'a str, u32),
    /// This node's clock.
    pub now: WallTime,
    /// What is known of it.
    pub clock: ClockQuality,
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
}

impl Flow {
    /// The commit for `ingest`, and what to give to [`Flow::submitted`] once the store has taken it.
    ///
    /// An error means a batch that does not open: the edge is broken or hostile.
    pub fn draft(
        &mut self,
        ingest: &Ingest,
        book: &Book,
        site: Site<'_>,
    ) -> Result<(Commit, Draft), fellbeck_core::BatchError> {
        let marks = self
            .marks
            .entry(ingest.lane)
            .or_insert_with(|| book.partitions(&ingest.name, ingest.run));
        let appender = Appender::new(site.places, site.edge, marks, site.now, site.clock);
        let (commit, moved, tally) = appender.build(ingest)?;
        let raw = ingest.entries.iter().map(IngestEntry::raw_len).sum();
        let draft = Draft {
            lane: ingest.lane,
            raw,
            moved,
            tally,
        };
        Ok((commit, draft))
    }

    /// The store has taken the commit of `draft`.
    pub fn submitted(&mut self, ticket: Ticket, draft: Draft) {
        if let Some(marks) = self.marks.get_mut(&draft.lane) {
            marks.extend(draft.moved.partitions.iter().copied());
        }
        self.under_way.push_back((ticket, draft));
    }

    /// A commit is durable: W moves, and only now (I3).
    pub fn committed(&mut self, committed: Committed, book: &mut Book, receiver: &mut Receiver) {
        while let Some((_, draft)) = self.under_way.pop_front_if(|(ticket, _)| *ticket <= committed.ticket) {
            let moved = draft.moved;
            book.moved(&moved.lane, moved.run, moved.w);
            book.appended(&moved.lane, moved.run, &moved.partitions);
            receiver.handle_durable(draft.lane, moved.w);
        }
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
