//! The bound on new connections per second: a token bucket for all listeners of a node.
//!
//! In: one call before and one after each accept. Out: a wait while the bucket is empty, so that sockets stay in the backlog of
//! the kernel: a device that comes back with ten thousand others is served a little later, not refused. Waits are counted.

use std::cell::Cell;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};

/// One bucket, shared by the listeners of a node.
#[derive(Debug)]
pub(in crate::front) struct AcceptRate {
    /// Accepts per second; zero: no bound.
    per_sec: f64,
    burst: f64,
    /// Below zero when several listeners accepted at the same moment; the debt is paid first.
    tokens: Cell<f64>,
    filled: Cell<Instant>,
    waits: CounterHandle,
}

struct CounterHandle(Counter);

impl std::fmt::Debug for CounterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counter")
    }
}

impl AcceptRate {
    /// A full bucket. `per_sec` zero: accepts never wait.
    pub(in crate::front) fn new(per_sec: u32, burst: u32) -> Self {
        Self {
            per_sec: per_sec.into(),
            burst: burst.max(1).into(),
            tokens: Cell::new(burst.max(1).into()),
            filled: Cell::new(Instant::now()),
            waits: CounterHandle(counter!("fellbeck_broker_accept_waits_total")),
        }
    }

    /// Returns when the next socket may be taken from the backlog.
    pub(in crate::front) async fn ready(&self) {
        let mut counted = false;
        while let Some(wait) = self.wait_at(Instant::now()) {
            if !std::mem::replace(&mut counted, true) {
                self.waits.0.increment(1);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A socket was taken.
    pub(in crate::front) fn take(&self) {
        self.tokens.set(self.tokens.get() - 1.0);
    }

    /// Time until there is a whole token; `None`: there is one.
    fn wait_at(&self, now: Instant) -> Option<Duration> {
        if self.per_sec <= 0.0 {
            return None;
        }
        let since = now.saturating_duration_since(self.filled.replace(now));
        let tokens = (self.tokens.get() + since.as_secs_f64() * self.per_sec).min(self.burst);
        self.tokens.set(tokens);
        // At least a millisecond, the resolution of the timer.
        (tokens < 1.0).then(|| Duration::from_secs_f64((1.0 - tokens) / self.per_sec).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        let rate = AcceptRate::new(10, 3);
        let start = rate.filled.get();
        for _ in 0..3 {
            assert_eq!(rate.wait_at(start), None);
            rate.take();
        }
        let wait = rate.wait_at(start).expect("the bucket is empty");
        assert!((99..=101).contains(&wait.as_millis()), "{wait:?}");
        assert_eq!(rate.wait_at(start + Duration::from_millis(101)), None);
    }

    #[test]
    fn a_bucket_holds_no_more_than_its_burst() {
        let rate = AcceptRate::new(1000, 2);
        let later = rate.filled.get() + Duration::from_secs(3600);
        for _ in 0..2 {
            assert_eq!(rate.wait_at(later), None);
            rate.take();
        }
        assert!(rate.wait_at(later).is_some());
    }

    #[test]
    fn a_debt_is_paid_before_the_next_accept() {
        let rate = AcceptRate::new(10, 1);
        let start = rate.filled.get();
        for _ in 0..4 {
            rate.take();
        }
        let wait = rate.wait_at(start).expect("three are owed");
        assert!((399..=401).contains(&wait.as_millis()), "{wait:?}");
    }

    #[test]
    fn zero_is_no_bound() {
        let rate = AcceptRate::new(0, 1);
        for _ in 0..10_000 {
            assert_eq!(rate.wait_at(Instant::now()), None);
            rate.take();
        }
    }
}
