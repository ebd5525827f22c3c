//! Simulated devices, checking consumers, faults, the demo and the bench of Fellbeck.
//!
//! In: a command line. Out: MQTT load on any broker, and books that say whether it all arrived.
//! The tests use the same parts as a library. rumqttc stays behind `client`; the ledger, the table of open messages
//! and the codecs are pure.

pub mod bench;
pub mod cli;
pub mod client;
pub mod consumer;
pub mod demo;
pub mod device;
pub mod fault;
pub mod histogram;
pub mod ledger;
pub mod ledger_file;
pub mod model;
pub mod node;
pub mod outstanding;
pub mod payload;
pub mod progress;
pub mod qos;
pub mod raw;
pub mod scenario;
pub mod scrape;
pub mod wire;
