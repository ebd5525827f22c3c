//! The broker as other parts of the node reach it, from their own threads: edges that read it, and messages that come from a cloud.
//!
//! In: calls over one bounded channel. Out: for each edge the events of its session, bounded as the write buffer of a socket is;
//! for each inflow an answer when it is durable; what clients are subscribed to, whenever that changes.
//! All that is decided is decided by the session core: an edge is a connection to it like any other.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use fellbeck_core::{LogPosition, QoS, RecordBlock, RecordBlockBuilder};
use tokio::sync::{mpsc, oneshot, watch};

use super::broker::Broker;
use crate::session::{EdgeReader, EdgeScope, edge_client_id};
use crate::wire::{ConnId, Connect, Delivery, PacketOut, Subscribe, SubscribeIn, Unsubscribe, Version};

/// Calls that wait; a caller waits at the bound.
const CALLS_MAX: usize = 256;
/// Bytes of messages that wait for an edge's link; the core sends no more then.
const WAITING_HIGH: usize = 256 << 10;
/// Bytes that a message costs beside its own.
const MESSAGE_OVERHEAD: usize = 128;

/// The broker is gone: the node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker has ended")]
pub struct Gone;

/// Filters that clients of a node are subscribed to, connected or not, without order; a filter may come twice.
/// `None`: not looked up yet.
pub type Interest = Option<Arc<[String]>>;

/// A message for an edge.
#[derive(Debug, Clone)]
pub struct ToEdge {
    /// To be acknowledged by; `None` at QoS 0.
    pub packet_id: Option<u16>,
    /// Place in the log, if it came from there.
    pub position: Option<LogPosition>,
    /// The one record.
    pub record: RecordBlock,
}

/// What happens to the session of an edge.
#[derive(Debug, Clone)]
pub enum EdgeEvent {
    /// It is attached: what follows is for this link.
    Attached,
    /// A message.
    Message(ToEdge),
    /// Filters were asked for; so many were refused.
    Subscribed {
        /// Of these.
        refused: u32,
    },
    /// Another link of the edge has taken over, or the session could not be had.
    Ended,
}

/// The session of an edge while its link is up. Dropping it ends the attachment; the session stays.
#[derive(Debug)]
pub struct EdgeSession {
    inside: Inside,
    conn: ConnId,
    events: mpsc::UnboundedReceiver<EdgeEvent>,
    load: Arc<Load>,
}

/// How much waits for a link.
#[derive(Debug, Default)]
struct Load {
    bytes: AtomicUsize,
    /// The core was told to wait.
    held: AtomicBool,
}

enum Call {
    Attach {
        edge: String,
        window: u16,
        packet_max: usize,
        answer: oneshot::Sender<EdgeParts>,
    },
    Want {
        conn: ConnId,
        filters: Vec<(String, EdgeScope)>,
        /// What is not named is wanted no longer.
        is_all: bool,
    },
    Unwant {
        conn: ConnId,
        filters: Vec<String>,
    },
    Ack {
        conn: ConnId,
        packet_ids: Vec<u16>,
    },
    Writable(ConnId),
    Leave(ConnId),
    Inflow {
        block: RecordBlock,
        mark: Option<(Bytes, Bytes)>,
        answer: oneshot::Sender<()>,
    },
    /// Somebody asks for the interest for the first time.
    ShowInterest,
}

struct EdgeParts {
    conn: ConnId,
    events: mpsc::UnboundedReceiver<EdgeEvent>,
    load: Arc<Load>,
}

/// A handle to the broker for other threads. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Inside {
    calls: mpsc::Sender<Call>,
    interest: watch::Receiver<Interest>,
    wants_interest: Arc<AtomicBool>,
    edges: watch::Receiver<Arc<[EdgeReader]>>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Call")
    }
}

/// Room for one inflow.
pub struct InflowPlace<'a>(mpsc::Permit<'a, Call>);

impl Inside {
    /// Attaches a link to the session of `edge`, making it if there is none. At most `window` messages are unacknowledged;
    /// larger ones than `packet_max` are dropped, counted.
    pub async fn attach(&self, edge: &str, window: u16, packet_max: usize) -> Result<EdgeSession, Gone> {
        let (answer, attached) = oneshot::channel();
        self.call(Call::Attach {
            edge: edge.to_owned(),
            window,
            packet_max,
            answer,
        })
        .await?;
        let EdgeParts { conn, events, load } = attached.await.map_err(|_| Gone)?;
        Ok(EdgeSession {
            inside: self.clone(),
            conn,
            events,
            load,
        })
    }

    /// A place for messages that came from the cloud. To be had before they are noted as taken: what is put into it is handed over
    /// without a wait, in which the caller could be dropped.
    pub async fn reserve(&self) -> Result<InflowPlace<'_>, Gone> {
        self.calls.reserve().await.map(InflowPlace).map_err(|_| Gone)
    }

    /// What clients are subscribed to. It is looked up from the first call on.
    pub async fn interest(&self) -> Result<watch::Receiver<Interest>, Gone> {
        if !self.wants_interest.swap(true, Ordering::SeqCst) {
            self.call(Call::ShowInterest).await?;
        }
        Ok(self.interest.clone())
    }

    /// The sessions of edges as they were about a second ago.
    #[must_use]
    pub fn edges(&self) -> Arc<[EdgeReader]> {
        self.edges.borrow().clone()
    }

    async fn call(&self, call: Call) -> Result<(), Gone> {
        self.calls.send(call).await.map_err(|_| Gone)
    }
}

