//! What a node chooses about its store: layout, sizes, quota, retention.
//!
//! Plain values; [`StoreConfig::validate`] is called by `open`. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

use crate::policy::TrackPolicy;

const MIB: u64 = 1024 * 1024;
/// The engine does not work with fewer.
const FILES_MIN: usize = 10;

/// How tracks share segments, and how a batch of records is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A segment belongs to one track; batches are Fellbeck record batches. Trimmed by acknowledgement.
    Edge,
    /// Segments are shared by all tracks; batches are Kafka v2 batches. Trimmed by retention.
    Cloud,
}

impl Layout {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Cloud => "cloud",
        }
    }
}

/// Settings of one store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// How tracks share segments. Fixed for the life of a store directory.
    pub layout: Layout,
    /// Names of all tracks that may be appended to. Tracks of earlier opens stay readable without being named.
    pub tracks: Vec<String>,
    /// Those of `tracks` that no uplink acknowledges: only sessions pin them.
    pub sessions_only: Vec<String>,
    /// Edge: what becomes of the records of a track when space runs out. A track that is not named is refused, with the lowest priority.
    pub policies: Vec<(String, TrackPolicy)>,
    /// Size at which a segment is sealed. Each segment costs some 30 syncs over its life, and about 0.3 ms at open.
    pub segment_bytes: u64,
    /// Bytes of records that may wait in memory tables, over all segments, before the oldest are written to table files.
    pub ram_window: u64,
    /// Bytes of one segment that may wait in its memory table.
    pub memtable_bytes: u64,
    /// Bytes of journal after which tables that pin old journals are written out.
    pub journal_nudge: u64,
    /// Encoded record bytes at which a commit starts without waiting out `linger`.
    pub batch_target: usize,
    /// Largest encoded record batch; a single larger record makes a batch of its own.
    pub batch_max: usize,
    /// Records at which a commit starts without waiting out `linger`.
    pub commit_records_target: usize,
    /// Most records in one commit; a larger single submission makes a commit of its own.
    pub commit_records_max: usize,
    /// Most encoded record bytes in one commit; a larger single submission makes a commit of its own.
    pub commit_bytes_max: usize,
    /// Least time between the starts of two small commits. Costs up to this much latency, saves flash writes and CPU.
    pub linger: Duration,
    /// Longest time that a lazy submission waits.
    pub lazy_max: Duration,
    /// Bytes of submissions that may be unanswered, over all submitters. One submission of each submitter may go beyond it.
    pub submit_bytes_max: usize,
    /// Bytes that records and keyed values may take. `None`: only the free space of the disk bounds them. Journals come on
    /// top: up to 192 MiB.
    pub quota_bytes: Option<u64>,
    /// Free space of the file system below which nothing more is accepted: room for journals and the files of two segments.
    pub reserve_bytes: u64,
    /// Cloud: oldest segments go when all segments are larger than this.
    pub retention_bytes: Option<u64>,
    /// Cloud: segments go when their newest record is older than this.
    pub retention_age: Option<Duration>,
    /// Edge: bytes of acknowledged segments kept for a cloud that was restored from an older copy. They cost a second flash
    /// write, since they outlive the RAM window. Dropped first when the quota presses.
    pub grace_bytes: u64,
    /// Edge: share of the quota that lagging sessions may pin with acknowledged segments.
    pub session_pin_share: f64,
    /// Bytes of committed records kept in memory for live readers.
    pub tail_bytes: usize,
    /// Reader threads.
    pub readers: usize,
    /// Read requests that may wait for a reader thread; more are refused as busy.
    pub read_queue_max: usize,
    /// Block cache of the storage engine.
    pub cache_bytes: u64,
    /// Table files that the engine keeps open between reads. They count against the descriptors that connections need, too.
    pub files_max: usize,
}

impl StoreConfig {
    /// Defaults of an edge with these tracks.
    #[must_use]
    pub fn edge(tracks: Vec<String>) -> Self {
        Self {
            layout: Layout::Edge,
            tracks,
            sessions_only: Vec::new(),
            policies: Vec::new(),
            segment_bytes: 8 * MIB,
            ram_window: 16 * MIB,
            memtable_bytes: 16 * MIB,
            journal_nudge: 32 * MIB,
            batch_target: 64 * 1024,
            batch_max: 256 * 1024,
            commit_records_target: 512,
            commit_records_max: 4096,
            commit_bytes_max: 512 * 1024,
            linger: Duration::from_millis(1),
            lazy_max: Duration::from_secs(1),
            submit_bytes_max: 32 * MIB as usize,
            quota_bytes: None,
            reserve_bytes: 192 * MIB,
            retention_bytes: None,
            retention_age: None,
            grace_bytes: 64 * MIB,
            session_pin_share: 0.25,
            tail_bytes: 4 * MIB as usize,
            readers: 2,
            read_queue_max: 256,
            cache_bytes: 2 * MIB,
            files_max: 64,
        }
    }

    /// Defaults of a cloud with these tracks.
    #[must_use]
    pub fn cloud(tracks: Vec<String>) -> Self {
        Self {
            layout: Layout::Cloud,
            segment_bytes: 128 * MIB,
            ram_window: 64 * MIB,
            memtable_bytes: 32 * MIB,
            journal_nudge: 48 * MIB,
            batch_max: 1024 * 1024,
            commit_records_max: 16 * 1024,
            commit_bytes_max: 1024 * 1024,
            grace_bytes: 0,
            tail_bytes: 32 * MIB as usize,
            cache_bytes: 32 * MIB,
            files_max: 256,
            submit_bytes_max: 128 * MIB as usize,
            ..Self::edge(tracks)
        }
    }

    /// Checks the relations between the values.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let unknown = |name: &&String| !self.tracks.contains(name);
        for (setting, wrong) in [
            (
                "tracks",
                self.tracks.is_empty() || self.tracks.iter().any(|t| t.is_empty() || t.len() > 255),
            ),
            ("sessions_only", self.sessions_only.iter().any(|t| unknown(&t))),
            ("policies", self.policies.iter().any(|(t, _)| unknown(&t))),
            ("segment_bytes", self.segment_bytes == 0),
            ("memtable_bytes", self.memtable_bytes == 0),
            ("journal_nudge", self.journal_nudge == 0),
            (
                "batch_max",
                self.batch_max < self.batch_target || self.batch_max > 1 << 30,
            ),
            ("commit_records_max", self.commit_records_max == 0),
            ("commit_bytes_max", self.commit_bytes_max == 0),
            ("submit_bytes_max", self.submit_bytes_max == 0),
            ("files_max", self.files_max < FILES_MIN),
            ("quota_bytes", self.quota_bytes == Some(0)),
            ("session_pin_share", !(0.0..=1.0).contains(&self.session_pin_share)),
            ("readers", self.readers == 0),
            ("read_queue_max", self.read_queue_max == 0),
        ] {
            if wrong {
                return Err(ConfigError { setting });
            }
        }
        Ok(())
    }
}

/// A value out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("store setting {setting} is out of its range")]
pub struct ConfigError {
    /// Field of [`StoreConfig`].
    pub setting: &'static str,
}
