//! The gaps that edges have declared, as `/api/v1/gaps` shows them.
//!
//! In: what the stream of gaps holds at the start, then each gap of an ingest. Out: the newest of them. The stream has all of them; this
//! list is bounded.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use fellbeck_core::{Run, Seq, TrackId};
use fellbeck_node::losses;
use fellbeck_store::{ReadError, Store};
use serde_json::{Value, json};

/// Gaps that are listed.
const LISTED_MAX: usize = 1000;
/// Bytes that one read of the stream at the start may take.
const READ_BYTES: usize = 1 << 20;

/// The newest gaps, oldest first.
#[derive(Debug, Default)]
pub(crate) struct GapList {
    list: Mutex<VecDeque<Value>>,
    /// Older gaps are not listed: the stream has given them up, or there are too many.
    is_cut: bool,
}

impl GapList {
    /// Reads the newest gaps out of their stream.
    pub(crate) fn load(store: &Store, gaps: TrackId) -> Result<Self, ReadError> {
        let bounds = store.bounds(gaps);
        let list = Self {
            is_cut: bounds.first > Seq(1) || bounds.end.0 > LISTED_MAX as u64,
            ..Self::default()
        };
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
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() == LISTED_MAX {
            list.pop_front();
        }
        list.push_back(gap);
    }

    /// Whether a gap of a lane reaches above `seq`; also when it may, since older gaps than those listed exist.
    pub(crate) fn reaches_above(&self, edge: &str, (lane, run): (&str, Run), seq: Seq) -> bool {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let is_above = |gap: &Value| {
            let is_of_lane = gap["edge"] == edge && gap["lane"] == lane && gap["run"] == run.0;
            is_of_lane && gap["last"].as_u64().is_none_or(|last| last > seq.0)
        };
        self.is_cut || list.len() >= LISTED_MAX || list.iter().any(is_above)
    }

    /// What edges have declared, and what this node's own store has lost.
    pub(crate) fn to_json(&self, store: &Store) -> Value {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        json!({ "edges": &*list, "store": losses(store) })
    }
}
