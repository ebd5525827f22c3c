//! The wall around fjall: its settings, its keyspaces and the calls that are not in its documented surface.
//!
//! Owns the database handle. Everything that research has measured as a trap stays out of here: no per-key deletes of records,
//! no FIFO compaction, no key-value separation, no `clear`. Some calls are `#[doc(hidden)]` in fjall 3.1, hence the pinned
//! version and the test below.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, SeqNo};
use lsm_tree::SequenceNumberCounter;

use crate::commit::Space;
use crate::config::StoreConfig;
use crate::error::{HaltError, is_refusal};

/// Memory table of the index and of each keyed store.
const KEYED_MEMTABLE_BYTES: u64 = 2 * 1024 * 1024;
/// A memory table that fjall never rotates by itself: the writer does.
const MANAGED_MEMTABLE_BYTES: u64 = 1 << 40;
/// Tables of one segment before fjall would compact them. Writes are slowed at 20, and at 30 stopped until a compaction comes: so
/// a segment is sealed long before.
const SEGMENT_L0_THRESHOLD: u8 = 32;
/// Below the 4 at which the engine stops writers.
const SEALED_MEMTABLES_MAX: usize = 3;
/// Memory table that is written out while a damaged store is put together again.
const RELIEF_BYTES: u64 = 8 * 1024 * 1024;
const RELIEF_TABLES_MAX: usize = 16;
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;
/// In front of the number of a segment in the name of its keyspace.
pub(crate) const SEGMENT_PREFIX: &str = "segment-";

/// The open database.
#[derive(Clone)]
pub(crate) struct Engine {
    db: Database,
    pub(crate) index: Keyspace,
    /// Records set aside by topic while space is short.
    pub(crate) spare: Keyspace,
    spaces: [Keyspace; 4],
}

impl Engine {
    pub(crate) fn open(dir: &Path, config: &StoreConfig) -> fjall::Result<Self> {
        let named = newest_of_names(dir)?;
        let db = Database::builder(dir)
            .cache_size(config.cache_bytes)
            .max_cached_files(Some(config.files_max))
            .worker_threads(1)
            .max_journaling_size(JOURNALS_BYTES)
            .manual_journal_persist(true)
            .open()?;
        db.supervisor.seqno.fetch_max(named);
        let keyed = |name: &str| db.keyspace(name, || options(KEYED_MEMTABLE_BYTES, 4 * 1024));
        let engine = Self {
            index: keyed("index")?,
            spaces: [keyed("session")?, keyed("retained")?, keyed("mark")?, keyed("node")?],
            // The last of them: folders are numbered in the order of their making, and what is salvaged goes by these numbers.
            spare: keyed("spare")?,
            db,
        };
        engine.sync_folders()?;
        Ok(engine)
    }

    /// The engine syncs the folder of a new keyspace, but not the name of that folder in its parent. After a power cut it
    /// would ignore all that the journals hold for a folder that is not there.
    fn sync_folders(&self) -> fjall::Result<()> {
        let folder = self.index.path().parent();
        folder.map_or(Ok(()), |folder| Ok(File::open(folder)?.sync_all()?))
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
        [&self.index, &self.spare].into_iter().chain(&self.spaces)
    }

    /// A batch that is durable when its commit returns.
    pub(crate) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    /// Makes a segment. Once this returns, it is there after a power cut, too.
    pub(crate) fn create_segment(&self, id: u64) -> fjall::Result<Keyspace> {
        let segment = self.segment(id)?;
        self.sync_folders()?;
        Ok(segment)
    }

    fn segment(&self, id: u64) -> fjall::Result<Keyspace> {
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
        ids.into_iter().map(|id| Ok((id, self.segment(id)?))).collect()
    }

    /// Removes a segment. Its files go when the last handle is dropped: a reader may still hold one.
    pub(crate) fn delete_segment(&self, keyspace: Keyspace) -> fjall::Result<()> {
        self.db.delete_keyspace(keyspace)
    }

    /// Starts writing the memory table of `keyspace` into a table file. Lets the engine rotate its journal, too.
    pub(crate) fn flush(&self, keyspace: &Keyspace) -> fjall::Result<bool> {
        keyspace.rotate_memtable()
    }

