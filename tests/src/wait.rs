//! Waiting for an event with a deadline: the only way in which these tests let time pass.
//!
//! In: a probe that is asked again and again. Out: what it found, or a panic that says what was waited for.
//! Holds no state. It does not guess how long something takes: the deadline is there to end a failed test, not to pace a good one.

use std::thread;
use std::time::{Duration, Instant};

/// Deadline for what takes a healthy node well under a second.
pub const SOON: Duration = Duration::from_secs(20);

/// Deadline for what includes a reconnect with backoff, a drain or a recovery.
pub const EVENTUALLY: Duration = Duration::from_secs(90);

/// Time between two questions to a probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Asks `probe` until it finds something.
///
/// # Panics
/// After `within`, naming `what`.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        pause();
    }
}

/// Asks `probe` until it is true.
///
/// # Panics
/// After `within`, naming `what`.
pub fn until_true(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    until(what, within, || probe().then_some(()));
}

/// Demands that `check` holds each time it is asked during `span`: for what must *not* happen.
///
/// # Panics
/// As soon as it does not hold, naming `what`.
pub fn throughout(what: &str, span: Duration, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(check(), "did not hold: {what}");
        pause();
    }
}

/// Lets `span` pass: the length of a fault that a test inflicts, never a way to wait for something.
pub fn last(span: Duration) {
    throughout("time passes", span, || true);
}

/// Gives the processor away between two questions; never a synchronisation by itself.
pub(crate) fn pause() {
    thread::park_timeout(PROBE_INTERVAL);
}
