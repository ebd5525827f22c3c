//! The tokio runtime of a node, for links, HTTP and timers.

use std::future::Future;
use std::time::Duration;

use crate::error::NodeError;

/// Threads of the runtime. MQTT and the store have threads of their own.
const THREADS: usize = 2;
/// Time for blocking calls that are still running when the node has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Runs `node` to its end on a runtime of its own.
pub fn block_on(node: impl Future<Output = Result<(), NodeError>>) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("node")
        .enable_all()
        .build()
        .map_err(NodeError::Runtime)?;
    let outcome = runtime.block_on(node);
    runtime.shutdown_timeout(GRACE);
    outcome
}
