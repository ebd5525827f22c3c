//! State of one MQTT session, connected or not.
//!
//! Owned by the [`Core`](super::Core). Holds no message of a session with a cursor beyond what is queued for its connection, and
//! nothing queued while there is no connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fellbeck_core::{ClockQuality, CommitNumber, DropReason, LogPosition, QoS, WallTime};

use super::expiry::TimerId;
use super::idle::IdleSince;
use super::in_flight::{InFlight, Step};
use super::inbound::Inbound;
use super::message::Item;
use super::reader::{Mode, Reader, Reading};
use super::resends::Resends;
use super::retained::Snapshots;
use super::sent_bound::SentBound;
use super::shared::GroupKey;
use super::slab::{Key, Slab};
use super::sys::StatusOwed;
use super::versions::Subscriptions;
use super::work::{ReaderKey, Work};
use crate::wire::{ConnId, Will};

pub(super) type SessionKey = Key<Session>;

/// How a session is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From memory, before the commit; ends with its connection.
    Immediate,
    /// From the log, ends with its connection: nothing of it is stored.
    Volatile,
    /// From the log, outlives its connection and the process.
    Durable,
}

/// The connection of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attached {
    pub(super) id: ConnId,
    /// Un-acked QoS 1 and 2 messages that may be sent: the client's Receive Maximum, capped.
    pub(super) window: u16,
    /// Of these, how many are sent. Invariant: `used <= window`.
    pub(super) used: u16,
    /// CONNACK has left; nothing may be sent before.
    pub(super) ready: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(super) key: SessionKey,
    pub(super) client_id: Arc<str>,
    pub(super) kind: Kind,
    pub(super) attached: Option<Attached>,
    /// Newest commit when the session was last connected: QoS 0 of commits up to here is not delivered.
    pub(super) connected_at: CommitNumber,
    pub(super) bound: SentBound,
    /// Session Expiry Interval as granted; 0: ends with the connection.
    pub(super) expiry_secs: u32,
    pub(super) expires: Option<TimerId>,
    /// When it lost its connection; `None`: it has one. Expiry and the delay of the will count from here, also after a restart.
    pub(super) left: Option<(WallTime, ClockQuality)>,
    pub(super) will: Option<Box<Will>>,
    pub(super) will_due: Option<TimerId>,
    /// Its place among those that may give way to others.
    pub(super) idle: Option<IdleSince>,
    /// Something of it stands under its key in the store.
    pub(super) is_stored: bool,
    pub(super) subscriptions: Subscriptions,
    /// Groups that it is a member of, by its subscription.
    pub(super) groups: Vec<(u32, GroupKey)>,
    pub(super) reader: Reader,
    pub(super) in_flight: InFlight,
    /// QoS 2 deliveries whose packet ID waits to be durable, in order.
    pub(super) reserved: VecDeque<(u16, Item)>,
    /// Of these, how many may be sent.
    pub(super) reserved_durable: usize,
    /// In-flight entries to be sent again on this connection, in order.
    pub(super) resend: VecDeque<u16>,
    pub(super) snapshots: Snapshots,
    pub(super) status: StatusOwed,
    pub(super) inbound: Inbound,
    pub(super) resends: Resends,
}

