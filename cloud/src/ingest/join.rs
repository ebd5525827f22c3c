//! Joins: an edge shows a token and gets a certificate.
//!
//! In: a connection of the join protocol. Out: an answer, and one line in the log. Rate limited over all comers; each exchange has a
//! deadline. The token's secret never reaches a log line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fellbeck_ops::identity::JoinLimiter;
use fellbeck_ops::identity::wire::{self, JoinReply, JoinRequest};
use quinn::Connection;

use super::accept::LinkParts;

/// Time for the whole exchange.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(10);
/// Time for the answer to arrive before the connection is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// Limits join attempts.
#[derive(Debug, Default)]
pub(crate) struct Joins(Mutex<JoinLimiter>);

/// Serves one join.
pub(crate) async fn serve(connection: Connection, parts: &Arc<LinkParts>) {
    let peer = connection.remote_address();
    let allowed = parts
        .joins
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .allow(parts.clock.tick());
    if !allowed {
        metrics::counter!("fellbeck_link_joins_total", "outcome" => "limited").increment(1);
        connection.close(1u32.into(), b"too many joins, try again later");
        return;
    }
    let outcome = tokio::time::timeout(EXCHANGE_WITHIN, exchange(&connection, parts)).await;
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%peer, %error, "join failed"),
        Err(_) => tracing::warn!(%peer, "join failed: it took too long"),
    }
    // The edge closes once it has the answer.
    tokio::time::timeout(FAREWELL, connection.closed()).await.ok();
    connection.close(0u32.into(), b"");
}

async fn exchange(connection: &Connection, parts: &Arc<LinkParts>) -> Result<(), wire::WireError> {
    let closed = |error: quinn::ConnectionError| wire::WireError::Io(error.into());
    let (mut send, mut receive) = connection.accept_bi().await.map_err(closed)?;
    let request: JoinRequest = wire::read(&mut receive).await?;
    let peer = connection.remote_address();
    let redeeming = parts.clone();
    let redeemed =
        tokio::task::spawn_blocking(move || redeeming.identity.redeem(&request, redeeming.clock.wall())).await;
    let reply = match redeemed {
        Ok(outcome) => {
            let label = if outcome.is_ok() { "issued" } else { "refused" };
            metrics::counter!("fellbeck_link_joins_total", "outcome" => label).increment(1);
            if let Err(error) = &outcome {
                tracing::warn!(%peer, %error, "join refused");
            }
            JoinReply::from(outcome)
        }
        Err(_) => JoinReply::Refused {
            code: "internal".into(),
            text: "the cloud could not sign the request".into(),
        },
    };
    wire::write(&mut send, &reply).await?;
    send.finish().ok();
    Ok(())
}
