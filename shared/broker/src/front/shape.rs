//! Checks the outer shape of a control packet from a client before ntex-mqtt decodes it.
//!
//! In: a whole packet that is neither CONNECT nor PUBLISH, which have decoders of their own. Out: nothing, or the fault.
//! The reason: the codec of ntex-mqtt 8.2.1 subtracts unchecked lengths, believes a property length of 256 MB, ignores reserved
//! bits and has one error for everything. With checked packets none of that is reached, and the client is told what was wrong.

use fellbeck_core::{Filter, FilterError};

use super::fields::{SHORT, take_name};
use super::frames::Fault;
use super::property_block::{self, Place};
use crate::wire::Version;

const MALFORMED_FLAGS: Fault = Fault::malformed("reserved flags of the fixed header are set"); // [MQTT5-2.1.3-1]
const NO_PACKET_ID: Fault = Fault::protocol("packet identifier 0"); // [MQTT5-2.2.1-3] [MQTT3-2.3.1-1]
const ENDLESS: Fault = Fault::malformed("packet is longer than its fields");

/// Reason codes of a PUBACK or PUBREC. [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
const RECEIVED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Reason codes of a PUBREL or PUBCOMP. [MQTT5-3.6.2-1] [MQTT5-3.7.2-1]
const RELEASED: &[u8] = &[0x00, 0x92];
/// Reason codes of a client's DISCONNECT. [MQTT5-3.14.2-1]
const LEAVING: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
];
/// Reason codes of an AUTH. [MQTT5-3.15.2-1]
const AUTHENTICATING: &[u8] = &[0x00, 0x18, 0x19];

/// `first` is the first byte of the fixed header, `body` what follows that header.
pub(super) fn check(version: Version, first: u8, body: &[u8]) -> Result<(), Fault> {
    let v5 = version == Version::V5;
    match (first >> 4, first & 0x0F) {
        (1, 0) => Err(Fault::protocol("second CONNECT")), // [MQTT5-3.1.0-2] [MQTT3-3.1.0-2]
        (4 | 5, 0) => check_ack(version, body, RECEIVED),
        (6, 2) | (7, 0) => check_ack(version, body, RELEASED),
        (8, 2) => check_filters(version, body, true),
        (10, 2) => check_filters(version, body, false),
        (12, 0) if body.is_empty() => Ok(()),
        (12, 0) => Err(Fault::malformed("PINGREQ with a body")),
        (14, 0) if v5 => check_reason_and_properties(Place::Disconnect, body, LEAVING),
        (14, 0) if body.is_empty() => Ok(()),
        (14, 0) => Err(Fault::malformed("DISCONNECT with a body")),
        (15, 0) if v5 => check_reason_and_properties(Place::Auth, body, AUTHENTICATING),
        (15, _) if v5 => Err(MALFORMED_FLAGS), // [MQTT5-3.15.1-1]
        (2 | 9 | 11 | 13, _) => Err(Fault::protocol("packet that only a server may send")),
        (0 | 15, _) => Err(Fault::malformed("reserved packet type")),
        // [MQTT5-3.6.1-1] [MQTT5-3.8.1-1] [MQTT5-3.10.1-1] [MQTT5-3.14.1-1] [MQTT3-2.2.2-2]
        _ => Err(MALFORMED_FLAGS),
    }
}

fn take_packet_id(body: &[u8]) -> Result<&[u8], Fault> {
    let (id, rest) = body.split_first_chunk::<2>().ok_or(SHORT)?;
    if *id == [0, 0] { Err(NO_PACKET_ID) } else { Ok(rest) }
}

fn check_ack(version: Version, body: &[u8], reasons: &[u8]) -> Result<(), Fault> {
    let rest = take_packet_id(body)?;
    match version {
        Version::V3 if rest.is_empty() => Ok(()),
        Version::V3 => Err(ENDLESS),
        Version::V5 => check_reason_and_properties(Place::Ack, rest, reasons),
    }
}

