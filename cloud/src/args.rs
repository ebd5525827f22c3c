//! Command line of `fellbeck-cloud`.

use clap::{Parser, Subcommand};
use fellbeck_node::ledger::LedgerArgs;
use fellbeck_ops::cli::NodeArgs;

/// Cloud tier: takes the links of edges, keeps partitioned logs, serves consumers.
#[derive(Debug, Parser)]
#[command(name = "fellbeck-cloud", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do; `run` when nothing is named.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve edges and consumers.
    Run,
    /// Check the configuration and exit.
    Check,
    /// Print the books: what edges sent, what the log holds, what readers got. Exit code 0: they close, 1: they do not, 2: unknown.
    Ledger(LedgerArgs),
    /// Join tokens for edges.
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a one-time join token for an edge. Works whether or not the node is running.
    Create {
        /// Name of the edge. A name that is known already gets a new instance when it joins.
        #[arg(long)]
        edge: String,
        /// Address that the edge dials, `host:port`; repeatable. Default: `link.public`, else the address that the node listens on.
        #[arg(long)]
        address: Vec<String>,
        /// Hours until the token expires.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
        hours: u64,
    },
}
