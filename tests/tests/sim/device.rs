//! A device of the world: a publisher that sends again what was not acknowledged, or a reader with a session.
//!
//! It keeps the rules of MQTT: what is in flight is sent again in its order after a reconnect with a session, packet IDs are free when
//! the exchange is complete, a QoS 2 message is taken once per packet ID. What it did and what it was told are its books.

use std::collections::VecDeque;

use fellbeck_broker::wire::{ConnId, Version};
use fellbeck_core::{CommitNumber, QoS};

use super::dice::Dice;
use super::message::{Message, Publish, ToDevice, ToNode};
use super::node::TOPICS;

/// Messages that a publisher keeps in flight.
const WINDOW: usize = 4;

/// On which node a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Edge = 0,
    Cloud = 1,
}

/// What became of a message, as its publisher knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In flight.
    Open,
    /// PUBACK or PUBREC came.
    Acked,
    /// The node refused it with a reason.
    Refused,
    /// QoS 0, or the publisher's own session ended with its connection.
    Unknown,
}

/// What is known of a message that was published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) qos: QoS,
    pub(crate) fate: Fate,
    /// PUBLISH packets with it that a node has taken.
    pub(crate) taken: u32,
    pub(crate) expires: bool,
    /// A node refused it once. Its publisher may not have heard it, and offers it again behind later ones.
    pub(crate) was_refused: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    publish: Publish,
    released: bool,
}

/// A message that a reader took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Got {
    pub(crate) message: Message,
    pub(crate) qos: QoS,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) side: Side,
    pub(crate) version: Version,
    pub(crate) clean: bool,
    pub(crate) is_reader: bool,
    pub(crate) conn: Option<ConnId>,
    pub(crate) is_ready: bool,
    pub(crate) up: VecDeque<ToNode>,
    /// A session was made on the node and must be there.
    pub(crate) has_session: bool,
    // a publisher
    pub(crate) sent: Vec<Sent>,
    flights: Vec<Flight>,
    ids: u16,
    narrow_ids: bool,
    // a reader
    pub(crate) filter: &'static str,
    pub(crate) qos: QoS,
    pub(crate) receive_maximum: u16,
    pub(crate) got: Vec<Got>,
    /// Newest commit of the node when it took the SUBSCRIBE, and when it answered it.
    pub(crate) asked: Option<CommitNumber>,
    pub(crate) since: Option<CommitNumber>,
    /// Connections that it had. A reader that had one, and no crash, gets nothing twice.
    pub(crate) connects: u32,
    held: Vec<u16>,
    owed: VecDeque<ToNode>,
    /// Does not read before the end.
    pub(crate) is_stuck: bool,
}

impl Device {
    pub(crate) fn new(id: usize, side: Side, is_reader: bool, dice: &mut Dice) -> Self {
        Self {
            id,
            name: format!("d{id}"),
            side,
            version: if dice.chance(70) { Version::V5 } else { Version::V3 },
            clean: dice.chance(15),
            is_reader,
            conn: None,
            is_ready: false,
            up: VecDeque::new(),
            has_session: false,
            sent: Vec::new(),
            flights: Vec::new(),
            ids: 0,
            narrow_ids: true,
            filter: dice.pick(&["#", "#", "data/#", "alarm/a"]),
            qos: dice.pick(&[QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]),
            receive_maximum: dice.pick(&[1, 3, 20]),
            got: Vec::new(),
            asked: None,
            since: None,
            connects: 0,
            held: Vec::new(),
            owed: VecDeque::new(),
            is_stuck: false,
        }
    }

    /// Packet IDs are not used again: after damage a node may have forgotten that an exchange was complete.
    pub(crate) fn use_fresh_ids(&mut self) {
        self.narrow_ids = false;
    }

    // ---- connection

    /// The connection is gone, as this device sees it.
    pub(crate) fn lose_connection(&mut self) {
        self.conn = None;
        self.is_ready = false;
        self.up.clear();
        self.owed.clear();
        if self.clean {
            // The session ends with the connection, on both sides.
            for flight in std::mem::take(&mut self.flights) {
                let sent = &mut self.sent[flight.publish.message.n as usize];
                if sent.fate == Fate::Open {
                    sent.fate = Fate::Unknown;
                }
            }
            self.held.clear();
            self.since = None;
            self.asked = None;
        }
    }

    pub(crate) fn connect(&mut self, conn: ConnId) {
        self.conn = Some(conn);
        self.connects += 1;
        self.up.push_back(ToNode::Connect);
    }

    fn accepted(&mut self, present: bool) {
        self.is_ready = true;
        self.has_session = !self.clean;
        if !present {
            self.held.clear();
            self.since = None;
            self.asked = None;
        }
        for flight in &mut self.flights {
            if flight.released {
                self.up.push_back(ToNode::PubRel(flight.publish.packet_id));
            } else {
                flight.publish.dup = true;
                self.up.push_back(ToNode::Publish(flight.publish));
            }
        }
        if self.is_reader && self.since.is_none() {
            self.up.push_back(ToNode::Subscribe);
        }
    }

