//! zstd for batch bodies, with contexts that each thread keeps.
//!
//! In: bytes. Out: their zstd form where that pays, or the bytes back with every length bounded by the caller.
//! A context costs far more to set up than a small batch to compress, hence one per thread and direction.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::get_frame_content_size;

/// Best point for batches of 64 records and more; higher levels are slower and no smaller.
const LEVEL: i32 = 1;

/// A scratch buffer above this size is given back after use.
const SCRATCH_KEPT_MAX: usize = 256 << 10;

thread_local! {
    static COMPRESS: RefCell<(Option<Compressor<'static>>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
    static DECOMPRESS: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `raw` and hands the result to `then`. `None` when it would not be smaller by the ratio 1.1, or zstd fails.
pub(crate) fn compressed<T>(raw: &[u8], then: impl FnOnce(&[u8]) -> T) -> Option<T> {
    // Room for no more than pays: zstd stops early when the bytes do not fit.
    let room = raw.len() / 11 * 10 + raw.len() % 11 * 10 / 11;
    COMPRESS.with_borrow_mut(|(context, scratch)| {
        if context.is_none() {
            *context = Some(Compressor::new(LEVEL).ok()?);
        }
        scratch.clear();
        scratch.reserve(room);
        let size = context.as_mut()?.compress_to_buffer(raw, scratch).ok()?;
        let result = (size <= room).then(|| then(&scratch[..size]));
        scratch.clear();
        scratch.shrink_to(SCRATCH_KEPT_MAX);
        result
    })
}

/// The size that a zstd frame claims for its content, if it claims one.
pub(crate) fn claimed_size(compressed: &[u8]) -> Option<u64> {
    get_frame_content_size(compressed).ok().flatten()
}

/// Decompresses to exactly `size` bytes. The caller has bounded `size`.
pub(crate) fn decompress(compressed: &[u8], size: usize) -> Option<Vec<u8>> {
    DECOMPRESS.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some(Decompressor::new().ok()?);
        }
        let mut out = Vec::with_capacity(size);
        let written = context.as_mut()?.decompress_to_buffer(compressed, &mut out).ok()?;
        (written == size).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_by_a_tenth_is_left_raw() {
        let noise: Vec<u8> = (0..4096u64)
            .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
            .collect();
        let mixed: Vec<u8> = (0..4096u64)
            .map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()) as u8)
            .collect();
        assert!(compressed(&mixed, |_| ()).is_none());
        assert!(compressed(b"", |_| ()).is_none());
        let small = compressed(&noise.repeat(4), <[u8]>::to_vec).unwrap();
        assert_eq!(claimed_size(&small), Some(4 * 4096));
        assert_eq!(decompress(&small, 4 * 4096), Some(noise.repeat(4)));
    }

    #[test]
    fn a_frame_of_another_size_or_damaged_is_refused() {
        let small = compressed(&[7; 1000], <[u8]>::to_vec).unwrap();
        assert_eq!(decompress(&small, 999), None);
        assert_eq!(decompress(&small, 1001), None);
        assert_eq!(decompress(&small[..small.len() - 1], 1000), None);
        assert_eq!(decompress(&[], 1), None);
        assert_eq!(claimed_size(&small[..3]), None);
    }
}
