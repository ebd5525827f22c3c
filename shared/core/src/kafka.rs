//! Kafka v2 record batch: how the cloud stores records, so that a Kafka fetch is a slice of the log.
//!
//! In: a record block with its base offset and commit number. Out: one batch in Kafka's own format, and back.
//! Key = device, value = payload, timestamp = accepted_at; all else is in headers, drawn in `docs/format/kafka.md`.
//! CRC32C covers everything but base offset and leader epoch, which may be patched.
//! Reads what this module writes: batches of foreign producers are re-encoded by the endpoint that accepts them.

use bytes::Bytes;

use crate::compression::{claimed_size, compressed, decompress};
use crate::{CommitNumber, Offset, RecordBlock, RecordBlockBuilder};

mod headers;
mod record;
mod zigzag;

use record::{Shared, put_record, take_record};

/// Bytes before the records.
pub const KAFKA_HEADER_BYTES: usize = 61;

/// How much larger than its record block the records section may be: header names are spelled out in each record.
pub const SECTION_FACTOR: usize = 16;

const MAGIC: u8 = 2;
/// Base offset and batch length, which the length does not count.
const LENGTH_COUNTS_FROM: usize = 12;
/// The CRC covers everything from the attributes on.
const CRC_COVERS_FROM: usize = 21;
const NO_LEADER_EPOCH: i32 = -1;
const COMPRESSION_MASK: i16 = 0b111;
const COMPRESSION_ZSTD: i16 = 4;

/// Bytes that are not a Kafka batch as this module writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// Shorter than a header, or not as long as the header says.
    #[error("Kafka batch of {size} bytes is cut short or too long")]
    Length {
        /// Size in bytes.
        size: usize,
    },
    /// Another generation of the format.
    #[error("Kafka batch of magic {0}")]
    Magic(u8),
    /// A bit has changed since it was written.
    #[error("Kafka batch checksum does not match")]
    Checksum,
    /// Compression other than zstd, a transaction, a control batch, or counts that contradict one another.
    #[error("Kafka batch header is inconsistent or of a kind that is never stored")]
    Header,
    /// Decoding would take more memory than allowed.
    #[error("Kafka batch exceeds {raw_max} raw bytes")]
    TooLarge {
        /// Bound given to `decode`.
        raw_max: usize,
    },
    /// The records section is not the zstd frame that the attributes promise.
    #[error("Kafka batch does not decompress")]
    Compression,
    /// A record does not decode, or there are more or fewer than promised.
    #[error("malformed record {index} in a Kafka batch")]
    Record {
        /// Index of the record.
        index: u32,
    },
}

/// A decoded batch.
#[derive(Debug, Clone)]
pub struct KafkaBatch {
    /// Offset of the first record; the others follow without a hole.
    pub base: Offset,
    /// Commit that wrote the batch.
    pub commit: CommitNumber,
    /// The records.
    pub block: RecordBlock,
}

/// What the header of a batch says, without a look at the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KafkaHeader {
    /// Offset of the first record.
    pub base: Offset,
    /// Number of records, at least 1.
    pub count: u32,
    /// Timestamp of the first record in milliseconds.
    pub base_timestamp: i64,
    /// Largest timestamp.
    pub max_timestamp: i64,
    /// CRC32C as stored.
    crc: u32,
    compressed: bool,
}

impl KafkaHeader {
    /// Offset of the last record.
    #[must_use]
    pub fn last(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count) - 1)
    }
}

