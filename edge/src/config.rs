//! Configuration of an edge node, as written in TOML, the environment and `--set`.
//!
//! One struct per part. Every field has a default, unknown keys are refused, ranges are checked by [`EdgeConfig::validate`].

use std::path::PathBuf;
use std::time::Duration;

use fellbeck_broker::session::Terms;
use fellbeck_core::limits::PACKET_MAX_EDGE;
use fellbeck_link::downlink::{FILTER_BYTES_MAX, WINDOW_MAX};
use fellbeck_node::{HttpConfig, MqttConfig, SessionConfig, below_idle};
use fellbeck_ops::config::{ByteSize, ConfigError, HostPorts, Listen, ranged};
use fellbeck_ops::logging::LogConfig;
use fellbeck_store::{Overflow, TrackPolicy};
use serde::{Deserialize, Serialize};

/// Memory of a lane whose messages are never written, where the rule has no `quota`.
const MEMORY_LANE: u64 = 4 << 20;
/// Segments that the quota holds at least.
const SEGMENTS_MIN: u64 = 16;

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
    /// Messages from the cloud.
    pub(crate) downlink: DownlinkConfig,
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
            downlink: DownlinkConfig::default(),
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

/// `[downlink]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DownlinkConfig {
    /// What clients here may receive of messages that were published to the cloud itself, once they subscribe to it.
    pub(crate) filters: Vec<String>,
    /// What they may receive of messages of other edges.
    pub(crate) edges: Vec<String>,
    /// Received, as far as the lists above allow it, although nobody here may be subscribed: for retained messages.
    pub(crate) always: Vec<String>,
    /// Messages at QoS 1 and 2 that may be under way and not on flash.
    pub(crate) window: u16,
}

impl Default for DownlinkConfig {
    fn default() -> Self {
        Self {
            filters: vec!["#".into()],
            edges: Vec::new(),
            always: Vec::new(),
            window: 256,
        }
    }
}

impl DownlinkConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        for (field, list) in [
            ("downlink.filters", &self.filters),
            ("downlink.edges", &self.edges),
            ("downlink.always", &self.always),
        ] {
            if list.len() > DOWNLINK_FILTERS_MAX {
                let allowed = format!("at most {DOWNLINK_FILTERS_MAX} filters");
                return Err(out_of_range(field, list.len().to_string(), &allowed));
            }
            for text in list {
                let is_own = ["$SYS", "$share", "$fellbeck"].contains(&text.split('/').next().unwrap_or_default());
                let is_legal = fellbeck_core::Filter::parse(text).is_ok() && text.len() <= FILTER_BYTES_MAX && !is_own;
                if !is_legal {
                    let allowed = "an MQTT topic filter of at most 4096 bytes, not of $SYS, $share or $fellbeck";
                    return Err(out_of_range(field, text.clone(), allowed));
                }
            }
        }
        ranged("downlink.window", self.window, 1..=WINDOW_MAX).map(drop)
    }
}

/// Filters of each list of `[downlink]`.
const DOWNLINK_FILTERS_MAX: usize = 256;

/// `[store]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSettings {
    /// Flash that the buffer may use. At 85 % publishers are held back.
    pub(crate) quota: ByteSize,
    /// Size at which a segment is sealed; space comes back in segments.
    pub(crate) segment: ByteSize,
    /// Free space of the file system below which nothing more is accepted.
    pub(crate) reserve: ByteSize,
    /// Bytes that the flash can take over its life, from its data sheet (TBW). Without it no life is estimated.
    pub(crate) endurance: Option<ByteSize>,
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
            reserve: ByteSize(192 << 20),
            endurance: None,
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
    /// What gives way when space runs out.
    #[serde(default)]
    pub(crate) overflow: OverflowRule,
    /// Lanes of a lower priority give way first.
    #[serde(default)]
    pub(crate) priority: u8,
    /// Flash that the lane may use; without it only `store.quota` counts.
    #[serde(default)]
    pub(crate) quota: Option<ByteSize>,
    /// Messages expire after this long at the latest.
    #[serde(default)]
    pub(crate) ttl_secs: Option<u32>,
    /// With `overflow = "thin"`: one message per topic and interval is kept.
    #[serde(default = "default_thin_interval")]
    pub(crate) thin_interval_ms: u64,
}

fn default_thin_interval() -> u64 {
    60_000
}

