//! Kafka's varints: zigzag, then base 128, at most 5 bytes for an `i32` and 10 for an `i64`.

use crate::varint::{put_u64, take_u64};

/// Appends a varint or varlong; both have one form.
pub(super) fn put(out: &mut Vec<u8>, n: i64) {
    put_u64(out, fold(n));
}

/// Appends a length. Panics beyond 2 GiB, where no record block reaches.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    put(out, i64::from(i32::try_from(len).expect("a length stays below 2 GiB")));
}

/// Number of bytes that [`put`] appends.
pub(super) fn size(n: i64) -> usize {
    (70 - (fold(n) | 1).leading_zeros() as usize) / 7
}

/// Takes a varlong.
pub(super) fn take(input: &mut &[u8]) -> Option<i64> {
    let n = take_u64(input)?;
    Some((n >> 1) as i64 ^ -((n & 1) as i64))
}

/// Takes a varint.
pub(super) fn take_i32(input: &mut &[u8]) -> Option<i32> {
    i32::try_from(take(input)?).ok()
}

/// Takes a length-prefixed byte string. The length -1, Kafka's null, is refused: we never write one.
pub(super) fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_i32(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(bytes)
}

fn fold(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back() {
        for n in (0..63)
            .flat_map(|shift| [1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1])
            .chain([i64::MIN, i64::MAX])
        {
            let mut out = Vec::new();
            put(&mut out, n);
            assert_eq!(out.len(), size(n), "{n}");
            assert_eq!(take(&mut out.as_slice()), Some(n));
        }
    }

    /// Vectors of Kafka's `ByteUtilsTest`.
    #[test]
    fn bytes_are_those_of_kafka() {
        let table: [(i64, &[u8]); 8] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (n, bytes) in table {
            let mut out = Vec::new();
            put(&mut out, n);
            assert_eq!(out, bytes, "{n}");
        }
        assert_eq!(take_bytes(&mut &[1][..]), None);
        assert_eq!(take_bytes(&mut &[4, 9][..]), None);
    }
}
