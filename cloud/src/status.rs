//! The JSON of `/api/v1/status`, and the values of the cloud below `$SYS/fellbeck/`.
//!
//! In: the store's counts and the links. Out: one object. `log.records` counts what was ever appended to the streams.

use fellbeck_broker::session::EdgeReader;
use fellbeck_link::LinkHealth;
use fellbeck_store::TrackStats;
use serde_json::{Value, json};

use crate::ingest::accept::LinkParts;
use crate::routing::{GAPS_STREAM, track_name};

/// State of the node, as the status page shows it.
pub(crate) fn status(link: &LinkParts) -> Value {
    let store = &link.store;
    let stats = store.stats();
    let pressure = store.pressure();
    json!({
        "node": "cloud",
        "version": env!("CARGO_PKG_VERSION"),
        "links": link.live.load(std::sync::atomic::Ordering::Relaxed),
        "edges": edges(link),
        "log": { "records": records(&stats.tracks) },
        "store": {
            "used_bytes": pressure.used,
            "quota_bytes": pressure.quota,
            "pressure": format!("{:?}", pressure.level).to_lowercase(),
            "disk_bytes": stats.disk_bytes,
            "segments": stats.segments,
            "commits": stats.commits,
        },
        "downlinks": link.downlink.get().map(|downlink| downlink.inside.edges().iter().map(downlink_of).collect::<Vec<_>>()),
        "partitions": stats.tracks.iter().map(partition).collect::<Vec<_>>(),
    })
}

/// Edges that are listed one by one.
const EDGES_LISTED_MAX: usize = 1000;

/// Health and last heartbeat of each edge; what is not up comes first, so that a long list hides nothing bad.
fn edges(link: &LinkParts) -> Vec<Value> {
    let mut edges = link.edges.all();
    edges.sort_by_key(|(_, slot)| slot.ledger().health());
    edges.truncate(EDGES_LISTED_MAX);
    edges.iter().map(|(name, slot)| slot.ledger().status(name)).collect()
}

/// Sets the gauge `fellbeck_link_edges_health`.
pub(crate) fn publish_health(link: &LinkParts) {
    let edges: Vec<_> = link
        .edges
        .all()
        .iter()
        .map(|(_, slot)| slot.ledger().health())
        .collect();
    for health in LinkHealth::ALL {
        let count = edges.iter().filter(|of| **of == health).count();
        metrics::gauge!("fellbeck_link_edges_health", "state" => health.as_str()).set(count as f64);
    }
}

/// Topics below `$SYS/fellbeck/` and their values.
pub(crate) fn sys_values(link: &LinkParts) -> Vec<(String, String)> {
    let edges = link.live.load(std::sync::atomic::Ordering::Relaxed);
    let values = [
        ("node/kind", "cloud".to_owned()),
        ("edges/connected", edges.to_string()),
    ];
    values.map(|(topic, value)| (topic.to_owned(), value)).into()
}

/// Records ever appended to the streams; a declared gap is not one of them.
fn records(tracks: &[TrackStats]) -> u64 {
    let gaps = track_name(GAPS_STREAM, 0);
    tracks
        .iter()
        .filter(|track| track.name != gaps)
        .map(|track| track.appended)
        .sum()
}

/// What waits for one edge, and what became of the rest.
fn downlink_of(reader: &EdgeReader) -> Value {
    let session = &reader.status;
    json!({
        "edge": reader.edge,
        "connected": session.connected,
        "filters": reader.filters,
        "in_flight": session.in_flight,
        "waiting": session.queued as u64 + session.unread,
        "acked": session.ledger.acked,
        "expired": session.ledger.expired,
        "dropped": session.ledger.dropped_total(),
    })
}

fn partition(track: &TrackStats) -> Value {
    json!({ "track": track.name, "appended": track.appended, "held": track.held })
}
