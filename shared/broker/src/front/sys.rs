//! The values of the `$SYS` tree: what the node knows of itself, in the words that users of MQTT brokers look for.
//!
//! In: the counts of the front, of the session core and of the store, and what the node adds (its links). Out: topics and values for
//! [`Core::publish_status`](crate::session::Core::publish_status). Each value is read from where metrics and the status page
//! have it; what the node does not know has no topic. `docs/sys.md` lists them.
//! Load averages are kept up at each interval; all else is made only while somebody is subscribed, and when somebody subscribes.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::time::Duration;

use fellbeck_core::{ClockQuality, Tick};
use fellbeck_store::{Level, Store, StoreStats};

use super::load::{Loads, WINDOWS};
use super::traffic::Counts;
use crate::session::Totals;

/// Further values of the node, below `$SYS/fellbeck/`, as topic without that prefix and value. Called on the broker thread: it must
/// not block.
pub type StatusValues = Box<dyn Fn(&StoreStats) -> Vec<(String, String)> + Send>;

/// What was made less than this ago is new enough for a new subscription, so that subscribing again and again costs little.
const NEW_ENOUGH: Duration = Duration::from_secs(1);

/// What is averaged, in the order of [`counts_of_loads`].
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

fn counts_of_loads(counts: &Counts, dropped: u64) -> [u64; LOADS.len()] {
    [
        counts.received,
        counts.sent,
        counts.published,
        counts.delivered,
        dropped,
        counts.received_bytes,
        counts.sent_bytes,
        counts.sockets,
        counts.connects,
    ]
}

/// When values are made, and what is kept between two times.
pub(super) struct Sys {
    /// Zero: never.
    interval: Duration,
    node: StatusValues,
    loads: RefCell<Loads<{ LOADS.len() }>>,
    loads_at: Cell<Tick>,
    made_at: Cell<Option<Tick>>,
}

/// What the values are made of.
pub(super) struct Sources<'a> {
    pub(super) name: &'a str,
    pub(super) uptime: Duration,
    pub(super) clock: ClockQuality,
    pub(super) counts: Counts,
    pub(super) totals: Totals,
    pub(super) store: &'a Store,
    /// Commits handed to the store and not durable yet.
    pub(super) outstanding: usize,
}

impl Sys {
    pub(super) fn new(interval: Duration, node: StatusValues) -> Self {
        Self {
            interval,
            node,
            loads: RefCell::default(),
            loads_at: Cell::default(),
            made_at: Cell::new(None),
        }
    }

    /// Keeps the load averages up. True once per interval: then the values are due.
    pub(super) fn is_due(&self, counts: &Counts, dropped: u64, now: Tick) -> bool {
        let elapsed = now.since(self.loads_at.get());
        if self.interval.is_zero() || elapsed < self.interval {
            return false;
        }
        self.loads_at.set(now);
        self.loads
            .borrow_mut()
            .update(counts_of_loads(counts, dropped), elapsed);
        true
    }

    /// Whether a new subscription should not be sent what was made last.
    pub(super) fn is_stale(&self, now: Tick) -> bool {
        let is_new = self.made_at.get().is_some_and(|at| now.since(at) < NEW_ENOUGH);
        !self.interval.is_zero() && !is_new
    }

    /// All values at this moment.
    pub(super) fn make(&self, sources: &Sources<'_>, now: Tick) -> Vec<(String, String)> {
        self.made_at.set(Some(now));
        let stats = sources.store.stats();
        let mut values = Values(Vec::with_capacity(128));
        values.broker(sources, &stats);
        values.loads(&self.loads.borrow());
        values.own(sources, &stats);
        for (topic, value) in (self.node)(&stats) {
            values.fellbeck(&topic, value);
        }
        values.0
    }
}

struct Values(Vec<(String, String)>);

impl Values {
    fn put(&mut self, topic: &str, value: impl Display) {
        self.0.push((format!("$SYS/broker/{topic}"), value.to_string()));
    }

    fn fellbeck(&mut self, topic: &str, value: impl Display) {
        self.0.push((format!("$SYS/fellbeck/{topic}"), value.to_string()));
    }

    /// What other brokers have too, under the names of mosquitto.
    fn broker(&mut self, sources: &Sources<'_>, stats: &StoreStats) {
        let Sources { counts, totals, .. } = sources;
        self.put("version", concat!("fellbeck version ", env!("CARGO_PKG_VERSION")));
        self.put("uptime", format_args!("{} seconds", sources.uptime.as_secs()));
        let away = totals.sessions.saturating_sub(totals.connected);
        let held: u64 = stats.tracks.iter().map(|track| track.held).sum();
        let dropped: u64 = totals.dropped.iter().map(|(_, count)| count).sum();
        for (topic, value) in [
            ("clients/total", totals.sessions as u64),
            ("clients/connected", totals.connected as u64),
            ("clients/active", totals.connected as u64),
            ("clients/disconnected", away as u64),
            ("clients/inactive", away as u64),
            ("clients/maximum", totals.connected_max as u64),
            ("clients/expired", totals.sessions_expired),
            ("messages/received", counts.received),
            ("messages/sent", counts.sent),
            ("messages/stored", held),
            ("publish/messages/received", counts.published),
            ("publish/messages/sent", counts.delivered),
            ("publish/messages/dropped", dropped),
            ("publish/bytes/received", counts.published_bytes),
            ("publish/bytes/sent", counts.delivered_bytes),
            ("bytes/received", counts.received_bytes),
            ("bytes/sent", counts.sent_bytes),
            ("subscriptions/count", totals.subscriptions as u64),
            ("shared_subscriptions/count", totals.shared_subscriptions as u64),
            ("store/messages/count", held),
            ("store/messages/bytes", stats.segment_bytes),
        ] {
            self.put(topic, value);
        }
    }

    fn loads(&mut self, loads: &Loads<{ LOADS.len() }>) {
        for (index, name) in LOADS.iter().enumerate() {
            for (window, average) in WINDOWS.into_iter().zip(loads.of(index)) {
                self.put(&format!("load/{name}/{window}min"), format_args!("{average:.2}"));
            }
        }
    }

    /// What only we have.
    fn own(&mut self, sources: &Sources<'_>, stats: &StoreStats) {
        let totals = &sources.totals;
        self.fellbeck("node/name", sources.name);
        self.fellbeck("node/version", env!("CARGO_PKG_VERSION"));
        let quality = match sources.clock {
            ClockQuality::Unknown => "unknown",
            ClockQuality::Unsynced => "unsynced",
            ClockQuality::Synced => "synced",
        };
        self.fellbeck("clock/quality", quality);
        let pressure = sources.store.pressure();
        let level = match pressure.level {
            Level::Normal => "normal",
            Level::High => "high",
            Level::Full => "full",
        };
        self.fellbeck("store/pressure", level);
        if pressure.quota != u64::MAX {
            self.fellbeck("store/bytes/quota", pressure.quota);
        }
        let appended: u64 = stats.tracks.iter().map(|track| track.appended).sum();
        for (topic, value) in [
            ("store/bytes/used", pressure.used),
            ("store/records/appended", appended),
            ("store/commits", stats.commits),
            ("store/commit/durable", sources.store.newest_commit().0),
            ("store/commits/outstanding", sources.outstanding as u64),
            ("sessions", totals.sessions as u64),
            ("sessions/in_flight", totals.in_flight as u64),
        ] {
            self.fellbeck(topic, value);
        }
        for (reason, count) in &totals.dropped {
            self.fellbeck(&format!("dropped/{}", reason.as_str()), count);
        }
    }
}
