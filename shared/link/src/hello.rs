//! The greeting: who the edge is and what it holds, and what the cloud already has of it.
//!
//! Out of the edge: a [`Hello`], the first frame of a connection. Back: a [`Welcome`], or a refusal.
//! Lists are bounded at decoding; whether they make sense together is decided in [`admission`](crate::admission).

use fellbeck_core::incarnation::{INCARNATION_BYTES, Incarnation};
use fellbeck_core::limits::{CHAIN_MAX, NAME_BYTES_MAX};
use fellbeck_core::varint::{put_u64, take_u32, take_u64};
use fellbeck_core::{ClockQuality, Epoch, Position, Run, Seq, WallTime};

use crate::limits::LANES_MAX;
use crate::wire::{
    put_fixed, put_position, put_text, take_count, take_epoch, take_flag, take_id, take_position, take_run, take_seq,
    take_text, take_u8, take_wall,
};

/// What kind of node opens the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NodeKind {
    /// An edge that forwards its lanes.
    Edge = 1,
}

/// What the edge holds of one lane and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHello {
    /// Name of the lane.
    pub lane: String,
    /// Run within it.
    pub run: Run,
    /// Epoch that the next record will have.
    pub epoch: Epoch,
    /// First record still held; equals `end` when nothing is.
    pub first: Seq,
    /// Sequence number that the next record will have; 1: nothing was ever minted.
    pub end: Seq,
    /// W as the edge last knew it. The epoch is not needed: a sequence number never restarts within a lane and run.
    pub acked: Option<Seq>,
}

/// First frame of a connection, edge to cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Name of the edge; must be the one of its certificate.
    pub edge: String,
    /// Instance that the cloud last told it; 0 before the first Welcome.
    pub instance: u32,
    /// Kind of node.
    pub kind: NodeKind,
    /// The last incarnations of the edge's store, oldest first; the last one is running.
    pub chain: Vec<Incarnation>,
    /// Log of the cloud that it last spoke to.
    pub log_id: Option<[u8; 16]>,
    /// All lanes and runs, in the order by which they are numbered on this connection.
    pub lanes: Vec<LaneHello>,
    /// The edge's clock.
    pub now: WallTime,
    /// What the edge knows of that clock.
    pub clock: ClockQuality,
}

/// What the cloud has of one lane and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneWelcome {
    /// W: everything up to here is durable, known or declared. `None`: nothing yet, the first record expected is 1.
    pub w: Option<Position>,
}

/// Answer to a Hello that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Identity of the cloud's log.
    pub log_id: [u8; 16],
    /// Instance under which the cloud knows this edge; the edge shows it in the next Hello.
    pub instance: u32,
    /// The cloud's clock.
    pub now: WallTime,
    /// One entry per lane of the Hello, in its order.
    pub lanes: Vec<LaneWelcome>,
    /// Bytes of lane frames that may be sent before the first [`Credit`](crate::ControlFrame::Credit).
    pub credit: u64,
    /// Bytes that each lane may have in flight even when the credit of the link is used up.
    pub lane_credit: u64,
    /// Set for an empty store under a known name: continue in this epoch, each lane above its W, then say Hello again.
    pub adopt: Option<Epoch>,
}

impl Hello {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.edge);
        put_u64(out, u64::from(self.instance));
        out.push(self.kind as u8);
        put_u64(out, self.chain.len() as u64);
        for incarnation in &self.chain {
            out.extend_from_slice(&incarnation.encode());
        }
        put_optional_id(out, self.log_id);
        put_u64(out, self.lanes.len() as u64);
        for lane in &self.lanes {
            lane.put(out);
        }
        put_fixed(out, self.now.0);
        out.push(self.clock as u8);
    }

    pub(crate) fn take(input: &mut &[u8]) -> Option<Self> {
        let edge = take_text(input, NAME_BYTES_MAX)?.to_owned();
        let instance = take_u32(input)?;
        let NodeKind::Edge = take_kind(input)?;
        let count = take_count(input, CHAIN_MAX)?;
        let chain = (0..count).map(|_| take_incarnation(input)).collect::<Option<_>>()?;
        let log_id = take_optional_id(input)?;
        let count = take_count(input, LANES_MAX)?;
        let lanes = (0..count).map(|_| LaneHello::take(input)).collect::<Option<_>>()?;
        Some(Self {
            edge,
            instance,
            kind: NodeKind::Edge,
            chain,
            log_id,
            lanes,
            now: take_wall(input)?,
            clock: ClockQuality::from_u8(take_u8(input)?)?,
        })
    }
}

impl LaneHello {
    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.lane);
        put_u64(out, u64::from(self.run.0));
        put_u64(out, u64::from(self.epoch.0));
        put_u64(out, self.first.0);
        put_u64(out, self.end.0);
        out.push(u8::from(self.acked.is_some()));
        if let Some(acked) = self.acked {
            put_u64(out, acked.0);
        }
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            lane: take_text(input, NAME_BYTES_MAX)?.to_owned(),
            run: take_run(input)?,
            epoch: take_epoch(input)?,
            first: take_seq(input)?,
            end: take_seq(input)?,
            acked: if take_flag(input)? {
                Some(take_seq(input)?)
            } else {
                None
            },
        })
    }
}

impl Welcome {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.log_id);
        put_u64(out, u64::from(self.instance));
        put_fixed(out, self.now.0);
        put_u64(out, self.lanes.len() as u64);
        for lane in &self.lanes {
            out.push(u8::from(lane.w.is_some()));
            if let Some(w) = lane.w {
                put_position(out, w);
            }
        }
        put_u64(out, self.credit);
        put_u64(out, self.lane_credit);
        out.push(u8::from(self.adopt.is_some()));
        if let Some(epoch) = self.adopt {
            put_u64(out, u64::from(epoch.0));
        }
    }

    pub(crate) fn take(input: &mut &[u8]) -> Option<Self> {
        let log_id = take_id(input)?;
        let instance = take_u32(input)?;
        let now = take_wall(input)?;
        let count = take_count(input, LANES_MAX)?;
        let lanes = (0..count).map(|_| take_lane_welcome(input)).collect::<Option<_>>()?;
        Some(Self {
            log_id,
            instance,
            now,
            lanes,
            credit: take_u64(input)?,
            lane_credit: take_u64(input)?,
            adopt: if take_flag(input)? {
                Some(take_epoch(input)?)
            } else {
                None
            },
        })
    }
}

fn take_lane_welcome(input: &mut &[u8]) -> Option<LaneWelcome> {
    let w = if take_flag(input)? {
        Some(take_position(input)?)
    } else {
        None
    };
    Some(LaneWelcome { w })
}

fn take_kind(input: &mut &[u8]) -> Option<NodeKind> {
    (take_u8(input)? == NodeKind::Edge as u8).then_some(NodeKind::Edge)
}

fn take_incarnation(input: &mut &[u8]) -> Option<Incarnation> {
    let (bytes, rest) = input.split_first_chunk::<INCARNATION_BYTES>()?;
    *input = rest;
    Some(Incarnation::decode(bytes))
}

fn put_optional_id(out: &mut Vec<u8>, id: Option<[u8; 16]>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        out.extend_from_slice(&id);
    }
}

fn take_optional_id(input: &mut &[u8]) -> Option<Option<[u8; 16]>> {
    if take_flag(input)? {
        take_id(input).map(Some)
    } else {
        Some(None)
    }
}
