//! Frames of the downlink stream, from either side, and what the stores keep of it.

use bytes::Bytes;
use fellbeck_core::limits::FRAME_MAX;
use fellbeck_link::downlink::{FromCloud, FromEdge, Openings, StoredMark, WINDOW_MAX};
use fellbeck_link::limits::PREFIX;
use fellbeck_link::{FrameDecoder, RawFrame};

use super::RAW_MAX;

/// The input is a frame without its length: a type byte, then the body. A body is also tried as a stored value.
pub(super) fn link_downlink(data: &[u8]) -> bool {
    let Some((&kind, body)) = data.split_first() else {
        return false;
    };
    check_stored(body);
    let frame = RawFrame {
        kind,
        body: Bytes::copy_from_slice(body),
    };
    if let Ok(from_edge) = FromEdge::decode(&frame) {
        let encoded = from_edge.encode();
        assert!(
            encoded.len() <= PREFIX + data.len(),
            "an encoder writes the shortest form"
        );
        let again = FromEdge::decode(&cut_one(&encoded)).expect("what was encoded decodes");
        assert_eq!(again, from_edge);
        return true;
    }
    let Ok(from_cloud) = FromCloud::decode(&frame) else {
        return false;
    };
    let encoded = from_cloud.encode();
    assert!(
        encoded.len() <= PREFIX + data.len(),
        "an encoder writes the shortest form"
    );
    let again = FromCloud::decode(&cut_one(&encoded)).expect("what was encoded decodes");
    assert_eq!(again, from_cloud);
    if let FromCloud::Messages(messages) = &from_cloud {
        assert!(messages.tags.len() <= usize::from(WINDOW_MAX));
        if let Ok(block) = messages.batch.open(RAW_MAX) {
            assert_eq!(block.len(), messages.tags.len(), "one tag per record");
        }
    }
    true
}

fn check_stored(bytes: &[u8]) {
    if let Some(mark) = StoredMark::decode(bytes) {
        assert_eq!(StoredMark::decode(&mark.encode()), Some(mark));
    }
    if let Some(openings) = Openings::decode(bytes) {
        assert_eq!(Openings::decode(&openings.encode()), Some(openings));
    }
}

fn cut_one(bytes: &[u8]) -> RawFrame {
    let mut decoder = FrameDecoder::new(FRAME_MAX);
    decoder.push(bytes);
    let frame = decoder.next_frame().expect("a frame of ours is not too large");
    frame.expect("one whole frame")
}
