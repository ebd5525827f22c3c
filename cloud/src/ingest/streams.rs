//! The streams of one link as the cloud sees them: readers that cut frames, and a writer for the control stream.
//!
//! In: QUIC streams. Out: frames on one bounded channel, in order per stream. A reader waits while the driver is busy, so that a fast
//! edge is held back by QUIC's flow control and costs bounded memory.

use fellbeck_link::limits::CONTROL_FRAME_MAX;
use fellbeck_link::receiver::LaneStream;
use fellbeck_link::{FrameDecoder, FrameError, RawFrame};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Frames that wait for the driver, over all streams of a link.
pub(super) const FRAMES_MAX: usize = 16;
/// Bytes of all streams that an admitted edge may send ahead of what was read.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes taken from a stream at once.
const CHUNK: usize = 64 << 10;

/// Where a frame came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The control stream.
    Control,
    /// A lane's stream.
    Lane(LaneStream),
}

/// A frame, or why there will be none any more from that stream.
pub(crate) type Incoming = (Source, Result<RawFrame, FrameError>);

/// The streams of one link.
pub(crate) struct Streams {
    /// To the edge. The driver writes it directly: control frames are small and rare.
    pub(crate) control: SendStream,
    /// From the edge.
    pub(crate) frames: mpsc::Receiver<Incoming>,
    /// For the lane readers, until they are started.
    sender: Option<mpsc::Sender<Incoming>>,
    tasks: JoinSet<()>,
}

impl Streams {
    /// Waits for the edge's control stream and starts to read it.
    pub(crate) async fn accept(connection: &Connection) -> Result<Self, quinn::ConnectionError> {
        let (control, receive) = connection.accept_bi().await?;
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(read(receive, Source::Control, CONTROL_FRAME_MAX, sender.clone()));
        Ok(Self {
            control,
            frames,
            sender: Some(sender),
            tasks,
        })
    }

    /// Lets an admitted edge open a stream for each of its `lanes`, and starts to read them.
    pub(crate) fn open_lanes(&mut self, connection: &Connection, lanes: usize, frame_max: usize) {
        if let Some(sender) = self.sender.take() {
            connection.set_max_concurrent_uni_streams(u32::try_from(lanes).unwrap_or(u32::MAX).into());
            connection.set_receive_window(CONNECTION_WINDOW.into());
            self.tasks.spawn(read_lanes(connection.clone(), frame_max, sender));
        }
    }

    /// Stops the readers.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Reads every lane stream that the edge opens. QUIC bounds their number.
async fn read_lanes(connection: Connection, frame_max: usize, frames: mpsc::Sender<Incoming>) {
    let mut readers = JoinSet::new();
    while let Ok(stream) = connection.accept_uni().await {
        let source = Source::Lane(LaneStream(u64::from(stream.id())));
        readers.spawn(read(stream, source, frame_max, frames.clone()));
        while readers.try_join_next().is_some() {}
    }
    readers.shutdown().await;
}

async fn read(mut stream: RecvStream, source: Source, frame_max: usize, frames: mpsc::Sender<Incoming>) {
    let mut decoder = FrameDecoder::new(frame_max);
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK, true).await {
        decoder.push(&chunk.bytes);
        loop {
            let frame = match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => Ok(frame),
                Err(error) => Err(error),
            };
            let last = frame.is_err();
            if frames.send((source, frame)).await.is_err() || last {
                return;
            }
        }
    }
}
