//! A raw MQTT client for 3.1.1 and 5.0 over a blocking socket, independent of the nodes' code.
//!
//! `packet` encodes and decodes, `connection` is one TCP connection, `client` adds the session state that a correct device keeps:
//! what is unacknowledged and must be resent with DUP, and which QoS 2 packet IDs were received and not yet released.
//! Tests that send wrong bytes, or look at each packet, use `Raw`: `wire` and `Connect` make the bytes, `Answer` is what comes back.

mod answer;
mod client;
mod connect;
mod connection;
mod packet;
mod raw;
pub mod wire;

pub use answer::{Answer, Delivery, Property, value_of};
pub use client::{Client, Event, Message};
pub use connect::{Connect, LastWill};
pub use connection::{ConnAck, Connection};
pub use packet::{AckKind, ConnectOptions, Packet, Publish, Version, Will, encode};
pub use raw::{Accepted, Raw};
