//! What the threads of one store share.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use fellbeck_core::incarnation::Incarnation;
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{CommitNumber, Epoch, TrackId};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::config::{Layout, StoreConfig};
use crate::engine::Engine;
use crate::entry::Gap;
use crate::error::ReadError;
use crate::losses::{Loss, Losses};
use crate::policy::Admission;
use crate::stats::{Level, Pressure};
use crate::tail::Tail;

pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    pub(crate) epoch: Epoch,
    pub(crate) log_id: [u8; 16],
    pub(crate) incarnations: Vec<Incarnation>,
    pub(crate) tail: Tail,
    /// Newest durable commit. Moved by the writer after the sync, behind the tail and the catalog.
    pub(crate) newest: watch::Sender<CommitNumber>,
    /// Newest commit that was written. Those above it hold records of tracks in memory only.
    pub(crate) durable: AtomicU64,
    pub(crate) halted: watch::Sender<Option<String>>,
    /// Written by the writer thread alone; a lock, since readers need several fields at one instant.
    catalog: RwLock<Catalog>,
    /// `None` once closed.
    engine: RwLock<Option<Engine>>,
    pub(crate) gauges: Gauges,
    pub(crate) losses: Losses,
}

/// Figures that are read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) segment_bytes: AtomicU64,
    pub(crate) keyed_bytes: AtomicU64,
    pub(crate) level: AtomicU8,
    /// Whether a new record is taken, by track: [`Admission`].
    pub(crate) admissions: Vec<AtomicU8>,
    /// The file system has less free space than the store needs to go on.
    pub(crate) disk_full: AtomicBool,
    pub(crate) commits: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) table_bytes: AtomicU64,
    pub(crate) accepted_bytes: AtomicU64,
}

/// What [`Shared::new`] needs beside the configuration.
pub(crate) struct Opened {
    pub(crate) catalog: Catalog,
    pub(crate) engine: Engine,
    pub(crate) newest: CommitNumber,
    pub(crate) log_id: [u8; 16],
    pub(crate) incarnations: Vec<Incarnation>,
}

impl Shared {
    pub(crate) fn new(config: StoreConfig, opened: Opened) -> Arc<Self> {
        let tracks = opened.catalog.tracks.iter().enumerate();
        let known = tracks.flat_map(|(number, track)| {
            let track_id = TrackId(number as u32);
            let damaged = |gap: &&Gap| matches!(gap.reason, DropReason::Damaged | DropReason::LostSuffix);
            track.gaps.iter().filter(damaged).map(move |gap| Loss {
                track: track_id,
                gap: *gap,
            })
        });
        let gauges = Gauges {
            admissions: opened.catalog.tracks.iter().map(|_| AtomicU8::new(0)).collect(),
            ..Gauges::default()
        };
        let shared = Self {
            losses: Losses::of(known),
            epoch: opened.incarnations.last().map_or(Epoch(0), |newest| newest.epoch),
            log_id: opened.log_id,
            incarnations: opened.incarnations,
            tail: Tail::new(config.tail_bytes, opened.newest.next()),
            newest: watch::Sender::new(opened.newest),
            durable: AtomicU64::new(opened.newest.0),
            halted: watch::Sender::new(None),
            catalog: RwLock::new(opened.catalog),
            engine: RwLock::new(Some(opened.engine)),
            gauges,
            config,
        };
        shared.weigh();
        Arc::new(shared)
    }

    pub(crate) fn newest(&self) -> CommitNumber {
        *self.newest.borrow()
    }

    pub(crate) fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        // A writer that panicked has halted the store; what it left is still the state of the last commit.
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn engine(&self) -> Result<Engine, ReadError> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        engine.clone().ok_or(ReadError::Closed)
    }

    /// Drops all handles of the database. The threads must have ended.
    pub(crate) fn close(&self) {
        let segments = std::mem::take(&mut self.catalog_mut().segments);
        drop(segments);
        let engine = self.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(engine);
    }

    /// Takes the figures of the catalog into the gauges and judges the pressure anew.
    pub(crate) fn weigh(&self) {
        let catalog = self.catalog();
        let bytes = catalog.bytes;
        self.gauges.segment_bytes.store(bytes, Ordering::Relaxed);
        let used = bytes + self.gauges.keyed_bytes.load(Ordering::Relaxed);
        let mut level = self
            .config
            .quota_bytes
            .map_or(Level::Normal, |quota| Level::of(used, quota));
        if self.gauges.disk_full.load(Ordering::Relaxed) {
            level = Level::Full;
        }
        self.gauges.level.store(level as u8, Ordering::Relaxed);
        if self.config.layout == Layout::Edge {
            let priorities = self.config.policies.iter().map(|(_, policy)| policy.priority);
            let lowest = priorities.min().unwrap_or_default();
            for (track, admission) in catalog.tracks.iter().zip(&self.gauges.admissions) {
                let now = track.policy.admission(level, track.level(), lowest);
                admission.store(now as u8, Ordering::Relaxed);
            }
        }
    }

    /// Whether a new record of the track is taken.
    pub(crate) fn admission(&self, track: TrackId) -> Admission {
        let admission = self.gauges.admissions.get(track.0 as usize);
        admission.map_or(Admission::Take, |now| Admission::from_u8(now.load(Ordering::Relaxed)))
    }

    /// How full the quota is, whatever the disk says.
    pub(crate) fn quota_level(&self) -> Level {
        let Pressure { used, quota, .. } = self.pressure();
        if quota == u64::MAX {
            Level::Normal
        } else {
            Level::of(used, quota)
        }
    }

    pub(crate) fn pressure(&self) -> Pressure {
        let gauges = &self.gauges;
        Pressure {
            used: gauges.segment_bytes.load(Ordering::Relaxed) + gauges.keyed_bytes.load(Ordering::Relaxed),
            quota: self.config.quota_bytes.unwrap_or(u64::MAX),
            level: Level::from_u8(gauges.level.load(Ordering::Relaxed)),
        }
    }

    /// The first reason is the one that counts.
    pub(crate) fn halt(&self, reason: String) {
        if self.halted.borrow().is_some() {
            return;
        }
        tracing::error!(reason, "store halted: nothing more is committed or acknowledged");
        metrics::counter!("fellbeck_store_halts_total").increment(1);
        self.halted.send_replace(Some(reason));
    }
}
