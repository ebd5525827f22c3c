//! Record block: records encoded one behind the other, in one allocation.
//!
//! The currency between the parts of a node: the broker fills one per loop turn, the writer joins several into a record batch,
//! readers and the fan-out look into it without copying. The layout is drawn in `docs/format/record.md`.
//! A block knows nothing of positions, compression or checksums: those belong to the batch around it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use crate::{ClockQuality, Epoch, Origin, Properties, QoS, Record, Run, Seq, WallTime};

const FLAG_QOS: u8 = 0b0000_0011;
const FLAG_RETAIN: u8 = 0b0000_0100;
const FLAG_EXPIRY: u8 = 0b0000_1000;
const FLAG_PROPERTIES: u8 = 0b0001_0000;
const FLAG_ORIGIN: u8 = 0b0010_0000;
const FLAG_PATH: u8 = 0b0100_0000;

/// The shortest record: length, flags, clock, time, and two empty strings.
const RECORD_BYTES_MIN: usize = 6;

/// A block below this size is copied out of the builder, whose buffer then serves the next one.
const COPIED_OUT_MAX: usize = 128 << 10;

/// Bytes that do not decode as a record block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed record {index} in a record block")]
pub struct BlockError {
    /// Index of the first record that does not decode, is missing, or is one too many.
    pub index: u32,
}

/// Encoded, validated records. Cloning shares the bytes.
#[derive(Debug, Clone, Default)]
pub struct RecordBlock {
    bytes: Bytes,
    /// End of each record within `bytes`; rises strictly.
    ends: Arc<[u32]>,
}

impl RecordBlock {
    /// Decodes the layout of `bytes`, which come from flash or network, and validates every record.
    ///
    /// `count` is what the surrounding batch claims; bytes that hold more or fewer records are refused.
    pub fn parse(bytes: Bytes, count: u32) -> Result<Self, BlockError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut ends = Vec::with_capacity(count.min(bytes.len() / RECORD_BYTES_MIN + 1));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let index = ends.len() as u32;
            if ends.len() == count {
                return Err(BlockError { index });
            }
            let slot = take_bytes(&mut rest).ok_or(BlockError { index })?;
            let record = decode(slot).ok_or(BlockError { index })?;
            Properties::parse(record.properties.as_bytes()).map_err(|_| BlockError { index })?;
            let end = u32::try_from(bytes.len() - rest.len()).map_err(|_| BlockError { index })?;
            ends.push(end);
        }
        if ends.len() != count {
            return Err(BlockError {
                index: ends.len() as u32,
            });
        }
        Ok(Self {
            bytes,
            ends: ends.into(),
        })
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The encoded records, as the body of a batch holds them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The record at `index`. Panics when there is none.
    #[must_use]
    pub fn get(&self, index: usize) -> Record<'_> {
        decode(self.slot(index)).expect("a record block is validated when it is made")
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Encoded size of the record at `index`. Panics when there is none.
    #[must_use]
    pub fn record_len(&self, index: usize) -> usize {
        self.ends[index] as usize - self.start(index)
    }

    /// The records of `range` as a block of their own, which shares the bytes. Panics when `range` is out of bounds.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let ends = &self.ends[range.clone()];
        let start = self.start(range.start);
        let end = ends.last().map_or(start, |&end| end as usize);
        Self {
            bytes: self.bytes.slice(start..end),
            ends: ends.iter().map(|&end| end - start as u32).collect(),
        }
    }

    /// When the first of the records expires, by the clock of the node that stamped them. While the quality of that clock was
    /// unknown a record does not expire. Looks only into records that have an expiry.
    #[must_use]
    pub fn earliest_expiry(&self) -> Option<WallTime> {
        (0..self.len())
            .filter(|&index| self.slot(index).first().is_some_and(|flags| flags & FLAG_EXPIRY != 0))
            .filter_map(|index| self.get(index).expires_at())
            .min()
    }

    /// Joins blocks into one, in order. One block is handed back without a copy.
    #[must_use]
    pub fn concat(blocks: &[RecordBlock]) -> Self {
        if let [only] = blocks {
            return only.clone();
        }
        let mut bytes = Vec::with_capacity(blocks.iter().map(|b| b.bytes.len()).sum());
        let mut ends = Vec::with_capacity(blocks.iter().map(RecordBlock::len).sum());
        for block in blocks {
            let base = block_len(&bytes);
            bytes.extend_from_slice(&block.bytes);
            block_len(&bytes);
            ends.extend(block.ends.iter().map(|end| base + end));
        }
        Self {
            bytes: bytes.into(),
            ends: ends.into(),
        }
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    /// The record at `index` without its length prefix.
    fn slot(&self, index: usize) -> &[u8] {
        let mut slot = &self.bytes[self.start(index)..self.ends[index] as usize];
        take_bytes(&mut slot).expect("a record block is validated when it is made")
    }
}

