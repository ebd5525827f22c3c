//! From what the store holds to sessions and groups, at start.
//!
//! Every session comes back without a connection and behind the log; it finds out by reading whether anything is there for it.
//! A damaged value costs what it described and is counted; a value of a newer program stops the start, since going on would
//! destroy it.

use std::collections::BTreeMap;
use std::time::Duration;

use fellbeck_core::{CommitNumber, DropReason, LogPosition, QoS};
use fellbeck_store::commit::{Space, Stored};

use super::expiry::Timer;
use super::fanout::Subscriber;
use super::in_flight::{Entry, Source};
use super::persist::{
    self, DecodeError, StoredCursor, StoredEntry, StoredGroup, StoredKey, StoredSession, StoredSource,
};
use super::reader::Reader;
use super::retained::Snapshot;
use super::sent_bound::SentBound;
use super::state::{Kind, Session, SessionKey};
use super::versions::SubscriptionVersion;
use super::work::ReaderKey;
use super::{Core, Now};

/// The stored sessions cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Nothing was changed; start the program that wrote them.
    #[error("session state has format {found}, this program reads up to {}", persist::VERSION)]
    NewerFormat {
        /// Version found.
        found: u8,
    },
}

/// Everything stored of one client.
#[derive(Default)]
struct Parts {
    session: Option<StoredSession>,
    cursor: Option<StoredCursor>,
    subscriptions: Vec<SubscriptionVersion>,
    /// Slots, and the commits that ended them.
    ended: Vec<(u32, CommitNumber)>,
    received: Vec<u16>,
    resends: Vec<(u16, u64)>,
    bound: Option<CommitNumber>,
    keys: Vec<bytes::Bytes>,
}

/// All that was stored, sorted by what it belongs to.
#[derive(Default)]
struct Shelf {
    clients: BTreeMap<String, Parts>,
    groups: BTreeMap<(String, String), (StoredGroup, CommitNumber)>,
    mark: CommitNumber,
    discarded: Vec<bytes::Bytes>,
}

impl Shelf {
    fn sort(values: Vec<Stored>, newest: CommitNumber) -> Result<Self, RestoreError> {
        let mut shelf = Self::default();
        for stored in values {
            match shelf.place(&stored, newest) {
                Ok(()) => {}
                Err(DecodeError::Newer(found)) => return Err(RestoreError::NewerFormat { found }),
                Err(DecodeError::Damaged) => shelf.discarded.push(stored.key.clone()),
            }
        }
        Ok(shelf)
    }

    fn place(&mut self, stored: &Stored, newest: CommitNumber) -> Result<(), DecodeError> {
        let key = persist::parse_key(&stored.key).ok_or(DecodeError::Damaged)?;
        let client = match key {
            StoredKey::Mark => {
                self.mark = persist::decode_commit(&stored.value)?.min(newest);
                return Ok(());
            }
            StoredKey::Group(share, filter) => {
                let group = StoredGroup::decode(&stored.value)?;
                check(group.outstanding.iter().chain([&group.head]), newest)?;
                let since = group.since.unwrap_or(stored.commit).min(newest);
                self.groups
                    .insert((share.to_owned(), filter.to_owned()), (group, since));
                return Ok(());
            }
            StoredKey::Session(client)
            | StoredKey::Cursor(client)
            | StoredKey::Subscription(client, _)
            | StoredKey::Ended(client, _)
            | StoredKey::Received(client, _)
            | StoredKey::Resends(client)
            | StoredKey::Bound(client) => client,
        };
        let mut session = None;
        let mut cursor = None;
        let mut subscription = None;
        let mut resends = Vec::new();
        let mut bound = None;
        match key {
            StoredKey::Session(_) => session = Some(StoredSession::decode(&stored.value)?),
            StoredKey::Cursor(_) => cursor = Some(decode_cursor(&stored.value, newest)?),
            StoredKey::Subscription(_, slot) => {
                subscription = Some(persist::decode_subscription(&stored.value, slot, stored.commit)?);
            }
            StoredKey::Resends(_) => resends = persist::decode_resends(&stored.value)?,
            StoredKey::Bound(_) => bound = Some(persist::decode_commit(&stored.value)?),
            _ => persist::decode_empty(&stored.value)?,
        }
        let parts = self.clients.entry(client.to_owned()).or_default();
        parts.keys.push(stored.key.clone());
        parts.session = session.or(parts.session.take());
        parts.cursor = cursor.or(parts.cursor.take());
        parts.subscriptions.extend(subscription);
        parts.resends.extend(resends);
        parts.bound = bound.or(parts.bound);
        match key {
            StoredKey::Received(_, packet_id) => parts.received.push(packet_id),
            StoredKey::Ended(_, slot) => parts.ended.push((slot, stored.commit)),
            _ => {}
        }
        Ok(())
    }
}

