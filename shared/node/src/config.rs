//! Settings that edge and cloud share: `[mqtt]`, `[http]`, `[session]`.
//!
//! The defaults here are those of no node in particular: each node overrides what differs in its own `Default`.

use std::sync::Arc;

use fellbeck_broker::front::MqttServerConfig;
use fellbeck_ops::config::{ByteSize, ConfigError, Listen, ranged};
use fellbeck_ops::tls::{ServerConfig, TlsFiles};
use serde::{Deserialize, Serialize};

/// `[mqtt]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Address of MQTT over TCP; port 0 lets the system choose, `""` turns it off.
    pub listen: Listen,
    /// Address of MQTT over TLS. Left out: the node's default port on loopback, once there is a certificate.
    pub tls_listen: Option<Listen>,
    /// Address of MQTT over WebSocket. Left out: the node's default port on loopback, if it is free.
    pub ws_listen: Option<Listen>,
    /// Address of MQTT over WebSocket over TLS.
    pub wss_listen: Listen,
    /// Certificate chain of the TLS listeners (PEM file).
    pub tls_cert: String,
    /// Its key (PEM file).
    pub tls_key: String,
    /// CAs of clients (PEM file); if set, a client must show a certificate that one of them signed.
    pub tls_client_ca: String,
    /// Origins whose web pages may open a WebSocket; empty: any.
    pub ws_origins: Vec<String>,
    /// Set to `"I understand"` to serve clients without authentication on an address that is not loopback.
    pub unauthenticated_public: String,
    /// Largest MQTT packet in either direction.
    pub packet_max: ByteSize,
    /// Connections served at once; more are refused.
    pub connections_max: u32,
    /// TLS handshakes in progress at once; more are refused.
    pub tls_handshakes_max: u32,
    /// New connections per second; more wait in the backlog of the system. 0: no bound.
    pub connect_rate_per_sec: u32,
    /// New connections that may come at once before the rate counts.
    pub connect_burst: u32,
    /// QoS 1 and 2 messages that one client may have unacknowledged (the Receive Maximum that is announced).
    pub receive_maximum: u16,
    /// Topic aliases that one client may use (the Topic Alias Maximum that is announced).
    pub topic_alias_maximum: u16,
    /// Levels of a topic name.
    pub topic_levels_max: usize,
    /// Longest keep-alive; an MQTT 5 client with a longer one, or none, is told this one. 0: no bound.
    pub keep_alive_max_secs: u16,
    /// Time from accept to a whole CONNECT, TLS handshake and WebSocket upgrade included.
    pub first_packet_timeout_ms: u64,
    /// Time for a packet to arrive whole.
    pub partial_within_ms: u64,
    /// Bytes of packets that have not arrived whole, over all connections.
    pub partial_bytes_max: ByteSize,
    /// Bytes in a connection's write buffer at which deliveries to it stop.
    pub write_buffer_high: ByteSize,
    /// Time after which a connection that takes none of it is closed.
    pub stalled_after_ms: u64,
    /// Seconds between two looks at the values below `$SYS`; 0: there are none.
    pub sys_interval_secs: u32,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            listen: Listen::OFF,
            tls_listen: None,
            ws_listen: None,
            wss_listen: Listen::OFF,
            tls_cert: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            ws_origins: Vec::new(),
            unauthenticated_public: String::new(),
            packet_max: ByteSize(2 << 20),
            connections_max: 10_000,
            tls_handshakes_max: 1000,
            connect_rate_per_sec: 1000,
            connect_burst: 2000,
            receive_maximum: 1024,
            topic_alias_maximum: 64,
            topic_levels_max: MqttServerConfig::TOPIC_LEVELS_MAX,
            keep_alive_max_secs: 0,
            first_packet_timeout_ms: 10_000,
            partial_within_ms: 30_000,
            partial_bytes_max: ByteSize(16 << 20),
            write_buffer_high: ByteSize(64 << 10),
            stalled_after_ms: 60_000,
            sys_interval_secs: 10,
        }
    }
}

