//! A connection together with the broker, as the services of ntex-mqtt hold it; dropped when the last of them ends.
//!
//! In: what the dispatcher asks (may it read on?). Out: faults and the end of the socket, to the broker. The drop is the one
//! place where the end of a socket is noticed, whatever ended it: the peer, an error, or a panic in a decoder.

use std::rc::Rc;
use std::task::Poll;

use super::broker::Broker;
use super::connection::{Connection, Held, Phase};
use super::frames::Fault;
use crate::session::is_status_filter;
use crate::wire::{PublishIn, Subscribe, Unsubscribe};

pub(super) struct Attached {
    broker: Rc<Broker>,
    connection: Rc<Connection>,
}

impl Attached {
    pub(super) fn new(broker: Rc<Broker>, connection: Rc<Connection>) -> Self {
        Self { broker, connection }
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    pub(super) fn broker(&self) -> &Rc<Broker> {
        &self.broker
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.broker.fail(&self.connection, fault);
    }

    /// Asked before each decode. Pending stops reading; the broker wakes the dispatcher when that changes.
    pub(super) fn poll_readable(&self) -> Poll<()> {
        let connection = &*self.connection;
        if connection.phase.get() == Phase::Closed {
            // Whatever is still in the buffer was not checked and must not reach the decoder.
            connection.io.with_read_buf(ntex::util::BytesMut::clear);
            return Poll::Ready(());
        }
        if !self.broker.may_read(connection) {
            return Poll::Pending;
        }
        if connection.whole_packets.get() > 0 {
            return Poll::Ready(());
        }
        if let Some(fault) = connection.fault.take() {
            self.fail(fault);
            return Poll::Ready(());
        }
        let began = connection.frames.borrow().is_partial();
        let admitted = connection
            .io
            .with_read_buf(|buffer| (connection.frames.borrow_mut().admit(buffer), buffer.len()));
        let (admitted, bytes) = admitted;
        let (Ok(count) | Err((count, _))) = admitted;
        // The buffer holds nothing else than these packets.
        self.broker.traffic.receive(count, bytes);
        match admitted {
            Ok(count) => {
                connection.whole_packets.set(count);
                self.broker.watch_packet(connection, began && count == 0);
            }
            Err((0, fault)) => self.fail(fault),
            Err((count, fault)) => {
                connection.whole_packets.set(count);
                connection.fault.set(Some(fault));
            }
        }
        Poll::Ready(())
    }

    /// A packet was decoded. False when the connection is closed and the packet must be ignored.
    pub(super) fn take_packet(&self) -> bool {
        let connection = &*self.connection;
        let left = connection.whole_packets.get();
        connection.whole_packets.set(left.saturating_sub(1));
        connection.last_packet.set(self.broker.now().tick);
        connection.phase.get() == Phase::Open
    }
}

/// Packets of the client, handed to the core.
impl Attached {
    pub(super) fn publish(&self, publish: PublishIn<'_>, keep: impl FnOnce() -> Held) {
        self.broker.publish(&self.connection, publish, keep);
    }

    pub(super) fn puback(&self, packet_id: u16, reason: u8) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_puback(id, packet_id, reason, now, &mut state.wire));
    }

    pub(super) fn pubrec(&self, packet_id: u16, reason: u8) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_pubrec(id, packet_id, reason, now, &mut state.wire));
    }

    pub(super) fn pubrel(&self, packet_id: u16, reason: u8) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_pubrel(id, packet_id, reason, now, &mut state.wire));
    }

    pub(super) fn pubcomp(&self, packet_id: u16, reason: u8) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_pubcomp(id, packet_id, reason, now, &mut state.wire));
    }

    pub(super) fn subscribe(&self, subscribe: Subscribe) {
        if subscribe.filters.iter().any(|wanted| is_status_filter(&wanted.filter)) {
            self.broker.refresh_status();
        }
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_subscribe(id, subscribe, now, &mut state.wire));
    }

    pub(super) fn unsubscribe(&self, unsubscribe: Unsubscribe) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_unsubscribe(id, unsubscribe, now, &mut state.wire));
    }

    /// A DISCONNECT packet: the client wants the socket closed ([MQTT5-3.14.4-3]).
    pub(super) fn disconnect(&self, reason: u8, expiry: Option<u32>) {
        let id = self.connection.id;
        self.broker
            .with(|state, now| state.core.handle_disconnect(id, reason, expiry, now, &mut state.wire));
        self.connection.end(Fault::SILENT);
        self.broker.socket_gone(id);
    }

    /// The write buffer is full: the core sends no more deliveries.
    pub(super) fn backlogged(&self) {
        self.broker.backlogged(&self.connection);
    }

    /// The write buffer has drained, or CONNACK has left: deliveries may go on.
    pub(super) fn writable(&self) {
        self.broker.writable(&self.connection);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.connection.forget();
        self.broker.socket_gone(self.connection.id);
    }
}
