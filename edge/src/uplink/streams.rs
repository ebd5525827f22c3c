//! The streams of one connection: a writer task per stream, a reader task for the control stream.
//!
//! In: whole frames for a stream. Out: a note when a stream has taken one, frames of the control stream.
//! Each writer holds at most [`FRAMES_MAX`] frames. A full one is reported as blocked, so that one slow stream stops no other.

use std::collections::HashMap;

use bytes::Bytes;
use fellbeck_link::limits::{CONTROL_FRAME_MAX, LANES_MAX};
use fellbeck_link::{FrameDecoder, FrameError, RawFrame, StreamId};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Frames that wait in one writer.
const FRAMES_MAX: usize = 4;
/// Bytes taken from the control stream at once.
const CHUNK: usize = 16 << 10;

/// A frame could not be handed over. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The connection has ended.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
    /// The stream was reset by the cloud, or its writer was handed more than it holds.
    #[error("a stream of the link takes no more frames")]
    Writer,
}

/// All streams of one connection.
pub(crate) struct Streams {
    connection: Connection,
    writers: HashMap<StreamId, mpsc::Sender<Bytes>>,
    tasks: JoinSet<()>,
    taken_sender: mpsc::Sender<StreamId>,
    /// A writer has taken a frame.
    pub(crate) taken: mpsc::Receiver<StreamId>,
    /// Frames of the control stream. Ends with the stream; an error is the last item.
    pub(crate) control: mpsc::Receiver<Result<RawFrame, FrameError>>,
}

impl Streams {
    /// Opens the control stream.
    pub(crate) async fn open(connection: Connection) -> Result<Self, quinn::ConnectionError> {
        let (send, receive) = connection.open_bi().await?;
        let (taken_sender, taken) = mpsc::channel(FRAMES_MAX * (LANES_MAX + 1));
        let (frames, control) = mpsc::channel(FRAMES_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(read(receive, frames));
        let writers = HashMap::new();
        let mut streams = Self {
            connection,
            writers,
            tasks,
            taken_sender,
            taken,
            control,
        };
        streams.add(StreamId::Control, send);
        Ok(streams)
    }

    fn add(&mut self, id: StreamId, send: SendStream) {
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        self.tasks.spawn(write(send, queue, id, self.taken_sender.clone()));
        self.writers.insert(id, frames);
    }

    /// Hands a frame to its writer, opening the stream at its first frame. The writer must have room.
    pub(crate) async fn send(&mut self, id: StreamId, frame: Bytes) -> Result<(), SendError> {
        if !self.writers.contains_key(&id) {
            let send = self.connection.open_uni().await?;
            self.add(id, send);
        }
        // A frame that finds no room must not vanish: that would be a hole in the lane.
        self.writers[&id].try_send(frame).map_err(|_| SendError::Writer)
    }

    /// Whether the stream's writer takes another frame now. A stream that is not open yet does.
    pub(crate) fn has_room(&self, id: StreamId) -> bool {
        self.writers.get(&id).is_none_or(|writer| writer.capacity() > 0)
    }

    /// Lets the writers finish what they hold.
    pub(crate) async fn finish(mut self) {
        self.writers.clear();
        self.control.close();
        while let Some(_ended) = self.tasks.join_next().await {}
    }
}

async fn write(mut stream: SendStream, mut queue: mpsc::Receiver<Bytes>, id: StreamId, taken: mpsc::Sender<StreamId>) {
    while let Some(frame) = queue.recv().await {
        if stream.write_chunk(frame).await.is_err() || taken.send(id).await.is_err() {
            return;
        }
    }
    // Whatever was written still has to arrive: wait for it, or for the end of the connection.
    if stream.finish().is_ok() {
        stream.stopped().await.ok();
    }
}

async fn read(mut stream: RecvStream, frames: mpsc::Sender<Result<RawFrame, FrameError>>) {
    let mut decoder = FrameDecoder::new(CONTROL_FRAME_MAX);
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK, true).await {
        decoder.push(&chunk.bytes);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if frames.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    frames.send(Err(error)).await.ok();
                    return;
                }
            }
        }
    }
}
