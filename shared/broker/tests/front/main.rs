//! The broker over real sockets and a real store: raw frames in, raw frames out.
//!
//! Each test starts a server of its own on port 0 with a store in a temporary directory. No client library is the oracle.

// The helpers here are test code too, which the lint does not see.
#![allow(clippy::unwrap_used)]

mod answers;
mod auth;
mod client;
mod connect;
mod hostile;
mod load;
mod node;
mod publish;
mod session;
mod shutdown;
mod sys;
mod tls;
mod ws;
/// The raw WebSocket client of the end-to-end tests.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../tests/src/ws.rs"]
mod ws_client;
