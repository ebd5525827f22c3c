//! Whether the wall clock can be trusted with giving up records by age.
//!
//! In: once per round the steady clock and the wall clock. Out: the wall clock, once both have run alike for a while. A clock that
//! was set, at start from a network or by mistake, is not gone by until it has shown for as long again that it runs evenly.
//! It cannot tell that a clock which runs evenly is wrong: that is why few segments go per round.

use std::time::{Duration, Instant};

/// How long both clocks must have run alike.
const STEADY: Duration = Duration::from_secs(600);
/// How far they may come apart between two looks: slewing by a time service is far below.
const JUMP_MS: u64 = 5_000;

/// Compares the clocks.
#[derive(Debug, Default)]
pub(super) struct AgeClock {
    last: Option<(Instant, u64)>,
    steady_since: Option<Instant>,
}

impl AgeClock {
    /// Looks at both clocks. `Some`: the wall clock may be gone by.
    pub(super) fn look(&mut self, now: Instant, wall_ms: u64) -> Option<u64> {
        let last = self.last.replace((now, wall_ms));
        let jumped = last.is_none_or(|(then, wall_then)| {
            let passed = u64::try_from(now.saturating_duration_since(then).as_millis()).unwrap_or(u64::MAX);
            wall_then.saturating_add(passed).abs_diff(wall_ms) > JUMP_MS
        });
        if jumped {
            if last.is_some() {
                tracing::warn!("the wall clock was set: nothing goes by age until it has run evenly for a while");
                metrics::counter!("fellbeck_store_clock_jumps_total").increment(1);
            }
            self.steady_since = Some(now);
        }
        let steady = self
            .steady_since
            .is_some_and(|since| now.saturating_duration_since(since) >= STEADY);
        steady.then_some(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn a_clock_that_jumps_is_not_gone_by_until_it_has_run_evenly_again() {
        let start = Instant::now();
        let mut clock = AgeClock::default();
        let mut trusted = Vec::new();
        for second in 0..2000 {
            // Set forward by 30 days after 1,000 seconds, and slewed by half a millisecond per second throughout.
            let wall = 1_000_000 + second * 1000 + second / 2 + if second >= 1000 { 30 * DAY_MS } else { 0 };
            let looked = clock.look(start + Duration::from_secs(second), wall);
            assert!(looked.is_none_or(|seen| seen == wall));
            trusted.push(looked.is_some());
        }
        let changes: Vec<usize> = (1..trusted.len())
            .filter(|at| trusted[*at] != trusted[at - 1])
            .collect();
        assert_eq!((trusted[0], changes), (false, vec![600, 1000, 1600]));
    }

    #[test]
    fn a_long_idle_time_between_two_looks_is_no_jump_and_a_step_back_is_one() {
        let start = Instant::now();
        let mut clock = AgeClock::default();
        assert_eq!(clock.look(start, DAY_MS), None);
        assert_eq!(
            clock.look(start + Duration::from_secs(86_400), 2 * DAY_MS),
            Some(2 * DAY_MS)
        );
        assert_eq!(clock.look(start + Duration::from_secs(86_401), DAY_MS), None);
    }
}
