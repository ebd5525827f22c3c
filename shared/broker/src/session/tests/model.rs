//! Random interleavings of everything, against a plain model of what a client may expect.
//!
//! Two publishers and two subscribers with persistent sessions act at random, commits are made late and joined at random,
//! connections break, the node crashes. Checked all along: an acknowledged message is in the log; no window is exceeded; no packet
//! ID is used twice at a time. Checked at the end, after everything was drained: each subscriber has every message that it must
//! have, none that it must not have, QoS 2 once, QoS 0 at most once, QoS 1 once without a crash; in the order of the log; and the
//! books balance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::harness::*;
use crate::wire::ConnId;

pub(super) const TOPICS: [&str; 4] = ["log/a", "log/b", "log2/a", "log2/b/c"];
pub(super) const FILTERS: [&str; 5] = ["log/#", "log/a", "+/a", "#", "log2/+/c"];

#[derive(Debug, Clone)]
enum Action {
    Publish {
        by: usize,
        topic: usize,
        qos: u8,
    },
    Subscribe {
        by: usize,
        filter: usize,
        qos: u8,
    },
    Unsubscribe {
        by: usize,
        filter: usize,
    },
    /// The subscriber pays one of the acknowledgements that it owes.
    Ack {
        by: usize,
        which: usize,
    },
    Connect {
        who: usize,
    },
    Cut {
        who: usize,
    },
    Goodbye {
        who: usize,
    },
    Backlog {
        by: usize,
    },
    Unblock {
        by: usize,
    },
    Submit,
    Commit {
        count: usize,
    },
    Deliver,
    LookUp,
    Second,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let by = 0..2usize;
    prop_oneof![
        12 => (by.clone(), 0..TOPICS.len(), 0..3u8).prop_map(|(by, topic, qos)| Action::Publish { by, topic, qos }),
        3 => (by.clone(), 0..FILTERS.len(), 0..3u8).prop_map(|(by, filter, qos)| Action::Subscribe { by, filter, qos }),
        1 => (by.clone(), 0..FILTERS.len()).prop_map(|(by, filter)| Action::Unsubscribe { by, filter }),
        10 => (by.clone(), 0..8usize).prop_map(|(by, which)| Action::Ack { by, which }),
        3 => (0..4usize).prop_map(|who| Action::Connect { who }),
        1 => (0..4usize).prop_map(|who| Action::Cut { who }),
        1 => (0..4usize).prop_map(|who| Action::Goodbye { who }),
        1 => by.clone().prop_map(|by| Action::Backlog { by }),
        2 => by.prop_map(|by| Action::Unblock { by }),
        6 => Just(Action::Submit),
        6 => (1..4usize).prop_map(|count| Action::Commit { count }),
        6 => Just(Action::Deliver),
        5 => Just(Action::LookUp),
        1 => Just(Action::Second),
        1 => Just(Action::Crash),
    ]
}

/// A subscription as the client knows it, in steps of the run.
#[derive(Debug, Clone)]
pub(super) struct Interval {
    pub(super) filter: usize,
    pub(super) qos: u8,
    pub(super) asked: usize,
    pub(super) granted: Option<usize>,
    pub(super) left: Option<usize>,
    pub(super) gone: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Ack(u16),
    Rec(u16),
    Comp(u16),
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) name: &'static str,
    conn: Option<ConnId>,
    connected: bool,
    // subscriber
    pub(super) intervals: Vec<Interval>,
    waiting: BTreeMap<u16, Waiting>,
    owed: Vec<Owed>,
    /// QoS 1 and 2 messages not completely acknowledged on this connection.
    unacked: BTreeSet<u16>,
    /// QoS 2 packet IDs that it holds.
    held: BTreeSet<u16>,
    /// Every message taken: payload and QoS, in order.
    pub(super) taken: Vec<(String, u8)>,
    /// Received at QoS 1 without DUP.
    pub(super) fresh: BTreeMap<String, u32>,
    // publisher
    pub(super) qos2: BTreeMap<u16, (String, String, bool)>,
    pub(super) sent: BTreeMap<u16, String>,
}

#[derive(Debug, Clone)]
enum Waiting {
    Subscribed { new: usize, replaces: bool },
    Unsubscribed(Option<usize>),
}

const WINDOW: u16 = 3;

