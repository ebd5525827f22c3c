//! The one clock of a node: ticks since start, wall time, and what the kernel knows about its quality.
//!
//! In: the system's clocks. Out: [`Tick`], [`WallTime`], [`ClockQuality`] as arguments for the pure parts, which read
//! no clock themselves. Needs no runtime. Cheap to clone; all clones count from the same start.
//! The quality is asked of the kernel at most once per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fellbeck_core::{ClockQuality, Tick, WallTime};

/// Milliseconds for which an answer of the kernel is good.
const QUALITY_GOOD_FOR_MS: u64 = 1000;

/// Clock of a node.
#[derive(Debug, Clone)]
pub struct NodeClock {
    start: Instant,
    quality: Arc<CachedQuality>,
}

#[derive(Debug)]
struct CachedQuality {
    value: AtomicU8,
    /// Tick in milliseconds from which on the kernel is asked again.
    ask_from: AtomicU64,
}

impl NodeClock {
    /// A clock whose ticks count from now.
    #[must_use]
    pub fn start() -> Self {
        let quality = CachedQuality {
            value: AtomicU8::new(0),
            ask_from: AtomicU64::new(0),
        };
        Self {
            start: Instant::now(),
            quality: Arc::new(quality),
        }
    }

    /// Time since the start.
    #[must_use]
    pub fn tick(&self) -> Tick {
        Tick(self.start.elapsed())
    }

    /// The instant at which [`NodeClock::tick`] reaches `tick`, for timers of a runtime.
    #[must_use]
    pub fn instant_of(&self, tick: Tick) -> Instant {
        // A tick beyond what the system can express lies so far ahead that any far instant will do.
        self.start
            .checked_add(tick.0)
            .unwrap_or_else(|| self.start + Duration::from_secs(86_400 * 365))
    }

    /// Time of day by the system's clock; the epoch itself when the clock stands before it.
    #[must_use]
    pub fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// When the machine was started, by the system's clock as it stands now; time in which it slept counts.
    #[must_use]
    pub fn runs_since(&self) -> WallTime {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up_ms = u64::try_from(up.tv_sec).unwrap_or(0).saturating_mul(1000) + (up.tv_nsec / 1_000_000) as u64;
        WallTime(self.wall().0.saturating_sub(up_ms))
    }

    /// What the kernel knows of its clock, at most a second old.
    #[must_use]
    pub fn quality(&self) -> ClockQuality {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.quality.ask_from.load(Ordering::Relaxed) {
            self.quality
                .ask_from
                .store(now.saturating_add(QUALITY_GOOD_FOR_MS), Ordering::Relaxed);
            self.quality.value.store(kernel_quality() as u8, Ordering::Relaxed);
        }
        ClockQuality::from_u8(self.quality.value.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

/// `STA_UNSYNC` of `adjtimex`: an NTP or PTP service clears it once the clock follows its source.
#[cfg(target_os = "linux")]
fn kernel_quality() -> ClockQuality {
    // SAFETY: `timex` is a plain C struct of integers, for which all zeros is a valid value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call; with `modes` 0 the kernel only fills the struct in.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        ClockQuality::Unknown
    } else if state.status & libc::STA_UNSYNC != 0 {
        ClockQuality::Unsynced
    } else {
        ClockQuality::Synced
    }
}

#[cfg(not(target_os = "linux"))]
fn kernel_quality() -> ClockQuality {
    ClockQuality::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_start_and_ticks_never_go_back() {
        let clock = NodeClock::start();
        let first = clock.clone().tick();
        let second = clock.tick();
        assert!(first <= second);
        assert!(clock.instant_of(second) <= Instant::now());
        assert!(clock.instant_of(Tick(Duration::MAX)) > Instant::now());
    }

    #[test]
    fn wall_time_is_that_of_the_system() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let stamp = u128::from(NodeClock::start().wall().0);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!((before..=after).contains(&stamp));
    }

    #[test]
    fn the_machine_was_started_before_this_test_and_after_the_epoch() {
        let clock = NodeClock::start();
        let since = clock.runs_since();
        assert!(since > WallTime(0) && since < clock.wall());
        let again = clock.runs_since().0;
        assert!(again.abs_diff(since.0) < 1000, "{since:?} and {again}");
    }

    #[test]
    fn the_quality_is_what_the_kernel_says() {
        assert_eq!(NodeClock::start().quality(), kernel_quality());
    }
}
