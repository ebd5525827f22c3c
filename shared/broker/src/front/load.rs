//! Load averages: how much of something there was per minute, lately, over 1, 5 and 15 minutes.
//!
//! In: counts that only rise, and the time. Out: exponential moving averages of their growth per minute, as Unix load averages are
//! made: what is one window old still weighs 1/e. Pure; begins at zero, so it takes a window to be near the truth.

use std::time::Duration;

/// Windows in minutes.
pub(super) const WINDOWS: [u8; 3] = [1, 5, 15];

/// Averages of one count.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    count: u64,
    per_minute: [f64; 3],
}

/// Averages of several counts, which are always given in the same order.
#[derive(Debug)]
pub(super) struct Loads<const N: usize> {
    meters: [Meter; N],
}

impl<const N: usize> Default for Loads<N> {
    fn default() -> Self {
        let meters = [Meter::default(); N];
        Self { meters }
    }
}

impl<const N: usize> Loads<N> {
    /// The counts stand at `counts`, `elapsed` after the last call.
    pub(super) fn update(&mut self, counts: [u64; N], elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        for (meter, count) in self.meters.iter_mut().zip(counts) {
            let rate = count.saturating_sub(meter.count) as f64 / minutes;
            meter.count = count;
            for (average, window) in meter.per_minute.iter_mut().zip(WINDOWS) {
                let kept = (-minutes / f64::from(window)).exp();
                *average = rate + kept * (*average - rate);
            }
        }
    }

    /// Averages of count `index`, in the order of [`WINDOWS`].
    pub(super) fn of(&self, index: usize) -> [f64; 3] {
        self.meters[index].per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(10);

    fn assert_near(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 0.01 * expected.max(0.01),
            "{found} {expected}"
        );
    }

    #[test]
    fn a_steady_rate_is_approached_and_left_by_the_window() {
        let mut loads = Loads::<1>::default();
        let mut count = 0;
        let mut run = |loads: &mut Loads<1>, seconds: u64, per_step: u64| {
            for _ in 0..seconds / 10 {
                count += per_step;
                loads.update([count], STEP);
            }
        };
        // 20 in 10 s are 120 in a minute.
        run(&mut loads, 60, 20);
        let [one, five, fifteen] = loads.of(0);
        assert_near(one, 120.0 * (1.0 - (-1.0_f64).exp()));
        assert_near(five, 120.0 * (1.0 - (-0.2_f64).exp()));
        assert_near(fifteen, 120.0 * (1.0 - (-1.0_f64 / 15.0).exp()));
        run(&mut loads, 3 * 3600, 20);
        loads.of(0).into_iter().for_each(|average| assert_near(average, 120.0));
        run(&mut loads, 300, 0);
        assert_near(loads.of(0)[1], 120.0 * (-1.0_f64).exp());
    }

    #[test]
    fn the_length_of_the_steps_does_not_matter_for_a_steady_rate() {
        let (mut fine, mut coarse) = (Loads::<2>::default(), Loads::<2>::default());
        for n in 1..=120 {
            fine.update([n, 0], Duration::from_secs(1));
        }
        coarse.update([120, 0], Duration::from_secs(120));
        for (fine, coarse) in fine.of(0).into_iter().zip(coarse.of(0)) {
            assert_near(fine, coarse);
        }
        assert_eq!(fine.of(1), [0.0; 3]);
        let before = fine.of(0);
        fine.update([1000, 0], Duration::ZERO);
        assert_eq!(fine.of(0), before);
    }
}
