//! The ranges that a store has lost, as `/api/v1/gaps` shows them.

use std::collections::HashMap;

use fellbeck_core::TrackId;
use fellbeck_store::Store;
use serde_json::{Value, json};

/// What a node's own store has lost: one object per range, in the order they were found, at most 4,096.
#[must_use]
pub fn losses(store: &Store) -> Vec<Value> {
    let names: HashMap<TrackId, String> = store.tracks().into_iter().collect();
    let losses = store.losses();
    let range = losses.iter().map(|loss| {
        json!({
            "track": names.get(&loss.track),
            "first": loss.gap.first.0,
            "last": loss.gap.last.0,
            "count": loss.count(),
            "epoch": loss.gap.epoch.0,
            "reason": loss.gap.reason.as_str(),
        })
    });
    range.collect()
}
