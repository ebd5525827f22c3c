//! One client: what it holds of the protocol, and what it may be sent.
//!
//! Judged here: nothing before CONNACK; the Receive Maximum; a packet ID names one message at a time; at QoS 2 a message comes once to
//! a session, through takeovers and crashes; at QoS 1 it comes again only with DUP; PUBACK and PUBREC follow the commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fellbeck_broker::wire::ConnId;
use fellbeck_core::QoS;

use super::wire::{Delivered, Out};
use super::world::Message;

/// Number of a message; each PUBLISH and each will has its own.
pub(super) type Number = u32;

/// What stands before the number in a payload: it comes to a session once.
const ONCE: u8 = b'm';
/// Retained, or for a shared subscription: may come several times.
const OFTEN: u8 = b'r';

pub(super) fn payload(topic: &str, retain: bool, number: Number) -> Vec<u8> {
    let kind = if retain || topic == "log/s" { OFTEN } else { ONCE };
    let mut payload = vec![kind];
    payload.extend_from_slice(&number.to_be_bytes());
    payload
}

pub(super) fn number_of(payload: &[u8]) -> Option<(u8, Number)> {
    let (kind, number) = payload.split_first()?;
    Some((*kind, Number::from_be_bytes(number.try_into().ok()?)))
}

/// An acknowledgement that the client has still to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    Ack(u16),
    Rec(u16),
    Comp(u16),
}

/// How far a message that was sent on this connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    One,
    Two,
    TwoReceived,
    TwoReleased,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) old: bool,
    pub(super) window: usize,
    pub(super) is_open: bool,
    /// The session ends with the connection.
    pub(super) is_last: bool,
    /// The CONNECT asked for a new session.
    pub(super) is_clean: bool,
    /// The client does not know which session this is, and closes. [MQTT5-3.2.2-4]
    is_strange: bool,
    /// Packets that the core asked to hold, in order; nothing passes them.
    pub(super) held: VecDeque<(Message, Number)>,
    pub(super) owed: Vec<Owed>,
    in_flight: BTreeMap<u16, Flight>,
    /// QoS 1 messages of the client that are not answered, by packet ID and in order. `None`: nothing is to be in the log for it.
    published: BTreeMap<u16, VecDeque<Option<Number>>>,
    asked: BTreeSet<u16>,
}

impl Link {
    pub(super) fn new(conn: ConnId, old: bool, window: usize) -> Self {
        Self {
            conn,
            old,
            window,
            is_open: false,
            is_last: false,
            is_clean: false,
            is_strange: false,
            held: VecDeque::new(),
            owed: Vec::new(),
            in_flight: BTreeMap::new(),
            published: BTreeMap::new(),
            asked: BTreeSet::new(),
        }
    }

    pub(super) fn asked(&mut self, packet_id: u16) {
        assert!(self.asked.insert(packet_id), "the packet IDs of requests rise");
    }

    /// The client acknowledges; what that means for the tables of the node.
    pub(super) fn acks(&mut self, owed: Owed, is_failure: bool) {
        match (owed, self.in_flight.get_mut(&owed.packet_id())) {
            (Owed::Ack(id), Some(Flight::One)) | (Owed::Comp(id), Some(Flight::TwoReleased)) => {
                self.in_flight.remove(&id);
            }
            (Owed::Rec(id), Some(Flight::Two)) if is_failure => {
                self.in_flight.remove(&id);
            }
            (Owed::Rec(_), Some(flight @ Flight::Two)) => *flight = Flight::TwoReceived,
            _ => {}
        }
    }
}

impl Owed {
    pub(super) fn packet_id(self) -> u16 {
        match self {
            Self::Ack(id) | Self::Rec(id) | Self::Comp(id) => id,
        }
    }
}

/// A QoS 2 message of the client that is not complete.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Each PUBLISH of it had a number of its own. One of them is in the log.
    numbers: Vec<Number>,
    is_logged: bool,
    released: bool,
    /// The client used the packet ID anew before PUBCOMP.
    is_broken: bool,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) link: Option<Link>,
    /// QoS 2 packet IDs that it has received and not seen released, with what they name.
    holds: BTreeMap<u16, Number>,
    /// Messages that came to this session at QoS 1 or 2, by that QoS.
    came: BTreeMap<Number, QoS>,
    pub(super) exchanges: BTreeMap<u16, Exchange>,
    /// It asked for the end of its session, and does not know whether that came true.
    pub(super) is_in_doubt: bool,
    /// The node has crashed since the session began.
    pub(super) has_crashed: bool,
}

