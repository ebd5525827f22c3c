//! A cloud node: takes the links of edges, keeps partitioned logs, serves MQTT consumers.
//!
//! In: arguments and configuration. Out: a running node, or an exit code and one line that says why not.
//! [`cli`] is the whole program; the binary is a thin shell on it. `node.rs` is the only place that knows all parts.

mod args;
mod config;
mod dedup;
mod downlink;
mod fencing;
mod gaps;
mod ingest;
mod ledger;
mod node;
mod routing;
mod status;
mod token;

/// What of the cloud decides without a socket, a file or a clock. Public for the simulation of whole worlds in `tests`.
pub mod pure {
    pub use crate::dedup::book::{Book, Footing};
    pub use crate::dedup::device_id::{Scheme, Scope};
    pub use crate::dedup::index::{DeviceIds, Intake};
    pub use crate::dedup::mark::{LaneKey, Mark, MarkError, decode as decode_mark, edge_key, edge_value};
    pub use crate::dedup::start::LaneStart;
    pub use crate::dedup::window::WindowLimits;
    pub use crate::ingest::append::{Moved, Places, Tally};
    pub use crate::ingest::flow::{Draft, Drafted, Flow, Site};
    pub use crate::ledger::{Beat, LaneCounts, LaneId};
    pub use crate::routing::{DEFAULT_STREAM, GAPS_STREAM, Stream, Streams, track_name};
}

use std::ffi::OsString;
use std::process::ExitCode;

use fellbeck_node::{NodeError, Outcome, parse};
use fellbeck_ops::{config::load_checked, logging};

use crate::args::{Args, Command, TokenCommand};
use crate::config::CloudConfig;

/// Prefix of the environment variables that set configuration keys.
const ENV_PREFIX: &str = "FELLBECK_CLOUD__";

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

fn execute(args: &Args) -> Result<ExitCode, NodeError> {
    let sources = args.node.sources(ENV_PREFIX)?;
    let config = load_checked(&sources, |config: CloudConfig| config.validate().map(|()| config))?;
    match args.command.as_ref().unwrap_or(&Command::Run) {
        Command::Check => println!("configuration ok"),
        Command::Ledger(ledger) => return Ok(node::ledger(&config, ledger)),
        Command::Run => {
            logging::init(&args.node.log(&config.log))?;
            node::run(config, args.node.ready_file.as_deref())?;
        }
        Command::Edges { command } => fencing::command::run(&config, command)?,
        Command::Token {
            command: TokenCommand::Create { edge, address, hours },
        } => {
            println!("{}", token::create(&config, edge, address, *hours)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
