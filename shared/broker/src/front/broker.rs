//! The broker loop: the session core, the store's submitter and the table of connections, as one unit on the broker thread.
//!
//! In: packets (from the middleware), completed commits, committed blocks, answers of reads, ticks. Out: commits and reads for
//! the store, packets on the wire. Every entry calls the core directly and wakes the turn, which hands the gathered changes to
//! the store once per turn of the event loop.
//! Borrowed mutably for the length of one call, never across an await. A panic within a call makes the node stop: the core
//! would be half changed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fellbeck_core::topic::level_count;
use fellbeck_core::{ClockQuality, CommitNumber, Tick, WallTime};
use fellbeck_store::{Level, Store, SubmitError, Submitter, TailRead};
use ntex::task::LocalWaker;
use ntex::util::BytesMut;
use tokio::sync::watch;

use super::arrival::Arrival;
use super::config::MqttServerConfig;
use super::connection::{Connection, Held, Phase};
use super::connections::Connections;
use super::counters;
use super::failure::Failure;
use super::frames::{Assembly, Fault};
use super::handshake::Admitted;
use super::inflow::{Inflows, InterestTold};
use super::inside::Notices;
use super::sys::{Sources, StatusValues, Sys};
use super::traffic::Traffic;
use crate::session::{Books, Core, CoreLimits, Now, Outcome, Pressure, ReadRequest, ScanRequest};
use crate::wire::{ConnId, Connect, PublishIn};

/// Shared by everything on the broker thread.
pub(super) struct Broker {
    state: RefCell<State>,
    pub(super) config: MqttServerConfig,
    pub(super) assembly: Rc<Assembly>,
    pub(super) store: Store,
    pub(super) failure: Failure,
    /// Announced to MQTT 5 clients.
    pub(super) receive_maximum: u16,
    pub(super) session_expiry_max_secs: u32,
    /// Woken when there may be something for the store.
    pub(super) turn: LocalWaker,
    turn_due: Cell<bool>,
    /// Nothing is read from any socket while set.
    pub(super) paused: Cell<bool>,
    closing: watch::Sender<bool>,
    /// The node drains: no PUBLISH is taken any more, so that none is acknowledged and then not delivered.
    pub(super) takes_none: Cell<bool>,
    /// Sockets that have not sent a whole CONNECT. Bounded by `connections_max`.
    pub(super) arrivals: RefCell<Vec<Rc<Arrival>>>,
    /// Accepted by the core, on their way through the handshake of ntex-mqtt.
    pub(super) admitted: RefCell<HashMap<ConnId, Admitted>>,
    /// Sockets that are gone, in order; the core hears of them in the next turn.
    gone: RefCell<Vec<ConnId>>,
    /// Accepted sockets that have not been closed, handshakes included.
    pub(super) sockets: Cell<usize>,
    /// TLS handshakes in progress.
    pub(super) handshakes: Cell<usize>,
    next_id: Cell<u64>,
    pub(super) traffic: Rc<Traffic>,
    sys: Sys,
    /// To those outside the broker thread.
    pub(super) notices: Notices,
    /// What was told of the interest last.
    pub(super) interest: Cell<InterestTold>,
    node_name: String,
    books: watch::Sender<Arc<Books>>,
    /// Encoded properties of the publish at hand; kept for its capacity.
    pub(super) scratch: RefCell<Vec<u8>>,
    /// An empty buffer that stands in for the read buffer at hand.
    pub(super) spare: Cell<Option<BytesMut>>,
    started: Instant,
    now: Cell<Now>,
    now_is_fresh: Cell<bool>,
    clock: Cell<ClockQuality>,
}

/// What a call may use: the core, and the two ports it works through.
pub(super) struct State {
    pub(super) core: Core,
    pub(super) wire: Connections,
    pub(super) submitter: Submitter,
    /// Connections with a held publish, oldest first.
    held: Vec<Rc<Connection>>,
    /// Messages from the cloud that the core has not taken.
    pub(super) inflows: Inflows,
    /// First commit whose block has not been given to the core.
    pub(super) tail_next: CommitNumber,
}

/// What a broker is made of.
pub(super) struct Parts {
    pub(super) core: Core,
    pub(super) limits: CoreLimits,
    pub(super) store: Store,
    pub(super) submitter: Submitter,
    pub(super) failure: Failure,
    /// Number of open connections, for other threads.
    pub(super) count: Arc<AtomicUsize>,
    pub(super) node_name: String,
    pub(super) status: StatusValues,
    pub(super) notices: Notices,
    /// Where the books are shown, once a second.
    pub(super) books: watch::Sender<Arc<Books>>,
}

