//! The handle to an open store.
//!
//! Cheap to clone, usable from any thread. When the last clone goes, or at [`Store::close`], what was submitted is committed,
//! the threads are joined and the directory is unlocked.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use fellbeck_core::incarnation::Incarnation;
use fellbeck_core::{CommitNumber, LogPosition, Seq, TrackId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::commit::{Committed, Space, Stored};
use crate::committed::LogRead;
use crate::config::StoreConfig;
use crate::directory::Lock;
use crate::entry::{TrackBounds, TrackRead, TrackRecords};
use crate::error::{OpenError, ReadError};
use crate::in_use::InUse;
use crate::janitor;
use crate::keyed;
use crate::losses::Loss;
use crate::policy::Admission;
use crate::pool::{Pool, Request, Scan};
use crate::queue::{Pace, Queue, Submitter};
use crate::read_track::read_records;
use crate::recovery::{self, Recovered};
use crate::report::OpenReport;
use crate::shared::Shared;
use crate::stats::{Pressure, StoreStats};
use crate::tail::Tail;
use crate::writer::Writer;

/// Opens or creates the store in `dir`. Blocks until it is recovered; a new incarnation and the high-water file are then synced.
pub fn open(dir: &Path, config: StoreConfig) -> Result<(Store, OpenReport), OpenError> {
    config.validate()?;
    let Recovered {
        shared,
        engine,
        report,
        high_water,
        lock,
        in_use,
        ballast,
        plan,
    } = recovery::recover(dir, config)?;
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let tracks = u32::try_from(shared.catalog().tracks.len()).expect("tracks are numbered by u32");
    let queue = Arc::new(Queue::new(Pace::of(&shared.config), tracks));
    let (pool, mut threads) = Pool::start(&shared).map_err(io)?;
    let (janitor, jobs) = janitor::start(&shared, &engine, high_water, ballast, &queue).map_err(io)?;
    let writer = Writer::new(shared.clone(), engine, queue.clone(), jobs, plan);
    let spawned = std::thread::Builder::new()
        .name("store-writer".to_owned())
        .spawn(move || writer.run());
    threads.insert(0, spawned.map_err(io)?);
    let inner = Inner {
        shared,
        queue,
        pool,
        threads: Mutex::new(Some(Threads { threads, janitor })),
        lock: Mutex::new(Some(lock)),
        in_use,
    };
    Ok((Store(Arc::new(inner)), report))
}

/// An open store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    pool: Arc<Pool>,
    threads: Mutex<Option<Threads>>,
    lock: Mutex<Option<Lock>>,
    in_use: InUse,
}

struct Threads {
    /// The writer, then the readers.
    threads: Vec<JoinHandle<()>>,
    /// Ends when the writer has dropped its end of the channel.
    janitor: JoinHandle<()>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("newest", &self.newest_commit())
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// A way to submit, and the channel on which its submissions are answered, in order.
    ///
    /// At most `outstanding_max` submissions may be unanswered, or answered but not yet received. An answer is only ever
    /// given for what is durable: when the store halts or is closed, the channel closes behind the last answer.
    #[must_use]
    pub fn submitter(&self, outstanding_max: usize) -> (Submitter, mpsc::Receiver<Committed>) {
        let (answers, receiver) = mpsc::channel(outstanding_max.max(1));
        (Submitter::new(self.0.queue.clone(), answers), receiver)
    }

    /// The track of this name.
    #[must_use]
    pub fn track(&self, name: &str) -> Option<TrackId> {
        let catalog = self.0.shared.catalog();
        let at = catalog.tracks.iter().position(|track| track.name == name)?;
        Some(TrackId(at as u32))
    }

    /// All tracks, those of earlier opens included. Numbers are kept for the life of the directory.
    #[must_use]
    pub fn tracks(&self) -> Vec<(TrackId, String)> {
        let catalog = self.0.shared.catalog();
        let numbered = catalog.tracks.iter().enumerate();
        numbered
            .map(|(at, track)| (TrackId(at as u32), track.name.clone()))
            .collect()
    }

    /// Where a track begins and ends. Panics when there is no such track.
    #[must_use]
    pub fn bounds(&self, track: TrackId) -> TrackBounds {
        let bounds = self.0.shared.catalog().bounds(track, self.0.shared.epoch);
        bounds.expect("a TrackId comes from this store")
    }

    /// The newest records in memory.
    #[must_use]
    pub fn tail(&self) -> &Tail {
        &self.0.shared.tail
    }

    /// Newest durable commit.
    #[must_use]
    pub fn newest_commit(&self) -> CommitNumber {
        self.0.shared.newest()
    }

