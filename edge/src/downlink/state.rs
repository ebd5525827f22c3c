//! What is known of the downlink at this moment, for the status page and the metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::intake::Tally;

/// The state, behind a mutex that is held for a few instructions only.
#[derive(Debug, Default)]
pub(crate) struct DownlinkState(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: bool,
    filters: usize,
    left_out: usize,
    not_granted: u32,
    tally: Tally,
}

impl DownlinkState {
    /// The cloud has answered.
    pub(crate) fn opened(&self) {
        self.lock().open = true;
        metrics::gauge!("fellbeck_downlink_connected").set(1.0);
    }

    /// The stream has ended.
    pub(crate) fn closed(&self) {
        self.lock().open = false;
        metrics::gauge!("fellbeck_downlink_connected").set(0.0);
    }

    /// So many filters are announced, and so many found no room.
    pub(crate) fn announced(&self, filters: usize, left_out: usize) {
        let mut inner = self.lock();
        if left_out > 0 && inner.left_out == 0 {
            tracing::warn!(
                filters,
                left_out,
                "more filters than an edge may announce: some are left out"
            );
        }
        (inner.filters, inner.left_out) = (filters, left_out);
        metrics::gauge!("fellbeck_downlink_filters").set(filters as f64);
        metrics::gauge!("fellbeck_downlink_filters_left_out").set(left_out as f64);
    }

    /// The cloud grants no more.
    pub(crate) fn not_granted(&self, count: u32) {
        tracing::warn!(
            count,
            "the cloud does not grant all filters: its bound on subscriptions"
        );
        self.lock().not_granted = count;
    }

    /// A frame was taken.
    pub(crate) fn took(&self, tally: Tally) {
        let mut inner = self.lock();
        inner.tally.new += tally.new;
        inner.tally.duplicates += tally.duplicates;
        inner.tally.expired += tally.expired;
        inner.tally.invalid += tally.invalid;
        drop(inner);
        metrics::counter!("fellbeck_downlink_received_total").increment(tally.new);
        metrics::counter!("fellbeck_downlink_duplicates_total").increment(tally.duplicates);
        metrics::counter!("fellbeck_downlink_expired_total").increment(tally.expired);
        metrics::counter!("fellbeck_downlink_invalid_total").increment(tally.invalid);
    }

    pub(crate) fn to_json(&self) -> Value {
        let inner = self.lock();
        json!({
            "open": inner.open,
            "filters": inner.filters,
            "filters_left_out": inner.left_out,
            "filters_not_granted": inner.not_granted,
            "received": inner.tally.new,
            "duplicates": inner.tally.duplicates,
            "expired": inner.tally.expired,
            "invalid": inner.tally.invalid,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
