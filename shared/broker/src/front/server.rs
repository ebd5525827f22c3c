//! The MQTT server as a node sees it: start, addresses, failure, shutdown. The only part that other threads touch.
//!
//! In: settings, a session core to be made on the broker thread, the store. Out: bound listeners and one thread named `mqtt`
//! that runs an ntex system with everything of the front on it: accept, connections, session core.
//! Shutdown takes what was read, waits for its commits and acks, tells MQTT 5 clients, closes, and joins the thread.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use fellbeck_core::CommitNumber;
use fellbeck_store::{Space, Store};
use ntex::rt::{DefaultRuntime, System, spawn};
use tokio::sync::{mpsc, watch};

use super::accept;
use super::broker::{Broker, Parts};
use super::config::MqttServerConfig;
use super::failure::Failure;
use super::frames::Fault;
use super::inside::{self, Inlet, Inside, Notices};
use super::sys::StatusValues;
use super::transport::{Listening, Transport};
use super::turn;
use crate::session::{Books, Core, CoreConfig, Route};

/// Makes the routes on the broker thread.
pub type MakeRoute = Box<dyn FnOnce() -> Box<dyn Route> + Send>;

/// What the session core is made of.
pub struct CoreSetup {
    /// Its settings.
    pub config: CoreConfig,
    /// Where messages are logged.
    pub route: MakeRoute,
    /// Name of this node.
    pub node_name: String,
    /// What it says of itself below `$SYS/fellbeck/`, beyond what the broker knows.
    pub status: StatusValues,
}

/// The server did not start. Nothing runs; what was bound is closed again.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// An address could not be bound.
    #[error("{field}: cannot listen on {address}: {source}")]
    Bind {
        /// Key of the listener.
        field: &'static str,
        /// The address as configured.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no address to listen on.
    #[error("mqtt.listen: no address")]
    NoAddress,
    /// A TLS listener without a certificate.
    #[error("{field}: there is no certificate")]
    NoCertificate {
        /// Key of the listener.
        field: &'static str,
    },
    /// The sessions in the store do not decode, or cannot be read.
    #[error("sessions in the store: {0}")]
    Sessions(String),
    /// The system gave no thread, or the thread died while it started.
    #[error("broker thread: {0}")]
    Thread(String),
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Everything that was read is durable and acked, every client was told.
    Clean,
    /// The deadline passed first. What was acked is durable all the same.
    Late,
    /// The broker thread had failed.
    Failed,
}

/// A running MQTT server. Dropping it stops the thread without a drain.
#[derive(Debug)]
pub struct MqttServer {
    listeners: Vec<(Transport, SocketAddr)>,
    addresses: Vec<SocketAddr>,
    connections: Arc<AtomicUsize>,
    commands: mpsc::Sender<Stop>,
    failed: watch::Receiver<Option<String>>,
    inside: Inside,
    books: watch::Receiver<Arc<Books>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Ask to stop within the given time; the answer says whether all was drained.
struct Stop {
    within: Duration,
    done: std_mpsc::Sender<Shutdown>,
}

/// Binds the listeners, starts the broker thread and returns once it accepts.
pub fn start(config: MqttServerConfig, setup: CoreSetup, store: Store) -> Result<MqttServer, FrontError> {
    let bound = Listening::bind(&config)?;
    let listeners: Vec<_> = bound
        .iter()
        .filter_map(|listening| Some((listening.transport, listening.socket.local_addr().ok()?)))
        .collect();
    let plain = listeners.iter().filter(|(transport, _)| *transport == Transport::Tcp);
    let addresses = plain.map(|(_, address)| *address).collect();
    let (commands, stops) = mpsc::channel(1);
    let (failure, failed) = Failure::new();
    let (ready, started) = std_mpsc::channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let (inside, inlet, notices) = inside::channel();
    let (books_sender, books) = watch::channel(Arc::default());
    let run = Run {
        config,
        setup,
        store,
        bound,
        stops,
        failure,
        count,
        inlet,
        notices,
        ready,
        books: books_sender,
    };
    let thread = std::thread::Builder::new()
        .name("mqtt".to_owned())
        .spawn(move || run.run())
        .map_err(|error| FrontError::Thread(error.to_string()))?;
    match started.recv() {
        Ok(Ok(())) => Ok(MqttServer {
            listeners,
            addresses,
            connections,
            commands,
            failed,
            inside,
            books,
            thread: Some(thread),
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(FrontError::Thread("it ended while it started".to_owned())),
    }
}

impl MqttServer {
    /// All listeners, plain TCP first, each kind in the order of the configuration.
    #[must_use]
    pub fn listeners(&self) -> &[(Transport, SocketAddr)] {
        &self.listeners
    }

    /// The addresses that are bound for plain TCP, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Open connections: those whose CONNECT has reached the session core.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Becomes `Some(reason)` when the broker thread cannot go on; the node must then stop with an error.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// The broker for other parts of the node: edges, and messages from the cloud.
    #[must_use]
    pub fn inside(&self) -> Inside {
        self.inside.clone()
    }

    /// The books of all durable readers, brought up to date once a second.
    #[must_use]
    pub fn books(&self) -> watch::Receiver<Arc<Books>> {
        self.books.clone()
    }

    /// Stops accepting, commits and acks what was read, tells MQTT 5 clients (0x8B), closes, joins the thread. Blocks for at
    /// most `within`, and a moment more.
    pub fn shutdown(mut self, within: Duration) -> Shutdown {
        let (done, answer) = std_mpsc::channel();
        let outcome = match self.commands.try_send(Stop { within, done }) {
            Ok(()) => answer.recv().unwrap_or(Shutdown::Failed),
            Err(_) => Shutdown::Failed,
        };
        self.join();
        outcome
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was reported through `failed`.
            drop(thread.join());
        }
    }
}

impl Drop for MqttServer {
    fn drop(&mut self) {
        // The thread ends when its last command sender is gone.
        let (unused, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.commands, unused));
        self.join();
    }
}

/// What the broker thread starts with.
struct Run {
    config: MqttServerConfig,
    setup: CoreSetup,
    store: Store,
    bound: Vec<Listening>,
    stops: mpsc::Receiver<Stop>,
    failure: Failure,
    count: Arc<AtomicUsize>,
    inlet: Inlet,
    notices: Notices,
    ready: std_mpsc::Sender<Result<(), FrontError>>,
    books: watch::Sender<Arc<Books>>,
}

/// Reports a failure unless the thread ended as it should.
struct EndsWell<'a>(&'a Failure, bool);

