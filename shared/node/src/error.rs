//! Why a node does not start or does not go on, each with its exit code and one line for the operator.

use std::path::PathBuf;

use fellbeck_broker::front::FrontError;
use fellbeck_ops::ExitCode;
use fellbeck_ops::config::ConfigError;
use fellbeck_ops::http::ListenError;
use fellbeck_ops::ready::ReadyFileError;
use fellbeck_store::OpenError;

/// The end of a node. Whatever was acknowledged is durable, in every case.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing was started.
    #[error("`data_dir` is not set: give --data-dir DIR")]
    NoDataDir,
    /// Nothing was started.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store was not opened, or it halted; what was not acknowledged may be missing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// State in the store does not decode; nothing was started.
    #[error("store: {0}")]
    State(String),
    /// A listener could not bind.
    #[error(transparent)]
    Listener(#[from] ListenError),
    /// The MQTT listener could not start.
    #[error(transparent)]
    Front(#[from] FrontError),
    /// The link's socket could not be made.
    #[error("{field} = \"{address}\": {source}")]
    Socket {
        /// Key of the configuration.
        field: &'static str,
        /// Address that was asked for.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Listeners were bound, but nobody was told.
    #[error(transparent)]
    ReadyFile(#[from] ReadyFileError),
    /// Keys, certificates or tokens.
    #[error("{0}")]
    Identity(String),
    /// The runtime or a signal handler could not be set up.
    #[error("runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// A part of the node failed while it ran. A supervisor restarts the process.
    #[error("{0}")]
    Failed(String),
    /// Draining took longer than the deadline.
    #[error("shutdown took longer than {0:?}; what was acknowledged is durable")]
    Deadline(std::time::Duration),
}

impl NodeError {
    /// The exit code, as `docs/operating.md` lists them.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::NoDataDir => ExitCode::Usage,
            Self::DataDir { .. } | Self::Open(_) | Self::State(_) => ExitCode::DataDir,
            Self::Listener(_) | Self::Front(_) | Self::Socket { .. } => ExitCode::Listener,
            Self::Identity(_) => ExitCode::Identity,
            Self::ReadyFile(_) | Self::Runtime(_) | Self::Failed(_) => ExitCode::Failed,
            Self::Deadline(_) => ExitCode::Deadline,
        }
    }
}
