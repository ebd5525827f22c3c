//! Gauges of the store, brought up to date when `/metrics` is read.
//!
//! In: the store. Out: per track, where it ends, what is held, acknowledged, queued and lost; and how full the store is.
//! With these the ledger of each lane and partition can be checked from outside: appended = acked + queued, gaps among them.

use std::sync::Arc;

use fellbeck_ops::http::Refresh;
use fellbeck_store::Store;

/// Sets the gauges of `store`.
#[must_use]
pub fn refresh(store: &Store) -> Refresh {
    let store = store.clone();
    Arc::new(move || {
        let stats = store.stats();
        for track in &stats.tracks {
            let gauges = [
                ("fellbeck_store_track_end", track.appended),
                ("fellbeck_store_track_acked", track.acked.0),
                ("fellbeck_store_track_queued", track.queued),
                ("fellbeck_store_track_held", track.held),
                ("fellbeck_store_track_gap", track.gap),
                ("fellbeck_store_track_aside", track.aside),
                ("fellbeck_store_track_owed", track.owed),
            ];
            for (name, value) in gauges {
                metrics::gauge!(name, "track" => track.name.clone()).set(value as f64);
            }
        }
        let pressure = store.pressure();
        metrics::gauge!("fellbeck_store_pressure_bytes").set(pressure.used as f64);
        metrics::gauge!("fellbeck_store_quota_bytes").set(pressure.quota as f64);
        metrics::gauge!("fellbeck_store_segments").set(stats.segments as f64);
        metrics::gauge!("fellbeck_store_disk_bytes").set(stats.disk_bytes as f64);
    })
}