impl InflowPlace<'_> {
    /// Publishes messages that came from the cloud. The answer comes when they and `mark`, a key and value of `Space::Node`, are
    /// durable, or need not be; it fails when the broker ends. Inflows are taken in the order of the calls.
    pub fn inflow(self, block: RecordBlock, mark: Option<(Bytes, Bytes)>) -> oneshot::Receiver<()> {
        let (answer, taken) = oneshot::channel();
        self.0.send(Call::Inflow { block, mark, answer });
        taken
    }
}

impl EdgeSession {
    /// The next event. May be dropped and called again. Call [`EdgeSession::let_go_on`] when it was dealt with.
    pub async fn event(&mut self) -> Result<EdgeEvent, Gone> {
        let event = self.events.recv().await.ok_or(Gone)?;
        self.taken(&event);
        Ok(event)
    }

    /// An event that is there already.
    pub fn next_event(&mut self) -> Option<EdgeEvent> {
        let event = self.events.try_recv().ok()?;
        self.taken(&event);
        Some(event)
    }

    fn taken(&self, event: &EdgeEvent) {
        if let EdgeEvent::Message(message) = event {
            self.load.bytes.fetch_sub(cost(&message.record), Ordering::SeqCst);
        }
    }

    /// Lets the core send on, if it was told to wait and there is room. To be called whenever events were taken.
    pub async fn let_go_on(&self) -> Result<(), Gone> {
        let is_low = self.load.bytes.load(Ordering::SeqCst) < WAITING_HIGH;
        if is_low && self.load.held.swap(false, Ordering::SeqCst) {
            self.inside.call(Call::Writable(self.conn)).await?;
        }
        Ok(())
    }

    /// Subscribes. `is_all`: what is not named is unsubscribed from. [`EdgeEvent::Subscribed`] follows for each scope that is named.
    pub async fn want(&self, filters: Vec<(String, EdgeScope)>, is_all: bool) -> Result<(), Gone> {
        let conn = self.conn;
        self.inside.call(Call::Want { conn, filters, is_all }).await
    }

    /// Unsubscribes.
    pub async fn unwant(&self, filters: Vec<String>) -> Result<(), Gone> {
        let conn = self.conn;
        self.inside.call(Call::Unwant { conn, filters }).await
    }

    /// Messages were taken for good.
    pub async fn ack(&self, packet_ids: Vec<u16>) -> Result<(), Gone> {
        let conn = self.conn;
        self.inside.call(Call::Ack { conn, packet_ids }).await
    }

    /// Ends the attachment.
    pub async fn leave(self) {
        // A broker that is gone has no attachment to end.
        self.inside.call(Call::Leave(self.conn)).await.ok();
    }
}

fn cost(record: &RecordBlock) -> usize {
    record.bytes().len() + MESSAGE_OVERHEAD
}

/// An attached edge, as the core's port sees it.
pub(super) struct Outlet {
    events: mpsc::UnboundedSender<EdgeEvent>,
    load: Arc<Load>,
    packet_max: usize,
}

impl Outlet {
    pub(super) fn is_backlogged(&self) -> bool {
        // In this order: whoever takes something in between sees that the core waits, or the core sees that there is room.
        self.load.held.store(true, Ordering::SeqCst);
        let is_high = self.load.bytes.load(Ordering::SeqCst) >= WAITING_HIGH;
        if !is_high {
            self.load.held.store(false, Ordering::SeqCst);
        }
        is_high
    }

    /// The link is gone without a word.
    pub(super) fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    pub(super) fn end(&self) {
        self.tell(EdgeEvent::Ended);
    }

    fn tell(&self, event: EdgeEvent) {
        // Who is gone is noticed by the clock.
        self.events.send(event).ok();
    }

    /// False when a message is too large for an edge.
    pub(super) fn send(&self, packet: &PacketOut<'_>) -> bool {
        match packet {
            PacketOut::Publish(delivery) => return self.publish(delivery),
            PacketOut::ConnAck { reason: 0, .. } => self.tell(EdgeEvent::Attached),
            PacketOut::ConnAck { .. } => self.tell(EdgeEvent::Ended),
            PacketOut::SubAck { reasons, .. } => {
                let refused = reasons.iter().filter(|reason| **reason >= 0x80).count() as u32;
                self.tell(EdgeEvent::Subscribed { refused });
            }
            _ => {}
        }
        true
    }

    fn publish(&self, delivery: &Delivery<'_>) -> bool {
        let record = &delivery.record;
        let bytes =
            record.topic.len() + record.device.len() + record.payload.len() + record.properties.as_bytes().len();
        if bytes > self.packet_max {
            return false;
        }
        let mut builder = RecordBlockBuilder::with_capacity(bytes + MESSAGE_OVERHEAD);
        builder.push(record);
        let record = builder.finish();
        self.load.bytes.fetch_add(cost(&record), Ordering::SeqCst);
        self.tell(EdgeEvent::Message(ToEdge {
            packet_id: delivery.packet_id,
            position: delivery.position,
            record,
        }));
        true
    }
}