    /// Moves after each durable commit; the tail and the bounds then already show it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<CommitNumber> {
        self.0.shared.newest.subscribe()
    }

    /// Reads all tracks, merged by commit number: whole commits from that of `from` on, until `bytes_max` raw record bytes are
    /// passed. Done by the reader threads.
    #[must_use]
    pub fn read_log(&self, from: LogPosition, bytes_max: usize) -> oneshot::Receiver<Result<LogRead, ReadError>> {
        self.0.pool.ask(|answer| Request::Log(from, bytes_max, answer))
    }

    /// Reads one track of an edge by sequence number, until `bytes_max` encoded bytes are passed. Done by the reader threads.
    #[must_use]
    pub fn read_track(
        &self,
        track: TrackId,
        from: Seq,
        bytes_max: usize,
    ) -> oneshot::Receiver<Result<TrackRead, ReadError>> {
        self.0.pool.ask(|answer| Request::Track(track, from, bytes_max, answer))
    }

    /// Reads the records of one track, of either layout, until `bytes_max` encoded bytes are passed. Blocks: for the start of a node and
    /// for tools.
    pub fn track_records(&self, track: TrackId, from: Seq, bytes_max: usize) -> Result<TrackRecords, ReadError> {
        read_records(&self.0.shared, track, from, bytes_max)
    }

    /// Entries of a keyed store whose key begins with `prefix`, behind `after`, in key order, until `bytes_max` is passed; none
    /// at the end. Done by the reader threads.
    #[must_use]
    pub fn scan(
        &self,
        space: Space,
        prefix: Bytes,
        after: Option<Bytes>,
        bytes_max: usize,
    ) -> oneshot::Receiver<Result<Vec<Stored>, ReadError>> {
        let scan = Scan {
            space,
            prefix,
            after,
            bytes_max,
        };
        self.0.pool.ask(|answer| Request::Scan(scan, answer))
    }

    /// A whole keyed store, in key order. Blocks: for the start of a node.
    pub fn load(&self, space: Space) -> Result<Vec<Stored>, ReadError> {
        keyed::load(&self.0.shared.engine()?, space)
    }

    /// One keyed value. Blocks.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Stored>, ReadError> {
        keyed::get(&self.0.shared.engine()?, space, key)
    }

    /// Random identity of this directory, made when it was created.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.0.shared.log_id
    }

    /// The last incarnations, newest last; the newest is the running one.
    #[must_use]
    pub fn incarnations(&self) -> &[Incarnation] {
        &self.0.shared.incarnations
    }

    /// How much of the quota is used. Cheap.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.0.shared.pressure()
    }

    /// Whether a new record of the track is taken now, by its policy. Cheap.
    #[must_use]
    pub fn admission(&self, track: TrackId) -> Admission {
        self.0.shared.admission(track)
    }

    /// What is known to be lost, in the order it was found: gaps of earlier opens that are still held, what this open found, and what
    /// readers came upon since. At most 4,096 ranges; the oldest leave the list first.
    #[must_use]
    pub fn losses(&self) -> Vec<Loss> {
        self.0.shared.losses.list()
    }

    /// Counts for metrics and status pages.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = &self.0.shared;
        let disk_bytes = shared.engine().ok().and_then(|engine| engine.disk_bytes().ok());
        let catalog = shared.catalog();
        StoreStats {
            segment_bytes: catalog.bytes,
            segments: catalog.segments.len(),
            disk_bytes: disk_bytes.unwrap_or(0),
            commits: shared.gauges.commits.load(Ordering::Relaxed),
            records: shared.gauges.records.load(Ordering::Relaxed),
            journal_bytes: shared.gauges.journal_bytes.load(Ordering::Relaxed),
            table_bytes: shared.gauges.table_bytes.load(Ordering::Relaxed),
            accepted_bytes: shared.gauges.accepted_bytes.load(Ordering::Relaxed),
            tracks: catalog.track_stats(),
        }
    }

    /// Becomes `Some(reason)` when the writer has failed: nothing is committed any more, and the node must exit non-zero.
    #[must_use]
    pub fn halted(&self) -> watch::Receiver<Option<String>> {
        self.0.shared.halted.subscribe()
    }

    /// Commits what was submitted, lazy submissions included, writes the high-water file, joins the threads and unlocks the
    /// directory. Later submissions and reads are refused. Blocks.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Inner {
    fn close(&self) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Threads { threads, janitor }) = threads.take() else {
            return;
        };
        self.queue.close();
        self.pool.close();
        for thread in threads.into_iter().chain([janitor]) {
            if thread.join().is_err() {
                tracing::error!("a store thread has panicked");
            }
        }
        self.queue.halt();
        self.shared.close();
        if self.shared.halted.borrow().is_none() {
            self.in_use.end();
        }
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}
