//! CONNECT (3.1): form, flags, properties, client identifiers, what is refused.

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Raw};

use crate::brokers::{on_each, on_each_v3, on_each_version};

/// [MQTT5-3.1.2.11.4] A Maximum Packet Size of 0 is refused with 0x82.
#[test]
fn a_maximum_packet_size_of_zero_is_refused() {
    on_each(|target| {
        let mut client = target.open();
        client.send(&target.hello("zero").property(property::packet_maximum(0)).bytes());
        client.expect_refused(0x82);
    });
}

/// [MQTT3-3.1.2-2] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5] Levels that are not supported get CONNACK 0x01 and the close.
#[test]
fn an_unknown_level_is_refused_with_01() {
    on_each_v3(|target| {
        for level in [0, 1, 2, 6, 0x7F, 0xFF] {
            let mut client = target.open();
            client.send(&target.hello("level").bytes_with(b"MQTT", level, 2));
            client.expect_refused(1);
        }
    });
}

/// [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16] [MQTT3-3.1.3-6] An empty client identifier is accepted; in 5.0 the CONNACK names the one
/// assigned, which is another one each time.
#[test]
fn an_empty_client_identifier_is_replaced_by_a_unique_one() {
    on_each_version(|target| {
        let anonymous = Connect::new(target.version, "");
        let (mut first, one) = Raw::connect(target.at, &anonymous);
        let (mut second, other) = Raw::connect(target.at, &anonymous);
        first.ping();
        second.ping();
        if target.is_v5() {
            let assigned = one.property(0x12).expect("an assigned client identifier");
            assert!(!assigned.is_empty());
            assert_ne!(Some(assigned), other.property(0x12));
        }
    });
}
