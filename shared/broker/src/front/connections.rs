//! The table of open connections, and the port through which the session core speaks to them.
//!
//! In: packets and closes from the core. Out: bytes in write buffers. Owned by the broker loop, which calls the core with it.
//! Bounded by `connections_max`; a write buffer is bounded since the core sends no PUBLISH to a backlogged connection, and
//! ntex reads nothing from one.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ntex::util::HashMap;
use tokio::sync::oneshot;

use super::connection::{ConnAck, Connection};
use super::counters::{self, Counters};
use super::encode;
use super::frames::Fault;
use super::inside::Outlets;
use super::traffic::Traffic;
use crate::wire::{Close, ConnId, Delivery, PacketOut, Wire};

const TOO_LARGE: Fault = Fault {
    reason: 0x95,
    text: "answer exceeds the maximum packet size of the client",
};

pub(super) struct Connections {
    open: HashMap<ConnId, Rc<Connection>>,
    /// Edges, which have no socket.
    pub(super) outlets: Outlets,
    /// Who waits for the inflows that were taken, by number, in order.
    pub(super) inflows: VecDeque<(u64, oneshot::Sender<()>)>,
    pub(super) counters: Counters,
    traffic: Rc<Traffic>,
    scratch: Vec<u8>,
    /// Number of open connections, as other threads see it.
    count: Arc<AtomicUsize>,
    /// The node drains: nothing new is delivered, so that what clients hold is acknowledged before their connections end.
    quiet: bool,
}

impl Connections {
    pub(super) fn new(count: Arc<AtomicUsize>, traffic: Rc<Traffic>) -> Self {
        Self {
            open: HashMap::default(),
            outlets: Outlets::default(),
            inflows: VecDeque::new(),
            counters: Counters::new(),
            traffic,
            scratch: Vec::with_capacity(1024),
            count,
            quiet: false,
        }
    }

    /// From now on no PUBLISH leaves; acknowledgements do.
    pub(super) fn be_quiet(&mut self) {
        self.quiet = true;
    }

    pub(super) fn insert(&mut self, connection: Rc<Connection>) {
        self.open.insert(connection.id, connection);
        self.show_count();
    }

    /// Returns false when it was gone already.
    pub(super) fn remove(&mut self, id: ConnId) -> bool {
        let known = self.open.remove(&id).is_some() || self.outlets.remove(&id).is_some();
        self.show_count();
        known
    }

    fn show_count(&self) {
        self.counters.connections.set(self.open.len() as f64);
        self.count.store(self.open.len(), Ordering::Relaxed);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Connection>> {
        self.open.values()
    }

    fn publish(&mut self, to: ConnId, delivery: &Delivery<'_>) -> bool {
        let Some(connection) = self.open.get(&to) else {
            return true;
        };
        if !connection.deliver(&mut self.scratch, delivery) {
            return false;
        }
        self.traffic.delivered(delivery.qos, delivery.record.payload.len());
        true
    }
}

impl Wire for Connections {
    fn send(&mut self, to: ConnId, packet: PacketOut<'_>) -> bool {
        if let Some(outlet) = self.outlets.get(&to) {
            return outlet.send(&packet);
        }
        match packet {
            PacketOut::Publish(delivery) => return self.publish(to, &delivery),
            PacketOut::ConnAck {
                session_present,
                reason,
            } => {
                if let Some(waiting) = self.open.get(&to).and_then(|connection| connection.connack.take()) {
                    // The handshake that waited may be gone with its socket.
                    waiting
                        .send(ConnAck {
                            session_present,
                            reason,
                        })
                        .ok();
                }
            }
            _ => {
                if let Some(connection) = self.open.get(&to) {
                    self.scratch.clear();
                    if encode::put_control(&mut self.scratch, &connection.client, &packet) {
                        connection.write(&self.scratch, &[]);
                    } else {
                        // The client would wait for it for ever. The core hears of the end when the socket is gone.
                        counters::ended(TOO_LARGE.reason);
                        connection.end(TOO_LARGE);
                    }
                }
            }
        }
        true
    }

    fn is_backlogged(&self, to: ConnId) -> bool {
        if let Some(outlet) = self.outlets.get(&to) {
            return self.quiet || outlet.is_backlogged();
        }
        // What is gone takes nothing.
        self.quiet || self.open.get(&to).is_none_or(|connection| connection.is_backlogged())
    }

    fn close(&mut self, to: ConnId, why: Close) {
        if let Some(outlet) = self.outlets.remove(&to) {
            outlet.end();
        }
        if let Some(connection) = self.open.remove(&to) {
            tracing::debug!(connection = to.0, reason = why.reason, "{}", why.text);
            counters::ended(why.reason);
            connection.end(Fault {
                reason: why.reason,
                text: why.text,
            });
            self.show_count();
        }
    }

    fn inflow_taken(&mut self, number: u64) {
        while self.inflows.front().is_some_and(|(oldest, _)| *oldest <= number) {
            if let Some((_, waiting)) = self.inflows.pop_front() {
                // The link may be gone meanwhile.
                waiting.send(()).ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_gone_takes_no_message() {
        let connections = Connections::new(Arc::new(AtomicUsize::new(0)), Rc::new(Traffic::new()));
        assert!(connections.is_backlogged(ConnId(1)));
    }
}
