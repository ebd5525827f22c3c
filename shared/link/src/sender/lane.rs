//! One lane of the sender: what is read, queued, in flight and acknowledged.
//!
//! In: bounds of the log, entries as read, acks. Out: frames while credit lasts, gaps that had to be declared, W.
//! Invariant (I2): `acked <= sent < next <= end`, each counted in sequence numbers; frames leave in sequence order
//! without a hole.

use std::collections::VecDeque;

use bytes::Bytes;
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{Epoch, Position, Seq, Tick, WallTime};

use super::{Entry, LaneBounds, LaneSpec, SenderStats};
use crate::admission::NO_EPOCH;
use crate::credit::{CreditUse, cost};
use crate::data::SENT_AT;
use crate::{Gap, LaneFrame, LaneHello, LaneIndex, LinkError, Skip};

/// How a lane stands after the Welcome.
pub(super) enum Resumed {
    /// Goes on behind the cloud's W.
    Level,
    /// Goes on behind the cloud's W, which is lower than the edge knew it.
    CloudWentBack { edge_w: Seq },
    /// Cannot go on: the cloud has what was never minted here.
    CloudAhead { cloud_w: Position },
}

#[derive(Debug)]
struct Queued {
    frame: Vec<u8>,
    last: Seq,
    /// Records of a batch; `None` for a declared range, which carries no time.
    records: Option<u32>,
}

#[derive(Debug)]
struct InFlight {
    last: Seq,
    cost: u64,
}

#[derive(Debug)]
pub(super) struct SendLane {
    spec: LaneSpec,
    /// `acked` in it is W as the store knows it; only rises.
    bounds: LaneBounds,
    /// W of the cloud whose record must still be compared with the one held here.
    unverified: Option<Position>,
    /// First record that is neither queued nor sent on this connection.
    next: Seq,
    /// Epoch of the last entry queued, or of the cloud's W.
    epoch: Epoch,
    /// First record not yet sent on this connection.
    unsent: Seq,
    queue: VecDeque<Queued>,
    queued_bytes: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    reading: Option<u64>,
    paused_until: Option<Tick>,
    started: bool,
    blocked: bool,
    /// W that the driver has not been told yet.
    news: Option<Position>,
}

impl SendLane {
    pub(super) fn new(spec: LaneSpec) -> Self {
        let start = Seq(1);
        Self {
            spec,
            bounds: LaneBounds {
                epoch: Epoch(0),
                first: start,
                end: start,
                acked: None,
            },
            unverified: None,
            next: start,
            epoch: Epoch(0),
            unsent: start,
            queue: VecDeque::new(),
            queued_bytes: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            reading: None,
            paused_until: None,
            started: false,
            blocked: false,
            news: None,
        }
    }

