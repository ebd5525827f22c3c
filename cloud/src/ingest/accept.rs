//! The link endpoint: one UDP socket for links and joins.
//!
//! In: the configuration, the identity of the cloud. Out: a task per connection, told apart by ALPN.
//! Bounded: connections, handshake time, streams and windows per connection. A stranger costs a handshake and a line in the log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fellbeck_link::limits::LANES_MAX;
use fellbeck_node::NodeError;
use fellbeck_ops::identity::{CloudIdentity, JOIN_ALPN, LINK_ALPN, Side, cloud_server_config, explain_crypto_error};
use fellbeck_ops::{NodeClock, Shutdown, udp};
use fellbeck_store::Store;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig,
};
use tokio::task::JoinSet;

use super::append::Places;
use super::edges::Edges;
use super::join::Joins;
use super::{admit, join};
use crate::config::LinkConfig;

/// Bytes of one lane stream that an edge may send ahead of what was read.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Time for a handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Time for the farewell of all links at shutdown.
const FAREWELL: Duration = Duration::from_secs(2);

/// What every link works with.
pub(crate) struct LinkParts {
    /// `[link]`.
    pub(crate) config: LinkConfig,
    /// The log.
    pub(crate) store: Store,
    /// Where records go.
    pub(crate) places: Places,
    /// The edges and their marks.
    pub(crate) edges: Edges,
    /// CA, registry, tokens.
    pub(crate) identity: CloudIdentity,
    /// Time.
    pub(crate) clock: NodeClock,
    /// Join attempts.
    pub(crate) joins: Joins,
    /// Links that are up.
    pub(crate) live: AtomicUsize,
}

/// A bound endpoint that does not accept yet.
pub(crate) struct LinkServer {
    endpoint: Endpoint,
    address: SocketAddr,
}

impl LinkServer {
    /// Binds `address` (UDP); port 0 lets the system choose.
    pub(crate) fn bind(address: SocketAddr, parts: &LinkParts) -> Result<Self, NodeError> {
        let identity = |error: &dyn std::fmt::Display| NodeError::Identity(error.to_string());
        let tls = cloud_server_config(&parts.identity, parts.clock.wall()).map_err(|error| identity(&error))?;
        let tls = QuicServerConfig::try_from(tls).map_err(|error| identity(&error))?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport(&parts.config)));
        let socket_error = |source| NodeError::Socket {
            field: "link.listen",
            address,
            source,
        };
        let socket = udp::bind(address).map_err(socket_error)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime).map_err(socket_error)?;
        let address = endpoint.local_addr().map_err(socket_error)?;
        Ok(Self { endpoint, address })
    }

    /// The real address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves links and joins until shutdown; ends when what the links had under way is durable.
    pub(crate) async fn run(self, parts: Arc<LinkParts>, mut shutdown: Shutdown) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) if connections.len() < parts.config.edges_max as usize => {
                        connections.spawn(connection(incoming, parts.clone(), shutdown.clone()));
                    }
                    Some(incoming) => {
                        metrics::counter!("fellbeck_link_refused_total", "code" => "too_many").increment(1);
                        incoming.refuse();
                    }
                    None => break,
                },
                Some(ended) = connections.join_next(), if !connections.is_empty() => note(ended),
                () = shutdown.requested() => break,
            }
        }
        self.endpoint.set_server_config(None);
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
        // An edge that is not told finds out by its idle timeout.
        tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await.ok();
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the task of a link has panicked");
    }
}

async fn connection(incoming: Incoming, parts: Arc<LinkParts>, mut shutdown: Shutdown) {
    let peer = incoming.remote_address();
    let handshake = async {
        match incoming.accept() {
            Ok(connecting) => connecting.await,
            Err(error) => Err(error),
        }
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(HANDSHAKE_WITHIN, handshake) => outcome,
        () = shutdown.requested() => return,
    };
    let connection = match outcome {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(peer, &explain(&error)),
        Err(_) => return refused(peer, "the handshake took too long"),
    };
    match alpn(&connection).as_deref() {
        Some(LINK_ALPN) => admit::link(connection, parts, shutdown).await,
        Some(JOIN_ALPN) => join::serve(connection, &parts).await,
        _ => refused(peer, "the peer names no protocol of ours"),
    }
}

fn refused(peer: SocketAddr, reason: &str) {
    metrics::counter!("fellbeck_link_refused_total", "code" => "handshake").increment(1);
    tracing::warn!(%peer, reason, "link refused");
}

fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// One line for the operator, with what to do where that is known.
pub(crate) fn explain(error: &ConnectionError) -> String {
    let code = match error {
        ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    };
    match code.and_then(|code| explain_crypto_error(code, Side::Cloud)) {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}

fn transport(link: &LinkConfig) -> TransportConfig {
    let idle = Duration::from_millis(link.idle_timeout_ms);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_millis(link.keep_alive_ms)))
        .max_idle_timeout(Some(
            IdleTimeout::try_from(idle).expect("the configuration bounds the idle timeout"),
        ))
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams((LANES_MAX as u32).into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None);
    transport
}

impl LinkParts {
    /// Counts a link as up for as long as the guard lives.
    pub(crate) fn count_live(self: &Arc<Self>) -> LiveGuard {
        let up = self.live.fetch_add(1, Ordering::Relaxed) + 1;
        metrics::gauge!("fellbeck_link_edges").set(up as f64);
        LiveGuard(self.clone())
    }
}

/// A link that is up.
pub(crate) struct LiveGuard(Arc<LinkParts>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        let up = self.0.live.fetch_sub(1, Ordering::Relaxed) - 1;
        metrics::gauge!("fellbeck_link_edges").set(up as f64);
    }
}
