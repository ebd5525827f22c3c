//! MQTT front: sockets, handshakes and packets of both versions, in front of the session core.
//!
//! In: connections over TCP, TLS and WebSocket, and what the store answers. Out: calls on the session core, packets on the wire,
//! commits for the store. TLS and WebSocket lie lowest, in `transport`; ntex-mqtt does the handshake shell, the dispatcher and the
//! decoding of control packets; CONNECT and PUBLISH are decoded by our own code (ADR 0006), our middleware takes every control
//! packet, and `encode` writes what leaves. All of it runs on one thread, `mqtt`, with the core, so a message crosses no
//! channel between socket and commit.
//! Decides nothing about messages and sessions: that is [`session`](crate::session).

mod accept;
mod aliases;
mod arrival;
mod attached;
mod auth;
mod broker;
mod config;
mod connack;
mod connect;
mod connection;
mod connections;
mod counters;
mod encode;
mod exchange;
mod failure;
mod fields;
mod frames;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod inflow;
mod inside;
mod intake;
mod last_words;
mod linger;
mod load;
mod middleware;
mod preface;
mod property_block;
mod publish;
mod reasons;
mod server;
mod shape;
mod sys;
mod traffic;
mod transport;
mod turn;
mod welcome;

pub use auth::{AllowAll, Authenticator, ConnectRequest, Decision, Exchange, Step};
pub use config::MqttServerConfig;
pub use inside::{EdgeEvent, EdgeSession, Gone, Inside, Interest, ToEdge};
pub use server::{CoreSetup, FrontError, MakeRoute, MqttServer, Shutdown, start};
pub use sys::StatusValues;
pub use transport::Transport;