/// `overflow` of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OverflowRule {
    /// Publishers are held back or refused.
    #[default]
    Reject,
    /// New messages are turned away; MQTT 3.1.1 clients lose their connection.
    DropNew,
    /// The oldest segments go.
    DropOldest,
    /// The newest message of each topic is kept.
    KeepLatest,
    /// One message per topic and `thin_interval_ms` is kept.
    Thin,
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
    /// Acknowledged at once, on flash within a second.
    Interval,
    /// Acknowledged at once and never written: gone when the process ends.
    Memory,
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
        self.downlink.validate()?;
        if self.uplink.heartbeat_ms != 0 {
            ranged("uplink.heartbeat_ms", self.uplink.heartbeat_ms, 100..=3_600_000)?;
        }
        ranged("store.quota", self.store.quota.0, (4 << 20)..=(1 << 50))?;
        ranged("store.segment", self.store.segment.0, (64 << 10)..=(1 << 30))?;
        ranged("store.reserve", self.store.reserve.0, (4 << 20)..=(1 << 40))?;
        if let Some(endurance) = self.store.endurance {
            ranged("store.endurance", endurance.0, (1 << 30)..=(1 << 60))?;
        }
        ranged("store.grace", self.store.grace.0, 0..=(1 << 40))?;
        ranged("store.tail", self.store.tail.0, (64 << 10)..=(1 << 30))?;
        if !(0.0..=0.9).contains(&self.store.session_pin_share) {
            return Err(out_of_range(
                "store.session_pin_share",
                self.store.session_pin_share.to_string(),
                "0 to 0.9",
            ));
        }
        self.forward.iter().try_for_each(ForwardRule::validate)?;
        for (at, rule) in self.forward.iter().enumerate() {
            let other = self.forward[..at].iter().find(|other| other.lane == rule.lane);
            if other.is_some_and(|other| !other.agrees_with(rule)) {
                let reason = "all rules of a lane have the same durability, overflow, priority, quota, ttl_secs and thin_interval_ms";
                return Err(ConfigError::invalid("forward.lane", &rule.lane, reason));
            }
        }
        Ok(())
    }

    /// The rules in force: those of the configuration, or the default one.
    pub(crate) fn forward_rules(&self) -> Vec<ForwardRule> {
        if self.forward.is_empty() {
            return vec![ForwardRule::default()];
        }
        self.forward.clone()
    }
}

impl Default for ForwardRule {
    fn default() -> Self {
        Self {
            filter: "#".into(),
            lane: default_lane(),
            durability: Durability::default(),
            overflow: OverflowRule::default(),
            priority: 0,
            quota: None,
            ttl_secs: None,
            thin_interval_ms: default_thin_interval(),
        }
    }
}

impl StoreSettings {
    /// Size at which a segment is sealed: as configured, but small enough that a small quota holds several.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment.0.min(self.quota.0 / SEGMENTS_MIN)
    }
}

impl ForwardRule {
    /// How the store treats the lane.
    pub(crate) fn policy(&self) -> TrackPolicy {
        let interval = Duration::from_millis(self.thin_interval_ms);
        let is_memory = self.durability == Durability::Memory;
        let overflow = match self.overflow {
            OverflowRule::Reject => Overflow::Reject,
            OverflowRule::DropNew => Overflow::DropNew,
            OverflowRule::DropOldest => Overflow::DropOldest,
            OverflowRule::KeepLatest => Overflow::KeepLatest,
            OverflowRule::Thin => Overflow::Thin { interval },
        };
        TrackPolicy {
            overflow,
            priority: self.priority,
            quota_bytes: self.quota.filter(|_| !is_memory).map(|quota| quota.0),
            memory_bytes: is_memory.then(|| self.quota.map_or(MEMORY_LANE, |quota| quota.0)),
        }
    }

    /// What the lane asks for its messages.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            ack_at_once: self.durability == Durability::Interval,
            ttl_secs: self.ttl_secs,
        }
    }

    fn agrees_with(&self, other: &Self) -> bool {
        (self.policy(), self.terms(), self.durability) == (other.policy(), other.terms(), other.durability)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        ranged("forward.priority", u64::from(self.priority), 0..=9)?;
        ranged("forward.thin_interval_ms", self.thin_interval_ms, 10..=86_400_000)?;
        if let Some(ttl_secs) = self.ttl_secs {
            ranged("forward.ttl_secs", u64::from(ttl_secs), 1..=u64::from(u32::MAX - 1))?;
        }
        let is_sparing = matches!(self.overflow, OverflowRule::KeepLatest | OverflowRule::Thin);
        if self.durability == Durability::Memory && is_sparing {
            let reason = "a lane with durability `memory` has `reject`, `drop-new` or `drop-oldest`";
            return Err(ConfigError::invalid(
                "forward.overflow",
                format!("{:?}", self.overflow),
                reason,
            ));
        }
        if let Some(quota) = self.quota {
            ranged("forward.quota", quota.0, (1 << 20)..=(1 << 50))?;
        }
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
