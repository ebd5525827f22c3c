//! Session core: everything that decides in an MQTT broker, without a socket, a clock, a thread or a file.
//!
//! In: packets ([`wire`](crate::wire)), what the store says (committed, tail, reads, scans), the time. Out: packets and closes
//! through the [`Wire`](crate::wire::Wire) port at once, and by `take_commit`, `poll_read`, `poll_scan`, `poll_timeout`.
//! Owned by the broker thread. Holds I1 (an acknowledgement follows its commit), I6 (what is dropped is counted) and I7 (a slow
//! reader slows nobody). One file per noun; see [`Core`] for the order of calls.
//! What it does not do: encode packets, measure keep-alive, resolve aliases, authenticate; that is the front.

mod acks;
mod books;
mod catchup;
mod config;
mod connection;
mod counters;
mod edge;
mod expiry;
mod fanout;
mod flush;
#[cfg(test)]
mod golden_tests;
mod id_hash;
mod idle;
mod in_flight;
mod inbound;
mod inflow;
mod ledger;
mod membership;
mod message;
mod outbound;
mod persist;
mod reader;
mod resends;
mod restore;
mod retained;
mod sent_bound;
mod shared;
mod slab;
mod state;
mod subscription;
mod sys;
#[cfg(test)]
mod tests;
mod totals;
mod turn;
mod versions;
mod will;
mod work;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use fellbeck_core::{CommitNumber, LogPosition, Tick, Trie};

pub use books::{Books, READERS_LISTED_MAX, ReaderBook};
pub use config::{CoreConfig, CoreLimits, Mode, Now, Route, Terms};
pub use edge::{EdgeReader, EdgeScope, RESERVED_CLIENT_PREFIX, edge_client_id};
pub use inflow::{FROM_CLOUD, Inflow};
pub use ledger::ReaderLedger;
pub use restore::RestoreError;
pub use retained::{RetainedChange, retained_change};
pub use sys::is_status_filter;
pub use totals::Totals;

use crate::wire::ConnId;
use catchup::Asked;
use connection::Conn;
use expiry::Timers;
use fanout::{Matches, Subscriber};
use id_hash::BuildIdHasher;
use idle::Idle;
use shared::Groups;
use state::{SessionKey, Sessions};
use sys::Status;
use work::{ReaderKey, Work};

/// What became of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, or refused with a reason code, or the connection was closed.
    Done,
    /// Neither taken nor answered: keep the packet, read nothing more of this connection, offer it again when commits were made
    /// or the pressure fell. Where MQTT 3.1.1 has no way to refuse, and behind a SUBSCRIBE that is not in force yet.
    Hold,
}

/// How full the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// Everything is taken.
    #[default]
    Normal,
    /// Nothing new is logged, so that what is logged can be kept.
    High,
    /// As `High`.
    Full,
}

impl From<fellbeck_store::Level> for Pressure {
    fn from(level: fellbeck_store::Level) -> Self {
        match level {
            fellbeck_store::Level::Normal => Self::Normal,
            fellbeck_store::Level::High => Self::High,
            fellbeck_store::Level::Full => Self::Full,
        }
    }
}

/// Names one read of the log that the core has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReaderId(pub u64);

/// A read of the log in commit order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// To be given back with the answer.
    pub reader: ReaderId,
    /// First record wanted.
    pub from: LogPosition,
    /// About how much; whole commits are read, at least one.
    pub bytes_max: usize,
}

/// Names one scan of the retained messages that the core has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScanId(pub u64);

/// A page of `Space::Retained`, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRequest {
    /// To be given back with the answer.
    pub id: ScanId,
    /// Keys begin with this.
    pub prefix: Bytes,
    /// Keys are above this.
    pub after: Option<Bytes>,
    /// About how much; at least one value if there is any.
    pub bytes_max: usize,
}

/// Counts of one session, for metrics and status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// It has a connection.
    pub connected: bool,
    /// Messages sent and not completely acknowledged.
    pub in_flight: usize,
    /// Messages in memory that wait for the connection.
    pub queued: usize,
    /// Matching records at QoS 1 and 2 that wait in the log, as far as known.
    pub unread: u64,
    /// The books. Deliveries by shared groups are in the group's.
    pub ledger: ReaderLedger,
}

