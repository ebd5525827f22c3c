//! The protocol between an edge and the cloud, as state machines without I/O.
//!
//! In: frames and bytes that a driver received, reads from the store, time as an argument. Out: frames to write,
//! reads to make, records to append, positions to remember. [`Sender`] is the edge's half, [`Receiver`] the cloud's;
//! [`admit`] decides at Hello who may speak at all, and both halves are tested as a pair in virtual time. No socket,
//! no runtime, no clock, no randomness that is not seeded. The bytes on the wire are drawn in `docs/format/link.md`.
//!
//! Holds I2, I3 and I4 for the link: nothing is skipped without a declared gap, W moves only over what is durable,
//! known or declared, and no record below W is handed to the cloud's log again.

#![deny(missing_docs)]

pub mod admission;
pub mod backoff;
pub mod control;
pub mod credit;
pub mod data;
pub mod downlink;
pub mod error;
pub mod frame;
pub mod health;
pub mod heartbeat;
pub mod hello;
pub mod limits;
pub mod receiver;
pub mod refuse;
pub mod sender;

#[cfg(test)]
mod codec_tests;
mod lane;
#[cfg(test)]
mod pair_tests;
mod wire;

pub use admission::{Admission, Decision, KnownEdge, LaneMark, LiveConnection, Relation, admit};
pub use backoff::Backoff;
pub use control::{ControlFrame, LaneAck};
pub use data::{Gap, LaneFrame, Skip};
pub use error::LinkError;
pub use frame::{FrameDecoder, FrameError, RawFrame};
pub use health::{Flow, HealthMonitor, LinkHealth};
pub use heartbeat::Heartbeat;
pub use hello::{Hello, LaneHello, LaneWelcome, NodeKind, Welcome};
pub use lane::LaneIndex;
pub use receiver::{Ingest, IngestEntry, Receiver, ReceiverConfig, ReceiverEvent, ReceiverStats};
pub use refuse::{ByeReason, RefuseCode};
pub use sender::{
    Connected, Entry, LaneBounds, LaneRead, LaneSpec, Sender, SenderConfig, SenderEvent, SenderStats, StreamId,
    Transmit,
};
