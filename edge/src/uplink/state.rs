//! What the uplink is doing, for the status page, metrics and one log line per change.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fellbeck_link::LinkHealth;
use fellbeck_ops::config::HostPort;
use serde::Serialize;

/// State of the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum LinkState {
    /// No identity yet.
    NotJoined,
    /// Dialling.
    Connecting {
        /// Address.
        address: String,
    },
    /// The cloud has welcomed this edge.
    Connected {
        /// Address.
        address: String,
    },
    /// Between two attempts.
    Waiting {
        /// Pause in milliseconds.
        wait_ms: u64,
    },
}

impl LinkState {
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    /// The word for it on the status page too.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NotJoined => "not_joined",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::Waiting { .. } => "waiting",
        }
    }
}

/// Shared state of the uplink.
#[derive(Debug)]
pub(crate) struct UplinkState {
    // Held for a few instructions, never across an await.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: LinkState,
    last_error: Option<String>,
    /// `None`: heartbeats are off, or there was no link yet.
    health: Option<LinkHealth>,
    round_trip: Option<Duration>,
}

impl UplinkState {
    pub(crate) fn new() -> Self {
        metrics::gauge!("fellbeck_link_connected").set(0.0);
        Self {
            inner: Mutex::new(Inner {
                link: LinkState::NotJoined,
                last_error: None,
                health: None,
                round_trip: None,
            }),
        }
    }

    pub(crate) fn set(&self, link: LinkState) {
        let connected = link.is_connected();
        metrics::gauge!("fellbeck_link_connected").set(f64::from(u8::from(connected)));
        self.lock().link = link;
    }

    pub(crate) fn connecting(&self, address: &HostPort) {
        self.set(LinkState::Connecting {
            address: address.to_string(),
        });
    }

    pub(crate) fn connected(&self, peer: SocketAddr) {
        metrics::counter!("fellbeck_link_connects_total").increment(1);
        tracing::info!(cloud = %peer, "link up");
        self.set(LinkState::Connected {
            address: peer.to_string(),
        });
        self.lock().last_error = None;
    }

    pub(crate) fn waiting(&self, wait: Duration) {
        self.set(LinkState::Waiting {
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        });
    }

    /// An attempt or a connection ended. The same reason again is not logged again.
    pub(crate) fn failed(&self, reason: &str) {
        metrics::counter!("fellbeck_link_failures_total").increment(1);
        let mut inner = self.lock();
        if inner.last_error.as_deref() != Some(reason) {
            tracing::warn!(reason, "no link to the cloud");
            inner.last_error = Some(reason.to_owned());
        }
    }

    /// The verdict on the link. One line per change; a link that is gone has its own.
    pub(crate) fn health(&self, health: LinkHealth, round_trip: Option<Duration>) {
        let mut inner = self.lock();
        inner.round_trip = round_trip;
        let before = inner.health.replace(health);
        drop(inner);
        if before == Some(health) {
            return;
        }
        for known in LinkHealth::ALL {
            let is_it = f64::from(u8::from(known == health));
            metrics::gauge!("fellbeck_link_health", "state" => known.as_str()).set(is_it);
        }
        let before = before.map_or("none", LinkHealth::as_str);
        match health {
            LinkHealth::Degraded => tracing::warn!(
                before,
                "the link is degraded: it is open, and nothing gets through to the cloud"
            ),
            LinkHealth::Draining | LinkHealth::Up => {
                tracing::info!(before, health = health.as_str(), "the link carries data")
            }
            LinkHealth::Down => {}
        }
    }

    /// What the link does at this moment.
    pub(crate) fn link(&self) -> LinkState {
        self.lock().link.clone()
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let inner = self.lock();
        serde_json::json!({
            "link": inner.link,
            "last_error": inner.last_error,
            "health": inner.health.map(LinkHealth::as_str),
            "heartbeat_round_trip_ms": inner.round_trip.map(|time| time.as_secs_f64() * 1000.0),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
