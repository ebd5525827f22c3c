//! Sparing space: only the newest record of each topic, or one per topic and interval, while space is short (P7).
//!
//! `KeepLatest`: a record goes into a keyed store under its topic, in the commit that is acknowledged, and takes the place of the one
//! before. `Thin`: the first record of a topic in an interval is appended as ever, the others are not kept. What is not kept is *owed*: a durable
//! count. When there is room again, what was set aside is appended in its order, and what is owed gets its numbers as one gap behind it. So
//! each record that was acknowledged has a number of its own in the end (P9). Bounds: [`TOPICS_MAX`] topics and a sixteenth of the quota
//! per track; beyond them records are appended as ever, until the store is full.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};
use fellbeck_core::{DropReason, RecordBlock, Seq, TrackId};
use fjall::Keyspace;

use super::Writer;
use super::draft::Draft;
use crate::entry::Gap;
use crate::error::HaltError;
use crate::key::{gap_value, index};
use crate::merge::Merged;
use crate::policy::Overflow;
use crate::stats::Level;

/// Topics that are told apart per track.
const TOPICS_MAX: usize = 10_000;
/// Part of the quota that the records set aside of one track may take.
const QUOTA_SHARE: u64 = 16;
/// Record bytes brought back in one commit.
const CHUNK_BYTES: usize = 256 << 10;
/// Such commits in one go, so that publishers do not wait for long.
const CHUNKS_MAX: usize = 16;
/// Used percent of a quota below which what was set aside comes back: well below where sparing begins, so that it does not begin anew at once.
const BACK_BELOW_PERCENT: u64 = 75;
const VERSION: u8 = 1;
/// Bytes of a value before the record: version, order.
const HEAD_BYTES: usize = 9;

/// What one track has set aside.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    /// Records go here and not into the log.
    active: bool,
    /// Newest record of each topic: its place in the order of arrival, and its bytes.
    latest: HashMap<Bytes, Held>,
    bytes: u64,
    /// Order of the next record.
    next: u64,
    /// When a record of a topic was kept last.
    kept: HashMap<Bytes, Instant>,
    /// Records given up that have no number yet.
    owed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    order: u64,
    bytes: u64,
}

impl Spare {
    /// Records set aside.
    pub(crate) fn len(&self) -> usize {
        self.latest.len()
    }

    fn is_empty(&self) -> bool {
        self.latest.is_empty() && self.owed == 0
    }

    /// Takes note of the newest record of a topic. `None`: there is no room for another topic. `Some(true)`: it takes the place of one.
    fn hold(&mut self, topic: &str, bytes: u64, bytes_max: u64) -> Option<(u64, bool)> {
        // The engine takes keys of at most 65,535 bytes, and the track stands before the topic.
        if topic.len() > usize::from(u16::MAX) - 4 {
            return None;
        }
        let before = self.latest.get(topic.as_bytes()).map(|held| held.bytes);
        let total = self.bytes - before.unwrap_or(0) + bytes;
        if before.is_none() && (self.latest.len() >= TOPICS_MAX || total > bytes_max) {
            return None;
        }
        self.bytes = total;
        let order = self.next;
        self.next += 1;
        let held = Held { order, bytes };
        self.latest.insert(Bytes::copy_from_slice(topic.as_bytes()), held);
        self.owed += u64::from(before.is_some());
        Some((order, before.is_some()))
    }

    /// Whether a record of the topic is one too many in its interval.
    fn is_surplus(&mut self, topic: &str, interval: Duration, now: Instant) -> bool {
        match self.kept.get_mut(topic.as_bytes()) {
            Some(last) if now.saturating_duration_since(*last) < interval => true,
            Some(last) => {
                *last = now;
                false
            }
            None => {
                if self.kept.len() >= TOPICS_MAX {
                    self.kept
                        .retain(|_, last| now.saturating_duration_since(*last) < interval);
                }
                if self.kept.len() < TOPICS_MAX {
                    self.kept.insert(Bytes::copy_from_slice(topic.as_bytes()), now);
                }
                false
            }
        }
    }
}

