//! PINGREQ and PINGRESP (3.12, 3.13), and the Keep Alive (3.1.2.10).

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::hex;
use fellbeck_tests::mqtt::{LastWill, Raw, Version};

use crate::brokers::{on_each_version, on_own, target, unique};

/// [MQTT5-3.12.4-1] [MQTT3-3.12.4-1] Each PINGREQ gets one PINGRESP.
#[test]
fn a_ping_is_answered() {
    on_each_version(|target| {
        let mut client = target.client("ping");
        client.send(&hex("c000 c000"));
        client.expect_hex("d000");
        client.expect_hex("d000");
        client.ping();
    });
}

/// Demands that the node ends a silent connection, with or without saying so (0x8D).
fn expect_silence_ended(client: &mut Raw) {
    if let Some(bytes) = client.recv_bytes() {
        assert_eq!(bytes[0], 0xE0, "{bytes:02x?}");
        assert_eq!(bytes.get(2), Some(&0x8D), "{bytes:02x?}");
        client.expect_close();
    }
}

/// [MQTT5-3.1.2-22] [MQTT5-3.2.2-22] [MQTT3-3.1.2-24] After one and a half times the Keep Alive of silence the connection ends, not before,
/// and the will is published as after a failure.
#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    on_each_version(|target| {
        let topic = unique("keep-alive/will");
        let mut watcher = target.client("keep-alive-watcher");
        assert_eq!(watcher.subscribe(&topic, 0), 0);
        let silent = target.hello("silent").keep_alive(2).will(LastWill::new(&topic, "gone"));
        let mut silent = target.connect(&silent);
        silent.ping();
        let since = Instant::now();
        expect_silence_ended(&mut silent);
        let lasted = since.elapsed();
        assert!(lasted > Duration::from_millis(2500), "closed after {lasted:?}");
        assert!(lasted < Duration::from_secs(8), "closed after {lasted:?}");
        watcher.expect_message("gone");
    });
}

/// [MQTT5-3.1.2.10] [MQTT3-3.1.2-24] A client with Keep Alive 0 outlives one with a Keep Alive that was as silent.
#[test]
fn a_keep_alive_of_zero_closes_nobody() {
    on_each_version(|target| {
        let mut patient = target.client("patient");
        patient.ping();
        let mut silent = target.connect(&target.hello("silent").keep_alive(1));
        expect_silence_ended(&mut silent);
        patient.ping();
    });
}

/// [MQTT5-3.1.2-21] [MQTT5-3.2.2-21] [MQTT5-3.2.2-22] [MQTT5-3.1.2-22] A bound on the Keep Alive is announced to who asks for more or for none,
/// and held; one below it stands.
#[test]
fn a_server_keep_alive_is_announced_and_held() {
    on_own(&[("mqtt.keep_alive_max_secs", "2")], |node| {
        let target = target(node, Version::V5);
        for asked in [0, 3, 60] {
            let (_client, accepted) = Raw::connect(target.at, &target.hello("bound").keep_alive(asked));
            assert_eq!(accepted.property(0x13), Some(&[0, 2][..]), "{asked}");
        }
        for within in [1, 2] {
            let (_client, accepted) = Raw::connect(target.at, &target.hello("bound").keep_alive(within));
            assert!(matches!(accepted.property(0x13), None | Some([0, 2])), "{within}");
        }
        let mut silent = target.connect(&target.hello("bound").keep_alive(60));
        let since = Instant::now();
        expect_silence_ended(&mut silent);
        let lasted = since.elapsed();
        assert!(lasted > Duration::from_millis(2500), "closed after {lasted:?}");
    });
}

/// [MQTT5-3.1.2-22] [MQTT3-3.1.2-24] Any packet counts as a sign of life, also one without an answer.
#[test]
fn every_packet_keeps_a_connection_alive() {
    on_each_version(|target| {
        let mut client = target.connect(&target.hello("alive").keep_alive(2));
        let publish = fellbeck_tests::mqtt::Publish::new(&unique("alive"), "x");
        for _ in 0..5 {
            client.send_publish(&publish);
            fellbeck_tests::wait::last(Duration::from_millis(900));
        }
        client.ping();
    });
}
