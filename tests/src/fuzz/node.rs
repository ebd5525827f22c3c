//! A node around the session core, as small as it can be: a map for the store, a list for the log, a clock that is turned by hand.
//!
//! Every commit is durable at once. The log before the restored state is gone. Used by the body and by what writes its corpus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fellbeck_broker::session::{Core, CoreConfig, CoreLimits, Mode, Now, Pressure, RestoreError, Route, SessionStatus};
use fellbeck_broker::wire::{
    Close, ConnId, Connect, PacketOut, PublishIn, Subscribe, SubscribeIn, Version, Will, Wire,
};
use fellbeck_core::{ClockQuality, CommitNumber, Epoch, LogPosition, QoS, Seq, Tick, TrackId, WallTime};
use fellbeck_store::commit::{Commit, Committed, Space, Stored, Ticket};
use fellbeck_store::committed::{CommittedBlock, LogRead, TrackBlock};

/// Newest commit of the store whose values are restored.
pub const NEWEST: CommitNumber = CommitNumber(1000);

/// Turns until a node that is left alone has to be quiet.
const TURNS_MAX: usize = 2000;
/// The time that passes between two turns of a node that has nothing else to do.
const STEP: Duration = Duration::from_millis(600);

struct Everything;

impl Route for Everything {
    fn route(&self, _topic: &str, _device: &str) -> Option<TrackId> {
        Some(TrackId(1))
    }
}

/// Counts nothing and loses everything but the CONNACKs.
#[derive(Default)]
struct Sink {
    present: Vec<bool>,
}

impl Wire for Sink {
    fn send(&mut self, _to: ConnId, packet: PacketOut<'_>) -> bool {
        if let PacketOut::ConnAck {
            session_present,
            reason,
        } = packet
        {
            assert_eq!(reason, 0, "a client with stored state is let in");
            self.present.push(session_present);
        }
        true
    }

    fn is_backlogged(&self, _to: ConnId) -> bool {
        false
    }

    fn close(&mut self, _to: ConnId, _why: Close) {}
}

/// A core with its store.
pub struct Node {
    core: Core,
    wire: Sink,
    values: BTreeMap<Bytes, (Bytes, CommitNumber)>,
    log: Vec<Arc<CommittedBlock>>,
    newest: CommitNumber,
    tickets: u64,
    connections: u64,
    packets: u16,
    now: Now,
}

impl Node {
    /// A node that starts with what its store holds.
    pub fn restored(values: Vec<Stored>, newest: CommitNumber) -> Result<Self, RestoreError> {
        let config = CoreConfig {
            mode: Mode::CommittedOnly,
            local_track: None,
            limits: CoreLimits::default(),
        };
        let now = Now {
            tick: Tick(Duration::from_secs(10)),
            wall: WallTime(1_700_000_000_000),
            clock: ClockQuality::Unknown,
            runs_since: WallTime(0),
        };
        let mut core = Core::new(config, Box::new(Everything), "fuzzed");
        let map = values.iter().cloned();
        let map = map.map(|stored| (stored.key, (stored.value, stored.commit))).collect();
        core.restore(values, newest, now)?;
        Ok(Self {
            core,
            wire: Sink::default(),
            values: map,
            log: Vec::new(),
            newest,
            tickets: 0,
            connections: 0,
            packets: 0,
            now,
        })
    }

    /// What the store holds of sessions.
    #[must_use]
    pub fn stored(&self) -> Vec<Stored> {
        let stored = |(key, (value, commit)): (&Bytes, &(Bytes, CommitNumber))| Stored {
            key: key.clone(),
            value: value.clone(),
            commit: *commit,
        };
        self.values.iter().map(stored).collect()
    }

    /// The newest commit.
    #[must_use]
    pub fn newest(&self) -> CommitNumber {
        self.newest
    }

    /// What the core says of a client.
    #[must_use]
    pub fn status(&self, client: &str) -> Option<SessionStatus> {
        self.core.session_status(client)
    }

