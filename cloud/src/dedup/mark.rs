//! Keys and values of lane watermarks (W), partition marks and edge states in the store.
//!
//! Layouts are drawn in `docs/format/marks.md`. Values carry a version; what does not decode is an error that stops the node,
//! since a mark that is guessed would double or lose records.

use bytes::Bytes;
use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{Epoch, Position, Run, Seq};

const VERSION: u8 = 1;
const KIND_EDGE: u8 = b'e';
const KIND_WATERMARK: u8 = b'w';
const KIND_PARTITION: u8 = b'm';
const KIND_DUPLICATES: u8 = b'd';

/// One run of one lane of one edge instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// Edge name.
    pub edge: String,
    /// Edge instance.
    pub instance: u32,
    /// Lane name.
    pub lane: String,
    /// Run within the lane.
    pub run: Run,
}

/// A decoded entry of the mark space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// Last incarnation that the cloud welcomed.
    Edge {
        edge: String,
        instance: u32,
        epoch: Epoch,
        incarnation: [u8; 16],
    },
    /// Everything up to here is durable, a known duplicate or a declared gap.
    Watermark { lane: LaneKey, position: Position },
    /// Last position of the lane that was appended to the partition's track.
    Partition {
        lane: LaneKey,
        track: String,
        position: Position,
    },
}

/// A mark that does not decode.
#[derive(Debug, thiserror::Error)]
#[error("a dedup mark in the store does not decode (key {key:02x?})")]
pub struct MarkError {
    key: Vec<u8>,
}

/// Key of the state of an edge.
pub fn edge_key(edge: &str) -> Bytes {
    let mut key = vec![KIND_EDGE];
    put_bytes(&mut key, edge.as_bytes());
    key.into()
}

/// Value of the state of an edge.
pub fn edge_value(instance: u32, epoch: Epoch, incarnation: &[u8; 16]) -> Bytes {
    let mut value = vec![VERSION];
    put_u64(&mut value, u64::from(instance));
    put_u64(&mut value, u64::from(epoch.0));
    value.extend_from_slice(incarnation);
    value.into()
}

/// Key of a lane watermark.
pub(crate) fn watermark_key(lane: &LaneKey) -> Bytes {
    lane_key(KIND_WATERMARK, lane).into()
}

/// Key of a partition mark.
pub(crate) fn partition_key(lane: &LaneKey, track: &str) -> Bytes {
    let mut key = lane_key(KIND_PARTITION, lane);
    put_bytes(&mut key, track.as_bytes());
    key.into()
}

/// Key, in the space of the node, of the count of a lane's records that were dropped by their device message ID.
pub(crate) fn duplicates_key(lane: &LaneKey) -> Bytes {
    lane_key(KIND_DUPLICATES, lane).into()
}

/// The lane that such a key names.
pub(crate) fn take_duplicates_key(key: &[u8]) -> Option<LaneKey> {
    let (&kind, mut rest) = key.split_first()?;
    let lane = take_lane(&mut rest)?;
    (kind == KIND_DUPLICATES && rest.is_empty()).then_some(lane)
}

/// Value of a watermark or partition mark.
pub(crate) fn position_value(position: Position) -> Bytes {
    let mut value = vec![VERSION];
    put_u64(&mut value, u64::from(position.epoch.0));
    put_u64(&mut value, position.seq.0);
    value.into()
}

/// Decodes an entry of the mark space.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Mark, MarkError> {
    decode_entry(key, value).ok_or_else(|| MarkError { key: key.to_vec() })
}

fn decode_entry(key: &[u8], value: &[u8]) -> Option<Mark> {
    let (&kind, mut key) = key.split_first()?;
    let (&version, mut value) = value.split_first()?;
    if version != VERSION {
        return None;
    }
    let mark = match kind {
        KIND_EDGE => Mark::Edge {
            edge: take_text(&mut key)?,
            instance: take_u32(&mut value)?,
            epoch: Epoch(take_u32(&mut value)?),
            incarnation: std::mem::take(&mut value).try_into().ok()?,
        },
        KIND_WATERMARK => Mark::Watermark {
            lane: take_lane(&mut key)?,
            position: take_position(&mut value)?,
        },
        KIND_PARTITION => Mark::Partition {
            lane: take_lane(&mut key)?,
            track: take_text(&mut key)?,
            position: take_position(&mut value)?,
        },
        _ => return None,
    };
    (key.is_empty() && value.is_empty()).then_some(mark)
}

fn lane_key(kind: u8, lane: &LaneKey) -> Vec<u8> {
    let mut key = vec![kind];
    put_bytes(&mut key, lane.edge.as_bytes());
    put_u64(&mut key, u64::from(lane.instance));
    put_bytes(&mut key, lane.lane.as_bytes());
    put_u64(&mut key, u64::from(lane.run.0));
    key
}

fn take_lane(key: &mut &[u8]) -> Option<LaneKey> {
    Some(LaneKey {
        edge: take_text(key)?,
        instance: take_u32(key)?,
        lane: take_text(key)?,
        run: Run(u16::try_from(take_u64(key)?).ok()?),
    })
}

fn take_position(value: &mut &[u8]) -> Option<Position> {
    Some(Position {
        epoch: Epoch(take_u32(value)?),
        seq: Seq(take_u64(value)?),
    })
}

fn take_text(input: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(input)?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> LaneKey {
        LaneKey {
            edge: "barn".into(),
            instance: 2,
            lane: "default".into(),
            run: Run(0),
        }
    }

    #[test]
    fn marks_come_back_from_their_bytes() {
        let position = Position {
            epoch: Epoch(7),
            seq: Seq(1 << 40),
        };
        let watermark = decode(&watermark_key(&lane()), &position_value(position)).unwrap();
        assert_eq!(watermark, Mark::Watermark { lane: lane(), position });
        let partition = decode(&partition_key(&lane(), "stream/default/3"), &position_value(position)).unwrap();
        assert_eq!(
            partition,
            Mark::Partition {
                lane: lane(),
                track: "stream/default/3".into(),
                position
            }
        );
        let edge = decode(&edge_key("barn"), &edge_value(2, Epoch(7), &[9; 16])).unwrap();
        assert_eq!(
            edge,
            Mark::Edge {
                edge: "barn".into(),
                instance: 2,
                epoch: Epoch(7),
                incarnation: [9; 16]
            }
        );
    }

    #[test]
    fn a_mark_cut_short_or_with_a_tail_is_refused() {
        let key = watermark_key(&lane());
        let value = position_value(Position::default());
        for cut in 0..value.len() {
            assert!(decode(&key, &value[..cut]).is_err());
        }
        let mut long = value.to_vec();
        long.push(0);
        assert!(decode(&key, &long).is_err());
    }
}
