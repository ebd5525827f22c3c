//! Start of the HTTP server of a node.

use std::net::SocketAddr;

use fellbeck_ops::Shutdown;
use fellbeck_ops::http::{HttpParts, HttpServer};
use tokio::task::JoinHandle;

use crate::config::HttpConfig;
use crate::error::NodeError;
use crate::mqtt::resolve;

/// Starts the HTTP server, unless its listener is off. Returns its real address and its task.
pub async fn start_http(
    config: &HttpConfig,
    parts: HttpParts,
    shutdown: &Shutdown,
) -> Result<Option<(SocketAddr, JoinHandle<()>)>, NodeError> {
    let Some(address) = resolve(
        "http",
        "http.listen",
        &config.listen,
        &config.unauthenticated_public,
        false,
    )?
    else {
        return Ok(None);
    };
    let server = HttpServer::bind("http.listen", address).await?;
    Ok(Some((server.address(), server.start(parts, shutdown.clone()))))
}
