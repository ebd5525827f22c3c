//! The WebSocket layer of a connection: frames below, bytes of MQTT above.
//!
//! In: what the layer below has read, and what the connection has written. Out: payloads of binary frames, one frame per page
//! that is written, answers to pings, and a Close with the reason when either side ends it. A client that breaks the rules is
//! told the close code, counted, and nothing more of it is read.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::Poll;

use ntex::io::{FilterBuf, FilterLayer, IoBoxed};
use ntex::util::BytesMut;

use super::frames::{CLOSE_NORMAL, Piece, Reader, Violation, put_head};
use crate::front::counters;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

#[derive(Debug)]
struct Ws {
    reader: RefCell<Reader>,
    /// The code to close with, once something has ended it.
    ending: Cell<Option<u16>>,
    /// Close was written: no frame may follow it (RFC 6455 section 5.5.1).
    closed: Cell<bool>,
}

/// Puts the layer on a connection whose upgrade was answered.
pub(super) fn add(io: IoBoxed, frame_max: u64) -> IoBoxed {
    let layer = Ws {
        reader: RefCell::new(Reader::new(frame_max)),
        ending: Cell::new(None),
        closed: Cell::new(false),
    };
    ntex::io::Io::from(io).add_filter(layer).into()
}

impl Ws {
    /// Takes the pieces out of `from`; bytes of MQTT go to `to`. A code: it ends here.
    fn take(&self, buf: &FilterBuf<'_>, from: &mut BytesMut, to: &mut BytesMut) -> Result<(), u16> {
        let mut reader = self.reader.borrow_mut();
        loop {
            let Some((taken, piece)) = reader.next(from).map_err(refused)? else {
                return Ok(());
            };
            match piece {
                Piece::Data(bytes) => to.extend_from_slice(bytes),
                // Who reads nothing gets no pongs: they would pile up.
                Piece::Ping(bytes) if !buf.io().is_wr_backpressure() => put(buf, PONG, bytes),
                Piece::Ping(_) | Piece::Pong => {}
                Piece::Close(code) => return Err(code),
            }
            from.advance_to(taken);
        }
    }
}

fn refused(violation: Violation) -> u16 {
    counters::rejected(violation.name());
    violation.code()
}

fn put(buf: &FilterBuf<'_>, opcode: u8, payload: &[u8]) {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    put_head(&mut frame, opcode, payload.len());
    frame.extend_from_slice(payload);
    buf.with_write_buffers(|_, out| out.extend_from_slice(&frame));
}

impl FilterLayer for Ws {
    fn process_read_buf(&self, buf: &FilterBuf<'_>) -> io::Result<()> {
        buf.with_read_buffers(|from, to| {
            let Some(from) = from else { return };
            if self.ending.get().is_none()
                && let Err(code) = self.take(buf, from, to)
            {
                self.ending.set(Some(code));
                buf.io().close();
            }
            if self.ending.get().is_some() {
                from.clear();
            }
        });
        Ok(())
    }

    fn process_write_buf(&self, buf: &FilterBuf<'_>) -> io::Result<()> {
        buf.with_write_buffers(|from, to| {
            let mut head = Vec::with_capacity(10);
            while let Some(page) = from.take() {
                if self.closed.get() {
                    continue;
                }
                head.clear();
                put_head(&mut head, BINARY, page.len());
                to.extend_from_slice(&head);
                to.append(page);
            }
        });
        Ok(())
    }

    fn shutdown(&self, buf: &FilterBuf<'_>) -> io::Result<Poll<()>> {
        if !self.closed.replace(true) {
            let code = self.ending.get().unwrap_or(CLOSE_NORMAL);
            put(buf, CLOSE, &code.to_be_bytes());
        }
        Ok(Poll::Ready(()))
    }
}
