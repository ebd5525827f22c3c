//! An edge node: MQTT broker for the devices around a gateway, durable buffer, uplink to the cloud.
//!
//! In: arguments and configuration. Out: a running node, or an exit code and one line that says why not.
//! [`cli`] is the whole program; the binary is a thin shell on it. `node.rs` is the only place that knows all parts.

mod args;
mod config;
mod downlink;
mod join;
mod ledger;
mod node;
mod offline;
mod rules;
mod status;
mod uplink;
mod wear;

/// What of the edge decides without a socket, a file or a clock. Public for the simulation of whole worlds in `tests`.
pub mod pure {
    pub use crate::rules::{LOCAL_LANE, Rule, RuleList, track_name};
    pub use crate::uplink::entries::{Expiry, entries};
    pub use crate::uplink::progress::{LOG_ID_KEY, Progress};
}

use std::ffi::OsString;
use std::process::ExitCode;

use fellbeck_node::{NodeError, Outcome, parse};
use fellbeck_ops::{config::load_checked, logging};

use crate::args::{Args, Command};
use crate::config::EdgeConfig;

/// Prefix of the environment variables that set configuration keys.
const ENV_PREFIX: &str = "FELLBECK_EDGE__";

/// Runs the command line `args`, whose first item is the name of the program.
pub fn cli(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Args = match parse(args) {
        Outcome::Run(args) => args,
        Outcome::Exit(code) => return code,
    };
    match execute(&args) {
        Ok(code) => code,
        Err(error) => error.exit(),
    }
}

/// Does what was asked for; returns the exit code.
fn execute(args: &Args) -> Result<ExitCode, NodeError> {
    let sources = args.node.sources(ENV_PREFIX)?;
    let config = load_checked(&sources, |config: EdgeConfig| config.validate().map(|()| config))?;
    let done = |()| ExitCode::SUCCESS;
    match args.command.as_ref().unwrap_or(&Command::Run) {
        Command::Check => {
            println!("configuration ok");
            Ok(ExitCode::SUCCESS)
        }
        Command::Ledger(ledger) => Ok(node::ledger(&config, ledger)),
        Command::Run => {
            logging::init(&args.node.log(&config.log))?;
            node::run(config, args.node.ready_file.as_deref()).map(done)
        }
        Command::Join { token } => {
            logging::init(&args.node.log(&config.log))?;
            join::join(&config, token).map(done)
        }
        offline => on_store(args, &config, offline).map(ExitCode::from),
    }
}

/// A command on a store that no node has open.
fn on_store(args: &Args, config: &EdgeConfig, command: &Command) -> Result<u8, NodeError> {
    logging::init(&args.node.log(&config.log))?;
    let store = config.data_dir.as_ref().ok_or(NodeError::NoDataDir)?.join("store");
    match command {
        Command::Doctor(doctor) => offline::doctor(&store, node::store_config(config), doctor),
        Command::Peek(which) => offline::peek(&store, which),
        Command::Export { file, which } => offline::export_range(&store, file, which),
        Command::Import(import) => offline::import(&store, node::store_config(config), import),
        Command::Run | Command::Check | Command::Ledger(_) | Command::Join { .. } => Ok(0),
    }
}