impl MqttConfig {
    /// Checks the ranges and that certificates load; `packet_limit` is the largest packet that the node's batches can hold.
    pub fn validate(&self, packet_limit: u64) -> Result<(), ConfigError> {
        ranged("mqtt.packet_max", self.packet_max.0, 128..=packet_limit)?;
        ranged("mqtt.connections_max", self.connections_max, 1..=1_000_000)?;
        ranged("mqtt.tls_handshakes_max", self.tls_handshakes_max, 1..=1_000_000)?;
        ranged("mqtt.connect_rate_per_sec", self.connect_rate_per_sec, 0..=1_000_000)?;
        ranged("mqtt.connect_burst", self.connect_burst, 1..=1_000_000)?;
        ranged("mqtt.receive_maximum", self.receive_maximum, 1..=65_535)?;
        ranged(
            "mqtt.topic_levels_max",
            self.topic_levels_max,
            1..=MqttServerConfig::TOPIC_LEVELS_MAX,
        )?;
        if let Some(origin) = self.ws_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(ConfigError::invalid(
                "mqtt.ws_origins",
                origin,
                "\"http://host\" or \"https://host\", with a port where it is not the usual one, and no path",
            ));
        }
        ranged("mqtt.sys_interval_secs", self.sys_interval_secs, 0..=86_400)?;
        let times = [
            ("mqtt.first_packet_timeout_ms", self.first_packet_timeout_ms, 600_000),
            ("mqtt.partial_within_ms", self.partial_within_ms, 3_600_000),
            ("mqtt.stalled_after_ms", self.stalled_after_ms, 3_600_000),
        ];
        for (field, value, max) in times {
            ranged(field, value, 100..=max)?;
        }
        ranged(
            "mqtt.partial_bytes_max",
            self.partial_bytes_max,
            ByteSize::kib(64)..=ByteSize::gib(64),
        )?;
        ranged(
            "mqtt.write_buffer_high",
            self.write_buffer_high,
            ByteSize::kib(4)..=ByteSize::mib(64),
        )?;
        self.tls().map(drop)
    }

    /// The TLS configuration that the certificates make; `None`: there are none.
    pub fn tls(&self) -> Result<Option<Arc<ServerConfig>>, ConfigError> {
        let listens = |listen: &Listen| *listen != Listen::OFF;
        let wanted = self.tls_listen.as_ref().is_some_and(listens) || listens(&self.wss_listen);
        if self.tls_cert.is_empty() != self.tls_key.is_empty() {
            let reason = "a certificate needs both `mqtt.tls_cert` and `mqtt.tls_key`";
            return Err(ConfigError::invalid("mqtt.tls_key", shown(&self.tls_key), reason));
        }
        if self.tls_cert.is_empty() {
            let needy = [
                (
                    wanted,
                    "mqtt.tls_cert",
                    &self.tls_cert,
                    "a TLS listener is on, so a certificate is needed",
                ),
                (
                    !self.tls_client_ca.is_empty(),
                    "mqtt.tls_client_ca",
                    &self.tls_client_ca,
                    "client certificates are asked for, but there is no `mqtt.tls_cert`",
                ),
            ];
            let missing = needy.into_iter().find(|(is_needy, ..)| *is_needy);
            return missing.map_or(Ok(None), |(_, field, value, reason)| {
                Err(ConfigError::invalid(field, shown(value), reason))
            });
        }
        let client_ca = (!self.tls_client_ca.is_empty()).then(|| self.tls_client_ca.as_ref());
        TlsFiles {
            part: "mqtt",
            certificate: self.tls_cert.as_ref(),
            key: self.tls_key.as_ref(),
            client_ca,
        }
        .load()
        .map(Some)
    }
}

/// A text as TOML shows it.
fn shown(text: &str) -> String {
    format!("{text:?}")
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of the HTTP listener; `""` turns it off.
    pub listen: Listen,
    /// Set to `"I understand"` to serve HTTP without authentication on an address that is not loopback.
    pub unauthenticated_public: String,
}

/// `[session]`
#[derive(Debug, Clone, Deserialize, Serialize)]
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
    /// Bytes of the filters and share names of one session.
    pub subscription_bytes_max: ByteSize,
    /// Bytes of the wills of all sessions, which are kept in memory.
    pub will_bytes_max: ByteSize,
    /// Sessions, connected or not.
    pub sessions_max: u32,
    /// Groups of shared subscriptions.
    pub groups_max: u32,
    /// QoS 1 and 2 messages that one session may be sent and not have acknowledged.
    pub in_flight_max: u16,
    /// Bytes of the commit under construction at which reading from clients pauses.
    pub commit_bytes_max: ByteSize,
    /// Commits that are not durable yet at which reading from clients pauses.
    pub commits_max: u16,
    /// Sessions that read the log at the same time.
    pub reads_max: u16,
    /// Bytes of one such read.
    pub read_bytes: ByteSize,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            expiry_max_secs: 7 * 24 * 3600,
            queue_records_max: 1000,
            queue_bytes_max: ByteSize(1 << 20),
            subscriptions_max: 1000,
            subscription_bytes_max: ByteSize::mib(1),
            will_bytes_max: ByteSize::mib(4),
            sessions_max: 10_000,
            groups_max: 10_000,
            in_flight_max: 1024,
            commit_bytes_max: ByteSize::mib(1),
            commits_max: 64,
            reads_max: 4,
            read_bytes: ByteSize::kib(64),
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
        ranged("session.groups_max", self.groups_max, 1..=10_000_000)?;
        ranged("session.in_flight_max", self.in_flight_max, 1..=65_535)?;
        ranged("session.commits_max", self.commits_max, 1..=1024)?;
        ranged("session.reads_max", self.reads_max, 1..=1024)?;
        let sizes = [
            ("session.commit_bytes_max", self.commit_bytes_max),
            ("session.read_bytes", self.read_bytes),
        ];
        for (field, size) in sizes {
            ranged(field, size, ByteSize::kib(4)..=ByteSize::mib(64))?;
        }
        let tables = [
            ("session.subscription_bytes_max", self.subscription_bytes_max),
            ("session.will_bytes_max", self.will_bytes_max),
        ];
        for (field, size) in tables {
            ranged(field, size, ByteSize::kib(64)..=ByteSize::gib(4))?;
        }
        Ok(())
    }
}

/// What a browser sends of a page: scheme, host and port.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(|c: char| c == '/' || c.is_whitespace()))
}

/// Checks that a keep-alive interval lies well below the idle timeout of the same link; else a healthy link would be dropped.
pub fn below_idle(field: &str, keep_alive_ms: u64, idle_timeout_ms: u64) -> Result<(), ConfigError> {
    ranged(field, keep_alive_ms, 1..=(idle_timeout_ms / 2).max(1)).map(drop)
}