impl Drop for EndsWell<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.report("the broker thread ended");
        }
    }
}

impl Run {
    fn run(self) {
        let failure = self.failure.clone();
        let mut end = EndsWell(&failure, false);
        // No signals: the node handles them. No pings: nothing asks for the latency of this thread.
        let system = System::build()
            .name("mqtt")
            .ping_interval(0)
            .signals(false)
            .build(DefaultRuntime);
        system.block_on(self.serve());
        end.1 = true;
    }

    async fn serve(self) {
        let Self {
            config,
            setup,
            store,
            bound,
            mut stops,
            failure,
            count,
            inlet,
            notices,
            ready,
            books,
        } = self;
        let (submitter, answers) = store.submitter(config.submissions_max);
        let limits = setup.config.limits;
        let core = Core::new(setup.config, (setup.route)(), &setup.node_name);
        let broker = Rc::new(Broker::new(
            config,
            Parts {
                core,
                limits,
                store,
                submitter,
                failure,
                count,
                node_name: setup.node_name,
                status: setup.status,
                notices,
                books,
            },
        ));
        let restored = restore(&broker);
        broker.show_books();
        if let Err(error) = restored {
            // The caller waits for exactly this.
            ready.send(Err(error)).ok();
            return;
        }
        spawn(turn::run_turns(broker.clone()));
        spawn(turn::follow_store(broker.clone(), answers));
        spawn(turn::run_clock(broker.clone()));
        spawn(inside::serve(broker.clone(), inlet));
        let accepting = match accept::start(&broker, bound).await {
            Ok(accepting) => accepting,
            Err(error) => {
                ready.send(Err(FrontError::Thread(error.to_string()))).ok();
                return;
            }
        };
        broker.wake_turn();
        if ready.send(Ok(())).is_err() {
            return;
        }
        let stop = tokio::select! {
            biased;
            () = broker.failure.reported() => None,
            stop = stops.recv() => stop,
        };
        drop(accepting);
        if let Some(Stop { within, done }) = stop {
            let outcome = match tokio::time::timeout(within, drain(&broker)).await {
                _ if broker.failure.is_reported() => Shutdown::Failed,
                Ok(()) => Shutdown::Clean,
                Err(_) => Shutdown::Late,
            };
            // The caller may have given up.
            done.send(outcome).ok();
        }
    }
}

fn restore(broker: &Broker) -> Result<(), FrontError> {
    let stored = broker
        .store
        .load(Space::Session)
        .map_err(|error| FrontError::Sessions(error.to_string()))?;
    broker
        .with(|state, now| {
            // The first block that the core will be given follows this commit.
            let newest = CommitNumber(state.tail_next.0.saturating_sub(1));
            state.core.restore(stored, newest, now)
        })
        .map_err(|error| FrontError::Sessions(error.to_string()))
}

/// Turns of the event loop in which what is already in socket and read buffers is still taken.
const LAST_READS: usize = 16;

async fn drain(broker: &Rc<Broker>) {
    for _ in 0..LAST_READS {
        tokio::task::yield_now().await;
    }
    // From here on a PUBLISH is neither taken nor acknowledged; those that were taken are committed and delivered first.
    broker.take_none();
    tokio::time::timeout(FAN_OUT_WITHIN, fan_out(broker)).await.ok();
    broker.be_quiet();
    // A subscriber that does not acknowledge in time is sent the message again when it comes back, with DUP.
    let acknowledged = async {
        while broker.awaits_acks() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(ACKS_WITHIN, acknowledged).await.ok();
    broker.start_closing();
    // Whatever the sockets do until the deadline, this much is written.
    settle(broker).await;
    while broker.sockets.get() > 0 {
        // In each round, since a handshake may have passed in between.
        for connection in broker.connections() {
            connection.end(SHUTTING_DOWN);
        }
        tokio::time::sleep(POLL).await;
    }
    // Sessions heard of the end of their connections; that is written too, and what is otherwise written once a second.
    settle(broker).await;
}

/// Waits until all that was taken is durable and has been given to those who are connected.
async fn fan_out(broker: &Rc<Broker>) {
    settle(broker).await;
    while !broker.is_fanned_out() {
        tokio::time::sleep(POLL).await;
    }
}

/// Told to MQTT 5 clients.
const SHUTTING_DOWN: Fault = Fault {
    reason: 0x8B,
    text: "server shutting down",
};

const POLL: Duration = Duration::from_millis(2);
/// Time to commit and deliver what was taken.
const FAN_OUT_WITHIN: Duration = Duration::from_secs(2);
/// Time that subscribers get to acknowledge what they were sent.
const ACKS_WITHIN: Duration = Duration::from_secs(1);

/// Waits until all that the core gathered is durable, cursors included, and its acks are in write buffers.
async fn settle(broker: &Rc<Broker>) {
    broker.flush_all();
    broker.wake_turn();
    while !broker.is_settled() {
        tokio::time::sleep(POLL).await;
    }
}
