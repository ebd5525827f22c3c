//! Reads on for a moment after the last packet to a client, and throws away what comes.
//!
//! A socket that is closed with unread bytes is reset, and the reset overtakes the last packet: the client that was still sending
//! would never learn why. Bounded in time and bytes; the client that has read and closes ends it at once.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ntex::codec::Decoder;
use ntex::io::{IoBoxed, IoRef};
use ntex::util::{BytesMut, Either, select};

/// Nothing has come for this long: the client has said what it had to say.
const QUIET: Duration = Duration::from_millis(50);
/// Looks at whether it is quiet, at most.
const ROUNDS: u32 = 20;
/// Bytes thrown away, at most.
const BYTES_MAX: usize = 4 << 20;

/// For a socket without a dispatcher.
pub(super) async fn linger(io: &IoBoxed) {
    let mut thrown = 0;
    // Not counted by reads, of which a client that sends much needs many.
    let end = Instant::now() + QUIET * ROUNDS;
    while Instant::now() < end {
        match tokio::time::timeout(QUIET, io.recv(&Away)).await {
            Ok(Ok(Some(bytes))) if thrown + bytes <= BYTES_MAX => thrown += bytes,
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

/// For a socket whose dispatcher reads on and counts what it throws away. Closes it in the end.
pub(super) async fn linger_and_close(io: IoRef, thrown: Rc<Cell<usize>>) {
    for _ in 0..ROUNDS {
        let before = thrown.get();
        let quiet = std::pin::pin!(tokio::time::sleep(QUIET));
        if let Either::Left(()) = select(io.on_disconnect(), quiet).await {
            break;
        }
        if thrown.get() == before || thrown.get() > BYTES_MAX {
            break;
        }
    }
    io.close();
    io.notify_dispatcher();
}
