//! The authentication dialogue of one client (section 4.12 of MQTT 5), without a socket.
//!
//! In: the method and data of a CONNECT, and AUTH packets as read. Out: what the client is answered, or why the dialogue has failed.
//! At most one exchange of the hook runs at a time. A failure drops it; the connection ends then.

use super::auth::{Authenticator, Exchange, Step};
use super::encode;
use super::frames::Fault;
use super::property_block::{self, Place};
use super::shape;
use crate::wire::Version;

pub(super) const SUCCESS: u8 = 0x00;
pub(super) const CONTINUE: u8 = 0x18;
const AGAIN: u8 = 0x19;
const PUBLISH: u8 = 3;
const DISCONNECT: u8 = 14;
const AUTH: u8 = 15;

pub(super) const NO_METHOD: Fault = Fault::protocol("AUTH without an authentication method"); // [MQTT5-4.12.0-7]
const OTHER_METHOD: Fault = Fault::protocol("AUTH with another authentication method"); // [MQTT5-4.12.0-5] [MQTT5-4.12.1-1]
const OUT_OF_TURN: Fault = Fault::protocol("AUTH out of turn");
const TOO_LARGE: Fault = Fault {
    reason: 0x95,
    text: "AUTH exceeds the maximum packet size of the client",
};

/// What the hook says when it refuses.
fn refused(reason: u8) -> Fault {
    let text = match reason {
        0x8C => "bad authentication method",
        _ => "authentication failed",
    };
    Fault { reason, text }
}

/// An AUTH of the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct AuthIn<'a> {
    pub(super) reason: u8,
    pub(super) method: Option<&'a str>,
    pub(super) data: Option<&'a [u8]>,
}

/// What follows, with the data for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The exchange goes on.
    Continue(Vec<u8>),
    /// The client is who it says.
    Done(Vec<u8>),
}

/// The dialogue of one client.
pub(super) struct Dialogue {
    client_id: String,
    method: String,
    running: Option<Box<dyn Exchange>>,
}

impl Dialogue {
    /// Of a client whose CONNECT names this method.
    pub(super) fn new(client_id: &str, method: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            method: method.to_owned(),
            running: None,
        }
    }

    /// An exchange is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins an exchange with the data of CONNECT, or of the AUTH that asks for it.
    pub(super) fn begin(&mut self, authenticator: &dyn Authenticator, data: Option<&[u8]>) -> Result<Next, Fault> {
        let begun = authenticator.begin(&self.client_id, &self.method);
        self.step(begun.ok_or(refused(0x8C))?, data) // [MQTT5-4.12.0-1]
    }

    /// An AUTH before CONNACK. [MQTT5-4.12.0-3]
    pub(super) fn take(&mut self, auth: AuthIn<'_>) -> Result<Next, Fault> {
        let running = self.running.take();
        if auth.method != Some(&self.method) {
            return Err(OTHER_METHOD);
        }
        match (auth.reason, running) {
            (CONTINUE, Some(exchange)) => self.step(exchange, auth.data),
            _ => Err(OUT_OF_TURN),
        }
    }

    /// An AUTH after CONNACK: it may begin an exchange as well. [MQTT5-4.12.1-1]
    pub(super) fn take_again(&mut self, authenticator: &dyn Authenticator, auth: AuthIn<'_>) -> Result<Next, Fault> {
        let begins = auth.reason == AGAIN && !self.is_running() && auth.method == Some(&self.method);
        if begins {
            self.begin(authenticator, auth.data)
        } else {
            self.take(auth)
        }
    }

    fn step(&mut self, mut exchange: Box<dyn Exchange>, data: Option<&[u8]>) -> Result<Next, Fault> {
        match exchange.step(data) {
            Step::Refuse(reason) => Err(refused(reason)), // [MQTT5-4.12.0-4] [MQTT5-4.12.1-2]
            Step::Done(data) => Ok(Next::Done(data)),
            Step::Continue(data) => {
                self.running = Some(exchange);
                Ok(Next::Continue(data))
            }
        }
    }

    /// An AUTH for the client. [MQTT5-4.12.0-2] [MQTT5-4.12.0-5]
    pub(super) fn packet(&self, reason: u8, data: &[u8], packet_max: u32) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        encode::put_auth(&mut out, reason, &self.method, data);
        if out.len() > packet_max as usize {
            return Err(TOO_LARGE);
        }
        Ok(out)
    }
}

/// A packet between CONNECT and CONNACK.
#[derive(Debug)]
pub(super) enum Said {
    Auth {
        reason: u8,
        method: Option<String>,
        data: Option<Vec<u8>>,
    },
    Left,
}

/// Reads a packet between CONNECT and CONNACK: the first byte of the fixed header, and what follows that header.
pub(super) fn read(first: u8, body: &[u8]) -> Result<Said, Fault> {
    if first >> 4 == PUBLISH {
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
