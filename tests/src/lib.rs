//! Harness of the end-to-end tests: real nodes as processes, a link that can be cut, devices and readers with ledgers.
//!
//! In: the built binaries of this workspace. Out: plain blocking types that a test drives from one thread.
//! A [`World`] owns one cloud, one edge and the [`UdpProxy`] between them; a [`Device`] and a [`Reader`] are threads of their own,
//! and what they did is in a [`DeviceBook`] and a [`ReaderBook`], which [`judge`] compares.
//! Nothing here waits for a fixed time: every wait is for an event, with a deadline ([`wait`]).
//! The MQTT client is our own ([`mqtt`]), so that a test sees each packet; the nodes' code is not used.
#![deny(missing_docs)]

mod address;
mod books;
pub mod cgroup;
mod command;
mod device;
pub mod disk;
pub mod fuzz;
pub mod gateway;
mod hostile;
mod http;
mod ledger;
mod metrics;
mod mosquitto;
pub mod mqtt;
pub mod names;
mod node;
pub mod power_cut;
mod proxy;
mod reader;
mod site;
mod stamp;
pub mod wait;
mod world;
pub mod ws;

pub use address::Address;
pub use books::Books;
pub use command::{Finished, binary, run_to_end};
pub use device::{Device, DevicePlan};
pub use hostile::{mutate, random_bytes};
pub use http::{Response, get};
pub use ledger::{DeviceBook, ReaderBook, Verdict, judge};
pub use metrics::Metrics;
pub use mosquitto::{Mosquitto, Subscription, publish_lines};
pub use node::{Kind, Node, Ready};
pub use proxy::UdpProxy;
pub use reader::{Away, Reader, ReaderPlan};
pub use site::Site;
pub use stamp::Stamp;
pub use world::{World, join, token};
