//! Enhanced authentication of MQTT 5 on the wire: AUTH packets before CONNACK, and re-authentication afterwards.
//!
//! In: AUTH packets of the client. Out: AUTH packets, and the end of the exchange, as the [`Authenticator`](super::auth::Authenticator)
//! decides. Before CONNACK a client may send AUTH and DISCONNECT, nothing else ([MQTT5-3.1.2-30]). An exchange that is not done within
//! `first_packet_timeout` ends its connection.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;

use fellbeck_core::Tick;
use ntex::codec::Decoder;
use ntex::io::IoBoxed;
use ntex::util::BytesMut;
use ntex_mqtt::v5::codec::Auth;

use super::arrival::Arrival;
use super::attached::Attached;
use super::auth::{Exchange, Step};
use super::broker::Broker;
use super::connect::Wishes;
use super::encode;
use super::frames::{Fault, Head, head};
use super::property_block::{self, Place};
use super::shape;
use crate::wire::Version;

const SUCCESS: u8 = 0x00;
const CONTINUE: u8 = 0x18;
const AGAIN: u8 = 0x19;
const AUTH: u8 = 15;
const DISCONNECT: u8 = 14;

const NO_METHOD: Fault = Fault::protocol("AUTH without an authentication method"); // [MQTT5-4.12.0-7]
const OTHER_METHOD: Fault = Fault::protocol("AUTH with another authentication method"); // [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
const OUT_OF_TURN: Fault = Fault::protocol("AUTH out of turn");
const TOO_LARGE: Fault = Fault {
    reason: 0x95,
    text: "AUTH exceeds the maximum packet size of the client",
};

/// Why an exchange before CONNACK did not succeed.
#[derive(Debug)]
pub(super) enum Failed {
    /// The client left.
    Gone,
    /// To be told in a CONNACK.
    Refused(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault)
    }
}

/// What the hook says when it refuses.
fn refused(reason: u8) -> Fault {
    let text = match reason {
        0x8C => "bad authentication method",
        _ => "authentication failed",
    };
    Fault { reason, text }
}

/// Runs the method of a CONNECT to its end. Returns the last data, which CONNACK carries.
pub(super) async fn run(
    broker: &Broker,
    io: &IoBoxed,
    arrival: &Arrival,
    client_id: &str,
    wishes: &Wishes,
) -> Result<Vec<u8>, Failed> {
    let method = wishes.auth_method.as_deref().unwrap_or_default();
    let begun = broker.config.authenticator.begin(client_id, method);
    let mut exchange = begun.ok_or(refused(0x8C))?; // [MQTT5-4.12.0-1]
    let codec = AuthCodec { broker, arrival };
    let mut data = wishes.auth_data.clone();
    loop {
        let answer = match exchange.step(data.as_deref()) {
            Step::Done(last) => return Ok(last),
            Step::Refuse(reason) => return Err(refused(reason).into()), // [MQTT5-4.12.0-4]
            Step::Continue(answer) => answer,
        };
        let mut out = Vec::new();
        // [MQTT5-4.12.0-2]
        encode::put_auth(&mut out, CONTINUE, method, &answer);
        if out.len() > wishes.packet_max.unwrap_or(u32::MAX) as usize {
            return Err(TOO_LARGE.into());
        }
        broker.traffic.send(out.len());
        io.encode_slice(&out).map_err(|_| Failed::Gone)?;
        let said = match io.recv(&codec).await {
            Ok(Some(said)) => said?,
            Ok(None) | Err(_) => return Err(Failed::Gone),
        };
        data = match said {
            Said::Left => return Err(Failed::Gone),
            Said::Auth { reason, .. } if reason != CONTINUE => return Err(OUT_OF_TURN.into()), // [MQTT5-4.12.0-3]
            Said::Auth { method: theirs, .. } if theirs.as_deref() != Some(method) => return Err(OTHER_METHOD.into()),
            Said::Auth { data, .. } => data,
        };
    }
}

/// A packet between CONNECT and CONNACK.
#[derive(Debug)]
enum Said {
    Auth {
        reason: u8,
        method: Option<String>,
        data: Option<Vec<u8>>,
    },
    Left,
}