    pub(super) fn bounds(&self) -> &LaneBounds {
        &self.bounds
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Bytes sent or queued: what the credit will be asked for.
    pub(super) fn unacked_bytes(&self) -> u64 {
        self.in_flight_bytes + self.queued_bytes
    }

    pub(super) fn paused_until(&self) -> Option<Tick> {
        self.paused_until
    }

    pub(super) fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    pub(super) fn hello(&self) -> LaneHello {
        LaneHello {
            lane: self.spec.name.clone(),
            run: self.spec.run,
            epoch: self.bounds.epoch,
            first: self.bounds.first,
            end: self.bounds.end,
            acked: self.bounds.acked,
        }
    }

    /// A connection begins.
    pub(super) fn restart(&mut self, bounds: LaneBounds) {
        assert!(bounds.first <= bounds.end, "a log begins before it ends");
        self.disconnect();
        self.bounds = bounds;
        self.news = None;
    }

    /// Forgets what belongs to the connection. W that was acknowledged on it and not yet polled stays to be polled.
    pub(super) fn disconnect(&mut self) {
        self.unverified = None;
        self.queue.clear();
        self.queued_bytes = 0;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.reading = None;
        self.paused_until = None;
        self.started = false;
        self.blocked = false;
    }

    /// The Welcome came: the first frame will be the one behind the cloud's W.
    pub(super) fn resume(&mut self, cloud_w: Option<Position>) -> Resumed {
        self.next = cloud_w.map_or(Seq(1), |w| w.seq.next());
        self.unsent = self.next;
        self.epoch = cloud_w.map_or(Epoch(0), |w| w.epoch);
        if let Some(w) = cloud_w {
            if w.seq >= self.bounds.end {
                return Resumed::CloudAhead { cloud_w: w };
            }
            if w.seq >= self.bounds.first {
                self.unverified = Some(w);
            } else {
                self.remember(w);
            }
        }
        match self.bounds.acked {
            Some(edge_w) if cloud_w.is_none_or(|w| w.seq < edge_w) => Resumed::CloudWentBack { edge_w },
            _ => Resumed::Level,
        }
    }

    /// W is `w`, and what it covers may be trimmed here once it is stored.
    fn remember(&mut self, w: Position) {
        if self.bounds.acked.is_none_or(|acked| acked < w.seq) {
            self.bounds.acked = Some(w.seq);
            self.news = Some(w);
        }
    }

    pub(super) fn poll_acked(&mut self) -> Option<Position> {
        self.news.take()
    }

    /// Takes an ack. `Ok(false)`: late news.
    pub(super) fn ack(&mut self, index: LaneIndex, w: Position) -> Result<bool, LinkError> {
        if w.seq >= self.unsent {
            return Err(LinkError::AckBeyondSent {
                lane: index,
                w,
                sent: (self.unsent > Seq(1)).then(|| Seq(self.unsent.0 - 1)),
            });
        }
        let before = self.in_flight_bytes;
        while let Some(sent) = self.in_flight.pop_front_if(|sent| sent.last <= w.seq) {
            self.in_flight_bytes -= sent.cost;
        }
        if self.unverified.is_none() {
            self.remember(w);
        }
        Ok(self.in_flight_bytes < before)
    }

    pub(super) fn log_moved(&mut self, first: Seq, end: Seq) {
        // A read may have shown records before the news of their commit came; older news changes nothing.
        self.bounds.end = self.bounds.end.max(end);
        self.bounds.first = self.bounds.first.max(first).min(self.bounds.end);
        if let Some(w) = self.unverified.filter(|w| w.seq < self.bounds.first) {
            self.unverified = None;
            self.remember(w);
        }
    }

    /// Bytes to read now, if anything has to be read at all. `room` is what the credit would let go.
    pub(super) fn read_size(&self, room: u64, bytes_max: usize) -> Option<usize> {
        let wanted = self.unverified.is_some() || self.next < self.bounds.end;
        let alone = self.unacked_bytes() == 0;
        let ahead = room > self.queued_bytes && self.queued_bytes < bytes_max as u64;
        let may = self.reading.is_none() && self.paused_until.is_none() && !self.blocked;
        (wanted && may && (alone || ahead)).then(|| usize::try_from(room).unwrap_or(usize::MAX).clamp(1, bytes_max))
    }

    /// Marks the read as under way and says where it begins.
    pub(super) fn begin_read(&mut self, id: u64) -> Seq {
        self.reading = Some(id);
        let from = self.unverified.map_or(self.next, |w| w.seq);
        from.max(self.bounds.first)
    }

    /// `false`: not the read under way, but one of an earlier connection.
    pub(super) fn finish_read(&mut self, id: u64) -> bool {
        let is_current = self.reading == Some(id);
        if is_current {
            self.reading = None;
        }
        is_current
    }

    /// Changes with every entry that was of use.
    pub(super) fn progress(&self) -> (Seq, bool) {
        (self.next, self.unverified.is_some())
    }

    pub(super) fn pause(&mut self, until: Tick) {
        self.paused_until = Some(until);
    }

    pub(super) fn retry_if_due(&mut self, tick: Tick) {
        if self.paused_until.is_some_and(|until| until <= tick) {
            self.paused_until = None;
        }
    }

    /// Compares the record held at the cloud's W with W: the same sequence number must have the same epoch.
    ///
    /// A restored copy of this store that went on by itself mints other records at numbers that the cloud already
    /// has. Its chain may still contain the incarnation that the cloud knows, and only this comparison tells. A
    /// declared range proves nothing either way, and neither does a W of [`NO_EPOCH`].
    pub(super) fn verify(&mut self, entry: &Entry) -> Result<(), (Position, Epoch)> {
        let Some(w) = self.unverified else {
            return Ok(());
        };
        let (epoch, _, last) = range(entry);
        if last < w.seq {
            return Ok(());
        }
        // The first entry that reaches W either holds it or begins behind it, since W was trimmed in the meantime.
        self.unverified = None;
        match entry {
            Entry::Batch(batch) if batch.header.first <= w.seq && epoch != w.epoch && w.epoch != NO_EPOCH => {
                Err((w, epoch))
            }
            _ => {
                self.remember(w);
                Ok(())
            }
        }
    }

    /// Queues an entry. Returns the gaps that had to be declared before it.
    pub(super) fn take(&mut self, entry: Entry) -> Vec<Gap> {
        let (epoch, first, last) = range(&entry);
        if last < self.next {
            return Vec::new();
        }
        let gaps = if first > self.next {
            self.declare(epoch, Seq(first.0 - 1))
        } else {
            Vec::new()
        };
        let start = first.max(self.next);
        let epoch = epoch.max(self.epoch);
        let (frame, records) = match entry {
            Entry::Batch(batch) => {
                let records = batch.header.count;
                let sent_at = WallTime(0);
                (LaneFrame::Batch { sent_at, batch }, Some(records))
            }
            Entry::Gap(gap) => (
                LaneFrame::Gap(Gap {
                    epoch,
                    first: start,
                    ..gap
                }),
                None,
            ),
            Entry::Skip(skip) => (
                LaneFrame::Skip(Skip {
                    epoch,
                    first: start,
                    ..skip
                }),
                None,
            ),
        };
        self.queue_frame(&frame, epoch, last, records);
        gaps
    }

    /// Declares what lies below the log when nothing is held at all: no read will ever show where the hole ends.
    pub(super) fn declare_unheld(&mut self) -> Vec<Gap> {
        let bounds = self.bounds;
        if bounds.first < bounds.end || self.next >= bounds.end || self.reading.is_some() {
            return Vec::new();
        }
        self.declare(bounds.epoch, Seq(bounds.end.0 - 1))
    }

    /// Declares everything from `next` up to `last`: what the cloud had acknowledged and lost, and what is gone for
    /// another reason.
    fn declare(&mut self, epoch: Epoch, last: Seq) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let acked = self.bounds.acked.unwrap_or_default();
        let epoch = epoch.max(self.epoch);
        for (end, reason) in [(acked.min(last), DropReason::BeyondGrace), (last, DropReason::Trimmed)] {
            if self.next <= end {
                let gap = Gap {
                    epoch,
                    first: self.next,
                    last: end,
                    reason,
                };
                self.queue_frame(&LaneFrame::Gap(gap), epoch, end, None);
                gaps.push(gap);
            }
        }
        gaps
    }

