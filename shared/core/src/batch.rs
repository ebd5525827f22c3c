//! Sealed record batch: what an edge stores as one value, and what the link carries unchanged.
//!
//! In: a record block and its first position. Out: a header of fixed size and a body, raw or zstd, under one checksum.
//! The layout is drawn in `docs/format/batch.md`. A parsed batch is whole, yet its body is unopened:
//! [`Batch::open`] bounds and validates it. Which track it belongs to is said by its surroundings.

use std::ops::RangeInclusive;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::compression::{compressed, decompress};
use crate::{BlockError, Epoch, RecordBlock, Seq, WallTime};

/// Bytes before the body.
pub const BATCH_HEADER_BYTES: usize = 48;

const VERSION: u8 = 1;
const FLAG_EXPIRY: u16 = 1;
const CHECKSUM_BYTES: usize = 8;

/// A single record below this size is not worth compressing.
const COMPRESS_ONE_MIN: usize = 1024;

/// Bytes that are not a batch, or one that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Shorter than a header, or not as long as the header says.
    #[error("batch of {size} bytes is cut short or too long")]
    Length {
        /// Size in bytes.
        size: usize,
    },
    /// Written by a later version.
    #[error("batch of unknown version {0}")]
    Version(u8),
    /// A bit has changed since it was sealed.
    #[error("batch checksum does not match")]
    Checksum,
    /// The checksum holds, but a header field makes no sense: a faulty or hostile sealer.
    #[error("batch header is inconsistent")]
    Header,
    /// Opening would take more memory than allowed. Nothing was allocated.
    #[error("batch of {raw_len} raw bytes exceeds {raw_max}")]
    TooLarge {
        /// Raw size by the header.
        raw_len: u32,
        /// Bound given to `open`.
        raw_max: usize,
    },
    /// The body is not the zstd frame that the header promises.
    #[error("batch body does not decompress")]
    Compression,
    /// The body holds something else than the promised records.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// How the body of a batch is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The record block as it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// Header of a batch: what is known without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Encoding of the body.
    pub codec: Codec,
    /// Incarnation that minted the records.
    pub epoch: Epoch,
    /// Sequence number of the first record; the others follow without a hole.
    pub first: Seq,
    /// Number of records, at least 1.
    pub count: u32,
    /// Size of the record block.
    pub raw_len: u32,
    /// When the first of the records expires, by the clock of the node that sealed it; `None` when none does.
    pub earliest_expiry: Option<WallTime>,
}

/// A sealed batch. Cloning shares the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What it holds.
    pub header: BatchHeader,
    /// The record block, encoded as the header says.
    pub body: Bytes,
}

impl Batch {
    /// Seals `block`, whose first record gets the sequence number `first`.
    ///
    /// Compresses where there are several records or a large one, and where that makes it smaller by the ratio 1.1.
    /// Panics on an empty block: a batch without records has no position.
    #[must_use]
    pub fn seal(epoch: Epoch, first: Seq, block: &RecordBlock) -> Self {
        assert!(!block.is_empty(), "a batch holds at least one record");
        let raw = block.bytes();
        let packed = if block.len() > 1 || raw.len() >= COMPRESS_ONE_MIN {
            compressed(raw, Bytes::copy_from_slice)
        } else {
            None
        };
        Self {
            header: BatchHeader {
                codec: if packed.is_some() { Codec::Zstd } else { Codec::Raw },
                epoch,
                first,
                count: u32::try_from(block.len()).expect("a record block stays below 4 GiB"),
                raw_len: u32::try_from(raw.len()).expect("a record block stays below 4 GiB"),
                earliest_expiry: block.earliest_expiry(),
            },
            body: packed.unwrap_or_else(|| raw.clone()),
        }
    }

