//! Tests of the edge batch codec: round trips, and every way in which bytes may be wrong.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{arb_block, block_of};

const RAW_MAX: usize = 1 << 20;

fn telemetry(records: usize) -> RecordBlock {
    let payloads: Vec<Vec<u8>> = (0..records)
        .map(|n| format!("{{\"n\":{n},\"celsius\":21.5}}").into_bytes())
        .collect();
    block_of(payloads.iter().map(Vec::as_slice))
}

fn noise(size: u64) -> Vec<u8> {
    (0..size).map(|n| xxh3_64(&n.to_le_bytes()) as u8).collect()
}

/// Encoded bytes whose checksum is made right again after `damage`: what only a faulty or hostile sealer writes.
fn resealed(batch: &Batch, damage: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.encode().to_vec();
    damage(&mut bytes);
    let checksum = xxh3_64(&bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_be_bytes());
    bytes.into()
}

#[test]
fn several_records_are_compressed_and_one_small_one_is_not() {
    let many = Batch::seal(Epoch(3), Seq(10), &telemetry(64));
    assert_eq!((many.header.codec, many.range()), (Codec::Zstd, Seq(10)..=Seq(73)));
    assert!(many.body.len() * 3 < many.header.raw_len as usize);
    assert_eq!(Batch::seal(Epoch(3), Seq(10), &telemetry(1)).header.codec, Codec::Raw);
    let large = block_of([[b'x'; 4096].as_slice()]);
    assert_eq!(Batch::seal(Epoch(3), Seq(10), &large).header.codec, Codec::Zstd);
    let noise = noise(4096);
    let incompressible = Batch::seal(Epoch(3), Seq(10), &block_of([noise.as_slice()]));
    assert_eq!(incompressible.header.codec, Codec::Raw);
    assert_eq!(
        incompressible.encoded_len(),
        BATCH_HEADER_BYTES + incompressible.header.raw_len as usize
    );
}

#[test]
fn the_header_names_the_earliest_expiry_of_a_known_clock() {
    let mut builder = crate::RecordBlockBuilder::default();
    let record = |accepted_at, expiry_secs, clock| crate::Record {
        accepted_at: WallTime(accepted_at),
        expiry_secs,
        clock,
        ..telemetry_record()
    };
    use crate::ClockQuality::{Synced, Unknown, Unsynced};
    builder.push(&record(5_000, Some(60), Synced));
    builder.push(&record(1_000, Some(1), Unknown));
    builder.push(&record(9_000, Some(2), Unsynced));
    builder.push(&record(0, None, Synced));
    let batch = Batch::seal(Epoch(1), Seq(1), &builder.finish());
    assert_eq!(batch.header.earliest_expiry, Some(WallTime(11_000)));
    assert_eq!(Batch::parse(batch.encode()), Ok(batch));
    builder.push(&record(1_000, Some(1), Unknown));
    assert_eq!(
        Batch::seal(Epoch(1), Seq(1), &builder.finish()).header.earliest_expiry,
        None
    );
}

fn telemetry_record() -> crate::Record<'static> {
    crate::Record {
        device: "d",
        topic: "t",
        payload: b"",
        qos: crate::QoS::AtMostOnce,
        retain: false,
        properties: crate::Properties::default(),
        accepted_at: WallTime(0),
        clock: crate::ClockQuality::Synced,
        expiry_secs: None,
        origin: None,
        path: "",
    }
}

