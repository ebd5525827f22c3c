//! A client that has closed before its CONNACK came: what it sent until then takes effect all the same.
//!
//! In: a connection that the session core has accepted, and its read buffer. Out: its PUBLISHes, as of any connection, and its
//! DISCONNECT, so that a client that says all at once and leaves loses neither messages nor its right to go without a will. What asks
//! for an answer is passed over: nobody is there to read it. Bounded by the read buffer, and in time.

use std::rc::Rc;
use std::time::Duration;

use ntex::util::{Bytes, BytesMut};
use tokio::time::{sleep, timeout};

use super::attached::Attached;
use super::connection::Phase;
use super::frames::Head;
use super::property_block::{self, Place};

/// Wait between two looks at whether the core takes more.
const MOMENT: Duration = Duration::from_millis(2);
const DISCONNECT: u8 = 14;
const SESSION_EXPIRY: u8 = 0x11;

/// Hears the client to the end.
pub(super) async fn hear(attached: &Rc<Attached>, within: Duration) {
    attached.connection().open();
    // An error of the timer is the bound, which is the end as well.
    drop(timeout(within, hear_all(attached)).await);
}

async fn hear_all(attached: &Rc<Attached>) {
    let connection = attached.connection();
    while connection.phase.get() == Phase::Open {
        if attached.poll_readable().is_pending() {
            sleep(MOMENT).await;
            continue;
        }
        match connection.io.with_read_buf(|buffer| take_packet(attached, buffer)) {
            Some((header, packet)) => attached.hear(packet[0], &packet[header..]),
            None => return,
        }
    }
}

/// The control packet at the front, which the intake has checked, and the length of its fixed header.
fn take_packet(attached: &Attached, buffer: &mut BytesMut) -> Option<(usize, Bytes)> {
    match attached.connection().frames.borrow().head(buffer) {
        Ok(Head::Known { header, whole }) if whole <= buffer.len() => Some((header, buffer.split_to(whole))),
        _ => None,
    }
}

impl Attached {
    fn hear(self: &Rc<Self>, first: u8, body: &[u8]) {
        if !self.take_packet() || first >> 4 != DISCONNECT {
            return;
        }
        let (&reason, block) = body.split_first().unwrap_or((&0, &[]));
        let mut expiry = None;
        let walked = property_block::walk(Place::Disconnect, block, |span| {
            if span.id == SESSION_EXPIRY {
                expiry = Some(span.number());
            }
        });
        match walked {
            Err(fault) if !block.is_empty() => self.fail(fault),
            _ => self.disconnect(reason, expiry),
        }
    }
}
