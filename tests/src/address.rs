//! Where a node can be reached now, shared between the test and its device and reader threads.
//!
//! Set when the node is ready, emptied before it is killed. The system may give the port of a dead node to another one at once, and a
//! device must not publish to a stranger. One owner (the node) writes, any number of threads read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// A shared cell with the address of a node, empty while the node is down.
#[derive(Debug, Clone, Default)]
pub struct Address(Arc<Mutex<Option<SocketAddr>>>);

impl Address {
    /// A cell that holds `at` from the start, for a server that is never restarted.
    #[must_use]
    pub fn fixed(at: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(Some(at))))
    }

    /// The address, while the node is up.
    #[must_use]
    pub fn get(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the address.
    pub fn put(&self, at: Option<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}