/// What a restart finds: the records set aside of each track, and what is owed.
pub(crate) fn restore(keyspace: &Keyspace, owed: &[u64]) -> fjall::Result<Vec<Spare>> {
    let spare = |owed: &u64| Spare {
        owed: *owed,
        active: *owed > 0,
        ..Spare::default()
    };
    let mut spares: Vec<Spare> = owed.iter().map(spare).collect();
    for guard in keyspace.iter() {
        let (key, value) = guard.into_inner()?;
        let Some((track, topic)) = parse_key(&key) else {
            continue;
        };
        let (Some(spare), Some((order, _))) = (spares.get_mut(track.0 as usize), parse_value(&value)) else {
            tracing::error!(track = track.0, "a record set aside does not decode: left as it is");
            continue;
        };
        let bytes = (key.len() + value.len()) as u64;
        spare
            .latest
            .insert(Bytes::copy_from_slice(topic), Held { order, bytes });
        spare.bytes += bytes;
        spare.next = spare.next.max(order + 1);
        spare.active = true;
    }
    Ok(spares)
}

impl Writer {
    /// Some track sets records aside, or has some.
    pub(super) fn is_sparing(&self) -> bool {
        self.spares.iter().any(|spare| spare.active)
    }

    /// Takes out of `blocks` what the policy of the track does not append now.
    pub(super) fn spare(&mut self, draft: &mut Draft, id: TrackId, blocks: Vec<RecordBlock>) -> Vec<RecordBlock> {
        let level = self.shared.quota_level();
        let (policy, name) = {
            let catalog = self.shared.catalog();
            let track = &catalog.tracks[id.0 as usize];
            let short = level.max(track.level()) != Level::Normal;
            let spare = &mut self.spares[id.0 as usize];
            if !(spare.active || track.policy.is_sparing() && short) {
                return blocks;
            }
            (track.policy, track.name.clone())
        };
        if !std::mem::replace(&mut self.spares[id.0 as usize].active, true) {
            tracing::warn!(track = name, policy = ?policy.overflow, "space runs out: records are spared");
        }
        let before = self.spares[id.0 as usize].owed;
        let kept = match policy.overflow {
            Overflow::KeepLatest => self.set_aside(draft, id, &blocks),
            Overflow::Thin { interval } => self.thin(id, interval, &blocks),
            _ => return blocks,
        };
        let spare = &self.spares[id.0 as usize];
        if spare.owed > before {
            draft.put(&self.engine.index, index::owed(id), spare.owed.to_be_bytes().to_vec());
            let reason = reason_of(policy.overflow).as_str();
            metrics::counter!("fellbeck_store_dropped_records_total", "reason" => reason, "track" => name)
                .increment(spare.owed - before);
        }
        draft.set_aside.push((id, spare.latest.len() as u64, spare.owed));
        kept
    }

    fn set_aside(&mut self, draft: &mut Draft, id: TrackId, blocks: &[RecordBlock]) -> Vec<RecordBlock> {
        let quota = self.shared.config.quota_bytes.unwrap_or(u64::MAX);
        let spare = &mut self.spares[id.0 as usize];
        // All of a commit carry one number, so the engine must see each key once.
        let mut puts: HashMap<&str, (u64, RecordBlock)> = HashMap::new();
        let mut kept = Vec::new();
        for block in blocks {
            for at in 0..block.len() {
                let topic = block.get(at).topic;
                let one = block.slice(at..at + 1);
                let bytes = (4 + topic.len() + HEAD_BYTES + one.bytes().len()) as u64;
                match spare.hold(topic, bytes, quota / QUOTA_SHARE) {
                    Some((order, _)) => drop(puts.insert(topic, (order, one))),
                    None => kept.push(one),
                }
            }
        }
        for (topic, (order, one)) in puts {
            draft.put(&self.engine.spare, key(id, topic.as_bytes()), value(order, &one));
        }
        kept
    }

    fn thin(&mut self, id: TrackId, interval: Duration, blocks: &[RecordBlock]) -> Vec<RecordBlock> {
        let now = Instant::now();
        let spare = &mut self.spares[id.0 as usize];
        let mut kept = Vec::new();
        for block in blocks {
            for at in 0..block.len() {
                if spare.is_surplus(block.get(at).topic, interval, now) {
                    spare.owed += 1;
                } else {
                    kept.push(block.slice(at..at + 1));
                }
            }
        }
        kept
    }

    /// Appends what was set aside and declares what is owed, where there is room again or the policy is another one by now.
    pub(super) fn bring_back(&mut self) -> Result<(), HaltError> {
        for number in 0..self.spares.len() {
            let id = TrackId(number as u32);
            if !self.spares[number].active || !self.may_bring_back(id) {
                continue;
            }
            let is_sparing = self.shared.catalog().tracks[number].policy.is_sparing();
            let mut chunks = 0;
            while !self.spares[number].is_empty() && (chunks < CHUNKS_MAX || !is_sparing) {
                self.bring_back_some(id)?;
                chunks += 1;
            }
            if !self.spares[number].is_empty() {
                // The rest follows the next commit, or comes within the second; until then records go the same way as before.
                continue;
            }
            self.spares[number] = Spare::default();
            tracing::info!(track = number, "there is room again: nothing more is spared");
        }
        Ok(())
    }

