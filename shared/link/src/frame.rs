//! Frames on a stream: a length, a type, a body.
//!
//! In: bytes of one QUIC stream as they arrive, in any portions. Out: whole frames, still undecoded.
//! The length is checked against `frame_max` before anything is kept for it, and the buffer grows only with bytes
//! that did arrive. Knows nothing of what the types mean: [`ControlFrame`](crate::ControlFrame) and
//! [`LaneFrame`](crate::LaneFrame) do.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::PREFIX;

/// Bytes that are not a frame of this protocol. The stream cannot be read on; the connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix exceeds the limit; nothing was kept.
    #[error("frame of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What the prefix says.
        size: u64,
        /// Bound of this stream.
        limit: u64,
    },
    /// A frame has at least its type byte.
    #[error("frame without a type")]
    Empty,
    /// The type is not one of this kind of stream.
    #[error("unknown frame type {kind:#04x}")]
    UnknownType {
        /// The type byte.
        kind: u8,
    },
    /// The body does not decode, or has bytes left over.
    #[error("malformed frame of type {kind:#04x}")]
    Malformed {
        /// The type byte.
        kind: u8,
    },
    /// A Hello of a version that this code does not speak.
    #[error("protocol version {version} is not supported")]
    Version {
        /// What the Hello says.
        version: u8,
    },
    /// A batch whose own header or checksum is wrong.
    #[error("damaged record batch: {0}")]
    Batch(BatchFault),
}

/// Why a record batch in a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFault {
    /// Header or checksum: see the log of the sender's store.
    Parse,
    /// No record, or a sequence number out of range.
    Range,
}

impl std::fmt::Display for BatchFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Parse => "header or checksum does not hold",
            Self::Range => "no records, or sequence numbers out of range",
        })
    }
}

/// One frame as it stood on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// Type byte.
    pub kind: u8,
    /// What follows it.
    pub body: Bytes,
}

impl RawFrame {
    /// Bytes that the frame took on the stream, prefix included.
    #[must_use]
    pub fn wire_len(&self) -> u64 {
        (PREFIX + 1 + self.body.len()) as u64
    }
}

/// Cuts the bytes of one stream into frames. Holds at most one frame and the portion pushed last.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    frame_max: usize,
    /// Set by the first error: there is no way to find the next frame after it.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder for a stream whose frames have at most `frame_max` bytes after the prefix.
    #[must_use]
    pub fn new(frame_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            frame_max,
            failed: None,
        }
    }

    /// Takes bytes off the stream. Call [`next_frame`](Self::next_frame) until it is dry before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame; `None` until more bytes come. After an error every further call repeats it.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.cut().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    fn cut(&mut self) -> Result<Option<RawFrame>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes(*prefix) as usize;
        if size > self.frame_max {
            return Err(FrameError::TooLarge {
                size: size as u64,
                limit: self.frame_max as u64,
            });
        }
        if size == 0 {
            return Err(FrameError::Empty);
        }
        if self.buffer.len() < PREFIX + size {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let kind = self.buffer.get_u8();
        let body = self.buffer.split_to(size - 1).freeze();
        Ok(Some(RawFrame { kind, body }))
    }

    /// True when the stream ended between two frames; false when it was cut within one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// Starts a frame of type `kind`; [`finish`] fills in its length.
pub(crate) fn begin(kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + 1 + room);
    out.extend_from_slice(&[0; PREFIX]);
    out.push(kind);
    out
}

/// Closes a frame made by [`begin`].
pub(crate) fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let size = u32::try_from(out.len() - PREFIX).expect("a frame stays below 4 GiB");
    out[..PREFIX].copy_from_slice(&size.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = begin(kind, body.len());
        out.extend_from_slice(body);
        finish(out)
    }

    #[test]
    fn frames_come_out_whole_whatever_the_portions() {
        let wire = [frame(1, b"abc"), frame(2, b""), frame(3, &[7; 300])].concat();
        for portion in 1..wire.len() {
            let mut decoder = FrameDecoder::new(301);
            let mut got = Vec::new();
            for bytes in wire.chunks(portion) {
                decoder.push(bytes);
                while let Some(raw) = decoder.next_frame().unwrap() {
                    got.push((raw.kind, raw.body.len()));
                }
            }
            assert_eq!(got, [(1, 3), (2, 0), (3, 300)]);
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_by_its_prefix_alone() {
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&101u32.to_be_bytes());
        let error = FrameError::TooLarge { size: 101, limit: 100 };
        assert_eq!(decoder.next_frame(), Err(error));
        decoder.push(&frame(1, b"x"));
        assert_eq!(decoder.next_frame(), Err(error), "an error of framing is final");
    }

    #[test]
    fn a_frame_without_a_type_is_refused() {
        let mut decoder = FrameDecoder::new(100);
        decoder.push(&[0; 4]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Empty));
    }
}
