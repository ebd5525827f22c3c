//! Start and stop of the broker of a node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_broker::front::{self, CoreSetup, MakeRoute, MqttServer, MqttServerConfig, StatusValues, Transport};
use fellbeck_broker::session::{CoreConfig, CoreLimits};
use fellbeck_ops::NodeClock;
use fellbeck_ops::config::{ConfigError, Listen, PublicCheck, check_public_listener};
use fellbeck_store::Store;

use crate::config::{MqttConfig, SessionConfig};
use crate::descriptors;
use crate::error::NodeError;

/// Time for MQTT to drain at shutdown.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What differs between the brokers of the nodes.
pub struct BrokerParts {
    /// Ports of listeners that the configuration leaves out.
    pub ports: DefaultPorts,
    /// Name of the node.
    pub name: String,
    /// Where messages are logged.
    pub route: MakeRoute,
    /// Mode, local track and the bounds that the configuration does not set.
    pub core: CoreConfig,
    /// What the node says of itself below `$SYS/fellbeck/`.
    pub status: StatusValues,
}

/// Ports on loopback of listeners that the configuration leaves out.
#[derive(Debug, Clone, Copy)]
pub struct DefaultPorts {
    /// MQTT over WebSocket.
    pub ws: u16,
    /// MQTT over TLS, once there is a certificate.
    pub tls: u16,
}

/// Starts the broker, unless all its listeners are off.
pub fn start_mqtt(
    mqtt: &MqttConfig,
    session: &SessionConfig,
    parts: BrokerParts,
    store: &Store,
) -> Result<Option<MqttServer>, NodeError> {
    let listeners = configured(mqtt, parts.ports)?;
    if listeners.tcp.is_none() && listeners.tls.is_none() && listeners.ws.is_none() && listeners.wss.is_none() {
        return Ok(None);
    }
    descriptors::make_room(mqtt.connections_max);
    let server = MqttServerConfig {
        listen: listeners.tcp.into_iter().collect(),
        tls_listen: listeners.tls.into_iter().collect(),
        ws_listen: listeners.ws.into_iter().collect(),
        wss_listen: listeners.wss.into_iter().collect(),
        optional: mqtt.ws_listen.is_none().then_some(Transport::Ws).into_iter().collect(),
        ws_origins: mqtt.ws_origins.clone(),
        tls: mqtt.tls()?,
        connect_rate: mqtt.connect_rate_per_sec,
        connect_burst: mqtt.connect_burst,
        packet_max: u32::try_from(mqtt.packet_max.0).unwrap_or(u32::MAX),
        connections_max: mqtt.connections_max as usize,
        handshakes_max: mqtt.tls_handshakes_max as usize,
        first_packet_timeout: Duration::from_millis(mqtt.first_packet_timeout_ms),
        keep_alive_max: (mqtt.keep_alive_max_secs > 0).then_some(mqtt.keep_alive_max_secs),
        topic_alias_maximum: mqtt.topic_alias_maximum,
        topic_levels_max: mqtt.topic_levels_max,
        write_buffer_high: mqtt.write_buffer_high.as_usize(),
        stalled_after: Duration::from_millis(mqtt.stalled_after_ms),
        partial_bytes_max: mqtt.partial_bytes_max.as_usize(),
        partial_within: Duration::from_millis(mqtt.partial_within_ms),
        submissions_max: session.commits_max.into(),
        sys_interval: Duration::from_secs(u64::from(mqtt.sys_interval_secs)),
        // Passwords and access control are not built yet.
        authenticator: Arc::new(front::AllowAll),
        // Asked once a second, and each time of the kernel.
        clock: || NodeClock::start().quality(),
    };
    let config = CoreConfig {
        limits: limits(mqtt, session, parts.core.limits),
        ..parts.core
    };
    let setup = CoreSetup {
        config,
        route: parts.route,
        node_name: parts.name,
        status: parts.status,
    };
    Ok(Some(front::start(server, setup, store.clone())?))
}

/// The bounds of the session core: those of the configuration over those of the node.
fn limits(mqtt: &MqttConfig, session: &SessionConfig, node: CoreLimits) -> CoreLimits {
    CoreLimits {
        clock_runs_since: NodeClock::start().runs_since(),
        receive_maximum: mqtt.receive_maximum,
        in_flight_max: session.in_flight_max,
        session_queue_records: session.queue_records_max as usize,
        session_queue_bytes: session.queue_bytes_max.as_usize(),
        subscriptions_max: session.subscriptions_max as usize,
        subscription_bytes_max: session.subscription_bytes_max.as_usize(),
        will_bytes_max: session.will_bytes_max.as_usize(),
        sessions_max: session.sessions_max as usize,
        groups_max: session.groups_max as usize,
        session_expiry_max_secs: session.expiry_max_secs,
        commit_bytes_max: session.commit_bytes_max.as_usize(),
        outstanding_max: session.commits_max.into(),
        reads_max: session.reads_max.into(),
        read_bytes: session.read_bytes.as_usize(),
        ..node
    }
}

/// Addresses of the listeners; `None`: off.
struct Listeners {
    tcp: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    ws: Option<SocketAddr>,
    wss: Option<SocketAddr>,
}

fn configured(mqtt: &MqttConfig, ports: DefaultPorts) -> Result<Listeners, ConfigError> {
    let words = &*mqtt.unauthenticated_public;
    // A client that must show a certificate has proved who it is.
    let proves = !mqtt.tls_client_ca.is_empty();
    let tcp = resolve("mqtt", Transport::Tcp.field(), &mqtt.listen, words, false)?;
    // Where MQTT is off, or takes any port, so do those that were not asked for: several nodes fit on one machine.
    let default = |port: u16| match tcp {
        Some(address) if address.port() == 0 => Listen::loopback(0),
        Some(_) => Listen::loopback(port),
        None => Listen::OFF,
    };
    let default_tls = if mqtt.tls_cert.is_empty() {
        Listen::OFF
    } else {
        default(ports.tls)
    };
    let tls = mqtt.tls_listen.clone().unwrap_or(default_tls);
    let ws = mqtt.ws_listen.clone().unwrap_or_else(|| default(ports.ws));
    Ok(Listeners {
        tcp,
        tls: resolve("mqtt", Transport::Tls.field(), &tls, words, proves)?,
        ws: resolve("mqtt", Transport::Ws.field(), &ws, words, false)?,
        wss: resolve("mqtt", Transport::Wss.field(), &mqtt.wss_listen, words, proves)?,
    })
}

/// The listeners of a node by their name in the ready file.
#[must_use]
pub fn listeners(mqtt: Option<&MqttServer>, others: &[(&str, Option<SocketAddr>)]) -> BTreeMap<String, String> {
    let mqtt = mqtt.into_iter().flat_map(MqttServer::listeners);
    let mqtt = mqtt.map(|(transport, address)| (transport.name().to_owned(), address.to_string()));
    let others = others
        .iter()
        .filter_map(|(name, address)| Some(((*name).to_owned(), (*address)?.to_string())));
    mqtt.chain(others).collect()
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

/// The address of a listener, checked against the rule for public listeners. `None`: it is off.
pub(crate) fn resolve(
    part: &str,
    field: &str,
    listen: &Listen,
    words: &str,
    authenticated: bool,
) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(address) = listen.resolve(field)? else {
        return Ok(None);
    };
    check_public_listener(&PublicCheck {
        field,
        address,
        authenticated,
        words_field: &format!("{part}.unauthenticated_public"),
        words,
    })?;
    Ok(Some(address))
}
