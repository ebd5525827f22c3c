//! Tests of the Kafka batch codec: round trips, Kafka's own layout, and every way in which bytes may be wrong.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{arb_block, block_of};
use crate::properties::{Property, put as put_property};
use crate::{Properties, Record};

const RAW_MAX: usize = 1 << 20;

fn telemetry(records: usize) -> RecordBlock {
    let payloads: Vec<Vec<u8>> = (0..records)
        .map(|n| format!("{{\"n\":{n},\"celsius\":21.5}}").into_bytes())
        .collect();
    block_of(payloads.iter().map(Vec::as_slice))
}

fn encoded(block: &RecordBlock) -> Bytes {
    encode(block, Offset(40), CommitNumber(7))
}

/// Bytes whose CRC is made right again after `damage`.
fn resealed(bytes: &Bytes, damage: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = bytes.to_vec();
    damage(&mut bytes);
    if let Some(covered) = bytes.get(CRC_COVERS_FROM..) {
        let crc = crc32c::crc32c(covered).to_be_bytes();
        bytes[CRC_COVERS_FROM - 4..CRC_COVERS_FROM].copy_from_slice(&crc);
    }
    bytes.into()
}

/// Every byte of a batch of one, spelled out by Kafka's documentation of the record batch.
#[test]
fn the_layout_is_kafkas() {
    let bytes = encoded(&block_of([b"hi".as_slice()]));
    let mut expected = Vec::new();
    expected.extend_from_slice(&40u64.to_be_bytes());
    expected.extend_from_slice(&(bytes.len() as i32 - 12).to_be_bytes());
    expected.extend_from_slice(&(-1i32).to_be_bytes());
    expected.push(2);
    expected.extend_from_slice(&crc32c::crc32c(&bytes[21..]).to_be_bytes());
    expected.extend_from_slice(&[0, 0]);
    expected.extend_from_slice(&0i32.to_be_bytes());
    expected.extend_from_slice(&1_700_000_000_000i64.to_be_bytes());
    expected.extend_from_slice(&1_700_000_000_000i64.to_be_bytes());
    expected.extend_from_slice(&(-1i64).to_be_bytes());
    expected.extend_from_slice(&(-1i16).to_be_bytes());
    expected.extend_from_slice(&(-1i32).to_be_bytes());
    expected.extend_from_slice(&1i32.to_be_bytes());
    let mut record = vec![0, 0, 0, 16];
    record.extend_from_slice(b"device-1");
    record.extend_from_slice(b"\x04hi\x04\x14mqtt.topic\x36plant/hall/line/temperature");
    record.extend_from_slice(b"\x1afellbeck.meta\x08\x01\x01\x01\x07");
    expected.extend_from_slice(&[(record.len() as u8 * 2) | 0x80, 1]);
    expected.extend_from_slice(&record);
    assert_eq!(bytes, expected);
}

#[test]
fn batches_are_compressed_where_it_pays_and_tell_their_range() {
    let block = telemetry(64);
    let bytes = encoded(&block);
    assert!(bytes.len() * 3 < block.bytes().len());
    let header = read_header(&bytes).unwrap();
    assert_eq!(
        (header.base, header.last(), header.count, header.compressed),
        (Offset(40), Offset(103), 64, true)
    );
    assert!(!read_header(&encoded(&block_of([b"hi".as_slice()]))).unwrap().compressed);
}

#[test]
fn the_base_offset_may_be_patched_without_the_crc() {
    let mut bytes = encoded(&telemetry(3)).to_vec();
    patch_base_offset(&mut bytes, Offset(1 << 40)).unwrap();
    assert_eq!(decode(&bytes.into(), RAW_MAX).unwrap().base, Offset(1 << 40));
    assert_eq!(
        patch_base_offset(&mut [0; 7], Offset(1)),
        Err(KafkaError::Length { size: 7 })
    );
}

/// User properties come back in order, doubles kept, and cannot pass for headers of ours.
#[test]
fn user_properties_keep_order_doubles_and_reserved_names() {
    let list = [
        Property::User("a", "1"),
        Property::User("mqtt.topic", "forged"),
        Property::ContentType("text/plain"),
        Property::User("a", "1"),
        Property::User("fellbeck.edge", "forged"),
        Property::User("mqtt.user.mqtt.topic", ""),
        Property::PayloadFormat(1),
        Property::CorrelationData(&[0, 255]),
        Property::ResponseTopic("r"),
        Property::User("", ""),
    ];
    let mut properties = Vec::new();
    list.iter()
        .for_each(|property| put_property(&mut properties, property).unwrap());
    let mut builder = RecordBlockBuilder::default();
    builder.push(&Record {
        properties: Properties::parse(&properties).unwrap(),
        ..block_of([b"".as_slice()]).get(0)
    });
    let decoded = decode(&encoded(&builder.finish()), RAW_MAX).unwrap();
    assert_eq!(decoded.block.get(0).topic, "plant/hall/line/temperature");
    assert_eq!(decoded.block.get(0).properties.iter().collect::<Vec<_>>(), list);
}