/// Fills record blocks, one after the other. At most `u32::MAX` bytes each; the limits of packet and batch lie far below.
///
/// Its buffers are kept from block to block, so that a steady flow allocates twice per block and never per record.
#[derive(Debug, Default)]
pub struct RecordBlockBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    scratch: Vec<u8>,
}

impl RecordBlockBuilder {
    /// A builder with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Appends one record.
    pub fn push(&mut self, record: &Record<'_>) {
        self.scratch.clear();
        encode(&mut self.scratch, record);
        let tail = record.payload.len();
        put_u64(&mut self.bytes, (self.scratch.len() + tail) as u64);
        self.bytes.extend_from_slice(&self.scratch);
        self.bytes.extend_from_slice(record.payload);
        self.ends.push(block_len(&self.bytes));
    }

    /// Number of records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Encoded bytes so far.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Closes the block and leaves the builder empty, ready for the next.
    ///
    /// The block takes no more memory than its bytes: small ones are copied out, large ones are handed over.
    pub fn finish(&mut self) -> RecordBlock {
        let bytes = if self.bytes.len() < COPIED_OUT_MAX {
            let bytes = Bytes::copy_from_slice(&self.bytes);
            self.bytes.clear();
            self.bytes.shrink_to(COPIED_OUT_MAX);
            bytes
        } else {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.shrink_to_fit();
            bytes.into()
        };
        let ends = Arc::from(self.ends.as_slice());
        self.ends.clear();
        self.ends.shrink_to(COPIED_OUT_MAX / RECORD_BYTES_MIN);
        self.scratch.shrink_to(COPIED_OUT_MAX);
        RecordBlock { bytes, ends }
    }
}

/// Size of a block as the index counts it.
fn block_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a record block stays below 4 GiB")
}

/// Encodes all of the record but its payload, which is the tail of the slot.
fn encode(out: &mut Vec<u8>, record: &Record<'_>) {
    let mut flags = record.qos as u8;
    for (flag, set) in [
        (FLAG_RETAIN, record.retain),
        (FLAG_EXPIRY, record.expiry_secs.is_some()),
        (FLAG_PROPERTIES, !record.properties.is_empty()),
        (FLAG_ORIGIN, record.origin.is_some()),
        (FLAG_PATH, !record.path.is_empty()),
    ] {
        flags |= if set { flag } else { 0 };
    }
    out.push(flags);
    out.push(record.clock as u8);
    put_u64(out, record.accepted_at.0);
    put_bytes(out, record.device.as_bytes());
    put_bytes(out, record.topic.as_bytes());
    if let Some(secs) = record.expiry_secs {
        put_u64(out, u64::from(secs));
    }
    if !record.properties.is_empty() {
        put_bytes(out, record.properties.as_bytes());
    }
    if let Some(origin) = &record.origin {
        put_bytes(out, origin.edge.as_bytes());
        put_u64(out, u64::from(origin.instance));
        put_bytes(out, origin.lane.as_bytes());
        put_u64(out, u64::from(origin.run.0));
        put_u64(out, u64::from(origin.epoch.0));
        put_u64(out, origin.seq.0);
    }
    if !record.path.is_empty() {
        put_bytes(out, record.path.as_bytes());
    }
}

/// Decodes all but the property block, which is handed out unchecked: [`RecordBlock::parse`] checks it once, the builder's is valid.
fn decode(slot: &[u8]) -> Option<Record<'_>> {
    let (&[flags, clock], mut rest) = slot.split_first_chunk::<2>()?;
    let rest = &mut rest;
    if flags & 0b1000_0000 != 0 {
        return None;
    }
    let has = |flag: u8| flags & flag != 0;
    let accepted_at = WallTime(take_u64(rest)?);
    let device = take_str(rest)?;
    let topic = take_str(rest)?;
    let expiry_secs = if has(FLAG_EXPIRY) { Some(take_u32(rest)?) } else { None };
    let properties = if has(FLAG_PROPERTIES) {
        Properties::trusted(take_bytes(rest)?)
    } else {
        Properties::default()
    };
    let origin = if has(FLAG_ORIGIN) {
        Some(take_origin(rest)?)
    } else {
        None
    };
    let path = if has(FLAG_PATH) { take_str(rest)? } else { "" };
    Some(Record {
        device,
        topic,
        payload: rest,
        qos: QoS::from_u8(flags & FLAG_QOS)?,
        retain: has(FLAG_RETAIN),
        properties,
        accepted_at,
        clock: ClockQuality::from_u8(clock)?,
        expiry_secs,
        origin,
        path,
    })
}

fn take_origin<'a>(rest: &mut &'a [u8]) -> Option<Origin<'a>> {
    Some(Origin {
        edge: take_str(rest)?,
        instance: take_u32(rest)?,
        lane: take_str(rest)?,
        run: Run(u16::try_from(take_u64(rest)?).ok()?),
        epoch: Epoch(take_u32(rest)?),
        seq: Seq(take_u64(rest)?),
    })
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

#[cfg(test)]
mod tests;