/// Packets of the largest size that have room to arrive at the same time, at least.
const PACKETS_AT_ONCE: usize = 4;

/// Stops the node when a call unwinds.
struct Bomb<'a>(&'a Failure);

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.report("the broker thread panicked");
        }
    }
}

impl Broker {
    pub(super) fn new(config: MqttServerConfig, parts: Parts) -> Self {
        let Parts {
            core,
            limits,
            store,
            submitter,
            failure,
            count,
            node_name,
            status,
            notices,
            books,
        } = parts;
        let traffic = Rc::new(Traffic::new());
        let sys = Sys::new(config.sys_interval, status);
        let clock = (config.clock)();
        let assembly = Assembly::new(
            config
                .partial_bytes_max
                .max(PACKETS_AT_ONCE * config.packet_max as usize),
        );
        let tail_next = store.newest_commit().next();
        let broker = Self {
            state: RefCell::new(State {
                core,
                wire: Connections::new(count, traffic.clone()),
                submitter,
                held: Vec::new(),
                inflows: Inflows::default(),
                tail_next,
            }),
            config,
            assembly,
            store,
            failure,
            receive_maximum: limits.receive_maximum,
            session_expiry_max_secs: limits.session_expiry_max_secs,
            turn: LocalWaker::new(),
            turn_due: Cell::new(false),
            paused: Cell::new(false),
            closing: watch::Sender::new(false),
            takes_none: Cell::new(false),
            arrivals: RefCell::new(Vec::new()),
            admitted: RefCell::new(HashMap::new()),
            gone: RefCell::new(Vec::new()),
            sockets: Cell::new(0),
            handshakes: Cell::new(0),
            next_id: Cell::new(1),
            traffic,
            sys,
            notices,
            interest: Cell::default(),
            node_name,
            books,
            scratch: RefCell::new(Vec::new()),
            spare: Cell::new(None),
            started: Instant::now(),
            now: Cell::new(Now {
                tick: Tick::default(),
                wall: WallTime(0),
                clock,
                runs_since: limits.clock_runs_since,
            }),
            now_is_fresh: Cell::new(false),
            clock: Cell::new(clock),
        };
        broker.read_clock();
        broker
    }

    /// Brings the books up to date, for other threads and as gauges.
    pub(super) fn show_books(&self) {
        let books = self.with(|state, _| state.core.books());
        books.publish();
        self.books.send_replace(Arc::new(books));
    }

    /// Runs one call on the core and wakes the turn.
    pub(super) fn with<R>(&self, call: impl FnOnce(&mut State, Now) -> R) -> R {
        let now = self.now();
        let _bomb = Bomb(&self.failure);
        let result = call(&mut self.state.borrow_mut(), now);
        self.wake_turn();
        result
    }

    /// A look at the state without a call on the core.
    pub(super) fn state_mut(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    pub(super) fn wake_turn(&self) {
        if !self.turn_due.replace(true) {
            self.turn.wake();
        }
    }

    /// True once per wake.
    pub(super) fn take_turn(&self) -> bool {
        self.turn_due.replace(false)
    }

    /// The time, read once per turn.
    pub(super) fn now(&self) -> Now {
        if !self.now_is_fresh.replace(true) {
            self.read_clock();
        }
        self.now.get()
    }

    fn read_clock(&self) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now.set(Now {
            tick: Tick(self.started.elapsed()),
            wall: WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
            clock: self.clock.get(),
            runs_since: self.now.get().runs_since,
        });
    }

    pub(super) fn next_id(&self) -> ConnId {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        ConnId(id)
    }

    pub(super) fn has_too_many_levels(&self, topic: &str) -> bool {
        let max = self.config.topic_levels_max;
        // A topic has at most one level more than bytes, so that mostly nothing is counted.
        topic.len() >= max && level_count(topic) > max
    }

    /// Whether a connection may take the next packet out of its read buffer.
    pub(super) fn may_read(&self, connection: &Connection) -> bool {
        !self.paused.get() && connection.held.borrow().is_none()
    }

    fn set_paused(&self, paused: bool) {
        if self.paused.replace(paused) && !paused {
            for connection in self.state.borrow().wire.iter() {
                connection.io.notify_dispatcher();
            }
        }
    }

    pub(super) fn connect(&self, connection: &Rc<Connection>, connect: Connect) {
        self.with(|state, now| {
            state.wire.insert(connection.clone());
            state.core.handle_connect(connection.id, connect, now, &mut state.wire);
        });
    }

