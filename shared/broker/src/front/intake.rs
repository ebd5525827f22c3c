//! Takes packets out of the read buffer of a connection, before the dispatcher of ntex-mqtt decodes what it finds there.
//!
//! In: the read buffer, each time the dispatcher asks whether it may decode. Out: every PUBLISH at the front, decoded here and
//! given to the broker; then at most one whole, checked control packet at the front of the buffer, which the dispatcher takes; or
//! nothing in the buffer, since what is not whole is kept by [`Frames`](super::frames::Frames). So packets are handled in order,
//! a fault is met when its turn comes, and the codec never sees a PUBLISH or a partial packet (ADR 0006).
//! Fair: one call takes no more than the read buffer holds, which ntex bounds; then the dispatcher waits for the socket.

use std::task::Poll;

use ntex::util::BytesMut;

use super::attached::Attached;
use super::connection::Phase;
use super::frames::{Completed, Fault, Head};
use super::{publish, shape};
use crate::wire::PublishIn;

/// What the read buffer begins with after the intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// A whole control packet.
    Control,
    /// Nothing: more bytes are wanted.
    Nothing,
    /// Something that may not be looked at now.
    Waiting,
}

/// Packet type.
const PUBLISH: u8 = 3;

/// Flag of the fixed header.
const DUP: u8 = 0x08;

const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
const TOPIC_NAME_INVALID: u8 = 0x90;

