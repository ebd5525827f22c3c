//! What a client said in its CONNECT comes out; what breaks a rule gets the reason of the standard; nothing panics.

use proptest::prelude::*;

use super::*;

/// Property block, topic and payload.
type SaidWill = (Option<Vec<u8>>, Vec<u8>, Vec<u8>);

/// Fields of a CONNECT, after the level, in order. Each is left out when it is `None`.
#[derive(Debug, Clone, Default)]
struct Said {
    flags: u8,
    keep_alive: u16,
    properties: Option<Vec<u8>>,
    client_id: Vec<u8>,
    will: Option<SaidWill>,
    user_name: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

impl Said {
    fn v5(flags: u8, properties: &[u8]) -> Self {
        Self {
            flags,
            properties: Some(properties.to_vec()),
            client_id: b"c".to_vec(),
            ..Self::default()
        }
    }

    fn v3(flags: u8) -> Self {
        Self {
            flags,
            client_id: b"c".to_vec(),
            ..Self::default()
        }
    }

    fn with_will(mut self, properties: &[u8], topic: &str, payload: &[u8]) -> Self {
        let is_v5 = self.properties.is_some();
        let properties = is_v5.then(|| properties.to_vec());
        self.flags |= WILL;
        self.will = Some((properties, topic.as_bytes().to_vec(), payload.to_vec()));
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.flags];
        out.extend_from_slice(&self.keep_alive.to_be_bytes());
        put_block(&mut out, self.properties.as_deref());
        put_field(&mut out, &self.client_id);
        if let Some((properties, topic, payload)) = &self.will {
            put_block(&mut out, properties.as_deref());
            put_field(&mut out, topic);
            put_field(&mut out, payload);
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            put_field(&mut out, field);
        }
        out
    }

    fn dialect(&self) -> Dialect {
        match self.properties {
            Some(_) => Dialect::V5,
            None => Dialect::V311,
        }
    }

    fn decode(&self) -> Result<ConnectIn, Fault> {
        decode(self.dialect(), &self.encode())
    }

    fn reason(&self) -> Option<u8> {
        self.decode().err().map(|fault| fault.reason)
    }
}

fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_block(out: &mut Vec<u8>, block: Option<&[u8]>) {
    if let Some(block) = block {
        let mut n = block.len();
        while n > 127 {
            out.push(n as u8 & 0x7F | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(block);
    }
}

/// [MQTT5-3.1.2-3] [MQTT5-3.1.2-11] [MQTT5-3.1.2-12] [MQTT5-3.1.2-13] [MQTT3-3.1.2-3] [MQTT3-3.1.2-22]
#[test]
fn contradicting_flags_are_malformed() {
    for flags in [0x01, 0x08, 0x10, 0x20] {
        assert_eq!(Said::v3(CLEAN | flags).reason(), Some(0x81), "{flags:02X}");
        assert_eq!(Said::v5(CLEAN | flags, &[]).reason(), Some(0x81), "{flags:02X}");
    }
    assert_eq!(Said::v3(CLEAN | WILL_QOS).with_will(&[], "t", b"").reason(), Some(0x81));
    let password_only = |said: Said| Said {
        flags: said.flags | PASSWORD,
        password: Some(b"p".to_vec()),
        ..said
    };
    assert_eq!(password_only(Said::v3(CLEAN)).reason(), Some(0x81));
    assert_eq!(password_only(Said::v5(CLEAN, &[])).reason(), None);
}

/// [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19] [MQTT5-3.1.3-1]
#[test]
fn fields_and_flags_must_agree() {
    for said in [Said::v3(CLEAN), Said::v5(CLEAN, &[])] {
        assert_eq!(said.reason(), None);
        for missing in [USER_NAME, USER_NAME | PASSWORD, WILL] {
            let flags = said.flags | missing;
            assert_eq!(Said { flags, ..said.clone() }.reason(), Some(0x81), "{missing:02X}");
        }
        let user_name = Some(b"u".to_vec());
        assert_eq!(
            Said {
                user_name,
                ..said.clone()
            }
            .reason(),
            Some(0x81)
        );
    }
}

/// [MQTT5-1.5.4-1] [MQTT5-1.5.4-2] [MQTT3-1.5.3-1] [MQTT3-1.5.3-2]: refused as malformed wherever the string stands.
#[test]
fn strings_are_checked_everywhere() {
    for bad in [&b"a\0"[..], &[0xC3, 0x28], &[0xED, 0xA0, 0x80]] {
        for said in [Said::v3(CLEAN), Said::v5(CLEAN, &[])] {
            let client_id = bad.to_vec();
            assert_eq!(
                Said {
                    client_id,
                    ..said.clone()
                }
                .reason(),
                Some(0x81),
                "{bad:02X?}"
            );
            let user = Said {
                flags: said.flags | USER_NAME,
                user_name: Some(bad.to_vec()),
                ..said.clone()
            };
            assert_eq!(user.reason(), Some(0x81), "{bad:02X?}");
            let mut will = said.with_will(&[], "t", b"");
            will.will.as_mut().unwrap().1 = bad.to_vec();
            assert_eq!(will.reason(), Some(0x81), "{bad:02X?}");
        }
        for id in [0x03, 0x08] {
            let mut property = vec![id];
            put_field(&mut property, bad);
            let will = Said::v5(CLEAN, &[]).with_will(&property, "t", b"");
            assert_eq!(will.reason(), Some(0x81), "{property:02X?}");
        }
        let mut method = vec![0x15];
        put_field(&mut method, bad);
        assert_eq!(Said::v5(CLEAN, &method).reason(), Some(0x81));
    }
    let password = Said {
        flags: CLEAN | USER_NAME | PASSWORD,
        user_name: Some(Vec::new()),
        password: Some(b"\0\xFF".to_vec()),
        ..Said::v3(0)
    };
    assert_eq!(password.decode().unwrap().password.unwrap(), b"\0\xFF");
}

#[test]
fn properties_of_a_connect_have_the_reasons_of_the_standard() {
    let table: &[(&[u8], Option<u8>)] = &[
        (b"\x21\x00\x00", Some(0x82)),
        (b"\x27\x00\x00\x00\x00", Some(0x82)),
        (b"\x17\x02", Some(0x82)),
        (b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", Some(0x82)),
        (b"\x16\x00\x01a", Some(0x82)),
        (b"\x15\x00\x01a\x16\x00\x01a", None),
        (b"\x23\x00\x01", Some(0x81)),
        (b"\x7F", Some(0x81)),
        (b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01b", None),
    ];
    for (block, expected) in table {
        assert_eq!(Said::v5(CLEAN, block).reason(), *expected, "{block:02X?}");
    }
}

#[test]
fn a_will_keeps_an_indicator_and_an_expiry_of_zero() {
    let block = b"\x26\x00\x01a\x00\x01b\x02\x00\x00\x00\x00\x01\x00\x18\x00\x00\x00\x07";
    let will = Said::v5(0x36, &[])
        .with_will(block, "t/w", b"bye")
        .decode()
        .unwrap()
        .will;
    let will = will.unwrap();
    assert_eq!((will.expiry_secs, will.delay_secs), (Some(0), 7));
    assert_eq!(will.properties, b"\x26\x00\x01a\x00\x01b\x01\x00");
    assert_eq!(
        (will.topic.as_str(), will.qos, will.retain),
        ("t/w", QoS::ExactlyOnce, true)
    );
    assert_eq!(will.payload, b"bye");
}

#[test]
fn a_will_that_no_broker_could_publish_is_refused_with_its_reason() {
    let reason =
        |block: &[u8], topic: &str, payload: &[u8]| Said::v5(CLEAN, &[]).with_will(block, topic, payload).reason();
    assert_eq!(reason(&[], "", b""), Some(0x90));
    assert_eq!(reason(&[], "a/#", b""), Some(0x90));
    for topic in ["", "a/+"] {
        // 3.1.1 has no code for it: the CONNECT is malformed.
        assert_eq!(Said::v3(CLEAN).with_will(&[], topic, b"").reason(), Some(0x81));
    }
    assert_eq!(reason(b"\x01\x01", "t", b"\xFF"), Some(0x99));
    assert_eq!(reason(b"\x01\x00", "t", b"\xFF"), None);
    assert_eq!(reason(b"\x08\x00\x01#", "t", b""), Some(0x82));
    assert_eq!(reason(b"\x11\x00\x00\x00\x01", "t", b""), Some(0x81));
}

/// [MQTT3-3.1.3-7] [MQTT3-3.1.3-8] [MQTT5-3.1.3-6]
#[test]
fn an_empty_client_identifier_is_refused_where_none_can_be_assigned() {
    let reason = |dialect, flags| {
        let said = Said {
            client_id: Vec::new(),
            properties: (dialect == Dialect::V5).then(Vec::new),
            ..Said::v3(flags)
        };
        decode(dialect, &said.encode()).err().map(|fault| fault.reason)
    };
    assert_eq!(reason(Dialect::V31, CLEAN), Some(0x85));
    assert_eq!(
        (reason(Dialect::V311, CLEAN), reason(Dialect::V311, 0)),
        (None, Some(0x85))
    );
    assert_eq!((reason(Dialect::V5, CLEAN), reason(Dialect::V5, 0)), (None, None));
}

/// What mosquitto takes too: the lowest bit of the flags is unused there.
#[test]
fn mqtt_3_1_has_no_reserved_flag() {
    assert!(decode(Dialect::V31, &Said::v3(0x01).encode()).is_ok());
}

prop_compose! {
    fn said()(
        is_v5: bool,
        clean: bool,
        keep_alive: u16,
        client_id in "[a-z0-9]{1,30}",
        will in prop::option::of(("[a-z/]{1,9}", prop::collection::vec(any::<u8>(), 0..200), 0..3u8, any::<bool>())),
        user_name in prop::option::of("[a-zß]{0,9}"),
        password in prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        numbers in (any::<u32>(), 1..=u16::MAX, 1..=u32::MAX, any::<u16>(), any::<bool>()),
    ) -> (Said, Wishes) {
        let (session_expiry_secs, receive_maximum, packet_max, topic_alias_maximum, problem_information) = numbers;
        let properties = [
            &[0x11][..], &session_expiry_secs.to_be_bytes(),
            &[0x21], &receive_maximum.to_be_bytes(),
            &[0x27], &packet_max.to_be_bytes(),
            &[0x22], &topic_alias_maximum.to_be_bytes(),
            &[0x17, u8::from(problem_information)],
        ].concat();
        let wishes = Wishes {
            session_expiry_secs, receive_maximum, packet_max: Some(packet_max), topic_alias_maximum, problem_information,
            ..Wishes::default()
        };
        let mut said = if is_v5 { Said::v5(0, &properties) } else { Said::v3(0) };
        said.flags |= if clean { CLEAN } else { 0 };
        said.keep_alive = keep_alive;
        said.client_id = client_id.into_bytes();
        if let Some((topic, payload, qos, retain)) = will {
            said = said.with_will(&[], &topic, &payload);
            said.flags |= qos << 3 | if retain { WILL_RETAIN } else { 0 };
        }
        if let Some(user_name) = user_name {
            said.flags |= USER_NAME;
            said.user_name = Some(user_name.into_bytes());
        }
        if let Some(password) = password.filter(|_| said.user_name.is_some()) {
            said.flags |= PASSWORD;
            said.password = Some(password);
        }
        (said, if is_v5 { wishes } else { Wishes::default() })
    }
}

proptest! {
    #[test]
    fn what_was_said_comes_out((said, wishes) in said()) {
        let decoded = said.decode().unwrap();
        prop_assert_eq!(decoded.wishes, wishes);
        prop_assert_eq!(decoded.client_id.as_bytes(), &said.client_id);
        prop_assert_eq!((decoded.keep_alive, decoded.clean_start), (said.keep_alive, said.flags & CLEAN != 0));
        prop_assert_eq!(decoded.user_name.map(String::into_bytes), said.user_name);
        prop_assert_eq!(decoded.password, said.password);
        match (decoded.will, said.will) {
            (Some(will), Some((_, topic, payload))) => {
                prop_assert_eq!((will.topic.into_bytes(), will.payload), (topic, payload));
                prop_assert_eq!(will.qos as u8, said.flags >> 3 & 3);
                prop_assert_eq!(will.retain, said.flags & WILL_RETAIN != 0);
            }
            (None, None) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused((said, _) in said()) {
        let bytes = said.encode();
        for cut in 0..bytes.len() {
            prop_assert!(decode(said.dialect(), &bytes[..cut]).is_err(), "{}", cut);
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(decode(said.dialect(), &longer).unwrap_err().reason, 0x81);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for dialect in [Dialect::V31, Dialect::V311, Dialect::V5] {
            if let Err(fault) = decode(dialect, &bytes) {
                prop_assert!(fault.reason >= 0x80);
            }
        }
    }
}
