//! Errors of the store, one enum per operation. Each variant says what holds afterwards.

use std::path::PathBuf;

use fellbeck_core::{Seq, TrackId};

use crate::commit::Commit;
use crate::config::ConfigError;

/// The directory could not be opened. Nothing was accepted; the directory is as it was, but for a new incarnation.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds it.
    #[error("{dir} is in use by another process (its LOCK file is held)")]
    Locked {
        /// The store directory.
        dir: PathBuf,
    },
    /// It holds files of something else. Nothing was touched.
    #[error("{dir} is not a Fellbeck store: it holds {found:?} but no FORMAT file; choose an empty directory")]
    Foreign {
        /// The store directory.
        dir: PathBuf,
        /// One of the files that are in the way.
        found: String,
    },
    /// A newer program wrote it. Nothing was touched.
    #[error("{dir} has store format {found}, this program reads up to {supported}; use the program that wrote it")]
    NewerFormat {
        /// The store directory.
        dir: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version that this program reads.
        supported: u32,
    },
    /// It belongs to the other kind of node. Nothing was touched.
    #[error("{dir} is the store of {found} node, not of {wanted} node")]
    OtherLayout {
        /// The store directory.
        dir: PathBuf,
        /// Layout found, with its article.
        found: &'static str,
        /// Layout asked for, with its article.
        wanted: &'static str,
    },
    /// A small file beside the database is unreadable and nothing can replace it.
    #[error("{file} is damaged: {what}; restore it or move the directory away")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The storage engine refused, also with a fresh directory.
    #[error("storage engine in {dir}: {reason}")]
    Engine {
        /// The store directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
}

/// A submission was not taken. The store did not change.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many submissions are outstanding as agreed, or too many bytes are over all submitters. Submit again after a
    /// `Committed` was received; one is on its way, since a submitter with nothing outstanding is always let in.
    #[error("too many submissions outstanding")]
    Full(Commit),
    /// The writer has stopped; nothing will be committed any more.
    #[error("the store has halted")]
    Halted,
    /// A track that does not exist, or a key that is empty or above 65,535 bytes: a mistake of the caller.
    #[error("invalid submission: {0}")]
    Invalid(&'static str),
}

/// A read failed. The store did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The queue of the reader threads is full. Ask again later.
    #[error("too many reads are waiting")]
    Busy,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// There is no such track.
    #[error("no track {0}")]
    NoTrack(TrackId),
    /// The layout of this store does not offer this read.
    #[error("not offered by this layout")]
    OtherLayout,
    /// A keyed value does not decode.
    #[error("damaged value in the store: {0}")]
    Damaged(&'static str),
    /// A batch does not decode; the reader goes on behind it.
    #[error("damaged batch in track {track} at {seq}")]
    DamagedBatch {
        /// Track.
        track: TrackId,
        /// First sequence number of the batch.
        seq: Seq,
    },
    /// The storage engine refused.
    #[error("storage engine: {0}")]
    Engine(String),
}

impl From<fjall::Error> for ReadError {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

/// True for what the environment refuses (no descriptors, no memory, a device error) and may grant later; false for damage:
/// files that are missing or too short (the engine looks before the start of one that is empty, an invalid argument), and
/// everything that does not decode.
pub(crate) fn is_refusal(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => is_refused(io),
        fjall::Error::Locked | fjall::Error::Poisoned => true,
        _ => false,
    }
}

/// As [`is_refusal`], of an error of the system.
pub(crate) fn is_refused(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    !matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof)
}

/// The writer cannot go on: it halts the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HaltError {
    #[error("storage engine: {0}")]
    Engine(#[from] fjall::Error),
    #[error("{0}")]
    Broken(&'static str),
    /// Folders of the database, by number, in which something cannot be read.
    #[error("folders {0:?} of the database are damaged")]
    Unsound(Vec<u64>),
}

impl From<std::io::Error> for HaltError {
    fn from(error: std::io::Error) -> Self {
        Self::Engine(fjall::Error::Io(error))
    }
}
