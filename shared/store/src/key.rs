//! Keys and value heads in the database. Drawn in `docs/format/store.md`.
//!
//! All numbers are big-endian, so that key order is track, then sequence number.

use bytes::{BufMut, Bytes};
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{CommitNumber, Epoch, Seq, TrackId};

use crate::catalog::Span;
use crate::entry::Gap;

/// Bytes before the record batch in the value of a segment entry.
pub(crate) const HEAD_BYTES: usize = 20;

/// Key of a segment entry.
pub(crate) fn entry_key(track: TrackId, first: Seq) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&track.0.to_be_bytes());
    key[4..].copy_from_slice(&first.0.to_be_bytes());
    key
}

/// Takes a segment key apart.
pub(crate) fn parse_entry_key(key: &[u8]) -> Option<(TrackId, Seq)> {
    let (track, seq) = key.split_first_chunk::<4>()?;
    Some((
        TrackId(u32::from_be_bytes(*track)),
        Seq(u64::from_be_bytes(seq.try_into().ok()?)),
    ))
}

/// What stands before the record batch in the value of a segment entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) commit: CommitNumber,
    pub(crate) first_index: u32,
    pub(crate) count: u32,
    pub(crate) epoch: Epoch,
}

impl Head {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.commit.0);
        out.put_u32(self.first_index);
        out.put_u32(self.count);
        out.put_u32(self.epoch.0);
    }

    /// Takes the head off an entry's value and leaves the batch.
    pub(crate) fn take(value: &mut Bytes) -> Option<Self> {
        let head = Self::peek(value)?;
        bytes::Buf::advance(value, HEAD_BYTES);
        Some(head)
    }

    /// Reads the head. An entry without records does not exist, so a count of 0 is refused.
    pub(crate) fn peek(value: &[u8]) -> Option<Self> {
        let head = value.first_chunk::<HEAD_BYTES>()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let head = Self {
            commit: CommitNumber(u64::from(word(0)) << 32 | u64::from(word(4))),
            first_index: word(8),
            count: word(12),
            epoch: Epoch(word(16)),
        };
        (head.count > 0).then_some(head)
    }
}

/// Value of a keyed entry: the commit that wrote it, then the owner's bytes.
pub(crate) fn stamped(commit: CommitNumber, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + value.len());
    out.put_u64(commit.0);
    out.put_slice(value);
    out
}

/// Takes the stamp off a keyed value.
pub(crate) fn take_stamp(value: &mut Bytes) -> Option<CommitNumber> {
    let commit = u64::from_be_bytes(*value.first_chunk::<8>()?);
    bytes::Buf::advance(value, 8);
    Some(CommitNumber(commit))
}

/// Keys of the index keyspace.
pub(crate) mod index {
    use super::*;

    /// Newest commit number; written by each commit.
    pub(crate) const COMMIT: &[u8] = b"c";
    /// Floor of the sessions.
    pub(crate) const FLOOR: &[u8] = b"f";
    /// First byte of the keys of acknowledged positions, by track.
    pub(crate) const ACKED: u8 = b'a';
    /// First byte of the keys of the ends of tracks, by track; written when a segment is sealed, since it may be trimmed then.
    pub(crate) const END: u8 = b'e';
    /// First byte of the keys of counts of records given up that have no number yet, by track.
    pub(crate) const OWED: u8 = b'o';
    /// First byte of the keys of gaps, by track and first missing number.
    pub(crate) const GAP: u8 = b'g';
    /// First byte of the keys of sealed segments, by segment number.
    pub(crate) const SEALED: u8 = b's';

    pub(crate) fn acked(track: TrackId) -> Vec<u8> {
        [&[ACKED][..], &track.0.to_be_bytes()].concat()
    }

    pub(crate) fn end(track: TrackId) -> Vec<u8> {
        [&[END][..], &track.0.to_be_bytes()].concat()
    }

    pub(crate) fn owed(track: TrackId) -> Vec<u8> {
        [&[OWED][..], &track.0.to_be_bytes()].concat()
    }

    pub(crate) fn gap(track: TrackId, first: Seq) -> Vec<u8> {
        [&[GAP][..], &entry_key(track, first)].concat()
    }

    pub(crate) fn sealed(segment: u64) -> Vec<u8> {
        [&[SEALED][..], &segment.to_be_bytes()].concat()
    }

    /// The number behind the first byte of an [`ACKED`], [`END`] or [`SEALED`] key, or a bare number as a value.
    pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
        match bytes.len() {
            4 => Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
            8 => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
            _ => None,
        }
    }
}

