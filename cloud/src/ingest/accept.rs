//! The link endpoint: one UDP socket for links and joins.
//!
//! In: the configuration, the identity of the cloud. Out: a task per connection, told apart by ALPN.
//! Bounded: connections, handshake time, streams and windows per connection. A stranger costs a handshake and a line in the log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fellbeck_node::NodeError;
use fellbeck_ops::identity::{
    CloudIdentity, JOIN_ALPN, LINK_ALPN, LINK_ALPN_DOWNLINK, Side, cloud_server_config, explain_crypto_error,
};
use fellbeck_ops::{NodeClock, Shutdown, udp};
use fellbeck_store::Store;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::append::Places;
use super::edges::Edges;
use super::join::Joins;
use super::noise::Noise;
use super::{admit, join};
use crate::config::LinkConfig;
use crate::downlink::Downlink;
use crate::gaps::GapList;

/// Bytes of one lane stream that an edge may send ahead of what was read.
const STREAM_WINDOW: u32 = 2 << 20;
/// Bytes of all streams before the edge is admitted: a Hello or a join, and no more.
const STRANGER_WINDOW: u32 = 128 << 10;
/// Handshakes under way at which an address has to prove itself with a retry token first.
const HANDSHAKES_FREE: usize = 64;
/// Handshakes under way at which more are refused. Admitted links are not counted here.
const HANDSHAKES_MAX: usize = 512;
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
    /// The way down; set once the broker runs, and never where MQTT is off.
    pub(crate) downlink: OnceLock<Downlink>,
    /// Join attempts.
    pub(crate) joins: Joins,
    /// Links that are up.
    pub(crate) live: AtomicUsize,
    /// Handshakes, Hellos and joins under way.
    pub(crate) strangers: AtomicUsize,
    /// Set when a part of the link cannot go on; the node then ends.
    pub(crate) failed: watch::Sender<Option<String>>,
    /// Lines about strangers, at most one per second.
    pub(crate) noise: Noise,
    /// Gaps that edges have declared.
    pub(crate) gaps: GapList,
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
                    Some(incoming) => {
                        if let Some(incoming) = parts.let_in(incoming, connections.len()) {
                            connections.spawn(connection(incoming, parts.clone(), shutdown.clone()));
                        }
                    }
                    None => {
                        parts.fail("the link's socket has failed");
                        break;
                    }
                },
                Some(ended) = connections.join_next(), if !connections.is_empty() => parts.note(ended),
                () = shutdown.requested() => break,
            }
        }
        self.endpoint.set_server_config(None);
        while let Some(ended) = connections.join_next().await {
            parts.note(ended);
        }
        // An edge that is not told finds out by its idle timeout.
        tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await.ok();
    }
}

async fn connection(incoming: Incoming, parts: Arc<LinkParts>, mut shutdown: Shutdown) {
    let peer = incoming.remote_address();
    let stranger = parts.count_stranger();
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
        Ok(Err(error)) => return refused(&parts, peer, &explain(&error)),
        Err(_) => return refused(&parts, peer, "the handshake took too long"),
    };
    match alpn(&connection).as_deref() {
        Some(LINK_ALPN | LINK_ALPN_DOWNLINK) => admit::link(connection, parts, stranger, shutdown).await,
        Some(JOIN_ALPN) => join::serve(connection, &parts).await,
        _ => refused(&parts, peer, "the peer names no protocol of ours"),
    }
}

fn refused(parts: &LinkParts, peer: SocketAddr, reason: &str) {
    metrics::counter!("fellbeck_link_refused_total", "code" => "handshake").increment(1);
    // Anybody can cause these, at the rate of packets.
    if let Some(suppressed) = parts.noise.admit(parts.clock.tick()) {
        tracing::warn!(%peer, reason, suppressed, "link refused");
    }
}

/// The protocol that both sides named.
pub(crate) fn alpn(connection: &Connection) -> Option<Vec<u8>> {
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
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(STRANGER_WINDOW.into())
        .datagram_receive_buffer_size(None);
    transport
}

impl LinkParts {
    /// Decides whether a handshake begins. An address that has not shown that it can be reached is asked to, when there are many.
    fn let_in(&self, incoming: Incoming, connections: usize) -> Option<Incoming> {
        let strangers = self.strangers.load(Ordering::Relaxed);
        if strangers >= HANDSHAKES_MAX || connections >= self.config.edges_max as usize + HANDSHAKES_MAX {
            metrics::counter!("fellbeck_link_refused_total", "code" => "too_many").increment(1);
            incoming.refuse();
            return None;
        }
        if strangers >= HANDSHAKES_FREE && !incoming.remote_address_validated() {
            metrics::counter!("fellbeck_link_retries_total").increment(1);
            // What cannot be retried any more is already validated; either way the peer asks again.
            incoming.retry().ok();
            return None;
        }
        Some(incoming)
    }

    /// Ends the node.
    pub(crate) fn fail(&self, reason: &str) {
        self.failed.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(reason.to_owned());
            }
            first
        });
    }

    /// A task of a link that panicked may have left commits under way that its edge's book knows nothing of: the node must not go on.
    fn note(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            tracing::error!(%error, "the task of a link has panicked");
            self.fail("the task of a link has panicked");
        }
    }

    /// Counts a connection that is not admitted yet, for as long as the guard lives.
    fn count_stranger(self: &Arc<Self>) -> StrangerGuard {
        self.strangers.fetch_add(1, Ordering::Relaxed);
        StrangerGuard(self.clone())
    }

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

/// A connection that is not admitted yet.
pub(crate) struct StrangerGuard(Arc<LinkParts>);

impl Drop for StrangerGuard {
    fn drop(&mut self) {
        self.0.strangers.fetch_sub(1, Ordering::Relaxed);
    }
}
