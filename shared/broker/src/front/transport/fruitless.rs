//! Bound on what a client may send that carries no data: WebSocket pings, pongs and empty frames, reads of TLS that give nothing.
//!
//! The read task of ntex goes on reading as long as bytes come, and pauses for others only when data has gathered. A client that sends
//! nothing but such would keep the thread of the broker for itself. So it gets a number per second, which no honest client needs.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// In one second, at most.
const MAX_PER_SECOND: u32 = 1000;

#[derive(Debug)]
pub(super) struct Fruitless {
    since: Cell<Instant>,
    count: Cell<u32>,
}

impl Fruitless {
    pub(super) fn new() -> Self {
        Self {
            since: Cell::new(Instant::now()),
            count: Cell::new(0),
        }
    }

    /// One more. False: there are too many, and the connection has to end.
    pub(super) fn spend(&self) -> bool {
        self.spend_at(Instant::now())
    }

    fn spend_at(&self, now: Instant) -> bool {
        if now.duration_since(self.since.get()) >= Duration::from_secs(1) {
            self.since.set(now);
            self.count.set(0);
        }
        self.count.set(self.count.get() + 1);
        self.count.get() <= MAX_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_allowed_in_a_second_and_the_next_second_begins_anew() {
        let fruitless = Fruitless::new();
        let start = fruitless.since.get();
        assert!((0..MAX_PER_SECOND).all(|_| fruitless.spend_at(start)));
        assert!(!fruitless.spend_at(start + Duration::from_millis(999)));
        assert!(fruitless.spend_at(start + Duration::from_secs(1)));
    }
}
