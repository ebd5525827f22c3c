//! Versions of the subscriptions of one session: which filter was in force for which commits.
//!
//! In: what [`subscription`](super::subscription) opens, closes and restores. Out: what a record of a commit matches. Found by
//! slot or by name without going through the others, since a client may have thousands and name thousands in one packet.
//! Invariant: `open` holds exactly the newest version of each name that is not closing.

use std::collections::{BTreeMap, HashMap};

use fellbeck_core::{CommitNumber, Filter, QoS, Record, ShareName};

use super::edge::is_kept_back;

/// Subscribe options that matter for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) id: Option<u32>,
}

/// One subscription in one form, and for how long.
#[derive(Debug, Clone)]
pub(super) struct SubscriptionVersion {
    /// Number within the session, never reused; part of the stored key.
    pub(super) slot: u32,
    pub(super) share: Option<ShareName>,
    pub(super) filter: Filter,
    pub(super) options: Options,
    /// Commit after which it is in force; `None` while that commit is not durable.
    pub(super) since: Option<CommitNumber>,
    /// Last commit for which it is in force, once it was closed.
    pub(super) until: Option<CommitNumber>,
    /// A newer version or an UNSUBSCRIBE closes it; `until` follows when that is durable.
    pub(super) closing: bool,
    /// Newer version that is sent what this one is still owed of the retained messages. Not stored.
    pub(super) heir: Option<u32>,
}

impl SubscriptionVersion {
    pub(super) fn is_open(&self) -> bool {
        !self.closing
    }

    fn name_bytes(&self) -> usize {
        name_bytes(self.share.as_ref(), &self.filter)
    }

    pub(super) fn covers(&self, commit: CommitNumber) -> bool {
        self.since.is_some_and(|since| since < commit) && self.until.is_none_or(|until| commit <= until)
    }
}

/// All versions of one session, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    versions: BTreeMap<u32, SubscriptionVersion>,
    open: HashMap<(Option<ShareName>, Filter), u32>,
    /// Shared ones among `open`.
    open_shared: usize,
    next_slot: u32,
    /// Of the names of all versions.
    bytes: usize,
}

/// What the own subscriptions of a session say of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matched {
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl Subscriptions {
    pub(super) fn iter(&self) -> impl Iterator<Item = &SubscriptionVersion> {
        self.versions.values()
    }

    /// Versions, closed ones included.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn open_shared_count(&self) -> usize {
        self.open_shared
    }

    /// Bytes of filters and share names, closed versions included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn next_slot(&self) -> u32 {
        self.next_slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&SubscriptionVersion> {
        self.versions.get(&slot)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut SubscriptionVersion> {
        self.versions.get_mut(&slot)
    }

    pub(super) fn find_open(&self, share: Option<&ShareName>, filter: &Filter) -> Option<&SubscriptionVersion> {
        self.get(*self.open.get(&(share.cloned(), filter.clone()))?)
    }

    /// Takes a version as it was stored.
    pub(super) fn restore(&mut self, version: SubscriptionVersion) {
        self.insert(version);
    }

    /// Takes a new version, in slot [`Subscriptions::next_slot`]. It stands for its name from now on.
    pub(super) fn add(&mut self, version: SubscriptionVersion) {
        self.insert(version);
    }

    fn insert(&mut self, version: SubscriptionVersion) {
        self.next_slot = self.next_slot.max(version.slot + 1);
        if version.is_open() {
            let replaced = self.open.insert(name_of(&version), version.slot);
            self.open_shared += usize::from(replaced.is_none() && version.share.is_some());
        }
        self.bytes += version.name_bytes();
        if let Some(replaced) = self.versions.insert(version.slot, version) {
            self.bytes -= replaced.name_bytes();
        }
    }

    /// The version will end; `heir` replaces it and takes over its snapshot.
    pub(super) fn close(&mut self, slot: u32, heir: Option<u32>) {
        if let Some(version) = self.versions.get_mut(&slot) {
            version.closing = true;
            version.heir = heir;
            let name = name_of(version);
            self.forget_name(&name, slot);
        }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<SubscriptionVersion> {
        let version = self.versions.remove(&slot)?;
        self.bytes -= version.name_bytes();
        self.forget_name(&name_of(&version), slot);
        Some(version)
    }

    fn forget_name(&mut self, name: &(Option<ShareName>, Filter), slot: u32) {
        if self.open.get(name) == Some(&slot) {
            self.open.remove(name);
            self.open_shared -= usize::from(name.0.is_some());
        }
    }

    /// The version that is open now of those that took over, one from the other, what `slot` was owed.
    pub(super) fn open_heir_of(&self, slot: u32) -> Option<&SubscriptionVersion> {
        let mut version = self.get(slot)?;
        while !version.is_open() {
            version = self.get(version.heir?)?;
        }
        Some(version)
    }

    /// Whether `record` of `commit` is to be delivered, and how. `ids` receives the subscription identifiers.
    /// [MQTT5-3.3.4-2] [MQTT5-3.3.4-3]
    pub(super) fn matching(
        &self,
        record: &Record<'_>,
        commit: CommitNumber,
        client_id: &str,
        ids: &mut Vec<u32>,
    ) -> Option<Matched> {
        ids.clear();
        let mut matched: Option<Matched> = None;
        for version in self.versions.values() {
            let in_force = version.share.is_none() && version.covers(commit);
            if !in_force || !version.filter.matches(record.topic) {
                continue;
            }
            let is_left_out = (version.options.no_local && is_local(record, client_id))
                || is_kept_back(record, client_id, version.options.id);
            if is_left_out {
                continue;
            }
            let best = matched.get_or_insert(Matched {
                qos: QoS::AtMostOnce,
                retain: false,
            });
            best.qos = best.qos.max(version.options.qos.min(record.qos));
            best.retain |= version.options.retain_as_published && record.retain;
            ids.extend(version.options.id);
        }
        matched
    }

    /// Removes the versions that end before `commit`, but for those in `kept`, and gives their slots.
    pub(super) fn forget_before(&mut self, commit: CommitNumber, kept: &[u32]) -> Vec<u32> {
        let mut gone = Vec::new();
        let bytes = &mut self.bytes;
        self.versions.retain(|_, version| {
            let past = version.until.is_some_and(|until| until < commit) && !kept.contains(&version.slot);
            if past {
                *bytes -= version.name_bytes();
                gone.push(version.slot);
            }
            !past
        });
        gone
    }
}

/// Bytes of a name, as they count for the bound.
pub(super) fn name_bytes(share: Option<&ShareName>, filter: &Filter) -> usize {
    filter.as_str().len() + share.map_or(0, |share| share.as_str().len())
}

fn name_of(version: &SubscriptionVersion) -> (Option<ShareName>, Filter) {
    (version.share.clone(), version.filter.clone())
}

/// Published to this node by the same client: what No Local leaves out. [MQTT5-3.8.3-3]
pub(super) fn is_local(record: &Record<'_>, client_id: &str) -> bool {
    record.path.is_empty() && record.device == client_id
}
