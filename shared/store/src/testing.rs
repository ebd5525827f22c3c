//! Records for tests.

use fellbeck_core::{ClockQuality, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, WallTime};

/// A block of `count` records with payloads of `len` bytes.
pub(crate) fn block_of(count: usize, len: usize) -> RecordBlock {
    let payload = vec![b'x'; len];
    block_with(std::iter::repeat_n(payload.as_slice(), count))
}

/// A block with one record per payload.
pub(crate) fn block_with<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    for payload in payloads {
        builder.push(&Record {
            device: "device",
            topic: "a/b",
            payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    builder.finish()
}
