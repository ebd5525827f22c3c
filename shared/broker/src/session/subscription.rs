//! Subscriptions over time: which filters of a session were in force when a record was committed.
//!
//! A subscription of a session with a cursor is a list of versions, each in force for the commits in `(since, until]`. SUBSCRIBE
//! opens a version, and closes the one that it replaces, at one commit; SUBACK follows that commit. UNSUBSCRIBE closes. A closed
//! version is kept until the session has read past it. So whatever the order of reads and subscriptions, a record is matched with
//! what was in force when it was committed.
//! Sessions served from memory have one version per filter, in force at once. Shared subscriptions are memberships of a
//! [`Group`](super::shared::Group), which has the cursor; their versions have no bounds.

use fellbeck_core::{CommitNumber, Filter};
use fellbeck_store::commit::Space;

use super::fanout::Subscriber;
use super::persist;
use super::state::{Kind, Session, SessionKey};
use super::sys::is_status_filter;
use super::turn::Turn;
use super::versions::{Options, SubscriptionVersion, name_bytes};
use super::work::Awaited;
use super::{Core, Now};
use crate::wire::{Close, ConnId, PacketOut, Subscribe, SubscribeIn, Unsubscribe, Version as Protocol, Wire};

const UNSPECIFIED: u8 = 0x80;
const PROTOCOL_ERROR: u8 = 0x82;
const FILTER_INVALID: u8 = 0x8f;
const PACKET_ID_IN_USE: u8 = 0x91;
const QUOTA_EXCEEDED: u8 = 0x97;
const NO_SUBSCRIPTION: u8 = 0x11;

/// A SUBSCRIBE on its way to durable.
#[derive(Debug)]
pub(super) struct Subscribed {
    session: SessionKey,
    packet_id: u16,
    reasons: Vec<u8>,
    opened: Vec<u32>,
    closed: Vec<u32>,
    /// Subscriptions whose retained messages are to be sent.
    snapshots: Vec<u32>,
    /// Subscriptions that are to be sent what the node says of itself.
    status: Vec<u32>,
}

/// An UNSUBSCRIBE on its way to durable.
#[derive(Debug)]
pub(super) struct Unsubscribed {
    session: SessionKey,
    packet_id: u16,
    reasons: Vec<u8>,
    closed: Vec<u32>,
}

impl Subscribed {
    /// It changes what is subscribed, and waits for a commit with that.
    pub(super) fn is_to_apply(&self) -> bool {
        !self.opened.is_empty()
    }
}

impl Unsubscribed {
    pub(super) fn is_to_apply(&self) -> bool {
        !self.closed.is_empty()
    }
}

impl Core {
    /// A SUBSCRIBE.
    pub fn handle_subscribe<W: Wire>(&mut self, conn: ConnId, subscribe: Subscribe, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some(state) = self.conns.get(&conn).copied() else {
            return;
        };
        let shared_no_local = |filter: &SubscribeIn| filter.no_local && filter.filter.starts_with("$share/");
        if subscribe.filters.is_empty() || subscribe.filters.iter().any(shared_no_local) {
            // [MQTT5-3.8.3-2] [MQTT5-3.8.3-4]
            let why = Close {
                reason: PROTOCOL_ERROR,
                text: "SUBSCRIBE without a filter, or No Local on a shared subscription",
            };
            return self.close(conn, why, turn);
        }
        let mut subscribed = Subscribed {
            session: state.session,
            packet_id: subscribe.packet_id,
            reasons: Vec::with_capacity(subscribe.filters.len()),
            opened: Vec::new(),
            closed: Vec::new(),
            snapshots: Vec::new(),
            status: Vec::new(),
        };
        let in_use = self.is_packet_id_in_use(state, Some(subscribe.packet_id));
        for (index, filter) in subscribe.filters.iter().enumerate() {
            // More than a session may have in all need not be looked at: one packet must not keep everybody waiting.
            let reason = if in_use {
                PACKET_ID_IN_USE
            } else if index < self.config.limits.subscriptions_max {
                self.subscribe_one(&mut subscribed, filter, subscribe.subscription_id)
            } else {
                QUOTA_EXCEEDED
            };
            // [MQTT5-3.9.3-1] [MQTT5-3.9.3-2]; 3.1.1 knows one code for all failures. [MQTT3-3.9.3-2]
            let is_old = state.version == Protocol::V3 && reason > 2;
            subscribed.reasons.push(if is_old { UNSPECIFIED } else { reason });
        }
        let kind = self.sessions.get(state.session).map(|session| session.kind);
        if kind == Some(Kind::Immediate)
            && subscribed
                .opened
                .iter()
                .all(|slot| !self.is_shared(state.session, *slot))
        {
            return self.subscribed_at_once(conn, subscribed, turn);
        }
        if self.work.is_settled() {
            let commit = self.newest();
            return self.subscribed(conn, subscribed, commit, turn);
        }
        self.subscribing_begins(conn, subscribed.is_to_apply());
        self.answer_after_commit(conn, Awaited::Subscribed(Box::new(subscribed)));
    }

