//! `fellbeck-cloud edges`: the edges, which of their stores were refused, and what is to become of those.
//!
//! In: files beside the store, whether or not the node runs. Out: a table or JSON; orders, which the node reads at each Hello. Whether an
//! edge is connected is asked of the running node, and unknown without it.

use std::path::Path;

use clap::{Args, Subcommand};
use fellbeck_node::NodeError;
use fellbeck_node::ledger::fetch_body;
use fellbeck_ops::NodeClock;
use fellbeck_ops::config::{ConfigError, Listen};
use fellbeck_ops::identity::{CloudIdentity, EdgeEntry, EdgeName};
use serde_json::{Value, json};

use super::fenced::{Fenced, FencedFile, Reason};
use super::orders::{Adopt, Orders};
use crate::config::CloudConfig;

/// What to do with edges.
#[derive(Debug, Subcommand)]
pub(crate) enum EdgesCommand {
    /// List the edges: instance, link, refused stores. Works whether or not the node is running.
    List(ListArgs),
    /// Take on a refused store as a new instance of its edge: what the log does not have of it is stored. Any other store of the name
    /// is refused from then on. Acts when the edge dials next.
    Adopt(StoreArgs),
    /// Refuse a store for good: nothing of it is ever taken, and the other store of the name goes on.
    Discard(StoreArgs),
}

/// Arguments of `edges list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// HTTP address of the running node, `host:port`, for the state of the links. Default: `http.listen`, if its port is fixed.
    #[arg(long)]
    url: Option<String>,
}

/// Arguments of `edges adopt` and `edges discard`.
#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    /// Name of the edge.
    name: String,
    /// Which refused store, where there are several: its incarnation, or how that begins, as `edges list` shows it.
    #[arg(long)]
    incarnation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Path of the status of a running node.
const STATUS: &str = "/api/v1/status";

/// Runs the command.
pub(crate) fn run(config: &CloudConfig, command: &EdgesCommand) -> Result<(), NodeError> {
    let data_dir = config.data_dir.as_deref().ok_or(NodeError::NoDataDir)?;
    match command {
        EdgesCommand::List(args) => list(config, data_dir, args),
        EdgesCommand::Adopt(args) => order(data_dir, args, true),
        EdgesCommand::Discard(args) => order(data_dir, args, false),
    }
}

fn order(data_dir: &Path, args: &StoreArgs, adopt: bool) -> Result<(), NodeError> {
    let name: EdgeName = args
        .name
        .parse()
        .map_err(|error| ConfigError::invalid("NAME", &args.name, format!("{error}")))?;
    let edge = name.as_str();
    let state = |error: super::file::FileFault| NodeError::State(error.to_string());
    let file = FencedFile::load(data_dir, edge).map_err(state)?;
    let mut orders = Orders::load(data_dir, edge).map_err(state)?;
    let fenced = choose(edge, &file.fenced, &orders, args.incarnation.as_deref(), adopt).map_err(NodeError::Failed)?;
    if adopt {
        orders.adopt(Adopt {
            incarnation: fenced.incarnation,
            above: fenced.instance,
        });
    } else {
        orders.discard(fenced.incarnation);
    }
    orders.store(data_dir).map_err(state)?;
    let word = if adopt { "adopt" } else { "discard" };
    if args.json {
        println!(
            "{}",
            json!({ "edge": edge, "incarnation": fenced.incarnation, "order": word })
        );
    } else if adopt {
        println!(
            "edge {edge}: the store with incarnation {} is adopted as a new instance when it dials next, within about a minute; \
             any other store of this name is refused from then on",
            fenced.incarnation
        );
    } else {
        println!(
            "edge {edge}: the store with incarnation {} is refused for good; what it holds is not taken",
            fenced.incarnation
        );
    }
    Ok(())
}

/// The one store that is meant.
fn choose<'a>(
    edge: &str,
    fenced: &'a [Fenced],
    orders: &Orders,
    digits: Option<&str>,
    adopt: bool,
) -> Result<&'a Fenced, String> {
    let is_open = |of: &&Fenced| of.reason != Reason::Discarded && !orders.is_discarded(of.incarnation);
    let named: Vec<_> = match digits {
        Some(digits) => fenced
            .iter()
            .filter(|of| of.incarnation.to_string().starts_with(digits))
            .collect(),
        None => fenced.iter().filter(is_open).collect(),
    };
    match named[..] {
        [one] => Ok(one),
        [] if digits.is_none() && !fenced.is_empty() => {
            let again = if adopt {
                "; to adopt one after all, name it with --incarnation"
            } else {
                ""
            };
            Err(format!("edge {edge}: each refused store is discarded already{again}"))
        }
        [] => Err(format!(
            "edge {edge}: no such store was refused; `fellbeck-cloud edges list` shows those that were"
        )),
        [..] => {
            let ids: Vec<_> = named.iter().map(|of| of.incarnation.to_string()).collect();
            let ids = ids.join(", ");
            Err(format!(
                "edge {edge}: {} stores were refused: choose one with --incarnation: {ids}",
                named.len()
            ))
        }
    }
}

