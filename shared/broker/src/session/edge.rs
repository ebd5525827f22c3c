//! Edges as readers of the cloud: a session like any other, with a client identifier that no MQTT client can have.
//!
//! An edge is never sent what came from it, or passed through it, so no message goes round. What a subscription of an edge says of
//! the origin of messages stands in its Subscription Identifier, which nobody else sees.

use fellbeck_core::Record;

use super::{Core, SessionStatus};
use crate::wire::ConnId;

/// Client identifiers that begin with this are the nodes' own: a CONNECT with one is refused.
pub const RESERVED_CLIENT_PREFIX: &str = "$fellbeck/";

/// What the client identifier of an edge begins with; its name follows.
const EDGE_PREFIX: &str = "$fellbeck/edge/";

/// Which messages a subscription of an edge takes. The numbers are Subscription Identifiers, and are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EdgeScope {
    /// Those that were published to this node by MQTT.
    Here = 1,
    /// Those of other edges too.
    All = 2,
}

/// The session of an edge, for metrics and status pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeReader {
    /// Name of the edge.
    pub edge: String,
    /// Filters in force.
    pub filters: usize,
    /// What waits and what became of the rest.
    pub status: SessionStatus,
}

/// Client identifier of the session of an edge.
#[must_use]
pub fn edge_client_id(edge: &str) -> String {
    format!("{EDGE_PREFIX}{edge}")
}

/// Name of the edge whose session this is; `None` for that of an MQTT client.
/// Whether the session is the reader of an edge.
pub(super) fn is_edge(client_id: &str) -> bool {
    edge_of(client_id).is_some()
}

fn edge_of(client_id: &str) -> Option<&str> {
    client_id.strip_prefix(EDGE_PREFIX)
}

/// Whether a subscription with the identifier `id` leaves `record` out, since its session is an edge's.
pub(super) fn is_kept_back(record: &Record<'_>, client_id: &str, id: Option<u32>) -> bool {
    if record.path.is_empty() {
        return false;
    }
    let Some(edge) = edge_of(client_id) else { return false };
    id != Some(EdgeScope::All as u32) || record.path.split('/').any(|node| node == edge)
}

impl Core {
    /// Filters that the session of `conn` is subscribed to.
    #[must_use]
    pub fn open_filters(&self, conn: ConnId) -> Vec<String> {
        let session = self.conns.get(&conn).and_then(|state| self.sessions.get(state.session));
        let versions = session.into_iter().flat_map(|session| session.subscriptions.iter());
        versions
            .filter(|version| version.is_open())
            .map(|version| version.filter.as_str().to_owned())
            .collect()
    }

    /// The sessions of edges. Costs a look at every session.
    #[must_use]
    pub fn edges(&self) -> Vec<EdgeReader> {
        let edges = self.sessions.iter().filter_map(|session| {
            let edge = edge_of(&session.client_id)?.to_owned();
            let status = self.session_status(&session.client_id)?;
            let versions = session.subscriptions.iter();
            let in_force = versions.filter(|version| version.is_open() && version.since.is_some());
            Some(EdgeReader {
                edge,
                filters: in_force.count(),
                status,
            })
        });
        edges.collect()
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::{ClockQuality, Properties, QoS, WallTime};

    use super::*;

    fn kept_back(path: &str, client_id: &str, scope: EdgeScope) -> bool {
        let record = Record {
            device: "d",
            topic: "t",
            payload: b"p",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path,
        };
        is_kept_back(&record, client_id, Some(scope as u32))
    }

    #[test]
    fn an_edge_is_not_sent_what_passed_through_it() {
        let a = &edge_client_id("a");
        assert!(!kept_back("", a, EdgeScope::Here));
        assert!(!kept_back("", a, EdgeScope::All));
        for path in ["a", "a/b", "b/a"] {
            assert!(kept_back(path, a, EdgeScope::All), "{path}");
        }
        assert!(!kept_back("ab/b", a, EdgeScope::All));
        assert!(kept_back("b", a, EdgeScope::Here), "of another edge");
        assert!(
            !kept_back("a", "a", EdgeScope::Here),
            "a client may bear the name of an edge"
        );
    }
}
