//! Metrics of the session core, looked up once: a registry lookup per message would cost more than the message.

use fellbeck_core::DropReason;
use metrics::{Counter, Gauge, counter, gauge};

use crate::tally::Tally;

/// Handles of all counters that the core moves.
pub(super) struct Counters {
    pub(super) delivered: [Counter; 3],
    pub(super) refused: Counter,
    pub(super) duplicates: Counter,
    pub(super) resends: Counter,
    pub(super) skipped: Counter,
    pub(super) takeovers: Counter,
    pub(super) sessions: Gauge,
    pub(super) sessions_expired: Tally,
    /// In the order of [`DropReason::ALL`].
    dropped: Vec<Tally>,
    pub(super) gave_way: Counter,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            delivered: ["0", "1", "2"].map(|qos| counter!("fellbeck_broker_delivered_total", "qos" => qos)),
            refused: counter!("fellbeck_broker_refused_total"),
            duplicates: counter!("fellbeck_broker_qos2_duplicates_total"),
            resends: counter!("fellbeck_broker_qos1_resends_total"),
            skipped: counter!("fellbeck_broker_skipped_records_total"),
            takeovers: counter!("fellbeck_broker_takeovers_total"),
            sessions: gauge!("fellbeck_broker_sessions"),
            sessions_expired: Tally::new(counter!("fellbeck_broker_sessions_expired_total")),
            gave_way: counter!("fellbeck_broker_sessions_gave_way_total"),
            dropped: DropReason::ALL
                .iter()
                .map(|reason| Tally::new(drops_metric(*reason)))
                .collect(),
        }
    }

    /// A bound was reached and something was refused for it.
    pub(super) fn limited(&self, limit: &'static str) {
        counter!("fellbeck_broker_limited_total", "limit" => limit).increment(1);
    }

    pub(super) fn dropped(&self, reason: DropReason, n: u64) {
        let index = DropReason::ALL.iter().position(|known| *known == reason);
        if let Some(counter) = index.and_then(|index| self.dropped.get(index)) {
            counter.increment(n);
        }
    }

    /// What was dropped so far, by reason.
    pub(super) fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let counts = self.dropped.iter().map(Tally::get);
        DropReason::ALL.iter().copied().zip(counts)
    }
}

/// What expired has a name of its own.
fn drops_metric(reason: DropReason) -> Counter {
    match reason {
        DropReason::Expired => counter!("fellbeck_broker_expired_total"),
        _ => counter!("fellbeck_broker_dropped_total", "reason" => reason.as_str()),
    }
}
