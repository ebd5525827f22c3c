//! PINGREQ and PINGRESP (3.12, 3.13), and the Keep Alive (3.1.2.10).

use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::wire::hex;
use fellbeck_tests::mqtt::{LastWill, Raw};

use crate::brokers::{on_each_version, unique};

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
