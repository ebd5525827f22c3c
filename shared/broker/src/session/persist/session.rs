//! What is stored of a session apart from its cursor: expiry, when it left, its will.

use bytes::Bytes;
use fellbeck_core::varint::{put_bytes, put_u64, take_bytes, take_u32, take_u64};
use fellbeck_core::{ClockQuality, QoS, WallTime};

use super::fields::{take_byte, take_text};
use super::{DecodeError, VERSION, session_key, versioned};
use crate::session::state::Session;
use crate::wire::Will;

/// What is stored of a session apart from its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::session) struct StoredSession {
    pub(in crate::session) expiry_secs: u32,
    /// When it lost its connection; `None`: it was connected.
    pub(in crate::session) left: Option<(WallTime, ClockQuality)>,
    pub(in crate::session) will: Option<Will>,
}

pub(in crate::session) fn session(session: &Session) -> (Bytes, Bytes) {
    let stored = StoredSession {
        expiry_secs: session.expiry_secs,
        left: session.left,
        will: session.will.as_deref().cloned(),
    };
    (session_key(&session.client_id), stored.encode())
}

const HAS_LEFT: u8 = 1;
const HAS_WILL: u8 = 2;
const WILL_RETAIN: u8 = 4;
const WILL_EXPIRY: u8 = 8;

impl StoredSession {
    pub(in crate::session) fn encode(&self) -> Bytes {
        let will = self.will.as_ref();
        let mut flags = 0;
        for (flag, set) in [
            (HAS_LEFT, self.left.is_some()),
            (HAS_WILL, will.is_some()),
            (WILL_RETAIN, will.is_some_and(|will| will.retain)),
            (WILL_EXPIRY, will.is_some_and(|will| will.expiry_secs.is_some())),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let mut out = vec![VERSION, flags];
        put_u64(&mut out, u64::from(self.expiry_secs));
        if let Some((at, clock)) = self.left {
            put_u64(&mut out, at.0);
            out.push(clock as u8);
        }
        if let Some(will) = will {
            out.push(will.qos as u8);
            put_bytes(&mut out, will.topic.as_bytes());
            put_bytes(&mut out, &will.payload);
            put_bytes(&mut out, &will.properties);
            put_u64(&mut out, u64::from(will.delay_secs));
            if let Some(secs) = will.expiry_secs {
                put_u64(&mut out, u64::from(secs));
            }
        }
        out.into()
    }

    pub(in crate::session) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut input = versioned(value)?;
        let stored = Self::take(&mut input).filter(|_| input.is_empty());
        stored.ok_or(DecodeError::Damaged)
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let flags = take_byte(input)?;
        if flags > (HAS_LEFT | HAS_WILL | WILL_RETAIN | WILL_EXPIRY) {
            return None;
        }
        Some(Self {
            expiry_secs: take_u32(input)?,
            left: match flags & HAS_LEFT {
                0 => None,
                _ => Some((WallTime(take_u64(input)?), ClockQuality::from_u8(take_byte(input)?)?)),
            },
            will: match flags & HAS_WILL {
                0 if flags & (WILL_RETAIN | WILL_EXPIRY) != 0 => return None,
                0 => None,
                _ => Some(take_will(input, flags)?),
            },
        })
    }
}

fn take_will(input: &mut &[u8], flags: u8) -> Option<Will> {
    let qos = QoS::from_u8(take_byte(input)?)?;
    let topic = take_text(input)?.to_owned();
    fellbeck_core::validate_topic_name(&topic).ok()?;
    let payload = take_bytes(input)?.to_vec();
    let properties = take_bytes(input)?.to_vec();
    fellbeck_core::Properties::parse(&properties).ok()?;
    Some(Will {
        topic,
        payload,
        qos,
        retain: flags & WILL_RETAIN != 0,
        properties,
        delay_secs: take_u32(input)?,
        expiry_secs: match flags & WILL_EXPIRY {
            0 => None,
            _ => Some(take_u32(input)?),
        },
    })
}
