//! A connection: independent streams of bytes, each in order, that can be cut at any byte.

use std::collections::VecDeque;

use crate::StreamId;

/// Stream from the edge to the cloud that carries control frames; lane streams follow it.
pub(super) const UP: usize = 0;
/// Stream from the cloud to the edge.
pub(super) const DOWN: usize = 1;
/// Bytes in a lane stream above which it takes no more: the flow control of the transport.
const STREAM_BYTES_MAX: usize = 3000;

pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) is_cut: bool,
    streams: Vec<VecDeque<u8>>,
}

impl Connection {
    pub(super) fn new(id: u64, lanes: usize) -> Self {
        Self {
            id,
            is_cut: false,
            streams: vec![VecDeque::new(); 2 + lanes],
        }
    }

    pub(super) fn cut(&mut self) {
        self.is_cut = true;
        self.streams.iter_mut().for_each(VecDeque::clear);
    }

    pub(super) fn write(&mut self, stream: usize, bytes: &[u8]) {
        if !self.is_cut {
            self.streams[stream].extend(bytes);
        }
    }

    pub(super) fn is_full(&self, stream: StreamId) -> bool {
        self.streams[number(stream)].len() > STREAM_BYTES_MAX
    }

    pub(super) fn busy_streams(&self) -> Vec<usize> {
        (0..self.streams.len())
            .filter(|stream| !self.streams[*stream].is_empty())
            .collect()
    }

    pub(super) fn take(&mut self, stream: usize, bytes_max: usize) -> Vec<u8> {
        let count = self.streams[stream].len().min(bytes_max);
        self.streams[stream].drain(..count).collect()
    }
}

pub(super) fn number(stream: StreamId) -> usize {
    match stream {
        StreamId::Control => UP,
        StreamId::Lane(lane) => 2 + lane.as_usize(),
    }
}
