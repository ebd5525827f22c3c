//! How the store in memory loses things: trimming, by its own rules; crashes, damage and copies, by those of the world.
//!
//! Which segments go is chosen by the real store's rule ([`trim_edge`]), of runs of entries that stand for segments.

use std::sync::Arc;

use fellbeck_core::{DropReason, Seq, TrackId};
use fellbeck_store::pure::{Candidate, EdgeBounds, trim_edge};
use fellbeck_store::{CommittedBlock, Gap, Space, TrackEntry};

use super::{Durable, MemStore, Syncing, number};
use crate::plan::Planted;

impl MemStore {
    /// Segments are runs of entries with at least so many records; the last one of a track is open.
    pub(super) fn trim(&mut self) -> Vec<(TrackId, Seq, Seq)> {
        let Some(records) = self.settings.segment_records else {
            return Vec::new();
        };
        let mut candidates = Vec::new();
        let mut ends = Vec::new();
        for (at, track) in self.disk.tracks.iter().enumerate() {
            let (mut bytes, mut first) = (0, track.first);
            for held in &track.held {
                bytes += match &held.entry {
                    TrackEntry::Batch(batch) => batch.encoded_len() as u64,
                    TrackEntry::Gap(_) => 20,
                };
                if held.last.0 + 1 - first.0 < records {
                    continue;
                }
                if !(track.sessions_only || held.last <= track.acked) {
                    break;
                }
                candidates.push(Candidate {
                    id: ends.len() as u64,
                    bytes: std::mem::take(&mut bytes),
                    last_commit: held.commit,
                    touched_ms: 0,
                    graceful: !track.sessions_only,
                });
                first = held.last.next();
                ends.push((TrackId(at as u32), first));
            }
        }
        let bounds = EdgeBounds {
            grace_bytes: self.settings.grace_bytes,
            floor: self.disk.floor,
            pin_bytes: self.settings.pin_bytes,
        };
        let mut trimmed = Vec::new();
        for id in trim_edge(candidates, bounds).segments {
            let (id, end) = ends[id as usize];
            let track = &mut self.disk.tracks[id.0 as usize];
            assert!(
                track.sessions_only || end.0 <= track.acked.0 + 1,
                "I2: {} trims up to {end}, acknowledged is {}",
                track.name,
                track.acked
            );
            let first = track.first;
            while track.held.front().is_some_and(|held| held.first < end) {
                track.held.pop_front();
            }
            track.first = track.first.max(end);
            trimmed.push((id, first, end));
        }
        trimmed
    }

    /// The process dies and starts again as incarnation `id`. A commit that was syncing has reached flash or not.
    pub(crate) fn crash(&mut self, survives: bool, id: [u8; 16]) -> Option<Durable> {
        let durable = match self.syncing.take() {
            Some(Syncing { merged, commit, .. }) if survives => Some(self.apply(merged, commit)),
            _ => None,
        };
        self.waiting.clear();
        self.seats.clear();
        self.tail.clear();
        self.tail_bytes = 0;
        self.late.clear();
        if self.plants(Planted::CommitNumberReused) && self.disk.newest.0 > 0 && id[15].is_multiple_of(2) {
            self.disk.newest.0 -= 1;
        }
        if self.plants(Planted::LostQos2Note) {
            self.disk.values[number(Space::Session)].retain(|key, _| !is_received_note(key));
        }
        self.open(id);
        durable
    }

    /// The commit that was durable last is unreadable at the start that has just been made: its records become gaps, everything
    /// else is as before it. Its number and its positions are not used again. Returns it, if it had records.
    pub(crate) fn damage(&mut self) -> Option<Arc<CommittedBlock>> {
        let undo = self.undo.take()?;
        for (space, key, old) in undo.values.into_iter().rev() {
            match old {
                Some(old) => self.disk.values[space].insert(key, old),
                None => self.disk.values[space].remove(&key),
            };
        }
        for (track, acked) in undo.acked {
            self.disk.tracks[track.0 as usize].acked = acked;
        }
        self.disk.floor = undo.floor;
        let newest = self.disk.newest;
        let epoch = self.epoch();
        let kept = self.disk.log.last_mut().filter(|kept| kept.block.commit == newest)?;
        kept.lost = true;
        let block = kept.block.clone();
        for part in &block.tracks {
            let track = &mut self.disk.tracks[part.track.0 as usize];
            let last = Seq(part.first.0 + part.block.len() as u64 - 1);
            if let Some(held) = track.held.back_mut().filter(|held| held.first == part.first) {
                held.entry = TrackEntry::Gap(Gap {
                    epoch,
                    first: part.first,
                    last,
                    reason: DropReason::LostSuffix,
                });
            }
        }
        Some(block)
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some(self.disk.clone());
    }

    /// The copy is put in place and opened as incarnation `id`. Only behind a crash.
    pub(crate) fn restore_snapshot(&mut self, id: [u8; 16]) -> bool {
        let Some(snapshot) = &self.snapshot else {
            return false;
        };
        self.disk = snapshot.clone();
        self.undo = None;
        self.open(id);
        true
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }
}

/// Whether a key of the session space is the note of a received QoS 2 message.
fn is_received_note(key: &[u8]) -> bool {
    key.first() == Some(&b'Q')
}
