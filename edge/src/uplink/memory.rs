//! What the uplink remembers across restarts: the cloud log that it last spoke to, and W of each lane.
//!
//! In: W as the link learns it. Out: lazy commits of the store. W rides with the next commit and costs no sync of its own.
//! What is lost with a crash is only that the cloud tells W again at the next Hello.

use std::sync::Arc;

use fellbeck_core::{Seq, TrackId};
use fellbeck_store::{Committed, Space, Store, SubmitError, Submitter};
use tokio::sync::mpsc;

use super::progress::{LOG_ID_KEY, Progress};
use crate::ledger::{Declared, LaneBooks};

/// Submissions under way; at the bound, W waits here and is coalesced.
const OUTSTANDING_MAX: usize = 4;

/// The uplink's own way to the store.
pub(crate) struct Memory {
    submitter: Submitter,
    answers: mpsc::Receiver<Committed>,
    progress: Progress,
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
            progress: Progress::new(log_id),
            books,
        }
    }

    /// Log of the cloud last spoken to.
    pub(crate) fn log_id(&self) -> Option<[u8; 16]> {
        self.progress.log_id()
    }

    pub(crate) fn remember_log(&mut self, log_id: [u8; 16]) {
        self.progress.remember_log(log_id);
    }

    pub(crate) fn remember_acked(&mut self, track: TrackId, name: &str, w: Seq) {
        let book = self.books.advance(track, name, w);
        self.progress.remember_acked(track, w, book);
    }

    /// A range of a lane was declared to the cloud.
    pub(crate) fn declare(&self, track: TrackId, range: (Seq, Seq), what: Declared) {
        self.books.declare(track, range, what);
    }

    /// Hands what is new to the store, unless enough is under way.
    pub(crate) fn flush(&mut self) {
        while self.answers.try_recv().is_ok() {}
        let Some(commit) = self.progress.commit() else {
            return;
        };
        match self.submitter.submit(commit) {
            Ok(_) => self.progress.submitted(),
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
