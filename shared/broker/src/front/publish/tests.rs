//! What a client encoded comes out as it was said; what breaks a rule gets the reason of the standard; nothing panics.

use proptest::prelude::*;

use super::*;

/// A PUBLISH as a test says it.
#[derive(Debug, Clone)]
struct Said {
    version: Version,
    first: u8,
    topic: String,
    packet_id: u16,
    /// Each in wire form.
    properties: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

impl Said {
    fn has_packet_id(&self) -> bool {
        self.first & 6 != 0
    }

    fn body(&self) -> Vec<u8> {
        let mut body = field(self.topic.as_bytes());
        if self.has_packet_id() {
            body.extend_from_slice(&self.packet_id.to_be_bytes());
        }
        if self.version == Version::V5 {
            let block = self.properties.concat();
            body.extend_from_slice(&length(block.len()));
            body.extend_from_slice(&block);
        }
        body.extend_from_slice(&self.payload);
        body
    }
}

fn field(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn length(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while n > 127 {
        out.push(n as u8 & 0x7F | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out
}

fn v5(properties: &[u8]) -> Said {
    Said {
        version: Version::V5,
        first: 0x32,
        topic: "a/b".to_owned(),
        packet_id: 7,
        properties: vec![properties.to_vec()],
        payload: b"x".to_vec(),
    }
}

fn reason(said: &Said) -> Option<u8> {
    decode(said.version, said.first, &said.body(), &mut Vec::new())
        .err()
        .map(|fault| fault.reason)
}

/// [MQTT5-3.3.1-2] [MQTT5-3.3.1-4] [MQTT5-3.3.2-2] [MQTT5-3.3.2-8] [MQTT5-3.3.2-14] [MQTT5-3.3.4-6] [MQTT5-2.2.1-3]
#[test]
fn each_mistake_has_its_reason() {
    assert_eq!(reason(&v5(&[])), None);
    for (first, expected) in [(0x36, 0x81), (0x38, 0x81)] {
        assert_eq!(reason(&Said { first, ..v5(&[]) }), Some(expected), "{first:02X}");
    }
    assert_eq!(
        reason(&Said {
            packet_id: 0,
            ..v5(&[])
        }),
        Some(0x82)
    );
    for (topic, expected) in [("", 0x82), ("a/+", 0x81), ("#", 0x81), ("a\0", 0x81), ("\u{7F}", 0x81)] {
        let topic = topic.to_owned();
        assert_eq!(reason(&Said { topic, ..v5(&[]) }), Some(expected));
    }
    let table: &[(&[u8], u8)] = &[
        (b"\x0B\x01", 0x82),
        (b"\x23\x00\x00", 0x94),
        (b"\x23\x00\x01\x23\x00\x01", 0x82),
        (b"\x02\x00\x00\x00\x01\x02\x00\x00\x00\x01", 0x82),
        (b"\x01\x02", 0x82),
        (b"\x08\x00\x01#", 0x82),
        (b"\x11\x00\x00\x00\x01", 0x81),
        (b"\x26\x00\x01a", 0x81),
        (b"\x03\x00\x02\xC3\x28", 0x81),
    ];
    for (properties, expected) in table {
        assert_eq!(reason(&v5(properties)), Some(*expected), "{properties:02X?}");
    }
    let beyond = [&field(b"t")[..], &[0, 7, 0xFF, 0xFF, 0xFF, 0x7F]].concat();
    assert!(decode(Version::V5, 0x32, &beyond, &mut Vec::new()).is_err());
}

/// [MQTT5-3.3.2-4] [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20]
#[test]
fn an_indicator_and_an_expiry_of_zero_are_not_lost() {
    let said = v5(b"\x26\x00\x01a\x00\x01b\x02\x00\x00\x00\x00\x01\x00\x26\x00\x01a\x00\x01b");
    let (body, mut scratch) = (said.body(), Vec::new());
    let decoded = decode(Version::V5, 0x3B, &body, &mut scratch).unwrap();
    assert_eq!(decoded.publish.expiry_secs, Some(0));
    let travelling = b"\x26\x00\x01a\x00\x01b\x01\x00\x26\x00\x01a\x00\x01b";
    assert_eq!(decoded.publish.properties, travelling);
    assert!(!decoded.is_text && decoded.publish.dup && decoded.publish.retain);
}

#[test]
fn properties_that_stand_together_are_not_copied() {
    let said = v5(b"\x23\x00\x05\x02\x00\x00\x00\x09\x01\x01\x03\x00\x01c\x26\x00\x00\x00\x00");
    let (body, mut scratch) = (said.body(), Vec::new());
    let decoded = decode(Version::V5, 0x32, &body, &mut scratch).unwrap();
    assert_eq!((decoded.alias, decoded.publish.expiry_secs), (Some(5), Some(9)));
    assert_eq!(decoded.publish.properties, b"\x01\x01\x03\x00\x01c\x26\x00\x00\x00\x00");
    assert!(decoded.is_text);
    assert_eq!(scratch.capacity(), 0);
}

prop_compose! {
    fn property()(
        kind in 0..5u8,
        a in "[a-z\u{FEFF}\n]{0,5}",
        b in "[a-z]{0,5}",
        bytes in prop::collection::vec(any::<u8>(), 0..9),
    ) -> Vec<u8> {
        match kind {
            0 => [vec![0x03], field(a.as_bytes())].concat(),
            1 => [vec![0x09], field(&bytes)].concat(),
            2 => vec![0x01, bytes.len() as u8 & 1],
            _ => [vec![0x26], field(a.as_bytes()), field(b.as_bytes())].concat(),
        }
    }
}

prop_compose! {
    fn said()(
        is_v5: bool,
        qos in 0..3u8,
        dup: bool,
        retain: bool,
        topic in "[a-zß/$ ]{1,12}",
        packet_id in 1..=u16::MAX,
        properties in prop::collection::vec(property(), 0..6),
        own in (prop::option::of(any::<u32>()), prop::option::of(1..9u16), any::<prop::sample::Index>()),
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) -> (Said, Option<u32>, Option<u16>) {
        let mut kinds = std::collections::BTreeSet::new();
        let mut properties: Vec<Vec<u8>> = properties.into_iter()
            .filter(|property| property[0] == 0x26 || kinds.insert(property[0]))
            .collect();
        let (expiry, alias, at) = own;
        for hop in [
            expiry.map(|secs| [&[0x02][..], &secs.to_be_bytes()].concat()),
            alias.map(|alias| [&[0x23][..], &alias.to_be_bytes()].concat()),
        ].into_iter().flatten() {
            properties.insert(at.index(properties.len() + 1), hop);
        }
        let first = 0x30 | u8::from(dup && qos > 0) << 3 | qos << 1 | u8::from(retain);
        let version = if is_v5 { Version::V5 } else { Version::V3 };
        (Said { version, first, topic, packet_id, properties, payload }, expiry, alias)
    }
}

proptest! {
    #[test]
    fn what_was_said_comes_out((said, expiry, alias) in said()) {
        let (body, mut scratch) = (said.body(), Vec::new());
        let decoded = decode(said.version, said.first, &body, &mut scratch).unwrap();
        let publish = decoded.publish;
        prop_assert_eq!(publish.topic, &said.topic);
        prop_assert_eq!(publish.payload, &said.payload);
        prop_assert_eq!(publish.qos as u8, said.first >> 1 & 3);
        prop_assert_eq!((publish.dup, publish.retain), (said.first & 8 != 0, said.first & 1 != 0));
        prop_assert_eq!(publish.packet_id, said.has_packet_id().then_some(said.packet_id));
        let travelling: Vec<u8> = said.properties.iter().filter(|one| !matches!(one[0], 2 | 0x23)).flatten().copied().collect();
        if said.version == Version::V5 {
            prop_assert_eq!(publish.properties, &travelling);
            prop_assert_eq!((publish.expiry_secs, decoded.alias), (expiry, alias));
            let parsed = fellbeck_core::Properties::parse(publish.properties).unwrap();
            prop_assert!(parsed.are_legal());
            let says_text = fellbeck_core::properties::Property::PayloadFormat(1);
            prop_assert_eq!(decoded.is_text, parsed.iter().any(|one| one == says_text));
        } else {
            prop_assert_eq!((publish.properties, publish.expiry_secs, decoded.alias), (&[][..], None, None));
        }
    }

    #[test]
    fn every_truncation_before_the_payload_is_refused((said, ..) in said()) {
        let body = said.body();
        for cut in 0..body.len() - said.payload.len() {
            let mut scratch = Vec::new();
            prop_assert!(decode(said.version, said.first, &body[..cut], &mut scratch).is_err(), "{}", cut);
        }
    }

    #[test]
    fn random_bytes_never_panic(first: u8, body in prop::collection::vec(any::<u8>(), 0..100)) {
        for version in [Version::V3, Version::V5] {
            let mut scratch = Vec::new();
            if let Ok(decoded) = decode(version, first, &body, &mut scratch) {
                let parsed = fellbeck_core::Properties::parse(decoded.publish.properties);
                prop_assert!(parsed.unwrap().are_legal());
            }
        }
    }
}
