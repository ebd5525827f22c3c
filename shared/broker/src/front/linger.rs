//! Reads on for a while after the last packet to a client, and throws away what comes.
//!
//! A socket that is closed with unread bytes is reset, and the reset overtakes the last packet: the client that was still sending
//! would never learn why. So the write half is closed first, which the client sees at once, and the rest when the client has
//! closed too. Bounded in time and bytes. Where a layer lies above TCP the write half cannot be closed alone: there a client that was
//! told of the end is waited for as well, since it closes then; one that was not told (3.1.1 has no packet for it) sees nothing but
//! the close, which comes when nothing was sent for a moment.

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
/// Nothing has come for this long: who waits for the close gets it now.
const QUIET: Duration = Duration::from_millis(200);
/// Wait between two looks at whether the last packet has left.
const MOMENT: Duration = Duration::from_millis(2);
/// Bytes thrown away, at most.
const BYTES_MAX: usize = 4 << 20;

/// What the client of a socket that ends was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// That it ends: a packet, a Close or an alert says so. It closes, or the deadline does.
    Why,
    /// Nothing. Where it does not see the closed write half either, nobody waits for it.
    Nothing,
    /// That the node ends, which waits for no client.
    Hurry,
}

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

/// For a socket without a dispatcher, whose client was told.
pub(super) async fn linger(io: &IoBoxed, half: WriteHalf) {
    let deadline = Instant::now() + PATIENCE;
    if !matches!(timeout_at(deadline, io.flush(true)).await, Ok(Ok(()))) {
        return;
    }
    half.close(&io.get_ref());
    let mut thrown = 0;
    while thrown <= BYTES_MAX {
        match timeout_at(deadline, io.recv(&Away)).await {
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

/// For a socket whose dispatcher reads on and counts what it throws away. Closes it in the end.
pub(super) async fn linger_and_close(io: IoRef, half: WriteHalf, thrown: Rc<Cell<usize>>, told: Told) {
    // An error of the timer is the bound, which is the end as well.
    drop(timeout(PATIENCE, read_on(&io, half, &thrown, told)).await);
    io.close();
    io.notify_dispatcher();
}

async fn read_on(io: &IoRef, half: WriteHalf, thrown: &Cell<usize>, told: Told) {
    while io.with_write_buf(|buffer| buffer.len()).is_ok_and(|left| left > 0) {
        sleep(MOMENT).await;
    }
    let sees_end = half.close(io);
    let waits_for_client = match told {
        Told::Why => true,
        Told::Nothing => sees_end,
        Told::Hurry => false,
    };
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
