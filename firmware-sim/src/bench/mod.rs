//! Load generators without a client library, and the bench that sets Fellbeck beside mosquitto.
//!
//! In: plans. Out: one report each. The generators are to cost far less than the broker they load, since both share
//! the machine: one thread, prepared packets, one write and one read per turn.

pub mod cpu;
mod ingest;
pub mod mosquitto;
mod path;
pub mod publisher;
mod report;
mod rig;
pub mod sessions;
pub mod subscriber;
pub mod suite;
