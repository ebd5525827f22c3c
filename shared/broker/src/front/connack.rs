//! CONNACK in all its forms.
//!
//! In: what was decided about a CONNECT. Out: the packet, as ntex-mqtt wants it where the connection goes on, as bytes where it
//! ends. All limits of this node that MQTT 5 can express are announced; what is absent has the value that the standard gives it:
//! Maximum QoS 2, retained messages, wildcards, subscription identifiers and shared subscriptions available.

use std::num::NonZeroU16;

use ntex::codec::Encoder;
use ntex::util::{BytePages, ByteString, Bytes};
use ntex_mqtt::v5::codec::{Codec, ConnectAck, ConnectAckReason, Encoded, Packet};

use super::frames::Fault;
use crate::wire::Version;

/// What an accepted connection is told beside Session Present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) receive_maximum: u16,
    pub(super) packet_max: u32,
    pub(super) topic_alias_maximum: u16,
    /// Where it is not what the client asked for.
    pub(super) session_expiry_secs: Option<u32>,
    /// Where the client gave none. [MQTT5-3.2.2-16]
    pub(super) assigned_client_id: Option<String>,
    /// Where it replaces that of the client. [MQTT5-3.2.2-21]
    pub(super) server_keep_alive: Option<u16>,
    /// Authentication method of the CONNECT, and the last data of the exchange. [MQTT5-4.12.0-5]
    pub(super) auth: Option<(String, Vec<u8>)>,
}

/// The CONNACK of an accepted connection.
pub(super) fn accepted(terms: &Terms, session_present: bool) -> ConnectAck {
    let auth = terms.auth.as_ref();
    ConnectAck {
        session_present,
        reason_code: ConnectAckReason::Success,
        receive_max: NonZeroU16::new(terms.receive_maximum).unwrap_or(NonZeroU16::MAX),
        max_packet_size: Some(terms.packet_max),
        topic_alias_max: terms.topic_alias_maximum,
        session_expiry_interval_secs: terms.session_expiry_secs,
        assigned_client_id: terms.assigned_client_id.clone().map(ByteString::from),
        server_keepalive_sec: terms.server_keep_alive,
        auth_method: auth.map(|(method, _)| ByteString::from(method.as_str())),
        auth_data: auth
            .filter(|(_, data)| !data.is_empty())
            .map(|(_, data)| Bytes::copy_from_slice(data)),
        ..ConnectAck::default()
    }
}

/// Whether the client takes a CONNACK of that size. [MQTT5-3.1.2-24]
pub(super) fn fits(ack: ConnectAck, packet_max: u32) -> bool {
    encode(ack).is_some_and(|bytes| bytes.len() <= packet_max as usize)
}

/// Length as it goes out, for the count of traffic: behind TLS the write buffer shows nothing of it.
pub(super) fn len(ack: &ConnectAck) -> usize {
    encode(ack.clone()).map_or(0, |bytes| bytes.len())
}

/// The bytes of a refusal; empty where the version has no way to say it, or the client would not take it.
pub(super) fn refusal(version: Version, fault: Fault, packet_max: u32) -> Vec<u8> {
    match version {
        Version::V3 => v3_code(fault.reason).map_or(Vec::new(), |code| vec![0x20, 2, 0, code]),
        Version::V5 => {
            let reason_code = ConnectAckReason::try_from(fault.reason).unwrap_or(ConnectAckReason::NotAuthorized);
            let bare = ConnectAck {
                reason_code,
                ..ConnectAck::default()
            };
            let told = ConnectAck {
                reason_string: Some(ByteString::from_static(fault.text)),
                ..bare.clone()
            };
            // [MQTT5-3.2.2-19]
            let forms = [told, bare].into_iter().filter_map(encode);
            let mut fitting = forms.filter(|bytes| bytes.len() <= packet_max as usize);
            fitting.next().unwrap_or_default()
        }
    }
}

fn encode(ack: ConnectAck) -> Option<Vec<u8>> {
    let mut pages = BytePages::default();
    let packet = Encoded::Packet(Packet::ConnectAck(Box::new(ack)));
    Codec::new().encodev(packet, &mut pages).ok()?;
    Some(pages.freeze().to_vec())
}

/// 3.1.1 has five codes; a CONNECT that is malformed gets none of them ([MQTT3-3.1.4-1]).
fn v3_code(reason: u8) -> Option<u8> {
    match reason {
        0x81 | 0x82 | 0x95 => None,
        0x84 => Some(1),
        0x85 => Some(2),
        0x86 => Some(4),
        0x87 | 0x8C | 0x90 => Some(5),
        _ => Some(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: Fault = Fault {
        reason: 0x97,
        text: "full",
    };

    fn terms() -> Terms {
        Terms {
            receive_maximum: 7,
            packet_max: 0x0102_0304,
            topic_alias_maximum: 9,
            session_expiry_secs: None,
            assigned_client_id: None,
            server_keep_alive: None,
            auth: None,
        }
    }

    #[test]
    fn what_is_announced_and_what_is_left_to_the_standard() {
        let bytes = encode(accepted(&terms(), true)).unwrap();
        assert_eq!(
            bytes,
            b"\x20\x0E\x01\x00\x0B\x21\x00\x07\x27\x01\x02\x03\x04\x22\x00\x09"
        );
        let all = Terms {
            session_expiry_secs: Some(5),
            assigned_client_id: Some("id".to_owned()),
            server_keep_alive: Some(6),
            auth: Some(("m".to_owned(), b"d".to_vec())),
            ..terms()
        };
        let bytes = encode(accepted(&all, false)).unwrap();
        for property in [
            &b"\x11\x00\x00\x00\x05"[..],
            b"\x12\x00\x02id",
            b"\x13\x00\x06",
            b"\x15\x00\x01m",
            b"\x16\x00\x01d",
        ] {
            assert!(
                bytes.windows(property.len()).any(|part| part == property),
                "{property:02X?}"
            );
        }
    }

    #[test]
    fn a_connack_that_the_client_does_not_take_is_seen_before() {
        let length = encode(accepted(&terms(), true)).unwrap().len() as u32;
        assert!(fits(accepted(&terms(), true), length));
        assert!(!fits(accepted(&terms(), true), length - 1));
    }

    #[test]
    fn a_refusal_drops_its_text_and_then_itself() {
        let refusal = |max| refusal(Version::V5, FAULT, max);
        assert_eq!(refusal(u32::MAX), b"\x20\x0A\x00\x97\x07\x1F\x00\x04full");
        assert_eq!(refusal(11), b"\x20\x03\x00\x97\x00");
        assert_eq!(refusal(4), b"");
    }

    #[test]
    fn version_3_has_its_own_codes_and_no_word_for_what_is_malformed() {
        let code = |reason| refusal(Version::V3, Fault { reason, text: "" }, u32::MAX);
        assert_eq!(code(0x84), [0x20, 2, 0, 1]);
        assert_eq!(code(0x85), [0x20, 2, 0, 2]);
        assert_eq!(code(0x97), [0x20, 2, 0, 3]);
        assert_eq!(code(0x86), [0x20, 2, 0, 4]);
        assert_eq!(code(0x87), [0x20, 2, 0, 5]);
        assert_eq!(code(0x81), b"");
    }
}
