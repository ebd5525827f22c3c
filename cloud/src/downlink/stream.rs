//! One downlink stream: frames of the edge to calls on the broker, events of the session to frames.
//!
//! Order: Open first, then the whole list of filters with Complete, then changes and acknowledgements as they come. Bounded: the
//! filters by number and bytes, messages in flight by the edge's window, waiting ones by the session's outlet. While the edge does
//! not take what is written, nothing else is done here: its acknowledgements follow what it has read.

use std::collections::BTreeMap;

use fellbeck_broker::front::{EdgeEvent, EdgeSession, ToEdge};
use fellbeck_broker::session::EdgeScope;
use fellbeck_core::limits::{BATCH_TARGET, PACKET_MAX_EDGE};
use fellbeck_core::{Batch, Epoch, Filter, RecordBlock, Seq};
use fellbeck_link::downlink::{
    FILTERS_BYTES_MAX, FILTERS_MAX, FromCloud, FromEdge, Messages, Open, Opened, Tag, WINDOW_MAX, Wanted,
};
use fellbeck_link::limits::CONTROL_FRAME_MAX;
use fellbeck_link::{FrameDecoder, RawFrame};
use quinn::{RecvStream, SendStream};

use super::Downlink;
use crate::ingest::accept::LinkParts;

/// Bytes taken from the stream at once.
const CHUNK: usize = 16 << 10;

/// Why a stream ended.
pub(super) enum Ended {
    /// With the connection, or by the edge.
    Connection,
    /// The session went to another link, or could not be had.
    Session,
    /// The edge is broken or hostile.
    Protocol(String),
}

pub(super) struct Stream<'a> {
    send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    edge: &'a str,
    parts: &'a LinkParts,
    downlink: &'a Downlink,
    filters: Filters,
}

/// The filters of one edge.
#[derive(Debug, Default)]
struct Filters {
    wanted: BTreeMap<Filter, bool>,
    bytes: usize,
    /// All were named once; from then on there are changes.
    is_complete: bool,
    not_granted: u32,
}

impl Filters {
    /// False beyond the bounds.
    fn add(&mut self, wanted: Wanted) -> bool {
        let bytes = wanted.filter.as_str().len();
        if self.wanted.insert(wanted.filter, wanted.edges).is_none() {
            self.bytes += bytes;
        }
        self.wanted.len() <= FILTERS_MAX && self.bytes <= FILTERS_BYTES_MAX
    }

    fn remove(&mut self, filter: &Filter) {
        if self.wanted.remove(filter).is_some() {
            self.bytes -= filter.as_str().len();
        }
    }

    fn all(&self) -> Vec<(String, EdgeScope)> {
        let each = self.wanted.iter();
        each.map(|(filter, edges)| (filter.as_str().to_owned(), scope(*edges)))
            .collect()
    }
}

