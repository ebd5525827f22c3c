//! Configuration of an edge node, as written in TOML, the environment and `--set`.
//!
//! One struct per part. Every field has a default, unknown keys are refused, ranges are checked by [`EdgeConfig::validate`].

use std::path::PathBuf;

use fellbeck_core::limits::PACKET_MAX_EDGE;
use fellbeck_node::{HttpConfig, MqttConfig, SessionConfig, below_idle};
use fellbeck_ops::config::{ByteSize, ConfigError, HostPorts, Listen, ranged};
use fellbeck_ops::logging::LogConfig;
use serde::{Deserialize, Serialize};

/// All settings of an edge node.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EdgeConfig {
    /// Directory that holds everything the node keeps. Required by all but `check`.
    pub(crate) data_dir: Option<PathBuf>,
    /// Log lines.
    pub(crate) log: LogConfig,
    /// MQTT for devices.
    pub(crate) mqtt: MqttConfig,
    /// Local HTTP: health, metrics, status.
    pub(crate) http: HttpConfig,
    /// The way to the cloud.
    pub(crate) uplink: UplinkConfig,
    /// The durable buffer.
    pub(crate) store: StoreSettings,
    /// Persistent sessions.
    pub(crate) session: SessionConfig,
    /// Forward rules, in order; the first match wins. Empty: one rule, `#` to lane `default`.
    pub(crate) forward: Vec<ForwardRule>,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            log: LogConfig::default(),
            mqtt: MqttConfig {
                listen: Listen::loopback(1883),
                ..MqttConfig::default()
            },
            http: HttpConfig {
                listen: Listen::loopback(8081),
                ..HttpConfig::default()
            },
            uplink: UplinkConfig::default(),
            store: StoreSettings::default(),
            session: SessionConfig::default(),
            forward: Vec::new(),
        }
    }
}

/// `[uplink]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UplinkConfig {
    /// Cloud nodes, `host:port`, tried in order. Empty: the addresses of the join token are used.
    pub(crate) cloud: HostPorts,
    /// Interval of keep-alive packets. Each costs some 40 bytes on a metered link.
    pub(crate) keep_alive_ms: u64,
    /// Silence after which the link counts as lost.
    pub(crate) idle_timeout_ms: u64,
    /// Time for the handshake with one address of the list; a name with several addresses shares it out.
    pub(crate) connect_timeout_ms: u64,
    /// First pause between attempts; doubles up to `backoff_max_ms`, with jitter.
    pub(crate) backoff_min_ms: u64,
    /// Longest pause between attempts.
    pub(crate) backoff_max_ms: u64,
    /// Bytes read ahead of the link for all lanes together.
    pub(crate) read_ahead: ByteSize,
    /// Interval of heartbeats through the whole path; also how long nothing may move before the link counts as degraded. 0: off.
    pub(crate) heartbeat_ms: u64,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            cloud: HostPorts::default(),
            keep_alive_ms: 20_000,
            idle_timeout_ms: 60_000,
            connect_timeout_ms: 10_000,
            backoff_min_ms: 200,
            backoff_max_ms: 30_000,
            read_ahead: ByteSize(4 << 20),
            heartbeat_ms: 15_000,
        }
    }
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSettings {
    /// Flash that the buffer may use. At 85 % publishers are held back.
    pub(crate) quota: ByteSize,
    /// Size at which a segment is sealed; space comes back in segments.
    pub(crate) segment: ByteSize,
    /// Acked batches kept for a cloud that was restored to an older state; dropped first when space is short.
    pub(crate) grace: ByteSize,
    /// Share of the quota that lagging persistent sessions may hold.
    pub(crate) session_pin_share: f64,
    /// Memory for the newest committed records, from which live readers and the uplink are fed.
    pub(crate) tail: ByteSize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            quota: ByteSize(1 << 30),
            segment: ByteSize(8 << 20),
            grace: ByteSize(64 << 20),
            session_pin_share: 0.25,
            tail: ByteSize(4 << 20),
        }
    }
}

/// One `[[forward]]` rule.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForwardRule {
    /// Topics that the rule takes.
    pub(crate) filter: String,
    /// Lane that they go to.
    #[serde(default = "default_lane")]
    pub(crate) lane: String,
    /// What an acknowledgement means.
    #[serde(default)]
    pub(crate) durability: Durability,
}

fn default_lane() -> String {
    "default".into()
}

/// When a message of a lane counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// On flash, synced, before the acknowledgement.
    #[default]
    Fsync,
}

impl EdgeConfig {
    /// Checks what the types cannot: ranges, names, filters. The first violation is returned.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.log.validate()?;
        self.mqtt.validate(PACKET_MAX_EDGE as u64)?;
        self.session.validate()?;
        ranged("uplink.keep_alive_ms", self.uplink.keep_alive_ms, 100..=600_000)?;
        ranged("uplink.idle_timeout_ms", self.uplink.idle_timeout_ms, 500..=3_600_000)?;
        below_idle(
            "uplink.keep_alive_ms",
            self.uplink.keep_alive_ms,
            self.uplink.idle_timeout_ms,
        )?;
        ranged(
            "uplink.connect_timeout_ms",
            self.uplink.connect_timeout_ms,
            100..=600_000,
        )?;
        ranged("uplink.backoff_min_ms", self.uplink.backoff_min_ms, 10..=600_000)?;
        ranged(
            "uplink.backoff_max_ms",
            self.uplink.backoff_max_ms,
            self.uplink.backoff_min_ms..=3_600_000,
        )?;
        ranged("uplink.read_ahead", self.uplink.read_ahead.0, (64 << 10)..=(1 << 30))?;
        if self.uplink.heartbeat_ms != 0 {
            ranged("uplink.heartbeat_ms", self.uplink.heartbeat_ms, 100..=3_600_000)?;
        }
        ranged("store.quota", self.store.quota.0, (4 << 20)..=(1 << 50))?;
        ranged("store.segment", self.store.segment.0, (64 << 10)..=(1 << 30))?;
        ranged("store.grace", self.store.grace.0, 0..=(1 << 40))?;
        ranged("store.tail", self.store.tail.0, (64 << 10)..=(1 << 30))?;
        if !(0.0..=0.9).contains(&self.store.session_pin_share) {
            return Err(out_of_range(
                "store.session_pin_share",
                self.store.session_pin_share.to_string(),
                "0 to 0.9",
            ));
        }
        self.forward.iter().try_for_each(ForwardRule::validate)
    }

    /// The rules in force: those of the configuration, or the default one.
    pub(crate) fn forward_rules(&self) -> Vec<ForwardRule> {
        if self.forward.is_empty() {
            return vec![ForwardRule {
                filter: "#".into(),
                lane: default_lane(),
                durability: Durability::Fsync,
            }];
        }
        self.forward.clone()
    }
}

impl ForwardRule {
    fn validate(&self) -> Result<(), ConfigError> {
        if let Err(error) = fellbeck_core::Filter::parse(&self.filter) {
            return Err(out_of_range(
                "forward.filter",
                self.filter.clone(),
                &format!("an MQTT topic filter ({error})"),
            ));
        }
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let legal = (1..=64).contains(&self.lane.len()) && self.lane.bytes().all(named);
        if !legal || self.lane == crate::rules::LOCAL_LANE {
            return Err(out_of_range(
                "forward.lane",
                self.lane.clone(),
                "1 to 64 of a-z A-Z 0-9 . _ -, and not `local`",
            ));
        }
        Ok(())
    }
}

fn out_of_range(field: &str, value: String, allowed: &str) -> ConfigError {
    ConfigError::out_of_range(field, value, allowed)
}