pub(super) struct Run {
    pub(super) world: World,
    pub(super) clients: Vec<Client>,
    step: usize,
    pub(super) crashed: bool,
    /// Step at which each payload was taken by the core, its topic and QoS.
    pub(super) accepted: BTreeMap<String, (usize, usize, u8)>,
    next_payload: u32,
}

impl Run {
    fn new(cloud_mode: bool) -> Self {
        let mut config = if cloud_mode { cloud() } else { edge() };
        config.limits.session_queue_records = 3;
        config.limits.read_bytes = 150;
        config.limits.reads_max = 2;
        let clients = ["sub0", "sub1", "pub0", "pub1"].map(|name| Client {
            name,
            ..Client::default()
        });
        Self {
            world: World::new(config),
            clients: clients.into(),
            step: 0,
            crashed: false,
            accepted: BTreeMap::new(),
            next_payload: 0,
        }
    }

    fn act(&mut self, action: &Action) {
        self.step += 1;
        match *action {
            Action::Publish { by, topic, qos } => self.publish(2 + by, topic, qos),
            Action::Subscribe { by, filter, qos } => self.subscribe(by, filter, qos),
            Action::Unsubscribe { by, filter } => self.unsubscribe(by, filter),
            Action::Ack { by, which } => self.pay(by, which),
            Action::Connect { who } => self.connect(who),
            Action::Cut { who } => self.lose(who, false),
            Action::Goodbye { who } => self.lose(who, true),
            Action::Backlog { by } => {
                if let Some(conn) = self.clients[by].conn {
                    self.world.backlog(conn);
                }
            }
            Action::Unblock { by } => {
                if let Some(conn) = self.clients[by].conn {
                    self.world.unblock(conn);
                }
            }
            Action::Submit => self.world.submit(),
            Action::Commit { count } => self.world.store.commit(count),
            Action::Deliver => self.world.deliver(),
            Action::LookUp => {
                self.world.look_up();
            }
            Action::Second => self.world.pass(Duration::from_secs(1)),
            Action::Crash => self.crash(),
        }
        self.listen();
    }

    fn connect(&mut self, who: usize) {
        self.disconnected(who);
        let mut connect = persistent(self.clients[who].name);
        connect.receive_maximum = WINDOW;
        let conn = self.world.connect_with(connect);
        self.clients[who].conn = Some(conn);
    }

    fn lose(&mut self, who: usize, goodbye: bool) {
        let Some(conn) = self.clients[who].conn else {
            return;
        };
        // What was sent before the end was received.
        self.listen();
        if goodbye && self.clients[who].connected {
            self.world.disconnect(conn);
        } else {
            self.world.cut(conn);
        }
        self.disconnected(who);
    }

    fn disconnected(&mut self, who: usize) {
        let client = &mut self.clients[who];
        client.conn = None;
        client.connected = false;
        client.owed.clear();
        client.unacked.clear();
        client.waiting.clear();
        client.sent.clear();
    }

    fn crash(&mut self) {
        self.crashed = true;
        self.world.crash();
        for who in 0..self.clients.len() {
            self.disconnected(who);
        }
    }

    fn publish(&mut self, by: usize, topic: usize, qos: u8) {
        let Some(conn) = self.clients[by].conn.filter(|_| self.clients[by].connected) else {
            return;
        };
        self.next_payload += 1;
        let payload = format!("m{}", self.next_payload);
        let packet_id = (self.next_payload % 60_000) as u16 + 1;
        let send = Send::new(TOPICS[topic], &payload, qos, packet_id);
        self.world.publish_with(conn, &send);
        self.accepted.insert(payload.clone(), (self.step, topic, qos));
        match qos {
            1 => {
                self.clients[by].sent.insert(packet_id, payload);
            }
            2 => {
                let entry = (payload, TOPICS[topic].to_owned(), false);
                self.clients[by].qos2.insert(packet_id, entry);
            }
            _ => {}
        }
    }

    fn subscribe(&mut self, by: usize, filter: usize, qos: u8) {
        let Some(conn) = self.clients[by].conn.filter(|_| self.clients[by].connected) else {
            return;
        };
        let packet_id = self.world.send_subscribe(conn, None, vec![sub(FILTERS[filter], qos)]);
        let (step, client) = (self.step, &mut self.clients[by]);
        // While one replaces the other, only the weaker of both is sure.
        let mut replaces = false;
        for old in client
            .intervals
            .iter_mut()
            .filter(|old| old.filter == filter && old.gone.is_none())
        {
            old.qos = old.qos.min(qos);
            replaces = true;
        }
        client.intervals.push(Interval {
            filter,
            qos,
            asked: step,
            granted: None,
            left: None,
            gone: None,
        });
        let new = client.intervals.len() - 1;
        client.waiting.insert(packet_id, Waiting::Subscribed { new, replaces });
    }

