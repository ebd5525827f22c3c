//! The JSON of `/api/v1/status`.
//!
//! In: the store's counts and the links. Out: one object. `log.records` counts what was ever appended to the streams.

use fellbeck_store::TrackStats;
use serde_json::{Value, json};

use crate::ingest::accept::LinkParts;

/// State of the node, as the status page shows it.
pub(crate) fn status(link: &LinkParts) -> Value {
    let store = &link.store;
    let stats = store.stats();
    let pressure = store.pressure();
    json!({
        "node": "cloud",
        "version": env!("CARGO_PKG_VERSION"),
        "links": link.live.load(std::sync::atomic::Ordering::Relaxed),
        "log": { "records": stats.tracks.iter().map(|track| track.appended).sum::<u64>() },
        "store": {
            "used_bytes": pressure.used,
            "quota_bytes": pressure.quota,
            "pressure": format!("{:?}", pressure.level).to_lowercase(),
            "disk_bytes": stats.disk_bytes,
            "segments": stats.segments,
            "commits": stats.commits,
        },
        "partitions": stats.tracks.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn partition(track: &TrackStats) -> Value {
    json!({ "track": track.name, "appended": track.appended, "held": track.held })
}
