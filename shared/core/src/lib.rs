//! Words of Fellbeck as types: positions, messages, records, topics, and the codecs that carry them.
//!
//! Pure: no runtime, no clock, no I/O. Time is an argument ([`Tick`], [`WallTime`]).
//! Everything that edge, cloud, link and store must agree on lives here, and nothing else.

#![deny(missing_docs)]

#[cfg(test)]
mod arbitrary;
pub mod batch;
pub mod block;
mod compression;
pub mod filter;
pub mod incarnation;
pub mod kafka;
pub mod ledger;
pub mod limits;
pub mod murmur2;
pub mod position;
pub mod properties;
pub mod record;
pub mod time;
pub mod topic;
pub mod trie;
pub mod varint;

pub use batch::{Batch, BatchError, BatchHeader, Codec};
pub use block::{BlockError, RecordBlock, RecordBlockBuilder};
pub use filter::{Filter, FilterError, ShareName, Subscription};
pub use incarnation::{ChainError, Incarnation, IncarnationChain};
pub use kafka::{KafkaBatch, KafkaError};
pub use ledger::DropReason;
pub use murmur2::partition_for;
pub use position::{CommitNumber, Epoch, LogPosition, Offset, PartitionId, Position, Run, Seq, TrackId};
pub use properties::{Properties, PropertiesError};
pub use record::{Origin, QoS, Record, RecordError};
pub use time::{ClockQuality, Tick, WallTime};
pub use topic::{TopicError, validate_topic_name};
pub use trie::Trie;
