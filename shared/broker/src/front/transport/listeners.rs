//! The listeners of a node: what kinds there are, and how they are bound.
//!
//! In: addresses per kind. Out: bound, non-blocking sockets. A listener that cannot be bound ends the start, unless the operator
//! did not ask for it: a default WebSocket port that is taken is no reason to leave devices without MQTT.

use std::net::{SocketAddr, TcpListener};

use crate::front::config::MqttServerConfig;
use crate::front::server::FrontError;

/// How MQTT reaches a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain TCP.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// All of them, plain TCP first.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// The key of the configuration that holds its address.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt.listen",
            Self::Tls => "mqtt.tls_listen",
            Self::Ws => "mqtt.ws_listen",
            Self::Wss => "mqtt.wss_listen",
        }
    }

    /// Its name in the ready file, and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "mqtt",
            Self::Tls => "mqtt_tls",
            Self::Ws => "mqtt_ws",
            Self::Wss => "mqtt_wss",
        }
    }

    /// Whether it needs a certificate.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

/// A bound listener.
#[derive(Debug)]
pub(in crate::front) struct Listening {
    pub(in crate::front) transport: Transport,
    pub(in crate::front) socket: TcpListener,
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

impl Listening {
    /// Binds all that the configuration names.
    pub(in crate::front) fn bind(config: &MqttServerConfig) -> Result<Vec<Self>, FrontError> {
        let mut bound = Vec::new();
        for transport in Transport::ALL {
            for &address in config.addresses(transport) {
                if transport.is_tls() && config.tls.is_none() {
                    return Err(FrontError::NoCertificate {
                        field: transport.field(),
                    });
                }
                match bind(address) {
                    Ok(socket) => bound.push(Self { transport, socket }),
                    Err(error) if config.optional.contains(&transport) && taken(&error) => {
                        tracing::warn!(%address, "{}: the default port is taken; MQTT goes on without", transport.field());
                    }
                    Err(source) => {
                        let field = transport.field();
                        return Err(FrontError::Bind { field, address, source });
                    }
                }
            }
        }
        if bound.is_empty() {
            return Err(FrontError::NoAddress);
        }
        Ok(bound)
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = ntex::server::create_tcp_listener(address, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn taken(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}
