//! MQTT front: sockets, handshakes and packets of both versions, in front of the session core.
//!
//! In: connections over TCP, TLS and WebSocket, and what the store answers. Out: calls on the session core, packets on the wire, commits for the store.
//! ntex-mqtt does version detection, decoding and the handshake; TLS and WebSocket lie below it in `transport`; our middleware takes every packet after CONNECT, and
//! outbound packets are written by `encode`. All of it runs on one thread, `mqtt`, with the core, so a message crosses no
//! channel between socket and commit.
//! Decides nothing about messages and sessions: that is [`session`](crate::session).

mod accept;
mod attached;
mod broker;
mod config;
mod connection;
mod connections;
mod counters;
mod encode;
mod failure;
mod frames;
mod handshake;
mod middleware;
mod preface;
mod property_block;
mod server;
mod transport;
mod turn;

pub use config::MqttServerConfig;
pub use server::{CoreSetup, FrontError, MakeRoute, MqttServer, Shutdown, start};
pub use transport::Transport;
