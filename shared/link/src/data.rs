//! Frames of a lane stream: record batches in sequence order, and what is declared missing between them.
//!
//! In and out: one frame. A lane stream begins with a LaneStart and then carries only the entries of that lane,
//! without a hole. The batch is the one of the edge's store, byte for byte; its checksum is verified at decoding, its
//! body is not opened here.

use bytes::Bytes;
use fellbeck_core::batch::Batch;
use fellbeck_core::ledger::DropReason;
use fellbeck_core::varint::put_u64;
use fellbeck_core::{Epoch, Seq, WallTime};

use crate::LaneIndex;
use crate::frame::{BatchFault, FrameError, RawFrame, begin, finish};
use crate::limits::{EPOCH_MAX, PREFIX, SEQ_MAX};
use crate::wire::{put_fixed, take_epoch, take_lane, take_seq, take_u8, take_wall};

/// Type of [`LaneFrame::Start`].
pub const LANE_START: u8 = 0x20;
/// Type of [`LaneFrame::Batch`].
pub const BATCH: u8 = 0x21;
/// Type of [`LaneFrame::Gap`].
pub const GAP: u8 = 0x22;
/// Type of [`LaneFrame::Skip`].
pub const SKIP: u8 = 0x23;

/// Where the sender's time stands in an encoded batch frame, so that it can be set when the frame leaves.
pub(crate) const SENT_AT: std::ops::Range<usize> = PREFIX + 1..PREFIX + 9;

/// Records that exist nowhere any more. Stored once by the cloud, in `fellbeck.gaps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Epoch of the last position in the range, as far as it is known.
    pub epoch: Epoch,
    /// First missing record.
    pub first: Seq,
    /// Last missing record.
    pub last: Seq,
    /// What took them.
    pub reason: DropReason,
}

/// Records that expired before they could be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip {
    /// Epoch that minted them.
    pub epoch: Epoch,
    /// First expired record.
    pub first: Seq,
    /// Last expired record.
    pub last: Seq,
}

/// One frame of a lane stream.
#[derive(Debug, Clone)]
pub enum LaneFrame {
    /// First frame of the stream: the lane that it carries, by its place in the Hello.
    Start(LaneIndex),
    /// Records.
    Batch {
        /// The edge's clock when the frame left; the cloud restamps by it.
        sent_at: WallTime,
        /// As the edge stored it.
        batch: Batch,
    },
    /// A declared hole.
    Gap(Gap),
    /// A declared hole by expiry.
    Skip(Skip),
}

impl LaneFrame {
    /// Decodes a frame of a lane stream.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let malformed = FrameError::Malformed { kind: raw.kind };
        let mut rest = &raw.body[..];
        let frame = match raw.kind {
            LANE_START => take_lane(&mut rest).map(Self::Start),
            BATCH => return take_batch(&raw.body),
            GAP => take_gap(&mut rest).map(Self::Gap),
            SKIP => take_skip(&mut rest).map(Self::Skip),
            kind => return Err(FrameError::UnknownType { kind }),
        };
        frame.filter(|_| rest.is_empty()).ok_or(malformed)
    }

    /// The frame with its length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encode_vec().into()
    }

    /// As [`encode`](Self::encode), still open to the change of its [`SENT_AT`].
    pub(crate) fn encode_vec(&self) -> Vec<u8> {
        match self {
            Self::Start(lane) => {
                let mut out = begin(LANE_START, 2);
                put_u64(&mut out, u64::from(lane.0));
                finish(out)
            }
            Self::Batch { sent_at, batch } => {
                let mut out = begin(BATCH, 8 + 64 + batch.body.len());
                put_fixed(&mut out, sent_at.0);
                batch.encode_into(&mut out);
                finish(out)
            }
            Self::Gap(gap) => {
                let mut out = begin(GAP, 32);
                put_range(&mut out, gap.epoch, gap.first, gap.last);
                out.push(gap.reason as u8);
                finish(out)
            }
            Self::Skip(skip) => {
                let mut out = begin(SKIP, 32);
                put_range(&mut out, skip.epoch, skip.first, skip.last);
                finish(out)
            }
        }
    }
}

fn take_batch(body: &Bytes) -> Result<LaneFrame, FrameError> {
    let mut rest = &body[..];
    let sent_at = take_wall(&mut rest).ok_or(FrameError::Malformed { kind: BATCH })?;
    let bytes = body.slice(body.len() - rest.len()..);
    let batch = Batch::parse(bytes).map_err(|_| FrameError::Batch(BatchFault::Parse))?;
    let header = &batch.header;
    let end = header.first.0.checked_add(u64::from(header.count));
    let range_is_sound =
        header.count > 0 && header.first.0 > 0 && end.is_some_and(|end| end <= SEQ_MAX) && header.epoch.0 <= EPOCH_MAX;
    if !range_is_sound {
        return Err(FrameError::Batch(BatchFault::Range));
    }
    Ok(LaneFrame::Batch { sent_at, batch })
}

fn put_range(out: &mut Vec<u8>, epoch: Epoch, first: Seq, last: Seq) {
    put_u64(out, u64::from(epoch.0));
    put_u64(out, first.0);
    put_u64(out, last.0);
}

fn take_range(input: &mut &[u8]) -> Option<(Epoch, Seq, Seq)> {
    let range = (take_epoch(input)?, take_seq(input)?, take_seq(input)?);
    (range.1.0 > 0 && range.1 <= range.2).then_some(range)
}

fn take_gap(input: &mut &[u8]) -> Option<Gap> {
    let (epoch, first, last) = take_range(input)?;
    let reason = DropReason::from_u8(take_u8(input)?)?;
    Some(Gap {
        epoch,
        first,
        last,
        reason,
    })
}

fn take_skip(input: &mut &[u8]) -> Option<Skip> {
    let (epoch, first, last) = take_range(input)?;
    Some(Skip { epoch, first, last })
}
