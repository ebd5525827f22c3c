//! Names that the nodes and these tests share and that no type keeps: metric names and config keys.
//!
//! In one place, so that a renamed metric is one line here and not a hunt. Metrics are read by sum over their labels unless the
//! function that reads them says otherwise.

/// Gauge per track of a node's store (label `track`): the next sequence number or offset. In the cloud the sum over `stream/default/`
/// is the number of records ever appended there.
pub const TRACK_END: &str = "fellbeck_store_track_end";

/// Gauge per track (label `track`): on the edge, the records appended and not yet acknowledged by the cloud.
pub const TRACK_QUEUED: &str = "fellbeck_store_track_queued";

/// Gauge: bytes that the store holds on disk.
pub const STORE_BYTES: &str = "fellbeck_store_disk_bytes";

/// Counter: packets or connections ended since the client broke the protocol.
pub const PROTOCOL_ERRORS: &str = "fellbeck_broker_protocol_errors_total";

/// Counter in the cloud: records that came over the link and were there already.
pub const LINK_DUPLICATES: &str = "fellbeck_link_duplicates_total";

/// Counter in the cloud: records that a device had sent before, by their device message ID.
pub const DEVICE_DUPLICATES: &str = "fellbeck_link_device_duplicates_total";

/// Gauge on the edge: 1 while the link to the cloud is up.
pub const LINK_UP: &str = "fellbeck_link_connected";

/// Counter in the cloud: gaps declared and stored.
pub const LINK_GAPS: &str = "fellbeck_link_gaps_total";

/// Counter in the cloud: records that those gaps name.
pub const GAP_RECORDS: &str = "fellbeck_link_gap_records_total";

/// Counter on the edge (label `reason`): records given up by the policy of their lane.
pub const DROPPED: &str = "fellbeck_store_dropped_records_total";

/// Config key of the edge's byte quota.
pub const QUOTA_KEY: &str = "store.quota";

/// Prefix of the tracks of the cloud's default stream.
pub const DEFAULT_STREAM: &str = "stream/default/";

/// Prefix of the tracks of the edge's default lane.
pub const DEFAULT_LANE: &str = "lane/default/";

/// What no node may say in its log after a mere power cut: nothing that was synced is gone, so nothing is missing or damaged.
pub const DAMAGE: [&str; 6] = [
    "moved away, beginning anew",
    "that were synced are missing",
    "damaged in the middle",
    "is made anew",
    "the store was damaged",
    "panicked at",
];
