//! The decoders of what clients send, from the WebSocket upgrade to PUBLISH, as fuzz bodies see them. Not for anybody else.

use super::connect::{self, Dialect};
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
