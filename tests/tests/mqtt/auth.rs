//! AUTH and enhanced authentication (3.15, 4.12), where no Authentication Method is configured.

use fellbeck_tests::mqtt::wire::{hex, packet, properties, property};
use fellbeck_tests::mqtt::{Raw, Version};

use crate::brokers::{on_each, on_each_v3};
use crate::cases::{MALFORMED, PROTOCOL_ERROR, WRONG, case, each_ends};

/// [MQTT5-4.12.0-1] [MQTT5-4.12.0-4] [MQTT5-3.2.2-7] [MQTT5-4.13.2-1] A CONNECT with an Authentication Method, with and without data, gets
/// CONNACK 0x8C and the close.
#[test]
fn an_authentication_method_is_refused() {
    on_each(|target| {
        for method in ["SCRAM-SHA-1", "", "none", &"x".repeat(1000)] {
            let hello = target.hello("method").property(property::auth_method(method));
            for hello in [hello.clone(), hello.property(property::auth_data([0, 1, 2]))] {
                let mut client = target.open();
                client.send(&hello.bytes());
                client.expect_refused(0x8C);
            }
        }
    });
}

/// [MQTT5-4.12.0-6] Without a method in CONNECT there is neither AUTH before CONNACK nor a method or data in it.
#[test]
fn no_authentication_is_begun_unasked() {
    on_each(|target| {
        let (_client, accepted) = Raw::connect(target.at, &target.hello("plain").user("u").password("p"));
        assert_eq!((accepted.property(0x15), accepted.property(0x16)), (None, None));
    });
}

/// [MQTT5-4.12.0-7] [MQTT5-4.12.0-3] [MQTT5-4.12.1-1] [MQTT5-3.15.2-1] [MQTT5-4.13.1-1] AUTH on a connection without a method is a protocol
/// error, whether it goes on, begins anew, succeeds, or has a reason that there is not.
#[test]
fn auth_without_a_method_is_a_protocol_error() {
    on_each(|target| {
        let method = properties(&[property::auth_method("m"), property::auth_data("d")]);
        let with = |reason: u8| packet(0xF0, &[&[reason], &method]);
        each_ends(
            target,
            [
                case("no body", hex("f000"), PROTOCOL_ERROR),
                case("go on", with(0x18), PROTOCOL_ERROR),
                case("anew", with(0x19), PROTOCOL_ERROR),
                case("success", with(0x00), PROTOCOL_ERROR),
                case("unknown reason", with(0x01), WRONG),
                case("failure", with(0x87), WRONG),
                case("without a method", hex("f0021800"), PROTOCOL_ERROR),
            ],
        );
    });
}

/// [MQTT5-3.15.1-1] AUTH with reserved bits is malformed.
#[test]
fn auth_with_reserved_bits_is_malformed() {
    on_each(|target| {
        each_ends(
            target,
            [1_u8, 2, 4, 8, 15].map(|bits| case(format!("{bits}"), [0xF0 | bits, 0], MALFORMED)),
        );
    });
}

/// [MQTT3-3.1.0-1] [MQTT3-4.8.0-1] 3.1.1 has no AUTH, before CONNECT or behind it.
#[test]
fn there_is_no_auth_in_3_1_1() {
    on_each_v3(|target| {
        let mut client = Raw::open(target.at, Version::V3);
        client.send(&hex("f000"));
        client.expect_close();
        each_ends(target, [case("AUTH", hex("f000"), MALFORMED)]);
    });
}