/// Both may be left out, the properties first.
fn check_reason_and_properties(place: Place, rest: &[u8], reasons: &[u8]) -> Result<(), Fault> {
    let Some((reason, block)) = rest.split_first() else {
        return Ok(());
    };
    if !block.is_empty() && !property_block::check(place, block)?.is_empty() {
        return Err(ENDLESS);
    }
    if !reasons.contains(reason) {
        return Err(Fault::protocol("reason code of another packet"));
    }
    Ok(())
}

/// SUBSCRIBE (`with_options`) and UNSUBSCRIBE: a list of at least one filter, nothing behind it, no reserved bit set.
fn check_filters(version: Version, body: &[u8], with_options: bool) -> Result<(), Fault> {
    let mut rest = take_packet_id(body)?;
    if version == Version::V5 {
        let place = if with_options {
            Place::Subscribe
        } else {
            Place::Unsubscribe
        };
        rest = property_block::check(place, rest)?;
    }
    if rest.is_empty() {
        return Err(Fault::protocol("list of filters is empty")); // [MQTT5-3.8.3-2] [MQTT5-3.10.3-2]
    }
    while !rest.is_empty() {
        let (filter, tail) = take_name(rest)?; // [MQTT5-3.8.3-1] [MQTT5-3.10.3-1]
        check_filter(version, filter)?;
        rest = tail;
        if with_options {
            let (&options, tail) = rest.split_first().ok_or(SHORT)?;
            check_options(version, options)?;
            rest = tail;
        }
    }
    Ok(())
}

/// What breaks the syntax is not answered: 0x8F is for filters that are well formed. A bound of ours is for the core to judge, and
/// so is a share name in 3.1.1, which does not know them.
fn check_filter(version: Version, filter: &str) -> Result<(), Fault> {
    match Filter::parse_subscription(filter) {
        // [MQTT5-4.7.3-1] [MQTT3-4.7.3-1]
        Err(FilterError::Empty) => Err(Fault::malformed("topic filter is empty")),
        // [MQTT5-4.7.1-1] [MQTT5-4.7.1-2] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3]
        Err(FilterError::Wildcard | FilterError::Nul) => Err(Fault::malformed("wildcard out of place")),
        // [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]
        Err(FilterError::Share) if version == Version::V5 => Err(Fault::protocol("malformed shared subscription")),
        Err(FilterError::Share | FilterError::TooLong { .. } | FilterError::TooManyLevels { .. }) | Ok(_) => Ok(()),
    }
}

