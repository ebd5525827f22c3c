//! The budget for packets that are not whole or that wait, as the broker loop keeps it: over all connections and arrivals.
//!
//! In: what a connection or an [`Arrival`] holds, whenever it grew. Out: the end of those that have used most of it, until the rest
//! fits. What is charged, and for what, is said in [`frames`](super::frames).

use std::rc::Rc;

use fellbeck_core::Tick;

use super::arrival::Arrival;
use super::broker::Broker;
use super::connection::Connection;
use super::counters;
use super::frames::Fault;

impl Broker {
    /// A socket that has said nothing yet.
    pub(super) fn expect_arrival(self: &Rc<Self>) -> Rc<Arrival> {
        let broker = Rc::downgrade(self);
        let grown = move || {
            if let Some(broker) = broker.upgrade() {
                broker.enforce_budget();
            }
        };
        let arrival = Rc::new(Arrival::new(&self.assembly, self.now().tick, grown));
        self.arrivals.borrow_mut().push(arrival.clone());
        arrival
    }

    /// It is a connection now, or gone.
    pub(super) fn forget_arrival(&self, arrival: &Rc<Arrival>) {
        self.arrivals.borrow_mut().retain(|other| !Rc::ptr_eq(other, arrival));
    }

    /// Bytes of a connection were looked at. `same`: the packet that is not whole was begun before.
    pub(super) fn watch_packet(&self, connection: &Connection, same: bool) {
        if connection.frames.borrow().is_partial() {
            if !same {
                connection.packet_since.set(self.now().tick);
            }
            self.enforce_budget();
        }
    }

    /// Ends connections, and sockets that are not one yet, until their unfinished and held packets fit: first the one that has
    /// used most of the budget, by bytes and time. So whoever holds on to room makes way for whoever just needs some.
    pub(super) fn enforce_budget(&self) {
        while self.assembly.is_exceeded() {
            let now = self.now().tick;
            let use_of = |since: Tick, bytes: usize| (now.since(since).as_millis() + 1) * bytes as u128;
            let connections = self.connections();
            let connection = connections
                .iter()
                .map(|one| (use_of(one.packet_since.get(), one.charged()), one))
                .max_by_key(|(used, _)| *used);
            let arrivals = self.arrivals.borrow();
            let arrival = arrivals
                .iter()
                .map(|one| (use_of(one.since, one.charged()), one))
                .max_by_key(|(used, _)| *used);
            let by_arrival = arrival.as_ref().map_or(0, |(used, _)| *used);
            match (connection, arrival) {
                (Some((used, most)), _) if used > by_arrival => {
                    counters::packet_given_up("budget");
                    self.fail(
                        most,
                        Fault {
                            reason: 0x97,
                            text: "too many large packets at once",
                        },
                    );
                }
                (_, Some((used, most))) if used > 0 => {
                    counters::packet_given_up("budget");
                    most.give_up();
                }
                _ => return,
            }
        }
    }
}
