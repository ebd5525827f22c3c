//! Rates for the lines that say how it goes.
//!
//! In: rising counters and the time of reading. Out: their change per second. Lines are plain text, one per second,
//! with or without a terminal.

use std::time::Duration;

use tokio::time::Instant;

/// Turns a rising counter into a rate.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    value: u64,
    at: Instant,
}

impl Rate {
    /// Starts at 0.
    pub fn new(now: Instant) -> Self {
        Self { value: 0, at: now }
    }

    /// Change per second since the last call. A counter that fell was restarted: it is taken from 0.
    pub fn per_second(&mut self, value: u64, now: Instant) -> f64 {
        let change = if value < self.value { value } else { value - self.value };
        let seconds = (now - self.at).max(Duration::from_millis(1)).as_secs_f64();
        *self = Self { value, at: now };
        change as f64 / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_counter_gives_no_negative_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!(rate.per_second(100, start + Duration::from_secs(2)).round(), 50.0);
        assert_eq!(rate.per_second(30, start + Duration::from_secs(3)).round(), 30.0);
    }
}
