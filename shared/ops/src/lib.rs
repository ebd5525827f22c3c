//! What every Fellbeck process needs around its real work: arguments, config, logs, metrics, HTTP, identity, signals.
//!
//! In: arguments, environment, files, signals, certificates of peers. Out: checked values and ready-made parts that the
//! edge and the cloud wire together in their `node.rs`.
//! Walls in `figment`, `toml`, `tracing-subscriber`, `rustls` builders, `rcgen`, `x509-parser`, `axum` and the metrics
//! exporter. Owns `<data>/identity`, `<data>/edges` and `<data>/tokens`; all secrets are mode 0600 and never printed.
//! Knows nothing of MQTT, of the link's frames or of the store.

#![deny(missing_docs)]

pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod files;
pub mod http;
pub mod identity;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod ready;
pub mod shutdown;
pub mod tls;
pub mod udp;

pub use cli::NodeArgs;
pub use clock::NodeClock;
pub use config::{ConfigError, ConfigSources};
pub use exit::ExitCode;
pub use http::HttpServer;
pub use metrics::Metrics;
pub use readiness::Readiness;
pub use ready::ReadyFile;
pub use shutdown::{Shutdown, Signals};
