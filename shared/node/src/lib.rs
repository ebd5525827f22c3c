//! What the wiring of both nodes has in common: settings of the shared parts, start and stop of them, errors with exit codes.
//!
//! In: configuration structs that both nodes embed. Out: a broker, an HTTP server, a runtime, and one error type that ends a node.
//! Edge and cloud never depend on one another; what both need of the wiring is here. It knows no lane, stream, link or QUIC.

#![deny(missing_docs)]

mod cli;
mod config;
mod descriptors;
mod error;
mod gauges;
mod http;
pub mod ledger;
mod losses;
mod mqtt;
mod runtime;
mod stop;

pub use cli::{Outcome, parse};
pub use config::{HttpConfig, MqttConfig, SessionConfig, below_idle};
pub use error::NodeError;
pub use gauges::refresh;
pub use http::start_http;
pub use losses::losses;
pub use mqtt::{BrokerParts, DefaultPorts, listeners, start_mqtt, stop_mqtt};
pub use runtime::block_on;
pub use stop::{join_all, wait};