/// Value of a gap in the index.
pub(crate) fn gap_value(gap: &Gap) -> Vec<u8> {
    let mut out = Vec::with_capacity(13);
    out.put_u64(gap.last.0);
    out.put_u32(gap.epoch.0);
    out.put_u8(gap.reason as u8);
    out
}

/// A gap from its key (without the first byte) and value.
pub(crate) fn parse_gap(key: &[u8], value: &[u8]) -> Option<(TrackId, Gap)> {
    let (track, first) = parse_entry_key(key)?;
    let (last, rest) = value.split_first_chunk::<8>()?;
    let (epoch, reason) = rest.split_first_chunk::<4>()?;
    let gap = Gap {
        epoch: Epoch(u32::from_be_bytes(*epoch)),
        first,
        last: Seq(u64::from_be_bytes(*last)),
        reason: DropReason::from_u8(*reason.first()?)?,
    };
    (gap.first <= gap.last).then_some((track, gap))
}

/// What the index says of a sealed segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) bytes: u64,
    pub(crate) first_commit: CommitNumber,
    pub(crate) last_commit: CommitNumber,
    /// Wall-clock milliseconds of the last append.
    pub(crate) touched_ms: u64,
    pub(crate) spans: Vec<Span>,
}

impl Seal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + 20 * self.spans.len());
        out.put_u8(1);
        out.put_u64(self.bytes);
        out.put_u64(self.first_commit.0);
        out.put_u64(self.last_commit.0);
        out.put_u64(self.touched_ms);
        for span in &self.spans {
            out.put_u32(span.track.0);
            out.put_u64(span.first.0);
            out.put_u64(span.end.0);
        }
        out
    }

    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let (&version, rest) = value.split_first()?;
        let (fixed, spans) = rest.split_first_chunk::<32>()?;
        if version != 1 || spans.len() % 20 != 0 {
            return None;
        }
        let long = |at: usize, bytes: &[u8]| bytes[at..].first_chunk().map(|chunk| u64::from_be_bytes(*chunk));
        let spans = spans.chunks_exact(20).map(|chunk| {
            let span = Span {
                track: TrackId(u32::from_be_bytes(*chunk.first_chunk()?)),
                first: Seq(long(4, chunk)?),
                end: Seq(long(12, chunk)?),
            };
            (span.first < span.end).then_some(span)
        });
        Some(Self {
            bytes: long(0, fixed)?,
            first_commit: CommitNumber(long(8, fixed)?),
            last_commit: CommitNumber(long(16, fixed)?),
            touched_ms: long(24, fixed)?,
            spans: spans.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_keys_sort_by_track_then_seq_and_come_back() {
        let keys = [(0, 255), (0, 256), (1, 1), (256, 0)].map(|(t, s)| (TrackId(t), Seq(s)));
        let encoded = keys.map(|(track, seq)| entry_key(track, seq));
        assert!(encoded.is_sorted());
        assert_eq!(encoded.map(|key| parse_entry_key(&key).unwrap()), keys);
        assert_eq!(parse_entry_key(&encoded[0][..11]), None);
    }

    #[test]
    fn heads_gaps_and_seals_come_back_and_short_ones_are_refused() {
        let head = Head {
            commit: CommitNumber(u64::MAX - 1),
            first_index: 7,
            count: 3,
            epoch: Epoch(9),
        };
        let mut value = Vec::new();
        head.put(&mut value);
        assert_eq!(Head::peek(&value), Some(head));
        assert_eq!(Head::peek(&value[..HEAD_BYTES - 1]), None);

        let gap = Gap {
            epoch: Epoch(2),
            first: Seq(5),
            last: Seq(9),
            reason: DropReason::LostSuffix,
        };
        let key = index::gap(TrackId(3), gap.first);
        assert_eq!(parse_gap(&key[1..], &gap_value(&gap)), Some((TrackId(3), gap)));
        assert_eq!(parse_gap(&key[1..], &gap_value(&gap)[..12]), None);

        let seal = Seal {
            bytes: 1,
            first_commit: CommitNumber(2),
            last_commit: CommitNumber(3),
            touched_ms: 4,
            spans: vec![Span {
                track: TrackId(5),
                first: Seq(6),
                end: Seq(8),
            }],
        };
        let bytes = seal.encode();
        assert_eq!(Seal::parse(&bytes), Some(seal));
        (0..bytes.len()).for_each(|cut| assert!(cut == 33 || Seal::parse(&bytes[..cut]).is_none()));
    }
}
