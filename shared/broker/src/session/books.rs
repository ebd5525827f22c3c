//! The books of all durable sessions together (P9): matched = acked + in flight + expired + dropped by reason.
//!
//! In: the ledgers that are kept with each cursor. Out: totals, and the same as gauges for an operator. The count in flight is taken from
//! the tables themselves, not computed, so that the equation can fail.
//! Sessions that end with their connection have no books; what a session is sent for a shared group is in the books of the group.

use fellbeck_core::DropReason;
use metrics::gauge;

use super::{Core, ReaderLedger};

/// Totals over all durable sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// Sessions.
    pub readers: u64,
    /// Taken up, acked, expired, dropped, skipped.
    pub ledger: ReaderLedger,
    /// Sent and not acknowledged, or waiting for their packet ID to be durable.
    pub in_flight: u64,
}

impl Books {
    fn add(&mut self, ledger: &ReaderLedger, in_flight: usize) {
        self.readers += 1;
        self.in_flight += in_flight as u64;
        self.ledger.matched += ledger.matched;
        self.ledger.acked += ledger.acked;
        self.ledger.expired += ledger.expired;
        self.ledger.skipped += ledger.skipped;
        for (reason, count) in &ledger.dropped {
            self.ledger.drop_taken(*reason, *count);
        }
    }

    /// Sets the gauges `fellbeck_reader_*`.
    pub fn publish(&self) {
        let ledger = &self.ledger;
        for (name, value) in [
            ("fellbeck_reader_count", self.readers),
            ("fellbeck_reader_matched", ledger.matched),
            ("fellbeck_reader_acked", ledger.acked),
            ("fellbeck_reader_in_flight", self.in_flight),
            ("fellbeck_reader_expired", ledger.expired),
            ("fellbeck_reader_skipped", ledger.skipped),
        ] {
            gauge!(name).set(value as f64);
        }
        for reason in DropReason::ALL {
            gauge!("fellbeck_reader_dropped", "reason" => reason.as_str()).set(ledger.dropped_for(*reason) as f64);
        }
    }
}

impl Core {
    /// The books of all durable sessions. Costs a look at each: once a second is often enough.
    #[must_use]
    pub fn books(&self) -> Books {
        let mut books = Books::default();
        for session in self.sessions.iter().filter(|session| session.is_durable()) {
            books.add(&session.reader.ledger, session.in_flight.of_its_own());
        }
        books
    }
}
