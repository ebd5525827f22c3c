//! [`JoinLimiter`]: how many joins the cloud looks at, whoever asks.
//!
//! In: the time of each join attempt. Out: whether to serve it. Pure; the caller owns it.
//! A token's secret cannot be guessed anyway; the limit keeps strangers from wearing out CPU and disk.

use std::time::Duration;

use fellbeck_core::Tick;

/// Attempts that may come at once.
const BURST: u32 = 20;
/// Time after which one more attempt is allowed.
const REFILL: Duration = Duration::from_millis(200);

/// Limits join attempts to a burst of 20 and five per second after that.
#[derive(Debug, Clone)]
pub struct JoinLimiter {
    left: u32,
    refilled: Tick,
}

impl Default for JoinLimiter {
    fn default() -> Self {
        Self {
            left: BURST,
            refilled: Tick::default(),
        }
    }
}

impl JoinLimiter {
    /// Whether an attempt at `now` may be served.
    pub fn allow(&mut self, now: Tick) -> bool {
        let steps = now.since(self.refilled).as_millis() / REFILL.as_millis();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        if steps > 0 {
            self.left = self.left.saturating_add(steps).min(BURST);
            self.refilled = self.refilled.after(REFILL.saturating_mul(steps));
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Tick {
        Tick(Duration::from_millis(ms))
    }

    #[test]
    fn a_burst_is_served_and_then_five_per_second() {
        let mut limiter = JoinLimiter::default();
        let first = (0..100).filter(|_| limiter.allow(at(10_000))).count();
        assert_eq!(first, 20);
        let within_a_second = (10_001..=11_000).filter(|ms| limiter.allow(at(*ms))).count();
        assert_eq!(within_a_second, 5);
        let after_a_day = (0..100).filter(|_| limiter.allow(at(90_000_000))).count();
        assert_eq!(after_a_day, 20);
    }
}
