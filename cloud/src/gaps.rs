//! The gaps that edges have declared, as `/api/v1/gaps` shows them.
//!
//! In: what the stream of gaps holds at the start, then each gap of an ingest. Out: the newest of them. The stream has all of them; this
//! list is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use fellbeck_core::{Seq, TrackId};
use fellbeck_node::losses;
use fellbeck_store::{ReadError, Store};
use serde_json::{Value, json};

/// Gaps that are listed.
const LISTED_MAX: usize = 1000;
/// Bytes that one read of the stream at the start may take.
const READ_BYTES: usize = 1 << 20;

/// The newest gaps, oldest first.
#[derive(Debug, Default)]
pub(crate) struct GapList(Mutex<VecDeque<Value>>);

impl GapList {
    /// Reads the newest gaps out of their stream.
    pub(crate) fn load(store: &Store, gaps: TrackId) -> Result<Self, ReadError> {
        let list = Self::default();
        let bounds = store.bounds(gaps);
        let mut at = Seq(bounds.end.0.saturating_sub(LISTED_MAX as u64)).max(bounds.first);
        while at < bounds.end {
            let read = store.track_records(gaps, at, READ_BYTES)?;
            for record in read.blocks.iter().flat_map(|part| part.block.iter()) {
                // Only this node writes into the stream; a payload that is no object is not listed.
                if let Ok(gap) = serde_json::from_slice::<Value>(record.payload) {
                    list.push(gap);
                }
            }
            at = read.next.max(at.next());
        }
        Ok(list)
    }

    /// Adds a gap.
    pub(crate) fn push(&self, gap: Value) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == LISTED_MAX {
            list.pop_front();
        }
        list.push_back(gap);
    }

    /// What edges have declared, and what this node's own store has lost.
    pub(crate) fn to_json(&self, store: &Store) -> Value {
        let list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "edges": &*list, "store": losses(store) })
    }
}