/// The edges that are attached.
pub(super) type Outlets = HashMap<ConnId, Outlet>;

/// The broker's end of the handle.
pub(super) struct Inlet {
    calls: mpsc::Receiver<Call>,
}

/// What the broker thread tells those outside.
pub(super) struct Notices {
    pub(super) interest: watch::Sender<Interest>,
    pub(super) wants_interest: Arc<AtomicBool>,
    pub(super) edges: watch::Sender<Arc<[EdgeReader]>>,
}

pub(super) fn channel() -> (Inside, Inlet, Notices) {
    let (calls, inlet) = mpsc::channel(CALLS_MAX);
    let (interest, interested) = watch::channel(Interest::default());
    let (edges, shown) = watch::channel(Arc::from([]));
    let wants_interest = Arc::new(AtomicBool::new(false));
    let inside = Inside {
        calls,
        interest: interested,
        wants_interest: wants_interest.clone(),
        edges: shown,
    };
    let notices = Notices {
        interest,
        wants_interest,
        edges,
    };
    (inside, Inlet { calls: inlet }, notices)
}

/// Serves the calls of others until nobody can call any more.
pub(super) async fn serve(broker: Rc<Broker>, mut inlet: Inlet) {
    while let Some(call) = inlet.calls.recv().await {
        answer(&broker, call);
    }
}

fn answer(broker: &Rc<Broker>, call: Call) {
    match call {
        Call::Attach {
            edge,
            window,
            packet_max,
            answer,
        } => attach(broker, &edge, (window, packet_max), answer),
        Call::Want { conn, filters, is_all } => want(broker, conn, filters, is_all),
        Call::Unwant { conn, filters } => unwant(broker, conn, filters),
        Call::Ack { conn, packet_ids } => broker.with(|state, now| {
            for packet_id in packet_ids {
                state.core.handle_puback(conn, packet_id, 0, now, &mut state.wire);
            }
        }),
        Call::Writable(conn) => broker.with(|state, now| state.core.handle_writable(conn, now, &mut state.wire)),
        Call::Leave(conn) => broker.socket_gone(conn),
        Call::Inflow { block, mark, answer } => broker.take_inflow(block, mark, answer),
        Call::ShowInterest => broker.wake_turn(),
    }
}

fn attach(broker: &Rc<Broker>, edge: &str, (window, packet_max): (u16, usize), answer: oneshot::Sender<EdgeParts>) {
    let conn = broker.next_id();
    let (sender, events) = mpsc::unbounded_channel();
    let load = Arc::new(Load::default());
    let outlet = Outlet {
        events: sender,
        load: load.clone(),
        packet_max,
    };
    let connect = Connect {
        version: Version::V5,
        client_id: edge_client_id(edge),
        clean_start: false,
        session_expiry_secs: u32::MAX,
        receive_maximum: window,
        packet_max: None,
        will: None,
    };
    if answer.send(EdgeParts { conn, events, load }).is_err() {
        return;
    }
    broker.with(|state, now| {
        state.wire.outlets.insert(conn, outlet);
        state.core.handle_connect(conn, connect, now, &mut state.wire);
    });
}

fn want(broker: &Rc<Broker>, conn: ConnId, filters: Vec<(String, EdgeScope)>, is_all: bool) {
    if is_all {
        let open = broker.with(|state, _| state.core.open_filters(conn));
        let named: std::collections::HashSet<&str> = filters.iter().map(|(filter, _)| filter.as_str()).collect();
        let left: Vec<String> = open
            .into_iter()
            .filter(|filter| !named.contains(filter.as_str()))
            .collect();
        unwant(broker, conn, left);
    }
    for scope in [EdgeScope::Here, EdgeScope::All] {
        let of_scope = filters.iter().filter(|(_, wanted)| *wanted == scope);
        let filters: Vec<SubscribeIn> = of_scope.map(|(filter, _)| subscription(filter)).collect();
        if filters.is_empty() {
            continue;
        }
        let subscribe = Subscribe {
            packet_id: 1,
            subscription_id: Some(scope as u32),
            filters,
        };
        broker.with(|state, now| state.core.handle_subscribe(conn, subscribe, now, &mut state.wire));
    }
}

/// As published, at QoS 1 at most: the record says at which QoS it is to be published again, and its place in the log makes sure that
/// this is done once.
fn subscription(filter: &str) -> SubscribeIn {
    SubscribeIn {
        filter: filter.to_owned(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: 1,
    }
}

fn unwant(broker: &Rc<Broker>, conn: ConnId, filters: Vec<String>) {
    if filters.is_empty() {
        return;
    }
    let unsubscribe = Unsubscribe { packet_id: 1, filters };
    broker.with(|state, now| state.core.handle_unsubscribe(conn, unsubscribe, now, &mut state.wire));
}
