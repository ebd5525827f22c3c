//! Configuration of a cloud node, as written in TOML, the environment and `--set`.
//!
//! One struct per part. Every field has a default, unknown keys are refused, ranges are checked by [`CloudConfig::validate`].

use std::path::PathBuf;

use fellbeck_core::limits::PACKET_MAX_CLOUD;
use fellbeck_node::{HttpConfig, MqttConfig, SessionConfig, below_idle};
use fellbeck_ops::config::{ByteSize, ConfigError, HostPorts, Listen, ranged};
use fellbeck_ops::identity::CaFiles;
use fellbeck_ops::logging::LogConfig;
use serde::{Deserialize, Serialize};

use crate::dedup::device_id::{ID_BYTES_MAX, Scheme, Scope};
use crate::dedup::window::WindowLimits;
use crate::routing::{DEFAULT_STREAM, GAPS_STREAM};

/// All settings of a cloud node.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CloudConfig {
    /// Directory that holds everything the node keeps. Required by all but `check`.
    pub(crate) data_dir: Option<PathBuf>,
    /// Log lines.
    pub(crate) log: LogConfig,
    /// Links of edges.
    pub(crate) link: LinkConfig,
    /// MQTT for consumers and producers.
    pub(crate) mqtt: MqttConfig,
    /// Kafka protocol; not served yet, so only `listen = ""` is accepted.
    pub(crate) kafka: KafkaConfig,
    /// HTTP: health, metrics, status.
    pub(crate) http: HttpConfig,
    /// The partitioned log.
    pub(crate) store: StoreSettings,
    /// Device message IDs.
    pub(crate) dedup: DedupConfig,
    /// Persistent sessions.
    pub(crate) session: SessionConfig,
    /// Streams, in order; the first match wins. A stream `default` (filter `#`, 8 partitions) is added unless one has that name.
    pub(crate) stream: Vec<StreamConfig>,
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            data_dir: None,
            log: LogConfig::default(),
            link: LinkConfig::default(),
            mqtt: MqttConfig {
                listen: Listen::loopback(1884),
                packet_max: ByteSize(PACKET_MAX_CLOUD as u64),
                ..MqttConfig::default()
            },
            kafka: KafkaConfig::default(),
            http: HttpConfig {
                listen: Listen::loopback(8080),
                ..HttpConfig::default()
            },
            store: StoreSettings::default(),
            dedup: DedupConfig::default(),
            session: SessionConfig {
                queue_records_max: 10_000,
                queue_bytes_max: ByteSize(8 << 20),
                subscriptions_max: 10_000,
                sessions_max: 100_000,
                will_bytes_max: ByteSize::mib(64),
                ..SessionConfig::default()
            },
            stream: Vec::new(),
        }
    }
}

/// `[link]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LinkConfig {
    /// Address (UDP) on which edges link and join.
    pub(crate) listen: Listen,
    /// Addresses that join tokens name, `host:port`. Empty: the address of `link.listen`.
    pub(crate) public: HostPorts,
    /// Interval of keep-alive packets towards edges.
    pub(crate) keep_alive_ms: u64,
    /// Silence after which a link counts as lost.
    pub(crate) idle_timeout_ms: u64,
    /// How long a connection that may still live is given to answer before another incarnation takes its place.
    pub(crate) probe_timeout_ms: u64,
    /// Bytes of one edge that may be under way and not yet durable.
    pub(crate) credit: ByteSize,
    /// Edges linked at once; more are refused.
    pub(crate) edges_max: u32,
    /// Certificate (PEM) of a CA of the operator's own. Empty: the node makes its CA at first start.
    pub(crate) ca_certificate: String,
    /// Key (PEM) of that CA.
    pub(crate) ca_key: String,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(4483),
            public: HostPorts::default(),
            keep_alive_ms: 20_000,
            idle_timeout_ms: 60_000,
            probe_timeout_ms: 2_000,
            credit: ByteSize(4 << 20),
            edges_max: 10_000,
            ca_certificate: String::new(),
            ca_key: String::new(),
        }
    }
}

/// `[kafka]`
#[derive(Debug, Clone, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KafkaConfig {
    /// Address of the Kafka listener; `""` (the default) is off.
    pub(crate) listen: Listen,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSettings {
    /// Bytes of log that are kept; the oldest segments go first. 0: no bound.
    pub(crate) retention: ByteSize,
    /// Age beyond which segments go, in hours. 0: no bound.
    pub(crate) retention_hours: u64,
    /// Disk that the store may use; at 85 % publishers and links are held back. 0: no bound.
    pub(crate) quota: ByteSize,
    /// Size at which a segment is sealed; retention works in segments.
    pub(crate) segment: ByteSize,
    /// Memory for the newest committed records, from which live readers are fed.
    pub(crate) tail: ByteSize,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            retention: ByteSize(10 << 30),
            retention_hours: 7 * 24,
            quota: ByteSize(0),
            segment: ByteSize(128 << 20),
            tail: ByteSize(32 << 20),
        }
    }
}

