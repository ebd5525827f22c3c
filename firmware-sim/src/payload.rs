//! What every simulated payload carries: device, sequence and time.
//!
//! In: a [`Stamp`] and a reading. Out: the bytes of a PUBLISH, as JSON or as a binary frame, and back to the stamp.
//! A consumer that knows nothing of the sensors can thus check loss, doubles and order.
//! Bytes from a broker are hostile: decoding never panics and takes no more memory than the input.
//!
//! Binary layout, numbers big-endian: `"FBSM" | version 1 | device length u8 | seq u64 | time_us u64 | device | body`.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// First bytes of a binary frame; no JSON text begins with them.
const MAGIC: &[u8; 4] = b"FBSM";
/// Version of the binary layout.
const VERSION: u8 = 1;
/// Bytes before the device name.
const HEADER_BYTES: usize = 4 + 1 + 1 + 8 + 8;

/// Identity of one published message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp<'a> {
    /// MQTT client ID of the device.
    #[serde(borrow)]
    pub device: Cow<'a, str>,
    /// Counts the publishes of this device from 1 without a hole.
    pub seq: u64,
    /// Microseconds since 1970 by the clock of the device, when the message was made.
    pub time_us: u64,
}

/// Why bytes are not a payload of ours. The message is foreign; nothing was counted yet.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The frame begins like a binary frame and ends too early, or its device name is not UTF-8.
    #[error("binary frame of {size} bytes is cut short or names no device")]
    Binary {
        /// Length of the payload.
        size: usize,
    },
    /// The frame is of a later simulator.
    #[error("binary frame has version {version}, this program knows version {VERSION}")]
    Version {
        /// Version found.
        version: u8,
    },
    /// The text is not JSON, or lacks device, seq or time_us.
    #[error("payload is neither a binary frame nor JSON with device, seq and time_us")]
    Json(#[source] serde_json::Error),
}

/// A JSON object as it is published: the stamp first, then the fields of the reading.
#[derive(Serialize)]
struct Telemetry<'a, R> {
    #[serde(flatten)]
    stamp: &'a Stamp<'a>,
    #[serde(flatten)]
    reading: &'a R,
}

impl Stamp<'_> {
    /// JSON with the fields of the stamp and of `reading` side by side.
    pub fn to_json<R: Serialize>(&self, reading: &R) -> Vec<u8> {
        serde_json::to_vec(&Telemetry { stamp: self, reading }).expect("readings are plain structs with string keys")
    }

    /// A binary frame with `body` behind the header. A device name above 255 bytes is cut, since its length has one byte.
    pub fn to_binary(&self, body: &[u8]) -> Vec<u8> {
        let device = &self.device.as_bytes()[..self.device.len().min(usize::from(u8::MAX))];
        let mut frame = Vec::with_capacity(HEADER_BYTES + device.len() + body.len());
        frame.extend_from_slice(MAGIC);
        frame.push(VERSION);
        frame.push(u8::try_from(device.len()).expect("cut to 255 bytes above"));
        frame.extend_from_slice(&self.seq.to_be_bytes());
        frame.extend_from_slice(&self.time_us.to_be_bytes());
        frame.extend_from_slice(device);
        frame.extend_from_slice(body);
        frame
    }
}

/// Reads the stamp of a payload, whichever of the two forms it has.
pub fn decode(payload: &[u8]) -> Result<Stamp<'_>, PayloadError> {
    if payload.starts_with(MAGIC) {
        decode_binary(payload)
    } else {
        decode_json(payload)
    }
}

fn decode_json(payload: &[u8]) -> Result<Stamp<'_>, PayloadError> {
    serde_json::from_slice(payload).map_err(PayloadError::Json)
}

fn decode_binary(payload: &[u8]) -> Result<Stamp<'_>, PayloadError> {
    let short = || PayloadError::Binary { size: payload.len() };
    let header = payload.get(..HEADER_BYTES).ok_or_else(short)?;
    if header[4] != VERSION {
        return Err(PayloadError::Version { version: header[4] });
    }
    let device = payload
        .get(HEADER_BYTES..HEADER_BYTES + usize::from(header[5]))
        .ok_or_else(short)?;
    let device = std::str::from_utf8(device).map_err(|_| short())?;
    Ok(Stamp {
        device: Cow::Borrowed(device),
        seq: be_u64(&header[6..14]),
        time_us: be_u64(&header[14..22]),
    })
}

fn be_u64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("the caller slices eight bytes"))
}

/// Microseconds since 1970, the time in every stamp.
pub fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp<'static> {
        Stamp {
            device: Cow::Borrowed("sim-7-0001"),
            seq: 42,
            time_us: 1_790_000_000_000_000,
        }
    }

    #[derive(Serialize)]
    struct Reading {
        temperature_c: f64,
        note: &'static str,
    }

    #[test]
    fn json_gives_the_stamp_back_whatever_the_reading() {
        let bytes = stamp().to_json(&Reading {
            temperature_c: 21.5,
            note: "a \"quoted\" word",
        });
        assert_eq!(decode(&bytes).expect("own JSON"), stamp());
    }

    #[test]
    fn escaped_device_names_survive_json() {
        let odd = Stamp {
            device: Cow::Borrowed("dev \"1\"\n"),
            ..stamp()
        };
        let bytes = odd.to_json(&Reading {
            temperature_c: 0.0,
            note: "",
        });
        assert_eq!(decode(&bytes).expect("own JSON"), odd);
    }

    #[test]
    fn binary_gives_the_stamp_back_and_keeps_the_body() {
        let bytes = stamp().to_binary(&[1, 2, 3]);
        assert_eq!(decode(&bytes).expect("own frame"), stamp());
        assert!(bytes.ends_with(&[1, 2, 3]));
    }

    #[test]
    fn a_binary_frame_cut_anywhere_in_its_header_is_an_error() {
        let bytes = stamp().to_binary(&[]);
        for end in MAGIC.len()..bytes.len() {
            assert!(
                decode(&bytes[..end]).is_err(),
                "cut at {end} was taken for a whole frame"
            );
        }
    }

    #[test]
    fn foreign_payloads_are_errors() {
        assert!(matches!(decode(b""), Err(PayloadError::Json(_))));
        assert!(matches!(decode(b"21.5"), Err(PayloadError::Json(_))));
        assert!(matches!(
            decode(br#"{"device":"a","seq":1}"#),
            Err(PayloadError::Json(_))
        ));
        let mut later = stamp().to_binary(&[]);
        later[4] = 9;
        assert!(matches!(decode(&later), Err(PayloadError::Version { version: 9 })));
    }
}
