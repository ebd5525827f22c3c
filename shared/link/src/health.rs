//! Whether a link carries data, as opposed to whether its socket is open.
//!
//! In: what waits to be acknowledged, what moves, heartbeats that leave and come back, time. Out: a [`LinkHealth`]. Both ends use it:
//! the edge watches its lanes and the round trip of its heartbeats; the cloud watches one flow, in which the next heartbeat is always
//! awaited. Pure; no clock. Rules: a flow in which something waits and nothing has moved for `patience` makes the link *degraded*;
//! a heartbeat that is late while its flow moves makes it *draining*. Hysteresis: a degraded link is *up* again only by a heartbeat in
//! time, and *draining* only when its flows have moved for a whole `patience`, so that a link that lets something through now and then
//! does not look well.

use std::time::Duration;

use fellbeck_core::Tick;

/// What a link is worth at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkHealth {
    /// There is no link.
    Down,
    /// There is one, and nothing gets through.
    Degraded,
    /// Data flows, and what is new waits behind a backlog.
    Draining,
    /// Data flows, and nothing is late.
    Up,
}

impl LinkHealth {
    /// All of them, from worst to best.
    pub const ALL: [Self; 4] = [Self::Down, Self::Degraded, Self::Draining, Self::Up];

    /// Label in metrics, log and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Up => "up",
        }
    }
}

/// What is waiting in one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Nothing waits.
    Idle,
    /// Something waits, and nothing has moved since it was asked last.
    Waits,
    /// Something waits, and the flow has moved since it was asked last.
    Moves,
}

/// Judges one link. See the module for its rules.
///
/// Order of calls: anything at any time, `tick` never falling; [`handle_timeout`](Self::handle_timeout) at
/// [`poll_timeout`](Self::poll_timeout) or later.
#[derive(Debug, Clone)]
pub struct HealthMonitor {
    patience: Duration,
    health: LinkHealth,
    connected: bool,
    /// Per flow: since when something waits without a move.
    waits_since: Vec<Option<Tick>>,
    /// Since when a heartbeat is awaited.
    beat_since: Option<Tick>,
    /// Degraded: when something moved first after that.
    moves_since: Option<Tick>,
}

impl HealthMonitor {
    /// A monitor of a link that is down, with `flows` flows. `patience` is the longest time that is not yet suspicious: on the edge the
    /// interval of heartbeats, in the cloud twice that.
    #[must_use]
    pub fn new(patience: Duration, flows: usize) -> Self {
        Self {
            patience,
            health: LinkHealth::Down,
            connected: false,
            waits_since: vec![None; flows],
            beat_since: None,
            moves_since: None,
        }
    }

    /// The verdict.
    #[must_use]
    pub fn health(&self) -> LinkHealth {
        self.health
    }

    /// Changes what is not yet suspicious: the edge has told another interval.
    pub fn set_patience(&mut self, patience: Duration, tick: Tick) {
        self.patience = patience;
        self.judge(tick);
    }

    /// The two ends have just spoken: what waits has waited for nobody until now.
    pub fn handle_connected(&mut self, tick: Tick) {
        self.connected = true;
        self.health = LinkHealth::Up;
        self.moves_since = None;
        self.beat_since = self.beat_since.map(|_| tick);
        for since in self.waits_since.iter_mut().flatten() {
            *since = tick;
        }
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        self.health = LinkHealth::Down;
    }

    /// How a flow stands. Flows beyond those of [`HealthMonitor::new`] are ignored.
    pub fn handle_flow(&mut self, index: usize, flow: Flow, tick: Tick) {
        let Some(since) = self.waits_since.get_mut(index) else {
            return;
        };
        match flow {
            Flow::Idle => *since = None,
            Flow::Waits => *since = since.or(Some(tick)),
            Flow::Moves => {
                *since = Some(tick);
                self.moves_since = self.moves_since.or(Some(tick));
            }
        }
        self.judge(tick);
    }

    /// A heartbeat is awaited from now on, unless one is already.
    pub fn await_beat(&mut self, tick: Tick) {
        self.beat_since = self.beat_since.or(Some(tick));
        self.judge(tick);
    }

    /// The heartbeat that was awaited has come back, or came. `in_time`: it took no longer than is usual.
    pub fn handle_beat(&mut self, in_time: bool, tick: Tick) {
        self.beat_since = None;
        if in_time && self.connected && !self.is_stuck(tick) {
            self.health = LinkHealth::Up;
        }
        self.judge(tick);
    }

    /// When the verdict may change by itself.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        if !self.connected {
            return None;
        }
        let waits = self.waits_since.iter().flatten().min().copied();
        let (waits, beat) = (waits, self.beat_since);
        // A stop also ends a recovery.
        let degraded = waits.filter(|_| self.health != LinkHealth::Degraded || self.moves_since.is_some());
        let late = beat.filter(|_| self.health == LinkHealth::Up);
        let recovered = self.moves_since.filter(|_| self.health == LinkHealth::Degraded);
        let since = [degraded, late, recovered].into_iter().flatten().min()?;
        // Suspicion begins when patience is over, not at its last instant.
        Some(since.after(self.patience).after(Duration::from_nanos(1)))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, tick: Tick) {
        self.judge(tick);
    }

    fn is_stuck(&self, tick: Tick) -> bool {
        self.waits_since
            .iter()
            .flatten()
            .any(|since| self.is_over(*since, tick))
    }

    fn is_over(&self, since: Tick, tick: Tick) -> bool {
        tick.since(since) > self.patience
    }

    fn judge(&mut self, tick: Tick) {
        if !self.connected {
            return;
        }
        let late = self.beat_since.is_some_and(|since| self.is_over(since, tick));
        if self.is_stuck(tick) {
            self.health = LinkHealth::Degraded;
            self.moves_since = None;
        } else if self.health != LinkHealth::Degraded {
            self.moves_since = None;
            self.health = if late { LinkHealth::Draining } else { self.settled() };
        } else if self.moves_since.is_some_and(|since| self.is_over(since, tick)) {
            self.moves_since = None;
            self.health = LinkHealth::Draining;
        }
    }

    /// Neither stuck nor late: up, but a backlog is over only with a heartbeat in time.
    fn settled(&self) -> LinkHealth {
        self.health.max(LinkHealth::Draining)
    }
}

#[cfg(test)]
mod tests;
