//! The last heartbeat of an edge, kept in the commit that moves W over it.
//!
//! In: the record, and how long it had waited on the edge. Out: one entry of the store per edge (`docs/format/ledger.md`), for status.

use bytes::Bytes;
use fellbeck_core::WallTime;
use fellbeck_core::varint::{put_bytes, put_u64, take_u32, take_u64};
use fellbeck_link::Heartbeat;
use fellbeck_store::{Put, Space};

use super::lane::take_text;

const VERSION: u8 = 1;
/// What keys of heartbeats begin with.
const KEY_PREFIX: &[u8] = b"ledger/beat/";

/// A heartbeat that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Instance of the edge that sent it.
    pub instance: u32,
    /// Position in its lane.
    pub seq: u64,
    /// What it says.
    pub said: Heartbeat,
    /// When it came, on this node's clock.
    pub received_at: WallTime,
    /// Milliseconds that it had waited on the edge when its frame left.
    pub waited_ms: u64,
}

impl Beat {
    /// The entry of the store.
    pub(crate) fn put(&self, edge: &str) -> Put {
        let mut key = KEY_PREFIX.to_vec();
        put_bytes(&mut key, edge.as_bytes());
        let mut value = vec![VERSION];
        for number in [
            u64::from(self.instance),
            self.seq,
            self.said.number,
            self.said.interval_ms,
            self.said.round_trip_ms.map_or(0, |ms| ms.saturating_add(1)),
            self.received_at.0,
            self.waited_ms,
        ] {
            put_u64(&mut value, number);
        }
        Put {
            space: Space::Node,
            key: key.into(),
            value: Bytes::from(value),
        }
    }

    /// Reads an entry of the store.
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Option<(String, Self)> {
        let mut key = key.strip_prefix(KEY_PREFIX)?;
        let edge = take_text(&mut key)?;
        let (&version, mut value) = value.split_first()?;
        let beat = Self {
            instance: take_u32(&mut value)?,
            seq: take_u64(&mut value)?,
            said: Heartbeat {
                number: take_u64(&mut value)?,
                interval_ms: take_u64(&mut value)?,
                round_trip_ms: take_u64(&mut value)?.checked_sub(1),
            },
            received_at: WallTime(take_u64(&mut value)?),
            waited_ms: take_u64(&mut value)?,
        };
        let is_whole = version == VERSION && key.is_empty() && value.is_empty();
        is_whole.then_some((edge, beat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen as version 1: `docs/format/ledger.md`.
    #[test]
    fn a_heartbeat_has_the_bytes_of_the_documented_format() {
        let beat = Beat {
            instance: 2,
            seq: 300,
            said: Heartbeat {
                number: 7,
                interval_ms: 100,
                round_trip_ms: Some(4),
            },
            received_at: WallTime(9),
            waited_ms: 1,
        };
        let put = beat.put("barn");
        assert_eq!(&put.key[..], b"ledger/beat/\x04barn");
        assert_eq!(&put.value[..], [1, 2, 0xAC, 2, 7, 100, 5, 9, 1]);
        assert_eq!(Beat::decode(&put.key, &put.value), Some(("barn".into(), beat)));
        for cut in 0..put.value.len() {
            assert_eq!(Beat::decode(&put.key, &put.value[..cut]), None);
        }
    }
}
