//! Record block: what holds for one that parses, and that the count must be the true one.

use bytes::Bytes;
use fellbeck_core::{BlockError, ClockQuality, Record, RecordBlock, RecordBlockBuilder, WallTime};

/// The input is a block without its count.
pub(super) fn record_block(data: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(data);
    // With a count that no block reaches, the error names the first record that is malformed or missing.
    let found = RecordBlock::parse(bytes.clone(), u32::MAX)
        .expect_err("no block holds so many records")
        .index;
    let block = match RecordBlock::parse(bytes.clone(), found) {
        Ok(block) => block,
        Err(error) => {
            assert_eq!(error, BlockError { index: found }, "the same record is at fault");
            return false;
        }
    };
    let refused = |count: u32| RecordBlock::parse(bytes.clone(), count).expect_err("a false count is refused");
    assert_eq!(refused(found + 1).index, found, "one record is missing");
    if let Some(fewer) = found.checked_sub(1) {
        assert_eq!(refused(fewer).index, fewer, "one record is too many");
    }
    assert_eq!(block.bytes(), &bytes, "a block is its bytes");
    check_block(&block);
    true
}

/// What holds for every block in hand.
pub(super) fn check_block(block: &RecordBlock) {
    let records: Vec<Record<'_>> = block.iter().collect();
    let count = block.len();
    let sizes: usize = (0..count).map(|index| block.record_len(index)).sum();
    assert_eq!(sizes, block.bytes().len(), "the records fill the block");

    let mut builder = RecordBlockBuilder::default();
    records.iter().for_each(|record| builder.push(record));
    let rebuilt = builder.finish();
    assert!(
        rebuilt.iter().eq(records.iter().copied()),
        "a builder keeps every field"
    );
    assert!(
        rebuilt.bytes().len() <= block.bytes().len(),
        "a builder writes the shortest form"
    );
    let parsed = RecordBlock::parse(rebuilt.bytes().clone(), count as u32).expect("what a builder wrote parses");
    assert!(
        parsed.iter().eq(records.iter().copied()),
        "what a builder wrote comes back"
    );

    let middle = count / 2;
    let joined = RecordBlock::concat(&[block.slice(0..middle), block.slice(middle..count)]);
    assert_eq!(joined.bytes(), block.bytes(), "cut and joined again");
    assert!(joined.iter().eq(records.iter().copied()), "cut and joined again");

    let earliest = records.iter().filter_map(Record::expires_at).min();
    assert_eq!(block.earliest_expiry(), earliest, "the block's expiry is its records'");
    records.iter().for_each(check_expiry);
}

fn check_expiry(record: &Record<'_>) {
    let remaining = |now| record.remaining_expiry_secs(now);
    let Some(secs) = record.expiry_secs else {
        assert_eq!((remaining(WallTime(u64::MAX)), record.expires_at()), (None, None));
        return;
    };
    let Some(at) = record.expires_at() else {
        assert_eq!(
            record.clock,
            ClockQuality::Unknown,
            "only an unknown clock stops expiry"
        );
        assert_eq!(remaining(WallTime(u64::MAX)), Some(secs.max(1)));
        return;
    };
    assert_eq!(remaining(record.accepted_at), Some(secs), "nothing is used up at first");
    if at.0 < u64::MAX {
        assert_eq!(remaining(at), Some(0), "expired at its expiry");
    }
    if let Some(before) = at.0.checked_sub(1).filter(|_| secs > 0) {
        assert_ne!(remaining(WallTime(before)), Some(0), "not expired before it");
    }
}