    fn queue_frame(&mut self, frame: &LaneFrame, epoch: Epoch, last: Seq, records: Option<u32>) {
        let frame = frame.encode_vec();
        self.queued_bytes += cost(frame.len() as u64);
        self.queue.push_back(Queued { frame, last, records });
        self.next = last.next();
        self.epoch = epoch;
        // A read may see records of a commit whose end has not been reported yet.
        self.bounds.end = self.bounds.end.max(self.next);
    }

    /// The next frame, if the stream and the credit take it. The first of a connection names the lane.
    pub(super) fn poll_frame(
        &mut self,
        index: LaneIndex,
        credit: &mut CreditUse,
        wall: WallTime,
        stats: &mut SenderStats,
    ) -> Option<Bytes> {
        if self.blocked {
            return None;
        }
        let price = cost(self.queue.front()?.frame.len() as u64);
        if !credit.allows(price, self.in_flight_bytes) {
            return None;
        }
        if !self.started {
            self.started = true;
            return Some(LaneFrame::Start(index).encode());
        }
        let mut queued = self.queue.pop_front()?;
        self.queued_bytes -= price;
        credit.spend(price);
        self.in_flight_bytes += price;
        self.in_flight.push_back(InFlight {
            last: queued.last,
            cost: price,
        });
        self.unsent = queued.last.next();
        debug_assert!(
            self.unsent <= self.bounds.end,
            "I2: sent beyond the durable end of the log"
        );
        if let Some(records) = queued.records {
            queued.frame[SENT_AT].copy_from_slice(&wall.0.to_be_bytes());
            stats.records += u64::from(records);
        }
        stats.frames += 1;
        stats.bytes += queued.frame.len() as u64;
        Some(queued.frame.into())
    }
}

fn range(entry: &Entry) -> (Epoch, Seq, Seq) {
    match entry {
        Entry::Batch(batch) => (batch.header.epoch, batch.header.first, batch.last()),
        Entry::Gap(gap) => (gap.epoch, gap.first, gap.last),
        Entry::Skip(skip) => (skip.epoch, skip.first, skip.last),
    }
}