    fn may_bring_back(&self, id: TrackId) -> bool {
        let used = self.shared.pressure();
        let below = |used: u64, quota: Option<u64>| quota.is_none_or(|quota| used < quota / 100 * BACK_BELOW_PERCENT);
        let catalog = self.shared.catalog();
        let track = &catalog.tracks[id.0 as usize];
        let room = below(used.used, self.shared.config.quota_bytes) && below(track.bytes, track.policy.quota_bytes);
        room || !track.policy.is_sparing()
    }

    /// One commit: the oldest of what is set aside, or behind the last of it the gap of what is owed.
    fn bring_back_some(&mut self, id: TrackId) -> Result<(), HaltError> {
        let mut draft = Draft::new(&self.engine, self.shared.newest().next());
        draft.is_durable = true;
        let spare = &mut self.spares[id.0 as usize];
        let mut oldest: Vec<(u64, Bytes)> = spare
            .latest
            .iter()
            .map(|(topic, held)| (held.order, topic.clone()))
            .collect();
        oldest.sort_unstable();
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        for (_, topic) in oldest {
            if bytes >= CHUNK_BYTES {
                break;
            }
            let key = key(id, &topic);
            let stored = self.engine.spare.get(&key)?;
            match stored.as_deref().and_then(parse_value) {
                Some((_, block)) => {
                    bytes += block.bytes().len();
                    blocks.push(block);
                }
                None => {
                    tracing::error!(track = id.0, "a record set aside is damaged");
                    spare.owed += 1;
                }
            }
            draft.remove(&self.engine.spare, key);
            if let Some(held) = spare.latest.remove(&topic) {
                spare.bytes -= held.bytes;
            }
        }
        let (left, owed) = (spare.latest.len() as u64, spare.owed);
        if !blocks.is_empty() {
            self.append(&mut draft, id, blocks)?;
        }
        if left == 0 {
            self.declare_owed(&mut draft, id, owed);
        }
        let still_owed = if left == 0 { 0 } else { owed };
        draft.set_aside.push((id, left, still_owed));
        let written = self.write(draft, &Merged::default())?;
        self.spares[id.0 as usize].owed = still_owed;
        self.tidy(&written)
    }

    fn declare_owed(&mut self, draft: &mut Draft, id: TrackId, owed: u64) {
        draft.remove(&self.engine.index, index::owed(id));
        if owed == 0 {
            return;
        }
        let catalog = self.shared.catalog();
        let track = &catalog.tracks[id.0 as usize];
        let behind = draft
            .appended
            .iter()
            .filter(|entry| entry.span.track == id)
            .map(|entry| entry.span.end);
        let first = behind.max().unwrap_or(track.end);
        let gap = Gap {
            epoch: self.shared.epoch,
            first,
            last: Seq(first.0 + owed - 1),
            reason: reason_of(track.policy.overflow),
        };
        draft.put(&self.engine.index, index::gap(id, first), gap_value(&gap));
        draft.declared.push((id, gap));
    }
}

fn reason_of(overflow: Overflow) -> DropReason {
    match overflow {
        Overflow::Thin { .. } => DropReason::Thin,
        _ => DropReason::KeepLatest,
    }
}

fn key(track: TrackId, topic: &[u8]) -> Vec<u8> {
    [&track.0.to_be_bytes()[..], topic].concat()
}

fn parse_key(key: &[u8]) -> Option<(TrackId, &[u8])> {
    let (track, topic) = key.split_first_chunk::<4>()?;
    Some((TrackId(u32::from_be_bytes(*track)), topic))
}

fn value(order: u64, block: &RecordBlock) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + block.bytes().len());
    out.put_u8(VERSION);
    out.put_u64(order);
    out.put_slice(block.bytes());
    out
}

fn parse_value(value: &[u8]) -> Option<(u64, RecordBlock)> {
    let (head, block) = value.split_first_chunk::<HEAD_BYTES>()?;
    let order = u64::from_be_bytes(*head[1..].first_chunk()?);
    let block = RecordBlock::parse(Bytes::copy_from_slice(block), 1).ok()?;
    (head[0] == VERSION).then_some((order, block))
}
