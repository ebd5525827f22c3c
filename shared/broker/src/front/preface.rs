//! The first packet of a connection, looked at before ntex-mqtt takes over.
//!
//! In: the first bytes of a socket. Out: a CONNECT, decoded and taken out of the buffer; or the fault, and the version in which it
//! can be told, once there is one. While it is not whole its bytes are charged to the budget of the [`Arrival`].

use std::convert::Infallible;

use ntex::codec::Decoder;
use ntex::util::BytesMut;

use super::arrival::Arrival;
use super::connect::{self, ConnectIn, Dialect};
use super::fields::{shortest_varint, take_field, varint};
use super::frames::Fault;
use super::traffic::Traffic;
use crate::wire::Version;

/// What the first bytes are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preface {
    Connect(Box<ConnectIn>),
    /// Not for us. Without a version there is no language to say it in.
    Refuse(Option<Version>, Fault),
}

/// Reads a [`Preface`].
pub(super) struct PrefaceCodec<'a> {
    pub(super) packet_max: u32,
    pub(super) arrival: &'a Arrival,
    pub(super) traffic: &'a Traffic,
}

/// Largest CONNECT: its five fields have at most 64 KiB each, and user properties want some room.
const CONNECT_MAX: u32 = 512 << 10;

impl Decoder for PrefaceCodec<'_> {
    type Item = Preface;
    type Error = Infallible;

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<Preface>, Infallible> {
        let speaks = |version| self.arrival.speaks(version);
        let found = look(buffer, self.packet_max.min(CONNECT_MAX), &speaks);
        self.arrival.holds(if found.is_none() { buffer.len() } else { 0 });
        Ok(found.map(|(preface, used)| {
            if used > 0 {
                self.traffic.receive(used);
                self.traffic.connects.increment(1);
            }
            buffer.advance_to(used);
            preface
        }))
    }
}

/// The preface, and the length of a CONNECT that is taken; `None` while it is not whole.
/// `speaks` is told the version as soon as it is known.
pub(super) fn look(bytes: &[u8], max: u32, speaks: &dyn Fn(Version)) -> Option<(Preface, usize)> {
    let refuse = |version, fault| Some((Preface::Refuse(version, fault), 0));
    let &first = bytes.first()?;
    if first >> 4 != 1 {
        // [MQTT5-3.1.0-1] [MQTT3-3.1.0-1]
        return refuse(None, Fault::protocol("first packet is not a CONNECT"));
    }
    let (remaining, used) = match varint(&bytes[1..]) {
        Ok(known) => known?,
        Err(fault) => return refuse(None, fault),
    };
    let body = &bytes[1 + used..];
    let is_whole = body.len() >= remaining as usize;
    let packet = if is_whole { &body[..remaining as usize] } else { body };
    let (dialect, rest) = match dialect(packet) {
        Ok(Some(known)) => known,
        // [MQTT5-3.1.4-1]
        Ok(None) if is_whole => return refuse(None, Fault::malformed("CONNECT is cut off")),
        Ok(None) => return None,
        Err((version, fault)) => return refuse(version, fault),
    };
    let version = dialect.version();
    speaks(version);
    if first & 0x0F != 0 && dialect != Dialect::V31 {
        return refuse(
            Some(version),
            Fault::malformed("reserved flags of the fixed header are set"),
        );
    }
    if dialect == Dialect::V5
        && let Err(fault) = shortest_varint(&bytes[1..])
    {
        return refuse(Some(version), fault);
    }
    if remaining > max {
        let fault = Fault {
            reason: 0x95,
            text: "CONNECT is too large",
        };
        return refuse(Some(version), fault);
    }
    if !is_whole {
        return None;
    }
    match connect::decode(dialect, rest) {
        Ok(connect) => Some((Preface::Connect(Box::new(connect)), 1 + used + packet.len())),
        Err(fault) => refuse(Some(version), fault),
    }
}

type Unspoken = (Option<Version>, Fault);

