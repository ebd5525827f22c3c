//! A node of the world: the real session core over the store in memory, with the loop that the front runs around the core.
//!
//! In: packets of devices, what the store says. Out: packets in the pipes to the devices. Each call is one that the front makes; the
//! world chooses which comes next. Which order the core demands is in [`fellbeck_broker::session::Core`].

use std::collections::VecDeque;

use fellbeck_broker::session::{Core, CoreConfig, Now, Outcome, Pressure, ReadRequest, Route, ScanRequest};
use fellbeck_broker::wire::{Close, ConnId, Connect, PacketOut, PublishIn, Subscribe, SubscribeIn, Version, Wire};
use fellbeck_core::{ClockQuality, CommitNumber, QoS, Tick, WallTime};
use fellbeck_store::{Space, TailRead};

use super::message::{Message, Publish, ToDevice};
use super::plan::Planted;
use super::store::{MemStore, Seat};

/// Packets in a pipe above which the core sends no PUBLISH.
const PIPE_MAX: usize = 6;
/// Submissions of the broker that may be unanswered.
const OUTSTANDING_MAX: usize = 3;
/// Topics of the world. The first is an alarm.
pub(crate) const TOPICS: [&str; 3] = ["alarm/a", "data/b", "data/c/d"];
/// Start of the world on every wall clock.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// The device at the other end of a connection.
pub(crate) fn device_of(conn: ConnId) -> usize {
    (conn.0 & 0xFF) as usize
}

/// What a node sends to one device.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    pub(crate) conn: Option<ConnId>,
    pub(crate) packets: VecDeque<ToDevice>,
    /// The core was told that the pipe is full.
    was_full: bool,
}

/// The pipes of one node, by device.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) pipes: Vec<Pipe>,
    /// Everything that was sent since the world looked.
    pub(crate) sent: Vec<(ConnId, ToDevice)>,
    pub(crate) closed: Vec<ConnId>,
}

impl Pipes {
    fn pipe(&mut self, to: ConnId) -> Option<&mut Pipe> {
        let pipe = &mut self.pipes[device_of(to)];
        (pipe.conn == Some(to)).then_some(pipe)
    }
}

impl Wire for Pipes {
    fn send(&mut self, to: ConnId, packet: PacketOut<'_>) -> bool {
        let packet = match packet {
            PacketOut::ConnAck {
                session_present,
                reason,
            } => ToDevice::ConnAck {
                present: session_present,
                reason,
            },
            PacketOut::Publish(delivery) => ToDevice::Publish {
                message: Message::of(delivery.record.payload),
                qos: delivery.qos,
                packet_id: delivery.packet_id.unwrap_or(0),
                dup: delivery.dup,
            },
            PacketOut::PubAck { packet_id, reason } => ToDevice::PubAck(packet_id, reason),
            PacketOut::PubRec { packet_id, reason } => ToDevice::PubRec(packet_id, reason),
            PacketOut::PubRel { packet_id, .. } => ToDevice::PubRel(packet_id),
            PacketOut::PubComp { packet_id, .. } => ToDevice::PubComp(packet_id),
            PacketOut::SubAck { reasons, .. } => ToDevice::SubAck(reasons[0]),
            PacketOut::UnsubAck { .. } => return true,
        };
        self.sent.push((to, packet));
        if let Some(pipe) = self.pipe(to) {
            pipe.packets.push_back(packet);
        }
        true
    }

    fn is_backlogged(&self, to: ConnId) -> bool {
        let pipe = &self.pipes[device_of(to)];
        pipe.conn == Some(to) && pipe.packets.len() >= PIPE_MAX
    }

    fn close(&mut self, to: ConnId, why: Close) {
        if let Some(pipe) = self.pipe(to) {
            pipe.packets.push_back(ToDevice::Close(why.reason));
        }
        self.closed.push(to);
    }
}

/// See the module.
pub(crate) struct Node {
    pub(crate) core: Core,
    pub(crate) store: MemStore,
    pub(crate) pipes: Pipes,
    pub(crate) pressure: Pressure,
    /// What the wall clock is ahead of the true time.
    pub(crate) clock_ahead_ms: i64,
    pub(crate) clock: ClockQuality,
    pub(crate) is_up: bool,
    seat: Seat,
    tail_next: CommitNumber,
    held: Vec<(ConnId, Publish)>,
    reads: Vec<ReadRequest>,
    scans: Vec<ScanRequest>,
    planted: Option<Planted>,
    make: Box<dyn Fn() -> (CoreConfig, Box<dyn Route>)>,
}