impl Session {
    pub(super) fn new(key: SessionKey, client_id: Arc<str>, kind: Kind, reader: Reader) -> Self {
        Self {
            key,
            client_id,
            kind,
            attached: None,
            connected_at: CommitNumber(0),
            bound: SentBound::default(),
            expiry_secs: 0,
            expires: None,
            left: None,
            will: None,
            will_due: None,
            idle: None,
            is_stored: false,
            subscriptions: Subscriptions::default(),
            groups: Vec::new(),
            reader,
            in_flight: InFlight::default(),
            reserved: VecDeque::new(),
            reserved_durable: 0,
            resend: VecDeque::new(),
            snapshots: Snapshots::default(),
            status: StatusOwed::default(),
            inbound: Inbound::default(),
            resends: Resends::default(),
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.kind == Kind::Durable
    }

    /// The connection, if packets may be sent on it.
    pub(super) fn ready(&self) -> Option<&Attached> {
        self.attached.as_ref().filter(|attached| attached.ready)
    }

    /// The stored cursor is out of date; it is written with the next flush.
    pub(super) fn moved(&mut self, work: &mut Work) {
        if self.kind == Kind::Durable && !self.reader.dirty {
            self.reader.dirty = true;
            work.cursors_later.push(ReaderKey::Session(self.key));
        }
    }

    /// The cursor must be part of the commit under construction.
    pub(super) fn store_now(&mut self, work: &mut Work) {
        debug_assert!(self.is_durable(), "only durable sessions are stored");
        self.reader.dirty = true;
        if work.cursors_now.last() != Some(&ReaderKey::Session(self.key)) {
            work.cursors_now.push(ReaderKey::Session(self.key));
        }
    }

    /// Counts messages that were matched and are not delivered.
    pub(super) fn drop_matched(&mut self, reason: DropReason, n: u64, work: &Work) {
        self.reader.ledger.drop_matched(reason, n);
        work.counters.dropped(reason, n);
    }

    /// Puts the session on the lists of those who want to look something up, if it does.
    pub(super) fn enlist(&mut self, work: &mut Work) {
        if self.wants_backlog() && !self.may_read_on() {
            self.raise_bound(work);
        }
        if self.reader.reading == Reading::No && self.wants_read() {
            self.reader.reading = Reading::Listed;
            work.reads.push_back(ReaderKey::Session(self.key));
        }
        if self.snapshots.scanning == Reading::No && self.wants_scan() {
            self.snapshots.scanning = Reading::Listed;
            work.scans.push_back(self.key);
        }
    }

    /// Whether a read of the log would let the session go on.
    pub(super) fn wants_read(&self) -> bool {
        if self.kind == Kind::Immediate {
            return false;
        }
        match self.ready() {
            Some(attached) if !self.resend.is_empty() => {
                attached.used < attached.window && self.resend_position().is_some()
            }
            Some(_) => self.wants_backlog() && self.may_read_on(),
            // A session that is away reads only to find out whether it is behind at all, so that its head can move on.
            None => {
                self.is_durable() && self.attached.is_none() && self.reader.mode == Mode::Behind && !self.reader.found
            }
        }
    }

    /// Whether a session that has a connection has come to where it would read on in the log.
    fn wants_backlog(&self) -> bool {
        self.kind != Kind::Immediate
            && self.ready().is_some()
            && self.resend.is_empty()
            && self.reader.mode == Mode::Behind
            && self.reader.queue.is_empty()
            && self.reserved.is_empty()
            && !self.snapshots.is_active()
    }

    /// Position of the message that must be sent again next, when the log has it.
    pub(super) fn resend_position(&self) -> Option<LogPosition> {
        let next = self.in_flight.get(*self.resend.front()?)?;
        next.source.position()
    }

    /// Gives up what belonged to the connection only. The entries of the in-flight table stay.
    pub(super) fn forget_connection(&mut self, fanned: CommitNumber, work: &mut Work) {
        if let Some(attached) = self.attached.take() {
            self.resends.forget_connection(attached.id);
        }
        self.bound.close();
        self.reserved.clear();
        self.reserved_durable = 0;
        self.resend.clear();
        self.snapshots.rewind();
        self.status.clear();
        self.snapshots.forget_live();
        self.reader.found = false;
        for entry in self.in_flight.iter_mut() {
            entry.counted = false;
        }
        self.inbound.forget_connection();
        for item in self.reader.rewind(fanned) {
            let reason = if item.qos == QoS::AtMostOnce {
                DropReason::Qos0Offline
            } else {
                DropReason::NotLogged
            };
            self.drop_matched(reason, 1, work);
        }
        self.moved(work);
    }

    /// The client has answered the message, as it came on a former connection: it is not sent again. False where it was not to be.
    pub(super) fn forget_resend(&mut self, packet_id: u16) -> bool {
        let at = self.resend.iter().position(|id| *id == packet_id);
        at.and_then(|at| self.resend.remove(at)).is_some()
    }

    /// In-flight entries that are not complete on the sender's side and must be sent again on a new connection.
    pub(super) fn list_resends(&mut self) {
        self.resend = self
            .in_flight
            .iter()
            .filter(|entry| matches!(entry.step, Step::Reserved | Step::Sent))
            .map(|entry| entry.packet_id)
            .collect();
    }
}

/// All sessions, by key and by client ID.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    by_client: HashMap<Arc<str>, SessionKey>,
}

impl Sessions {
    pub(super) fn find(&self, client_id: &str) -> Option<SessionKey> {
        self.by_client.get(client_id).copied()
    }

    pub(super) fn add(&mut self, client_id: &str, make: impl FnOnce(SessionKey, Arc<str>) -> Session) -> SessionKey {
        let client_id: Arc<str> = client_id.into();
        let key = self.slab.insert_with(|key| make(key, client_id.clone()));
        self.by_client.insert(client_id, key);
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let session = self.slab.remove(key)?;
        self.by_client.remove(&session.client_id);
        Some(session)
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slab.get(key)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab.get_mut(key)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slab.iter().map(|(_, session)| session)
    }

    pub(super) fn keys(&self) -> Vec<SessionKey> {
        self.slab.keys()
    }
}
