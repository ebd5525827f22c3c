//! The wall around fjall: its settings, its keyspaces and the calls that are not in its documented surface.
//!
//! Owns the database handle. Everything that research has measured as a trap stays out of here: no per-key deletes of records,
//! no FIFO compaction, no key-value separation, no `clear`. Some calls are `#[doc(hidden)]` in fjall 3.1, hence the pinned
//! version and the test below.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use crate::commit::Space;
use crate::config::StoreConfig;

/// Memory table of the index and of each keyed store.
const KEYED_MEMTABLE_BYTES: u64 = 2 * 1024 * 1024;
/// A memory table that fjall never rotates by itself: the writer does.
const MANAGED_MEMTABLE_BYTES: u64 = 1 << 40;
/// Tables of one segment before fjall would compact them. Writes are slowed at 20.
const SEGMENT_L0_THRESHOLD: u8 = 32;
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
const SEGMENT_PREFIX: &str = "segment-";

/// The open database.
#[derive(Clone)]
pub(crate) struct Engine {
    db: Database,
    pub(crate) index: Keyspace,
    spaces: [Keyspace; 4],
}

impl Engine {
    pub(crate) fn open(dir: &Path, config: &StoreConfig) -> fjall::Result<Self> {
        let db = Database::builder(dir)
            .cache_size(config.cache_bytes)
            .worker_threads(1)
            .max_journaling_size(JOURNALS_BYTES)
            .manual_journal_persist(true)
            .open()?;
        let keyed = |name: &str| db.keyspace(name, || options(KEYED_MEMTABLE_BYTES, 4 * 1024));
        Ok(Self {
            index: keyed("index")?,
            spaces: [keyed("session")?, keyed("retained")?, keyed("mark")?, keyed("node")?],
            db,
        })
    }

    pub(crate) fn space(&self, space: Space) -> &Keyspace {
        match space {
            Space::Session => &self.spaces[0],
            Space::Retained => &self.spaces[1],
            Space::Mark => &self.spaces[2],
            Space::Node => &self.spaces[3],
        }
    }

    /// Keyspaces whose memory tables are small and written out on each journal nudge.
    pub(crate) fn keyed(&self) -> impl Iterator<Item = &Keyspace> {
        std::iter::once(&self.index).chain(&self.spaces)
    }

    /// A batch that is durable when its commit returns.
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    pub(crate) fn create_segment(&self, id: u64) -> fjall::Result<Keyspace> {
        self.db.keyspace(&format!("{SEGMENT_PREFIX}{id:016x}"), || {
            options(MANAGED_MEMTABLE_BYTES, 16 * 1024)
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(SEGMENT_L0_THRESHOLD)))
                .expect_point_read_hits(true)
        })
    }

    /// Numbers and keyspaces of all segments, oldest first.
    pub(crate) fn segments(&self) -> fjall::Result<Vec<(u64, Keyspace)>> {
        let mut ids: Vec<u64> = self
            .db
            .list_keyspace_names()
            .iter()
            .filter_map(|name| u64::from_str_radix(name.strip_prefix(SEGMENT_PREFIX)?, 16).ok())
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| Ok((id, self.create_segment(id)?))).collect()
    }

    /// Removes a segment. Its files go when the last handle is dropped: a reader may still hold one.
    pub(crate) fn delete_segment(&self, keyspace: Keyspace) -> fjall::Result<()> {
        self.db.delete_keyspace(keyspace)
    }

    /// Starts writing the memory table of `keyspace` into a table file. Lets the engine rotate its journal, too.
    pub(crate) fn flush(&self, keyspace: &Keyspace) -> fjall::Result<bool> {
        keyspace.rotate_memtable()
    }

    /// Memory tables that wait to be written.
    pub(crate) fn outstanding_flushes(&self) -> usize {
        self.db.outstanding_flushes()
    }

    pub(crate) fn disk_bytes(&self) -> fjall::Result<u64> {
        self.db.disk_space()
    }
}

/// True when records of the segment may be in journals only.
pub(crate) fn in_memory(keyspace: &Keyspace) -> bool {
    keyspace.tree.active_memtable().size() > 0 || keyspace.sealed_memtable_count() > 0 || keyspace.table_count() == 0
}

/// Bytes of the active memory table.
pub(crate) fn memtable_bytes(keyspace: &Keyspace) -> u64 {
    keyspace.tree.active_memtable().size()
}

fn options(memtable_bytes: u64, block_bytes: u32) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .manual_journal_persist(true)
        .data_block_size_policy(BlockSizePolicy::all(block_bytes))
        .data_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::disabled())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for the engine's worker, which offers no event.
    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !done() {
            assert!(std::time::Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    /// The store relies on calls outside the documented surface of the engine: this fails when an update changes them.
    #[test]
    fn segments_are_flushed_listed_and_deleted_whole() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::edge(vec!["t".into()]);
        let engine = Engine::open(dir.path(), &config).unwrap();
        let segment = engine.create_segment(7).unwrap();
        let mut batch = engine.batch();
        batch.insert(&segment, "key", vec![7; 100_000]);
        batch.insert(engine.space(Space::Node), "key", "value");
        batch.commit().unwrap();
        assert!(in_memory(&segment) && memtable_bytes(&segment) >= 100_000);

        assert!(engine.flush(&segment).unwrap());
        until("a flushed segment has left memory", || !in_memory(&segment));
        let folder = segment.path().to_owned();
        assert!(segment.disk_space() >= 100_000);
        let listed: Vec<u64> = engine.segments().unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(listed, [7]);

        let reader = segment.clone();
        engine.delete_segment(segment).unwrap();
        assert!(engine.segments().unwrap().is_empty());
        assert!(
            reader.get("key").unwrap().is_some(),
            "a reader that holds it still reads"
        );
        drop(reader);
        until("the files of a deleted segment go with its last handle", || {
            !folder.exists()
        });
    }
}
