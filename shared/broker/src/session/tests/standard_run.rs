//! The session core against the plain broker of [`standard`](super::standard), act by act.
//!
//! Three clients of both versions connect, take over, leave in every way, subscribe with all options, publish at every QoS, retained
//! and with expiry, have wills with delays, pay their acknowledgements late and in any order, while time passes and the node crashes.
//! After each act all comes to rest, and every client must have been sent exactly what the plain broker says.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::harness::*;
use super::standard::{Due, End, Message, Standard, Sub, Unacked, Will};
use crate::wire::{ConnId, SubscribeIn};

const CLIENTS: usize = 3;
const NAMES: [&str; CLIENTS] = ["a", "b", "c"];
const TOPICS: [&str; 4] = ["log/a", "log/b", "log2/a", "log/a/c"];
const FILTERS: [&str; 6] = ["log/#", "log/a", "+/a", "#", "log/+/c", "log2/a"];

#[derive(Debug, Clone)]
enum Act {
    Connect {
        who: usize,
        clean: bool,
        expiry_secs: u32,
        old: bool,
        will: Option<(usize, u32, bool, Option<u32>)>,
    },
    Leave {
        who: usize,
        how: u8,
        expiry_secs: Option<u32>,
    },
    Subscribe {
        who: usize,
        filter: usize,
        qos: u8,
        flags: u8,
        retain_handling: u8,
        id: Option<u32>,
    },
    Unsubscribe {
        who: usize,
        filter: usize,
    },
    Publish {
        who: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        empty: bool,
        expiry_secs: Option<u32>,
        finish: bool,
    },
    /// Sends an unfinished QoS 2 message again, or finishes it.
    Inbound {
        who: usize,
        which: usize,
        again: bool,
    },
    Ack {
        who: usize,
        which: usize,
        all: bool,
    },
    Pass {
        secs: u64,
    },
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..CLIENTS;
    let secs = prop_oneof![Just(0u32), 1..40u32, Just(500u32)];
    let will = proptest::option::of((
        0..TOPICS.len(),
        prop_oneof![Just(0u32), 1..60u32],
        any::<bool>(),
        proptest::option::of(1..60u32),
    ));
    prop_oneof![
        4 => (who.clone(), proptest::bool::weighted(0.25), secs.clone(), proptest::bool::weighted(0.25), will)
            .prop_map(|(who, clean, expiry_secs, old, will)| Act::Connect { who, clean, expiry_secs, old, will }),
        2 => (who.clone(), 0..3u8, proptest::option::of(secs))
            .prop_map(|(who, how, expiry_secs)| Act::Leave { who, how, expiry_secs }),
        5 => (who.clone(), 0..FILTERS.len(), 0..3u8, 0..4u8, 0..3u8, proptest::option::of(1..4u32))
            .prop_map(|(who, filter, qos, flags, retain_handling, id)| Act::Subscribe { who, filter, qos, flags, retain_handling, id }),
        1 => (who.clone(), 0..FILTERS.len()).prop_map(|(who, filter)| Act::Unsubscribe { who, filter }),
        10 => (who.clone(), 0..TOPICS.len(), 0..3u8, proptest::bool::weighted(0.4), proptest::bool::weighted(0.2),
            proptest::option::weighted(0.4, 0..50u32), any::<bool>())
            .prop_map(|(who, topic, qos, retain, empty, expiry_secs, finish)| {
                Act::Publish { who, topic, qos, retain, empty: empty && retain, expiry_secs, finish }
            }),
        2 => (who.clone(), 0..4usize, any::<bool>()).prop_map(|(who, which, again)| Act::Inbound { who, which, again }),
        5 => (who, 0..6usize, any::<bool>()).prop_map(|(who, which, all)| Act::Ack { who, which, all }),
        3 => (1..30u64).prop_map(|secs| Act::Pass { secs }),
        1 => Just(Act::Restart),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Ack(u16),
    Rec(u16),
    Comp(u16),
}

#[derive(Debug, Default)]
struct Client {
    conn: Option<ConnId>,
    old: bool,
    owed: Vec<Owed>,
}

struct Run {
    world: World,
    standard: Standard,
    clients: Vec<Client>,
    payloads: u32,
    /// Several things happened at the same moment: their order is not given.
    in_any_order: bool,
}

impl Run {
    fn new(cloud_mode: bool) -> Self {
        Self {
            world: World::new(if cloud_mode { cloud() } else { edge() }),
            standard: Standard::default(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            payloads: 0,
            in_any_order: false,
        }
    }

    fn connected(&self, who: usize) -> Option<ConnId> {
        self.clients[who].conn
    }

    fn act(&mut self, act: &Act) {
        self.in_any_order = false;
        match *act {
            Act::Connect {
                who,
                clean,
                expiry_secs,
                old,
                will,
            } => self.connect(who, clean, (expiry_secs, old), will),
            Act::Leave { who, how, expiry_secs } => self.leave(who, how, expiry_secs),
            Act::Subscribe {
                who,
                filter,
                qos,
                flags,
                retain_handling,
                id,
            } => {
                let sub = Sub {
                    filter: FILTERS[filter],
                    qos,
                    no_local: flags & 1 != 0,
                    retain_as_published: flags & 2 != 0,
                    retain_handling,
                    id,
                };
                self.subscribe(who, sub);
            }
            Act::Unsubscribe { who, filter } => {
                if let Some(conn) = self.connected(who) {
                    let expected = if self.standard.unsubscribe(who, FILTERS[filter]) {
                        0
                    } else {
                        0x11
                    };
                    assert_eq!(self.world.unsubscribe(conn, FILTERS[filter]), [expected]);
                }
            }
            Act::Publish {
                who,
                topic,
                qos,
                retain,
                empty,
                expiry_secs,
                finish,
            } => {
                self.publish((who, topic, qos), (retain, empty, finish), expiry_secs);
            }
            Act::Inbound { who, which, again } => self.go_on(who, which, again),
            Act::Ack { who, which, all } => {
                let count = if all { self.clients[who].owed.len() } else { 1 };
                for _ in 0..count {
                    self.pay(who, which);
                }
            }
            Act::Pass { secs } => self.pass(secs),
            Act::Restart => self.restart(),
        }
        self.world.settle();
        for who in 0..CLIENTS {
            self.check(who);
        }
    }

    fn connect(
        &mut self,
        who: usize,
        clean: bool,
        (expiry, old): (u32, bool),
        will: Option<(usize, u32, bool, Option<u32>)>,
    ) {
        // 3.1.1 has no interval and no delay: clean sessions end with the connection, others do not end.
        let expiry_secs = match (old, clean) {
            (false, _) => expiry,
            (true, true) => 0,
            (true, false) => 30 * 24 * 3600,
        };
        self.payloads += 1;
        let will = will.map(|(topic, delay_secs, retain, expiry_secs)| Will {
            payload: format!("will {}", self.payloads),
            topic: TOPICS[topic],
            delay_secs: if old { 0 } else { delay_secs },
            retain,
            expiry_secs: expiry_secs.filter(|_| !old),
        });
        let mut connect = connect(NAMES[who]);
        (connect.clean_start, connect.session_expiry_secs) = (clean, expiry_secs);
        connect.will = will.as_ref().map(|will| crate::wire::Will {
            topic: will.topic.to_owned(),
            payload: will.payload.clone().into_bytes(),
            qos: fellbeck_core::QoS::AtLeastOnce,
            retain: will.retain,
            properties: Vec::new(),
            expiry_secs: will.expiry_secs,
            delay_secs: will.delay_secs,
        });
        let connect = if old { old_version(connect) } else { connect };
        let former = self.clients[who].conn;
        let present = self.standard.connect(who, clean, expiry_secs, will);
        let (conn, session_present) = self.world.join(connect);
        assert_eq!(session_present, present, "Session Present");
        if let Some(former) = former {
            assert_eq!(self.world.take(former), [Out::Closed(0x8e)]);
        }
        self.clients[who] = Client {
            conn: Some(conn),
            old,
            owed: Vec::new(),
        };
    }

    fn leave(&mut self, who: usize, how: u8, expiry_secs: Option<u32>) {
        let Some(conn) = self.clients[who].conn.take() else {
            return;
        };
        let session = &self.standard.sessions[&who];
        let expiry_secs = expiry_secs.filter(|_| !self.clients[who].old && how != 2 && session.expiry_secs > 0);
        let World { core, now, tape, .. } = &mut self.world;
        match how {
            0 => core.handle_disconnect(conn, 0, expiry_secs, *now, tape),
            1 if !self.clients[who].old => core.handle_disconnect(conn, 4, expiry_secs, *now, tape),
            _ => core.handle_closed(conn, *now, tape),
        }
        let end = if how == 0 { End::Goodbye } else { End::WithWill };
        self.standard.disconnect(who, end, expiry_secs);
        self.clients[who].owed.clear();
    }

    fn subscribe(&mut self, who: usize, mut sub: Sub) {
        let Some(conn) = self.connected(who) else {
            return;
        };
        if self.clients[who].old {
            (sub.no_local, sub.retain_as_published, sub.retain_handling, sub.id) = (false, false, 0, None);
        }
        let wanted = SubscribeIn {
            filter: sub.filter.to_owned(),
            qos: fellbeck_core::QoS::from_u8(sub.qos).unwrap(),
            no_local: sub.no_local,
            retain_as_published: sub.retain_as_published,
            retain_handling: sub.retain_handling,
        };
        self.standard.subscribe(who, sub.clone());
        assert_eq!(self.world.subscribe_with(conn, sub.id, vec![wanted]), [sub.qos]);
    }

    fn publish(
        &mut self,
        (who, topic, qos): (usize, usize, u8),
        (retain, empty, finish): (bool, bool, bool),
        expiry: Option<u32>,
    ) {
        let Some(conn) = self.connected(who) else {
            return;
        };
        self.payloads += 1;
        // Away from those of SUBSCRIBE and UNSUBSCRIBE.
        let packet_id = 50_000 + self.payloads as u16;
        let message = Message {
            from: who,
            topic: TOPICS[topic],
            payload: if empty {
                String::new()
            } else {
                format!("m{}", self.payloads)
            },
            qos,
            retain,
            expiry_secs: expiry.filter(|_| !self.clients[who].old),
            at: self.standard.now,
        };
        let mut send = Send::new(message.topic, &message.payload, qos, packet_id);
        (send.retain, send.expiry_secs) = (retain, message.expiry_secs);
        self.world.publish_with(conn, &send);
        self.standard.publish(&message);
        self.world.settle();
        let answer = match qos {
            0 => return,
            1 => Out::PubAck(packet_id, 0),
            _ => Out::PubRec(packet_id, 0),
        };
        self.answered(conn, &answer);
        if qos == 2 {
            self.standard.sessions.get_mut(&who).unwrap().inbound.push(packet_id);
            if finish {
                self.go_on(who, usize::MAX, false);
            }
        }
    }

    /// [MQTT5-4.3.3-10] [MQTT5-4.3.3-11]
    fn go_on(&mut self, who: usize, which: usize, again: bool) {
        let Some(conn) = self.connected(who) else {
            return;
        };
        let inbound = &mut self.standard.sessions.get_mut(&who).unwrap().inbound;
        if inbound.is_empty() {
            return;
        }
        let index = which.min(inbound.len() - 1);
        let packet_id = inbound[index];
        if again {
            let send = Send {
                dup: true,
                ..Send::new(TOPICS[0], "again", 2, packet_id)
            };
            self.world.publish_with(conn, &send);
            self.world.settle();
            self.answered(conn, &Out::PubRec(packet_id, 0));
        } else {
            inbound.remove(index);
            self.world.pubrel(conn, packet_id);
            self.world.settle();
            self.answered(conn, &Out::PubComp(packet_id, 0));
        }
    }

    fn answered(&mut self, conn: ConnId, answer: &Out) {
        let at = self
            .world
            .tape
            .sent
            .iter()
            .position(|(to, out)| *to == conn && out == answer);
        let at = at.unwrap_or_else(|| panic!("no {answer:?} among {:?}", self.world.tape.sent));
        self.world.tape.sent.remove(at);
    }

    fn pay(&mut self, who: usize, which: usize) {
        let (Some(conn), false) = (self.connected(who), self.clients[who].owed.is_empty()) else {
            return;
        };
        let count = self.clients[who].owed.len();
        let owed = self.clients[who].owed.remove(which % count);
        let unacked = &mut self.standard.sessions.get_mut(&who).unwrap().unacked;
        match owed {
            Owed::Ack(id) => {
                unacked.retain(|entry| entry.packet_id != id);
                self.world.puback(conn, id);
            }
            Owed::Rec(id) => {
                unacked
                    .iter_mut()
                    .find(|entry| entry.packet_id == id)
                    .unwrap()
                    .is_received = true;
                self.world.pubrec(conn, id);
                self.world.settle();
                self.answered(conn, &Out::PubRel(id, 0));
                self.clients[who].owed.push(Owed::Comp(id));
            }
            Owed::Comp(id) => {
                unacked.retain(|entry| entry.packet_id != id);
                self.world.pubcomp(conn, id);
            }
        }
    }

    fn pass(&mut self, secs: u64) {
        // Several wills may be due within the time: second by second, so that each is stamped with its own.
        for _ in 0..secs {
            self.world.pass(Duration::from_secs(1));
            self.standard.pass(1);
            self.world.settle();
        }
        self.in_any_order = true;
    }

    fn restart(&mut self) {
        // What was sent or acknowledged in the last second may come anew after a crash; that is not looked at here.
        self.world.core.flush_all();
        self.world.settle();
        for who in 0..CLIENTS {
            self.check(who);
            self.clients[who] = Client {
                old: self.clients[who].old,
                ..Client::default()
            };
        }
        self.world.crash();
        self.standard.restart();
        self.world.pass(Duration::ZERO);
        self.in_any_order = true;
    }

    /// Compares what the client was sent since the last look with what was due.
    fn check(&mut self, who: usize) {
        let due = self.standard.due.remove(&who).unwrap_or_default();
        let mut releases = self.standard.releases.remove(&who).unwrap_or_default();
        let Some(conn) = self.connected(who) else {
            return;
        };
        let (mut sent, mut given_up) = (Vec::new(), Vec::new());
        for out in self.world.take(conn) {
            match out {
                Out::Publish(got) => sent.push(got),
                Out::PubRel(id, 0) => {
                    // Those of which only PUBREC was noted follow after a commit; the standard asks for no order.
                    match releases.iter().position(|due| *due == id) {
                        Some(at) => drop(releases.remove(at)),
                        None => given_up.push(id),
                    }
                    self.clients[who].owed.push(Owed::Comp(id));
                }
                other => panic!("{other:?} to {who}"),
            }
        }
        assert!(releases.is_empty(), "PUBREL of {releases:?} is missing");
        let mut waiting = due;
        for got in sent {
            let seen = seen(&got);
            let same = |due: &Due| {
                Due {
                    is_optional: false,
                    ..due.clone()
                } == seen
            };
            let found = (0..waiting.len())
                .find(|at| same(&waiting[*at].0) && (self.in_any_order || may_come_first(&waiting, *at)));
            let Some(index) = found else {
                panic!("{} was sent {got:?}, due was {waiting:#?}", NAMES[who]);
            };
            let (due, message, is_retained) = waiting.remove(index);
            self.took(who, &got, due, message, is_retained);
        }
        self.given_up(who, &given_up, &waiting);
        waiting.retain(|(due, ..)| !due.is_optional);
        assert!(waiting.is_empty(), "{} was not sent {waiting:#?}", NAMES[who]);
    }

    /// A message at QoS 2 that was to come again and is gone: its packet ID is released, of each, and of nothing else.
    fn given_up(&mut self, who: usize, ids: &[u16], missing: &[(Due, Message, bool)]) {
        let mut gone = missing
            .iter()
            .filter(|(due, ..)| due.is_optional && due.dup && due.qos == 2);
        for id in ids {
            let (due, message, is_retained) = gone.next().unwrap_or_else(|| panic!("PUBREL {id} is not due"));
            self.standard.sessions.get_mut(&who).unwrap().unacked.push(Unacked {
                packet_id: *id,
                message: message.clone(),
                due: due.clone(),
                is_retained: *is_retained,
                is_looked_up: true,
                is_received: true,
                is_given_up: true,
            });
        }
        assert!(
            gone.next().is_none(),
            "a packet ID of a message that is gone was not released"
        );
    }

    fn took(&mut self, who: usize, got: &Got, due: Due, message: Message, is_retained: bool) {
        let Some(packet_id) = got.packet_id else {
            return;
        };
        let unacked = &mut self.standard.sessions.get_mut(&who).unwrap().unacked;
        assert!(
            unacked.iter().all(|entry| entry.packet_id != packet_id),
            "packet ID {packet_id} is in use"
        );
        unacked.push(Unacked {
            packet_id,
            message,
            due,
            is_retained,
            is_looked_up: false,
            is_received: false,
            is_given_up: false,
        });
        let owed = if got.qos == 1 {
            Owed::Ack(packet_id)
        } else {
            Owed::Rec(packet_id)
        };
        self.clients[who].owed.push(owed);
    }
}

/// Whether what is due at `index` may come before what stands in front of it: that may be missing, or it was published to another
/// topic in the same moment. [MQTT5-4.6.0-5]
fn may_come_first(waiting: &[(Due, Message, bool)], index: usize) -> bool {
    let (_, message, _) = &waiting[index];
    waiting[..index].iter().all(|(due, other, _)| {
        let is_elsewhere =
            !due.dup && other.at == message.at && other.from != message.from && other.topic != message.topic;
        due.is_optional || is_elsewhere
    })
}

fn seen(got: &Got) -> Due {
    let mut ids = got.ids.clone();
    ids.sort_unstable();
    Due {
        topic: got.topic.clone(),
        payload: got.payload.clone(),
        qos: got.qos,
        retain: got.retain,
        dup: got.dup,
        ids,
        expiry_secs: got.expiry_secs,
        is_optional: false,
    }
}

fn run(cloud_mode: bool, acts: &[Act]) {
    let mut run = Run::new(cloud_mode);
    for who in 0..CLIENTS {
        run.act(&Act::Connect {
            who,
            clean: false,
            expiry_secs: 500,
            old: false,
            will: None,
        });
    }
    for act in acts {
        run.act(act);
    }
    // Everybody comes back, acknowledges everything, and nothing is left.
    for who in 0..CLIENTS {
        run.act(&Act::Connect {
            who,
            clean: false,
            expiry_secs: 500,
            old: false,
            will: None,
        });
    }
    for round in 0..3 * CLIENTS {
        let (who, which) = (round % CLIENTS, 0);
        run.act(&Act::Ack { who, which, all: true });
    }
    let left: BTreeMap<_, _> = NAMES
        .iter()
        .map(|name| (name, run.world.status(name).in_flight))
        .collect();
    assert!(left.values().all(|count| *count == 0), "{left:?}");
    for name in NAMES {
        run.world.assert_books_balance(name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_client_is_sent_what_the_standard_says(
        cloud_mode in any::<bool>(),
        acts in proptest::collection::vec(act(), 1..70),
    ) {
        run(cloud_mode, &acts);
    }
}
