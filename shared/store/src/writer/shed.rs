//! Giving up the oldest segments of the least valuable track (P7), and what else makes room.
//!
//! A segment is given up in two steps: a synced commit declares what nobody has acknowledged of it as a gap, then its files go. A crash
//! in between leaves both; the next open deletes the segment. What is given up is counted (I6), and the gap travels to the cloud.

use fellbeck_core::{DropReason, Epoch, Seq, TrackId};

use super::Writer;
use super::draft::Draft;
use crate::catalog::Track;
use crate::entry::Gap;
use crate::error::HaltError;
use crate::key::{Head, gap_value, index};
use crate::merge::Merged;
use crate::policy::Overflow;
use crate::stats::Level;

/// Segments given up in one go; more wait for the next commit or the next second.
const SHED_MAX: usize = 64;
/// An open segment is sealed and given up when it has this part of a segment's size: smaller ones are not worth their files.
const OPEN_SHARE: u64 = 4;

/// A segment that may go.
struct Victim {
    track: TrackId,
    id: u64,
}

impl Writer {
    /// The store or a track has less room than it should.
    pub(super) fn is_short(&self) -> bool {
        let is_short = |track: &Track| track.level() != Level::Normal;
        self.pressed() || self.is_sparing() || self.shared.catalog().tracks.iter().any(is_short)
    }

    /// Gives up what the policies give up, and brings back what was set aside once there is room.
    pub(super) fn make_room(&mut self) -> Result<(), HaltError> {
        self.shed_memory();
        self.seal_acked()?;
        for _ in 0..SHED_MAX {
            let Some(victim) = self.choose_victim() else { break };
            if !std::mem::replace(&mut self.shedding, true) {
                tracing::warn!("space runs out: the oldest segments of the least valuable lanes are given up");
            }
            self.give_up(&victim)?;
        }
        if self.shedding && self.shared.quota_level() == Level::Normal && self.choose_victim().is_none() {
            self.shedding = false;
            tracing::info!("there is room again: nothing more is given up");
        }
        self.bring_back()
    }

    /// Seals what is acknowledged and still open, since only sealed segments can go: many quiet lanes could hold the quota for ever.
    fn seal_acked(&mut self) -> Result<(), HaltError> {
        if !self.pressed() {
            return Ok(());
        }
        let open_min = |track: &Track| track.segment_bytes(self.shared.config.segment_bytes) / OPEN_SHARE;
        let acked: Vec<u64> = {
            let catalog = self.shared.catalog();
            let tracks = catalog.tracks.iter().filter(|track| !track.sessions_only);
            let newest = tracks.filter_map(|track| {
                let (_, id) = track.segments.back()?;
                let segment = &catalog.segments[id];
                let is_open = !segment.sealed && segment.seal.bytes >= open_min(track);
                (is_open && track.end <= track.acked.next()).then_some(*id)
            });
            newest.collect()
        };
        if acked.is_empty() {
            return Ok(());
        }
        acked.into_iter().for_each(|id| self.seal(id));
        let mut draft = Draft::new(&self.engine, self.shared.newest().next());
        draft.is_durable = true;
        self.write(draft, &Merged::default())?;
        self.trim(None);
        Ok(())
    }

    /// The front segment of the track with the lowest priority; of several, the oldest.
    fn choose_victim(&self) -> Option<Victim> {
        let is_full = self.shared.quota_level() != Level::Normal;
        let open_min = |track: &Track| track.segment_bytes(self.shared.config.segment_bytes) / OPEN_SHARE;
        let catalog = self.shared.catalog();
        let tracks = catalog.tracks.iter().enumerate();
        let candidates = tracks.filter_map(|(number, track)| {
            let gives = track.policy.overflow == Overflow::DropOldest
                && track.policy.memory_bytes.is_none()
                && !track.sessions_only;
            if !gives || !(is_full || track.level() != Level::Normal) {
                return None;
            }
            let (_, id) = track.segments.front()?;
            let segment = &catalog.segments[id];
            let is_worth_it = segment.sealed || segment.seal.bytes >= open_min(track);
            let victim = Victim {
                track: TrackId(number as u32),
                id: *id,
            };
            is_worth_it.then_some((track.policy.priority, segment.seal.first_commit, victim))
        });
        let least = candidates.min_by_key(|(priority, first_commit, _)| (*priority, *first_commit));
        least.map(|(_, _, victim)| victim)
    }

    fn give_up(&mut self, victim: &Victim) -> Result<(), HaltError> {
        self.seal(victim.id);
        let mut draft = Draft::new(&self.engine, self.shared.newest().next());
        draft.is_durable = true;
        let (gaps, count, name) = self.gaps_of(victim);
        for gap in gaps {
            draft.put(&self.engine.index, index::gap(victim.track, gap.first), gap_value(&gap));
            draft.declared.push((victim.track, gap));
        }
        let written = self.write(draft, &Merged::default())?;
        self.tidy(&written)?;
        self.remove(victim.id);
        self.shared.weigh();
        let reason = DropReason::DropOldest.as_str();
        metrics::counter!("fellbeck_store_dropped_records_total", "reason" => reason, "track" => name).increment(count);
        metrics::counter!("fellbeck_store_dropped_segments_total").increment(1);
        Ok(())
    }

    /// What is declared when the segment goes, how many records that names, and whose they are.
    fn gaps_of(&self, victim: &Victim) -> (Vec<Gap>, u64, String) {
        let catalog = self.shared.catalog();
        let track = &catalog.tracks[victim.track.0 as usize];
        let segment = &catalog.segments[&victim.id];
        let end = segment.seal.spans.last().map_or(Seq(0), |span| span.end);
        let first = segment.seal.spans.first().map_or(end, |span| span.first);
        let ranges = track.undeclared(first.max(track.acked.next()), end);
        let count = ranges.iter().map(|(first, end)| end.0 - first.0).sum();
        let epoch = last_epoch(&segment.keyspace).unwrap_or_default();
        let reason = DropReason::DropOldest;
        let gap = |(first, end): (Seq, Seq)| {
            // One range that grows, however long space is short.
            let before = track.gap_before(first, reason);
            Gap {
                epoch: before.map_or(epoch, |before| before.epoch.max(epoch)),
                first: before.map_or(first, |before| before.first),
                last: Seq(end.0 - 1),
                reason,
            }
        };
        (ranges.into_iter().map(gap).collect(), count, track.name.clone())
    }
}

/// Epoch of the newest entry; `None` when it cannot be read.
fn last_epoch(segment: &fjall::Keyspace) -> Option<Epoch> {
    let (_, value) = segment.iter().next_back()?.into_inner().ok()?;
    Head::peek(&value).map(|head| head.epoch)
}