struct AuthCodec<'a> {
    broker: &'a Broker,
    arrival: &'a Arrival,
}

impl Decoder for AuthCodec<'_> {
    type Item = Result<Said, Fault>;
    type Error = Infallible;

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Self::Item>, Infallible> {
        let (header, whole) = match head(buffer, Version::V5, self.broker.config.packet_max) {
            Ok(Head::Known { header, whole }) if whole <= buffer.len() => (header, whole),
            Ok(_) => {
                self.arrival.holds(buffer.len());
                return Ok(None);
            }
            Err(fault) => return Ok(Some(Err(fault))),
        };
        self.arrival.holds(0);
        self.broker.traffic.receive(whole);
        let packet = buffer.split_to(whole);
        Ok(Some(read(packet[0], &packet[header..])))
    }
}

fn read(first: u8, body: &[u8]) -> Result<Said, Fault> {
    if first >> 4 == 3 {
        return Err(Fault::protocol("PUBLISH before CONNACK"));
    }
    shape::check(Version::V5, first, body)?;
    match first >> 4 {
        DISCONNECT => Ok(Said::Left),
        AUTH => {
            let (mut method, mut data) = (None, None);
            let (&reason, block) = body.split_first().unwrap_or((&SUCCESS, &[]));
            if !block.is_empty() {
                property_block::walk(Place::Auth, block, |span| match span.id {
                    0x15 => method = Some(span.text().to_owned()),
                    0x16 => data = Some(span.bytes().to_vec()),
                    _ => {}
                })?;
            }
            Ok(Said::Auth { reason, method, data })
        }
        _ => Err(Fault::protocol("packet other than AUTH before CONNACK")),
    }
}

/// What a connection keeps of its authentication.
#[derive(Default)]
pub(super) struct Authentication {
    /// Method of the CONNECT.
    method: Option<String>,
    client_id: String,
    /// A re-authentication that is under way, and since when.
    exchange: RefCell<Option<Box<dyn Exchange>>>,
    since: Cell<Option<Tick>>,
}

impl Authentication {
    pub(super) fn new(client_id: &str, method: Option<String>) -> Self {
        Self {
            client_id: client_id.to_owned(),
            method,
            ..Self::default()
        }
    }

    /// When the re-authentication began that is under way.
    pub(super) fn since(&self) -> Option<Tick> {
        self.since.get()
    }
}

impl Attached {
    /// An AUTH after CONNACK. [MQTT5-4.12.1-1]
    pub(super) fn authenticate(self: &Rc<Self>, auth: &Auth) {
        if let Err(fault) = self.reauthenticate(auth) {
            self.fail(fault); // [MQTT5-4.12.1-2]
        }
    }

    fn reauthenticate(&self, auth: &Auth) -> Result<(), Fault> {
        let own = &self.connection().authentication;
        let method = own.method.as_deref().ok_or(NO_METHOD)?;
        if auth.auth_method.as_deref() != Some(method) {
            return Err(OTHER_METHOD);
        }
        let running = own.exchange.take();
        let mut exchange = match (u8::from(auth.reason_code), running) {
            (AGAIN, None) => {
                let begun = self.broker().config.authenticator.begin(&own.client_id, method);
                own.since.set(Some(self.broker().now().tick));
                begun.ok_or(refused(0x8C))?
            }
            (CONTINUE, Some(running)) => running,
            _ => return Err(OUT_OF_TURN),
        };
        let (reason, data) = match exchange.step(auth.auth_data.as_deref()) {
            Step::Refuse(reason) => return Err(refused(reason)),
            Step::Continue(data) => {
                own.exchange.replace(Some(exchange));
                (CONTINUE, data)
            }
            Step::Done(data) => {
                own.since.set(None);
                (SUCCESS, data)
            }
        };
        let mut out = Vec::new();
        encode::put_auth(&mut out, reason, method, &data);
        if out.len() > self.connection().client.packet_max as usize {
            return Err(TOO_LARGE);
        }
        self.connection().write(&out, &[]);
        Ok(())
    }
}