fn check_options(version: Version, options: u8) -> Result<(), Fault> {
    match version {
        // [MQTT3-3.8.3-4]
        Version::V3 if options > 2 => Err(Fault::malformed("reserved bits of the requested QoS")),
        // [MQTT5-3.8.3-5]
        Version::V5 if options & 0xC0 != 0 => Err(Fault::malformed("reserved bits of the subscription options")),
        Version::V5 if options & 0x03 == 3 => Err(Fault::protocol("subscription with QoS 3")),
        Version::V5 if options & 0x30 == 0x30 => Err(Fault::protocol("retain handling 3")),
        Version::V3 | Version::V5 => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reason(version: Version, packet: &[u8]) -> Option<u8> {
        assert_eq!(usize::from(packet[1]), packet.len() - 2, "{packet:02X?}");
        check(version, packet[0], &packet[2..]).err().map(|fault| fault.reason)
    }

    #[test]
    fn malformed_packets_are_told_from_protocol_errors() {
        use Version::{V3, V5};
        let table: &[(Version, &[u8], Option<u8>)] = &[
            (V3, &[0xC0, 0], None),
            (V3, &[0xC0, 1, 0], Some(0x81)),
            (V3, &[0xC1, 0], Some(0x81)),
            (V3, &[0x00, 0], Some(0x81)),
            (V3, &[0x10, 0], Some(0x82)),
            (V5, &[0x11, 0], Some(0x81)),
            (V3, &[0xF0, 0], Some(0x81)),
            (V5, &[0xF0, 0], None),
            (V5, &[0xF1, 0], Some(0x81)),
            (V5, &[0xF0, 1, 0x1A], Some(0x82)),
            (V3, &[0x20, 2, 0, 0], Some(0x82)),
            (V5, &[0xD0, 0], Some(0x82)),
            (V3, &[0x60, 2, 0, 1], Some(0x81)),
            (V3, &[0x62, 2, 0, 1], None),
            (V3, &[0x62, 2, 0, 0], Some(0x82)),
            (V3, &[0x62, 1, 0], Some(0x81)),
            (V3, &[0x40, 3, 0, 1, 0], Some(0x81)),
            (V5, &[0x40, 3, 0, 1, 0x10], None),
            (V5, &[0x40, 3, 0, 1, 0x92], Some(0x82)),
            (V5, &[0x62, 4, 0, 1, 0x92, 0], None),
            (V5, &[0x62, 3, 0, 1, 0x10], Some(0x82)),
            (V5, &[0x62, 5, 0, 1, 0, 0, 0], Some(0x81)),
            (V3, &[0x82, 2, 0, 1], Some(0x82)),
            (V3, &[0x82, 6, 0, 0, 0, 1, b'a', 0], Some(0x82)),
            (V3, &[0x82, 6, 0, 1, 0, 1, b'a', 0x04], Some(0x81)),
            (V3, &[0x82, 6, 0, 1, 0, 1, b'a', 0x03], Some(0x81)),
            (V3, &[0x82, 6, 0, 1, 0, 1, 0x07, 0], Some(0x81)),
            (V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], Some(0x82)),
            (V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x03], Some(0x82)),
            (V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40], Some(0x81)),
            (V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x2E], None),
            (V5, &[0x82, 8, 0, 1, 0x80, 0, 0, 1, b'a', 0], Some(0x81)),
            (V3, &[0x82, 5, 0, 1, 0, 1, b'a'], Some(0x81)),
            (V3, &[0xA2, 2, 0, 1], Some(0x82)),
            (V5, &[0xA2, 6, 0, 0, 0, 0, 1, b'a'], Some(0x82)),
            (V3, &[0xA2, 5, 0, 1, 0, 1, b'a'], None),
            (V3, &[0xA2, 6, 0, 1, 0, 2, 0xC3, 0x28], Some(0x81)),
            (V3, &[0xA2, 4, 0, 1, 0, 0], Some(0x81)),
            (V5, &[0x82, 6, 0, 1, 0, 0, 0, 0], Some(0x81)),
            (V3, &[0x82, 7, 0, 1, 0, 2, b'a', b'#', 0], Some(0x81)),
            (V5, &[0x82, 9, 0, 1, 0, 0, 3, b'+', b'a', b'/', 0], Some(0x81)),
            (V5, b"\x82\x0E\x00\x01\x00\x00\x08$share/g\x00", Some(0x82)),
            (V5, b"\xA2\x0F\x00\x01\x00\x00\x0A$share/+/t", Some(0x82)),
            (V3, b"\x82\x0D\x00\x01\x00\x08$share/g\x00", None),
            (V5, b"\x82\x10\x00\x01\x00\x00\x0A$share/g/t\x00", None),
            (V3, &[0xE0, 1, 0], Some(0x81)),
            (V3, &[0xE1, 0], Some(0x81)),
            (V5, &[0xE1, 0], Some(0x81)),
            (V5, &[0xE0, 1, 0], None),
            (V5, &[0xE0, 1, 0x04], None),
            (V5, &[0xE0, 1, 0x8E], Some(0x82)),
            (V5, &[0xE0, 1, 0x05], Some(0x82)),
            (V5, &[0xE0, 6, 0, 4, 0x1C, 0, 1, b'p'], None),
        ];
        for (version, packet, expected) in table {
            assert_eq!(reason(*version, packet), *expected, "{version:?} {packet:02X?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(first: u8, body in prop::collection::vec(any::<u8>(), 0..100)) {
            for version in [Version::V3, Version::V5] {
                let answer = check(version, first, &body);
                if let Err(fault) = answer {
                    prop_assert!(matches!(fault.reason, 0x81 | 0x82), "{fault:?}");
                }
            }
        }
    }
}
