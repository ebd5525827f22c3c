//! The JSON of `/api/v1/status`, and the values of the edge below `$SYS/fellbeck/`.
//!
//! In: the store's counts and the state of the uplink. Out: one object. The ledger of P9 for lanes is made of positions:
//! `appended = acked + queued + gap`, of which expired records are counted by the uplink when it skips them.

use fellbeck_store::{Store, StoreStats, TrackStats};
use serde_json::{Value, json};

use crate::downlink::DownlinkState;
use crate::rules::{LOCAL_LANE, track_name};
use crate::uplink::state::UplinkState;
use crate::wear::Wear;

/// State of the node, as the status page shows it.
pub(crate) fn status(
    name: &str,
    store: &Store,
    (uplink, downlink): (&UplinkState, &DownlinkState),
    wear: &Wear,
) -> Value {
    let stats = store.stats();
    let pressure = store.pressure();
    json!({
        "node": "edge",
        "name": name,
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": store.incarnations().last().map(|incarnation| incarnation.epoch.0),
        "uplink": uplink.to_json(),
        "downlink": downlink.to_json(),
        "store": {
            "used_bytes": pressure.used,
            "quota_bytes": pressure.quota,
            "pressure": format!("{:?}", pressure.level).to_lowercase(),
            "disk_bytes": stats.disk_bytes,
            "segments": stats.segments,
            "commits": stats.commits,
        },
        "flash": wear.to_json(),
        "lanes": stats.tracks.iter().map(lane).collect::<Vec<_>>(),
    })
}

/// Topics below `$SYS/fellbeck/` and their values: the uplink, and what it has to send.
pub(crate) fn sys_values(stats: &StoreStats, uplink: &UplinkState) -> Vec<(String, String)> {
    let local = track_name(LOCAL_LANE);
    let lanes = || stats.tracks.iter().filter(|track| track.name != local);
    let state = uplink.link();
    let values = [
        ("node/kind", "edge".to_owned()),
        ("uplink/state", state.name().to_owned()),
        ("uplink/connected", u8::from(state.is_connected()).to_string()),
        (
            "uplink/records/waiting",
            lanes().map(|track| track.queued).sum::<u64>().to_string(),
        ),
        (
            "uplink/records/acked",
            lanes().map(|track| track.acked.0).sum::<u64>().to_string(),
        ),
    ];
    values.map(|(topic, value)| (topic.to_owned(), value)).into()
}

fn lane(track: &TrackStats) -> Value {
    json!({
        "track": track.name,
        "appended": track.appended,
        "acked": track.acked.0,
        "queued": track.queued,
        "held": track.held,
        "gap": track.gap,
        "aside": track.aside,
        "owed": track.owed,
    })
}
