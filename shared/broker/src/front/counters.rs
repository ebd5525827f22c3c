//! Metrics of the front.
//!
//! Those of the message path are handles, looked up once, so that a message costs one atomic addition; the rare ones are looked
//! up when they happen. Those that `$SYS` shows too are in [`traffic`](super::traffic). The recorder must be installed before
//! the server starts.

use metrics::{Counter, Gauge, counter, gauge};

/// Handles of the counters that a message touches.
pub(super) struct Counters {
    pub(super) connections: Gauge,
    pub(super) backlogged: Counter,
    pub(super) held: Counter,
    pub(super) left: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            connections: gauge!("fellbeck_broker_connections"),
            backlogged: counter!("fellbeck_broker_backlogged_total"),
            held: counter!("fellbeck_broker_held_publishes_total"),
            left: counter!("fellbeck_broker_left_publishes_total"),
        }
    }
}

/// A CONNECT was accepted.
pub(super) fn connected(version: crate::wire::Version) {
    let version = match version {
        crate::wire::Version::V3 => "3.1.1",
        crate::wire::Version::V5 => "5.0",
    };
    counter!("fellbeck_broker_connects_total", "version" => version).increment(1);
}

/// A connection was refused before it became a session.
pub(super) fn rejected(reason: &'static str) {
    counter!("fellbeck_broker_rejects_total", "reason" => reason).increment(1);
}

/// A connection was ended for a packet that took too much room (`budget`) or time (`deadline`).
pub(super) fn packet_given_up(why: &'static str) {
    counter!("fellbeck_broker_packets_given_up_total", "why" => why).increment(1);
}

/// The server ended a connection with an MQTT 5 reason code.
pub(super) fn ended(reason: u8) {
    let name = match reason {
        0x00 => "normal",
        0x81 => "malformed_packet",
        0x82 => "protocol_error",
        0x87 => "not_authorized",
        0x8B => "shutting_down",
        0x8C => "bad_authentication_method",
        0x8D => "keep_alive_timeout",
        0x8E => "session_taken_over",
        0x90 => "topic_name_invalid",
        0x93 => "receive_maximum_exceeded",
        0x94 => "topic_alias_invalid",
        0x95 => "packet_too_large",
        0x97 => "quota_exceeded",
        _ => "other",
    };
    counter!("fellbeck_broker_disconnects_total", "reason" => name).increment(1);
}