fn decode_cursor(value: &[u8], newest: CommitNumber) -> Result<StoredCursor, DecodeError> {
    let cursor = StoredCursor::decode(value)?;
    let positions = cursor.in_flight.iter().filter_map(|entry| match &entry.source {
        StoredSource::Log(position) | StoredSource::Group(_, position) => Some(position),
        StoredSource::Retained(..) | StoredSource::GivenUp => None,
    });
    check(positions.chain([&cursor.head]), newest)?;
    Ok(cursor)
}

/// Positions beyond the end of the log cannot be ours.
fn check<'a>(mut positions: impl Iterator<Item = &'a LogPosition>, newest: CommitNumber) -> Result<(), DecodeError> {
    let beyond = newest.next();
    let fits = positions.all(|position| *position <= LogPosition::start_of(beyond));
    if fits { Ok(()) } else { Err(DecodeError::Damaged) }
}

impl Core {
    /// Takes what `Space::Session` holds, once, before anything else. `newest` is the newest commit of the store.
    pub fn restore(&mut self, values: Vec<Stored>, newest: CommitNumber, now: Now) -> Result<(), RestoreError> {
        let mut shelf = Shelf::sort(values, newest)?;
        self.fanned = newest;
        self.work.newest = newest;
        self.mark_due = shelf.mark != newest;
        self.restore_groups(&mut shelf);
        for (client_id, parts) in std::mem::take(&mut shelf.clients) {
            match parts.session {
                Some(_) => self.restore_session(&client_id, parts, &shelf, now),
                None => shelf.discarded.extend(parts.keys),
            }
        }
        self.finish_groups();
        let (sessions, groups, discarded) = (self.sessions.len(), self.groups.len(), shelf.discarded.len());
        tracing::info!(node = self.node, sessions, groups, "sessions restored");
        if discarded > 0 {
            tracing::error!(
                node = self.node,
                values = discarded,
                "damaged session state was discarded"
            );
            metrics::counter!("fellbeck_broker_session_state_discarded_total").increment(discarded as u64);
        }
        for key in shelf.discarded {
            self.work.delete(Space::Session, key);
        }
        self.work.counters.sessions.set(sessions as f64);
        Ok(())
    }

    fn restore_groups(&mut self, shelf: &mut Shelf) {
        for ((share, filter), (stored, since)) in std::mem::take(&mut shelf.groups) {
            let Ok(subscription) = fellbeck_core::Filter::parse_subscription(&format!("$share/{share}/{filter}"))
            else {
                continue;
            };
            let Some(share) = subscription.share else {
                continue;
            };
            let head = follow_mark(stored.head, stored.level, shelf.mark).max(LogPosition::after(since));
            let key = self
                .groups
                .add(share, subscription.filter, reader_from(head, self.fanned));
            if let Some(group) = self.groups.get_mut(key) {
                group.since = Some(since);
                group.reader.ledger = stored.ledger;
                group.reader.unread = stored.unread;
                group.returned = stored.outstanding.into_iter().collect();
                self.committed.insert(&group.filter, Subscriber::of_group(key, since));
            }
        }
    }

    fn restore_session(&mut self, client_id: &str, parts: Parts, shelf: &Shelf, now: Now) {
        let Some(stored) = parts.session else {
            return;
        };
        let cursor = parts.cursor.unwrap_or_else(|| StoredCursor::at(self.fanned));
        let head = follow_mark(cursor.head, cursor.level, shelf.mark);
        let reader = reader_from(head, self.fanned);
        let key = self.sessions.add(client_id, |key, client_id| {
            Session::new(key, client_id, Kind::Durable, reader)
        });
        for mut version in parts.subscriptions {
            version.until = parts
                .ended
                .iter()
                .find(|(slot, _)| *slot == version.slot)
                .map(|(_, commit)| *commit);
            version.closing = version.until.is_some();
            self.restore_subscription(key, version);
        }
        self.restore_cursor(key, cursor);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        for packet_id in parts.received {
            session.inbound.restore(packet_id);
        }
        for (packet_id, hash) in parts.resends {
            session.resends.restore(packet_id, hash);
        }
        session.is_stored = true;
        session.expiry_secs = stored.expiry_secs.min(self.config.limits.session_expiry_max_secs);
        // One that was connected is away since the restart, as far as anybody knows.
        session.left = Some(stored.left.unwrap_or((now.wall, now.clock)));
        session.bound = SentBound::restored(parts.bound, stored.left.is_none(), self.fanned);
        if stored.left.is_none() {
            self.unmarked.push_back(key);
        }
        // The stored cursor may say that it follows the level mark, which must not move over what this session has not read.
        session.moved(&mut self.work);
        self.set_will(key, stored.will);
        self.restore_timers(key, now);
        self.note_idle(key);
        self.list_for_read(ReaderKey::Session(key));
    }

