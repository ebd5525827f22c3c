//! Kafka batch: decoding what the log holds, and encoding it again.

use bytes::Bytes;
use fellbeck_core::kafka::{KAFKA_HEADER_BYTES, decode, encode, patch_base_offset, read_header};
use fellbeck_core::{KafkaError, Offset};

use super::RAW_MAX;
use super::block::check_block;

/// The input is an encoded batch, tried as it is and with magic, length and CRC mended.
pub(super) fn kafka_batch(data: &[u8]) -> bool {
    let as_it_is = check(&Bytes::copy_from_slice(data));
    let repaired = mended(data).is_some_and(|bytes| check(&bytes.into()));
    as_it_is || repaired
}

fn check(bytes: &Bytes) -> bool {
    let header = read_header(bytes);
    let batch = match decode(bytes, RAW_MAX) {
        Ok(batch) => batch,
        Err(error) => {
            assert!(
                header.is_ok() || header == Err(error),
                "both readers refuse a header alike"
            );
            return false;
        }
    };
    let header = header.expect("what decodes has a header");
    assert_eq!((batch.base, batch.block.len() as u32), (header.base, header.count));
    assert_eq!(header.last().0 - header.base.0 + 1, u64::from(header.count));
    let raw_len = batch.block.bytes().len();
    assert!(raw_len <= RAW_MAX, "the bound on the record block holds");
    assert!(
        decode(bytes, raw_len - 1).is_err(),
        "the bound on the record block holds"
    );
    check_block(&batch.block);

    let again = encode(&batch.block, batch.base, batch.commit);
    let back = decode(&again, raw_len).expect("what was encoded decodes within the size of its block");
    assert_eq!((back.base, back.commit), (batch.base, batch.commit));
    assert!(back.block.iter().eq(batch.block.iter()), "every field comes back");
    assert_eq!(back.block.bytes(), batch.block.bytes());

    let mut moved = bytes.to_vec();
    patch_base_offset(&mut moved, Offset(7)).expect("it has a base offset");
    let moved = decode(&moved.into(), RAW_MAX).expect("the CRC does not cover the base offset");
    assert_eq!(moved.base, Offset(7));
    assert_eq!(moved.block.bytes(), batch.block.bytes());
    true
}

/// The batch with magic, length and CRC as they have to be; `None` where there is no whole header.
fn mended(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    if bytes.len() < KAFKA_HEADER_BYTES {
        assert!(matches!(read_header(data), Err(KafkaError::Length { .. })));
        return None;
    }
    let length = i32::try_from(bytes.len() - 12).ok()?;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Some(bytes)
}
