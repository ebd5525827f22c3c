//! Dialling: one UDP socket and the QUIC settings of an edge.
//!
//! In: the `[uplink]` settings and a TLS configuration. Out: QUIC connections, or one line that says why not and what to do.
//! Knows nothing of frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fellbeck_ops::config::HostPort;
use fellbeck_ops::identity::{CLOUD_NAME, Side, explain_crypto_error};
use fellbeck_ops::udp;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig};

use crate::config::UplinkConfig;

/// Bytes of one stream that may be sent and not yet confirmed; bounds the memory of a slow link.
const SEND_WINDOW: u64 = 8 << 20;
/// Bytes of one stream that the cloud may send ahead of what was read: control frames, or messages.
const STREAM_RECEIVE_WINDOW: u32 = 256 << 10;
/// The same of all streams, so that messages that wait never hold back a control frame.
const RECEIVE_WINDOW: u32 = 2 * STREAM_RECEIVE_WINDOW;
/// Least time for one address of a name.
const SHARE_MIN: Duration = Duration::from_millis(500);
/// Time that a closing endpoint gets to tell the other side.
const FAREWELL: Duration = Duration::from_millis(500);

/// A socket from which connections are made.
pub(crate) struct Dialer {
    endpoint: Endpoint,
    config: ClientConfig,
}

impl Dialer {
    /// Binds a socket on any port.
    pub(crate) fn new(uplink: &UplinkConfig, tls: rustls::ClientConfig) -> Result<Self, String> {
        let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport(uplink)?));
        // IPv6 may be switched off on a gateway.
        let socket = udp::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0))
            .or_else(|_| udp::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)))
            .map_err(|error| format!("UDP socket: {error}"))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime)
            .map_err(|error| format!("UDP socket: {error}"))?;
        Ok(Self { endpoint, config })
    }

    /// Connects to the first address of `host` that answers, trying each for its share of `within`.
    pub(crate) async fn connect(&self, host: &HostPort, within: Duration) -> Result<(Connection, SocketAddr), String> {
        let name = (host.host.clone(), host.port);
        let found = tokio::time::timeout(within, tokio::net::lookup_host(name)).await;
        let found = found.map_err(|_| "name lookup: no answer".to_owned())?;
        let addresses: Vec<_> = found.map_err(|error| format!("name lookup: {error}"))?.collect();
        // A name may have addresses that never answer, such as ::1 beside a cloud on 127.0.0.1.
        let share = (within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX)).max(SHARE_MIN);
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            match tokio::time::timeout(share, self.attempt(address)).await {
                Ok(Ok(connection)) => return Ok((connection, address)),
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("no answer within {share:?}"),
            }
        }
        Err(last)
    }

    async fn attempt(&self, address: SocketAddr) -> Result<Connection, String> {
        let connecting = self.endpoint.connect_with(self.config.clone(), address, CLOUD_NAME);
        let connecting = connecting.map_err(|error| error.to_string())?;
        connecting.await.map_err(|error| explain(&error))
    }

    /// Gives closing connections a moment to tell the other side.
    pub(crate) async fn idle(&self) {
        // Without the farewell the other side waits out its idle timeout; nothing is lost by that.
        tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await.ok();
    }
}

fn transport(uplink: &UplinkConfig) -> Result<TransportConfig, String> {
    let idle = Duration::from_millis(uplink.idle_timeout_ms);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(Duration::from_millis(uplink.keep_alive_ms)))
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).map_err(|error| error.to_string())?))
        .send_window(SEND_WINDOW)
        .receive_window(RECEIVE_WINDOW.into())
        .stream_receive_window(STREAM_RECEIVE_WINDOW.into())
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

/// One line for the operator, with what to do where that is known.
pub(crate) fn explain(error: &ConnectionError) -> String {
    let code = match error {
        ConnectionError::TransportError(error) => Some(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
        _ => None,
    };
    match code.and_then(|code| explain_crypto_error(code, Side::Edge)) {
        Some(advice) => format!("{error}: {advice}"),
        None => error.to_string(),
    }
}
