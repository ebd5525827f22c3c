//! What the sender tells its driver beside frames, reads and W, and what it counts.
//!
//! An event is something that an operator may have to know or the driver has to act on; each is one line in a log.
//! The counters go on over reconnects.

use fellbeck_core::{Epoch, Position, Seq, WallTime};

use crate::{ByeReason, Gap, LaneIndex, RefuseCode};

/// What the driver has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SenderEvent {
    /// The cloud took the Hello; data flows. Remember log id and instance.
    Welcomed {
        /// The cloud's log.
        log_id: [u8; 16],
        /// Differs from the one that the Hello named.
        log_changed: bool,
        /// Instance of this edge.
        instance: u32,
        /// The cloud's clock.
        cloud_now: WallTime,
    },
    /// The cloud does not take the link. Close; retry no sooner than the code says.
    Refused {
        /// Why.
        code: RefuseCode,
        /// For the operator.
        text: String,
    },
    /// The cloud knows less than it acknowledged before: it was restored. Resending from what is still held.
    CloudWentBack {
        /// The lane.
        lane: LaneIndex,
        /// W of the cloud now.
        cloud_w: Option<Position>,
        /// W as this edge knew it.
        edge_w: Seq,
    },
    /// Records that the cloud needs are not held any more; the range was declared.
    GapDeclared {
        /// The lane.
        lane: LaneIndex,
        /// The range.
        gap: Gap,
    },
    /// The store is empty but the name is known: reopen it in this epoch, each lane above its floor, and connect
    /// again. Closing.
    Adopt {
        /// Epoch to continue in.
        epoch: Epoch,
        /// W of each lane.
        floors: Vec<Option<Position>>,
    },
    /// The cloud has other records at positions of this edge: a clone or a restored backup. Nothing was sent. Closing.
    Diverged {
        /// The lane.
        lane: LaneIndex,
        /// W of the cloud.
        cloud_w: Position,
        /// Epoch of the record that this edge holds there.
        held: Epoch,
    },
    /// The cloud has records that this edge has not minted yet. Nothing was sent. Closing.
    CloudAhead {
        /// The lane.
        lane: LaneIndex,
        /// W of the cloud.
        cloud_w: Position,
        /// Next sequence number here.
        end: Seq,
    },
    /// The cloud left. Close.
    Bye(ByeReason),
    /// No answer to the Hello in time. Close.
    TimedOut,
}

/// Counters since the sender was made; they go on over reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderStats {
    /// Frames of lane streams.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records in batches sent, resent ones included.
    pub records: u64,
    /// Records declared as gaps because they were not held any more, repeats included.
    pub gap_records: u64,
    /// Acks that moved W.
    pub acks: u64,
}