    /// A PUBLISH. When the core asks to hold it, a copy waits.
    pub(super) fn publish(&self, connection: &Rc<Connection>, publish: PublishIn<'_>) {
        if self.takes_none.get() {
            // Not acknowledged, so the client has it still. What stands behind it, acks above all, is read on.
            return self.state.borrow().wire.counters.left.increment(1);
        }
        let pressure = self.pressure();
        let is_held = self.with(|state, now| {
            self.traffic.published(publish.qos, publish.payload.len());
            let outcome = state
                .core
                .handle_publish(connection.id, publish, pressure, now, &mut state.wire);
            if outcome == Outcome::Hold {
                state.wire.counters.held.increment(1);
                *connection.held.borrow_mut() = Some(Held::copy(&publish, &self.assembly));
                connection.held_under.set(pressure);
                connection.packet_since.set(now.tick);
                state.held.push(connection.clone());
            }
            outcome == Outcome::Hold
        });
        if is_held {
            self.enforce_budget();
        }
    }

    /// A PUBLISH that the front does not accept: the core answers it in its turn.
    pub(super) fn refuse_publish(&self, connection: &Connection, publish: PublishIn<'_>, reason: u8) {
        if !self.takes_none.get() {
            self.with(|state, now| {
                let State { core, wire, .. } = state;
                core.refuse_publish(connection.id, publish, reason, now, wire);
            });
        }
    }

    /// The client has closed: what it had sent waits no longer for a SUBACK that nobody will read. True when nothing of it is held
    /// any more.
    pub(super) fn take_last_words(&self, connection: &Connection) -> bool {
        if self.takes_none.get() || self.paused.get() {
            return false;
        }
        let pressure = self.pressure();
        self.with(|state, now| {
            state.core.forget_order(connection.id);
            let Some(held) = connection.held.take() else {
                return true;
            };
            let outcome = state
                .core
                .handle_publish(connection.id, held.publish(), pressure, now, &mut state.wire);
            if outcome == Outcome::Hold {
                *connection.held.borrow_mut() = Some(held);
            }
            outcome != Outcome::Hold
        })
    }

    /// Offers the held publishes again, oldest first, while the core takes them. Those that wait for the pressure to fall are
    /// left out while it has not, unless `all` are wanted: the core may have another reason by then.
    pub(super) fn retry_held(&self, all: bool) {
        let pressure = self.pressure();
        let is_due = |connection: &Rc<Connection>| {
            let under = connection.held_under.get();
            all || under == Pressure::Normal || under != pressure || connection.phase.get() != Phase::Open
        };
        if self.takes_none.get() || !self.state.borrow().held.iter().any(is_due) {
            return;
        }
        self.with(|state, now| {
            let mut waiting = std::mem::take(&mut state.held);
            waiting.retain(|connection| {
                if !is_due(connection) {
                    return true;
                }
                // Out of its slot during the call, since the core may close the connection, which empties the slot.
                let Some(held) = connection.held.take() else {
                    return false;
                };
                let outcome = state
                    .core
                    .handle_publish(connection.id, held.publish(), pressure, now, &mut state.wire);
                if outcome == Outcome::Hold && connection.phase.get() == Phase::Open {
                    connection.held_under.set(pressure);
                    *connection.held.borrow_mut() = Some(held);
                    return true;
                }
                connection.io.notify_dispatcher();
                false
            });
            state.held = waiting;
        });
    }

    pub(super) fn pressure(&self) -> Pressure {
        match self.store.pressure().level {
            Level::Normal => Pressure::Normal,
            Level::High => Pressure::High,
            Level::Full => Pressure::Full,
        }
    }

    pub(super) fn backlogged(&self, connection: &Connection) {
        if connection.backlogged_since.get().is_none() {
            connection.backlogged_since.set(Some(self.now().tick));
            self.state.borrow().wire.counters.backlogged.increment(1);
        }
    }

    pub(super) fn writable(&self, connection: &Connection) {
        connection.backlogged_since.set(None);
        self.with(|state, now| state.core.handle_writable(connection.id, now, &mut state.wire));
    }

    /// The client broke the protocol, or the front must end the connection: reason, will, close.
    pub(super) fn fail(&self, connection: &Connection, fault: Fault) {
        if connection.phase.get() == Phase::Closed {
            return;
        }
        tracing::debug!(connection = connection.id.0, reason = fault.reason, "{}", fault.text);
        counters::ended(fault.reason);
        connection.end(fault);
        self.socket_gone(connection.id);
    }

    /// The socket is gone, or will be: the core hears of it in the next turn. Idempotent, callable from anywhere.
    pub(super) fn socket_gone(&self, id: ConnId) {
        self.gone.borrow_mut().push(id);
        self.wake_turn();
    }

