//! The index of device message IDs of a cloud: shared by all links, durable with the records that it is about.
//!
//! In: the identifiers of records on their way into a commit. Out: whether each is known, and entries for that same commit.
//! Layouts are drawn in `docs/format/marks.md`. An [`Intake`] holds the lock from the first identifier of a commit until the store has
//! taken it: the store makes commits durable in the order in which it takes them, so whoever sees an identifier of another link is
//! durable behind it, and its W may say so (I3). What cannot be decoded stops the node at start, like a mark.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fellbeck_core::varint::{put_u64, take_u64};
use fellbeck_core::{Record, WallTime};
use fellbeck_store::{Commit, Delete, Put, ReadError, Space, Store};

use super::device_id::{DeviceId, Identified, Scheme};
use super::mark::{LaneKey, duplicates_key, take_duplicates_key};
use super::window::{Change, Window, WindowLimits};

/// Begins the keys of the index; the space of the node has other tenants.
const PREFIX: &[u8] = b"dedup/";
const KIND_IDS: u8 = b'i';
const VERSION: u8 = 1;

/// The index cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An entry does not decode.
    #[error("an entry of the index of device message IDs does not decode (key {0:02x?})")]
    Entry(Vec<u8>),
}

/// All device message IDs that are remembered.
#[derive(Debug)]
pub struct DeviceIds {
    scheme: Scheme,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    window: Window,
    /// Records of each lane that were dropped since their identifier was known, ever.
    duplicates: HashMap<LaneKey, u64>,
}

/// The identifiers of one commit under construction.
pub struct Intake<'a> {
    state: MutexGuard<'a, State>,
    now: WallTime,
    fresh: Vec<DeviceId>,
    duplicates: u64,
    change: Option<(Change, LaneKey, u64)>,
}

/// What is to become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing speaks against it.
    Store,
    /// It is a message that is stored already.
    Known,
    /// Store it; its identifier breaks the bounds.
    Unidentified,
}

impl DeviceIds {
    /// An index without entries.
    pub fn new(scheme: Scheme, limits: WindowLimits) -> Self {
        let state = State {
            window: Window::new(limits),
            duplicates: HashMap::new(),
        };
        Self {
            scheme,
            state: Mutex::new(state),
        }
    }

    /// Reads the index. Blocks.
    pub(crate) fn load(store: &Store, scheme: Scheme, limits: WindowLimits) -> Result<Self, IndexError> {
        let index = Self::new(scheme, limits);
        let mut state = index.lock();
        for stored in store.load(Space::Node)? {
            let Some(key) = stored.key.strip_prefix(PREFIX) else {
                continue;
            };
            let bad = || IndexError::Entry(stored.key.to_vec());
            state.load(key, &stored.value).ok_or_else(bad)?;
        }
        let State { window, duplicates } = &mut *state;
        tell(window);
        tracing::info!(
            ids = window.len(),
            lanes = duplicates.len(),
            "device message IDs loaded"
        );
        drop(state);
        Ok(index)
    }

    /// Judges a record. `intake` is made when the first identifier of a commit is met.
    pub(crate) fn judge<'a>(&'a self, intake: &mut Option<Intake<'a>>, record: &Record<'_>, now: WallTime) -> Verdict {
        let id = match self.scheme.identify(record) {
            Identified::No => return Verdict::Store,
            Identified::Badly => return Verdict::Unidentified,
            Identified::As(id) => id,
        };
        let intake = intake.get_or_insert_with(|| self.intake(now));
        if intake.state.window.note(id) {
            intake.fresh.push(id);
            Verdict::Store
        } else {
            intake.duplicates += 1;
            Verdict::Known
        }
    }

    fn intake(&self, now: WallTime) -> Intake<'_> {
        let mut state = self.lock();
        state.window.expire(now);
        Intake {
            state,
            now,
            fresh: Vec::new(),
            duplicates: 0,
            change: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A holder that panicked has ended the node; until then what it noted counts as known, and nobody is told so.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn load(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (&kind, rest) = key.split_first()?;
        if kind == KIND_IDS {
            let number = u64::from_be_bytes(rest.try_into().ok()?);
            return self.window.load(number, value).ok();
        }
        let lane = take_duplicates_key(key)?;
        let (&version, mut rest) = value.split_first()?;
        let count = take_u64(&mut rest)?;
        if version != VERSION || !rest.is_empty() {
            return None;
        }
        self.duplicates.insert(lane, count);
        Some(())
    }
}

impl Intake<'_> {
    /// Records of this commit that are known.
    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Adds to `commit` what has to be durable with it.
    pub(crate) fn seal(&mut self, commit: &mut Commit, lane: &LaneKey) {
        let change = self.state.window.change(&self.fresh, self.now);
        let space = Space::Node;
        for (number, value) in &change.puts {
            let (key, value) = (ids_key(*number), value.clone());
            commit.puts.push(Put { space, key, value });
        }
        for number in &change.deletes {
            let key = ids_key(*number);
            commit.deletes.push(Delete { space, key });
        }
        let duplicates = self.state.duplicates.get(lane).copied().unwrap_or(0) + self.duplicates;
        if self.duplicates > 0 {
            let (key, value) = ([PREFIX, &duplicates_key(lane)].concat().into(), count_value(duplicates));
            commit.puts.push(Put { space, key, value });
        }
        self.change = Some((change, lane.clone(), duplicates));
    }

    /// The store has taken the commit. Without this call nothing was noted.
    pub fn settle(mut self) {
        let Some((change, lane, duplicates)) = self.change.take() else {
            return;
        };
        let fresh = std::mem::take(&mut self.fresh);
        self.state.window.committed(&change, &fresh, self.now);
        if self.duplicates > 0 {
            self.state.duplicates.insert(lane, duplicates);
        }
        tell(&mut self.state.window);
    }
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        self.state.window.unnote(&fresh);
    }
}

fn tell(window: &mut Window) {
    let forgotten = window.take_forgotten();
    metrics::gauge!("fellbeck_dedup_ids").set(window.len() as f64);
    metrics::counter!("fellbeck_dedup_ids_forgotten_total", "why" => "count").increment(forgotten.by_count);
    metrics::counter!("fellbeck_dedup_ids_forgotten_total", "why" => "age").increment(forgotten.by_age);
}

fn ids_key(number: u64) -> Bytes {
    let mut key = [PREFIX, &[KIND_IDS]].concat();
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

fn count_value(count: u64) -> Bytes {
    let mut value = vec![VERSION];
    put_u64(&mut value, count);
    value.into()
}