/// Cut anywhere, or with one bit changed behind the leader epoch: a named error, never the wrong records.
#[test]
fn truncated_or_flipped_bytes_are_refused() {
    let bytes = encoded(&telemetry(8));
    for cut in 0..bytes.len() {
        assert_eq!(
            decode(&bytes.slice(..cut), RAW_MAX).unwrap_err(),
            KafkaError::Length { size: cut }
        );
    }
    for bit in 16 * 8..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged.into(), RAW_MAX).is_err(), "bit {bit}");
    }
}

#[test]
fn headers_of_a_kind_that_is_never_stored_are_refused() {
    let bytes = encoded(&telemetry(8));
    // gzip, log-append time, transaction, control batch; count, delta and producer that do not fit; an offset above i64.
    let damages: [fn(&mut Vec<u8>); 9] = [
        |b| b[22] = 1,
        |b| b[22] |= 8,
        |b| b[22] |= 16,
        |b| b[22] |= 32,
        |b| b[60] = 0,
        |b| b[57] = 0x80,
        |b| b[26] = 9,
        |b| b[50] = 0,
        |b| b[0] = 0x80,
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let error = decode(&resealed(&bytes, damage), RAW_MAX).unwrap_err();
        assert_eq!(error, KafkaError::Header, "damage {index}");
    }
    assert_eq!(
        decode(&resealed(&bytes, |b| b[16] = 1), RAW_MAX).unwrap_err(),
        KafkaError::Magic(1)
    );
    assert_eq!(
        decode(&resealed(&bytes, |b| b[42] ^= 1), RAW_MAX).unwrap_err(),
        KafkaError::Header
    );
}

#[test]
fn decoding_is_bounded_by_the_size_of_the_block() {
    let block = telemetry(64);
    let size = block.bytes().len();
    for bytes in [encoded(&block), uncompressed(&block)] {
        assert_eq!(decode(&bytes, size).unwrap().block.bytes(), block.bytes());
        assert_eq!(
            decode(&bytes, size - 1).unwrap_err(),
            KafkaError::TooLarge { raw_max: size - 1 }
        );
        assert_eq!(decode(&bytes, 10).unwrap_err(), KafkaError::TooLarge { raw_max: 10 });
    }
    // A frame that claims more than the section may take is refused before anything is decompressed.
    let bomb = compressed(&vec![0; 64 << 20], <[u8]>::to_vec).unwrap();
    let bytes = resealed(&encoded(&block), |b| {
        b.truncate(KAFKA_HEADER_BYTES);
        b.extend_from_slice(&bomb);
        let length = b.len() as i32 - 12;
        b[8..12].copy_from_slice(&length.to_be_bytes());
    });
    assert_eq!(
        decode(&bytes, RAW_MAX).unwrap_err(),
        KafkaError::TooLarge { raw_max: RAW_MAX }
    );
}

/// The same batch with its records section as it was before compression.
fn uncompressed(block: &RecordBlock) -> Bytes {
    let bytes = encoded(block);
    let size = claimed_size(&bytes[KAFKA_HEADER_BYTES..]).unwrap() as usize;
    let section = decompress(&bytes[KAFKA_HEADER_BYTES..], size).unwrap();
    resealed(&bytes, |b| {
        b.truncate(KAFKA_HEADER_BYTES);
        b.extend_from_slice(&section);
        b[22] = 0;
        let length = b.len() as i32 - 12;
        b[8..12].copy_from_slice(&length.to_be_bytes());
    })
}

proptest! {
    #[test]
    fn any_block_comes_back(block in arb_block(), base in 0u64..1 << 62, commit: u64) {
        let bytes = encode(&block, Offset(base), CommitNumber(commit));
        let decoded = decode(&bytes, block.bytes().len()).unwrap();
        prop_assert_eq!((decoded.base, decoded.commit), (Offset(base), CommitNumber(commit)));
        prop_assert_eq!(decoded.block.bytes(), block.bytes());
        prop_assert_eq!(read_header(&bytes).unwrap().count as usize, block.len());
    }

    /// Mutated bytes under a right CRC, compressed or not: no panic, and what decodes can be read.
    #[test]
    fn mutated_batches_never_panic(
        block in arb_block(),
        plain: bool,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encoded(&block);
        if plain && read_header(&bytes).unwrap().compressed {
            bytes = uncompressed(&block);
        }
        let bytes = resealed(&bytes, |bytes| {
            for (index, byte) in &damage {
                // The header's rules have tests of their own; most damage goes to the records.
                let index = index.index(bytes.len() - KAFKA_HEADER_BYTES) + KAFKA_HEADER_BYTES;
                bytes[index] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let length = bytes.len() as i32 - 12;
            if let Some(field) = bytes.get_mut(8..12) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        });
        if let Ok(decoded) = decode(&bytes, RAW_MAX) {
            prop_assert_eq!(decoded.block.iter().count(), block.len());
            // What was accepted is encoded again to the same records.
            let again = decode(&encode(&decoded.block, decoded.base, decoded.commit), RAW_MAX).unwrap();
            prop_assert_eq!(again.block.bytes(), decoded.block.bytes());
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes.into(), RAW_MAX).is_err());
    }
}