/// `[dedup]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DedupConfig {
    /// MQTT 5 user property that holds a device message ID. Empty: none.
    pub(crate) message_id: String,
    /// Among whose messages that ID is unique: `device` or `cloud`.
    pub(crate) message_id_scope: Scope,
    /// Whether `id` and `source` of CloudEvents count as a device message ID.
    pub(crate) cloud_events: bool,
    /// Device message IDs that are remembered at most.
    pub(crate) window_ids: u64,
    /// Time for which a device message ID is remembered.
    pub(crate) window_secs: u64,
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self {
            message_id: "message-id".into(),
            message_id_scope: Scope::Device,
            cloud_events: true,
            window_ids: 1_000_000,
            window_secs: 7 * 24 * 3600,
        }
    }
}

impl DedupConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.message_id.len() > ID_BYTES_MAX {
            let allowed = "the name of a user property, up to 256 bytes, or \"\"";
            return Err(out_of_range("dedup.message_id", self.message_id.clone(), allowed));
        }
        ranged("dedup.window_ids", self.window_ids, 1..=100_000_000)?;
        ranged("dedup.window_secs", self.window_secs, 1..=(10 * 366 * 24 * 3600))?;
        Ok(())
    }

    /// Where identifiers are looked for.
    pub(crate) fn scheme(&self) -> Scheme {
        Scheme {
            property: self.message_id.clone(),
            scope: self.message_id_scope,
            cloud_events: self.cloud_events,
        }
    }

    /// How many are remembered, and for how long.
    pub(crate) fn limits(&self) -> WindowLimits {
        WindowLimits {
            count: usize::try_from(self.window_ids).unwrap_or(usize::MAX),
            age_ms: self.window_secs * 1000,
        }
    }
}

/// One `[[stream]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamConfig {
    /// Name: 1 to 200 of `a-z A-Z 0-9 . _ -`.
    pub(crate) name: String,
    /// Topic filters; a record goes to the first stream with a filter that matches.
    pub(crate) filters: Vec<String>,
    /// Number of partitions.
    #[serde(default = "default_partitions")]
    pub(crate) partitions: u32,
}

fn default_partitions() -> u32 {
    8
}

impl CloudConfig {
    /// Checks what the types cannot: ranges, names, filters. The first violation is returned.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.log.validate()?;
        ranged("link.keep_alive_ms", self.link.keep_alive_ms, 100..=600_000)?;
        ranged("link.idle_timeout_ms", self.link.idle_timeout_ms, 500..=3_600_000)?;
        below_idle("link.keep_alive_ms", self.link.keep_alive_ms, self.link.idle_timeout_ms)?;
        ranged("link.probe_timeout_ms", self.link.probe_timeout_ms, 50..=60_000)?;
        ranged("link.credit", self.link.credit.0, (64 << 10)..=(1 << 30))?;
        ranged("link.edges_max", u64::from(self.link.edges_max), 1..=1_000_000)?;
        self.mqtt.validate(PACKET_MAX_CLOUD as u64)?;
        self.session.validate()?;
        self.dedup.validate()?;
        ranged("store.segment", self.store.segment.0, (256 << 10)..=(16 << 30))?;
        ranged("store.tail", self.store.tail.0, (64 << 10)..=(16 << 30))?;
        if self.link.ca_certificate.is_empty() != self.link.ca_key.is_empty() {
            let reason = "a CA needs both `link.ca_certificate` and `link.ca_key`";
            return Err(ConfigError::invalid("link.ca_key", &self.link.ca_key, reason));
        }
        if self.kafka.listen != Listen::OFF {
            let allowed = "\"\" (the Kafka endpoint is not built yet)";
            return Err(out_of_range("kafka.listen", self.kafka.listen.to_string(), allowed));
        }
        for (index, stream) in self.stream.iter().enumerate() {
            stream.validate()?;
            if self.stream[..index].iter().any(|other| other.name == stream.name) {
                return Err(out_of_range(
                    "stream.name",
                    stream.name.clone(),
                    "a name of its own for each stream",
                ));
            }
        }
        Ok(())
    }

    /// The streams in force: those of the configuration, and the default one behind them unless they have it.
    pub(crate) fn streams(&self) -> Vec<StreamConfig> {
        let mut streams = self.stream.clone();
        if !streams.iter().any(|stream| stream.name == DEFAULT_STREAM) {
            let filters = vec!["#".into()];
            streams.push(StreamConfig {
                name: DEFAULT_STREAM.into(),
                filters,
                partitions: default_partitions(),
            });
        }
        streams
    }
}

impl LinkConfig {
    /// The CA that the operator gives, if any.
    pub(crate) fn given_ca(&self) -> Option<CaFiles> {
        (!self.ca_certificate.is_empty()).then(|| CaFiles {
            certificate: PathBuf::from(&self.ca_certificate),
            key: PathBuf::from(&self.ca_key),
        })
    }
}

impl StreamConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let legal = (1..=200).contains(&self.name.len()) && self.name.bytes().all(named);
        if !legal || self.name == GAPS_STREAM {
            let allowed = "1 to 200 of a-z A-Z 0-9 . _ -, and not `fellbeck.gaps`";
            return Err(out_of_range("stream.name", self.name.clone(), allowed));
        }
        ranged("stream.partitions", u64::from(self.partitions), 1..=1024)?;
        for filter in &self.filters {
            if let Err(error) = fellbeck_core::Filter::parse(filter) {
                return Err(out_of_range(
                    "stream.filters",
                    filter.clone(),
                    &format!("MQTT topic filters ({error})"),
                ));
            }
        }
        Ok(())
    }
}

fn out_of_range(field: &str, value: String, allowed: &str) -> ConfigError {
    ConfigError::out_of_range(field, value, allowed)
}