    /// One turn: what ended goes to the core, and everything gathered goes to the store. Returns what the core wants to read.
    pub(super) fn run_turn(&self) -> (Vec<ReadRequest>, Vec<ScanRequest>) {
        self.now_is_fresh.set(false);
        let now = self.now();
        let work = {
            let _bomb = Bomb(&self.failure);
            let state = &mut *self.state.borrow_mut();
            for id in self.gone.take() {
                if state.wire.remove(id) {
                    state.core.handle_closed(id, now, &mut state.wire);
                }
            }
            self.submit(state);
            let reads = std::iter::from_fn(|| state.core.poll_read(now)).collect();
            let scans = std::iter::from_fn(|| state.core.poll_scan(now)).collect();
            (reads, scans)
        };
        self.update_pause();
        self.tell_interest();
        work
    }

    fn submit(&self, state: &mut State) {
        while let Some(commit) = state.core.take_commit() {
            match state.submitter.submit(commit) {
                Ok(ticket) => state.core.handle_submitted(ticket),
                Err(SubmitError::Full(commit)) => {
                    // The next completed commit makes room and wakes the turn.
                    state.core.untake_commit(commit);
                    return;
                }
                Err(error) => {
                    self.failure.report(&format!("the store takes no commits: {error}"));
                    return;
                }
            }
        }
    }

    /// Stops or resumes reading as the core wants it.
    pub(super) fn update_pause(&self) {
        let wanted = *self.closing.borrow() || self.state.borrow().core.wants_pause();
        self.set_paused(wanted);
    }

    /// From now on no PUBLISH is taken; all else is.
    pub(super) fn take_none(&self) {
        self.takes_none.set(true);
    }

    /// Delivers nothing new from now on.
    pub(super) fn be_quiet(&self) {
        self.state.borrow_mut().wire.be_quiet();
    }

    /// Whether a connected client still has messages to acknowledge.
    pub(super) fn awaits_acks(&self) -> bool {
        self.state.borrow().core.awaits_acks()
    }

    /// Hands everything to the store that is otherwise written once a second.
    pub(super) fn flush_all(&self) {
        self.state.borrow_mut().core.flush_all();
    }

    /// From now on nothing is read, and no handshake begins.
    pub(super) fn start_closing(&self) {
        self.closing.send_replace(true);
        self.update_pause();
    }

    /// Ends when the shutdown has come so far that nothing is read.
    pub(super) async fn until_closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender is this one, so the wait cannot fail.
        drop(closing.wait_for(|&closing| closing).await);
    }

    /// Time until the core's next deadline.
    pub(super) fn until_timeout(&self) -> Duration {
        let due = self.state.borrow().core.poll_timeout();
        due.map_or(Duration::MAX, |due| due.since(Tick(self.started.elapsed())))
    }

    pub(super) fn connections(&self) -> Vec<Rc<Connection>> {
        self.state.borrow().wire.iter().cloned().collect()
    }

    /// True when nothing is on its way to the store.
    pub(super) fn is_settled(&self) -> bool {
        self.state.borrow().submitter.outstanding() == 0 && !self.turn_due.get()
    }

    /// True when the core has been given all that is committed.
    pub(super) fn is_fanned_out(&self) -> bool {
        let next = self.state.borrow().tail_next;
        matches!(self.store.tail().read(next, 1), TailRead::Empty)
    }

    /// Called once per second or so: keeps `$SYS` up.
    pub(super) fn tick_status(&self) {
        let dropped = self.state.borrow().core.dropped_total();
        let is_due = self.sys.is_due(&self.traffic.read(), dropped, self.now().tick);
        if is_due && self.state.borrow().core.wants_status() {
            self.publish_status();
        }
    }

    /// Somebody is about to subscribe to `$SYS`: the values that there are shall be true.
    pub(super) fn refresh_status(&self) {
        if self.sys.is_stale(self.now().tick) {
            self.publish_status();
        }
    }

    fn publish_status(&self) {
        if self.takes_none.get() {
            return;
        }
        self.with(|state, now| {
            let sources = Sources {
                name: &self.node_name,
                uptime: self.started.elapsed(),
                clock: self.clock.get(),
                counts: self.traffic.read(),
                totals: state.core.totals(),
                store: &self.store,
                outstanding: state.submitter.outstanding(),
            };
            let entries = self.sys.make(&sources, now.tick);
            state.core.publish_status(&entries, now, &mut state.wire);
        });
    }

    pub(super) fn refresh_clock(&self) {
        self.clock.set((self.config.clock)());
        self.now_is_fresh.set(false);
    }
}
