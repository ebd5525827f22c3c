//! One lane of the receiver: what was taken, what is on its way to the log, what is durable.
//!
//! In: decoded frames, durable positions. Out: ingests and W. Invariant (I3): `durable <= handed out <= taken`, and
//! each entry taken begins right behind the one before.

use std::collections::VecDeque;
use std::sync::Arc;

use fellbeck_core::{Epoch, Position, Run, Seq, WallTime};

use super::{Ingest, IngestEntry};
use crate::admission::LaneMark;
use crate::{Gap, LaneFrame, LaneIndex, LinkError, Skip};

/// What became of a frame.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Nothing of it is new.
    pub(super) is_known: bool,
    pub(super) records: u64,
    pub(super) duplicates: u64,
    pub(super) skipped: u64,
    pub(super) gap: Option<Gap>,
}

#[derive(Debug)]
struct Waiting {
    entry: IngestEntry,
    through: Position,
    cost: u64,
}

#[derive(Debug)]
struct HandedOut {
    through: Position,
    cost: u64,
}

#[derive(Debug)]
pub(super) struct ReceiveLane {
    name: Arc<str>,
    run: Run,
    /// Position of the last entry taken; W at the start.
    taken: Option<Position>,
    /// W: moved by the log only.
    durable: Option<Position>,
    ack_due: bool,
    waiting: VecDeque<Waiting>,
    handed_out: VecDeque<HandedOut>,
}

impl ReceiveLane {
    pub(super) fn new(name: &str, run: Run, w: Option<Position>) -> Self {
        Self {
            name: name.into(),
            run,
            taken: w,
            durable: w,
            ack_due: false,
            waiting: VecDeque::new(),
            handed_out: VecDeque::new(),
        }
    }

    /// Takes a frame that is not a start. Known records are dropped, a hole is an error.
    pub(super) fn take(
        &mut self,
        index: LaneIndex,
        frame: LaneFrame,
        cost: u64,
        received_at: WallTime,
    ) -> Result<Taken, LinkError> {
        let (epoch, first, last) = range(&frame);
        let known = self.known_prefix(index, &frame)?;
        let count = last.0 - first.0 + 1;
        if known == count {
            // W again: an edge that sends what is known has not heard of it.
            self.ack_due = true;
            let duplicates = if is_batch(&frame) { count } else { 0 };
            return Ok(Taken {
                is_known: true,
                duplicates,
                ..Taken::default()
            });
        }
        let mut taken = Taken::default();
        let start = Seq(first.0 + known);
        let entry = match frame {
            LaneFrame::Batch { sent_at, batch } => {
                taken.records = count - known;
                taken.duplicates = known;
                let skip = u32::try_from(known).expect("a batch counts its records in a u32");
                IngestEntry::Batch {
                    batch,
                    skip,
                    sent_at,
                    received_at,
                }
            }
            LaneFrame::Gap(gap) => {
                let gap = Gap { first: start, ..gap };
                taken.gap = Some(gap);
                IngestEntry::Gap(gap)
            }
            LaneFrame::Skip(skip) => {
                taken.skipped = count - known;
                IngestEntry::Skip(Skip { first: start, ..skip })
            }
            LaneFrame::Start(_) => return Err(LinkError::Unexpected { frame: "lane start" }),
        };
        let through = Position { epoch, seq: last };
        self.taken = Some(through);
        self.waiting.push_back(Waiting { entry, through, cost });
        Ok(taken)
    }

    /// How many positions at the front of the frame are at or below what was taken.
    fn known_prefix(&self, index: LaneIndex, frame: &LaneFrame) -> Result<u64, LinkError> {
        let (epoch, first, last) = range(frame);
        let got = Position { epoch, seq: first };
        let through = self.taken.unwrap_or_default();
        let expected = through.seq.next();
        if first > expected {
            return Err(LinkError::Hole {
                lane: index,
                expected,
                got: first,
            });
        }
        let known = (expected.0 - first.0).min(last.0 - first.0 + 1);
        // The numbers of a batch are its records: those of a newer epoch cannot be duplicates of older ones. Dropping
        // them as such would lose them without a word. A declared range has no records to lose.
        if known > 0 && epoch > through.epoch && is_batch(frame) {
            return Err(LinkError::SequenceRestarted {
                lane: index,
                through,
                got,
            });
        }
        if last >= expected && epoch < through.epoch {
            return Err(LinkError::EpochWentBack {
                lane: index,
                through,
                got,
            });
        }
        Ok(known)
    }

    /// Everything that waits, up to about `bytes_max` on the wire and `raw_max` when its batches are opened.
    pub(super) fn poll_ingest(&mut self, index: LaneIndex, bytes_max: u64, raw_max: u64) -> Option<Ingest> {
        let mut entries = Vec::new();
        let mut cost = 0;
        let mut raw = 0;
        let mut through = None;
        while let Some(next) = self
            .waiting
            .pop_front_if(|next| cost == 0 || (cost + next.cost <= bytes_max && raw + next.entry.raw_len() <= raw_max))
        {
            cost += next.cost;
            raw += next.entry.raw_len();
            through = Some(next.through);
            entries.push(next.entry);
        }
        let through = through?;
        self.handed_out.push_back(HandedOut { through, cost });
        Some(Ingest {
            lane: index,
            name: Arc::clone(&self.name),
            run: self.run,
            entries,
            through,
        })
    }

    /// Moves W. Returns the credit that this frees.
    pub(super) fn durable(&mut self, through: Position) -> u64 {
        let last = self.handed_out.back().map(|last| last.through).or(self.durable);
        assert!(Some(through) <= last, "I3: durable beyond what was handed out");
        let mut released = 0;
        while let Some(done) = self.handed_out.pop_front_if(|done| done.through <= through) {
            released += done.cost;
            self.durable = Some(done.through);
            self.ack_due = true;
        }
        released
    }

    pub(super) fn poll_ack(&mut self) -> Option<Position> {
        self.durable.filter(|_| std::mem::take(&mut self.ack_due))
    }

    pub(super) fn drop_pending(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn is_drained(&self) -> bool {
        self.handed_out.is_empty()
    }

    pub(super) fn mark(&self) -> Option<LaneMark> {
        self.durable.map(|w| LaneMark {
            lane: self.name.as_ref().to_owned(),
            run: self.run,
            w,
        })
    }
}

fn is_batch(frame: &LaneFrame) -> bool {
    matches!(frame, LaneFrame::Batch { .. })
}

fn range(frame: &LaneFrame) -> (Epoch, Seq, Seq) {
    match frame {
        LaneFrame::Batch { batch, .. } => (batch.header.epoch, batch.header.first, batch.last()),
        LaneFrame::Gap(gap) => (gap.epoch, gap.first, gap.last),
        LaneFrame::Skip(skip) => (skip.epoch, skip.first, skip.last),
        LaneFrame::Start(_) => (Epoch::default(), Seq::default(), Seq::default()),
    }
}
