//! What the session core is told from outside: its settings, the time, the routes.
//!
//! Plain values, already validated by the node's own configuration. Each bound is enforced and counted where it is reached.

use fellbeck_core::{ClockQuality, Tick, TrackId, WallTime};
use fellbeck_store::Admission;

use super::Pressure;

/// The time at which a call is made. The core reads no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub tick: Tick,
    /// For stamps and message expiry.
    pub wall: WallTime,
    /// What the node knows of its wall clock. While it is unknown, no message expires.
    pub clock: ClockQuality,
    /// Since when `wall` runs: [`CoreLimits::clock_runs_since`].
    pub runs_since: WallTime,
}

impl Now {
    /// Whether the time from a stamp `at`, of a clock of that quality, to `wall` is time that has passed: a time source set the clock at
    /// both moments, or the machine has not been started since. A source that set it in between may have moved it by years.
    pub(super) fn is_comparable(&self, at: WallTime, clock: ClockQuality) -> bool {
        match (clock, self.clock) {
            (ClockQuality::Unknown, _) | (_, ClockQuality::Unknown) => false,
            (ClockQuality::Unsynced, ClockQuality::Synced) => false,
            (ClockQuality::Synced, ClockQuality::Synced) => true,
            (_, ClockQuality::Unsynced) => at >= self.runs_since,
        }
    }
}

/// Where a message is logged. Edge: forward rules. Cloud: stream and partition.
pub trait Route {
    /// Track for a message that `device` published to `topic`. `None`: it is not logged.
    fn route(&self, topic: &str, device: &str) -> Option<TrackId>;

    /// Whether a message for `track` is taken now; `None`: one that is stored elsewhere only. By default nothing is under pressure.
    fn admission(&self, _track: Option<TrackId>, pressure: Pressure) -> Admission {
        if pressure > Pressure::Normal {
            Admission::HoldBack
        } else {
            Admission::Take
        }
    }

    /// What the lane of `track` asks for its messages.
    fn terms(&self, _track: TrackId) -> Terms {
        Terms::default()
    }
}

/// What a lane asks for its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// A message is acknowledged at once and committed within a second, where others wait for the commit.
    pub ack_at_once: bool,
    /// Longest message expiry in seconds, also of messages without one.
    pub ttl_secs: Option<u32>,
}

/// When sessions see a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every session sees committed records only. The cloud.
    CommittedOnly,
    /// Sessions that end with their connection are served from memory at once, before the commit. The edge.
    ///
    /// Shared subscriptions are always served after the commit: one order for the whole group, no seam when a persistent
    /// session joins it.
    ImmediateForClean,
}

/// Settings of a session core.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// When sessions see a message.
    pub mode: Mode,
    /// Track for messages that are not routed, at QoS 1 or 2, and match a persistent session. `None`: they are fanned out from
    /// memory only, so a session that is not connected misses them (counted).
    pub local_track: Option<TrackId>,
    /// Bounds.
    pub limits: CoreLimits,
}

/// Bounds of a session core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreLimits {
    /// Un-acked QoS 1 and 2 messages that one connection may send. Announced to MQTT 5 clients; beyond it they are closed with
    /// 0x93, MQTT 3.1.1 clients are held. Default 1,024. Costs 40 B each.
    pub receive_maximum: u16,
    /// Un-acked QoS 1 and 2 messages that one session may be sent, capped by the client's Receive Maximum. Default 1,024.
    /// Costs 32 B each, and for a QoS 2 subscriber about 5 B each per commit.
    pub in_flight_max: u16,
    /// Messages that wait in memory for one connected session. Beyond it a session with a cursor reads the log instead; others
    /// lose messages (counted). Default 1,000.
    pub session_queue_records: usize,
    /// Bytes of these messages. Default 1 MiB.
    pub session_queue_bytes: usize,
    /// Subscriptions of one session; beyond it 0x97. Default 10,000.
    pub subscriptions_max: usize,
    /// Bytes of the filters and share names of one session; beyond it 0x97. Default 1 MiB.
    pub subscription_bytes_max: usize,
    /// Sessions, connected or not. Beyond it a session that is away and holds nothing gives way, the one that is away for longest
    /// first; when there is none, CONNECT is refused with 0x97. Default 100,000.
    pub sessions_max: usize,
    /// Bytes of all wills together, topics and properties included; beyond it a CONNECT with a will is refused with 0x97.
    /// Default 64 MiB.
    pub will_bytes_max: usize,
    /// Groups of shared subscriptions; beyond it 0x97. Default 10,000.
    pub groups_max: usize,
    /// Longest session expiry in seconds, also for 3.1.1 sessions that never end by themselves. `u32::MAX`: no bound.
    /// Default 30 days.
    pub session_expiry_max_secs: u32,
    /// Since when the wall clock runs, that is when the machine was started, by this very clock. Where no time source sets the clock, times before
    /// it are of another clock and tell nothing: a machine without a battery clock may have been in 1970 then. Default 0: all may be compared.
    pub clock_runs_since: WallTime,
    /// Bytes of the commit under construction at which the front should stop reading. Default 1 MiB.
    pub commit_bytes_max: usize,
    /// Submissions not yet durable at which the front should stop reading. Default 64.
    pub outstanding_max: usize,
    /// Readers of the log that read at the same time. Default 4.
    pub reads_max: usize,
    /// Bytes of one read of the log. Default 64 KiB. Costs this much per connected session that is behind.
    pub read_bytes: usize,
    /// Bytes of committed blocks that live queues may keep in memory behind the newest one; a session whose queue is older reads
    /// the log instead. Default 4 MiB.
    pub live_window_bytes: u64,
}

impl Default for CoreLimits {
    fn default() -> Self {
        Self {
            receive_maximum: 1024,
            in_flight_max: 1024,
            session_queue_records: 1000,
            session_queue_bytes: 1 << 20,
            subscriptions_max: 10_000,
            subscription_bytes_max: 1 << 20,
            sessions_max: 100_000,
            will_bytes_max: 64 << 20,
            groups_max: 10_000,
            session_expiry_max_secs: 30 * 24 * 3600,
            clock_runs_since: WallTime(0),
            commit_bytes_max: 1 << 20,
            outstanding_max: 64,
            reads_max: 4,
            read_bytes: 64 << 10,
            live_window_bytes: 4 << 20,
        }
    }
}
