//! Decodes a CONNECT, of 3.1, 3.1.1 and 5.0.
//!
//! In: what follows the protocol level of a whole CONNECT. Out: everything that a client can say there, owned; or the reason that a
//! CONNACK of MQTT 5 gives. Our own and not that of ntex-mqtt, which refuses or drops values that the standard allows, and has one
//! error for all that is wrong (ADR 0006). Decides nothing: who may connect, and with what session, is decided elsewhere.

use fellbeck_core::{QoS, validate_topic_name};

use super::fields::{SHORT, take_field, take_name};
use super::frames::Fault;
use super::property_block::{self, Place};
use super::publish::Travelling;
use crate::wire::{Version, Will};

/// Dialect of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// MQTT 3.1: `MQIsdp`, level 3. It has no reserved bits, and wants a client identifier.
    V31,
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    V5,
}

impl Dialect {
    pub(super) fn version(self) -> Version {
        match self {
            Self::V31 | Self::V311 => Version::V3,
            Self::V5 => Version::V5,
        }
    }
}

/// A CONNECT as decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectIn {
    pub(super) dialect: Dialect,
    /// Empty: one is to be assigned.
    pub(super) client_id: String,
    pub(super) clean_start: bool,
    /// Seconds; 0: never.
    pub(super) keep_alive: u16,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) will: Option<Will>,
    pub(super) wishes: Wishes,
}

/// What the properties of a CONNECT say; the defaults of the standard where they say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) session_expiry_secs: u32,
    pub(super) receive_maximum: u16,
    pub(super) packet_max: Option<u32>,
    pub(super) topic_alias_maximum: u16,
    /// Reason strings are wanted on every packet that may have one.
    pub(super) problem_information: bool,
    pub(super) auth_method: Option<String>,
    pub(super) auth_data: Option<Vec<u8>>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            session_expiry_secs: 0,
            receive_maximum: u16::MAX,
            packet_max: None,
            topic_alias_maximum: 0,
            problem_information: true,
            auth_method: None,
            auth_data: None,
        }
    }
}

const RESERVED: u8 = 0x01;
const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// `bytes` follow the protocol level.
pub(super) fn decode(dialect: Dialect, bytes: &[u8]) -> Result<ConnectIn, Fault> {
    let ([flags, keep_alive @ ..], rest) = bytes.split_first_chunk::<3>().ok_or(SHORT)?;
    let flags = *flags;
    check_flags(dialect, flags)?;
    let (wishes, rest) = match dialect {
        Dialect::V31 | Dialect::V311 => (Wishes::default(), rest),
        Dialect::V5 => read_wishes(rest)?,
    };
    let (client_id, rest) = take_name(rest)?; // [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
    let (will, rest) = if flags & WILL == 0 {
        (None, rest)
    } else {
        read_will(dialect, flags, rest).map(|(will, rest)| (Some(will), rest))?
    };
    let (user_name, rest) = if flags & USER_NAME == 0 {
        (None, rest)
    } else {
        take_name(rest).map(|(name, rest)| (Some(name), rest))? // [MQTT5-3.1.2-17] [MQTT5-3.1.3-12]
    };
    let (password, rest) = if flags & PASSWORD == 0 {
        (None, rest)
    } else {
        take_field(rest).map(|(field, rest)| (Some(field), rest)).ok_or(SHORT)? // [MQTT5-3.1.2-19]
    };
    if !rest.is_empty() {
        // [MQTT5-3.1.2-16] [MQTT5-3.1.2-18] [MQTT5-3.1.4-1] [MQTT3-3.1.4-1]
        return Err(Fault::malformed("CONNECT is longer than its fields"));
    }
    check_client_id(dialect, client_id, flags & CLEAN != 0)?;
    Ok(ConnectIn {
        dialect,
        client_id: client_id.to_owned(),
        clean_start: flags & CLEAN != 0,
        keep_alive: u16::from_be_bytes(*keep_alive),
        user_name: user_name.map(str::to_owned),
        password: password.map(<[u8]>::to_vec),
        will,
        wishes,
    })
}

