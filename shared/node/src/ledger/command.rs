//! `fellbeck-edge ledger` and `fellbeck-cloud ledger`: prints the books; exit code 0 when they close, 1 when not, 2 when unknown.
//!
//! In: arguments, and a way to open the node's store at rest. Out: a table or JSON on standard output. A running node is asked over
//! HTTP; the store of one that does not run is opened, which recovers it as a start would.

use std::process::ExitCode;

use clap::Args;
use fellbeck_ops::config::Listen;
use fellbeck_store::{OpenError, Store};

use super::{Ledger, fetch, gather, readers, table};
use crate::NodeError;

/// Arguments of `ledger`.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// HTTP address of the running node, `host:port`. Default: the node that holds `--data-dir`, at `http.listen`; without one that
    /// runs, the store in `--data-dir`.
    #[arg(long)]
    pub url: Option<String>,
}

/// Exit code of a ledger that could not be had.
const UNKNOWN: u8 = 2;

/// Runs the command. `listen` is the address of the running node, `open` opens the store, and `own` makes the ledger of it, but for the
/// readers.
pub fn ledger_command(
    args: &LedgerArgs,
    listen: &Listen,
    open: impl FnOnce() -> Result<Store, NodeError>,
    own: impl FnOnce(&Store) -> Result<Ledger, NodeError>,
) -> ExitCode {
    let outcome = match &args.url {
        Some(url) => fetch::fetch(url),
        None => match open() {
            Ok(store) => {
                let ledger = at_rest(&store, own).map_err(|error| error.to_string());
                store.close();
                ledger
            }
            Err(NodeError::Open(OpenError::Locked { .. }) | NodeError::NoDataDir) => match fixed(listen) {
                Some(address) => fetch::fetch(&address),
                None => Err("the node's HTTP listener has no fixed address: give --url HOST:PORT".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        },
    };
    match outcome.map(Ledger::closed) {
        Ok(ledger) => {
            print(&ledger, args.json);
            ExitCode::from(u8::from(!ledger.closes))
        }
        Err(error) => {
            let error = error.replace(['\n', '\r'], " ");
            eprintln!("error: {error}");
            ExitCode::from(UNKNOWN)
        }
    }
}

/// The address, unless the system chooses its port or it is off.
fn fixed(listen: &Listen) -> Option<String> {
    let address = listen.resolve("http.listen").ok().flatten()?;
    (address.port() != 0).then(|| address.to_string())
}

fn at_rest(store: &Store, own: impl FnOnce(&Store) -> Result<Ledger, NodeError>) -> Result<Ledger, NodeError> {
    let mut ledger = own(store)?;
    (ledger.readers, ledger.readers_total) = readers(&gather::books_at_rest(store)?, Some(store));
    Ok(ledger)
}

fn print(ledger: &Ledger, json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(ledger).unwrap_or_default());
    } else {
        print!("{}", table::render(ledger));
    }
}
