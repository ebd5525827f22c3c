//! What the writer does between commits: sealing, memory tables, trimming.
//!
//! Nothing here is answered to anybody, and whatever it goes by is durable: acknowledgements and floors of synced commits,
//! ends of segments that the index knows.

use std::sync::atomic::Ordering;
use std::sync::mpsc::TrySendError;
use std::time::{Duration, Instant};

use fellbeck_core::Seq;

use super::Writer;
use crate::catalog::{Appended, Segment};
use crate::config::Layout;
use crate::engine::{Engine, is_crowded, memtable_bytes, tables};
use crate::error::HaltError;
use crate::janitor::{self, Job};
use crate::key::index;
use crate::stats::Level;
use crate::trim::{self, Candidate, CloudBounds, EdgeBounds, Trim};

/// Memory tables that may wait for the engine before the writer waits, too.
const FLUSHES_MAX: usize = 4;
/// Table files at which a segment is sealed, whatever its size: the engine slows commits at 20 of them.
const SEGMENT_TABLES_MAX: usize = 12;
/// Segments that may go by age in one round, so that a clock that is wrong does not empty a store at one stroke.
const AGED_PER_ROUND: usize = 1;
/// Into how many segments at least the retention age is cut.
const AGE_SHARE: u32 = 8;

impl Writer {
    /// Seals the segments that have reached their size, or where retention goes by age, a share of that age.
    pub(super) fn seal_full(&mut self) -> Result<(), HaltError> {
        let config = &self.shared.config;
        let age_max = config.retention_age.map(|age| age / AGE_SHARE);
        let mut catalog = self.shared.catalog_mut();
        let catalog = &mut *catalog;
        for slot in &mut self.active {
            let Some(active) = slot else { continue };
            let segment = catalog.segments.get_mut(&active.id);
            let segment = segment.ok_or(HaltError::Broken("an open segment is not in the catalog"))?;
            let old = age_max.is_some_and(|max| active.since.elapsed() >= max);
            let edge_track = if config.layout == Layout::Edge {
                segment.seal.spans.first()
            } else {
                None
            };
            let most = edge_track.map_or(config.segment_bytes, |span| {
                catalog.tracks[span.track.0 as usize].segment_bytes(config.segment_bytes)
            });
            if segment.seal.bytes >= most || old {
                segment.sealed = true;
                self.unindexed.push(active.id);
                *slot = None;
            }
        }
        Ok(())
    }

    /// Keeps memory tables within the RAM window and journals from being pinned.
    pub(super) fn tidy_memory(&mut self, appended: &[Appended], journaled: u64) -> Result<(), HaltError> {
        self.memory.journaled(journaled);
        for entry in appended {
            self.memory.wrote(entry.segment, entry.bytes);
        }
        let flush = self.memory.choose();
        if flush.segments.is_empty() && !flush.keyed {
            return Ok(());
        }
        self.shared.gauges.table_bytes.fetch_add(flush.bytes, Ordering::Relaxed);
        for id in &flush.segments {
            let keyspace = self
                .shared
                .catalog()
                .segments
                .get(id)
                .map(|segment| segment.keyspace.clone());
            if let Some(keyspace) = keyspace {
                self.engine.flush(&keyspace)?;
                if tables(&keyspace) >= SEGMENT_TABLES_MAX {
                    self.seal(*id);
                }
            }
        }
        if flush.keyed {
            for keyspace in self.engine.keyed().filter(|keyspace| memtable_bytes(keyspace) > 0) {
                self.engine.flush(keyspace)?;
            }
        }
        self.wait_for_flushes();
        Ok(())
    }

    /// Seals a segment out of its turn.
    pub(super) fn seal(&mut self, id: u64) {
        for slot in &mut self.active {
            if slot.as_ref().is_some_and(|active| active.id == id) {
                if let Some(segment) = self.shared.catalog_mut().segments.get_mut(&id) {
                    segment.sealed = true;
                }
                self.unindexed.push(id);
                *slot = None;
            }
        }
    }

