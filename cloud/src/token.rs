//! `token create`: a one-time join token, made beside the store, whether or not the node runs.
//!
//! In: the edge's name and the addresses that it shall dial. Out: the token's text. It is a secret.
//! Addresses, in this order: those given, `link.public`, the one that the running node listens on, `link.listen`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fellbeck_node::NodeError;
use fellbeck_ops::NodeClock;
use fellbeck_ops::config::{ConfigError, HostPort, HostPorts};
use fellbeck_ops::files::{self, Access};
use fellbeck_ops::identity::{CloudIdentity, EdgeName};

use crate::config::CloudConfig;

/// Makes a token.
pub(crate) fn create(config: &CloudConfig, edge: &str, addresses: &[String], hours: u64) -> Result<String, NodeError> {
    let data_dir = config.data_dir.as_deref().ok_or(NodeError::NoDataDir)?;
    let name: EdgeName = edge
        .parse()
        .map_err(|error| ConfigError::invalid("--edge", edge, format!("{error}")))?;
    let addresses = choose(config, data_dir, addresses)?;
    files::create_private_dir(data_dir).map_err(|source| NodeError::DataDir {
        path: data_dir.to_owned(),
        source,
    })?;
    let now = NodeClock::start().wall();
    let identity = CloudIdentity::open(data_dir, config.link.given_ca().as_ref(), now)
        .map_err(|error| NodeError::Identity(error.to_string()))?;
    let lifetime = Duration::from_secs(hours * 3600);
    let token = identity
        .create_token(&name, &addresses, lifetime, now)
        .map_err(|error| NodeError::Identity(error.to_string()))?;
    Ok(token.to_text())
}

fn choose(config: &CloudConfig, data_dir: &Path, given: &[String]) -> Result<HostPorts, NodeError> {
    if !given.is_empty() {
        let parse = |text: &String| {
            text.parse::<HostPort>()
                .map_err(|reason| ConfigError::invalid("--address", text, reason.to_string()))
        };
        return Ok(HostPorts(given.iter().map(parse).collect::<Result<_, _>>()?));
    }
    if !config.link.public.0.is_empty() {
        return Ok(config.link.public.clone());
    }
    if let Some(address) = running(data_dir) {
        return Ok(HostPorts(vec![address]));
    }
    let listen = config.link.listen.resolve("link.listen")?;
    let address = listen
        .filter(|address| address.port() != 0 && !address.ip().is_unspecified())
        .ok_or_else(|| {
            let reason = "it names no address that an edge can dial: set link.public, or give --address HOST:PORT";
            ConfigError::invalid("link.listen", &config.link.listen, reason)
        })?;
    Ok(HostPorts(vec![HostPort {
        host: address.ip().to_string(),
        port: address.port(),
    }]))
}

/// Address of the link of the node that runs, or ran last, on this data directory.
fn running(data_dir: &Path) -> Option<HostPort> {
    let bytes = files::read_bounded(&link_address_path(data_dir), 1024).ok()?;
    let address: std::net::SocketAddr = std::str::from_utf8(&bytes).ok()?.trim().parse().ok()?;
    // A wildcard is where the node listens, not where it is reached.
    (!address.ip().is_unspecified()).then(|| HostPort {
        host: address.ip().to_string(),
        port: address.port(),
    })
}

fn link_address_path(data_dir: &Path) -> PathBuf {
    data_dir.join("link-address")
}

/// Tells later `token create` calls where the link really listens.
pub(crate) fn remember_link_address(data_dir: &Path, address: std::net::SocketAddr) -> Result<(), NodeError> {
    let path = link_address_path(data_dir);
    files::write_atomic(&path, format!("{address}\n").as_bytes(), Access::Private)
        .map_err(|source| NodeError::DataDir { path, source })
}