    /// Keeps the memory table of `keyspace` small while much is written, and waits for the engine to keep up.
    pub(crate) fn relieve(&self, keyspace: &Keyspace) -> fjall::Result<()> {
        if memtable_bytes(keyspace) < RELIEF_BYTES || tables(keyspace) >= RELIEF_TABLES_MAX {
            return Ok(());
        }
        self.flush(keyspace)?;
        while self.outstanding_flushes() > 0 {
            self.check()?;
            // The engine offers no event to wait for.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    /// Folders in which something cannot be read: all of the keyed ones is, and the first and the last key of each segment, which needs
    /// the indexes of its tables.
    pub(crate) fn unsound(&self) -> Result<Vec<u64>, HaltError> {
        let mut found = Vec::new();
        for keyspace in self.keyed() {
            for guard in keyspace.iter() {
                if let Err(error) = guard.into_inner() {
                    note_unsound(&mut found, keyspace, error)?;
                    break;
                }
            }
        }
        for (_, segment) in self.segments()? {
            for end in [segment.first_key_value(), segment.last_key_value()]
                .into_iter()
                .flatten()
            {
                if let Err(error) = end.key() {
                    note_unsound(&mut found, &segment, error)?;
                    break;
                }
            }
        }
        Ok(found)
    }

    /// An error once the engine has failed in the background: it then takes no more commits until it is opened anew.
    pub(crate) fn check(&self) -> fjall::Result<()> {
        // Every commit is synced by itself, so nothing is buffered: this only asks.
        self.db.persist(PersistMode::Buffer)
    }

    /// Memory tables that wait to be written.
    pub(crate) fn outstanding_flushes(&self) -> usize {
        self.db.outstanding_flushes()
    }

    pub(crate) fn disk_bytes(&self) -> fjall::Result<u64> {
        self.db.disk_space()
    }
}

fn note_unsound(found: &mut Vec<u64>, keyspace: &Keyspace, error: fjall::Error) -> Result<(), HaltError> {
    if is_refusal(&error) {
        return Err(error.into());
    }
    let name = keyspace.path().file_name().and_then(|name| name.to_str());
    tracing::error!(keyspace = %keyspace.name(), %error, "a part of the database cannot be read");
    found.extend(name.and_then(|name| name.parse::<u64>().ok()));
    Ok(())
}

/// The number behind the newest one in the engine's list of keyspaces.
///
/// The engine goes on behind the newest commit, and takes numbers for that list from the same counter without a commit. Opened after such
/// a one, it would give a number again that the list has seen: a new segment that also got the identity of a removed one would then be
/// hidden by that removal, and be deleted with all its records at the next open.
fn newest_of_names(dir: &Path) -> fjall::Result<SeqNo> {
    let list = dir.join("keyspaces").join("0");
    if !list.join("current").try_exists()? {
        return Ok(0);
    }
    let counter = SequenceNumberCounter::default;
    let tree = lsm_tree::Config::new(list, counter(), counter()).open()?;
    Ok(tree.get_highest_persisted_seqno().map_or(0, |newest| newest + 1))
}

/// True when records of the segment may be in journals only.
pub(crate) fn in_memory(keyspace: &Keyspace) -> bool {
    keyspace.tree.active_memtable().size() > 0 || keyspace.sealed_memtable_count() > 0 || keyspace.table_count() == 0
}

/// True when the engine would hold a commit back until its worker has written some of the waiting memory tables. It would do so
/// for ever if the worker has died meanwhile.
pub(crate) fn is_crowded(keyspace: &Keyspace) -> bool {
    keyspace.sealed_memtable_count() >= SEALED_MEMTABLES_MAX
}

/// Table files of a segment, those included that are yet to be written.
pub(crate) fn tables(keyspace: &Keyspace) -> usize {
    keyspace.table_count() + keyspace.sealed_memtable_count()
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

    /// Found by power cuts: the engine forgot at open how far the numbers in its list of keyspaces had come, wrote newer entries below
    /// older ones, and then took a segment for removed, or a removed one for there.
    #[test]
    fn a_segment_made_after_an_open_is_not_hidden_by_the_removal_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::edge(vec!["t".into()]);
        let listed =
            |engine: &Engine| -> Vec<u64> { engine.segments().unwrap().into_iter().map(|(id, _)| id).collect() };
        for id in 0..4 {
            let engine = Engine::open(dir.path(), &config).unwrap();
            assert_eq!(listed(&engine), Vec::from_iter(0..id));
            let segment = engine.create_segment(id).unwrap();
            let mut batch = engine.batch();
            batch.insert(&segment, "key", "value");
            batch.commit().unwrap();
            // Lives shortly, is in no commit, and leaves its number in the engine to the next one.
            let segment = engine.create_segment(100 + id).unwrap();
            engine.delete_segment(segment).unwrap();
        }
    }

    #[test]
    fn a_failure_in_the_background_shows_without_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), &StoreConfig::edge(vec!["t".into()])).unwrap();
        let segment = engine.create_segment(1).unwrap();
        let mut batch = engine.batch();
        batch.insert(&segment, "key", "value");
        batch.commit().unwrap();
        engine.check().unwrap();
        std::fs::remove_dir_all(segment.path()).unwrap();
        engine.flush(&segment).unwrap();
        until("the engine knows that its worker has failed", || {
            engine.check().is_err()
        });
    }
}
