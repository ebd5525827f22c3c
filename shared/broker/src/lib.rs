//! MQTT broker of a node: sockets and packets in front, sessions behind, the store underneath.
//!
//! [`front`] speaks MQTT 3.1.1 and 5.0 on the wire and is the only place that knows `ntex`. [`session`] decides everything
//! about sessions and messages, without sockets, clocks or I/O. [`wire`] is the seam between them.

#![deny(missing_docs)]

pub mod front;
pub mod session;
mod tally;
pub mod wire;
