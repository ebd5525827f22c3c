//! The handshake as ntex-mqtt sees it: a CONNECT with the number of a ticket, answered with the CONNACK that was decided.
//!
//! All that matters has happened before, in [`welcome`](super::welcome).

use std::rc::Rc;

use ntex::time::Seconds;
use ntex_mqtt::{v3, v5};

use super::attached::Attached;
use super::broker::Broker;
use super::connack::{self, Terms};
use crate::wire::ConnId;

/// The handshake cannot be answered: nobody was admitted under its number.
#[derive(Debug)]
pub(super) struct Unanswered;

impl From<()> for Unanswered {
    fn from((): ()) -> Self {
        Self
    }
}

impl TryFrom<Unanswered> for v5::PublishAck {
    type Error = Unanswered;

    fn try_from(error: Unanswered) -> Result<Self, Unanswered> {
        Err(error)
    }
}

/// A connection that the core has accepted, on its way to its dispatcher.
pub(super) struct Admitted {
    pub(super) attached: State,
    pub(super) session_present: bool,
    pub(super) terms: Terms,
}

/// Longest timer of ntex, which must be given one for MQTT 5; keep-alive is watched by the tick instead.
const NO_TIMER: u16 = u16::MAX;

/// Length of any CONNACK of 3.1.1, for the count of traffic.
const V3_CONNACK_BYTES: usize = 4;

/// State of a connection as ntex-mqtt carries it.
pub(super) type State = Rc<Attached>;

fn admitted(broker: &Broker, number: &str) -> Result<Admitted, Unanswered> {
    let id = number.parse().map(ConnId).map_err(|_| Unanswered)?;
    broker.admitted.borrow_mut().remove(&id).ok_or(Unanswered)
}

pub(super) async fn connect_v3(
    broker: Rc<Broker>,
    handshake: v3::Handshake,
) -> Result<v3::HandshakeAck<State>, Unanswered> {
    let guest = admitted(&broker, &handshake.packet().client_id)?;
    guest.attached.connection().connack_bytes.set(V3_CONNACK_BYTES);
    let ack = handshake.ack(guest.attached, guest.session_present);
    Ok(ack.idle_timeout(Seconds::ZERO))
}

pub(super) async fn connect_v5(
    broker: Rc<Broker>,
    handshake: v5::Handshake,
) -> Result<v5::HandshakeAck<State>, Unanswered> {
    let guest = admitted(&broker, &handshake.packet().client_id)?;
    let ack = connack::accepted(&guest.terms, guest.session_present);
    guest.attached.connection().connack_bytes.set(connack::len(&ack));
    let answer = handshake.ack(guest.attached).keep_alive(NO_TIMER);
    Ok(answer.with(|packet| *packet = ack))
}
