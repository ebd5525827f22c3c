//! Frames of the control stream, in both directions.
//!
//! In and out: one frame. All of them are small and bounded; none carries records.

use bytes::Bytes;
use fellbeck_core::Position;
use fellbeck_core::varint::{put_u64, take_u64};

use crate::frame::{FrameError, RawFrame, begin, finish};
use crate::limits::{LANES_MAX, TEXT_MAX, VERSION};
use crate::wire::{
    put_fixed, put_position, put_text, take_count, take_fixed, take_lane, take_position, take_text, take_u8,
};
use crate::{ByeReason, Hello, LaneIndex, RefuseCode, Welcome};

/// Type of [`ControlFrame::Hello`].
pub const HELLO: u8 = 0x01;
/// Type of [`ControlFrame::Welcome`].
pub const WELCOME: u8 = 0x02;
/// Type of [`ControlFrame::Refused`].
pub const REFUSED: u8 = 0x03;
/// Type of [`ControlFrame::Ack`].
pub const ACK: u8 = 0x04;
/// Type of [`ControlFrame::Credit`].
pub const CREDIT: u8 = 0x05;
/// Type of [`ControlFrame::Ping`].
pub const PING: u8 = 0x06;
/// Type of [`ControlFrame::Pong`].
pub const PONG: u8 = 0x07;
/// Type of [`ControlFrame::Bye`].
pub const BYE: u8 = 0x08;

/// W of one lane, cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneAck {
    /// Which lane of the Hello.
    pub lane: LaneIndex,
    /// Everything up to here is durable in the cloud, a known duplicate or a declared gap.
    pub w: Position,
}

/// One frame of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlFrame {
    /// Edge to cloud, first.
    Hello(Hello),
    /// Cloud to edge, first, when the Hello is accepted.
    Welcome(Welcome),
    /// Cloud to edge, first and last, when it is not.
    Refused {
        /// What the edge acts on.
        code: RefuseCode,
        /// What its operator reads.
        text: String,
    },
    /// Cloud to edge: W of the lanes where it moved.
    Ack(Vec<LaneAck>),
    /// Cloud to edge: bytes of lane frames granted since the connection began.
    Credit(u64),
    /// Cloud to edge: is anybody there?
    Ping {
        /// Comes back in the Pong.
        nonce: u64,
    },
    /// Edge to cloud.
    Pong {
        /// Of the Ping.
        nonce: u64,
    },
    /// Either way, last.
    Bye(ByeReason),
}

impl ControlFrame {
    /// Decodes a frame of a control stream.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let mut rest = &raw.body[..];
        let input = &mut rest;
        let frame = match raw.kind {
            HELLO => {
                // A later version may have another layout: only its first byte is promised.
                match take_u8(input) {
                    Some(VERSION) => Hello::take(input).map(Self::Hello),
                    Some(version) => return Err(FrameError::Version { version }),
                    None => None,
                }
            }
            WELCOME => Welcome::take(input).map(Self::Welcome),
            REFUSED => take_refused(input),
            ACK => take_acks(input).map(Self::Ack),
            CREDIT => take_u64(input).map(Self::Credit),
            PING => take_fixed(input).map(|nonce| Self::Ping { nonce }),
            PONG => take_fixed(input).map(|nonce| Self::Pong { nonce }),
            BYE => take_u8(input).and_then(ByeReason::from_u8).map(Self::Bye),
            kind => return Err(FrameError::UnknownType { kind }),
        };
        frame
            .filter(|_| rest.is_empty())
            .ok_or(FrameError::Malformed { kind: raw.kind })
    }

    /// The frame with its length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = begin(self.kind(), 64);
        match self {
            Self::Hello(hello) => {
                out.push(VERSION);
                hello.put(&mut out);
            }
            Self::Welcome(welcome) => welcome.put(&mut out),
            Self::Refused { code, text } => {
                out.push(*code as u8);
                put_text(&mut out, cut(text, TEXT_MAX));
            }
            Self::Ack(acks) => {
                put_u64(&mut out, acks.len() as u64);
                for ack in acks {
                    put_u64(&mut out, u64::from(ack.lane.0));
                    put_position(&mut out, ack.w);
                }
            }
            Self::Credit(granted) => put_u64(&mut out, *granted),
            Self::Ping { nonce } | Self::Pong { nonce } => put_fixed(&mut out, *nonce),
            Self::Bye(reason) => out.push(*reason as u8),
        }
        finish(out).into()
    }

    /// Name of the frame in logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Refused { .. } => "refused",
            Self::Ack(_) => "ack",
            Self::Credit(_) => "credit",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::Bye(_) => "bye",
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Welcome(_) => WELCOME,
            Self::Refused { .. } => REFUSED,
            Self::Ack(_) => ACK,
            Self::Credit(_) => CREDIT,
            Self::Ping { .. } => PING,
            Self::Pong { .. } => PONG,
            Self::Bye(_) => BYE,
        }
    }
}

fn take_refused(input: &mut &[u8]) -> Option<ControlFrame> {
    let code = RefuseCode::from_u8(take_u8(input)?)?;
    let text = take_text(input, TEXT_MAX)?.to_owned();
    Some(ControlFrame::Refused { code, text })
}

fn take_acks(input: &mut &[u8]) -> Option<Vec<LaneAck>> {
    let count = take_count(input, LANES_MAX)?;
    let mut take_one = || {
        let lane = take_lane(input)?;
        let w = take_position(input)?;
        Some(LaneAck { lane, w })
    };
    (0..count).map(|_| take_one()).collect()
}

/// The longest prefix of `text` of at most `bytes_max` bytes that ends between two characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