/// Everything that a core is told of a CONNECT.
pub(crate) fn connect(name: &str, version: Version, clean: bool, receive_maximum: u16) -> Connect {
    Connect {
        version,
        client_id: name.to_owned(),
        clean_start: clean,
        session_expiry_secs: if clean { 0 } else { u32::MAX },
        receive_maximum,
        packet_max: None,
        will: None,
    }
}

impl Node {
    pub(crate) fn new(
        store: MemStore,
        devices: usize,
        planted: Option<Planted>,
        make: Box<dyn Fn() -> (CoreConfig, Box<dyn Route>)>,
    ) -> Self {
        let (config, route) = make();
        let mut node = Self {
            core: Core::new(config, route, "node"),
            store,
            pipes: Pipes {
                pipes: (0..devices).map(|_| Pipe::default()).collect(),
                sent: Vec::new(),
                closed: Vec::new(),
            },
            pressure: Pressure::Normal,
            clock_ahead_ms: 0,
            clock: ClockQuality::Synced,
            is_up: false,
            seat: Seat::default(),
            tail_next: CommitNumber(1),
            held: Vec::new(),
            reads: Vec::new(),
            scans: Vec::new(),
            planted,
            make,
        };
        node.start(0);
        node
    }

    /// A process starts on what the store holds.
    pub(crate) fn start(&mut self, now_ms: u64) {
        let (config, route) = (self.make)();
        self.core = Core::new(config, route, "node");
        self.seat = self.store.seat(OUTSTANDING_MAX);
        let newest = self.store.newest();
        let values = self.store.values_of(Space::Session);
        let restored = self.core.restore(values, newest, self.now(now_ms));
        restored.expect("what the core has written it can read");
        self.tail_next = newest.next();
        self.is_up = true;
    }

    /// The process is gone, and every socket with it.
    pub(crate) fn stop(&mut self) {
        self.is_up = false;
        self.held.clear();
        self.reads.clear();
        self.scans.clear();
        self.pipes.sent.clear();
        self.pipes.closed.clear();
        for pipe in &mut self.pipes.pipes {
            *pipe = Pipe::default();
        }
    }

    pub(crate) fn wall(&self, now_ms: u64) -> WallTime {
        let wall = WALL_START_MS.saturating_add(now_ms);
        WallTime(wall.saturating_add_signed(self.clock_ahead_ms))
    }

    pub(crate) fn now(&self, now_ms: u64) -> Now {
        Now {
            tick: Tick(std::time::Duration::from_millis(now_ms)),
            wall: self.wall(now_ms),
            clock: self.clock,
            runs_since: WallTime(0),
        }
    }

    // ---- sockets

    pub(crate) fn connect(&mut self, conn: ConnId, connect: Connect, now_ms: u64) {
        let now = self.now(now_ms);
        self.pipes.pipes[device_of(conn)] = Pipe {
            conn: Some(conn),
            ..Pipe::default()
        };
        self.core.handle_connect(conn, connect, now, &mut self.pipes);
    }

    /// The socket is gone.
    pub(crate) fn gone(&mut self, conn: ConnId, now_ms: u64) {
        let now = self.now(now_ms);
        self.forget(conn);
        self.core.handle_closed(conn, now, &mut self.pipes);
    }

