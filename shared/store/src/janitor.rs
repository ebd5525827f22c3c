//! The janitor thread: work that must not stand in the way of a commit.
//!
//! Deletes segments that the writer has given up, writes the high-water file at most once per second when something changed,
//! looks at the free space of the disk, puts the ballast back, and looks whether the engine has failed in the background: that, and a panic of its own, halt
//! the store. It ends when the writer has dropped its end of the channel, and then writes the high-water file a last time.
//! What it fails to delete or write is logged and counted; a write is tried again, a deletion at the next open.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::Keyspace;

use crate::ballast::Ballast;
use crate::engine::Engine;
use crate::high_water::{HighWater, HighWaterFile};
use crate::queue::Queue;
use crate::shared::Shared;

const JOBS_MAX: usize = 1024;
const ROUND: Duration = Duration::from_secs(1);

/// A segment to delete.
pub(crate) struct Job(pub(crate) Keyspace);

pub(crate) fn start(
    shared: &Arc<Shared>,
    engine: &Engine,
    high_water: HighWaterFile,
    ballast: Ballast,
    queue: &Arc<Queue>,
) -> std::io::Result<(JoinHandle<()>, SyncSender<Job>)> {
    let (sender, jobs) = sync_channel(JOBS_MAX);
    let mut janitor = Janitor {
        shared: shared.clone(),
        engine: engine.clone(),
        high_water,
        halting: false,
        ballast,
    };
    let queue = queue.clone();
    janitor.look_at_the_disk();
    let thread = std::thread::Builder::new().name("store-janitor".to_owned());
    let work = move || {
        let shared = janitor.shared.clone();
        // Without the janitor nothing would say what is synced, nor see the disk fill up: no less than the loss of the writer.
        if catch_unwind(AssertUnwindSafe(|| janitor.run(&jobs, &queue))).is_err() {
            queue.halt();
            shared.halt("the janitor panicked".to_owned());
        }
    };
    Ok((thread.spawn(work)?, sender))
}

/// Deletes one segment; also called by the writer when the janitor is far behind.
pub(crate) fn delete(engine: &Engine, keyspace: Keyspace) {
    if let Err(error) = engine.delete_segment(keyspace) {
        // The next open finds it again and trims it again.
        tracing::error!(%error, "a trimmed segment could not be deleted");
        metrics::counter!("fellbeck_store_delete_errors_total").increment(1);
    }
}

struct Janitor {
    shared: Arc<Shared>,
    engine: Engine,
    high_water: HighWaterFile,
    /// The engine has failed and the store is told.
    halting: bool,
    ballast: Ballast,
}

impl Janitor {
    fn run(mut self, jobs: &Receiver<Job>, queue: &Queue) {
        let mut round = Instant::now() + ROUND;
        loop {
            match jobs.recv_timeout(round.saturating_duration_since(Instant::now())) {
                Ok(Job(keyspace)) => delete(&self.engine, keyspace),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= round {
                self.write_high_water();
                self.look_at_the_disk();
                self.look_at_the_engine(queue);
                round = Instant::now() + ROUND;
            }
        }
        self.write_high_water();
    }

    fn write_high_water(&mut self) {
        if let Err(error) = self.high_water.write(HighWater::of(&self.shared)) {
            tracing::error!(%error, "the high-water file could not be written");
            metrics::counter!("fellbeck_store_high_water_errors_total").increment(1);
        }
    }

    /// A worker of the engine that fails tells nobody but the next commit, which may be long in coming.
    fn look_at_the_engine(&mut self, queue: &Queue) {
        if self.halting {
            return;
        }
        if let Err(error) = self.engine.check() {
            self.halting = true;
            queue.halt();
            self.shared.halt(format!("storage engine: {error}"));
        }
    }

    fn look_at_the_disk(&mut self) {
        let keyed = self.engine.keyed().map(|keyspace| keyspace.disk_space()).sum();
        self.shared.gauges.keyed_bytes.store(keyed, Ordering::Relaxed);
        if let Ok(disk) = rustix::fs::statvfs(self.engine.index.path()) {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let full = free < self.shared.config.reserve_bytes;
            if !full {
                self.ballast.put_back(free);
            }
            if self.shared.gauges.disk_full.swap(full, Ordering::Relaxed) != full {
                tracing::warn!(free, full, "free space of the disk has crossed the reserve");
            }
            metrics::gauge!("fellbeck_store_disk_free_bytes").set(free as f64);
        }
        self.shared.weigh();
        metrics::gauge!("fellbeck_store_used_bytes").set(self.shared.pressure().used as f64);
        metrics::gauge!("fellbeck_store_segments").set(self.shared.catalog().segments.len() as f64);
    }
}
