//! The one-way signal that the broker thread cannot go on.
//!
//! Set by the broker thread, watched by the node, which then stops with an error: never go on without a broker.

use tokio::sync::watch;

/// Sets the signal. The first report stays.
#[derive(Debug, Clone)]
pub(super) struct Failure(watch::Sender<Option<String>>);

impl Failure {
    pub(super) fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    pub(super) fn is_reported(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Ends when a failure has been reported.
    pub(super) async fn reported(&self) {
        let mut signal = self.0.subscribe();
        // The sender is this one, so the wait cannot fail before there is a report.
        drop(signal.wait_for(Option::is_some).await);
    }

    pub(super) fn report(&self, why: &str) {
        self.0.send_if_modified(|slot| {
            if slot.is_some() {
                return false;
            }
            tracing::error!("{why}");
            *slot = Some(why.to_owned());
            true
        });
    }
}
