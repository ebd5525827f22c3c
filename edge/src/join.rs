//! Joining a cloud: from a one-time token to a key and certificate in the data directory.
//!
//! In: the token. Out: `<data>/identity/edge.json`, which a running node picks up by itself.
//! The cloud's CA is checked against the token's fingerprint within the handshake, before the secret is sent.
//! The addresses of the token are tried in order; nothing is written unless the whole exchange succeeded.

use std::time::Duration;

use fellbeck_node::NodeError;
use fellbeck_ops::files;
use fellbeck_ops::identity::wire::{self, JoinReply};
use fellbeck_ops::identity::{EdgeKeys, Issued, JoinToken, PendingJoin, join_client_config};

use crate::config::EdgeConfig;
use crate::uplink::dial::Dialer;

/// Time for the handshake with one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Time for one address, from the first packet to the answer.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(10);

/// Joins the cloud that `token` names.
pub(crate) fn join(config: &EdgeConfig, token: &str) -> Result<(), NodeError> {
    let data_dir = config.data_dir.as_deref().ok_or(NodeError::NoDataDir)?;
    files::create_private_dir(data_dir).map_err(|source| NodeError::DataDir {
        path: data_dir.to_owned(),
        source,
    })?;
    let token: JoinToken = token.trim().parse().map_err(identity)?;
    let name = token.edge.clone();
    let addresses = token.cloud.clone();
    let pending = PendingJoin::new(token.clone()).map_err(identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NodeError::Runtime)?;
    let issued = runtime.block_on(ask(config, &token, &pending))?;
    let keys: EdgeKeys = pending.complete(&issued).map_err(identity)?;
    keys.save(data_dir).map_err(identity)?;
    tracing::info!(edge = %name, instance = issued.instance, cloud = ?addresses, "joined");
    println!("joined as {name}, instance {}", issued.instance);
    Ok(())
}

fn identity(error: impl std::fmt::Display) -> NodeError {
    NodeError::Identity(error.to_string())
}

async fn ask(config: &EdgeConfig, token: &JoinToken, pending: &PendingJoin) -> Result<Issued, NodeError> {
    let tls = join_client_config(token.ca).map_err(identity)?;
    let dialer = Dialer::new(&config.uplink, tls).map_err(identity)?;
    let mut last = "the token names no address".to_owned();
    for address in &token.cloud.0 {
        match tokio::time::timeout(ATTEMPT_WITHIN, exchange(&dialer, address, pending)).await {
            Ok(Ok(JoinReply::Issued(issued))) => return Ok(issued),
            // The cloud has spoken: another address of the same cloud would say the same.
            Ok(Ok(JoinReply::Refused { text, .. })) => return Err(NodeError::Identity(text)),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {ATTEMPT_WITHIN:?}"),
        }
    }
    Err(NodeError::Identity(format!("the cloud cannot be reached: {last}")))
}

async fn exchange(
    dialer: &Dialer,
    address: &fellbeck_ops::config::HostPort,
    pending: &PendingJoin,
) -> Result<JoinReply, String> {
    let (connection, _) = dialer.connect(address, CONNECT_WITHIN).await?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    wire::write(&mut send, &pending.request())
        .await
        .map_err(|error| error.to_string())?;
    let reply = wire::read(&mut receive).await.map_err(|error| error.to_string())?;
    connection.close(0u32.into(), b"done");
    dialer.idle().await;
    Ok(reply)
}
