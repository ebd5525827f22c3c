//! Tests of record blocks: round trips, slices, and bytes that are cut or mutated.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::arb_block;

fn sample() -> Record<'static> {
    Record {
        device: "d1",
        topic: "a/b",
        payload: b"hello",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::default(),
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
        expiry_secs: Some(60),
        origin: Some(Origin {
            edge: "e",
            instance: 1,
            lane: "default",
            run: Run(0),
            epoch: Epoch(3),
            seq: Seq(9),
        }),
        path: "e",
    }
}

#[test]
fn records_come_back_from_a_parsed_block() {
    let mut builder = RecordBlockBuilder::default();
    let plain = Record {
        origin: None,
        path: "",
        expiry_secs: None,
        payload: b"",
        ..sample()
    };
    builder.push(&sample());
    builder.push(&plain);
    let block = builder.finish();
    let parsed = RecordBlock::parse(block.bytes().clone(), 2).unwrap();
    assert_eq!(parsed.iter().collect::<Vec<_>>(), [sample(), plain]);
    let joined = RecordBlock::concat(&[parsed.clone(), block]);
    assert_eq!(joined.len(), 4);
    assert_eq!(joined.get(3), plain);
    for (count, index) in [(3, 3), (5, 4), (u32::MAX, 4)] {
        let error = RecordBlock::parse(joined.bytes().clone(), count).unwrap_err();
        assert_eq!(error, BlockError { index });
    }
}

#[test]
fn a_block_cut_anywhere_is_refused() {
    let mut builder = RecordBlockBuilder::default();
    builder.push(&sample());
    let bytes = builder.finish().bytes().clone();
    for cut in 0..bytes.len() {
        // A cut within the payload leaves a slot shorter than its length prefix says.
        assert!(RecordBlock::parse(bytes.slice(..cut), 1).is_err());
    }
}

/// Reading trusts the property block, so parsing must not.
#[test]
fn a_property_block_that_does_not_decode_is_refused() {
    let mut builder = RecordBlockBuilder::default();
    builder.push(&Record {
        properties: Properties::parse(&[crate::properties::PAYLOAD_FORMAT, 1]).unwrap(),
        ..sample()
    });
    let bytes = builder.finish().bytes().to_vec();
    let at = bytes
        .windows(3)
        .position(|w| w == [2, crate::properties::PAYLOAD_FORMAT, 1])
        .unwrap();
    let mut damaged = bytes.clone();
    damaged[at + 1] = 0x7e;
    assert_eq!(
        RecordBlock::parse(damaged.into(), 1).unwrap_err(),
        BlockError { index: 0 }
    );
    assert!(RecordBlock::parse(bytes.into(), 1).is_ok());
}

/// A builder serves block after block, large ones too, and each is as long as its records.
#[test]
fn a_builder_is_empty_again_after_each_block() {
    let large = vec![7; 2 * COPIED_OUT_MAX];
    let mut builder = RecordBlockBuilder::default();
    for payload in [b"a".as_slice(), &large, b"bc"] {
        builder.push(&Record { payload, ..sample() });
        assert_eq!((builder.len(), builder.is_empty()), (1, false));
        let len = builder.byte_len();
        let block = builder.finish();
        assert_eq!((block.len(), block.bytes().len(), block.record_len(0)), (1, len, len));
        assert_eq!(block.get(0).payload, payload);
        assert_eq!((builder.len(), builder.byte_len(), builder.is_empty()), (0, 0, true));
    }
    assert!(builder.finish().is_empty());
}

proptest! {
    #[test]
    fn slices_hold_their_records_and_share_the_bytes(block in arb_block(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (a, b) = (a.index(block.len() + 1), b.index(block.len() + 1));
        let range = a.min(b)..a.max(b);
        let slice = block.slice(range.clone());
        prop_assert!(slice.iter().eq(block.iter().skip(range.start).take(range.len())));
        prop_assert_eq!(slice.bytes().len(), range.clone().map(|index| block.record_len(index)).sum::<usize>());
        let parsed = RecordBlock::parse(slice.bytes().clone(), range.len() as u32).unwrap();
        prop_assert!(parsed.iter().eq(slice.iter()));
        let whole = [block.slice(0..range.start), slice, block.slice(range.end..block.len())];
        let joined = RecordBlock::concat(&whole);
        prop_assert_eq!(joined.bytes(), block.bytes());
        prop_assert!(joined.iter().eq(block.iter()));
    }

    /// The quick look at flags finds what a look at every record finds.
    #[test]
    fn the_earliest_expiry_is_that_of_all_records(block in arb_block()) {
        let expected = block.iter().filter_map(|record| record.expires_at()).min();
        prop_assert_eq!(block.earliest_expiry(), expected);
    }

    #[test]
    fn mutated_blocks_never_panic(block in arb_block(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = block.bytes().to_vec();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(parsed) = RecordBlock::parse(bytes.into(), block.len() as u32) {
            let property_bytes: usize = parsed.iter().map(|record| record.properties.as_bytes().len()).sum();
            let properties: usize = parsed.iter().map(|record| record.properties.iter().count()).sum();
            prop_assert!(parsed.len() == block.len() && properties <= property_bytes);
        }
    }
}
