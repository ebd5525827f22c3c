//! Settings that edge and cloud share: `[mqtt]`, `[http]`, `[session]`.
//!
//! The defaults here are those of no node in particular: each node overrides what differs in its own `Default`.

use fellbeck_ops::config::{ByteSize, ConfigError, Listen, ranged};
use serde::Deserialize;

/// `[mqtt]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Address of the MQTT listener; port 0 lets the system choose, `""` turns it off.
    pub listen: Listen,
    /// Set to `"I understand"` to serve clients without authentication on an address that is not loopback.
    pub unauthenticated_public: String,
    /// Largest MQTT packet in either direction.
    pub packet_max: ByteSize,
    /// Connections served at once; more are refused.
    pub connections_max: u32,
    /// QoS 1 and 2 messages that one client may have unacknowledged (the Receive Maximum that is announced).
    pub receive_maximum: u16,
    /// Time from accept to a whole CONNECT.
    pub first_packet_timeout_ms: u64,
    /// Seconds between two looks at the values below `$SYS`; 0: there are none.
    pub sys_interval_secs: u32,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: Listen::OFF,
            unauthenticated_public: String::new(),
            packet_max: ByteSize(2 << 20),
            connections_max: 10_000,
            receive_maximum: 1024,
            first_packet_timeout_ms: 10_000,
            sys_interval_secs: 10,
        }
    }
}

impl MqttConfig {
    /// Checks the ranges; `packet_limit` is the largest packet that the node's batches can hold.
    pub fn validate(&self, packet_limit: u64) -> Result<(), ConfigError> {
        ranged("mqtt.packet_max", self.packet_max.0, 128..=packet_limit)?;
        ranged("mqtt.connections_max", self.connections_max, 1..=1_000_000)?;
        ranged("mqtt.receive_maximum", self.receive_maximum, 1..=65_535)?;
        ranged(
            "mqtt.first_packet_timeout_ms",
            self.first_packet_timeout_ms,
            100..=600_000,
        )?;
        ranged("mqtt.sys_interval_secs", self.sys_interval_secs, 0..=86_400)?;
        Ok(())
    }
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of the HTTP listener; `""` turns it off.
    pub listen: Listen,
    /// Set to `"I understand"` to serve HTTP without authentication on an address that is not loopback.
    pub unauthenticated_public: String,
}

/// `[session]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// Longest session expiry that a client gets.
    pub expiry_max_secs: u32,
    /// Records queued in memory for one session; beyond it the session reads the log.
    pub queue_records_max: u32,
    /// Bytes queued in memory for one session.
    pub queue_bytes_max: ByteSize,
    /// Subscriptions of one session.
    pub subscriptions_max: u32,
    /// Sessions, connected or not.
    pub sessions_max: u32,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            expiry_max_secs: 7 * 24 * 3600,
            queue_records_max: 1000,
            queue_bytes_max: ByteSize(1 << 20),
            subscriptions_max: 1000,
            sessions_max: 10_000,
        }
    }
}

impl SessionConfig {
    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ranged("session.queue_records_max", self.queue_records_max, 1..=10_000_000)?;
        ranged(
            "session.queue_bytes_max",
            self.queue_bytes_max,
            ByteSize(1024)..=ByteSize(1 << 30),
        )?;
        ranged("session.subscriptions_max", self.subscriptions_max, 1..=1_000_000)?;
        ranged("session.sessions_max", self.sessions_max, 1..=10_000_000)?;
        Ok(())
    }
}

/// Checks that a keep-alive interval lies well below the idle timeout of the same link; else a healthy link would be dropped.
pub fn below_idle(field: &str, keep_alive_ms: u64, idle_timeout_ms: u64) -> Result<(), ConfigError> {
    ranged(field, keep_alive_ms, 1..=(idle_timeout_ms / 2).max(1)).map(drop)
}