    /// Size of [`encode`](Self::encode)'s result.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        BATCH_HEADER_BYTES + self.body.len()
    }

    /// Header, checksum and body in one piece.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut out);
        out.into()
    }

    /// Appends what [`encode`](Self::encode) returns.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let header = &self.header;
        let (flags, expiry) = header.earliest_expiry.map_or((0, 0), |at| (FLAG_EXPIRY, at.0));
        let body_len = u32::try_from(self.body.len()).expect("a batch stays below 4 GiB");
        let start = out.len();
        out.reserve(self.encoded_len());
        out.extend_from_slice(&[0; CHECKSUM_BYTES]);
        out.extend_from_slice(&[VERSION, header.codec as u8]);
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&header.epoch.0.to_be_bytes());
        out.extend_from_slice(&header.first.0.to_be_bytes());
        out.extend_from_slice(&header.count.to_be_bytes());
        out.extend_from_slice(&header.raw_len.to_be_bytes());
        out.extend_from_slice(&expiry.to_be_bytes());
        out.extend_from_slice(&body_len.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        debug_assert_eq!(out.len() - start, BATCH_HEADER_BYTES, "the header has its drawn size");
        out.extend_from_slice(&self.body);
        let checksum = xxh3_64(&out[start + CHECKSUM_BYTES..]);
        out[start..start + CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Checks version, checksum and header of one whole encoded batch. The body shares `bytes`.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let size = bytes.len();
        let mut fields = bytes.get(..BATCH_HEADER_BYTES).ok_or(BatchError::Length { size })?;
        let fields = &mut fields;
        let checksum = u64::from_be_bytes(take(fields));
        let [version, codec] = take(fields);
        if version != VERSION {
            return Err(BatchError::Version(version));
        }
        if checksum != xxh3_64(&bytes[CHECKSUM_BYTES..]) {
            return Err(BatchError::Checksum);
        }
        let flags = u16::from_be_bytes(take(fields));
        let epoch = Epoch(u32::from_be_bytes(take(fields)));
        let first = Seq(u64::from_be_bytes(take(fields)));
        let count = u32::from_be_bytes(take(fields));
        let raw_len = u32::from_be_bytes(take(fields));
        let expiry = WallTime(u64::from_be_bytes(take(fields)));
        let body_len = u32::from_be_bytes(take(fields));
        let reserved: [u8; 4] = take(fields);
        if BATCH_HEADER_BYTES as u64 + u64::from(body_len) != size as u64 {
            return Err(BatchError::Length { size });
        }
        let codec = match codec {
            0 if body_len == raw_len => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(BatchError::Header),
        };
        let has_end = first.0.checked_add(u64::from(count)).is_some();
        let known = flags & !FLAG_EXPIRY == 0 && reserved == [0; 4] && (flags != 0 || expiry.0 == 0);
        if count == 0 || !has_end || !known {
            return Err(BatchError::Header);
        }
        Ok(Self {
            header: BatchHeader {
                codec,
                epoch,
                first,
                count,
                raw_len,
                earliest_expiry: (flags & FLAG_EXPIRY != 0).then_some(expiry),
            },
            body: bytes.slice(BATCH_HEADER_BYTES..),
        })
    }

    /// Decompresses and validates the records. Allocates at most about `raw_max` bytes, and 4 bytes per record.
    pub fn open(&self, raw_max: usize) -> Result<RecordBlock, BatchError> {
        let raw_len = self.header.raw_len;
        let size = usize::try_from(raw_len).unwrap_or(usize::MAX);
        if size > raw_max {
            return Err(BatchError::TooLarge { raw_len, raw_max });
        }
        let raw = match self.header.codec {
            Codec::Raw => self.body.clone(),
            Codec::Zstd => decompress(&self.body, size).ok_or(BatchError::Compression)?.into(),
        };
        Ok(RecordBlock::parse(raw, self.header.count)?)
    }

    /// Sequence number of the last record.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.header.first.0 + u64::from(self.header.count) - 1)
    }

    /// Sequence numbers of the records.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<Seq> {
        self.header.first..=self.last()
    }
}

/// Takes a field off a slice that holds the whole header.
fn take<const N: usize>(fields: &mut &[u8]) -> [u8; N] {
    let (field, rest) = fields
        .split_first_chunk::<N>()
        .expect("the header holds all its fields");
    *fields = rest;
    *field
}

#[cfg(test)]
mod tests;
