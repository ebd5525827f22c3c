//! What lies between an accepted socket and the first byte of MQTT: TLS, the WebSocket upgrade, WebSocket frames.
//!
//! In: a TCP stream and the kind of its listener. Out: an [`IoBoxed`] that carries nothing but MQTT, whatever is below, so that
//! everything behind it is the same code for all transports; or the reason why there is none.
//! Both layers are our own: those of ntex end a TLS handshake without the alert that tells the client why, and answer a text
//! frame by cutting the socket (ADR 0007). Everything here is read before anybody is known, so it is bounded in bytes by the
//! layers and in time by the caller.

pub(super) mod frames;
mod fruitless;
mod listeners;
mod rate;
mod tls;
pub(super) mod upgrade;
mod ws;

use std::sync::Arc;

use ntex::io::{Filter, Io, IoBoxed};
use rustls::ServerConfig;

use crate::front::arrival::Arrival;
pub(super) use listeners::Listening;
pub use listeners::Transport;
pub(super) use rate::AcceptRate;

/// What the layers need to know.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    /// Certificate and key of the TLS listeners.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Largest WebSocket frame, in bytes.
    pub(super) frame_max: u64,
    /// Origins whose pages may open a WebSocket; empty: any.
    pub(super) ws_origins: Vec<String>,
}

/// Puts the layers of `transport` on a socket. An error is the reason, and the client has been told.
/// What a TLS handshake makes us keep is charged to `arrival`.
pub(super) async fn open(
    io: Io,
    transport: Transport,
    layers: &Layers,
    arrival: &Arrival,
) -> Result<IoBoxed, &'static str> {
    match (transport, &layers.tls) {
        (Transport::Tcp, _) => Ok(io.into()),
        (Transport::Ws, _) => websocket(io, layers).await,
        (Transport::Tls, Some(config)) => Ok(tls::accept(io, config.clone(), arrival).await?.into()),
        (Transport::Wss, Some(config)) => websocket(tls::accept(io, config.clone(), arrival).await?, layers).await,
        // A TLS listener does not start without a certificate.
        (Transport::Tls | Transport::Wss, None) => Err("tls_error"),
    }
}

async fn websocket<F: Filter>(io: Io<F>, layers: &Layers) -> Result<IoBoxed, &'static str> {
    let io = IoBoxed::from(io);
    upgrade::answer(&io, &layers.ws_origins).await?;
    Ok(ws::add(io, layers.frame_max))
}