impl Attached {
    /// Asked before each decode. Pending stops reading; the broker wakes the dispatcher when that changes.
    pub(super) fn poll_readable(&self) -> Poll<()> {
        let connection = self.connection();
        if connection.phase.get() == Phase::Closed {
            self.throw_away();
            return Poll::Ready(());
        }
        loop {
            // What was read before the client closed takes effect still.
            let may_read = self.broker().may_read(connection)
                || (connection.io.is_closed() && self.broker().take_last_words(connection));
            if !may_read {
                return Poll::Pending;
            }
            let front = match connection.io.with_read_buf(|slot| self.look(slot)) {
                Some(front) => front,
                None => self.take_buffer(),
            };
            match front {
                Ok(Front::Waiting) if connection.io.is_closed() => {}
                Ok(Front::Waiting) => return Poll::Pending,
                Ok(Front::Control | Front::Nothing) => return Poll::Ready(()),
                Err(fault) => {
                    self.fail(fault);
                    self.throw_away();
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Whatever is still in the buffer must not reach the decoder.
    fn throw_away(&self) {
        let connection = self.connection();
        connection.io.with_read_buf(|buffer| {
            connection.thrown.set(connection.thrown.get() + buffer.len());
            buffer.clear();
        });
    }

    /// What needs no call of the core: an empty buffer, or a control packet at its front.
    fn look(&self, slot: &mut BytesMut) -> Option<Result<Front, Fault>> {
        let Some(first) = slot.first_mut() else {
            return Some(Ok(Front::Nothing));
        };
        let frames = self.connection().frames.borrow();
        if frames.is_partial() {
            // The first byte is from within a packet.
            return None;
        }
        let first = self.without_dup(first);
        if first >> 4 == PUBLISH {
            return None;
        }
        match frames.head(slot) {
            Ok(Head::Known { header, whole }) if whole <= slot.len() => {
                self.count_control(whole);
                let checked = shape::check(self.connection().client.version, first, &slot[header..whole]);
                Some(checked.map(|()| Front::Control))
            }
            Ok(_) => None,
            Err(fault) => Some(Err(fault)),
        }
    }

    /// The buffer is out of its slot while the core is called: a call may close the socket, which looks into the slot.
    fn take_buffer(&self) -> Result<Front, Fault> {
        let connection = self.connection();
        let mut buffer = self.broker().spare.take().unwrap_or_default();
        connection.io.with_read_buf(|slot| std::mem::swap(slot, &mut buffer));
        let front = self.take_publishes(&mut buffer);
        if matches!(front, Ok(Front::Nothing) | Err(_)) {
            buffer.clear();
        }
        connection.io.with_read_buf(|slot| std::mem::swap(slot, &mut buffer));
        self.broker().spare.set(Some(buffer));
        front
    }

    fn take_publishes(&self, buffer: &mut BytesMut) -> Result<Front, Fault> {
        let connection = self.connection();
        let was_partial = connection.frames.borrow().is_partial();
        if was_partial && !self.complete(buffer)? {
            self.broker().watch_packet(connection, true);
            return Ok(Front::Nothing);
        }
        let mut at = 0;
        let front = loop {
            let bytes = &buffer[at..];
            if connection.phase.get() == Phase::Closed || bytes.is_empty() {
                break Front::Nothing;
            }
            if !self.broker().may_read(connection) {
                break Front::Waiting;
            }
            let head = connection.frames.borrow().head(bytes)?;
            let (header, whole) = match head {
                Head::Known { header, whole } if whole <= bytes.len() => (header, whole),
                Head::Known { .. } | Head::Short => {
                    connection.frames.borrow_mut().keep(bytes);
                    self.broker().watch_packet(connection, false);
                    break Front::Nothing;
                }
            };
            if bytes[0] >> 4 != PUBLISH {
                self.count_control(whole);
                let first = self.without_dup(&mut buffer[at]);
                shape::check(connection.client.version, first, &buffer[at + header..at + whole])?;
                break Front::Control;
            }
            self.broker().traffic.receive(whole);
            self.take_publish(bytes[0], &bytes[header..whole])?;
            at += whole;
        };
        buffer.advance_to(at);
        Ok(front)
    }

    /// Goes on with the packet that has begun. True when it is whole: it has been handled, or stands at the front of `buffer`.
    fn complete(&self, buffer: &mut BytesMut) -> Result<bool, Fault> {
        let connection = self.connection();
        let Completed { used, packet } = connection.frames.borrow_mut().complete(buffer)?;
        buffer.advance_to(used);
        let Some(packet) = packet else {
            return Ok(false);
        };
        if packet[0] >> 4 == PUBLISH {
            let Head::Known { header, .. } = connection.frames.borrow().head(&packet)? else {
                return Ok(false);
            };
            self.broker().traffic.receive(packet.len());
            self.take_publish(packet[0], &packet[header..])?;
        } else {
            let mut joined = BytesMut::with_capacity(packet.len() + buffer.len());
            joined.extend_from_slice(&packet);
            joined.extend_from_slice(buffer);
            *buffer = joined;
        }
        connection.frames.borrow_mut().recycle(packet);
        Ok(true)
    }

    /// The first byte of a packet, which may have to be mended: MQTT 3.1 allows DUP in a PUBREL, SUBSCRIBE and UNSUBSCRIBE that is
    /// sent again, and means nothing by it.
    fn without_dup(&self, first: &mut u8) -> u8 {
        if self.connection().client.may_repeat && matches!(*first, 0x6A | 0x8A | 0xAA) {
            *first &= !DUP;
        }
        *first
    }

    /// A whole control packet is at the front. It may be met again before the dispatcher takes it, and counts once.
    fn count_control(&self, bytes: usize) {
        if !self.connection().control_counted.replace(true) {
            self.broker().traffic.receive(bytes);
        }
    }

    fn take_publish(&self, first: u8, body: &[u8]) -> Result<(), Fault> {
        let connection = self.connection();
        connection.last_packet.set(self.broker().now().tick);
        let mut scratch = self.broker().scratch.take();
        scratch.clear();
        let taken = self.decode_publish(first, body, &mut scratch);
        self.broker().scratch.replace(scratch);
        taken
    }

    fn decode_publish(&self, first: u8, body: &[u8], scratch: &mut Vec<u8>) -> Result<(), Fault> {
        let connection = self.connection();
        let decoded = publish::decode(connection.client.version, first, body, scratch)?;
        let named = match decoded.alias {
            Some(alias) => {
                let max = self.broker().config.topic_alias_maximum;
                connection.resolve_alias(decoded.publish.topic, alias, max)?
            }
            None => None,
        };
        let publish = PublishIn {
            topic: named.as_deref().unwrap_or(decoded.publish.topic),
            ..decoded.publish
        };
        if self.broker().has_too_many_levels(publish.topic) {
            self.broker().refuse_publish(connection, publish, TOPIC_NAME_INVALID);
        } else if decoded.is_text && std::str::from_utf8(publish.payload).is_err() {
            // The standard leaves it to us (3.3.2.3.2). A publisher that says what is not so is told, instead of every reader.
            self.broker()
                .refuse_publish(connection, publish, PAYLOAD_FORMAT_INVALID);
        } else {
            self.broker().publish(connection, publish);
        }
        Ok(())
    }
}
