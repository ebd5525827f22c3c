//! A whole world from one seed: devices, an edge, a cloud, the link between them, and what goes wrong.
//!
//! One step after another in virtual time; which step comes next, and what it hits, is thrown with the world's dice. The real code
//! runs: session cores, link, dedup, routing, uplink memory. Behind each step the oracle has seen what became durable, and each
//! acknowledgement that a node sent was compared with that.

use fellbeck_broker::session::Pressure;
use fellbeck_broker::wire::ConnId;
use fellbeck_core::{ClockQuality, QoS};
use fellbeck_edge::pure::LOCAL_LANE;

use super::device::{Device, Side};
use super::dice::Dice;
use super::ingest::Ingest;
use super::network::Connection;
use super::node::{Node, device_of};
use super::oracle::{INSTANCE, Oracle};
use super::plan::{Plan, Planted};
use super::seen::Seen;
use super::setup::{cloud_node, devices, edge_node};
use super::store::Durable;
use super::trace::Trace;
use super::uplink::Uplink;

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) trace: Trace,
    pub(crate) now_ms: u64,
    pub(crate) edge: Node,
    pub(crate) cloud: Node,
    pub(crate) uplink: Uplink,
    pub(crate) ingest: Ingest,
    pub(crate) connections: Vec<Connection>,
    pub(crate) devices: Vec<Device>,
    pub(crate) oracle: Oracle,
    pub(crate) last_connection: u64,
    /// Sockets that are gone and that the node has not missed yet.
    pub(crate) gone: Vec<ConnId>,
    pub(crate) last_conn: u64,
    starts: u8,
    /// Faults by name, so that a run can show that they happened.
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>, keeps_all: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::of(&mut dice, planted);
        let devices = devices(&plan, &mut dice);
        let mut edge = edge_node(&plan, devices.len());
        let (cloud, places) = cloud_node(&plan, devices.len());
        let lanes = edge.store.tracks().filter_map(|(track, name)| {
            let name = name.strip_prefix("lane/")?.strip_suffix("/0")?;
            (name != LOCAL_LANE).then(|| (name.to_owned(), track))
        });
        let oracle = Oracle::new(lanes.collect(), Some(places.gaps));
        let uplink = Uplink::new(&mut edge, INSTANCE, planted);
        let ingest = Ingest::new(places, &cloud, planted);
        Self {
            plan,
            dice,
            trace: Trace::new(keeps_all),
            now_ms: 0,
            edge,
            cloud,
            uplink,
            ingest,
            connections: Vec::new(),
            devices,
            oracle,
            last_connection: 0,
            gone: Vec::new(),
            last_conn: 0,
            starts: 1,
            seen: Seen::default(),
        }
    }

    pub(crate) fn node(&mut self, side: Side) -> &mut Node {
        match side {
            Side::Edge => &mut self.edge,
            Side::Cloud => &mut self.cloud,
        }
    }

    /// Runs the world to its end and checks it.
    pub(crate) fn run(&mut self) {
        for _ in 0..self.plan.steps {
            self.step();
        }
        self.settle();
        self.check();
        self.seen.gaps = self.oracle.gaps;
        self.seen.edge_records = self.oracle.lanes.iter().map(|lane| lane.minted.len() as u64).sum();
    }

    pub(crate) fn pass_time(&mut self, ms: u64) {
        self.now_ms += ms;
        self.trace.now_ms = self.now_ms;
        let now = self.now_ms;
        for node in [&mut self.edge, &mut self.cloud] {
            if node.is_up {
                node.tick(now);
            }
        }
        if self.edge.is_up {
            self.uplink.timeout(now);
        }
        self.ingest.timeout(now);
    }

    // ---- nodes

    /// The broker's turn: what it gathered goes to the store.
    pub(crate) fn turn(&mut self, side: Side) {
        let now = self.now_ms;
        if self.node(side).is_up {
            self.node(side).turn(now);
        }
    }

    /// The store's answers reach the broker. True when there were some.
    pub(crate) fn follow_store(&mut self, side: Side, blocks_max: usize) -> bool {
        let now = self.now_ms;
        let node = self.node(side);
        if !node.is_up {
            return false;
        }
        let was_busy = node.follow_store(blocks_max, now);
        let taken = node.retry_held(now);
        // Before what they caused is looked at.
        self.taken(side, taken);
        self.look(side);
        was_busy
    }

    pub(crate) fn answer_read(&mut self, side: Side, fails: bool) -> bool {
        let (now, which) = (self.now_ms, self.dice.roll());
        let node = self.node(side);
        let was_busy = node.is_up && node.answer_read(which, fails, now);
        self.look(side);
        was_busy
    }

    pub(crate) fn begin_commit(&mut self, side: Side, count: usize) -> bool {
        let now = self.now_ms;
        let node = self.node(side);
        if !node.is_up {
            return false;
        }
        let begun = node.store.begin(count, now);
        if let Some(commit) = begun {
            self.trace
                .note("store {a} begins commit {b}", [side as u64, commit.0, 0]);
        }
        begun.is_some()
    }

    pub(crate) fn finish_commit(&mut self, side: Side) -> bool {
        let node = self.node(side);
        if !node.is_up {
            return false;
        }
        let Some(durable) = node.store.finish() else {
            return false;
        };
        self.durable(side, &durable);
        if side == Side::Edge {
            self.uplink.log_moved(&self.edge);
        }
        true
    }

    pub(crate) fn durable(&mut self, side: Side, durable: &Durable) {
        let records = durable.block.as_ref().map_or(0, |block| block.record_count());
        self.trace.note(
            "store {a} has commit {b} with {c} records",
            [side as u64, durable.commit.0, u64::from(records)],
        );
        self.seen.trims += durable.trimmed.len() as u64;
        match side {
            Side::Edge => self.oracle.edge_commit(durable, &self.devices),
            Side::Cloud => {
                self.seen.cloud_records += u64::from(records);
                self.oracle.cloud_commit(durable, &self.cloud.store, &self.devices);
            }
        }
    }

    /// The process of a node dies and starts again, perhaps on a store that has suffered.
    pub(crate) fn crash(&mut self, side: Side, survives: bool, fate: Fate) {
        self.starts += 1;
        let mut id = [9; 16];
        id[15] = self.starts;
        self.trace.note(
            "node {a} dies ({b}: its commit survived)",
            [side as u64, u64::from(survives), 0],
        );
        self.lose_sockets(side);
        let node = self.node(side);
        node.stop();
        let durable = node.store.crash(survives, id);
        if let Some(durable) = durable {
            self.durable(side, &durable);
        }
        match (fate, side) {
            (Fate::Damaged, Side::Edge) => {
                self.trace.note("the last commit of the edge is damaged", [0; 3]);
                self.seen.damages += 1;
                if let Some(block) = self.edge.store.damage() {
                    self.oracle.edge_damaged(&block);
                }
                self.oracle.damaged = true;
            }
            (Fate::Restored, _) => {
                self.starts += 1;
                id[15] = self.starts;
                if self.node(side).store.restore_snapshot(id) {
                    self.restored(side);
                }
            }
            _ => {}
        }
        let now = self.now_ms;
        self.node(side).start(now);
        match side {
            Side::Edge => {
                let instance = self.uplink.instance;
                self.uplink = Uplink::new(&mut self.edge, instance, self.plan.planted);
                self.seen.edge_crashes += 1;
            }
            Side::Cloud => {
                self.ingest.restart(&self.cloud);
                self.seen.cloud_crashes += 1;
            }
        }
    }

    fn restored(&mut self, side: Side) {
        self.trace.note("node {a} is put back to a copy", [side as u64, 0, 0]);
        match side {
            Side::Edge => {
                self.seen.edge_restores += 1;
                self.oracle.edge_back(&self.edge.store);
            }
            Side::Cloud => {
                self.seen.cloud_restores += 1;
                self.oracle.cloud_back(&self.cloud.store);
            }
        }
    }

    fn lose_sockets(&mut self, side: Side) {
        for device in self.devices.iter_mut().filter(|device| device.side == side) {
            device.lose_connection();
        }
        let devices = &self.devices;
        self.gone.retain(|conn| devices[device_of(*conn)].side != side);
        match side {
            Side::Edge => {
                let used = self.uplink.connection;
                for connection in self
                    .connections
                    .iter_mut()
                    .filter(|connection| Some(connection.id) == used)
                {
                    connection.cut();
                }
            }
            Side::Cloud => self.connections.iter_mut().for_each(Connection::cut),
        }
    }

    /// The books of both nodes' readers close at every moment (P9).
    pub(crate) fn check_books(&self) {
        for (name, node) in [("edge", &self.edge), ("cloud", &self.cloud)] {
            let books = node.core.books();
            let ledger = &books.ledger;
            let accounted = ledger.acked + books.in_flight + ledger.expired + ledger.dropped_total();
            assert_eq!(
                ledger.matched, accounted,
                "P9: the books of the {name}'s readers: {books:?}"
            );
        }
    }
}

/// What a crash does to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Kept,
    Damaged,
    Restored,
}

/// What presses on a node for a while.
pub(crate) fn press(node: &mut Node, dice: &mut Dice) {
    node.pressure = dice.pick(&[Pressure::Normal, Pressure::High, Pressure::Full]);
}

/// A jump of a node's wall clock, and of what it knows of it.
pub(crate) fn jump(node: &mut Node, dice: &mut Dice) {
    node.clock_ahead_ms = dice.pick(&[0, 5_000, 3_600_000, -3_600_000, -5_000]);
    node.clock = dice.pick(&[
        ClockQuality::Synced,
        ClockQuality::Synced,
        ClockQuality::Unsynced,
        ClockQuality::Unknown,
    ]);
}

/// The QoS at which a reader gets a message.
pub(crate) fn effective(reader: QoS, message: QoS) -> QoS {
    reader.min(message)
}
