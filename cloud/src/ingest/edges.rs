//! The edges of this cloud: for each, its durable marks and at most one live link.
//!
//! In: the mark space of the store at start; then links that come and go. Out: what admission asks, and a way to reach a live link.
//! A slot is never removed, so there are as many as edges ever linked to this log. The lock of a slot's admission is held while a
//! link is admitted; the marks behind the std mutex are touched for a few instructions only.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fellbeck_core::{Incarnation, TrackId};
use fellbeck_link::ByeReason;
use fellbeck_store::{ReadError, Space, Store, Stored};
use tokio::sync::{mpsc, oneshot, watch};

use crate::dedup::book::Book;
use crate::dedup::mark;
use crate::ledger::{Beat, EdgeLedger, LaneCounts};

/// What one link asks of another of the same edge.
#[derive(Debug)]
pub(crate) enum Command {
    /// Find out whether the edge is there.
    Probe(oneshot::Sender<bool>),
    /// End the link.
    Leave(ByeReason),
}

/// A link that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// Instance of the edge at its other end.
    pub(crate) instance: u32,
    /// Incarnation of the edge at its other end.
    pub(crate) incarnation: Incarnation,
    /// To its driver.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Becomes true when the connection has ended.
    pub(crate) gone: watch::Receiver<bool>,
    /// Becomes true when nothing of it is under way to the log any more.
    pub(crate) drained: watch::Receiver<bool>,
}

/// All that is known of one edge.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Held by the connection that is being admitted; one at a time.
    pub(crate) admission: tokio::sync::Mutex<Option<Live>>,
    /// Connections that are being admitted or wait for it.
    pub(crate) waiting: AtomicUsize,
    book: Mutex<Book>,
    ledger: Mutex<EdgeLedger>,
}

impl Slot {
    /// The durable marks.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        // Each change of a book is whole after a single call.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The books of the links, and their health.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, EdgeLedger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edges by name.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The marks of the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A mark does not decode.
    #[error(transparent)]
    Mark(#[from] mark::MarkError),
}

impl Edges {
    /// Reads all marks. Blocks.
    pub(crate) fn load(store: &Store) -> Result<Self, LoadError> {
        let edges = Self::default();
        let track_of = |name: &str| -> Option<TrackId> { store.track(name) };
        for stored in store.load(Space::Mark)? {
            let mark = mark::decode(&stored.key, &stored.value)?;
            let name = match &mark {
                mark::Mark::Edge { edge, .. } => edge.clone(),
                mark::Mark::Watermark { lane, .. } | mark::Mark::Partition { lane, .. } => lane.edge.clone(),
            };
            edges.slot(&name).book().load(mark, track_of);
        }
        edges.load_ledger(store.load(Space::Node)?);
        Ok(edges)
    }

    /// Entries that do not decode cost their book, and nothing else: it opens anew at the next ingest.
    fn load_ledger(&self, stored: Vec<Stored>) {
        for Stored { key, value, .. } in stored.iter().filter(|stored| stored.key.starts_with(b"ledger/")) {
            if let Some((edge, lane, counts)) = LaneCounts::decode(key, value) {
                self.slot(&edge).ledger().load_lane(lane, counts);
            } else if let Some((edge, beat)) = Beat::decode(key, value) {
                self.slot(&edge).ledger().load_beat(beat);
            } else {
                tracing::error!(?key, "an entry of the ledger does not decode: its book begins anew");
            }
        }
    }

    /// All edges, in the order of their names.
    pub(crate) fn all(&self) -> Vec<(String, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = slots.iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The slot of an edge, made when it is new.
    pub(crate) fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::default());
        slots.insert(name.to_owned(), slot.clone());
        slot
    }
}
