//! A connection together with the broker, as the services of ntex-mqtt hold it; dropped when the last of them ends.
//!
//! In: control packets, faults. Out: calls on the broker. The drop is the one place where the end of a socket is noticed, whatever
//! ended it: the peer, an error, or a panic in a decoder. What is read from the socket is in [`intake`](super::intake).

use std::rc::Rc;

use super::broker::Broker;
use super::connection::{Connection, Phase};
use super::frames::Fault;
use crate::session::is_status_filter;
use crate::wire::{Subscribe, Unsubscribe};

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

    /// A control packet was decoded. False when the connection is closed and the packet must be ignored.
    pub(super) fn take_packet(&self) -> bool {
        let connection = &*self.connection;
        connection.control_counted.set(false);
        connection.last_packet.set(self.broker.now().tick);
        connection.phase.get() == Phase::Open
    }
}

/// Packets of the client, handed to the core.
impl Attached {
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

    /// A DISCONNECT packet: the client wants the socket closed (section 3.14.4).
    pub(super) fn disconnect(&self, reason: u8, expiry: Option<u32>) {
        if self.connection.ends_with_connection && expiry.is_some_and(|secs| secs > 0) {
            // Section 3.14.2.2.2.
            return self.fail(Fault::protocol("session expiry was 0 and may not be set at DISCONNECT"));
        }
        let expiry = expiry.map(|secs| secs.min(self.broker.session_expiry_max_secs));
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
