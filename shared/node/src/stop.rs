//! The end of a node: a signal, or the first part that fails.

use std::time::Duration;

use fellbeck_broker::front::MqttServer;
use fellbeck_ops::Shutdown;
use fellbeck_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::NodeError;

/// Time for the tasks of a node to end once they were told to.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Waits for a signal (`None`) or for the first part that fails.
pub async fn wait(
    shutdown: &mut Shutdown,
    store: &Store,
    mqtt: Option<&MqttServer>,
    mut link: watch::Receiver<Option<String>>,
) -> Option<NodeError> {
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
    let link_failed = async {
        match link.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // It ended as it should.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        reason = link_failed => Some(NodeError::Failed(reason)),
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

/// Waits until all tasks have ended, but not for ever: a halted store answers nobody.
pub async fn join_all(tasks: Vec<JoinHandle<()>>) -> Result<(), NodeError> {
    let joined = tokio::time::timeout(LEAVE_WITHIN, async {
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of the node has panicked");
            }
        }
    });
    joined.await.map_err(|_| NodeError::Deadline(LEAVE_WITHIN))
}
