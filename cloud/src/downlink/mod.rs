//! The downlink of the cloud: each linked edge reads the broker of this node as a session of its own.
//!
//! In: the edge's downlink stream, and the broker. Out: messages in the order of the log, on that stream. What an edge is sent,
//! what waits for it while it is away, and what is sent again are the session core's to decide ([`fellbeck_broker::front::Inside`]).

mod openings;
mod stream;

use fellbeck_broker::front::Inside;
use fellbeck_link::downlink::Openings;
use fellbeck_ops::identity::LINK_ALPN_DOWNLINK;
use quinn::Connection;

use crate::ingest::accept::{LinkParts, alpn};

pub(crate) use openings::begin;
use stream::{Ended, Stream};

/// What downlinks work with.
pub(crate) struct Downlink {
    /// The broker.
    pub(crate) inside: Inside,
    /// Runs of this node over its log.
    pub(crate) openings: Openings,
}

/// Streams that an edge may open: control and downlink.
const BIDI_STREAMS: u32 = 2;

/// Serves the downlink of an admitted edge until its connection ends. Nothing to do where the edge knows no downlink.
pub(crate) async fn serve(connection: Connection, parts: &LinkParts, edge: &str) {
    let Some(downlink) = parts.downlink.get() else { return };
    if alpn(&connection).as_deref() != Some(LINK_ALPN_DOWNLINK) {
        return;
    }
    connection.set_max_concurrent_bi_streams(BIDI_STREAMS.into());
    // An edge whose stream has ended opens another one.
    while let Ok((send, receive)) = connection.accept_bi().await {
        let stream = Stream::new(send, receive, edge, parts, downlink);
        match stream.run().await {
            // Whether the connection goes on shows at the next stream.
            Ended::Connection => {}
            Ended::Session => tracing::info!(edge, "downlink ended: another link took it over, or there is no room"),
            Ended::Protocol(reason) => {
                metrics::counter!("fellbeck_downlink_protocol_errors_total").increment(1);
                tracing::warn!(edge, reason, "an edge broke the downlink protocol");
            }
        }
    }
}
