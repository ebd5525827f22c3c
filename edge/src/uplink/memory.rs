//! What the uplink remembers across restarts: the cloud log that it last spoke to, and W of each lane.
//!
//! In: W as the link learns it. Out: lazy commits of the store. W rides with the next commit and costs no sync of its own.
//! What is lost with a crash is only that the cloud tells W again at the next Hello.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fellbeck_core::{Seq, TrackId};
use fellbeck_store::{Commit, Committed, Put, Space, Store, SubmitError, Submitter, Urgency};
use tokio::sync::mpsc;

use crate::ledger::{Declared, LaneBooks};

/// Key of the cloud's log id in the node's own keyed space.
const LOG_ID_KEY: &[u8] = b"cloud/log-id";
/// Submissions under way; at the bound, W waits here and is coalesced.
const OUTSTANDING_MAX: usize = 4;

/// The uplink's own way to the store.
pub(crate) struct Memory {
    submitter: Submitter,
    answers: mpsc::Receiver<Committed>,
    log_id: Option<[u8; 16]>,
    log_id_is_new: bool,
    /// W that was not submitted yet, per track, and the book of the lane up to there.
    acked: BTreeMap<TrackId, (Seq, Option<Put>)>,
    books: Arc<LaneBooks>,
}

impl Memory {
    pub(crate) fn new(store: &Store, books: Arc<LaneBooks>) -> Self {
        let (submitter, answers) = store.submitter(OUTSTANDING_MAX);
        let stored = store.get(Space::Node, LOG_ID_KEY).ok().flatten();
        let log_id = stored.and_then(|stored| <[u8; 16]>::try_from(&stored.value[..]).ok());
        Self {
            submitter,
            answers,
            log_id,
            log_id_is_new: false,
            acked: BTreeMap::new(),
            books,
        }
    }

    /// Log of the cloud last spoken to.
    pub(crate) fn log_id(&self) -> Option<[u8; 16]> {
        self.log_id
    }

    pub(crate) fn remember_log(&mut self, log_id: [u8; 16]) {
        self.log_id_is_new |= self.log_id != Some(log_id);
        self.log_id = Some(log_id);
    }

    pub(crate) fn remember_acked(&mut self, track: TrackId, name: &str, w: Seq) {
        let book = self.books.advance(track, name, w);
        self.acked.insert(track, (w, book));
    }

    /// A range of a lane was declared to the cloud.
    pub(crate) fn declare(&self, track: TrackId, range: (Seq, Seq), what: Declared) {
        self.books.declare(track, range, what);
    }

    /// Hands what is new to the store, unless enough is under way.
    pub(crate) fn flush(&mut self) {
        while self.answers.try_recv().is_ok() {}
        if self.acked.is_empty() && !self.log_id_is_new {
            return;
        }
        let log_id = self.log_id.filter(|_| self.log_id_is_new);
        let puts = log_id.map(|id| Put {
            space: Space::Node,
            key: Bytes::from_static(LOG_ID_KEY),
            value: Bytes::copy_from_slice(&id),
        });
        // In the commit of the cursor, so that the book is never of another W.
        let books = self.acked.values().filter_map(|(_, book)| book.clone());
        let commit = Commit {
            acked: self.acked.iter().map(|(track, (seq, _))| (*track, *seq)).collect(),
            puts: puts.into_iter().chain(books).collect(),
            urgency: Urgency::Lazy,
            ..Commit::default()
        };
        match self.submitter.submit(commit) {
            Ok(_) => {
                self.acked.clear();
                self.log_id_is_new = false;
            }
            // Asked again at the next turn; a halted store ends the node anyway.
            Err(SubmitError::Full(_) | SubmitError::Halted) => {}
            Err(SubmitError::Invalid(what)) => tracing::error!(what, "the store refused the uplink's cursor"),
        }
    }

    /// Resolves when a submission has become durable, so that [`Memory::flush`] may submit the next.
    pub(crate) async fn answered(&mut self) {
        if self.answers.recv().await.is_none() {
            // The store has halted: the node is about to end.
            std::future::pending::<()>().await;
        }
    }
}
