//! The durable store of a node: a log of records in tracks, keyed values beside it, one writer, many readers.
//!
//! In: change sets ([`Commit`]) through [`Submitter`]s; the writer thread joins them into atomic, synced, numbered commits.
//! Out: [`Committed`] per submission, the newest records from memory ([`Tail`]), everything else through reader threads.
//! Trims what is acknowledged or beyond retention, and knows what was lost when a directory was damaged.
//! Holds I1, I2 and I5. Knows nothing of MQTT, links or routing; values of sessions and retained messages are opaque to it.
//! The files are drawn in `docs/format/store.md`.

#![deny(missing_docs)]

mod ballast;
mod catalog;
mod codec;
pub mod commit;
pub mod committed;
pub mod config;
mod cursor;
mod directory;
mod doctor;
mod engine;
pub mod entry;
pub mod error;
pub mod export;
#[cfg(test)]
mod golden_tests;
mod high_water;
mod in_use;
mod janitor;
mod journal;
mod key;
mod keyed;
mod ledger;
pub mod losses;
mod manifest;
mod memory;
mod merge;
pub mod offline;
pub mod policy;
mod pool;
mod queue;
mod read_log;
mod read_track;
mod recovery;
pub mod report;
mod ring;
mod salvage;
mod salvage_note;
mod segment;
mod set_aside;
mod shared;
pub mod stats;
mod store;
mod survey;
pub mod tail;
#[cfg(test)]
mod testing;
mod trim;
mod writer;

/// What of the store decides without touching a disk. Public for whoever models a store: the simulation in `tests`.
pub mod pure {
    pub use crate::merge::Merged;
    pub use crate::trim::{Candidate, CloudBounds, EdgeBounds, Trim, cloud as trim_cloud, edge as trim_edge};
}

pub use commit::{Append, Commit, Committed, Delete, Put, Space, Stored, Ticket, Urgency};
pub use committed::{CommittedBlock, LogRead, TrackBlock};
pub use config::{ConfigError, Layout, StoreConfig};
pub use entry::{Gap, RecordsAt, TrackBounds, TrackEntry, TrackRead, TrackRecords};
pub use error::{OpenError, ReadError, SubmitError};
pub use ledger::{Counted, TrackLedger};
pub use losses::Loss;
pub use offline::{Examination, Offline, OfflineBatch, Range};
pub use policy::{Admission, Overflow, TrackPolicy};
pub use queue::Submitter;
pub use report::OpenReport;
pub use stats::{Level, Pressure, StoreStats, TrackStats};
pub use store::{Store, open};
pub use tail::{Tail, TailRead};
