//! What the uplink has to remember across restarts and has not handed to the store yet.
//!
//! In: W as the link learns it, the identity of the cloud's log. Out: lazy commits. Pure. Nothing is forgotten before the store has
//! taken it, and what the store would not take is coalesced with what comes.

use std::collections::BTreeMap;

use bytes::Bytes;
use fellbeck_core::{Seq, TrackId};
use fellbeck_store::{Commit, Put, Space, Urgency};

/// Key of the cloud's log id in the node's own keyed space.
pub const LOG_ID_KEY: &[u8] = b"cloud/log-id";

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    log_id: Option<[u8; 16]>,
    log_id_is_new: bool,
    /// W that was not submitted yet, per track, and the book of the lane up to there.
    acked: BTreeMap<TrackId, (Seq, Option<Put>)>,
}

impl Progress {
    /// Begins with the log id as it was stored, if any.
    #[must_use]
    pub fn new(log_id: Option<[u8; 16]>) -> Self {
        Self {
            log_id,
            ..Self::default()
        }
    }

    /// Log of the cloud last spoken to.
    #[must_use]
    pub fn log_id(&self) -> Option<[u8; 16]> {
        self.log_id
    }

    /// The cloud has welcomed this edge to `log_id`.
    pub fn remember_log(&mut self, log_id: [u8; 16]) {
        self.log_id_is_new |= self.log_id != Some(log_id);
        self.log_id = Some(log_id);
    }

    /// W of a track is `w`, and `book` that of its lane up to there.
    pub fn remember_acked(&mut self, track: TrackId, w: Seq, book: Option<Put>) {
        self.acked.insert(track, (w, book));
    }

    /// What is to be submitted, if anything. Followed by [`Progress::submitted`] when the store took it.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        if self.acked.is_empty() && !self.log_id_is_new {
            return None;
        }
        let log_id = self.log_id.filter(|_| self.log_id_is_new);
        let puts = log_id.map(|id| Put {
            space: Space::Node,
            key: Bytes::from_static(LOG_ID_KEY),
            value: Bytes::copy_from_slice(&id),
        });
        // In the commit of the cursor, so that the book is never of another W.
        let books = self.acked.values().filter_map(|(_, book)| book.clone());
        Some(Commit {
            acked: self.acked.iter().map(|(track, (seq, _))| (*track, *seq)).collect(),
            puts: puts.into_iter().chain(books).collect(),
            urgency: Urgency::Lazy,
            ..Commit::default()
        })
    }

    /// The store took what [`Progress::commit`] gave last.
    pub fn submitted(&mut self) {
        self.acked.clear();
        self.log_id_is_new = false;
    }
}
