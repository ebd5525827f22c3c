//! The books of the links, as the cloud keeps them (P9), and what the heartbeats of edges tell.
//!
//! In: what each ingest brought, in the commit that holds it. Out: counters per edge instance, lane and run that are durable with W, the
//! last heartbeat of each edge, the health of its link, and the node's ledger. Knows no frame and no socket.

mod beat;
mod edge;
mod lane;

use std::process::ExitCode;

use fellbeck_core::Seq;
use fellbeck_node::NodeError;
use fellbeck_node::ledger::{Ledger, LedgerArgs, LogBook, Shelf, ledger_command, track_book};
use fellbeck_store::{Store, StoreConfig};

pub use beat::Beat;
pub(crate) use edge::EdgeLedger;
pub(crate) use lane::Brought;
pub use lane::{LaneCounts, LaneId};

use crate::config::CloudConfig;
use crate::ingest::edges::Edges;
use crate::routing::{GAPS_STREAM, track_name};

/// The ledger of the node but for its readers.
pub(crate) fn ledger(edges: &Edges, store: &Store) -> Ledger {
    // Lanes first: what they have stored is then in the log.
    let lanes: Vec<_> = edges
        .all()
        .iter()
        .flat_map(|(name, slot)| slot.ledger().books(name))
        .collect();
    let gaps = track_name(GAPS_STREAM, 0);
    let tracks = store.tracks().into_iter();
    let tracks: Vec<_> = tracks
        .filter_map(|(track, _)| Some(track_book(&store.ledger(track, Seq(0))?, Shelf::Retention)))
        .collect();
    let streams = tracks.iter().filter(|track| track.track != gaps);
    let appended = streams.map(|track| track.appended).fold(0, u64::saturating_add);
    Ledger {
        node: "cloud".to_owned(),
        log: Some(LogBook::of(appended, &lanes)),
        tracks,
        lanes,
        ..Ledger::default()
    }
}

/// `fellbeck-cloud ledger`: the books of the running node, or of its store at rest.
pub(crate) fn command(config: &CloudConfig, store_config: StoreConfig, args: &LedgerArgs) -> ExitCode {
    let open = || {
        let data_dir = config.data_dir.as_ref().ok_or(NodeError::NoDataDir)?;
        Ok(fellbeck_store::open(&data_dir.join("store"), store_config)?.0)
    };
    let own = |store: &Store| {
        let edges = Edges::load(store).map_err(|error| NodeError::State(error.to_string()))?;
        Ok(ledger(&edges, store))
    };
    ledger_command(args, &config.http.listen, open, own)
}