/// The dialect, and what follows the level; `None` while that is not there.
fn dialect(packet: &[u8]) -> Result<Option<(Dialect, &[u8])>, Unspoken> {
    const UNKNOWN: Unspoken = (None, Fault::protocol("unknown protocol name"));
    if packet.len() >= 2 && !matches!(packet[..2], [0, 4 | 6]) {
        return Err(UNKNOWN);
    }
    let Some((name, rest)) = take_field(packet) else {
        return Ok(None);
    };
    let is_legacy = match name {
        b"MQTT" => false,
        b"MQIsdp" => true,
        _ => return Err(UNKNOWN), // [MQTT5-3.1.2-1] [MQTT3-3.1.2-1]
    };
    let Some((&level, rest)) = rest.split_first() else {
        return Ok(None);
    };
    let dialect = match (is_legacy, level) {
        (true, 3) => Dialect::V31,
        (false, 4) => Dialect::V311,
        (false, 5) => Dialect::V5,
        _ => {
            // In the form that every version before 5 knows, and mosquitto uses. [MQTT3-3.1.2-2] [MQTT5-3.1.2-2]
            let fault = Fault {
                reason: 0x84,
                text: "unknown protocol level",
            };
            return Err((Some(Version::V3), fault));
        }
    };
    Ok(Some((dialect, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fellbeck_core::Tick;

    use crate::front::frames::Assembly;

    /// The answer, and what is left in the buffer.
    fn see(bytes: &[u8]) -> (Option<Preface>, Vec<u8>) {
        let arrival = Arrival::new(&Assembly::new(1 << 20), Tick::default(), || {});
        let codec = PrefaceCodec {
            packet_max: 1000,
            arrival: &arrival,
            traffic: &Traffic::new(),
        };
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(bytes);
        let preface = codec.decode(&mut buffer).unwrap();
        (preface, buffer.to_vec())
    }

    fn refusal(bytes: &[u8]) -> Option<(Option<Version>, u8)> {
        match see(bytes).0 {
            Some(Preface::Refuse(version, fault)) => Some((version, fault.reason)),
            _ => None,
        }
    }

    const V3: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a";

    #[test]
    fn a_connect_is_taken_only_when_it_is_whole() {
        for cut in 0..V3.len() {
            assert_eq!(see(&V3[..cut]).0, None, "{cut}");
        }
        let (preface, rest) = see(&[V3, b"REST"].concat());
        let Some(Preface::Connect(connect)) = preface else {
            panic!("{preface:?}");
        };
        assert_eq!((connect.client_id.as_str(), connect.keep_alive), ("a", 60));
        assert_eq!(rest, b"REST");
    }

    #[test]
    fn what_cannot_be_served_is_told_in_the_version_of_the_client() {
        let v3 = Some(Version::V3);
        let v5 = Some(Version::V5);
        assert_eq!(refusal(b"\x30\x00"), Some((None, 0x82)));
        assert_eq!(refusal(b"GET / HTTP/1.1\r\n\r\n"), Some((None, 0x82)));
        assert_eq!(refusal(b"\x10\xFF\xFF\xFF\xFF"), Some((None, 0x81)));
        assert_eq!(
            refusal(b"\x10\x0D\x00\x04MQTT\x06\x02\x00\x3C\x00\x01a"),
            Some((v3, 0x84))
        );
        assert_eq!(
            refusal(b"\x10\x0F\x00\x06MQIsdp\x02\x02\x00\x3C\x00\x01a"),
            Some((v3, 0x84))
        );
        assert_eq!(
            refusal(b"\x10\x0D\x00\x04MQXX\x04\x02\x00\x3C\x00\x01a"),
            Some((None, 0x82))
        );
        assert_eq!(refusal(b"\x10\x0D\x01\x04MQTT"), Some((None, 0x82)));
        assert_eq!(
            refusal(b"\x11\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01a"),
            Some((v3, 0x81))
        );
        assert_eq!(refusal(b"\x10\x8D\x00\x00\x04MQTT\x05\x02\x00\x3C"), Some((v5, 0x81)));
        assert_eq!(refusal(b"\x10\xFF\xFF\x03\x00\x04MQTT\x05"), Some((v5, 0x95)));
        assert_eq!(
            refusal(b"\x10\x0C\x00\x04MQTT\x04\x00\x00\x3C\x00\x00"),
            Some((v3, 0x85))
        );
    }

    /// Found by fuzzing: the name was once taken from behind the end of the packet, and the slice of the packet panicked.
    #[test]
    fn a_packet_that_ends_within_its_protocol_name_is_malformed() {
        for remaining in 0..7 {
            let bytes = [&[0x10, remaining][..], b"\x00\x04MQTT\x05"].concat();
            let expected = if remaining < 7 { Some((None, 0x81)) } else { None };
            assert_eq!(refusal(&bytes), expected, "{remaining}");
        }
        assert_eq!(refusal(b"\x10\x07\x00\x04MQTT\x05"), Some((Some(Version::V5), 0x81)));
    }

    #[test]
    fn mqtt_3_1_is_spoken_as_mosquitto_does() {
        for first in [0x10, 0x14] {
            let bytes = [&[first][..], b"\x0F\x00\x06MQIsdp\x03\x01\x00\x3C\x00\x01a"].concat();
            let Some(Preface::Connect(connect)) = see(&bytes).0 else {
                panic!("{bytes:02X?}");
            };
            assert_eq!((connect.dialect, connect.clean_start), (Dialect::V31, false));
        }
        let nameless = b"\x10\x0E\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x00";
        assert_eq!(refusal(nameless), Some((Some(Version::V3), 0x85)));
    }

    #[test]
    fn what_is_not_whole_is_charged() {
        let budget = Assembly::new(1 << 20);
        let arrival = Arrival::new(&budget, Tick::default(), || {});
        let codec = PrefaceCodec {
            packet_max: 100_000,
            arrival: &arrival,
            traffic: &Traffic::new(),
        };
        let mut buffer = BytesMut::new();
        buffer.extend_from_slice(b"\x10\x80\x80\x03\x00\x04MQTT\x05");
        buffer.extend_from_slice(&[0; 20_000]);
        assert_eq!(codec.decode(&mut buffer).unwrap(), None);
        assert!(budget.used() > 10_000, "{}", budget.used());
        drop(arrival);
        assert_eq!(budget.used(), 0);
    }
}
