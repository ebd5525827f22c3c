//! Frames of the downlink stream: what the edge wants and has taken, and the messages.
//!
//! Lists are bounded at decoding; filters are checked there. A record batch is checked by its own checksum and opened by who takes
//! it, with a bound of its own.

use bytes::Bytes;
use fellbeck_core::batch::Batch;
use fellbeck_core::varint::{put_u64, take_u32, take_u64};
use fellbeck_core::{CommitNumber, Filter, LogPosition, WallTime};

use super::{DownMark, FILTER_BYTES_MAX, FILTERS_MAX, WINDOW_MAX};
use crate::frame::{BatchFault, FrameError, RawFrame, begin, finish};
use crate::limits::SEQ_MAX;
use crate::wire::{put_fixed, put_text, take_count, take_flag, take_id, take_text, take_wall};

/// Type of [`FromEdge::Open`].
const OPEN: u8 = 0x40;
/// Type of [`FromEdge::Want`].
const WANT: u8 = 0x41;
/// Type of [`FromEdge::Unwant`].
const UNWANT: u8 = 0x42;
/// Type of [`FromEdge::Complete`].
const COMPLETE: u8 = 0x43;
/// Type of [`FromEdge::Ack`].
const ACK: u8 = 0x44;
/// Type of [`FromCloud::Opened`].
const OPENED: u8 = 0x48;
/// Type of [`FromCloud::NotGranted`].
const NOT_GRANTED: u8 = 0x49;
/// Type of [`FromCloud::Messages`].
const MESSAGES: u8 = 0x4a;

/// First frame of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Messages at QoS 1 and 2 that the edge takes before it has acknowledged one, 1 to [`WINDOW_MAX`].
    pub window: u16,
    /// Newest message that it has.
    pub mark: Option<DownMark>,
}

/// A filter that an edge asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// The filter.
    pub filter: Filter,
    /// Also messages that came from other edges; else only those that were published to the cloud itself.
    pub edges: bool,
}

/// One frame from the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromEdge {
    /// Begins.
    Open(Open),
    /// These are wanted from now on; one that was wanted already is replaced.
    Want(Vec<Wanted>),
    /// These are wanted no longer.
    Unwant(Vec<Filter>),
    /// All that is wanted has been said: what the cloud knows of former links and was not named is wanted no longer.
    Complete,
    /// Messages with these packet IDs are on the edge's flash, or need not be.
    Ack(Vec<u16>),
}

/// Answer to [`Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Identity of the cloud's log.
    pub log_id: [u8; 16],
    /// The present opening of that log: part of the marks of what comes now.
    pub opening: [u8; 16],
    /// How far the edge's mark is true of this log; `None`: not at all, or there was none.
    pub shared: Option<LogPosition>,
    /// The cloud's clock.
    pub now: WallTime,
}

/// What the cloud says of one message beside the message itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// To be acknowledged under this number, never 0; `None` at QoS 0.
    pub packet_id: Option<u16>,
    /// Place in the cloud's log; `None` for a retained message of a new filter, and for what no stream took.
    pub position: Option<LogPosition>,
}

/// Messages in the order in which they are to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// The cloud's clock when the frame was made.
    pub sent_at: WallTime,
    /// One per record of the batch, in its order.
    pub tags: Vec<Tag>,
    /// The records, as the cloud stored them. Its epoch is 0 and its first number 1: they mean nothing here.
    pub batch: Batch,
}

/// One frame from the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCloud {
    /// Begins.
    Opened(Opened),
    /// So many filters of the [`FromEdge::Want`] frames so far are not granted: the cloud's bound on subscriptions.
    NotGranted(u32),
    /// Messages.
    Messages(Messages),
}

impl FromEdge {
    /// Decodes a frame of an edge.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let mut rest = &raw.body[..];
        let frame = match raw.kind {
            OPEN => take_open(&mut rest).map(Self::Open),
            WANT => take_list(&mut rest, FILTERS_MAX, take_wanted).map(Self::Want),
            UNWANT => take_list(&mut rest, FILTERS_MAX, take_filter).map(Self::Unwant),
            COMPLETE => Some(Self::Complete),
            ACK => take_list(&mut rest, usize::from(WINDOW_MAX), take_packet_id).map(Self::Ack),
            kind => return Err(FrameError::UnknownType { kind }),
        };
        frame
            .filter(|_| rest.is_empty())
            .ok_or(FrameError::Malformed { kind: raw.kind })
    }

    /// The frame with its length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let out = match self {
            Self::Open(open) => {
                let mut out = begin(OPEN, 64);
                put_u64(&mut out, u64::from(open.window));
                out.push(u8::from(open.mark.is_some()));
                if let Some(mark) = &open.mark {
                    mark.put(&mut out);
                }
                out
            }
            Self::Want(list) => {
                let mut out = begin(WANT, 256);
                put_u64(&mut out, list.len() as u64);
                for wanted in list {
                    put_text(&mut out, wanted.filter.as_str());
                    out.push(u8::from(wanted.edges));
                }
                out
            }
            Self::Unwant(list) => {
                let mut out = begin(UNWANT, 256);
                put_u64(&mut out, list.len() as u64);
                list.iter().for_each(|filter| put_text(&mut out, filter.as_str()));
                out
            }
            Self::Complete => begin(COMPLETE, 0),
            Self::Ack(ids) => {
                let mut out = begin(ACK, 2 + 3 * ids.len());
                put_u64(&mut out, ids.len() as u64);
                ids.iter().for_each(|id| put_u64(&mut out, u64::from(*id)));
                out
            }
        };
        finish(out).into()
    }
}

