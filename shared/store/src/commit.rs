//! What a node asks its store to write, and what the store answers.
//!
//! In: a [`Commit`], handed over by a submitter. Out: one [`Committed`] per submitted commit, in the order of submission.
//! The writer may join any number of submissions into one atomic, synced write; they then share a commit number.

use bytes::Bytes;
use fellbeck_core::{CommitNumber, RecordBlock, Seq, TrackId};

/// One change set: all of it becomes durable at once, or none of it.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Records for the ends of tracks. Order within a track is kept.
    pub appends: Vec<Append>,
    /// Keyed values to write.
    pub puts: Vec<Put>,
    /// Keyed values to remove.
    pub deletes: Vec<Delete>,
    /// Progress of the reader that pins a track: everything up to and including the sequence number may be trimmed.
    pub acked: Vec<(TrackId, Seq)>,
    /// Oldest commit that a persistent session of this node still has to read. `None` leaves the floor as it was.
    pub session_floor: Option<CommitNumber>,
    /// Whether the writer must start a commit for it.
    pub urgency: Urgency,
}

/// When a submission has to be on flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Urgency {
    /// As soon as the writer is free: somebody waits for the acknowledgement.
    #[default]
    Now,
    /// With the next commit, at the latest after one second: cursor moves, link acks.
    Lazy,
}

/// Records for the end of one track.
#[derive(Debug, Clone)]
pub struct Append {
    /// Lane and run, or partition.
    pub track: TrackId,
    /// The records, in order. Not empty.
    pub block: RecordBlock,
}

/// A keyed value. The store stamps it with the number of the commit that wrote it.
#[derive(Debug, Clone)]
pub struct Put {
    /// Which keyed store.
    pub space: Space,
    /// Key, at most 65,535 bytes.
    pub key: Bytes,
    /// Opaque, versioned by its owner.
    pub value: Bytes,
}

/// Removal of a keyed value; a missing key is not an error.
#[derive(Debug, Clone)]
pub struct Delete {
    /// Which keyed store.
    pub space: Space,
    /// Key.
    pub key: Bytes,
}

/// The keyed stores beside the log, written in the same commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// State of persistent sessions and shared groups.
    Session,
    /// Retained messages; the key is the topic name.
    Retained,
    /// Lane watermarks and partition marks of the cloud.
    Mark,
    /// Anything else that a node keeps.
    Node,
}

/// A keyed value as read back.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Key.
    pub key: Bytes,
    /// Value as it was put.
    pub value: Bytes,
    /// Commit that wrote it.
    pub commit: CommitNumber,
}

/// Numbers the submissions of one submitter, from 1, without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// A submission is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Which submission.
    pub ticket: Ticket,
    /// Commit that holds it.
    pub commit: CommitNumber,
}