fn scope(edges: bool) -> EdgeScope {
    if edges { EdgeScope::All } else { EdgeScope::Here }
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        send: SendStream,
        receive: RecvStream,
        edge: &'a str,
        parts: &'a LinkParts,
        downlink: &'a Downlink,
    ) -> Self {
        Self {
            send,
            receive,
            decoder: FrameDecoder::new(CONTROL_FRAME_MAX),
            edge,
            parts,
            downlink,
            filters: Filters::default(),
        }
    }

    /// Runs the stream to its end.
    pub(super) async fn run(mut self) -> Ended {
        let open = match self.open().await {
            Ok(open) => open,
            Err(ended) => return ended,
        };
        let attached = self
            .downlink
            .inside
            .attach(self.edge, open.window, PACKET_MAX_EDGE)
            .await;
        let Ok(mut session) = attached else {
            return Ended::Session;
        };
        let ended = match self.greet(&open).await {
            Ok(()) => self.converse(&mut session).await,
            Err(ended) => Err(ended),
        };
        session.leave().await;
        // The edge sees the end of the stream; it may be gone.
        self.send.reset(0u32.into()).ok();
        self.receive.stop(0u32.into()).ok();
        match ended {
            Ok(()) => Ended::Connection,
            Err(ended) => ended,
        }
    }

    async fn open(&mut self) -> Result<Open, Ended> {
        loop {
            if let Some(frame) = self.next_frame()? {
                return match FromEdge::decode(&frame) {
                    Ok(FromEdge::Open(open)) => Ok(open),
                    Ok(_) => Err(Ended::Protocol("the first frame is not an Open".into())),
                    Err(error) => Err(Ended::Protocol(error.to_string())),
                };
            }
            let chunk = self.receive.read_chunk(CHUNK, true).await;
            // A stream that has ended is ready at once, for ever.
            if !self.push(chunk)? {
                return Err(Ended::Connection);
            }
        }
    }

    async fn greet(&mut self, open: &Open) -> Result<(), Ended> {
        let openings = &self.downlink.openings;
        let log_id = self.parts.store.log_id();
        let shared = open.mark.as_ref().and_then(|mark| openings.shared(log_id, mark));
        if open.mark.as_ref().is_some_and(|mark| shared != Some(mark.position)) {
            metrics::counter!("fellbeck_downlink_marks_lost_total").increment(1);
            tracing::warn!(
                edge = self.edge,
                "the edge has had messages from a later state of this log: it may get some again"
            );
        }
        let opening = openings.present().map(|opening| opening.id).unwrap_or_default();
        self.write(&FromCloud::Opened(Opened {
            log_id,
            opening,
            shared,
            now: self.parts.clock.wall(),
        }))
        .await
    }

    async fn converse(&mut self, session: &mut EdgeSession) -> Result<(), Ended> {
        loop {
            while let Some(frame) = self.next_frame()? {
                self.take(&frame, session).await?;
            }
            tokio::select! {
                chunk = self.receive.read_chunk(CHUNK, true) => {
                    if !self.push(chunk)? {
                        return Ok(());
                    }
                }
                event = session.event() => {
                    let event = event.map_err(|_| Ended::Session)?;
                    self.event(event, session).await?;
                }
            }
        }
    }

    fn next_frame(&mut self) -> Result<Option<RawFrame>, Ended> {
        self.decoder
            .next_frame()
            .map_err(|error| Ended::Protocol(error.to_string()))
    }

    /// False: the edge has ended the stream.
    fn push(&mut self, chunk: Result<Option<quinn::Chunk>, quinn::ReadError>) -> Result<bool, Ended> {
        match chunk {
            Ok(Some(chunk)) => {
                self.decoder.push(&chunk.bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(_) => Err(Ended::Connection),
        }
    }

    async fn take(&mut self, frame: &RawFrame, session: &EdgeSession) -> Result<(), Ended> {
        let frame = FromEdge::decode(frame).map_err(|error| Ended::Protocol(error.to_string()))?;
        let called = match frame {
            FromEdge::Open(_) => return Err(Ended::Protocol("a second Open".into())),
            FromEdge::Want(list) => {
                let named: Vec<_> = list
                    .iter()
                    .map(|wanted| (wanted.filter.as_str().to_owned(), scope(wanted.edges)))
                    .collect();
                if !list.into_iter().all(|wanted| self.filters.add(wanted)) {
                    return Err(Ended::Protocol("more filters than an edge may have".into()));
                }
                if !self.filters.is_complete {
                    return Ok(());
                }
                session.want(named, false).await
            }
            FromEdge::Unwant(list) => {
                list.iter().for_each(|filter| self.filters.remove(filter));
                if !self.filters.is_complete {
                    return Ok(());
                }
                session
                    .unwant(list.iter().map(|filter| filter.as_str().to_owned()).collect())
                    .await
            }
            FromEdge::Complete if self.filters.is_complete => {
                return Err(Ended::Protocol("a second Complete".into()));
            }
            FromEdge::Complete => {
                self.filters.is_complete = true;
                session.want(self.filters.all(), true).await
            }
            FromEdge::Ack(ids) => {
                metrics::counter!("fellbeck_downlink_acked_total").increment(ids.len() as u64);
                session.ack(ids).await
            }
        };
        called.map_err(|_| Ended::Session)
    }

    async fn event(&mut self, first: EdgeEvent, session: &mut EdgeSession) -> Result<(), Ended> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        // Whatever else has come goes into the same frame.
        while let Some(event) = next {
            match event {
                EdgeEvent::Message(message) => {
                    bytes += message.record.bytes().len();
                    messages.push(message);
                }
                EdgeEvent::Attached => {}
                EdgeEvent::Subscribed { refused } => self.refused(refused).await?,
                EdgeEvent::Ended => return Err(Ended::Session),
            }
            if bytes >= BATCH_TARGET || messages.len() == usize::from(WINDOW_MAX) {
                break;
            }
            next = session.next_event();
        }
        if !messages.is_empty() {
            self.deliver(&messages).await?;
        }
        session.let_go_on().await.map_err(|_| Ended::Session)
    }

    async fn refused(&mut self, refused: u32) -> Result<(), Ended> {
        if refused == 0 {
            return Ok(());
        }
        metrics::counter!("fellbeck_downlink_filters_refused_total").increment(u64::from(refused));
        tracing::warn!(
            edge = self.edge,
            refused,
            "filters of an edge exceed the bound on subscriptions"
        );
        self.filters.not_granted = self.filters.not_granted.saturating_add(refused);
        let told = FromCloud::NotGranted(self.filters.not_granted);
        self.write(&told).await
    }

    async fn deliver(&mut self, messages: &[ToEdge]) -> Result<(), Ended> {
        let blocks: Vec<RecordBlock> = messages.iter().map(|message| message.record.clone()).collect();
        let tags = messages.iter().map(|message| Tag {
            packet_id: message.packet_id,
            position: message.position,
        });
        let frame = FromCloud::Messages(Messages {
            sent_at: self.parts.clock.wall(),
            tags: tags.collect(),
            batch: Batch::seal(Epoch(0), Seq(1), &RecordBlock::concat(&blocks)),
        });
        metrics::counter!("fellbeck_downlink_sent_total").increment(messages.len() as u64);
        self.write(&frame).await
    }

    async fn write(&mut self, frame: &FromCloud) -> Result<(), Ended> {
        let bytes = frame.encode();
        metrics::counter!("fellbeck_downlink_sent_bytes_total").increment(bytes.len() as u64);
        self.send.write_chunk(bytes).await.map_err(|_| Ended::Connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(filter: &str, edges: bool) -> Wanted {
        Wanted {
            filter: Filter::parse(filter).unwrap(),
            edges,
        }
    }

    #[test]
    fn the_filters_of_an_edge_are_bounded_by_number_and_bytes() {
        let mut filters = Filters::default();
        for n in 0..FILTERS_MAX {
            assert!(filters.add(wanted(&format!("t/{n}"), false)));
        }
        assert!(filters.add(wanted("t/0", true)), "a change is none more");
        assert!(!filters.add(wanted("one/more", false)));
        filters.remove(&Filter::parse("one/more").unwrap());
        filters.remove(&Filter::parse("t/1").unwrap());
        assert!(filters.add(wanted("another", false)));

        let mut filters = Filters::default();
        let long = "x".repeat(FILTERS_BYTES_MAX / 64);
        for n in 0..63 {
            assert!(filters.add(wanted(&format!("{n}{}", &long[2..]), false)), "{n}");
        }
        assert!(!filters.add(wanted(&format!("{long}{long}"), false)));
    }
}
