//! Words of Fellbeck as types: positions, messages, records, topics, and the codecs that carry them.
//!
//! Pure: no runtime, no clock, no I/O. Time is an argument ([`Tick`], [`WallTime`]).
//! Everything that edge, cloud, link and store must agree on lives here, and nothing else.

#![deny(missing_docs)]

pub mod block;
pub mod position;
pub mod properties;
pub mod record;
pub mod time;
pub mod varint;

pub use block::{BlockError, RecordBlock, RecordBlockBuilder};
pub use position::{CommitNumber, Epoch, LogPosition, Offset, PartitionId, Position, Run, Seq, TrackId};
pub use properties::{Properties, PropertiesError};
pub use record::{Origin, QoS, Record};
pub use time::{ClockQuality, Tick, WallTime};
