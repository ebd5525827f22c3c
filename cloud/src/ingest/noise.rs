//! At most one log line per second about what strangers do.
//!
//! In: the time of an event. Out: whether to write its line, and how many were left out since the last one. The events themselves are
//! counted by metrics, all of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fellbeck_core::Tick;

const EVERY: Duration = Duration::from_secs(1);

/// Limits lines.
#[derive(Debug, Default)]
pub(crate) struct Noise(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: Tick,
    suppressed: u64,
}

impl Noise {
    /// `Some(n)`: write the line; `n` were left out before it.
    pub(crate) fn admit(&self, now: Tick) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < state.next {
            state.suppressed += 1;
            return None;
        }
        state.next = now.after(EVERY);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_second_and_the_rest_is_counted() {
        let noise = Noise::default();
        let at = |ms| Tick(Duration::from_millis(ms));
        assert_eq!(noise.admit(at(0)), Some(0));
        assert_eq!(noise.admit(at(10)), None);
        assert_eq!(noise.admit(at(999)), None);
        assert_eq!(noise.admit(at(1000)), Some(2));
    }
}