/// The session core of one node.
///
/// # Order of calls
///
/// 1. [`Core::restore`] once, with `Space::Session` and the store's newest commit. The first block of the tail that the core is
///    given is the one of the commit after that.
/// 2. Then, in any order, `handle_*` for packets and connections. Packets of a connection come in their order, after its
///    `handle_connect`. Calls for a connection that the core has closed or never saw are ignored.
/// 3. In each turn, in this order: read the tail; when it was `Empty`, [`Core::handle_tail_empty`]; drain the answers of the
///    writer into [`Core::handle_committed`]; give the blocks read to [`Core::handle_tail`], or call
///    [`Core::handle_tail_behind`]. So every `Committed` of a commit below a block's has been handled before the block. If that
///    is broken, a subscription may miss messages of commits right after its own.
/// 4. At the end of the turn: [`Core::take_commit`] until `None`; each is submitted and followed by [`Core::handle_submitted`]
///    with the store's ticket, or given back by [`Core::untake_commit`]. Tickets rise by one from 1; anything else panics.
/// 5. `poll_read` and `poll_scan` until `None`; the answers come by `handle_read` and `handle_scan`, at any time, in any order.
/// 6. `handle_tick` at [`Core::poll_timeout`] or later.
pub struct Core {
    node: String,
    config: CoreConfig,
    route: Box<dyn Route>,
    sessions: Sessions,
    groups: Groups,
    conns: HashMap<ConnId, Conn, BuildIdHasher>,
    /// Subscriptions of readers with a cursor; fed by the tail.
    committed: Trie<Subscriber>,
    /// Subscriptions of sessions served from memory.
    immediate: Trie<Subscriber>,
    /// Closed versions that the fan-out has not passed, by their last commit.
    ending: VecDeque<(CommitNumber, SessionKey, u32)>,
    /// Last commit that was fanned out. Moved by `handle_tail*` only.
    fanned: CommitNumber,
    /// Bytes fanned out so far, to tell the age of what is queued.
    fanned_bytes: u64,
    /// Records were fanned out since the level mark was stored last. Commits without records move nothing that it speaks of.
    mark_due: bool,
    /// Oldest commit that a durable reader needs, as given to the store last.
    floor: CommitNumber,
    flushed_at: Tick,
    work: Work,
    matches: Matches,
    timers: Timers,
    /// Sessions that may give way to others.
    idle: Idle,
    /// Bytes of the wills of all sessions.
    will_bytes: usize,
    /// Restored sessions whose absence began with the restart, which is still to be stored.
    unmarked: VecDeque<SessionKey>,
    reads: HashMap<ReaderId, Asked>,
    scans: HashMap<ScanId, SessionKey>,
    lookups: u64,
    retries: Vec<ReaderKey>,
    retry_at: Option<Tick>,
    status: Status,
    /// Most connections that there were at one time.
    connected_max: usize,
}

impl Core {
    /// A core without sessions. `node` names it in what it logs.
    #[must_use]
    pub fn new(config: CoreConfig, route: Box<dyn Route>, node: &str) -> Self {
        Self {
            node: node.to_owned(),
            config,
            route,
            sessions: Sessions::default(),
            groups: Groups::default(),
            conns: HashMap::default(),
            committed: Trie::new(),
            immediate: Trie::new(),
            ending: VecDeque::new(),
            fanned: CommitNumber(0),
            fanned_bytes: 0,
            mark_due: false,
            floor: CommitNumber(0),
            flushed_at: Tick::default(),
            work: Work::new(),
            matches: Matches::default(),
            timers: Timers::default(),
            idle: Idle::default(),
            will_bytes: 0,
            unmarked: VecDeque::new(),
            reads: HashMap::new(),
            scans: HashMap::new(),
            lookups: 0,
            retries: Vec::new(),
            retry_at: None,
            status: Status::default(),
            connected_max: 0,
        }
    }

    /// Counts of the session of `client_id`, if there is one.
    #[must_use]
    pub fn session_status(&self, client_id: &str) -> Option<SessionStatus> {
        let session = self.sessions.get(self.sessions.find(client_id)?)?;
        Some(SessionStatus {
            connected: session.attached.is_some(),
            in_flight: session.in_flight.messages(),
            queued: session.reader.queue.len(),
            unread: session.reader.unread,
            ledger: session.reader.ledger.clone(),
        })
    }

    /// Number of sessions, connected or not.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }
}