impl Client {
    pub(super) fn open_link(&mut self) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.is_open)
    }

    /// A PUBLISH was given to the core, which may have it in the log in the end, or not (`is_logged`).
    pub(super) fn published(&mut self, message: &Message, number: Number) {
        let is_logged = message.topic.starts_with("log/") && !message.is_empty;
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                if let Some(link) = &mut self.link {
                    let waiting = link.published.entry(message.packet_id).or_default();
                    waiting.push_back(is_logged.then_some(number));
                }
            }
            QoS::ExactlyOnce => {
                let exchange = self.exchanges.entry(message.packet_id).or_default();
                exchange.is_broken |= exchange.released;
                exchange.is_broken |= !exchange.numbers.is_empty() && exchange.is_logged != is_logged;
                exchange.is_logged = is_logged;
                exchange.numbers.push(number);
            }
        }
    }

    pub(super) fn released(&mut self, packet_id: u16) {
        if let Some(exchange) = self.exchanges.get_mut(&packet_id) {
            exchange.released = true;
        }
    }

    /// A failing PUBREC: the client has thrown the message away.
    pub(super) fn gives_up(&mut self, packet_id: u16) {
        if let Some(number) = self.holds.remove(&packet_id) {
            self.came.remove(&number);
        }
    }

    /// Takes a packet in. `log` has the numbers of what is committed.
    pub(super) fn hear(&mut self, out: Out, log: &BTreeSet<Number>) {
        let Some(link) = self.link.as_mut().filter(|link| !link.is_strange) else {
            return;
        };
        match out {
            Out::ConnAck(true, 0) if self.is_in_doubt => link.is_strange = true,
            Out::ConnAck(session_present, 0) => {
                assert!(!session_present || !link.is_clean, "a clean start has no session");
                assert!(!std::mem::replace(&mut link.is_open, true), "one CONNACK");
                if !session_present {
                    self.begin_session();
                }
            }
            Out::ConnAck(..) | Out::Closed => drop(self.lose()),
            Out::Publish(_) if !link.is_open => panic!("a PUBLISH before CONNACK"),
            Out::Publish(delivered) => self.receive(&delivered),
            Out::PubRel(id) => {
                self.holds.remove(&id);
                if let Some(flight) = link.in_flight.get_mut(&id) {
                    assert_ne!(*flight, Flight::One, "PUBREL of a QoS 1 message");
                    *flight = Flight::TwoReleased;
                }
                if !link.owed.contains(&Owed::Comp(id)) {
                    link.owed.push(Owed::Comp(id));
                }
            }
            Out::PubAck(id, reason) => {
                let answered = link.published.get_mut(&id).and_then(VecDeque::pop_front);
                let answered = answered.expect("a PUBACK answers a PUBLISH");
                let is_there = answered.is_none_or(|number| log.contains(&number));
                assert!(reason >= 0x80 || is_there, "PUBACK before the commit");
            }
            Out::PubRec(id, reason) => self.recorded(id, reason, log),
            Out::PubComp(id) => {
                // The client may have used the packet ID anew before this.
                if self.exchanges.get(&id).is_some_and(|exchange| !exchange.is_broken) {
                    self.exchanges.remove(&id);
                }
            }
            Out::SubAck(id) | Out::UnsubAck(id) => assert!(link.asked.remove(&id), "an answer to no request"),
        }
    }

    /// Forgets what belongs to a session: a new one begins.
    fn begin_session(&mut self) {
        self.is_in_doubt = false;
        self.holds.clear();
        self.came.clear();
        self.exchanges.clear();
        self.has_crashed = false;
    }

    fn recorded(&mut self, id: u16, reason: u8, log: &BTreeSet<Number>) {
        let exchange = self.exchanges.get(&id).expect("a PUBREC answers a PUBLISH");
        if exchange.is_broken {
            return;
        }
        if reason >= 0x80 {
            self.exchanges.remove(&id);
            return;
        }
        if !exchange.is_logged {
            return;
        }
        let logged = exchange.numbers.iter().filter(|number| log.contains(number)).count();
        assert_eq!(logged, 1, "PUBREC: a QoS 2 message is in the log once");
    }

    fn receive(&mut self, delivered: &Delivered) {
        let number = number_of(&delivered.payload);
        let Some(id) = delivered.packet_id else {
            assert!(
                delivered.qos == QoS::AtMostOnce && !delivered.dup,
                "QoS 0 has no packet ID and no DUP"
            );
            return;
        };
        assert_ne!(id, 0);
        self.take_id(id, delivered);
        let Some((_, number)) = number.filter(|(kind, _)| *kind == ONCE) else {
            return;
        };
        let came = self.came.insert(number, delivered.qos);
        let is_new = came.is_none();
        assert!(is_new || delivered.dup, "message {number} comes again without DUP");
        assert!(
            !is_new || !delivered.dup || self.has_crashed,
            "message {number} never came before, and has DUP"
        );
        if delivered.qos == QoS::ExactlyOnce && !is_new {
            assert_eq!(
                self.holds.get(&id),
                Some(&number),
                "a QoS 2 message comes again under another packet ID, or after it was released"
            );
        }
        if delivered.qos == QoS::ExactlyOnce {
            self.holds.insert(id, number);
        }
    }

    /// The packet ID and the window of this connection.
    fn take_id(&mut self, id: u16, delivered: &Delivered) {
        let number = number_of(&delivered.payload).map(|(_, number)| number);
        let Some(link) = &mut self.link else {
            return;
        };
        let (flight, owed) = match delivered.qos {
            QoS::ExactlyOnce => (Flight::Two, Owed::Rec(id)),
            _ => (Flight::One, Owed::Ack(id)),
        };
        let former = link.in_flight.insert(id, flight);
        assert_eq!(former, None, "packet ID {id} is in use on this connection");
        assert!(link.in_flight.len() <= link.window, "the Receive Maximum is exceeded");
        link.owed.retain(|owed| owed.packet_id() != id);
        link.owed.push(owed);
        if delivered.qos == QoS::ExactlyOnce
            && let Some(held) = self.holds.get(&id)
        {
            assert!(
                delivered.dup && number.is_none_or(|number| number == *held),
                "the client holds packet ID {id} for another message, and would throw this one away"
            );
        }
    }

    /// The connection is gone, from either side.
    pub(super) fn lose(&mut self) -> Option<Link> {
        let link = self.link.take();
        // A crash may undo the end of a session before it is durable.
        let ended = |link: &Link| link.is_last || (link.is_clean && !link.is_open);
        self.is_in_doubt |= link.as_ref().is_some_and(ended);
        link
    }
}
