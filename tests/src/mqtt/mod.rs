//! A raw MQTT client for 3.1.1 and 5.0 over a blocking socket, independent of the nodes' code.
//!
//! `packet` encodes and decodes, `connection` is one TCP connection, `client` adds the session state that a correct device keeps:
//! what is unacknowledged and must be resent with DUP, and which QoS 2 packet IDs were received and not yet released.
//! A hostile test uses a socket of its own.

mod client;
mod connection;
mod packet;

pub use client::{Client, Event, Message};
pub use connection::{ConnAck, Connection};
pub use packet::{AckKind, ConnectOptions, Packet, Publish, Version, Will, encode};
