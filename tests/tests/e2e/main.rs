//! End-to-end tests with the real binaries: one file per scenario of issue MAIN's proofs.
//!
//! In: the built nodes, Debian's mosquitto clients and our own raw client. Each test has a site of its own and takes one of few slots.
//! Ports are given by the system; nothing is awaited by sleeping. The harness is the library of this crate.

mod away;
mod contracts;
mod damage;
mod demo;
mod device_ids;
mod downlink;
mod exchange;
mod flow;
mod harness;
mod heartbeat;
mod hostile;
mod identity;
mod idle;
mod kill_loop;
mod ledger;
mod link_cut;
mod little_memory;
mod no_flash;
mod no_space;
mod offline;
mod overflow;
mod quota;
mod restored;
mod shutdown;
mod sys;
mod transports;
