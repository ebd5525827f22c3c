//! Start and stop of the broker of a node.

use std::time::Duration;

use fellbeck_broker::front::{self, CoreSetup, MakeRoute, MqttServer, MqttServerConfig, StatusValues};
use fellbeck_broker::session::{CoreConfig, CoreLimits};
use fellbeck_ops::NodeClock;
use fellbeck_ops::config::{ConfigError, Listen, PublicCheck, check_public_listener};
use fellbeck_store::Store;

use crate::config::{MqttConfig, SessionConfig};
use crate::error::NodeError;

/// Time for MQTT to drain at shutdown.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What differs between the brokers of the nodes.
pub struct BrokerParts {
    /// Name of the node.
    pub name: String,
    /// Where messages are logged.
    pub route: MakeRoute,
    /// Mode, local track and the bounds that the configuration does not set.
    pub core: CoreConfig,
    /// What the node says of itself below `$SYS/fellbeck/`.
    pub status: StatusValues,
}

/// Starts the broker, unless its listener is off.
pub fn start_mqtt(
    mqtt: &MqttConfig,
    session: &SessionConfig,
    parts: BrokerParts,
    store: &Store,
) -> Result<Option<MqttServer>, NodeError> {
    let Some(address) = resolve("mqtt", &mqtt.listen, &mqtt.unauthenticated_public)? else {
        return Ok(None);
    };
    let server = MqttServerConfig {
        listen: vec![address],
        packet_max: u32::try_from(mqtt.packet_max.0).unwrap_or(u32::MAX),
        connections_max: mqtt.connections_max as usize,
        first_packet_timeout: Duration::from_millis(mqtt.first_packet_timeout_ms),
        sys_interval: Duration::from_secs(u64::from(mqtt.sys_interval_secs)),
        // Asked once a second, and each time of the kernel.
        clock: || NodeClock::start().quality(),
        ..MqttServerConfig::default()
    };
    let limits = CoreLimits {
        receive_maximum: mqtt.receive_maximum,
        session_queue_records: session.queue_records_max as usize,
        session_queue_bytes: session.queue_bytes_max.as_usize(),
        subscriptions_max: session.subscriptions_max as usize,
        sessions_max: session.sessions_max as usize,
        session_expiry_max_secs: session.expiry_max_secs,
        ..parts.core.limits
    };
    let config = CoreConfig { limits, ..parts.core };
    let setup = CoreSetup {
        config,
        route: parts.route,
        node_name: parts.name,
        status: parts.status,
    };
    Ok(Some(front::start(server, setup, store.clone())?))
}

/// Drains and stops the broker. What was acknowledged is durable whatever the outcome.
pub async fn stop_mqtt(mqtt: Option<MqttServer>) -> Result<(), NodeError> {
    let Some(mqtt) = mqtt else { return Ok(()) };
    match tokio::task::spawn_blocking(move || mqtt.shutdown(DRAIN_WITHIN)).await {
        Ok(front::Shutdown::Clean) => Ok(()),
        Ok(front::Shutdown::Late) => Err(NodeError::Deadline(DRAIN_WITHIN)),
        Ok(front::Shutdown::Failed) | Err(_) => Err(NodeError::Failed("the broker has failed".into())),
    }
}

/// The address of the listener `part`, checked against the rule for public listeners. `None`: it is off.
pub(crate) fn resolve(part: &str, listen: &Listen, words: &str) -> Result<Option<std::net::SocketAddr>, ConfigError> {
    let field = format!("{part}.listen");
    let Some(address) = listen.resolve(&field)? else {
        return Ok(None);
    };
    check_public_listener(&PublicCheck {
        field: &field,
        address,
        authenticated: false,
        words_field: &format!("{part}.unauthenticated_public"),
        words,
    })?;
    Ok(Some(address))
}
