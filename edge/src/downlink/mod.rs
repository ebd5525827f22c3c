//! The downlink of an edge: messages from the cloud to the clients of this node.
//!
//! In: the link, what clients are subscribed to, the lists of `[downlink]`. Out: filters for the cloud, messages for the broker,
//! acknowledgements for what is durable. One frame is taken after the other: while the broker holds one, nothing more is read, so
//! the cloud is held back by QUIC and by the window.

mod intake;
mod state;
mod stream;
mod wanted;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_broker::front::Inside;
use fellbeck_core::Filter;
use fellbeck_link::downlink::StoredMark;
use fellbeck_ops::NodeClock;
use fellbeck_ops::identity::LINK_ALPN_DOWNLINK;
use fellbeck_store::{Space, Store};
use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use tokio::sync::oneshot;

use crate::config::DownlinkConfig;
use intake::Intake;
pub(crate) use state::DownlinkState;
use stream::{Broken, Stream};
use wanted::Allowed;

/// Key of the mark in the node's own keyed space.
const MARK_KEY: &[u8] = b"downlink/mark";
/// Pause before another stream is opened on a link whose downlink ended.
const PAUSE: Duration = Duration::from_secs(5);

/// What a downlink is made of.
#[derive(Clone)]
pub(crate) struct DownlinkParts {
    /// `[downlink]`.
    pub(crate) config: DownlinkConfig,
    /// The broker of this node.
    pub(crate) inside: Inside,
    /// Where the mark is.
    pub(crate) store: Store,
    /// Time.
    pub(crate) clock: NodeClock,
    /// What the status page shows.
    pub(crate) state: Arc<DownlinkState>,
}

/// The downlink of one name of this edge, over all its links.
pub(crate) struct Downlink {
    parts: DownlinkParts,
    allowed: Allowed,
    edge: String,
    intake: Intake,
    /// The broker has not answered for the last frame of a former link: what comes again of it must not be acknowledged before.
    outstanding: Option<oneshot::Receiver<()>>,
}

impl Downlink {
    pub(crate) fn new(parts: DownlinkParts, edge: &str) -> Self {
        let stored = parts.store.get(Space::Node, MARK_KEY).ok().flatten();
        let mark = stored.and_then(|stored| StoredMark::decode(&stored.value));
        let mark = mark.filter(|stored| stored.edge == edge).map(|stored| stored.mark);
        let parse = |list: &[String]| list.iter().filter_map(|text| Filter::parse(text).ok()).collect();
        let allowed = Allowed {
            here: parse(&parts.config.filters),
            edges: parse(&parts.config.edges),
            always: parse(&parts.config.always),
        };
        Self {
            parts,
            allowed,
            edge: edge.to_owned(),
            intake: Intake::new(edge, mark),
            outstanding: None,
        }
    }

    /// Serves one connection. To be dropped when that has ended.
    pub(crate) async fn serve(&mut self, connection: &Connection) -> Infallible {
        if alpn(connection).as_deref() != Some(LINK_ALPN_DOWNLINK) {
            tracing::info!("the cloud is of a version without a downlink");
            std::future::pending::<()>().await;
        }
        loop {
            let broken = self.converse(connection).await;
            self.parts.state.closed();
            match broken {
                Broken::Connection => {}
                Broken::Node => std::future::pending().await,
                Broken::Protocol(reason) => {
                    metrics::counter!("fellbeck_downlink_protocol_errors_total").increment(1);
                    tracing::warn!(reason, "the cloud broke the downlink protocol");
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The connection has ended.
    pub(crate) fn left(&self) {
        self.parts.state.closed();
    }

    async fn converse(&mut self, connection: &Connection) -> Broken {
        // Waits until the cloud has admitted this edge: before, it allows only the control stream.
        let Ok((send, receive)) = connection.open_bi().await else {
            return Broken::Connection;
        };
        match Stream::open(send, receive, self).await {
            Ok(stream) => stream.run().await,
            Err(broken) => broken,
        }
    }
}

/// The protocol that both sides named.
fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
