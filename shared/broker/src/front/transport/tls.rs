//! The TLS layer of a connection: records below, plain bytes above.
//!
//! In: a `rustls` configuration of the node. Out: a connection whose handshake is done, or the reason why not. Unlike the layer of
//! ntex-tls it sends the alert when a handshake fails, so that the client can say why, and remembers the reason for the metric.
//! Renegotiation does not exist, 0-RTT is off; what a client can make `rustls` keep is bounded there.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use ntex::io::{Filter, FilterBuf, FilterLayer, Io, Layer};
use ntex::rt::spawn;
use ntex::util::BytesMut;
use rustls::{Error, ServerConfig, ServerConnection};

use super::fruitless::Fruitless;
use crate::front::arrival::Arrival;
use crate::front::linger::{WriteHalf, linger_and_close, throw_away};

#[derive(Debug)]
pub(super) struct Tls {
    session: RefCell<ServerConnection>,
    /// What ended it, unless the peer closed.
    failure: Cell<Option<&'static str>>,
    /// The handshake is done, and nobody waits for it any more.
    is_open: Cell<bool>,
    /// Bytes of the handshake that have come.
    taken: Cell<usize>,
    /// Bytes that came after the failure and were thrown away.
    thrown: Rc<Cell<usize>>,
    /// Reads that gave no data.
    fruitless: Fruitless,
}

/// Puts the layer on a socket and returns when the handshake is done.
///
/// What has come of the handshake is charged to `arrival`: `rustls` keeps a message, of 64 KiB at most, until it is whole.
pub(super) async fn accept<F: Filter>(
    io: Io<F>,
    config: Arc<ServerConfig>,
    arrival: &Arrival,
) -> Result<Io<Layer<Tls, F>>, &'static str> {
    let session = ServerConnection::new(config).map_err(|_| "tls_error")?;
    let io = io.add_filter(Tls {
        session: RefCell::new(session),
        failure: Cell::new(None),
        is_open: Cell::new(false),
        taken: Cell::new(0),
        thrown: Rc::default(),
        fruitless: Fruitless::new(),
    });
    loop {
        let flushed = io.flush(false).await;
        if let Some(reason) = io.filter().failure.get() {
            // The alert is on its way. Who still sends can read it before the socket goes.
            linger_and_close(io.get_ref(), WriteHalf::NONE, io.filter().thrown.clone(), true).await;
            drop(io.shutdown().await);
            return Err(reason);
        }
        flushed.map_err(|_| "tls_closed")?;
        if !io.filter().session.borrow().is_handshaking() {
            io.filter().is_open.set(true);
            arrival.holds(0);
            return Ok(io);
        }
        if !matches!(io.read_notify().await, Ok(Some(()))) {
            return Err(io.filter().failure.get().unwrap_or("tls_closed"));
        }
        arrival.holds(io.filter().taken.get());
    }
}

/// Label of the metric.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::InvalidMessage(_) => "tls_not_tls",
        Error::NoCertificatesPresented => "tls_no_client_certificate",
        Error::InvalidCertificate(_) => "tls_bad_client_certificate",
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "tls_incompatible",
        Error::AlertReceived(_) => "tls_alert_of_client",
        _ => "tls_error",
    }
}

impl Tls {
    /// Decrypts all that is in `from`. True: the peer has closed.
    fn decrypt(&self, from: &mut BytesMut, to: &mut BytesMut) -> Result<bool, Error> {
        let session = &mut *self.session.borrow_mut();
        let mut closed = false;
        while !from.is_empty() && !closed {
            // Reading from memory; it fails when there is no room for plain text, which is taken out below each time.
            session
                .read_tls(from)
                .map_err(|error| Error::General(error.to_string()))?;
            let state = session.process_new_packets()?;
            closed = state.peer_has_closed();
            let mut plain = session.reader();
            while let Ok(chunk) = plain.fill_buf()
                && !chunk.is_empty()
            {
                let length = chunk.len();
                to.extend_from_slice(chunk);
                plain.consume(length);
            }
        }
        Ok(closed)
    }

    /// Writes what the session has to say by itself: handshake, alerts, key updates.
    fn flush(&self, buf: &FilterBuf<'_>) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        if !session.is_handshaking() {
            // An answer to a key update is made at the next write, be it an empty one.
            session.writer().write_all(&[])?;
        }
        put_records(session, buf)
    }
}

fn put_records(session: &mut ServerConnection, buf: &FilterBuf<'_>) -> io::Result<()> {
    if !session.wants_write() {
        return Ok(());
    }
    let mut records = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut records)?;
    }
    buf.with_write_buffers(|_, to| to.append(records));
    Ok(())
}

impl FilterLayer for Tls {
    fn process_read_buf(&self, buf: &FilterBuf<'_>) -> io::Result<()> {
        buf.with_read_buffers(|from, to| {
            let Some(from) = from else { return };
            if self.failure.get().is_some() {
                return throw_away(&self.thrown, from, buf.io());
            }
            let had = to.len();
            if !self.is_open.get() {
                self.taken.set(self.taken.get() + from.len());
            }
            match self.decrypt(from, to) {
                Ok(false) if to.len() == had && self.is_open.get() && !self.fruitless.spend() => {
                    // Records that hold nothing: see `Fruitless`.
                    tracing::debug!("TLS: too many reads without data");
                    crate::front::counters::rejected("tls_flood");
                    buf.io().terminate();
                }
                Ok(false) => {}
                Ok(true) => buf.io().close(),
                Err(error) => {
                    tracing::debug!(%error, "TLS");
                    self.failure.set(Some(reason(&error)));
                    throw_away(&self.thrown, from, buf.io());
                    if self.is_open.get() {
                        // Who still sends can read the alert before the socket goes.
                        spawn(linger_and_close(
                            buf.io().clone(),
                            WriteHalf::NONE,
                            self.thrown.clone(),
                            true,
                        ));
                    }
                }
            }
        });
        self.flush(buf)
    }

    fn process_write_buf(&self, buf: &FilterBuf<'_>) -> io::Result<()> {
        let session = &mut *self.session.borrow_mut();
        loop {
            let is_all = buf.with_write_buffers(|from, _| -> io::Result<bool> {
                while let Some(mut page) = from.take() {
                    page.advance_to(session.writer().write(&page)?);
                    if from.prepend(page) {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            if !session.wants_write() {
                // Nothing moves while the handshake lasts.
                return Ok(());
            }
            put_records(session, buf)?;
            if is_all {
                return Ok(());
            }
        }
    }

    fn shutdown(&self, buf: &FilterBuf<'_>) -> io::Result<Poll<()>> {
        self.process_write_buf(buf)?;
        let session = &mut *self.session.borrow_mut();
        session.send_close_notify();
        put_records(session, buf)?;
        Ok(Poll::Ready(()))
    }
}
