//! The high-water file: what is known to be synced, outside the database, so that a loss inside it cannot go unseen.
//!
//! Two slots, written in turn, each with a generation and a checksum: a torn write leaves the other. Written at each open,
//! then by the janitor at most once per second when something changed; so it may only lag behind the truth, never lead it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use bytes::{Buf, BufMut};
use fellbeck_core::{CommitNumber, Epoch, Seq};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalog::Track;
use crate::directory::{Directory, unseal};
use crate::shared::Shared;

const VERSION: u8 = 1;
const SLOTS: [&str; 2] = ["high-water.a", "high-water.b"];

/// What was synced at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HighWater {
    generation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) commit: CommitNumber,
    /// Per track: the next number, and the last one that is done with: acknowledged, or where nobody acknowledges, trimmed.
    pub(crate) tracks: Vec<(Seq, Seq)>,
}

impl HighWater {
    pub(crate) fn of(shared: &Shared) -> Self {
        // The commit number first: the catalog may be one commit ahead of it, never behind, and both are durable.
        let commit = CommitNumber(shared.durable.load(Ordering::Acquire));
        let catalog = shared.catalog();
        let known = |track: &Track| match track.policy.memory_bytes {
            // Only what is reserved is on flash.
            Some(_) => (track.ring.reserved.max(Seq(1)), Seq(0)),
            None if track.sessions_only => (track.end, Seq(track.first().0.saturating_sub(1))),
            None => (track.end, track.acked),
        };
        Self {
            generation: 0,
            epoch: shared.epoch,
            commit,
            tracks: catalog.tracks.iter().map(known).collect(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(33 + 16 * self.tracks.len());
        out.put_u8(VERSION);
        out.put_u64(self.generation);
        out.put_u32(self.epoch.0);
        out.put_u64(self.commit.0);
        out.put_u32(u32::try_from(self.tracks.len()).expect("tracks are numbered by u32"));
        for (end, acked) in &self.tracks {
            out.put_u64(end.0);
            out.put_u64(acked.0);
        }
        out.put_u64(xxh3_64(&out));
        out
    }

    fn decode(bytes: Vec<u8>) -> Option<Self> {
        let bytes = unseal(bytes)?;
        let mut rest = &bytes[..];
        if rest.len() < 25 || rest.get_u8() != VERSION {
            return None;
        }
        let (generation, epoch, commit) = (rest.get_u64(), Epoch(rest.get_u32()), CommitNumber(rest.get_u64()));
        let count = rest.get_u32() as usize;
        if rest.len() != count.checked_mul(16)? {
            return None;
        }
        let tracks = (0..count).map(|_| (Seq(rest.get_u64()), Seq(rest.get_u64()))).collect();
        Some(Self {
            generation,
            epoch,
            commit,
            tracks,
        })
    }
}

/// The two slots on disk.
#[derive(Debug)]
pub(crate) struct HighWaterFile {
    slots: [PathBuf; 2],
    last: HighWater,
    damaged: bool,
}

/// What the slots held.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: HighWaterFile,
    /// There were slots, but none that decodes.
    pub(crate) damaged: bool,
}

impl HighWaterFile {
    pub(crate) fn read(dir: &Directory) -> std::io::Result<Found> {
        let slots = SLOTS.map(|name| dir.path(name));
        let mut found = Vec::new();
        for slot in &slots {
            match std::fs::read(slot) {
                Ok(bytes) => found.push(HighWater::decode(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let damaged = !found.is_empty() && found.iter().all(Option::is_none);
        let last = found.into_iter().flatten().max_by_key(|slot| slot.generation);
        let last = last.unwrap_or_default();
        Ok(Found {
            file: Self { slots, last, damaged },
            damaged,
        })
    }

    /// No open has ever come to its end here.
    pub(crate) fn is_new(&self) -> bool {
        !self.damaged && self.last.generation == 0
    }

    pub(crate) fn last(&self) -> &HighWater {
        &self.last
    }

    /// Writes and syncs what was read, where it was read: the other slot, which may be the only one on disk, is overwritten next.
    pub(crate) fn write_again(&self) -> std::io::Result<()> {
        if self.last.generation == 0 {
            return Ok(());
        }
        self.write_slot(&self.last)
    }

    /// Writes and syncs `mark`, unless it says the same as the last one.
    pub(crate) fn write(&mut self, mark: HighWater) -> std::io::Result<()> {
        let generation = self.last.generation;
        let mark = HighWater { generation, ..mark };
        if mark == self.last && generation > 0 {
            return Ok(());
        }
        let mark = HighWater {
            generation: generation + 1,
            ..mark
        };
        self.write_slot(&mark)?;
        self.last = mark;
        Ok(())
    }

    fn write_slot(&self, mark: &HighWater) -> std::io::Result<()> {
        let bytes = mark.encode();
        let path = &self.slots[(mark.generation % 2) as usize];
        let fresh = !path.try_exists()?;
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_data()?;
        if fresh && let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}