impl FromCloud {
    /// Decodes a frame of the cloud.
    pub fn decode(raw: &RawFrame) -> Result<Self, FrameError> {
        let mut rest = &raw.body[..];
        let frame = match raw.kind {
            OPENED => take_opened(&mut rest).map(Self::Opened),
            NOT_GRANTED => take_u32(&mut rest).map(Self::NotGranted),
            MESSAGES => return take_messages(&raw.body),
            kind => return Err(FrameError::UnknownType { kind }),
        };
        frame
            .filter(|_| rest.is_empty())
            .ok_or(FrameError::Malformed { kind: raw.kind })
    }

    /// The frame with its length prefix.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let out = match self {
            Self::Opened(opened) => {
                let mut out = begin(OPENED, 64);
                out.extend_from_slice(&opened.log_id);
                out.extend_from_slice(&opened.opening);
                put_optional_position(&mut out, opened.shared);
                put_fixed(&mut out, opened.now.0);
                out
            }
            Self::NotGranted(count) => {
                let mut out = begin(NOT_GRANTED, 5);
                put_u64(&mut out, u64::from(*count));
                out
            }
            Self::Messages(messages) => {
                let mut out = begin(MESSAGES, 16 + 16 * messages.tags.len() + 64 + messages.batch.body.len());
                put_fixed(&mut out, messages.sent_at.0);
                put_u64(&mut out, messages.tags.len() as u64);
                for tag in &messages.tags {
                    put_u64(&mut out, u64::from(tag.packet_id.unwrap_or(0)));
                    put_optional_position(&mut out, tag.position);
                }
                messages.batch.encode_into(&mut out);
                out
            }
        };
        finish(out).into()
    }
}

pub(super) fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    put_u64(out, position.commit.0);
    put_u64(out, u64::from(position.index));
}

pub(super) fn take_position(input: &mut &[u8]) -> Option<LogPosition> {
    let commit = take_u64(input).filter(|commit| *commit <= SEQ_MAX)?;
    Some(LogPosition {
        commit: CommitNumber(commit),
        index: take_u32(input)?,
    })
}

fn put_optional_position(out: &mut Vec<u8>, position: Option<LogPosition>) {
    out.push(u8::from(position.is_some()));
    if let Some(position) = position {
        put_position(out, position);
    }
}

fn take_optional_position(input: &mut &[u8]) -> Option<Option<LogPosition>> {
    match take_flag(input)? {
        true => take_position(input).map(Some),
        false => Some(None),
    }
}

fn take_list<T>(input: &mut &[u8], max: usize, take: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let count = take_count(input, max)?;
    // Whatever the count says, each item takes at least a byte.
    let mut list = Vec::with_capacity(count.min(input.len()));
    for _ in 0..count {
        list.push(take(input)?);
    }
    Some(list)
}

fn take_open(input: &mut &[u8]) -> Option<Open> {
    let window = take_u64(input).filter(|window| (1..=u64::from(WINDOW_MAX)).contains(window))?;
    let mark = match take_flag(input)? {
        true => Some(DownMark::take(input)?),
        false => None,
    };
    Some(Open {
        window: window as u16,
        mark,
    })
}

/// A filter that an edge may ask for: not of a shared subscription, and not of what the cloud says of itself.
fn take_filter(input: &mut &[u8]) -> Option<Filter> {
    let text = take_text(input, FILTER_BYTES_MAX)?;
    let is_own = ["$share", "$SYS"].contains(&text.split('/').next()?);
    Filter::parse(text).ok().filter(|_| !is_own)
}

fn take_wanted(input: &mut &[u8]) -> Option<Wanted> {
    Some(Wanted {
        filter: take_filter(input)?,
        edges: take_flag(input)?,
    })
}

fn take_packet_id(input: &mut &[u8]) -> Option<u16> {
    u16::try_from(take_u64(input)?).ok().filter(|id| *id != 0)
}

fn take_opened(input: &mut &[u8]) -> Option<Opened> {
    Some(Opened {
        log_id: take_id(input)?,
        opening: take_id(input)?,
        shared: take_optional_position(input)?,
        now: take_wall(input)?,
    })
}

fn take_tag(input: &mut &[u8]) -> Option<Tag> {
    let packet_id = u16::try_from(take_u64(input)?).ok()?;
    Some(Tag {
        packet_id: (packet_id != 0).then_some(packet_id),
        position: take_optional_position(input)?,
    })
}

fn take_messages(body: &Bytes) -> Result<FromCloud, FrameError> {
    let malformed = FrameError::Malformed { kind: MESSAGES };
    let mut rest = &body[..];
    let sent_at = take_wall(&mut rest).ok_or(malformed)?;
    let tags = take_list(&mut rest, usize::from(WINDOW_MAX), take_tag).ok_or(malformed)?;
    let bytes = body.slice(body.len() - rest.len()..);
    let batch = Batch::parse(bytes).map_err(|_| FrameError::Batch(BatchFault::Parse))?;
    if batch.header.count as usize != tags.len() {
        return Err(FrameError::Batch(BatchFault::Range));
    }
    Ok(FromCloud::Messages(Messages { sent_at, tags, batch }))
}