    /// Sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.core.session_count()
    }

    /// Connects a client, with a will and for an hour or, with a clean start, until it leaves. Says whether it had a session.
    pub fn connect(&mut self, client: &str, clean_start: bool) -> bool {
        let had = self.status(client).is_some();
        self.connections += 1;
        let connect = Connect {
            version: Version::V5,
            client_id: client.to_owned(),
            clean_start,
            session_expiry_secs: if clean_start { 0 } else { 3600 },
            receive_maximum: 16,
            packet_max: None,
            will: (!clean_start).then(|| Will {
                topic: "will".to_owned(),
                payload: b"gone".to_vec(),
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: Vec::new(),
                expiry_secs: Some(60),
                delay_secs: 3600,
            }),
        };
        self.wire.present.clear();
        self.core
            .handle_connect(ConnId(self.connections), connect, self.now, &mut self.wire);
        self.run();
        let expected = had && !clean_start;
        assert_eq!(
            self.wire.present,
            [expected],
            "CONNACK says whether the session is present"
        );
        had
    }

    /// Subscribes on the connection made last.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.packets += 1;
        let subscribe = Subscribe {
            packet_id: self.packets,
            subscription_id: Some(u32::from(self.packets)),
            filters: vec![SubscribeIn {
                filter: filter.to_owned(),
                qos,
                no_local: false,
                retain_as_published: true,
                retain_handling: 0,
            }],
        };
        let conn = ConnId(self.connections);
        self.core.handle_subscribe(conn, subscribe, self.now, &mut self.wire);
        self.run();
    }

    /// Publishes on the connection made last.
    pub fn publish(&mut self, topic: &str, qos: QoS) {
        self.packets += 1;
        let publish = PublishIn {
            topic,
            payload: b"21.5",
            qos,
            retain: false,
            dup: false,
            packet_id: (qos != QoS::AtMostOnce).then_some(self.packets),
            properties: &[],
            expiry_secs: None,
        };
        let conn = ConnId(self.connections);
        self.core
            .handle_publish(conn, publish, Pressure::Normal, self.now, &mut self.wire);
        self.run();
    }

    /// Every socket is gone.
    pub fn close_all(&mut self) {
        for conn in 1..=self.connections {
            self.core.handle_closed(ConnId(conn), self.now, &mut self.wire);
        }
    }

    /// Turns until nothing happens any more in the time of a few flushes. Panics where that never comes.
    pub fn run(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            quiet = if self.turn() { 0 } else { quiet + 1 };
            if quiet > 6 {
                return;
            }
            self.now.tick = self.now.tick.after(STEP);
            if self.core.poll_timeout().is_some_and(|at| at <= self.now.tick) {
                self.core.handle_tick(self.now, &mut self.wire);
            }
        }
        panic!("the core does not come to rest");
    }

    /// One turn of the broker thread. False when there was nothing to do.
    fn turn(&mut self) -> bool {
        let mut is_busy = false;
        self.core.handle_tail_empty();
        while let Some(commit) = self.core.take_commit() {
            is_busy = true;
            self.write(commit);
        }
        while let Some(read) = self.core.poll_read(self.now) {
            is_busy = true;
            let log = self.log.iter().filter(|block| block.commit >= read.from.commit);
            let gone = NEWEST.0.saturating_sub(read.from.commit.0);
            let answer = LogRead {
                blocks: log.map(|block| (**block).clone()).collect(),
                next: LogPosition::after(self.newest).max(read.from),
                skipped: gone,
                at_end: true,
            };
            self.core
                .handle_read(read.reader, Some(answer), self.now, &mut self.wire);
        }
        while let Some(scan) = self.core.poll_scan(self.now) {
            is_busy = true;
            self.core
                .handle_scan(scan.id, Some(Vec::new()), self.now, &mut self.wire);
        }
        is_busy
    }

    fn write(&mut self, commit: Commit) {
        self.newest = self.newest.next();
        self.tickets += 1;
        self.core.handle_submitted(Ticket(self.tickets));
        for put in commit.puts.into_iter().filter(|put| put.space == Space::Session) {
            self.values.insert(put.key, (put.value, self.newest));
        }
        for delete in commit.deletes.iter().filter(|delete| delete.space == Space::Session) {
            self.values.remove(&delete.key);
        }
        let mut tracks: Vec<TrackBlock> = Vec::new();
        for append in commit.appends {
            let first_index = tracks
                .last()
                .map_or(0, |last| last.first_index + last.block.len() as u32);
            tracks.push(TrackBlock {
                track: append.track,
                epoch: Epoch(1),
                first: Seq(self.newest.0 * 1000 + u64::from(first_index)),
                first_index,
                block: append.block,
            });
        }
        let committed = Committed {
            ticket: Ticket(self.tickets),
            commit: self.newest,
        };
        self.core.handle_committed(committed, self.now, &mut self.wire);
        if !tracks.is_empty() {
            let block = Arc::new(CommittedBlock {
                commit: self.newest,
                tracks,
            });
            self.log.push(Arc::clone(&block));
            self.core.handle_tail(&block, self.now, &mut self.wire);
        }
    }
}
