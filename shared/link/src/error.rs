//! What the other side did wrong. Every variant ends the connection; none of them touches what is durable.

use fellbeck_core::{Position, Seq};

use crate::{FrameError, LaneIndex};

/// A breach of the link protocol. The half that returns it takes and gives nothing more on this connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Bytes that do not decode.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that does not belong here: wrong direction, or before or after its time.
    #[error("unexpected {frame} frame")]
    Unexpected {
        /// Its name.
        frame: &'static str,
    },
    /// A Welcome or a Hello that does not fit the other.
    #[error("{lanes} lanes in the welcome for {expected} in the hello")]
    LaneCount {
        /// In the Welcome.
        lanes: usize,
        /// In the Hello.
        expected: usize,
    },
    /// A lane that the Hello does not have.
    #[error("lane {lane} is not in the hello")]
    UnknownLane {
        /// Its number.
        lane: LaneIndex,
    },
    /// A second stream for a lane, a stream without a lane, or one stream too many.
    #[error("lane stream out of order: {what}")]
    Stream {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A jump that no Gap and no Skip declares. Nothing of the frame was taken.
    #[error("undeclared hole in lane {lane}: expected {expected}, got {got}")]
    Hole {
        /// The lane.
        lane: LaneIndex,
        /// Sequence number that had to come.
        expected: Seq,
        /// Sequence number that came.
        got: Seq,
    },
    /// Records of a newer epoch at sequence numbers that an older epoch already has. Nothing of the frame was taken.
    #[error("lane {lane} restarted its sequence: {got} came after {through}")]
    SequenceRestarted {
        /// The lane.
        lane: LaneIndex,
        /// Last position taken.
        through: Position,
        /// Position that came.
        got: Position,
    },
    /// Records of an older epoch behind those of a newer one. Nothing of the frame was taken.
    #[error("lane {lane} went back in epochs: {got} came after {through}")]
    EpochWentBack {
        /// The lane.
        lane: LaneIndex,
        /// Last position taken.
        through: Position,
        /// Position that came.
        got: Position,
    },
    /// A batch whose records would take more memory than the cloud allows.
    #[error("batch of {raw_len} bytes exceeds the limit of {limit}")]
    BatchTooLarge {
        /// What its header says.
        raw_len: u64,
        /// The bound.
        limit: u64,
    },
    /// The edge sent more than it was granted.
    #[error("credit overrun: {outstanding} bytes outstanding, at most {limit} granted")]
    CreditOverrun {
        /// Bytes taken and not yet durable.
        outstanding: u64,
        /// What the credit allows at most.
        limit: u64,
    },
    /// The cloud acknowledged what was not sent, or a position that was not minted.
    #[error("ack of {w} in lane {lane}, of which only {sent:?} was sent")]
    AckBeyondSent {
        /// The lane.
        lane: LaneIndex,
        /// What was acked.
        w: Position,
        /// Last position sent.
        sent: Option<Seq>,
    },
    /// The connection was already closed by an error or a Bye.
    #[error("the link is closed")]
    Closed,
}
