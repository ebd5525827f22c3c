//! The WebSocket layer of a connection: frames below, bytes of MQTT above.
//!
//! In: what the layer below has read, and what the connection has written. Out: payloads of binary frames, one frame per page
//! that is written, answers to pings, and a Close with the reason when either side ends it. A client that breaks the rules is
//! told the close code, counted, and nothing more of it is read.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::Poll;

use ntex::io::{FilterBuf, FilterLayer, Io, IoBoxed};
use ntex::rt::spawn;
use ntex::util::BytesMut;

use super::frames::{CLOSE_NORMAL, Piece, Reader, Violation, put_head};
use super::fruitless::Fruitless;
use crate::front::counters;
use crate::front::linger::{Told, WriteHalf, linger_and_close, throw_away};

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

#[derive(Debug)]
struct Ws {
    reader: RefCell<Reader>,
    /// Nothing is read any more: the client has closed, or broke the rules.
    ended: Cell<bool>,
    /// Close was written: no frame may follow it (RFC 6455 section 5.5.1).
    closed: Cell<bool>,
    /// Bytes that came after the end and were thrown away.
    thrown: Rc<Cell<usize>>,
    /// Frames without data.
    fruitless: Fruitless,
}

/// Why nothing more is read.
enum End {
    /// The client sent a Close with this code.
    Closed(u16),
    Refused(Violation),
}

/// Puts the layer on a connection whose upgrade was answered.
pub(super) fn add(io: IoBoxed, frame_max: u64) -> IoBoxed {
    let layer = Ws {
        reader: RefCell::new(Reader::new(frame_max)),
        ended: Cell::new(false),
        closed: Cell::new(false),
        thrown: Rc::default(),
        fruitless: Fruitless::new(),
    };
    Io::from(io).add_filter(layer).into()
}

impl Ws {
    /// Takes the pieces out of `from`; bytes of MQTT go to `to`.
    fn take(&self, buf: &FilterBuf<'_>, from: &mut BytesMut, to: &mut BytesMut) -> Result<(), End> {
        let mut reader = self.reader.borrow_mut();
        loop {
            let Some((taken, piece)) = reader.next(from).map_err(End::Refused)? else {
                return Ok(());
            };
            match piece {
                Piece::Data([]) => self.spend()?,
                Piece::Data(bytes) => to.extend_from_slice(bytes),
                // Who reads nothing gets no pongs: they would pile up.
                Piece::Ping(bytes) => {
                    self.spend()?;
                    if !buf.io().is_wr_backpressure() {
                        put(buf, PONG, bytes);
                    }
                }
                Piece::Pong => self.spend()?,
                Piece::Close(code) => return Err(End::Closed(code)),
            }
            from.advance_to(taken);
        }
    }

    fn spend(&self) -> Result<(), End> {
        if self.fruitless.spend() {
            Ok(())
        } else {
            Err(End::Refused(Violation::Flood))
        }
    }

    fn end(&self, buf: &FilterBuf<'_>, why: End) {
        self.ended.set(true);
        match why {
            End::Closed(code) => {
                self.close(buf, code);
                buf.io().close();
            }
            End::Refused(violation) => {
                counters::rejected(violation.name());
                self.close(buf, violation.code());
                // Who still sends can read why before the socket goes.
                spawn(linger_and_close(
                    buf.io().clone(),
                    WriteHalf::NONE,
                    self.thrown.clone(),
                    Told::Why,
                ));
            }
        }
    }

    /// Writes Close, once.
    fn close(&self, buf: &FilterBuf<'_>, code: u16) {
        if !self.closed.replace(true) {
            put(buf, CLOSE, &code.to_be_bytes());
        }
    }
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
            if !self.ended.get()
                && let Err(why) = self.take(buf, from, to)
            {
                self.end(buf, why);
            }
            if self.ended.get() {
                throw_away(&self.thrown, from, buf.io());
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
        self.close(buf, CLOSE_NORMAL);
        Ok(Poll::Ready(()))
    }
}