fn list(config: &CloudConfig, data_dir: &Path, args: &ListArgs) -> Result<(), NodeError> {
    if !data_dir.is_dir() {
        let source = std::io::ErrorKind::NotFound.into();
        let path = data_dir.to_owned();
        return Err(NodeError::DataDir { path, source });
    }
    let identity = |error: &dyn std::fmt::Display| NodeError::Identity(error.to_string());
    let cloud = CloudIdentity::open(data_dir, config.link.given_ca().as_ref(), NodeClock::start().wall())
        .map_err(|error| identity(&error))?;
    let edges = cloud.edges().list().map_err(|error| identity(&error))?;
    let live = live(&config.http.listen, args.url.as_deref())?;
    let rows: Vec<_> = edges
        .iter()
        .map(|edge| row(data_dir, edge, live.as_ref()))
        .collect::<Result<_, _>>()?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
    } else {
        rows.iter().for_each(print);
    }
    Ok(())
}

/// The status of the running node. An address that was given has to answer.
fn live(listen: &Listen, url: Option<&str>) -> Result<Option<Value>, NodeError> {
    let fixed = listen.resolve("http.listen").ok().flatten();
    let fixed = fixed
        .filter(|address| address.port() != 0)
        .map(|address| address.to_string());
    let Some(address) = url.map(str::to_owned).or(fixed) else {
        return Ok(None);
    };
    let status = fetch_body(&address, STATUS).and_then(|body| {
        serde_json::from_slice::<Value>(&body)
            .map_err(|error| format!("{address}: the status does not decode: {error}"))
    });
    match status {
        Ok(status) => Ok(Some(status)),
        Err(_) if url.is_none() => Ok(None),
        Err(error) => Err(NodeError::Failed(error)),
    }
}

fn row(data_dir: &Path, edge: &EdgeEntry, live: Option<&Value>) -> Result<Value, NodeError> {
    let name = edge.name.as_str();
    let state = |error: super::file::FileFault| NodeError::State(error.to_string());
    let orders = Orders::load(data_dir, name).map_err(state)?;
    let file = FencedFile::load(data_dir, name).map_err(state)?;
    let fenced = file.fenced.iter().map(|of| {
        let is_discarded = of.reason == Reason::Discarded || orders.is_discarded(of.incarnation);
        let is_ordered = orders
            .open(of.instance)
            .is_some_and(|order| order.incarnation == of.incarnation);
        let order = match (is_discarded, is_ordered) {
            (true, _) => Some("discard"),
            (_, true) => Some("adopt"),
            _ => None,
        };
        json!({
            "incarnation": of.incarnation, "epoch": of.epoch, "instance": of.instance, "reason": of.reason.as_str(),
            "first_ms": of.first_ms, "last_ms": of.last_ms, "order": order,
        })
    });
    let status = live.and_then(|live| live["edges"].as_array()?.iter().find(|of| of["edge"] == name));
    // A node that runs and does not know the edge has never had a link of it.
    let health = status.map(|of| of["health"].clone());
    let health = health.or_else(|| live.map(|_| json!("down"))).unwrap_or_default();
    Ok(json!({
        "edge": name,
        "instance": edge.newest(),
        "connected": health.as_str().map(|health| health != "down"),
        "health": health,
        "last_heartbeat_ms": status.map(|of| of["heartbeat"]["received_at_ms"].clone()),
        "locked_out": edge.refused,
        "fenced": fenced.collect::<Vec<_>>(),
    }))
}

fn print(row: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let connected = match row["connected"].as_bool() {
        Some(true) => format!("connected ({})", text(&row["health"])),
        Some(false) => "not connected".to_owned(),
        None => "link unknown: no running node was asked".to_owned(),
    };
    let beat = row["last_heartbeat_ms"].as_u64();
    let beat = beat
        .map(|at| format!(", last heartbeat at {at} ms"))
        .unwrap_or_default();
    println!(
        "{}  instance {}  {connected}{beat}",
        text(&row["edge"]),
        row["instance"]
    );
    for of in row["fenced"].as_array().into_iter().flatten() {
        let order = of["order"]
            .as_str()
            .map_or("waits for `edges adopt` or `edges discard`".to_owned(), |order| {
                format!("order: {order}")
            });
        println!(
            "  refused store {}  epoch {}  {}  last tried at {} ms  {order}",
            text(&of["incarnation"]),
            of["epoch"],
            text(&of["reason"]),
            of["last_ms"],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::id::IncarnationId;
    use super::*;

    fn fenced(id: u8, reason: Reason) -> Fenced {
        Fenced {
            incarnation: IncarnationId([id; 16]),
            epoch: 2,
            instance: 1,
            reason,
            first_ms: 0,
            last_ms: 0,
        }
    }

    #[test]
    fn an_order_names_one_store_or_none() {
        let orders = Orders::new("barn");
        let two = [fenced(1, Reason::Fenced), fenced(2, Reason::Diverged)];
        let choose = |of, digits| choose("barn", of, &orders, digits, true).map(|of: &Fenced| of.incarnation.0[0]);
        assert_eq!(choose(&two[..1], None), Ok(1));
        assert_eq!(choose(&two, Some("0202")), Ok(2));
        assert!(choose(&two, None).is_err_and(|text| text.contains("--incarnation")));
        assert!(choose(&two, Some("03")).is_err());
        assert!(choose(&[], None).is_err());
        let discarded = [fenced(1, Reason::Discarded)];
        assert!(choose(&discarded, None).is_err_and(|text| text.contains("discarded already")));
        assert_eq!(choose(&discarded, Some("01")), Ok(1), "it can be taken back by name");
    }
}
