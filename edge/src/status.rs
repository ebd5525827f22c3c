//! The JSON of `/api/v1/status`, and the gauges that are refreshed with it.
//!
//! In: the store's counts and the state of the uplink. Out: one object. The ledger of P9 for lanes is made of positions:
//! `appended = acked + queued + gap`, of which expired records are counted by the uplink when it skips them.

use fellbeck_store::{Store, TrackStats};
use serde_json::{Value, json};

use crate::uplink::state::UplinkState;

/// State of the node, as the status page shows it.
pub(crate) fn status(name: &str, store: &Store, uplink: &UplinkState) -> Value {
    let stats = store.stats();
    let pressure = store.pressure();
    json!({
        "node": "edge",
        "name": name,
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": store.incarnations().last().map(|incarnation| incarnation.epoch.0),
        "uplink": uplink.to_json(),
        "store": {
            "used_bytes": pressure.used,
            "quota_bytes": pressure.quota,
            "pressure": format!("{:?}", pressure.level).to_lowercase(),
            "disk_bytes": stats.disk_bytes,
            "segments": stats.segments,
            "commits": stats.commits,
        },
        "lanes": stats.tracks.iter().map(lane).collect::<Vec<_>>(),
    })
}

fn lane(track: &TrackStats) -> Value {
    json!({
        "track": track.name,
        "appended": track.appended,
        "acked": track.acked.0,
        "queued": track.queued,
        "held": track.held,
        "gap": track.gap,
    })
}
