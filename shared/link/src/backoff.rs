//! Jittered exponential backoff between attempts to connect.
//!
//! In: a seed and the outcome of attempts. Out: how long to wait. Half of each step is fixed and half is random, so
//! that a thousand edges that lost the cloud together do not come back together. Sleeps nowhere.

use std::time::Duration;

/// Steps double from `first` up to `max`. Seed it with something that differs between edges.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    step: Duration,
    random: u64,
}

impl Backoff {
    /// A backoff whose first wait is at most `first` and no wait is above `max`.
    #[must_use]
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        let first = first.min(max);
        Self {
            first,
            max,
            step: first,
            random: seed,
        }
    }

    /// Wait before the next attempt: between half of the step and the whole of it.
    pub fn next_wait(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        let half = step / 2;
        let share = (self.next_random() >> 11) as f64 / (1u64 << 53) as f64;
        half + half.mul_f64(share)
    }

    /// As [`next_wait`](Self::next_wait), but at least `least` (what a refusal asks for), jittered by up to a quarter
    /// of it.
    pub fn next_wait_at_least(&mut self, least: Duration) -> Duration {
        let wait = self.next_wait();
        let share = (self.next_random() >> 11) as f64 / (1u64 << 53) as f64;
        wait.max(least + (least / 4).mul_f64(share))
    }

    /// The link worked: the next wait is short again. Call it once data was acked, not at connect:
    /// a cloud that accepts and dies at once must not be hammered.
    pub fn reset(&mut self) {
        self.step = self.first;
    }

    /// SplitMix64: small, seedable, good enough for jitter.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_bounds_and_start_over_after_a_reset() {
        let (first, max) = (Duration::from_millis(200), Duration::from_secs(30));
        for seed in 0..100 {
            let mut backoff = Backoff::new(first, max, seed);
            let mut step = first;
            for _ in 0..20 {
                let wait = backoff.next_wait();
                assert!(
                    wait >= step / 2 && wait <= step,
                    "seed {seed}: {wait:?} outside of step {step:?}"
                );
                step = (step * 2).min(max);
            }
            backoff.reset();
            assert!(backoff.next_wait() <= first);
        }
    }

    #[test]
    fn edges_with_different_seeds_spread_and_equal_seeds_repeat() {
        let wait = |seed| Backoff::new(Duration::from_secs(1), Duration::from_secs(1), seed).next_wait();
        let mut waits: Vec<_> = (0..50).map(wait).collect();
        assert_eq!(wait(7), waits[7]);
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 50);
    }

    #[test]
    fn a_refusal_is_retried_no_sooner_than_it_asks() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 1);
        let least = Duration::from_secs(60);
        let wait = backoff.next_wait_at_least(least);
        assert!(wait >= least && wait <= least * 5 / 4);
    }
}
