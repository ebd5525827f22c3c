//! The end of a node: a signal, or the first part that fails.

use fellbeck_broker::front::MqttServer;
use fellbeck_ops::Shutdown;
use fellbeck_store::Store;

use crate::error::NodeError;

/// Waits for a signal (`None`) or for the first part that fails.
pub async fn wait(shutdown: &mut Shutdown, store: &Store, mqtt: Option<&MqttServer>) -> Option<NodeError> {
    let mut halted = store.halted();
    let mut failed = mqtt.map(MqttServer::failed);
    let broker_failed = async {
        match &mut failed {
            Some(failed) => failed
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|reason| reason.clone()),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.requested() => None,
        reason = halted.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
            Some(NodeError::Failed(format!("the store has halted: {reason}")))
        }
        reason = broker_failed => {
            Some(NodeError::Failed(format!("the broker has failed: {}", reason.unwrap_or_default())))
        }
    }
}
