//! A socket that has not become a connection yet: what it holds of the budget for packets, and the signal that it must go.
//!
//! In: how many bytes of its first packets have come. Out: the same to the [`Assembly`] budget, and a call when they grew.
//! So half-sent CONNECTs fall under the same bound as half-sent packets of connections.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::Poll;

use fellbeck_core::Tick;
use ntex::task::LocalWaker;

use super::frames::{Assembly, Charge};
use crate::wire::Version;

pub(super) struct Arrival {
    charge: RefCell<Charge>,
    /// Version that its CONNECT speaks, once that is known.
    version: Cell<Option<Version>>,
    /// When it came.
    pub(super) since: Tick,
    gave_up: Cell<bool>,
    waker: LocalWaker,
    grown: Box<dyn Fn()>,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival")
            .field("charged", &self.charged())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Arrival {
    /// `grown` is called whenever the arrival holds more than before.
    pub(super) fn new(budget: &Rc<Assembly>, since: Tick, grown: impl Fn() + 'static) -> Self {
        Self {
            charge: RefCell::new(budget.charge(0)),
            version: Cell::new(None),
            since,
            gave_up: Cell::new(false),
            waker: LocalWaker::new(),
            grown: Box::new(grown),
        }
    }

    /// So many bytes wait for the rest of their packet.
    pub(super) fn holds(&self, bytes: usize) {
        if self.gave_up.get() {
            return;
        }
        let before = self.charged();
        self.charge.borrow_mut().set(bytes);
        if self.charged() > before {
            (self.grown)();
        }
    }

    /// Bytes that count for the budget.
    pub(super) fn charged(&self) -> usize {
        self.charge.borrow().bytes()
    }

    pub(super) fn speaks(&self, version: Version) {
        self.version.set(Some(version));
    }

    pub(super) fn version(&self) -> Option<Version> {
        self.version.get()
    }

    /// It has to go: its share is given back, and who waits for it is told.
    pub(super) fn give_up(&self) {
        self.gave_up.set(true);
        self.charge.borrow_mut().set(0);
        self.waker.wake();
    }

    /// Ends when it has to go.
    pub(super) async fn given_up(&self) {
        std::future::poll_fn(|context| {
            if self.gave_up.get() {
                return Poll::Ready(());
            }
            self.waker.register(context.waker());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_and_who_gave_up_holds_nothing_more() {
        let budget = Assembly::new(1);
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let arrival = Arrival::new(&budget, Tick::default(), move || count.set(count.get() + 1));
        for bytes in [100, 10_000, 20_000, 5_000] {
            arrival.holds(bytes);
        }
        assert_eq!(calls.get(), 2, "small packets are free, and less is not more");
        arrival.give_up();
        arrival.holds(50_000);
        assert_eq!((arrival.charged(), budget.used()), (0, 0));
    }
}
