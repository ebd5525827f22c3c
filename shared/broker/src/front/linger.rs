//! Reads on for a while after the last packet to a client, and throws away what comes.
//!
//! A socket that is closed with unread bytes is reset, and the reset overtakes the last packet: the client that was still sending
//! would never learn why. So the write half is closed first, which the client sees at once, and the rest when the client has
//! closed too. Bounded in time and bytes. Where a layer lies above TCP the write half cannot be closed alone: there the socket is
//! closed when nothing has come for a moment.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use ntex::codec::Decoder;
use ntex::io::{IoBoxed, IoRef};
use ntex::util::{BytesMut, Either, select};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Time that a client gets to close, at most.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nothing has come for this long: what is closed as a whole is closed now.
const QUIET: Duration = Duration::from_millis(200);
/// Wait between two looks at whether the last packet has left.
const MOMENT: Duration = Duration::from_millis(2);
/// Bytes thrown away, at most.
const BYTES_MAX: usize = 4 << 20;

/// The write half of a socket, where it can be closed alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriteHalf(Option<RawFd>);

impl WriteHalf {
    /// Of a socket that carries MQTT with nothing between.
    pub(super) fn of(stream: &TcpStream) -> Self {
        Self(Some(stream.as_raw_fd()))
    }

    /// Of a socket with a layer above it.
    pub(super) const NONE: Self = Self(None);

    /// Sends FIN. False where that cannot be, or the socket is gone.
    fn close(self, io: &IoRef) -> bool {
        let Some(fd) = self.0.filter(|_| !io.is_closed()) else {
            return false;
        };
        // SAFETY: ntex keeps the socket open until the connection is closed, which it is not, and closes it on this thread only.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::net::shutdown(socket, rustix::net::Shutdown::Write).is_ok()
    }
}

/// For a socket without a dispatcher.
pub(super) async fn linger(io: &IoBoxed, half: WriteHalf) {
    let deadline = Instant::now() + PATIENCE;
    if !matches!(timeout_at(deadline, io.flush(true)).await, Ok(Ok(()))) {
        return;
    }
    let is_half = half.close(&io.get_ref());
    let mut thrown = 0;
    while thrown <= BYTES_MAX {
        let until = if is_half {
            deadline
        } else {
            deadline.min(Instant::now() + QUIET)
        };
        match timeout_at(until, io.recv(&Away)).await {
            Ok(Ok(Some(bytes))) => thrown += bytes,
            _ => return,
        }
    }
}

/// Takes all there is.
#[derive(Debug)]
struct Away;

impl Decoder for Away {
    type Item = usize;
    type Error = Infallible;

    fn decode(&self, buffer: &mut BytesMut) -> Result<Option<usize>, Infallible> {
        let bytes = buffer.len();
        buffer.clear();
        Ok((bytes > 0).then_some(bytes))
    }
}

/// What comes after the end. The layers of ntex read on as long as bytes come and none of them is kept, without a pause for anybody
/// else, so the bound is enforced here.
pub(super) fn throw_away(thrown: &Cell<usize>, from: &mut BytesMut, io: &IoRef) {
    thrown.set(thrown.get() + from.len());
    from.clear();
    if thrown.get() > BYTES_MAX {
        io.terminate();
    }
}

/// For a socket whose dispatcher reads on and counts what it throws away. Closes it in the end. Not `patient`: as soon as nothing
/// comes any more, whatever the client does.
pub(super) async fn linger_and_close(io: IoRef, half: WriteHalf, thrown: Rc<Cell<usize>>, patient: bool) {
    // An error of the timer is the bound, which is the end as well.
    drop(timeout(PATIENCE, read_on(&io, half, &thrown, patient)).await);
    io.close();
    io.notify_dispatcher();
}

async fn read_on(io: &IoRef, half: WriteHalf, thrown: &Cell<usize>, patient: bool) {
    while io.with_write_buf(|buffer| buffer.len()).is_ok_and(|left| left > 0) {
        sleep(MOMENT).await;
    }
    let waits_for_client = half.close(io) && patient;
    loop {
        let before = thrown.get();
        if let Either::Left(()) = select(io.on_disconnect(), std::pin::pin!(sleep(QUIET))).await {
            return;
        }
        let is_quiet = thrown.get() == before;
        if thrown.get() > BYTES_MAX || (is_quiet && !waits_for_client) {
            return;
        }
    }
}
