//! A count that is a metric and can be read back: one place of counting, two outlets.
//!
//! The handle of a metric can only be written. What `$SYS` shows too is counted here, and so cannot differ from the metric.
//! For one thread.

use std::cell::Cell;

use metrics::Counter;

/// A counter since the start of the process.
pub(crate) struct Tally {
    value: Cell<u64>,
    metric: Counter,
}

impl Tally {
    /// `metric` is the handle of the same count; nobody else may move it.
    pub(crate) fn new(metric: Counter) -> Self {
        Self {
            value: Cell::new(0),
            metric,
        }
    }

    pub(crate) fn increment(&self, n: u64) {
        self.value.set(self.value.get() + n);
        self.metric.increment(n);
    }

    pub(crate) fn get(&self) -> u64 {
        self.value.get()
    }
}
