//! Signals: SIGTERM and SIGINT ask the node to stop, SIGHUP to reload; and the deadline of a shutdown.
//!
//! In: signals of the process, or [`Trigger::stop`] from within. Out: [`Shutdown`], which every task holds and waits
//! for, and a count of reloads. A second SIGTERM or SIGINT ends the process at once, with 128 + the number of the
//! signal: what was acknowledged is durable, the rest is as after a crash.
//! The order of draining is the node's business.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tells a task that the node stops. Cheap to clone; once requested it stays requested.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stopping: watch::Receiver<bool>,
}

impl Shutdown {
    /// A token and the trigger that fires it, apart from signals (tests, parts of a node).
    #[must_use]
    pub fn manual() -> (Trigger, Self) {
        let (sender, stopping) = watch::channel(false);
        (Trigger { sender }, Self { stopping })
    }

    /// Waits until the node stops; at once if it is stopping already. May be dropped and called again.
    pub async fn requested(&mut self) {
        // Without its trigger nobody could stop the node any more: that counts as a request.
        self.stopping
            .wait_for(|stopping| *stopping)
            .await
            .map(drop)
            .unwrap_or_default();
    }

    /// Whether the node stops.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.stopping.borrow() || self.stopping.has_changed().is_err()
    }
}

/// Fires a [`Shutdown`]. All clones of the trigger dropped count as fired.
#[derive(Debug, Clone)]
pub struct Trigger {
    sender: watch::Sender<bool>,
}

impl Trigger {
    /// Asks the node to stop, e.g. since its store has halted. Later calls change nothing.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }
}

/// The signals of the process.
#[derive(Debug)]
pub struct Signals {
    /// For every task of the node.
    pub shutdown: Shutdown,
    /// Stops the node from within.
    pub trigger: Trigger,
    /// Rises by one with each SIGHUP; wait with `changed()`.
    pub reload: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP. Must be called within a tokio runtime, early.
    pub fn install() -> io::Result<Self> {
        let streams = Streams {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let (trigger, shutdown) = Shutdown::manual();
        let (reloads, reload) = watch::channel(0);
        let task = tokio::spawn(streams.run(trigger.clone(), reloads));
        Ok(Self {
            shutdown,
            trigger,
            reload,
            task,
        })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Streams {
    async fn run(mut self, trigger: Trigger, reloads: watch::Sender<u64>) {
        loop {
            let (kind, name) = tokio::select! {
                _ = self.terminate.recv() => (SignalKind::terminate(), "SIGTERM"),
                _ = self.interrupt.recv() => (SignalKind::interrupt(), "SIGINT"),
                _ = self.hangup.recv() => (SignalKind::hangup(), "SIGHUP"),
            };
            if kind == SignalKind::hangup() {
                tracing::info!("SIGHUP: reloading");
                reloads.send_modify(|n| *n += 1);
            } else if *trigger.sender.borrow() {
                tracing::warn!(signal = name, "asked to stop again: leaving at once, without draining");
                std::process::exit(128 + kind.as_raw_value());
            } else {
                tracing::info!(signal = name, "asked to stop: draining");
                trigger.stop();
            }
        }
    }
}

/// A part did not finish in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} did not finish within {} ms", within.as_millis())]
pub struct DeadlinePassed {
    /// The part.
    pub what: &'static str,
    /// The time it had.
    pub within: Duration,
}

/// Waits for `future`, but not longer than `within`. A future that was not in time is dropped.
pub async fn deadline<F: Future>(what: &'static str, within: Duration, future: F) -> Result<F::Output, DeadlinePassed> {
    tokio::time::timeout(within, future)
        .await
        .map_err(|_| DeadlinePassed { what, within })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_trigger_reaches_every_clone_and_stays() {
        let (trigger, mut first) = Shutdown::manual();
        let mut second = first.clone();
        assert!(!first.is_requested());
        trigger.stop();
        first.requested().await;
        second.requested().await;
        second.requested().await;
        assert!(second.is_requested());
    }

    #[tokio::test]
    async fn a_lost_trigger_counts_as_a_request() {
        let (trigger, mut shutdown) = Shutdown::manual();
        drop(trigger);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn hangup_reloads_and_terminate_stops() {
        let mut signals = Signals::install().unwrap();
        kill_process(getpid(), Raw::HUP).unwrap();
        signals.reload.changed().await.unwrap();
        assert_eq!(*signals.reload.borrow_and_update(), 1);
        assert!(!signals.shutdown.is_requested(), "a reload is not a stop");
        kill_process(getpid(), Raw::TERM).unwrap();
        signals.shutdown.requested().await;
    }

    #[tokio::test]
    async fn a_deadline_names_the_part_that_was_late() {
        let late = deadline("the store", Duration::from_millis(3), std::future::pending::<()>())
            .await
            .unwrap_err();
        assert_eq!(late.to_string(), "the store did not finish within 3 ms");
        assert_eq!(deadline("x", Duration::from_secs(3), async { 7 }).await, Ok(7));
    }
}
