//! Frames of the link: cutting a stream into frames, and decoding them.

use bytes::Bytes;
use fellbeck_link::limits::{CONTROL_FRAME_MAX, EPOCH_MAX, PREFIX, SEQ_MAX};
use fellbeck_link::{ControlFrame, FrameDecoder, FrameError, LaneFrame, RawFrame};

use super::batch::mended;

/// Bytes of a batch frame before its batch: the sender's time.
const SENT_AT: usize = 8;

/// The input is a frame without its length: a type byte, then the body.
pub(super) fn link_control_frame(data: &[u8]) -> bool {
    let Some((&kind, body)) = data.split_first() else {
        return false;
    };
    let Ok(frame) = ControlFrame::decode(&raw(kind, body)) else {
        return false;
    };
    assert!(!frame.name().is_empty());
    let encoded = frame.encode();
    assert!(
        encoded.len() <= PREFIX + data.len(),
        "an encoder writes the shortest form"
    );
    assert!(
        encoded.len() <= PREFIX + CONTROL_FRAME_MAX,
        "a control frame fits the bound of its stream"
    );
    let again = cut_one(&encoded, CONTROL_FRAME_MAX);
    assert_eq!(again.kind, kind);
    let decoded = ControlFrame::decode(&again).expect("what was encoded decodes");
    assert_eq!(decoded, frame);
    assert_eq!(decoded.encode(), encoded);
    true
}

/// The input is as for [`link_control_frame`]; the batch within a batch frame is also tried with its checksum mended.
pub(super) fn link_lane_frame(data: &[u8]) -> bool {
    let Some((&kind, body)) = data.split_first() else {
        return false;
    };
    let as_it_is = check_lane_frame(kind, body);
    as_it_is || mended_body(kind, body).is_some_and(|body| check_lane_frame(kind, &body))
}

/// The body of a batch frame with its batch mended.
pub(super) fn mended_body(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    let (sent_at, batch) = body.split_at_checked(SENT_AT)?;
    let batch = mended(batch).filter(|_| kind == fellbeck_link::data::BATCH)?;
    Some([sent_at, &batch].concat())
}

fn check_lane_frame(kind: u8, body: &[u8]) -> bool {
    let Ok(frame) = LaneFrame::decode(&raw(kind, body)) else {
        return false;
    };
    let range = match &frame {
        LaneFrame::Start(_) => None,
        LaneFrame::Batch { batch, .. } => Some((batch.header.epoch, batch.header.first, batch.last())),
        LaneFrame::Gap(gap) => Some((gap.epoch, gap.first, gap.last)),
        LaneFrame::Skip(skip) => Some((skip.epoch, skip.first, skip.last)),
    };
    if let Some((epoch, first, last)) = range {
        assert!(
            epoch.0 <= EPOCH_MAX && 0 < first.0 && first <= last && last.0 <= SEQ_MAX,
            "a sound range"
        );
    }
    let encoded = frame.encode();
    assert!(
        encoded.len() <= PREFIX + 1 + body.len(),
        "an encoder writes the shortest form"
    );
    let again = cut_one(&encoded, encoded.len());
    if let LaneFrame::Batch { .. } = frame {
        assert_eq!(again, raw(kind, body), "a batch crosses the link unchanged");
    }
    let decoded = LaneFrame::decode(&again).expect("what was encoded decodes");
    assert_eq!(decoded.encode(), encoded);
    true
}

/// The input: a byte for the largest frame, a byte for the portions in which the stream arrives, then the stream.
pub(super) fn link_frame_decoder(data: &[u8]) -> bool {
    let Some((&[limit, portion], wire)) = data.split_first_chunk::<2>() else {
        return false;
    };
    let frame_max = 1 + usize::from(limit) * 4;
    let (expected, error, rest) = cut_all(wire, frame_max);
    let mut decoder = FrameDecoder::new(frame_max);
    let mut got = Vec::new();
    let mut failed = None;
    for bytes in wire.chunks(usize::from(portion) + 1) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => got.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame(), Err(error), "an error of framing is final");
                    assert!(failed.is_none_or(|first| first == error));
                    failed = Some(error);
                    break;
                }
            }
        }
    }
    assert_eq!(got, expected, "frames do not depend on the portions");
    assert_eq!(failed, error);
    assert_eq!(decoder.is_empty(), error.is_some() || rest == 0);
    let taken: u64 = got.iter().map(RawFrame::wire_len).sum();
    assert_eq!(taken + rest as u64, wire.len() as u64, "every byte is accounted for");
    !got.is_empty()
}

/// The same stream cut the plain way: frames, the first error, and the bytes behind the last frame.
fn cut_all(mut wire: &[u8], frame_max: usize) -> (Vec<RawFrame>, Option<FrameError>, usize) {
    let mut frames = Vec::new();
    let mut error = None;
    while let Some((prefix, tail)) = wire.split_first_chunk::<PREFIX>() {
        let size = u32::from_be_bytes(*prefix) as usize;
        if size == 0 {
            error = Some(FrameError::Empty);
            break;
        }
        if size > frame_max {
            let (size, limit) = (size as u64, frame_max as u64);
            error = Some(FrameError::TooLarge { size, limit });
            break;
        }
        let Some((frame, tail)) = tail.split_at_checked(size) else {
            break;
        };
        frames.push(raw(frame[0], &frame[1..]));
        wire = tail;
    }
    (frames, error, wire.len())
}

fn raw(kind: u8, body: &[u8]) -> RawFrame {
    RawFrame {
        kind,
        body: Bytes::copy_from_slice(body),
    }
}

/// The one frame in `bytes`.
fn cut_one(bytes: &[u8], frame_max: usize) -> RawFrame {
    let mut decoder = FrameDecoder::new(frame_max);
    decoder.push(bytes);
    let frame = decoder
        .next_frame()
        .expect("its own limit holds")
        .expect("one whole frame");
    assert!(decoder.is_empty(), "one frame and no more");
    frame
}