    /// Nothing is sent to this connection and nothing of it is held any more.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.held.retain(|(of, _)| *of != conn);
        let pipe = &mut self.pipes.pipes[device_of(conn)];
        if pipe.conn == Some(conn) {
            *pipe = Pipe::default();
        }
    }

    /// Whether the front reads the next packet of this connection.
    pub(crate) fn may_read(&self, conn: ConnId) -> bool {
        self.is_up && !self.core.wants_pause() && self.held.iter().all(|(of, _)| *of != conn)
    }

    /// True when the core took it, or answered it.
    pub(crate) fn publish(&mut self, conn: ConnId, publish: Publish, now_ms: u64) -> bool {
        let taken = self.offer(conn, publish, now_ms) == Outcome::Done;
        if !taken {
            self.held.push((conn, publish));
        }
        taken
    }

    fn offer(&mut self, conn: ConnId, publish: Publish, now_ms: u64) -> Outcome {
        let now = self.now(now_ms);
        let payload = publish.message.payload();
        let publish = PublishIn {
            topic: TOPICS[publish.topic],
            payload: &payload,
            qos: publish.qos,
            retain: false,
            dup: publish.dup,
            packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.packet_id),
            properties: &[],
            expiry_secs: publish.expiry_secs,
        };
        self.core
            .handle_publish(conn, publish, self.pressure, now, &mut self.pipes)
    }

    /// Offers what is held again. Returns what was taken.
    pub(crate) fn retry_held(&mut self, now_ms: u64) -> Vec<(ConnId, Publish)> {
        let mut taken = Vec::new();
        for (conn, publish) in std::mem::take(&mut self.held) {
            if self.offer(conn, publish, now_ms) == Outcome::Hold {
                self.held.push((conn, publish));
            } else {
                taken.push((conn, publish));
            }
        }
        taken
    }

    pub(crate) fn subscribe(&mut self, conn: ConnId, filter: &str, qos: QoS, now_ms: u64) {
        let now = self.now(now_ms);
        let subscribe = Subscribe {
            packet_id: 1,
            subscription_id: None,
            filters: vec![SubscribeIn {
                filter: filter.to_owned(),
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: 0,
            }],
        };
        self.core.handle_subscribe(conn, subscribe, now, &mut self.pipes);
    }

    /// Takes a packet out of the pipe to a device.
    pub(crate) fn take_packet(&mut self, conn: ConnId, now_ms: u64) -> Option<ToDevice> {
        let pipe = self.pipes.pipe(conn)?;
        pipe.was_full |= pipe.packets.len() >= PIPE_MAX;
        let packet = pipe.packets.pop_front()?;
        if std::mem::take(&mut pipe.was_full) {
            let now = self.now(now_ms);
            self.core.handle_writable(conn, now, &mut self.pipes);
        }
        Some(packet)
    }

    // ---- the broker's tasks

    /// Hands what a turn gathered to the store, and takes note of what the core wants to read.
    pub(crate) fn turn(&mut self, now_ms: u64) {
        while let Some(commit) = self.core.take_commit() {
            match self.store.submit(self.seat, commit, now_ms) {
                Ok(ticket) => self.core.handle_submitted(ticket),
                Err(commit) => {
                    self.core.untake_commit(commit);
                    break;
                }
            }
        }
        let now = self.now(now_ms);
        self.reads.extend(std::iter::from_fn(|| self.core.poll_read(now)));
        self.scans.extend(std::iter::from_fn(|| self.core.poll_scan(now)));
    }

    /// Brings the store's answers and blocks to the core. True when there was something.
    pub(crate) fn follow_store(&mut self, blocks_max: usize, now_ms: u64) -> bool {
        let now = self.now(now_ms);
        let tail = self.store.read_tail(self.tail_next, blocks_max);
        let mut was_busy = false;
        if matches!(tail, TailRead::Empty) {
            self.core.handle_tail_empty();
        }
        while let Some(committed) = self.store.take_answer(self.seat) {
            was_busy = true;
            self.core.handle_committed(committed, now, &mut self.pipes);
        }
        match tail {
            TailRead::Empty => {}
            TailRead::Behind => {
                was_busy = true;
                self.tail_next = self.store.newest().next();
                self.core.handle_tail_behind(self.tail_next);
            }
            TailRead::Blocks(blocks) => {
                was_busy = true;
                for block in &blocks {
                    self.core.handle_tail(block, now, &mut self.pipes);
                    self.tail_next = block.commit.next();
                }
            }
        }
        was_busy
    }

    pub(crate) fn tick(&mut self, now_ms: u64) {
        let now = self.now(now_ms);
        if self.core.poll_timeout().is_some_and(|due| due <= now.tick) {
            self.core.handle_tick(now, &mut self.pipes);
        }
    }

    /// Answers one read or scan: the `which`th. True when there was one.
    pub(crate) fn answer_read(&mut self, which: u64, fails: bool, now_ms: u64) -> bool {
        let now = self.now(now_ms);
        let waiting = (self.reads.len() + self.scans.len()) as u64;
        let Some(which) = which.checked_rem(waiting).map(|which| which as usize) else {
            return false;
        };
        if which < self.reads.len() {
            let request = self.reads.swap_remove(which);
            let mut read = self.store.read_log(request.from, request.bytes_max);
            if self.planted == Some(Planted::ReaderAhead) && read.blocks.len() > 2 {
                read.blocks.pop();
            }
            let read = (!fails).then_some(read);
            self.core.handle_read(request.reader, read, now, &mut self.pipes);
        } else {
            let request = self.scans.swap_remove(which - self.reads.len());
            let page = self
                .store
                .scan(&request.prefix, request.after.as_deref(), request.bytes_max);
            let page = (!fails).then_some(page);
            self.core.handle_scan(request.id, page, now, &mut self.pipes);
        }
        true
    }

    /// Nothing is on its way between core and store.
    pub(crate) fn is_idle(&self) -> bool {
        self.reads.is_empty()
            && self.scans.is_empty()
            && self.held.is_empty()
            && self.store.is_idle(self.seat)
            && matches!(self.store.read_tail(self.tail_next, 1), TailRead::Empty)
    }
}
