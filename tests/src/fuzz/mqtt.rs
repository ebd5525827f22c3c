//! CONNECT and PUBLISH of the broker front: what is accepted is sound, and means the same when it is written again.

use fellbeck_broker::front::fuzz;
use fellbeck_broker::wire::{PublishIn, Version};
use fellbeck_core::{Properties, validate_topic_name};

/// Longest input that is cut at every byte.
const CUT_MAX: usize = 512;

/// The input is the first bytes of a connection.
pub(super) fn mqtt_connect(data: &[u8]) -> bool {
    let connected = match fuzz::connect(data) {
        Some(Ok(connected)) => connected,
        Some(Err(reason)) => {
            assert!(reason >= 0x80, "a refusal has a reason");
            return false;
        }
        None => return false,
    };
    assert!(connected.length <= data.len(), "a packet ends within what came");
    let packet = &data[..connected.length];
    for cut in 0..packet.len().min(CUT_MAX) {
        let part = fuzz::connect(&packet[..cut]);
        assert!(part.is_none(), "cut at {cut}: a CONNECT is taken only when it is whole");
    }
    let again = fuzz::connect(packet);
    assert_eq!(
        again,
        Some(Ok(connected.clone())),
        "what follows a packet changes nothing"
    );
    for text in [Some(&connected.client_id), connected.user_name.as_ref()]
        .into_iter()
        .flatten()
    {
        assert!(!text.chars().any(char::is_control), "a name without control characters");
    }
    assert!(connected.receive_maximum > 0 && connected.packet_max != Some(0));
    let (method, has_data) = &connected.auth;
    assert!(method.is_some() || !has_data, "data belong to a method");
    if let Some(will) = &connected.will {
        assert!(validate_topic_name(&will.topic).is_ok(), "a will can be published");
        let properties = Properties::parse(&will.properties).expect("properties in wire form");
        assert!(properties.are_legal());
    }
    true
}

/// The input is the version (its lowest bit), the first byte of a fixed header, and what follows that header.
pub(super) fn mqtt_publish(data: &[u8]) -> bool {
    let [version, first, body @ ..] = data else {
        return false;
    };
    let version = if version & 1 == 0 { Version::V3 } else { Version::V5 };
    let first = 0x30 | first & 0x0F;
    let checked = fuzz::publish(version, first, body, |publish, alias| {
        check_publish(version, &publish, alias);
        let written = write(version, &publish, alias);
        let again = fuzz::publish(version, first, &written, |again, its_alias| {
            assert_eq!((again.topic, again.payload), (publish.topic, publish.payload));
            assert_eq!(
                (again.packet_id, again.properties),
                (publish.packet_id, publish.properties)
            );
            assert_eq!((again.expiry_secs, its_alias), (publish.expiry_secs, alias));
        });
        assert_eq!(again, Ok(()), "what was decoded can be written");
        body.len() - publish.payload.len()
    });
    let Ok(head) = checked else { return false };
    for cut in 0..head.min(CUT_MAX) {
        let part = fuzz::publish(version, first, &body[..cut], |_, _| ());
        assert!(part.is_err(), "cut at {cut} of {head}");
    }
    true
}

fn check_publish(version: Version, publish: &PublishIn<'_>, alias: Option<u16>) {
    let named = validate_topic_name(publish.topic).is_ok();
    assert!(
        named || (publish.topic.is_empty() && alias.is_some()),
        "a topic or an alias"
    );
    assert_eq!(publish.packet_id.is_some(), publish.qos as u8 > 0);
    assert_ne!(publish.packet_id, Some(0));
    assert_ne!(alias, Some(0));
    assert!(!publish.dup || publish.qos as u8 > 0);
    let properties = Properties::parse(publish.properties).expect("properties in wire form");
    assert!(properties.are_legal());
    if version == Version::V3 {
        assert!(properties.is_empty() && publish.expiry_secs.is_none() && alias.is_none());
    }
}

/// Encodes what follows the fixed header.
fn write(version: Version, publish: &PublishIn<'_>, alias: Option<u16>) -> Vec<u8> {
    let mut out = (publish.topic.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(publish.topic.as_bytes());
    out.extend(publish.packet_id.into_iter().flat_map(u16::to_be_bytes));
    if version == Version::V5 {
        let mut block = Vec::new();
        if let Some(alias) = alias {
            block.push(0x23);
            block.extend_from_slice(&alias.to_be_bytes());
        }
        block.extend_from_slice(publish.properties);
        if let Some(secs) = publish.expiry_secs {
            block.push(0x02);
            block.extend_from_slice(&secs.to_be_bytes());
        }
        let mut length = block.len();
        while length > 0x7F {
            out.push(length as u8 & 0x7F | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(&block);
    }
    out.extend_from_slice(publish.payload);
    out
}

/// The input is the version (its lowest bit), and a packet: the first byte of its fixed header, and what follows that header.
pub(super) fn mqtt_control(data: &[u8]) -> bool {
    let [version, first, body @ ..] = data else {
        return false;
    };
    let version = if version & 1 == 0 { Version::V3 } else { Version::V5 };
    match fuzz::control(version, *first, body) {
        Ok(()) => {
            assert!(
                !matches!(first >> 4, 0 | 1 | 2 | 3 | 9 | 11 | 13),
                "not a control packet of a client"
            );
            let longer = [body, &[0]].concat();
            assert!(
                body.is_empty() || fuzz::control(version, *first, &longer).is_err() || version == Version::V5,
                "a packet of 3.1.1 ends with its fields"
            );
            true
        }
        Err(reason) => {
            assert!(matches!(reason, 0x81 | 0x82), "malformed or a protocol error");
            false
        }
    }
}
