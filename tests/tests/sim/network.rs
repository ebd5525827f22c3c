//! The connection between edge and cloud: independent streams of bytes, each in order, none ahead of itself.
//!
//! A cut loses what is under way in every stream, so that a stream loses a suffix at any byte. Streams do not wait for one another.

use std::collections::VecDeque;

use fellbeck_link::StreamId;

/// Control stream from the edge to the cloud; lane streams follow.
pub(crate) const UP: usize = 0;
/// Control stream from the cloud to the edge.
pub(crate) const DOWN: usize = 1;
/// Bytes in a lane stream above which it takes no more: the flow control of the transport.
const STREAM_BYTES_MAX: usize = 2000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) is_cut: bool,
    streams: Vec<VecDeque<u8>>,
}

impl Connection {
    pub(crate) fn new(id: u64, lanes: usize) -> Self {
        Self {
            id,
            is_cut: false,
            streams: vec![VecDeque::new(); 2 + lanes],
        }
    }

    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
        self.streams.iter_mut().for_each(VecDeque::clear);
    }

    pub(crate) fn write(&mut self, stream: usize, bytes: &[u8]) {
        if !self.is_cut {
            self.streams[stream].extend(bytes);
        }
    }

    pub(crate) fn is_full(&self, stream: StreamId) -> bool {
        self.streams[number(stream)].len() > STREAM_BYTES_MAX
    }

    /// The `turn`th stream that holds something.
    pub(crate) fn busy(&self, turn: u64) -> Option<usize> {
        let busy = self.streams.iter().filter(|stream| !stream.is_empty()).count() as u64;
        let nth = turn.checked_rem(busy)? as usize;
        let mut streams = (0..self.streams.len()).filter(|at| !self.streams[*at].is_empty());
        streams.nth(nth)
    }

    pub(crate) fn take(&mut self, stream: usize, bytes_max: usize) -> Vec<u8> {
        let count = self.streams[stream].len().min(bytes_max);
        self.streams[stream].drain(..count).collect()
    }
}

pub(crate) fn number(stream: StreamId) -> usize {
    match stream {
        StreamId::Control => UP,
        StreamId::Lane(lane) => 2 + lane.as_usize(),
    }
}