/// Cut anywhere, or with one bit changed anywhere: a named error, never the wrong records.
#[test]
fn truncated_or_flipped_bytes_are_refused() {
    let bytes = Batch::seal(Epoch(3), Seq(10), &telemetry(8)).encode();
    for cut in 0..bytes.len() {
        assert!(Batch::parse(bytes.slice(..cut)).is_err(), "cut at {cut}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            CHECKSUM_BYTES => BatchError::Version(damaged[CHECKSUM_BYTES]),
            _ => BatchError::Checksum,
        };
        assert_eq!(Batch::parse(damaged.into()), Err(expected), "bit {bit}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert_eq!(Batch::parse(longer.into()), Err(BatchError::Checksum));
}

/// The checksum holds, so only the header's own rules are left to refuse these.
#[test]
fn inconsistent_headers_are_refused() {
    let batch = Batch::seal(Epoch(3), Seq(10), &telemetry(8));
    let raw = Batch::seal(Epoch(3), Seq(10), &telemetry(1));
    let size = batch.encoded_len();
    for (bytes, error) in [
        (resealed(&batch, |b| b.push(0)), BatchError::Length { size: size + 1 }),
        (resealed(&batch, |b| b[9] = 7), BatchError::Header),
        (resealed(&batch, |b| b[10] = 1), BatchError::Header),
        (resealed(&batch, |b| b[16..24].fill(0xff)), BatchError::Header),
        (resealed(&batch, |b| b[24..28].fill(0)), BatchError::Header),
        (resealed(&batch, |b| b[39] = 1), BatchError::Header),
        (resealed(&batch, |b| b[47] = 1), BatchError::Header),
        (resealed(&raw, |b| b[31] ^= 1), BatchError::Header),
    ] {
        assert_eq!(Batch::parse(bytes), Err(error));
    }
}

#[test]
fn opening_is_bounded_and_checks_what_the_header_promises() {
    let batch = Batch::seal(Epoch(3), Seq(10), &telemetry(8));
    let raw_len = batch.header.raw_len;
    let raw_max = raw_len as usize - 1;
    assert_eq!(
        batch.open(raw_max).unwrap_err(),
        BatchError::TooLarge { raw_len, raw_max }
    );
    assert_eq!(batch.open(raw_max + 1).unwrap().len(), 8);
    let open = |damage: fn(&mut Vec<u8>)| {
        Batch::parse(resealed(&batch, damage))
            .unwrap()
            .open(RAW_MAX)
            .unwrap_err()
    };
    // One record fewer, one more; a raw size that is not that of the frame; a body that is no frame.
    assert!(matches!(open(|b| b[27] -= 1), BatchError::Block(_)));
    assert!(matches!(open(|b| b[27] += 1), BatchError::Block(_)));
    assert_eq!(open(|b| b[31] ^= 1), BatchError::Compression);
    assert_eq!(open(|b| b[BATCH_HEADER_BYTES] ^= 1), BatchError::Compression);
    // A claim of very many records must not allocate for them before the bytes are seen.
    assert!(matches!(open(|b| b[24..28].fill(0xff)), BatchError::Block(_)));
}

proptest! {
    #[test]
    fn any_block_comes_back(block in arb_block(), epoch: u32, first in 1u64..u64::MAX / 2) {
        let batch = Batch::seal(Epoch(epoch), Seq(first), &block);
        let mut bytes = vec![9; 3];
        batch.encode_into(&mut bytes);
        prop_assert_eq!(&bytes[3..], &batch.encode()[..]);
        prop_assert_eq!(batch.encoded_len(), bytes.len() - 3);
        let parsed = Batch::parse(batch.encode()).unwrap();
        prop_assert_eq!(&parsed, &batch);
        let opened = parsed.open(RAW_MAX).unwrap();
        prop_assert_eq!(opened.bytes(), block.bytes());
        prop_assert!(opened.iter().eq(block.iter()));
    }

    /// Mutated bytes under a right checksum: no panic in `parse`, `open`, `last` or in reading what was opened.
    #[test]
    fn mutated_batches_never_panic(
        block in arb_block(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let batch = Batch::seal(Epoch(1), Seq(1), &block);
        let bytes = resealed(&batch, |bytes| {
            for (index, byte) in &damage {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            if damage.len() % 2 == 0 {
                bytes.truncate(CHECKSUM_BYTES + cut.index(bytes.len() - CHECKSUM_BYTES));
            }
        });
        if let Ok(parsed) = Batch::parse(bytes) {
            prop_assert!(parsed.last() >= parsed.header.first);
            if let Ok(opened) = parsed.open(RAW_MAX) {
                prop_assert_eq!(opened.iter().count(), parsed.header.count as usize);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count: u32) {
        prop_assert!(Batch::parse(bytes.clone().into()).is_err());
        if let Ok(block) = RecordBlock::parse(bytes.into(), count) {
            prop_assert_eq!(block.iter().count(), count as usize);
        }
    }
}
