//! What the node does to its flash: bytes written per byte accepted, and how long the flash lasts at that.
//!
//! In: what the system has counted for this process (`/proc/self/io`), what the store has accepted, the endurance of the configuration.
//! Out: gauges and a part of the status page. All since the start of the process. What the flash does within itself is not seen:
//! data sheets give the endurance in bytes that are written to it.

use std::time::Instant;

use fellbeck_store::Store;
use serde_json::{Value, json};

const DAY_SECS: f64 = 86_400.0;
/// Life is estimated once the node has run for this long: before, the start weighs too much.
const LEAST_SECS: f64 = 60.0;

/// Watches the flash.
#[derive(Debug, Clone)]
pub(crate) struct Wear {
    store: Store,
    started: Instant,
    /// Bytes that the flash can take over its life.
    endurance: Option<u64>,
}

/// What is known at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Worn {
    written: u64,
    accepted: u64,
    secs: f64,
}

impl Worn {
    /// Bytes written per byte accepted; 0 while nothing was accepted.
    fn ratio(self) -> f64 {
        if self.accepted == 0 {
            0.0
        } else {
            self.written as f64 / self.accepted as f64
        }
    }

    /// Days that `endurance` bytes last at this rate.
    fn life_days(self, endurance: Option<u64>) -> Option<f64> {
        let per_day = self.written as f64 / self.secs * DAY_SECS;
        let is_known = self.secs >= LEAST_SECS && per_day > 0.0;
        endurance.filter(|_| is_known).map(|bytes| bytes as f64 / per_day)
    }
}

impl Wear {
    pub(crate) fn start(store: &Store, endurance: Option<u64>) -> Self {
        Self {
            store: store.clone(),
            started: Instant::now(),
            endurance,
        }
    }

    fn now(&self) -> Worn {
        let stats = self.store.stats();
        let own = stats.journal_bytes + stats.table_bytes;
        Worn {
            written: written_bytes().unwrap_or(own),
            accepted: stats.accepted_bytes,
            secs: self.started.elapsed().as_secs_f64(),
        }
    }

    /// Sets the gauges.
    pub(crate) fn show(&self) {
        let worn = self.now();
        metrics::counter!("fellbeck_flash_written_bytes_total").absolute(worn.written);
        metrics::counter!("fellbeck_flash_accepted_bytes_total").absolute(worn.accepted);
        metrics::gauge!("fellbeck_flash_written_per_accepted").set(worn.ratio());
        if let Some(days) = worn.life_days(self.endurance) {
            metrics::gauge!("fellbeck_flash_life_days").set(days);
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let worn = self.now();
        json!({
            "written_bytes": worn.written,
            "accepted_bytes": worn.accepted,
            "written_per_accepted": worn.ratio(),
            "endurance_bytes": self.endurance,
            "life_days": worn.life_days(self.endurance),
        })
    }
}

/// Bytes that this process has caused to be written to block devices; `None` where the system does not say.
fn written_bytes() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/self/io").ok()?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_is_what_the_endurance_lasts_at_the_present_rate() {
        let worn = Worn {
            written: 500,
            accepted: 1000,
            secs: 100.0,
        };
        assert!((worn.ratio() - 0.5).abs() < 1e-9);
        // 5 bytes a second.
        assert_eq!(worn.life_days(Some(5 * 86_400 * 365)), Some(365.0));
        assert_eq!(worn.life_days(None), None);
        let early = Worn { secs: 1.0, ..worn };
        assert_eq!(early.life_days(Some(1000)), None);
        let idle = Worn {
            written: 0,
            accepted: 0,
            ..worn
        };
        assert_eq!((idle.ratio(), idle.life_days(Some(1000))), (0.0, None));
    }

    #[test]
    fn the_system_says_what_was_written() {
        assert!(written_bytes().is_some());
    }
}
