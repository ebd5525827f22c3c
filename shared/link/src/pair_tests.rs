//! Sender and receiver as a pair, in virtual time, with a model store on each side and a hostile network between.
//!
//! One seed decides everything: how bytes are portioned, which stream is ahead of which, when reads and commits
//! complete, where a connection is cut and which side notices, which node dies, whether the cloud comes back from an
//! older copy. After each run the faults end, the pair settles, and the invariants are checked on what is durable:
//! each record in the cloud log once and in order (I4), W only over what is durable, known or declared (I3), nothing
//! trimmed on the edge that the cloud lacks (I2). `FELLBECK_PAIR_SEED=n` runs one seed, `FELLBECK_PAIR_SEEDS=n` that
//! many.

mod cloud;
mod edge;
mod network;
mod scenarios;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use fellbeck_core::{Tick, WallTime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use cloud::Cloud;
use edge::Edge;
use network::Connection;

use crate::SenderEvent;

const SEEDS: u64 = 8000;
const STEPS: usize = 400;

/// Two nodes and at most two connections: the one in use, and an older one that the cloud has not yet missed.
struct World {
    random: StdRng,
    tick: Tick,
    edge: Edge,
    cloud: Cloud,
    connections: Vec<Connection>,
    next_connection: u64,
    /// Set once the cloud was put back to a copy: from then on records may be beyond the edge's grace window.
    restored: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let lanes = random.random_range(1..=3);
        Self {
            edge: Edge::new(lanes),
            cloud: Cloud::new(lanes),
            connections: Vec::new(),
            next_connection: 1,
            tick: Tick::default(),
            restored: false,
            random,
        }
    }

    fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.tick.0.as_millis() as u64)
    }

    /// The connection that the edge uses, if it has one.
    fn current(&mut self) -> Option<&mut Connection> {
        let id = self.edge.connection?;
        self.connections.iter_mut().find(|connection| connection.id == id)
    }

    fn connect(&mut self) {
        if self.edge.connection.is_some() {
            return;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        self.connections.push(Connection::new(id, self.edge.lanes.len()));
        let (tick, wall) = (self.tick, self.wall());
        self.edge.connect(id, tick, wall);
        self.drain();
    }

    /// Nothing more arrives on either side; each notices in its own time.
    fn cut(&mut self) {
        if let Some(connection) = self.current() {
            connection.cut();
        }
    }

    fn edge_notices(&mut self) {
        if self.current().is_some_and(|connection| connection.is_cut) {
            self.edge.disconnect();
        }
    }

    fn cloud_notices(&mut self) {
        for connection in self.connections.iter().filter(|connection| connection.is_cut) {
            self.cloud.connection_lost(connection.id);
        }
        let used = self.edge.connection;
        self.connections
            .retain(|connection| !connection.is_cut || used == Some(connection.id));
    }

    fn kill_edge(&mut self, lose_suffix: bool) {
        self.cut();
        self.edge.kill(lose_suffix);
    }

    fn kill_cloud(&mut self) {
        self.connections.iter_mut().for_each(Connection::cut);
        self.cloud.kill();
    }

    /// Moves some bytes of one stream.
    fn deliver(&mut self, bytes_max: usize) {
        let (tick, wall) = (self.tick, self.wall());
        if self.connections.is_empty() {
            return;
        }
        let which = self.random.random_range(0..self.connections.len());
        let connection = &mut self.connections[which];
        let busy = connection.busy_streams();
        if busy.is_empty() {
            return;
        }
        let stream = busy[self.random.random_range(0..busy.len())];
        let (id, bytes) = (connection.id, connection.take(stream, bytes_max));
        if stream == network::DOWN {
            if self.edge.connection == Some(id) {
                self.edge.receive(&bytes, tick);
            }
        } else {
            self.cloud.receive(id, stream, &bytes, wall);
        }
    }

    fn pass_time(&mut self, time: Duration) {
        self.tick = self.tick.after(time);
        self.edge.timeout(self.tick);
        self.cloud.timeout(self.tick);
    }

    /// Lets both drivers do what is due, without delivering anything.
    fn drain(&mut self) {
        let (tick, wall) = (self.tick, self.wall());
        if let Some(id) = self.edge.connection {
            let connection = self.connections.iter_mut().find(|connection| connection.id == id);
            self.edge
                .drain(connection.expect("a connection lives while the edge uses it"), wall);
        }
        self.cloud.admit_waiting(&self.edge.name, tick, wall);
        self.cloud.drain(&mut self.connections);
        // What the cloud closed by itself is closed for the edge too.
        for connection in &mut self.connections {
            if self.cloud.take_closed(connection.id) {
                connection.cut();
            }
        }
        if self.edge.wants_close() {
            self.cut();
            self.edge.disconnect();
        }
        self.edge.check_acks(&self.cloud.ever_durable);
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..=199 => self.edge.append(&mut self.random),
            200..=299 => self.edge.finish_read(&mut self.random, self.tick),
            300..=699 => {
                let bytes_max = [1, 7, 100, 5000][self.random.random_range(0..4)];
                self.deliver(bytes_max);
            }
            700..=799 => self.cloud.commit_one(),
            800..=849 => {
                let time = Duration::from_millis(self.random.random_range(1..800));
                self.pass_time(time);
            }
            850..=899 => self.connect(),
            900..=919 => self.edge.flush_cursors(&mut self.random),
            920..=926 => self.edge.expire_one(&mut self.random),
            927..=934 => self.edge.merge_one(&mut self.random),
            935..=944 => self.cut(),
            945..=964 => self.edge_notices(),
            965..=979 => self.cloud_notices(),
            980..=986 => {
                let lose_suffix = self.random.random_bool(0.3);
                self.kill_edge(lose_suffix);
            }
            987..=992 => self.kill_cloud(),
            993..=996 => self.cloud.take_snapshot(),
            _ => {
                if self.cloud.has_snapshot() && self.random.random_bool(0.3) {
                    self.kill_cloud();
                    self.cloud.restore_snapshot();
                    self.restored = true;
                }
            }
        }
        self.drain();
    }

    /// No more faults: everything must reach the cloud in bounded time.
    fn settle(&mut self) {
        self.cloud_notices();
        for _ in 0..200_000 {
            if self.edge.is_settled() && self.cloud.holds_all(&self.edge) {
                return;
            }
            self.edge_notices();
            self.cloud_notices();
            self.connect();
            self.edge.finish_read_surely(self.tick);
            self.deliver(5000);
            self.cloud.commit_one();
            self.drain();
            if self
                .connections
                .iter()
                .all(|connection| connection.busy_streams().is_empty())
            {
                self.pass_time(Duration::from_millis(100));
                self.drain();
            }
        }
        panic!(
            "the pair did not settle: {:?}",
            self.edge.lanes.iter().map(|l| l.end).collect::<Vec<_>>()
        );
    }

    /// What has happened, by name.
    fn seen(&self) -> [(&'static str, u64); 11] {
        let seen = self.cloud.seen;
        let is_went_back = |event: &&SenderEvent| matches!(event, SenderEvent::CloudWentBack { .. });
        [
            ("record appended", seen.records),
            ("connection accepted", seen.accepted),
            ("take-over by the same incarnation", seen.took_over),
            ("replacement of a silent connection", seen.replaced_silent),
            ("wait for an old receiver to drain", seen.awaited_drain),
            ("commit lost with the cloud", seen.lost_commits),
            (
                "commit durable after its connection was gone",
                seen.durable_after_disconnect,
            ),
            ("gap stored", seen.gaps),
            ("skip taken", seen.skips),
            ("batch of which a part was known", seen.partly_known),
            (
                "cloud that went back",
                self.edge.events.iter().filter(is_went_back).count() as u64,
            ),
        ]
    }

    /// Lets everything happen that happens without faults, whether or not the edge is taken.
    fn run_on(&mut self, turns: usize) {
        for _ in 0..turns {
            self.edge.finish_read_surely(self.tick);
            self.deliver(5000);
            self.cloud.commit_one();
            self.drain();
        }
    }

    fn check(&self) {
        self.cloud.check_log(&self.edge, self.restored);
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check();
    world
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("FELLBECK_PAIR_SEED"), number("FELLBECK_PAIR_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    }
}

/// The whole world from a seed; what must hold is in the header of this file.
#[test]
fn every_record_reaches_the_cloud_once_and_in_order_whatever_fails() {
    let seeds = seeds();
    let mut sum = [0; 11];
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(world) => sum.iter_mut().zip(world.seen()).for_each(|(sum, (_, n))| *sum += n),
            Err(panic) => {
                eprintln!("failing seed: {seed} (run it alone with FELLBECK_PAIR_SEED={seed})");
                resume_unwind(panic);
            }
        }
    }
    // A world in which nothing goes wrong proves nothing.
    let names = World::new(0).seen().map(|(name, _)| name);
    for (name, sum) in names.iter().zip(sum) {
        println!("{name}: {sum}");
        assert!(sum > 0 || seeds.end - seeds.start < 1000, "no {name} in all these runs");
    }
}
