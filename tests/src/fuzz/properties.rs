//! MQTT properties of a record: the block is its properties, no more and no less.

use fellbeck_core::Properties;
use fellbeck_core::properties::put;

/// Longest block that is cut at every byte.
const CUT_MAX: usize = 512;

/// The input is a property block.
pub(super) fn properties(data: &[u8]) -> bool {
    let Ok(parsed) = Properties::parse(data) else {
        return false;
    };
    assert_eq!(parsed.as_bytes(), data);
    assert_eq!(parsed.is_empty(), data.is_empty());
    let list: Vec<_> = parsed.iter().collect();
    let mut written = Vec::new();
    let mut ends = vec![0];
    for property in &list {
        put(&mut written, property).expect("a parsed property fits its length fields");
        ends.push(written.len());
    }
    assert_eq!(written, data, "a property block has one encoding");
    for cut in 0..=data.len().min(CUT_MAX) {
        let whole = Properties::parse(&data[..cut]).is_ok();
        assert_eq!(
            whole,
            ends.contains(&cut),
            "cut at {cut}: valid only between two properties"
        );
    }
    let doubled = [data, data].concat();
    let doubled = Properties::parse(&doubled).expect("two valid blocks are one");
    assert!(doubled.iter().eq(list.iter().chain(&list).copied()));
    true
}
