//! Record batch: parsing, opening and sealing it again.

use bytes::Bytes;
use fellbeck_core::batch::BATCH_HEADER_BYTES;
use fellbeck_core::{Batch, BatchError};
use xxhash_rust::xxh3::xxh3_64;

use super::RAW_MAX;
use super::block::check_block;

/// The input is an encoded batch, tried as it is and with its lengths and checksum mended.
pub(super) fn record_batch(data: &[u8]) -> bool {
    let as_it_is = check(&Bytes::copy_from_slice(data));
    let repaired = mended(data).is_some_and(|bytes| check(&bytes.into()));
    as_it_is || repaired
}

fn check(bytes: &Bytes) -> bool {
    let Ok(batch) = Batch::parse(bytes.clone()) else {
        return false;
    };
    let header = batch.header;
    assert_eq!(&batch.encode(), bytes, "a batch has one encoding");
    assert_eq!(batch.encoded_len(), bytes.len());
    assert_eq!(batch.last().0 - header.first.0 + 1, u64::from(header.count));
    let block = match batch.open(RAW_MAX) {
        Ok(block) => block,
        Err(BatchError::TooLarge { raw_len, .. }) => {
            assert!(raw_len as usize > RAW_MAX, "refused although it would fit");
            return false;
        }
        Err(_) => return false,
    };
    let raw_len = block.bytes().len();
    assert_eq!((block.len() as u32, raw_len as u32), (header.count, header.raw_len));
    let too_small = batch.open(raw_len - 1).expect_err("the bound on the raw size holds");
    assert!(matches!(too_small, BatchError::TooLarge { .. }), "{too_small}");
    check_block(&block);

    let sealed = Batch::seal(header.epoch, header.first, &block);
    assert!(sealed.body.len() <= raw_len, "sealing never makes a block larger");
    assert_eq!(sealed.header.earliest_expiry, block.earliest_expiry());
    let parsed = Batch::parse(sealed.encode()).expect("a sealed batch parses");
    assert_eq!(parsed, sealed);
    assert_eq!(parsed.range(), batch.range());
    let opened = parsed.open(raw_len).expect("a sealed batch opens within its raw size");
    assert_eq!(opened.bytes(), block.bytes());
    true
}

/// The batch with version, lengths and checksum as they have to be; `None` where there is no whole header.
pub(super) fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let body_len = u32::try_from(bytes.len().checked_sub(BATCH_HEADER_BYTES)?).ok()?;
    bytes[8] = 1;
    bytes[40..44].copy_from_slice(&body_len.to_be_bytes());
    if bytes[9] == 0 {
        bytes[28..32].copy_from_slice(&body_len.to_be_bytes());
    }
    let checksum = xxh3_64(&bytes[8..]);
    bytes[..8].copy_from_slice(&checksum.to_be_bytes());
    Some(bytes)
}
