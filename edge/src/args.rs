//! Command line of `fellbeck-edge`.

use clap::{Parser, Subcommand};
use fellbeck_node::ledger::LedgerArgs;
use fellbeck_ops::cli::NodeArgs;

/// MQTT broker for a gateway: takes devices, buffers on flash, forwards to the cloud.
#[derive(Debug, Parser)]
#[command(name = "fellbeck-edge", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do; `run` when nothing is named.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve devices and forward to the cloud.
    Run,
    /// Check the configuration and exit.
    Check,
    /// Print the books: what was appended and matched, and what became of it. Exit code 0: they close, 1: they do not, 2: unknown.
    Ledger(LedgerArgs),
    /// Take a certificate from the cloud with a join token (`fellbeck-cloud token create --edge NAME`).
    Join {
        /// The one-time token.
        token: String,
    },
}