    /// The delay of a will and the expiry go on from when the session lost its connection.
    fn restore_timers(&mut self, key: SessionKey, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // Only what one clock has told counts: a time source at both moments, or a machine that has not been started since.
        let away_secs = match session.left {
            Some((at, clock)) if now.is_comparable(at, clock) => now.wall.0.saturating_sub(at.0) / 1000,
            Some(_) | None => 0,
        };
        let due = |secs: u32| {
            now.tick
                .after(Duration::from_secs(u64::from(secs).saturating_sub(away_secs)))
        };
        let expiry_secs = session.expiry_secs;
        if let Some(will) = &session.will {
            let at = due(will.delay_secs.min(expiry_secs));
            session.will_due = Some(self.timers.add(at, Timer::Will(key)));
        }
        if expiry_secs != u32::MAX {
            session.expires = Some(self.timers.add(due(expiry_secs), Timer::Expiry(key)));
        }
    }

    fn restore_subscription(&mut self, key: SessionKey, version: SubscriptionVersion) {
        if let Some(share) = version.share.clone() {
            self.restore_member(key, (share, version.filter.clone()), &version);
        } else if version.until.is_none() {
            self.committed
                .insert(&version.filter, Subscriber::of_session(key, &version));
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.subscriptions.restore(version);
        }
    }

    fn restore_cursor(&mut self, key: SessionKey, cursor: StoredCursor) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        for entry in cursor.in_flight {
            let StoredEntry {
                packet_id,
                qos,
                step,
                source,
            } = entry;
            let source = match source {
                StoredSource::Log(position) => Source::Log(position),
                StoredSource::Retained(topic, commit, slot) => Source::Retained(topic, commit, slot, None),
                StoredSource::GivenUp => Source::GivenUp,
                StoredSource::Group(slot, position) => {
                    let group = session
                        .groups
                        .iter()
                        .find(|(of, _)| *of == slot)
                        .map(|(_, group)| *group);
                    // A QoS 1 message of a group is for any member; the group has it as outstanding.
                    let Some(group) = group.filter(|_| qos == QoS::ExactlyOnce) else {
                        continue;
                    };
                    if let Some(group) = self.groups.get_mut(group) {
                        // A position that the group does not know was taken up after it was stored last.
                        if !group.returned.remove(&position) && !group.outstanding.contains(&position) {
                            group.reader.ledger.matched += 1;
                        }
                        group.outstanding.insert(position);
                    }
                    Source::Group { group, slot, position }
                }
            };
            let counted = false;
            session.in_flight.restore(Entry {
                packet_id,
                qos,
                step,
                counted,
                source,
            });
        }
        session.in_flight.go_on_behind(cursor.last_packet_id);
        for (slot, since, after) in cursor.snapshots {
            if let Some(version) = session.subscriptions.get(slot) {
                let filter = version.filter.clone();
                session.snapshots.push(Snapshot {
                    slot,
                    asked: slot,
                    filter,
                    since,
                    // What no log holds and changed since is in the store only.
                    unlogged_until: Some(CommitNumber(u64::MAX)),
                    in_force: since,
                    after,
                });
            }
        }
        session.reader.ledger = cursor.ledger;
        session.reader.unread = cursor.unread;
        // What no log holds was in flight and is gone with the process.
        let kept = session.in_flight.of_its_own() as u64;
        let lost = session.reader.ledger.in_flight().saturating_sub(kept);
        session.reader.ledger.drop_taken(DropReason::NotLogged, lost);
        self.work.counters.dropped(DropReason::NotLogged, lost);
    }
}

/// A cursor that was level has nothing unread up to the mark.
fn follow_mark(head: LogPosition, level: bool, mark: CommitNumber) -> LogPosition {
    if level {
        head.max(LogPosition::after(mark))
    } else {
        head
    }
}

fn reader_from(head: LogPosition, newest: CommitNumber) -> Reader {
    if head >= LogPosition::after(newest) {
        Reader::live(newest)
    } else {
        Reader::behind(head)
    }
}

impl StoredCursor {
    /// Of a session whose cursor was lost: it goes on at the end of the log.
    fn at(newest: CommitNumber) -> Self {
        Self {
            level: true,
            head: LogPosition::after(newest),
            last_packet_id: 0,
            in_flight: Vec::new(),
            snapshots: Vec::new(),
            unread: 0,
            ledger: super::ledger::ReaderLedger::default(),
        }
    }
}