    fn unsubscribe(&mut self, by: usize, filter: usize) {
        let Some(conn) = self.clients[by].conn.filter(|_| self.clients[by].connected) else {
            return;
        };
        let packet_id = self.world.send_unsubscribe(conn, FILTERS[filter]);
        let (step, client) = (self.step, &mut self.clients[by]);
        let mut last = None;
        for (index, interval) in client.intervals.iter_mut().enumerate() {
            if interval.filter == filter && interval.gone.is_none() {
                interval.left.get_or_insert(step);
                last = Some(index);
            }
        }
        client.waiting.insert(packet_id, Waiting::Unsubscribed(last));
    }

    fn pay(&mut self, by: usize, which: usize) {
        let client = &mut self.clients[by];
        let (Some(conn), false) = (client.conn, client.owed.is_empty()) else {
            return;
        };
        let owed = client.owed.remove(which % client.owed.len());
        match owed {
            Owed::Ack(id) => {
                client.unacked.remove(&id);
                self.world.puback(conn, id);
            }
            Owed::Rec(id) => self.world.pubrec(conn, id),
            Owed::Comp(id) => {
                client.held.remove(&id);
                client.unacked.remove(&id);
                self.world.pubcomp(conn, id);
            }
        }
    }

    /// Takes in all that was sent. True when there was anything.
    fn listen(&mut self) -> bool {
        let sent = std::mem::take(&mut self.world.tape.sent);
        let any = !sent.is_empty();
        for (conn, out) in sent {
            if let Some(who) = self.clients.iter().position(|client| client.conn == Some(conn)) {
                self.hear(who, conn, out);
            }
        }
        any
    }

    fn hear(&mut self, who: usize, conn: ConnId, out: Out) {
        let step = self.step;
        match out {
            Out::ConnAck {
                session_present,
                reason,
            } => {
                assert_eq!(reason, 0);
                self.clients[who].connected = true;
                self.resend_qos2(who, conn, session_present);
            }
            Out::Publish(got) => self.receive(who, got),
            Out::PubRel(id, _) => {
                let client = &mut self.clients[who];
                if !client.owed.contains(&Owed::Comp(id)) {
                    client.owed.push(Owed::Comp(id));
                }
            }
            Out::PubAck(id, reason) => {
                assert_eq!(reason, 0);
                if let Some(payload) = self.clients[who].sent.remove(&id) {
                    self.assert_logged(&payload);
                }
            }
            Out::PubRec(id, reason) => {
                assert_eq!(reason, 0);
                if let Some((payload, _, received)) = self.clients[who].qos2.get_mut(&id) {
                    *received = true;
                    let payload = payload.clone();
                    self.assert_logged(&payload);
                }
                self.world.pubrel(conn, id);
            }
            Out::PubComp(id, _) => {
                self.clients[who].qos2.remove(&id);
            }
            Out::SubAck(id, _) => {
                let Some(Waiting::Subscribed { new, replaces }) = self.clients[who].waiting.remove(&id) else {
                    panic!("SUBACK without SUBSCRIBE");
                };
                let intervals = &mut self.clients[who].intervals;
                intervals[new].granted = Some(step);
                if replaces {
                    let filter = intervals[new].filter;
                    for interval in intervals[..new].iter_mut().filter(|interval| interval.filter == filter) {
                        interval.left.get_or_insert(step);
                        interval.gone.get_or_insert(step);
                    }
                }
            }
            Out::UnsubAck(id, _) => {
                if let Some(Waiting::Unsubscribed(Some(last))) = self.clients[who].waiting.remove(&id) {
                    let intervals = &mut self.clients[who].intervals;
                    let filter = intervals[last].filter;
                    for interval in intervals[..=last]
                        .iter_mut()
                        .filter(|interval| interval.filter == filter)
                    {
                        interval.gone.get_or_insert(step);
                    }
                }
            }
            Out::Closed(reason) => assert_eq!(reason, 0x8e, "only a takeover closes here"),
        }
    }

