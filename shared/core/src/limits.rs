//! Bounds that edge and cloud share, by name.
//!
//! Everything in a node is bounded; what an operator may set is a configuration field whose default stands here.
//! `packet_max <= batch_max <= frame_max` holds for the defaults by the assertions below; configurations are checked at start.

/// Longest topic name and topic filter in bytes: an MQTT string. [MQTT5-4.7.3-3]
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Most levels of a topic filter, and of a topic name that a client publishes to, so that nothing is published that nobody can name.
/// The standard knows no such bound; it keeps the walk through the trie shallow.
pub const TOPIC_LEVELS_MAX: usize = 256;

/// Default of the largest MQTT packet that an edge accepts.
pub const PACKET_MAX_EDGE: usize = 2 << 20;

/// Default of the largest MQTT packet that the cloud accepts.
pub const PACKET_MAX_CLOUD: usize = 16 << 20;

/// What a record may add to the packet that it came in: device, origin, path, each an MQTT string at most.
pub const RECORD_OVERHEAD_MAX: usize = 256 << 10;

/// Raw bytes at which a batch is closed.
pub const BATCH_TARGET: usize = 64 << 10;

/// Records at which a commit is closed.
pub const COMMIT_RECORDS_MAX: usize = 512;

/// Most records of one batch. Commits join the submissions of several loop turns, hence the room above a commit's bound.
pub const BATCH_RECORDS_MAX: usize = 8 * COMMIT_RECORDS_MAX;

/// Largest raw size of a batch on an edge.
pub const BATCH_MAX_EDGE: usize = PACKET_MAX_EDGE + RECORD_OVERHEAD_MAX;

/// Largest raw size of a batch in the cloud.
pub const BATCH_MAX_CLOUD: usize = PACKET_MAX_CLOUD + RECORD_OVERHEAD_MAX;

/// What a frame of the link adds around the batches that it carries, generously.
pub const FRAME_OVERHEAD_MAX: usize = 64 << 10;

/// Largest frame that the cloud accepts from an edge: what the largest batch of an edge needs.
pub const FRAME_MAX: usize = BATCH_MAX_EDGE + FRAME_OVERHEAD_MAX;

/// Incarnations that an edge remembers and shows at Hello.
pub const CHAIN_MAX: usize = 64;

/// Most partitions of a stream.
pub const PARTITIONS_MAX: u32 = 1024;

/// Longest name of an edge, lane or stream in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Most nodes that a record may pass through.
pub const PATH_NODES_MAX: usize = 16;

const _: () = assert!(PACKET_MAX_EDGE <= BATCH_MAX_EDGE && PACKET_MAX_CLOUD <= BATCH_MAX_CLOUD);
const _: () = assert!(BATCH_MAX_EDGE < FRAME_MAX);
const _: () = assert!(BATCH_TARGET <= BATCH_MAX_EDGE && COMMIT_RECORDS_MAX <= BATCH_RECORDS_MAX);
const _: () = assert!(
    BATCH_MAX_CLOUD <= i32::MAX as usize,
    "a Kafka batch counts its bytes in an i32"
);
