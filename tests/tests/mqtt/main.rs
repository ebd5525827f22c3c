//! Normative statements of MQTT 5.0 and 3.1.1 on raw sockets, against the real edge and the real cloud: one file per chapter.
//!
//! In: the built nodes. Out: `docs/conformance.md`, by the tags above the tests (`tests/conformance.rs`). No client library is used:
//! what a test sends and what it demands are bytes, or fields read strictly from bytes. Tests share one edge and one cloud, run at once,
//! and use names of their own (`brokers`).

mod acks;
mod aliases;
mod auth;
mod brokers;
mod cases;
mod connack;
mod connect;
mod disconnect;
mod expiry;
mod flow;
mod framing;
mod inbound;
mod limits;
mod order;
mod packet_size;
mod pair;
mod ping;
mod properties;
mod publish;
mod qos;
mod redelivery;
mod request;
mod retained;
mod session;
mod shared;
mod strings;
mod subscribe;
mod topics;
mod transport;
mod unsubscribe;
mod will_properties;
mod will_restart;
mod wills;