    // ---- publishing

    pub(crate) fn may_publish(&self) -> bool {
        !self.is_reader && self.is_ready && self.flights.len() < WINDOW
    }

    pub(crate) fn is_done(&self) -> bool {
        self.flights.is_empty()
    }

    pub(crate) fn publish(&mut self, dice: &mut Dice, expires: bool) -> Publish {
        let qos = dice.pick(&[
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
        ]);
        let topic = dice.index(TOPICS.len());
        let message = Message {
            device: self.id as u8,
            n: self.sent.len() as u32,
        };
        let packet_id = if qos == QoS::AtMostOnce { 0 } else { self.free_id() };
        let publish = Publish {
            message,
            topic,
            qos,
            dup: false,
            packet_id,
            expiry_secs: expires.then(|| dice.between(1..=30) as u32),
        };
        let fate = if qos == QoS::AtMostOnce {
            Fate::Unknown
        } else {
            Fate::Open
        };
        self.sent.push(Sent {
            qos,
            fate,
            taken: 0,
            expires,
            was_refused: false,
        });
        if qos != QoS::AtMostOnce {
            self.flights.push(Flight {
                publish,
                released: false,
            });
        }
        self.up.push_back(ToNode::Publish(publish));
        publish
    }

    fn free_id(&mut self) -> u16 {
        if self.narrow_ids {
            let used = |id: u16| self.flights.iter().any(|flight| flight.publish.packet_id == id);
            return (1..)
                .find(|id| !used(*id))
                .expect("a window is smaller than the packet IDs");
        }
        self.ids += 1;
        self.ids
    }

    /// The message in flight under a packet ID.
    pub(crate) fn in_flight(&self, packet_id: u16) -> Option<Message> {
        let found = self.flights.iter().find(|flight| flight.publish.packet_id == packet_id);
        found.map(|flight| flight.publish.message)
    }

    fn settle(&mut self, packet_id: u16, fate: Fate) {
        let found = self
            .flights
            .iter()
            .position(|flight| flight.publish.packet_id == packet_id);
        if let Some(at) = found {
            let flight = self.flights.remove(at);
            self.set_fate(flight.publish.message, fate);
        }
    }

    fn set_fate(&mut self, message: Message, fate: Fate) {
        let sent = &mut self.sent[message.n as usize];
        if sent.fate == Fate::Open {
            sent.fate = fate;
        }
    }

    fn recorded(&mut self, packet_id: u16, reason: u8) {
        if reason >= 0x80 {
            // Of a resend it says that the ID is in use, which cannot be: the exchange is the same.
            return self.settle(packet_id, Fate::Refused);
        }
        let found = self
            .flights
            .iter_mut()
            .find(|flight| flight.publish.packet_id == packet_id);
        if let Some(flight) = found {
            flight.released = true;
            let message = flight.publish.message;
            self.set_fate(message, Fate::Acked);
        }
        self.up.push_back(ToNode::PubRel(packet_id));
    }

    // ---- receiving

    /// A packet has come. False: the node has closed the connection.
    pub(crate) fn receive(&mut self, packet: ToDevice, newest: CommitNumber) -> bool {
        match packet {
            ToDevice::ConnAck { reason, .. } if reason != 0 => return false,
            ToDevice::ConnAck { present, .. } => self.accepted(present),
            ToDevice::PubAck(id, reason) if reason < 0x80 => self.settle(id, Fate::Acked),
            ToDevice::PubAck(id, _) => self.settle(id, Fate::Refused),
            ToDevice::PubRec(id, reason) => self.recorded(id, reason),
            ToDevice::PubComp(id) => self.settle(id, Fate::Acked),
            ToDevice::SubAck(reason) => {
                assert!(reason <= 2, "a plain subscription is refused with {reason:#04x}");
                self.since = self.since.or(Some(newest));
            }
            ToDevice::Publish {
                message,
                qos,
                packet_id,
                ..
            } => self.take(message, qos, packet_id),
            ToDevice::PubRel(id) => {
                self.held.retain(|held| *held != id);
                self.owed.push_back(ToNode::PubComp(id));
            }
            ToDevice::Close(_) => return false,
        }
        true
    }

    fn take(&mut self, message: Message, qos: QoS, packet_id: u16) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.owed.push_back(ToNode::PubAck(packet_id)),
            QoS::ExactlyOnce => {
                self.owed.push_back(ToNode::PubRec(packet_id));
                if self.held.contains(&packet_id) {
                    return;
                }
                self.held.push(packet_id);
            }
        }
        self.got.push(Got { message, qos });
    }

    /// Pays what it owes in acknowledgements. False: nothing.
    pub(crate) fn pay(&mut self) -> bool {
        let pays = !self.owed.is_empty();
        self.up.append(&mut self.owed);
        pays
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owed.is_empty()
    }
}
