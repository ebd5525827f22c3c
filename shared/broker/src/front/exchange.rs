//! Enhanced authentication of MQTT 5 on the wire: AUTH packets before CONNACK, and re-authentication afterwards.
//!
//! In: AUTH packets of the client. Out: AUTH packets, and the end of the exchange, as the [`Dialogue`] says. Before CONNACK a client may send AUTH and DISCONNECT, nothing else ([MQTT5-3.1.2-30]). An exchange that is not done within
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
use super::broker::Broker;
use super::connect::Wishes;
use super::dialogue::{AuthIn, CONTINUE, Dialogue, NO_METHOD, Next, SUCCESS, Said, read};
use super::frames::{Fault, Head, head};
use crate::wire::Version;

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

/// Runs the method of a CONNECT to its end. Returns the last data, which CONNACK carries.
pub(super) async fn run(
    broker: &Broker,
    io: &IoBoxed,
    arrival: &Arrival,
    client_id: &str,
    wishes: &Wishes,
) -> Result<Vec<u8>, Failed> {
    let mut dialogue = Dialogue::new(client_id, wishes.auth_method.as_deref().unwrap_or_default());
    let codec = AuthCodec { broker, arrival };
    let mut next = dialogue.begin(&*broker.config.authenticator, wishes.auth_data.as_deref())?;
    loop {
        let answer = match next {
            Next::Done(last) => return Ok(last),
            Next::Continue(answer) => answer,
        };
        let out = dialogue.packet(CONTINUE, &answer, wishes.packet_max.unwrap_or(u32::MAX))?;
        broker.traffic.send(out.len());
        io.encode_slice(&out).map_err(|_| Failed::Gone)?;
        let said = match io.recv(&codec).await {
            Ok(Some(said)) => said?,
            Ok(None) | Err(_) => return Err(Failed::Gone),
        };
        next = match said {
            Said::Left => return Err(Failed::Gone),
            Said::Auth { reason, method, data } => dialogue.take(AuthIn {
                reason,
                method: method.as_deref(),
                data: data.as_deref(),
            })?,
        };
    }
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

/// What a connection keeps of its authentication.
#[derive(Default)]
pub(super) struct Authentication {
    /// With the method of the CONNECT.
    dialogue: Option<RefCell<Dialogue>>,
    /// When the re-authentication began that is under way.
    since: Cell<Option<Tick>>,
}

impl Authentication {
    pub(super) fn new(client_id: &str, method: Option<String>) -> Self {
        let dialogue = method.map(|method| RefCell::new(Dialogue::new(client_id, &method)));
        Self {
            dialogue,
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
        let dialogue = own.dialogue.as_ref().ok_or(NO_METHOD)?;
        let mut dialogue = dialogue.borrow_mut();
        let begins = !dialogue.is_running();
        let auth = AuthIn {
            reason: u8::from(auth.reason_code),
            method: auth.auth_method.as_deref(),
            data: auth.auth_data.as_deref(),
        };
        let (reason, data) = match dialogue.take_again(&*self.broker().config.authenticator, auth)? {
            Next::Done(data) => {
                own.since.set(None);
                (SUCCESS, data)
            }
            Next::Continue(data) => {
                if begins {
                    own.since.set(Some(self.broker().now().tick));
                }
                (CONTINUE, data)
            }
        };
        let out = dialogue.packet(reason, &data, self.connection().client.packet_max)?;
        self.connection().write(&out, &[]);
        Ok(())
    }
}