fn check_flags(dialect: Dialect, flags: u8) -> Result<(), Fault> {
    if flags & RESERVED != 0 && dialect != Dialect::V31 {
        return Err(Fault::malformed("reserved flag of CONNECT is set")); // [MQTT5-3.1.2-3] [MQTT3-3.1.2-3]
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(Fault::malformed("flags of a will without a will")); // [MQTT5-3.1.2-11] [MQTT5-3.1.2-13]
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(Fault::malformed("will with QoS 3")); // [MQTT5-3.1.2-12] [MQTT3-3.1.2-14]
    }
    if dialect != Dialect::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(Fault::malformed("password without a user name")); // [MQTT3-3.1.2-22]
    }
    Ok(())
}

fn check_client_id(dialect: Dialect, client_id: &str, is_clean: bool) -> Result<(), Fault> {
    let may_be_assigned = match dialect {
        Dialect::V31 => false,
        Dialect::V311 => is_clean, // [MQTT3-3.1.3-7] [MQTT3-3.1.3-8]
        Dialect::V5 => true,       // [MQTT5-3.1.3-6]
    };
    if client_id.is_empty() && !may_be_assigned {
        return Err(Fault {
            reason: 0x85,
            text: "client identifier is missing",
        });
    }
    Ok(())
}

fn read_wishes(bytes: &[u8]) -> Result<(Wishes, &[u8]), Fault> {
    let mut wishes = Wishes::default();
    let block = property_block::walk(Place::Connect, bytes, |span| match span.id {
        0x11 => wishes.session_expiry_secs = span.number(),
        0x15 => wishes.auth_method = Some(span.text().to_owned()),
        0x16 => wishes.auth_data = Some(span.bytes().to_vec()),
        0x17 => wishes.problem_information = span.number() == 1,
        0x21 => wishes.receive_maximum = span.number() as u16,
        0x22 => wishes.topic_alias_maximum = span.number() as u16,
        0x27 => wishes.packet_max = Some(span.number()),
        // Response Information is never given, and user properties of a CONNECT mean nothing to us.
        _ => {}
    })?;
    if wishes.auth_data.is_some() && wishes.auth_method.is_none() {
        return Err(Fault::protocol("authentication data without a method"));
    }
    Ok((wishes, block.after))
}

fn read_will(dialect: Dialect, flags: u8, bytes: &[u8]) -> Result<(Will, &[u8]), Fault> {
    let mut scratch = Vec::new();
    let mut travelling = Travelling::default();
    let (mut delay_secs, mut expiry_secs, mut is_text) = (0, None, false);
    let (properties, rest) = match dialect {
        Dialect::V31 | Dialect::V311 => (&[][..], bytes),
        Dialect::V5 => {
            let block = property_block::walk(Place::Will, bytes, |span| match span.id {
                0x02 => expiry_secs = Some(span.number()),
                0x18 => delay_secs = span.number(),
                id => {
                    is_text |= id == 0x01 && span.number() == 1;
                    travelling.add(&span, &mut scratch);
                }
            })?;
            (travelling.finish(block.bytes, &mut scratch), block.after)
        }
    };
    let (topic, rest) = take_name(rest)?; // [MQTT5-3.1.2-9] [MQTT5-3.1.3-11]
    if validate_topic_name(topic).is_err() {
        return Err(match dialect {
            // [MQTT3-3.1.4-1]
            Dialect::V31 | Dialect::V311 => Fault::malformed("will topic is not a topic name"),
            Dialect::V5 => TOPIC_INVALID,
        });
    }
    let (payload, rest) = take_field(rest).ok_or(SHORT)?;
    if is_text && std::str::from_utf8(payload).is_err() {
        return Err(Fault {
            reason: 0x99,
            text: "will is not the UTF-8 that its indicator says",
        });
    }
    let will = Will {
        topic: topic.to_owned(),
        payload: payload.to_vec(),
        qos: match flags & WILL_QOS {
            0 => QoS::AtMostOnce,
            0x08 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        retain: flags & WILL_RETAIN != 0,
        properties: properties.to_vec(),
        expiry_secs,
        delay_secs,
    };
    Ok((will, rest))
}

const TOPIC_INVALID: Fault = Fault {
    reason: 0x90,
    text: "topic name invalid",
};

#[cfg(test)]
mod tests;
