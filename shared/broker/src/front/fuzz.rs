//! The decoders of what clients send, from the WebSocket upgrade to PUBLISH, and the dialogue of AUTH, as fuzz bodies see them. Not for anybody else.

use super::auth::Authenticator;
use super::connect::{self, Dialect};
use super::dialogue::{AuthIn, CONTINUE, Dialogue, NO_METHOD, Next, SUCCESS, Said, read};
use super::frames::{Fault, Head, head};
use super::{preface, publish, shape, transport};
use crate::wire::{PublishIn, Version, Will};

/// A CONNECT that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Client identifier; may be empty.
    pub client_id: String,
    /// User name.
    pub user_name: Option<String>,
    /// The will.
    pub will: Option<Will>,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size.
    pub packet_max: Option<u32>,
    /// Authentication method, and whether there are authentication data.
    pub auth: (Option<String>, bool),
    /// Bytes of the whole packet.
    pub length: usize,
}

/// Decodes the first packet of a connection. `None`: not whole. `Some(Err)`: refused, with the reason code.
#[must_use]
pub fn connect(bytes: &[u8]) -> Option<Result<Connected, u8>> {
    let (found, length) = preface::look(bytes, u32::MAX, &|_| {})?;
    Some(match found {
        preface::Preface::Connect(connect) => Ok(Connected {
            client_id: connect.client_id,
            user_name: connect.user_name,
            will: connect.will,
            receive_maximum: connect.wishes.receive_maximum,
            packet_max: connect.wishes.packet_max,
            auth: (connect.wishes.auth_method, connect.wishes.auth_data.is_some()),
            length,
        }),
        preface::Preface::Refuse(_, fault) => Err(fault.reason),
    })
}

/// Decodes the fields of a CONNECT of MQTT 5 that follow the level, and says whether they are accepted.
#[must_use]
pub fn accepts_connect_fields(bytes: &[u8]) -> bool {
    connect::decode(Dialect::V5, bytes).is_ok()
}

/// Decodes a PUBLISH: the first byte of the fixed header, and what follows that header. Shows it to `each`.
pub fn publish<R>(
    version: Version,
    first: u8,
    body: &[u8],
    each: impl FnOnce(PublishIn<'_>, Option<u16>) -> R,
) -> Result<R, u8> {
    let mut scratch = Vec::new();
    let decoded = publish::decode(version, first, body, &mut scratch).map_err(|fault| fault.reason)?;
    Ok(each(decoded.publish, decoded.alias))
}

/// Checks any other control packet.
pub fn control(version: Version, first: u8, body: &[u8]) -> Result<(), u8> {
    shape::check(version, first, body).map_err(|fault| fault.reason)
}

/// What became of a CONNECT with a method, or of an AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authenticated {
    /// The client is sent this packet.
    Sent(Vec<u8>),
    /// The CONNECT is accepted, with this data in CONNACK.
    Accepted(Vec<u8>),
    /// The connection ends for this reason.
    Ended(u8),
    /// The client has left before CONNACK.
    Left,
}

/// Plays the dialogue of a client that takes packets up to `packet_max`: CONNECT with `method` and `data`, then the packets in `bytes`.
/// After CONNACK all packets but AUTH are passed over.
pub fn authenticate(
    authenticator: &dyn Authenticator,
    (method, data): (Option<&str>, Option<&[u8]>),
    packet_max: u32,
    mut bytes: &[u8],
) -> Vec<Authenticated> {
    let mut dialogue = method.map(|method| Dialogue::new("client", method));
    let mut is_connected = dialogue.is_none();
    let mut events = Vec::new();
    if let Some(dialogue) = &mut dialogue {
        let begun = dialogue.begin(authenticator, data);
        events.push(outcome(dialogue, begun, packet_max, &mut is_connected));
    }
    while !matches!(events.last(), Some(Authenticated::Ended(_) | Authenticated::Left)) {
        let (header, whole) = match head(bytes, Version::V5, u32::MAX) {
            Ok(Head::Known { header, whole }) if whole <= bytes.len() => (header, whole),
            Ok(_) => return events,
            Err(fault) => {
                events.push(Authenticated::Ended(fault.reason));
                return events;
            }
        };
        let (packet, rest) = bytes.split_at(whole);
        bytes = rest;
        if is_connected && packet[0] >> 4 != 15 {
            continue;
        }
        events.push(match (read(packet[0], &packet[header..]), &mut dialogue) {
            (Err(fault), _) => Authenticated::Ended(fault.reason),
            (Ok(Said::Left), _) => Authenticated::Left,
            (Ok(Said::Auth { .. }), None) => Authenticated::Ended(NO_METHOD.reason),
            (Ok(Said::Auth { reason, method, data }), Some(dialogue)) => {
                let auth = AuthIn {
                    reason,
                    method: method.as_deref(),
                    data: data.as_deref(),
                };
                let taken = if is_connected {
                    dialogue.take_again(authenticator, auth)
                } else {
                    dialogue.take(auth)
                };
                outcome(dialogue, taken, packet_max, &mut is_connected)
            }
        });
    }
    events
}

fn outcome(dialogue: &Dialogue, next: Result<Next, Fault>, packet_max: u32, is_connected: &mut bool) -> Authenticated {
    let packet = match next {
        Err(fault) => Err(fault),
        Ok(Next::Done(data)) if !*is_connected => {
            *is_connected = true;
            return Authenticated::Accepted(data);
        }
        Ok(Next::Done(data)) => dialogue.packet(SUCCESS, &data, packet_max),
        Ok(Next::Continue(data)) => dialogue.packet(CONTINUE, &data, packet_max),
    };
    packet.map_or_else(|fault| Authenticated::Ended(fault.reason), Authenticated::Sent)
}

/// Reads the request that opens a WebSocket. `None`: not whole. Else the bytes that it took and the answer, or the refusal.
#[must_use]
pub fn websocket_upgrade(bytes: &[u8]) -> Option<Result<(usize, String), String>> {
    transport::upgrade::read(bytes)
}

/// What a client's WebSocket frames brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framed {
    /// Bytes of MQTT.
    pub mqtt: Vec<u8>,
    /// Payloads of pings.
    pub pings: Vec<Vec<u8>>,
    /// The code with which it ended, if it did.
    pub end: Option<u16>,
}

/// Reads WebSocket frames that arrive in portions of `step` bytes.
#[must_use]
pub fn websocket_frames(frame_max: u64, bytes: &[u8], step: usize) -> Framed {
    transport::frames::read_all(frame_max, bytes.chunks(step.max(1)))
}
