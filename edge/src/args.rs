//! Command line of `fellbeck-edge`.

use std::path::PathBuf;

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
    /// Examine a store that no node has open. Exit code 7: something is damaged, or missing and not yet declared.
    Doctor(DoctorArgs),
    /// Show stored records, the oldest first within a lane.
    Peek(PeekArgs),
    /// Write stored records into a file.
    Export {
        /// The file; it must not exist.
        file: PathBuf,
        /// Which records.
        #[command(flatten)]
        which: PeekArgs,
    },
    /// Append the records of an export file at the ends of their lanes, each once.
    Import(ImportArgs),
}

/// `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Mend what can be mended, as the next start of the node would.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Write all that can be read into this file; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) export: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which records.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct PeekArgs {
    /// Of this lane only, by its name or by the name of its track (`lane/NAME/RUN`).
    #[arg(long)]
    pub(crate) lane: Option<String>,
    /// With a topic that matches this filter.
    #[arg(long)]
    pub(crate) topic: Option<String>,
    /// First sequence number.
    #[arg(long)]
    pub(crate) first: Option<u64>,
    /// Last sequence number.
    #[arg(long)]
    pub(crate) last: Option<u64>,
    /// Accepted at this time or later, in milliseconds since 1970.
    #[arg(long, value_name = "MS")]
    pub(crate) since: Option<u64>,
    /// Accepted at this time or earlier, in milliseconds since 1970.
    #[arg(long, value_name = "MS")]
    pub(crate) until: Option<u64>,
    /// At most so many records (`peek` only).
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// One JSON object per record (`peek` only).
    #[arg(long)]
    pub(crate) json: bool,
}

/// `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// A file that `export` or `doctor --export` wrote.
    pub(crate) file: PathBuf,
}