    /// Until this is in force nothing is taken that the client publishes.
    fn subscribing_begins(&mut self, conn: ConnId, is_to_apply: bool) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.subscribing += u32::from(is_to_apply);
        }
    }

    pub(super) fn subscribing_ends(&mut self, conn: ConnId, is_to_apply: bool) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.subscribing -= u32::from(is_to_apply && state.subscribing > 0);
        }
    }

    fn is_shared(&self, session: SessionKey, slot: u32) -> bool {
        let version = self
            .sessions
            .get(session)
            .and_then(|session| session.subscriptions.get(slot));
        version.is_some_and(|version| version.share.is_some())
    }

    /// Opens one subscription and gives its reason code.
    fn subscribe_one(&mut self, subscribed: &mut Subscribed, wanted: &SubscribeIn, id: Option<u32>) -> u8 {
        let Ok(parsed) = Filter::parse_subscription(&wanted.filter) else {
            return FILTER_INVALID;
        };
        let limits = self.config.limits;
        // A further member is no further group.
        let begins_group = |share| self.groups.find(share, &parsed.filter).is_none();
        let groups_full = self.groups.len() >= limits.groups_max && parsed.share.as_ref().is_some_and(begins_group);
        let Some(session) = self.sessions.get_mut(subscribed.session) else {
            return UNSPECIFIED;
        };
        let options = Options {
            qos: wanted.qos,
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            id: id.filter(|id| *id != 0),
        };
        let existing = session
            .subscriptions
            .find_open(parsed.share.as_ref(), &parsed.filter)
            .map(|version| (version.slot, version.options));
        // Closed versions go when they were read past; one who opens and closes faster than that has to wait.
        // So has one who asks again for retained messages faster than it reads them.
        let too_many_versions = session.subscriptions.len() > 2 * limits.subscriptions_max
            || session.snapshots.len() > 2 * limits.subscriptions_max;
        let too_many = session.subscriptions.open_count() >= limits.subscriptions_max || groups_full;
        // As with their number, the bytes of closed versions come on top until they were read past.
        let bytes = session.subscriptions.bytes() + name_bytes(parsed.share.as_ref(), &parsed.filter);
        let too_long = bytes > limits.subscription_bytes_max * if existing.is_some() { 2 } else { 1 };
        if too_many_versions || too_long || (existing.is_none() && too_many) {
            self.work.counters.limited("subscriptions");
            return QUOTA_EXCEEDED;
        }
        // [MQTT5-3.8.4-4] [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11]; shared subscriptions get no retained messages
        // (section 4.8.2).
        let wants_retained = match wanted.retain_handling {
            0 => true,
            1 => existing.is_none(),
            _ => false,
        };
        let is_same = existing.is_some_and(|(_, present)| present == options);
        let slot = match existing {
            Some((slot, _)) if is_same => slot,
            _ => {
                let slot = session.subscriptions.next_slot();
                session.subscriptions.add(SubscriptionVersion {
                    slot,
                    share: parsed.share.clone(),
                    filter: parsed.filter.clone(),
                    options,
                    since: None,
                    until: None,
                    closing: false,
                    heir: None,
                });
                subscribed.opened.push(slot);
                if let Some((old, _)) = existing {
                    self.close_version(subscribed.session, old, (!wants_retained).then_some(slot));
                    subscribed.closed.push(old);
                }
                self.store_subscription(subscribed.session, slot);
                slot
            }
        };
        if wants_retained && parsed.share.is_none() {
            if is_status_filter(parsed.filter.as_str()) {
                subscribed.status.push(slot);
            } else {
                subscribed.snapshots.push(slot);
            }
        }
        if let (Some(share), true) = (&parsed.share, !is_same) {
            self.expect_member(subscribed.session, share, &parsed.filter);
        }
        wanted.qos as u8
    }

    /// A version is to end. `heir`: the one that replaces it, where that one asks for no retained messages itself and so is sent
    /// what is still to come of the old one's.
    fn close_version(&mut self, key: SessionKey, slot: u32, heir: Option<u32>) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.subscriptions.close(slot, heir);
            match heir {
                Some(heir) => {
                    session.snapshots.pass_on(slot, heir);
                    session.status.pass_on(slot, heir);
                }
                None => {
                    session.snapshots.cancel(slot);
                    session.status.cancel(slot);
                }
            }
        }
        self.store_subscription(key, slot);
    }

    /// Writes that a version of a durable session begins or ends. A shared one that ends is deleted, since nothing is read by it
    /// any more.
    fn store_subscription(&mut self, key: SessionKey, slot: u32) {
        let Some(session) = self.sessions.get(key).filter(|session| session.is_durable()) else {
            return;
        };
        let Some(version) = session.subscriptions.get(slot) else {
            return;
        };
        let began = persist::subscription_key(&session.client_id, slot);
        match (version.closing, &version.share) {
            (false, _) => self.work.put(Space::Session, began, persist::subscription(version)),
            (true, Some(_)) => self.work.delete(Space::Session, began),
            (true, None) => {
                let (ended, value) = persist::ended(&session.client_id, slot);
                self.work.put(Space::Session, ended, value);
            }
        }
    }

    /// A SUBSCRIBE of a session served from memory: in force at once; only its retained messages wait for what is on its way.
    fn subscribed_at_once<W: Wire>(&mut self, conn: ConnId, mut subscribed: Subscribed, turn: &mut Turn<'_, W>) {
        let snapshots = std::mem::take(&mut subscribed.snapshots);
        let session = subscribed.session;
        let newest = self.newest();
        self.apply(&mut subscribed, newest, turn);
        let answer = Subscribed {
            opened: Vec::new(),
            closed: Vec::new(),
            snapshots,
            session,
            ..subscribed
        };
        if self.work.is_settled() || answer.snapshots.is_empty() {
            self.answer_subscribed(conn, answer, newest, turn);
        } else {
            // What comes live from now on waits behind them, so that an older value never follows a newer one.
            if let Some(session) = self.sessions.get_mut(session) {
                for slot in &answer.snapshots {
                    session.hold_snapshot(*slot, newest, None);
                }
            }
            self.answer_after_commit(conn, Awaited::Subscribed(Box::new(answer)));
        }
    }

    fn answer_subscribed<W: Wire>(
        &mut self,
        conn: ConnId,
        subscribed: Subscribed,
        commit: CommitNumber,
        turn: &mut Turn<'_, W>,
    ) {
        if self.conns.get(&conn).is_some_and(|state| state.waiting > 0) {
            // In line with the other answers; nothing is left to be done but to send it.
            return self.answer(conn, Awaited::Subscribed(Box::new(subscribed)), turn);
        }
        self.subscribed(conn, subscribed, commit, turn);
    }

    /// A SUBSCRIBE takes effect after `commit`.
    pub(super) fn subscribed<W: Wire>(
        &mut self,
        conn: ConnId,
        mut subscribed: Subscribed,
        commit: CommitNumber,
        turn: &mut Turn<'_, W>,
    ) {
        self.apply(&mut subscribed, commit, turn);
        let key = subscribed.session;
        let is_current = self.conns.get(&conn).is_some_and(|state| state.session == key);
        if is_current {
            let (packet_id, reasons) = (subscribed.packet_id, &subscribed.reasons[..]);
            turn.wire.send(conn, PacketOut::SubAck { packet_id, reasons });
        }
        self.begin_status(conn, key, &subscribed.status);
        self.begin_snapshots(conn, key, subscribed.snapshots, commit);
        self.pump(key, turn);
    }

    fn apply<W: Wire>(&mut self, subscribed: &mut Subscribed, commit: CommitNumber, turn: &mut Turn<'_, W>) {
        for slot in std::mem::take(&mut subscribed.opened) {
            self.open_version(subscribed.session, slot, commit, turn);
        }
        for slot in std::mem::take(&mut subscribed.closed) {
            self.end_version(subscribed.session, slot, commit, turn);
        }
    }

    fn open_version<W: Wire>(&mut self, key: SessionKey, slot: u32, commit: CommitNumber, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(version) = session.subscriptions.get_mut(slot) else {
            return;
        };
        version.since = Some(commit);
        if let Some(share) = version.share.clone() {
            let filter = version.filter.clone();
            return self.join(key, slot, (share, filter), commit, turn);
        }
        let subscriber = Subscriber::of_session(key, version);
        match session.kind {
            Kind::Immediate => self.immediate.insert(&version.filter, subscriber),
            Kind::Volatile | Kind::Durable => self.committed.insert(&version.filter, subscriber),
        };
    }

    fn end_version<W: Wire>(&mut self, key: SessionKey, slot: u32, commit: CommitNumber, turn: &mut Turn<'_, W>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(version) = session.subscriptions.get_mut(slot) else {
            return;
        };
        if version.share.is_some() {
            session.subscriptions.remove(slot);
            return self.leave_group(key, slot, turn);
        }
        if session.kind == Kind::Immediate {
            let subscriber = Subscriber::of_session(key, version);
            self.immediate.remove(&version.filter, &subscriber);
            session.subscriptions.remove(slot);
            return;
        }
        version.until = Some(commit);
        // Blocks up to `commit` may still have to be fanned out; the entry goes when they were.
        let subscriber = Subscriber::of_session(key, version);
        self.committed.insert(&version.filter, subscriber);
        self.ending.push_back((commit, key, slot));
        session.moved(&mut self.work);
        self.drop_ended();
    }

    /// Takes closed versions out of the fan-out once it has passed their end.
    pub(super) fn drop_ended(&mut self) {
        while let Some(&(until, key, slot)) = self.ending.front() {
            if until > self.fanned {
                return;
            }
            self.ending.pop_front();
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            if let Some(version) = session.subscriptions.get(slot) {
                self.committed
                    .remove(&version.filter, &Subscriber::of_session(key, version));
            }
            if !session.is_durable() {
                self.forget_read_versions(key);
            }
        }
    }

    /// Removes versions that the session has read past.
    pub(super) fn forget_read_versions(&mut self, key: SessionKey) {
        let fanned = self.fanned;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let head = session.reader.head(fanned).commit;
        let needed = session
            .in_flight
            .oldest_commit()
            .map_or(head, |oldest| oldest.min(head));
        // A retained message that may have to be sent again bears the identifier of the subscription that it was sent for.
        let in_flight = session.in_flight.retained_slots();
        for slot in session.subscriptions.forget_before(needed, &in_flight) {
            if session.is_durable() {
                let began = persist::subscription_key(&session.client_id, slot);
                self.work.delete(Space::Session, began);
                self.work
                    .delete(Space::Session, persist::ended(&session.client_id, slot).0);
            }
        }
    }

    pub(super) fn remove_from_trie(&mut self, session: &Session, version: &SubscriptionVersion) {
        let subscriber = Subscriber::of_session(session.key, version);
        match session.kind {
            Kind::Immediate => self.immediate.remove(&version.filter, &subscriber),
            Kind::Volatile | Kind::Durable => self.committed.remove(&version.filter, &subscriber),
        };
    }

    /// An UNSUBSCRIBE.
    pub fn handle_unsubscribe<W: Wire>(&mut self, conn: ConnId, unsubscribe: Unsubscribe, now: Now, wire: &mut W) {
        let turn = &mut Turn::new(now, wire);
        let Some(state) = self.conns.get(&conn).copied() else {
            return;
        };
        let mut unsubscribed = Unsubscribed {
            session: state.session,
            packet_id: unsubscribe.packet_id,
            reasons: Vec::with_capacity(unsubscribe.filters.len()),
            closed: Vec::new(),
        };
        let in_use = self.is_packet_id_in_use(state, Some(unsubscribe.packet_id));
        for filter in &unsubscribe.filters {
            let reason = if in_use {
                PACKET_ID_IN_USE
            } else {
                self.unsubscribe_one(&mut unsubscribed, filter)
            };
            unsubscribed.reasons.push(reason);
        }
        let kind = self.sessions.get(state.session).map(|session| session.kind);
        // The SUBSCRIBE to a group may be on its way: the group is left after it was joined.
        let shares = unsubscribed
            .closed
            .iter()
            .any(|slot| self.is_shared(state.session, *slot));
        if kind == Some(Kind::Immediate) && !shares {
            let commit = self.newest();
            for slot in std::mem::take(&mut unsubscribed.closed) {
                self.end_version(state.session, slot, commit, turn);
            }
        }
        let nothing_to_do = unsubscribed.closed.is_empty() && state.waiting == 0;
        if nothing_to_do || self.work.is_settled() {
            let commit = self.newest();
            return self.unsubscribed(conn, unsubscribed, commit, turn);
        }
        self.subscribing_begins(conn, unsubscribed.is_to_apply());
        self.answer_after_commit(conn, Awaited::Unsubscribed(Box::new(unsubscribed)));
    }

    fn unsubscribe_one(&mut self, unsubscribed: &mut Unsubscribed, filter: &str) -> u8 {
        let Ok(parsed) = Filter::parse_subscription(filter) else {
            return FILTER_INVALID;
        };
        let session = self.sessions.get(unsubscribed.session);
        let open = session.and_then(|session| session.subscriptions.find_open(parsed.share.as_ref(), &parsed.filter));
        let Some(slot) = open.map(|version| version.slot) else {
            return NO_SUBSCRIPTION;
        };
        self.close_version(unsubscribed.session, slot, None);
        unsubscribed.closed.push(slot);
        0
    }

    /// An UNSUBSCRIBE takes effect after `commit`. [MQTT5-3.10.4-2] [MQTT5-3.10.4-4]
    pub(super) fn unsubscribed<W: Wire>(
        &mut self,
        conn: ConnId,
        unsubscribed: Unsubscribed,
        commit: CommitNumber,
        turn: &mut Turn<'_, W>,
    ) {
        for slot in unsubscribed.closed {
            self.end_version(unsubscribed.session, slot, commit, turn);
        }
        if self
            .conns
            .get(&conn)
            .is_some_and(|state| state.session == unsubscribed.session)
        {
            let (packet_id, reasons) = (unsubscribed.packet_id, &unsubscribed.reasons[..]);
            turn.wire.send(conn, PacketOut::UnsubAck { packet_id, reasons });
        }
        self.pump(unsubscribed.session, turn);
    }
}