    fn resend_qos2(&mut self, who: usize, conn: ConnId, session_present: bool) {
        if !session_present {
            self.clients[who].qos2.clear();
        }
        for (packet_id, (payload, topic, received)) in self.clients[who].qos2.clone() {
            if received {
                self.world.pubrel(conn, packet_id);
            } else {
                let send = Send {
                    dup: true,
                    ..Send::new(&topic, &payload, 2, packet_id)
                };
                // It may not have been stored by the first attempt; then it is accepted now.
                let is_stored = self.position(&payload).is_some();
                self.world.publish_with(conn, &send);
                if !is_stored && self.crashed {
                    let step = self.step;
                    if let Some(accepted) = self.accepted.get_mut(&payload) {
                        accepted.0 = step;
                    }
                }
            }
        }
    }

    fn receive(&mut self, who: usize, got: Got) {
        let client = &mut self.clients[who];
        let Some(id) = got.packet_id else {
            client.taken.push((got.payload, 0));
            return;
        };
        assert!(client.unacked.insert(id), "packet ID {id} is still in use");
        assert!(client.unacked.len() <= usize::from(WINDOW), "Receive Maximum exceeded");
        if got.qos == 1 {
            if !got.dup {
                *client.fresh.entry(got.payload.clone()).or_default() += 1;
            }
            client.taken.push((got.payload, 1));
            client.owed.push(Owed::Ack(id));
        } else {
            if client.held.insert(id) {
                client.taken.push((got.payload, 2));
            }
            client.owed.push(Owed::Rec(id));
        }
    }

    /// Where the log holds a payload, as (block, record).
    pub(super) fn position(&self, payload: &str) -> Option<(usize, usize)> {
        self.world.store.log.iter().enumerate().find_map(|(index, block)| {
            let mut records = block.tracks.iter().flat_map(|track| {
                track
                    .block
                    .iter()
                    .map(|record| record.payload.to_vec())
                    .collect::<Vec<_>>()
            });
            Some((index, records.position(|bytes| bytes == payload.as_bytes())?))
        })
    }

    fn assert_logged(&self, payload: &str) {
        assert!(
            self.position(payload).is_some(),
            "{payload} was acknowledged and is not in the log"
        );
    }

    /// Everybody comes back and takes what is there.
    fn drain(&mut self) {
        self.step += 1;
        for who in 0..4 {
            if self.clients[who].conn.is_none() {
                self.connect(who);
            }
            if let Some(conn) = self.clients[who].conn {
                self.world.unblock(conn);
            }
        }
        for _ in 0..2000 {
            self.world.settle();
            let mut idle = !self.listen();
            for by in 0..2 {
                idle &= self.clients[by].owed.is_empty();
                self.pay(by, 0);
            }
            idle &= !self.listen();
            if idle {
                return;
            }
        }
        panic!("deliveries never end");
    }
}

/// Two members of one group, QoS as given; everything else as in [`run`].
fn run_group(cloud_mode: bool, qos: [u8; 2], actions: &[Action]) {
    let mut run = Run::new(cloud_mode);
    for who in 0..4 {
        run.connect(who);
    }
    run.world.settle();
    run.listen();
    for (by, qos) in qos.into_iter().enumerate() {
        let conn = run.clients[by].conn.unwrap();
        assert_eq!(run.world.subscribe(conn, "$share/g/#", qos), [qos]);
    }
    for action in actions {
        if !matches!(action, Action::Subscribe { .. } | Action::Unsubscribe { .. }) {
            run.act(action);
        }
    }
    run.drain();
    run.check_group();
}

fn run(cloud_mode: bool, actions: &[Action]) {
    let mut run = Run::new(cloud_mode);
    // Most runs should begin with something to lose.
    for who in 0..4 {
        run.connect(who);
    }
    run.world.settle();
    run.listen();
    for action in actions {
        run.act(action);
    }
    run.drain();
    run.check();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn persistent_subscribers_get_everything_once_and_in_order(
        cloud_mode in any::<bool>(),
        actions in proptest::collection::vec(action(), 1..160),
    ) {
        run(cloud_mode, &actions);
    }

    #[test]
    fn a_group_gets_everything_and_qos2_once(
        cloud_mode in any::<bool>(),
        qos in [1..3u8, 1..3u8],
        actions in proptest::collection::vec(action(), 1..160),
    ) {
        run_group(cloud_mode, qos, &actions);
    }
}