/// Encodes `block` as the batch at `base`, zstd where that makes it smaller by the ratio 1.1.
///
/// Panics on an empty block, or one beyond 2 GiB: the bound on a batch lies far below.
#[must_use]
pub fn encode(block: &RecordBlock, base: Offset, commit: CommitNumber) -> Bytes {
    assert!(!block.is_empty(), "a Kafka batch holds at least one record");
    let base_timestamp = block.get(0).accepted_at.0 as i64;
    let mut max_timestamp = base_timestamp;
    let mut section = Vec::with_capacity(block.bytes().len() + block.len() * record::HEADER_BYTES_TYPICAL);
    let mut scratch = Vec::with_capacity(512);
    for (index, record) in block.iter().enumerate() {
        max_timestamp = max_timestamp.max(record.accepted_at.0 as i64);
        let shared = Shared {
            base_timestamp,
            commit,
            index: index as u32,
        };
        put_record(&mut section, &mut scratch, &record, shared);
    }
    let count = i32::try_from(block.len()).expect("a batch holds fewer than 2^31 records");
    let head = |attributes: i16, section: &[u8]| {
        let mut out = Vec::with_capacity(KAFKA_HEADER_BYTES + section.len());
        let length = i32::try_from(KAFKA_HEADER_BYTES - LENGTH_COUNTS_FROM + section.len());
        out.extend_from_slice(&base.0.to_be_bytes());
        out.extend_from_slice(&length.expect("a batch stays below 2 GiB").to_be_bytes());
        out.extend_from_slice(&NO_LEADER_EPOCH.to_be_bytes());
        out.push(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&attributes.to_be_bytes());
        out.extend_from_slice(&(count - 1).to_be_bytes());
        out.extend_from_slice(&base_timestamp.to_be_bytes());
        out.extend_from_slice(&max_timestamp.to_be_bytes());
        // No idempotent producer: id, epoch and sequence are -1.
        out.extend_from_slice(&[0xff; 8 + 2 + 4]);
        out.extend_from_slice(&count.to_be_bytes());
        debug_assert_eq!(out.len(), KAFKA_HEADER_BYTES, "the header has Kafka's size");
        out.extend_from_slice(section);
        let crc = crc32c::crc32c(&out[CRC_COVERS_FROM..]);
        out[CRC_COVERS_FROM - 4..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(out)
    };
    compressed(&section, |packed| head(COMPRESSION_ZSTD, packed)).unwrap_or_else(|| head(0, &section))
}

/// Moves an encoded batch to another base offset. The CRC does not cover it.
pub fn patch_base_offset(batch: &mut [u8], base: Offset) -> Result<(), KafkaError> {
    let size = batch.len();
    let field = batch.first_chunk_mut::<8>().ok_or(KafkaError::Length { size })?;
    *field = base.0.to_be_bytes();
    Ok(())
}

/// Reads the header of one whole batch. Checks everything but the CRC and the records.
pub fn read_header(bytes: &[u8]) -> Result<KafkaHeader, KafkaError> {
    let size = bytes.len();
    let mut fields = bytes.get(..KAFKA_HEADER_BYTES).ok_or(KafkaError::Length { size })?;
    let fields = &mut fields;
    let base = u64::from_be_bytes(take(fields));
    let length = i32::from_be_bytes(take(fields));
    let _leader_epoch: [u8; 4] = take(fields);
    let [magic] = take(fields);
    if magic != MAGIC {
        return Err(KafkaError::Magic(magic));
    }
    if i64::from(length) != (size - LENGTH_COUNTS_FROM) as i64 {
        return Err(KafkaError::Length { size });
    }
    let crc = u32::from_be_bytes(take(fields));
    let attributes = i16::from_be_bytes(take(fields));
    let last_delta = i32::from_be_bytes(take(fields));
    let base_timestamp = i64::from_be_bytes(take(fields));
    let max_timestamp = i64::from_be_bytes(take(fields));
    let producer: [u8; 14] = take(fields);
    let count = i32::from_be_bytes(take(fields));
    let compression = attributes & COMPRESSION_MASK;
    let plain = attributes & !COMPRESSION_MASK == 0 && matches!(compression, 0 | COMPRESSION_ZSTD);
    let counted = count > 0 && last_delta == count - 1;
    let has_end = i64::try_from(base).is_ok_and(|base| base.checked_add(i64::from(count)).is_some());
    if !plain || !counted || !has_end || producer != [0xff; 14] {
        return Err(KafkaError::Header);
    }
    Ok(KafkaHeader {
        base: Offset(base),
        count: count.unsigned_abs(),
        base_timestamp,
        max_timestamp,
        crc,
        compressed: compression == COMPRESSION_ZSTD,
    })
}

/// Decodes one whole batch.
///
/// `raw_max` bounds the record block. The records section, which is larger, may take [`SECTION_FACTOR`] times as much meanwhile.
pub fn decode(bytes: &Bytes, raw_max: usize) -> Result<KafkaBatch, KafkaError> {
    let header = read_header(bytes)?;
    if header.crc != crc32c::crc32c(&bytes[CRC_COVERS_FROM..]) {
        return Err(KafkaError::Checksum);
    }
    let stored = &bytes[KAFKA_HEADER_BYTES..];
    let section_max = raw_max.saturating_mul(SECTION_FACTOR);
    let unpacked;
    let section = if header.compressed {
        let size = claimed_size(stored).ok_or(KafkaError::Compression)?;
        let size = usize::try_from(size).ok().filter(|&size| size <= section_max);
        unpacked = decompress(stored, size.ok_or(KafkaError::TooLarge { raw_max })?).ok_or(KafkaError::Compression)?;
        &unpacked
    } else {
        stored
    };
    let (commit, block) = take_section(section, &header, raw_max)?;
    Ok(KafkaBatch {
        base: header.base,
        commit,
        block,
    })
}

fn take_section(
    section: &[u8],
    header: &KafkaHeader,
    raw_max: usize,
) -> Result<(CommitNumber, RecordBlock), KafkaError> {
    let mut builder = RecordBlockBuilder::with_capacity(section.len().min(raw_max));
    let mut properties = Vec::new();
    let mut commit = None;
    let mut rest = section;
    let mut max_timestamp = header.base_timestamp;
    for index in 0..header.count {
        let malformed = KafkaError::Record { index };
        let taken = take_record(&mut rest, header.base_timestamp, index, &mut properties).ok_or(malformed)?;
        if *commit.get_or_insert(taken.commit) != taken.commit {
            return Err(malformed);
        }
        max_timestamp = max_timestamp.max(taken.record.accepted_at.0 as i64);
        // A record block adds less to payload, strings and properties than a Kafka record does, so this bound comes in time.
        if builder.byte_len() + taken.record.payload.len() > raw_max {
            return Err(KafkaError::TooLarge { raw_max });
        }
        builder.push(&taken.record);
    }
    if builder.byte_len() > raw_max {
        return Err(KafkaError::TooLarge { raw_max });
    }
    if !rest.is_empty() {
        return Err(KafkaError::Record { index: header.count });
    }
    if max_timestamp != header.max_timestamp {
        return Err(KafkaError::Header);
    }
    Ok((commit.ok_or(KafkaError::Header)?, builder.finish()))
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
