//! One downlink stream of an edge: announces, takes frames, acknowledges. Decides nothing: [`wanted`](super::wanted) and
//! [`intake`](super::intake) do.

use bytes::Bytes;
use fellbeck_broker::front::Interest;
use fellbeck_core::limits::FRAME_MAX;
use fellbeck_link::downlink::{FromCloud, FromEdge, Messages, Open, StoredMark};
use fellbeck_link::{FrameDecoder, RawFrame};
use quinn::{RecvStream, SendStream};
use tokio::sync::{oneshot, watch};

use super::intake::Now;
use super::wanted::{Announced, Change, change};
use super::{Downlink, MARK_KEY};

/// Bytes taken from the stream at once.
const CHUNK: usize = 64 << 10;
/// Filters of one frame, and their bytes: below the bound of a frame.
const FILTERS_PER_FRAME: usize = 12;

/// Why a stream ended.
pub(super) enum Broken {
    /// With the connection, or by the cloud.
    Connection,
    /// This node ends.
    Node,
    /// The cloud is broken.
    Protocol(String),
}

pub(super) struct Stream<'a> {
    send: SendStream,
    receive: RecvStream,
    decoder: FrameDecoder,
    downlink: &'a mut Downlink,
    interest: watch::Receiver<Interest>,
    announced: Announced,
    /// Acknowledged when the broker has answered for the frame that they are of.
    acks: Vec<u16>,
}

impl<'a> Stream<'a> {
    /// Opens the stream, and announces all that is wanted.
    pub(super) async fn open(
        send: SendStream,
        receive: RecvStream,
        downlink: &'a mut Downlink,
    ) -> Result<Self, Broken> {
        let mut interest = downlink.parts.inside.interest().await.map_err(|_| Broken::Node)?;
        // Without it, what the cloud keeps for clients that are away would be given up.
        interest.wait_for(Option::is_some).await.map_err(|_| Broken::Node)?;
        let mut stream = Self {
            send,
            receive,
            decoder: FrameDecoder::new(FRAME_MAX),
            downlink,
            interest,
            announced: Announced::new(),
            acks: Vec::new(),
        };
        let open = Open {
            window: stream.downlink.parts.config.window,
            mark: stream.downlink.intake.mark(),
        };
        stream.write(&FromEdge::Open(open)).await?;
        stream.greeted().await?;
        stream.announce().await?;
        stream.write(&FromEdge::Complete).await?;
        Ok(stream)
    }

    async fn greeted(&mut self) -> Result<(), Broken> {
        loop {
            if let Some(frame) = self.next_frame()? {
                let Ok(FromCloud::Opened(opened)) = FromCloud::decode(&frame) else {
                    return Err(Broken::Protocol("the first frame is not an Opened".into()));
                };
                let now = self.downlink.parts.clock.tick();
                if !self.downlink.intake.handle_opened(opened, now) {
                    metrics::counter!("fellbeck_downlink_marks_lost_total").increment(1);
                    tracing::error!("the cloud was restored to an older state: messages may come again");
                }
                self.downlink.parts.state.opened();
                return Ok(());
            }
            let chunk = self.receive.read_chunk(CHUNK, true).await;
            self.push(chunk)?;
        }
    }

    /// Runs the stream to its end.
    pub(super) async fn run(mut self) -> Broken {
        loop {
            if let Err(broken) = self.turn().await {
                return broken;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Broken> {
        while self.downlink.outstanding.is_none() {
            let Some(frame) = self.next_frame()? else { break };
            self.take(&frame).await?;
        }
        let is_busy = self.downlink.outstanding.is_some();
        tokio::select! {
            chunk = self.receive.read_chunk(CHUNK, true), if !is_busy => self.push(chunk),
            answer = answered(&mut self.downlink.outstanding), if is_busy => {
                self.downlink.outstanding = None;
                answer.map_err(|_| Broken::Node)?;
                self.acknowledge().await
            }
            changed = self.interest.changed() => {
                changed.map_err(|_| Broken::Node)?;
                self.announce().await
            }
        }
    }

    fn next_frame(&mut self) -> Result<Option<RawFrame>, Broken> {
        self.decoder
            .next_frame()
            .map_err(|error| Broken::Protocol(error.to_string()))
    }

    fn push(&mut self, chunk: Result<Option<quinn::Chunk>, quinn::ReadError>) -> Result<(), Broken> {
        match chunk {
            Ok(Some(chunk)) => {
                self.decoder.push(&chunk.bytes);
                Ok(())
            }
            Ok(None) | Err(_) => Err(Broken::Connection),
        }
    }

    async fn take(&mut self, frame: &RawFrame) -> Result<(), Broken> {
        match FromCloud::decode(frame).map_err(|error| Broken::Protocol(error.to_string()))? {
            FromCloud::Opened(_) => Err(Broken::Protocol("a second Opened".into())),
            FromCloud::NotGranted(count) => {
                self.downlink.parts.state.not_granted(count);
                Ok(())
            }
            FromCloud::Messages(messages) => self.publish(&messages).await,
        }
    }

    async fn publish(&mut self, messages: &Messages) -> Result<(), Broken> {
        // The mark moves with what follows, so nothing may be waited for between the two: the link may end meanwhile, and what it
        // sends again would be taken for a repetition.
        let inside = self.downlink.parts.inside.clone();
        let place = inside.reserve().await.map_err(|_| Broken::Node)?;
        let clock = &self.downlink.parts.clock;
        let now = Now {
            tick: clock.tick(),
            wall: clock.wall(),
            clock: clock.quality(),
        };
        let taken = self.downlink.intake.handle_messages(messages, now);
        let taken = taken.map_err(|error| Broken::Protocol(error.to_string()))?;
        self.downlink.parts.state.took(taken.tally);
        let mark = taken.mark.map(|mark| {
            let edge = self.downlink.edge.clone();
            (
                Bytes::from_static(MARK_KEY),
                Bytes::from(StoredMark { edge, mark }.encode()),
            )
        });
        // Also a frame of nothing new goes this way, so that it is acknowledged behind those before it.
        self.downlink.outstanding = Some(place.inflow(taken.block, mark));
        self.acks = taken.acks;
        Ok(())
    }

    /// The frame at hand is durable. Of a frame of a former link nothing is left to say.
    async fn acknowledge(&mut self) -> Result<(), Broken> {
        let acks = std::mem::take(&mut self.acks);
        if acks.is_empty() {
            return Ok(());
        }
        self.write(&FromEdge::Ack(acks)).await
    }

    /// Says what is wanted now and was not before.
    async fn announce(&mut self) -> Result<(), Broken> {
        let interest = self.interest.borrow_and_update().clone().unwrap_or_default();
        let (now, left_out) = self.downlink.allowed.announce(&interest);
        self.downlink.parts.state.announced(now.len(), left_out);
        let Change { want, unwant } = change(&self.announced, &now);
        // In this order, so that there is room for what is new.
        for part in unwant.chunks(FILTERS_PER_FRAME) {
            self.write(&FromEdge::Unwant(part.to_vec())).await?;
        }
        for part in want.chunks(FILTERS_PER_FRAME) {
            self.write(&FromEdge::Want(part.to_vec())).await?;
        }
        self.announced = now;
        Ok(())
    }

    async fn write(&mut self, frame: &FromEdge) -> Result<(), Broken> {
        self.send
            .write_chunk(frame.encode())
            .await
            .map_err(|_| Broken::Connection)
    }
}

/// The broker's answer; for ever without a question.
async fn answered(outstanding: &mut Option<oneshot::Receiver<()>>) -> Result<(), oneshot::error::RecvError> {
    match outstanding {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}