    /// Waits here for memory tables to be written, where a failure of the engine ends the wait: inside a commit it would not.
    pub(super) fn wait_for_room(&self) -> Result<(), HaltError> {
        let crowded = |engine: &Engine| {
            let active = self.active.iter().flatten().map(|active| &active.keyspace);
            engine.keyed().chain(active).any(is_crowded)
        };
        if !crowded(&self.engine) {
            return Ok(());
        }
        metrics::counter!("fellbeck_store_flush_waits_total").increment(1);
        while crowded(&self.engine) {
            self.engine.check()?;
            // The engine offers no event to wait for.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets the disk catch up: memory tables that wait to be written are memory, too.
    fn wait_for_flushes(&self) {
        if self.engine.outstanding_flushes() <= FLUSHES_MAX {
            return;
        }
        metrics::counter!("fellbeck_store_flush_waits_total").increment(1);
        let deadline = Instant::now() + Duration::from_secs(10);
        // The engine offers no event to wait for. A worker that has died shows in the next commit.
        while self.engine.outstanding_flushes() > FLUSHES_MAX && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives up the segments that may go. What it goes by is durable: acknowledgements and floors of synced commits.
    /// By age only where the wall clock is given, once in a round.
    pub(super) fn trim(&mut self, wall_ms: Option<u64>) {
        let trim = self.choose_trim(wall_ms);
        if trim.segments.is_empty() {
            return;
        }
        if trim.unpinned > 0 {
            tracing::warn!(
                segments = trim.unpinned,
                "lagging sessions pin more than their share: their records are trimmed"
            );
            metrics::counter!("fellbeck_store_unpinned_segments_total").increment(trim.unpinned);
        }
        metrics::counter!("fellbeck_store_trimmed_segments_total").increment(trim.segments.len() as u64);
        for id in trim.segments {
            self.remove(id);
        }
        self.shared.weigh();
    }

    /// Forgets a segment and has its files deleted. Why it may go is durable.
    pub(super) fn remove(&mut self, id: u64) {
        let mut catalog = self.shared.catalog_mut();
        let Some(segment) = catalog.remove(id) else { return };
        for span in &segment.seal.spans {
            let pruned = catalog.prune_gaps(span.track);
            self.obsolete
                .extend(pruned.into_iter().map(|first| index::gap(span.track, first)));
        }
        drop(catalog);
        self.memory.forget(id);
        self.obsolete.push(index::sealed(id));
        if let Err(refused) = self.jobs.try_send(Job(segment.keyspace)) {
            let (TrySendError::Full(Job(keyspace)) | TrySendError::Disconnected(Job(keyspace))) = refused;
            janitor::delete(&self.engine, keyspace);
        }
    }

    /// The edge gives up its grace window when the quota presses; the cloud has nothing to give up early.
    pub(super) fn pressed(&self) -> bool {
        self.shared.config.layout == Layout::Edge && self.shared.pressure().level != Level::Normal
    }

    fn choose_trim(&self, wall_ms: Option<u64>) -> Trim {
        let config = &self.shared.config;
        let catalog = self.shared.catalog();
        if config.layout == Layout::Cloud {
            let age = config
                .retention_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            // Up to the first that may not go: what is held must be without a hole.
            let sealed = catalog.segments.iter().take_while(|(_, segment)| segment.indexed);
            let candidates = sealed.map(|(id, segment)| candidate(*id, segment, false)).collect();
            let bounds = CloudBounds {
                retention_bytes: config.retention_bytes,
                touched_min_ms: age.and_then(|age| Some(wall_ms?.saturating_sub(age))),
                aged_max: AGED_PER_ROUND,
                total_bytes: catalog.bytes,
            };
            return trim::cloud(candidates, bounds);
        }
        let mut candidates = Vec::new();
        for track in &catalog.tracks {
            for (_, id) in &track.segments {
                let segment = &catalog.segments[id];
                let end = segment.seal.spans.last().map_or(Seq(0), |span| span.end);
                if !segment.indexed || !(track.sessions_only || end.0 <= track.acked.0 + 1) {
                    break;
                }
                candidates.push(candidate(*id, segment, !track.sessions_only));
            }
        }
        let share = |quota: u64| (quota as f64 * config.session_pin_share) as u64;
        let bounds = EdgeBounds {
            grace_bytes: if self.pressed() { 0 } else { config.grace_bytes },
            floor: self.floor,
            pin_bytes: config.quota_bytes.map_or(u64::MAX, share),
        };
        trim::edge(candidates, bounds)
    }
}

fn candidate(id: u64, segment: &Segment, graceful: bool) -> Candidate {
    Candidate {
        id,
        bytes: segment.seal.bytes,
        last_commit: segment.seal.last_commit,
        touched_ms: segment.seal.touched_ms,
        graceful,
    }
}
