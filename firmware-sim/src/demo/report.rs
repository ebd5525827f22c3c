//! What the demo prints: a line per second, the ledger at the end, and hints for trying it by hand.
//!
//! In: the world. Out: plain lines. The node's own numbers are shown as they are; the verdict rests on the ledger and on
//! the number of records in the cloud's log.

use tokio::time::Instant;

use super::DemoError;
use super::world::{TOPIC_PREFIX, World};
use crate::device::lock;
use crate::ledger::ReaderVerdict;
use crate::node::Node;
use crate::progress::Rate;
use crate::scrape;

/// Turns counters into rates from line to line.
pub(super) struct Progress {
    start: Instant,
    published: Rate,
    acked: Rate,
    appended: Rate,
    delivered: Rate,
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        let rate = Rate::new(now);
        Self {
            start: now,
            published: rate,
            acked: rate,
            appended: rate,
            delivered: rate,
        }
    }

    pub(super) async fn line(&mut self, world: &World) -> String {
        let edge_status = match &world.edge {
            Some(edge) => ask(edge, scrape::STATUS_PATH).await,
            None => None,
        };
        let queued = edge_status.as_deref().and_then(scrape::queued_records);
        let duplicates = ask(&world.cloud, scrape::METRICS_PATH).await;
        let duplicates = duplicates
            .as_deref()
            .and_then(|text| scrape::metric(text, scrape::DUPLICATES));
        let appended = world
            .log_records()
            .await
            .unwrap_or(0)
            .saturating_sub(world.log_before.unwrap_or(0));
        let (totals, delivered) = {
            let ledger = lock(&world.ledger);
            (ledger.totals(), ledger.deliveries(world.live.key))
        };
        let now = Instant::now();
        format!(
            "{:3} s  published {:5.0}/s  acked {:5.0}/s  queued at edge {:>6}  into log {:5.0}/s  delivered {:5.0}/s  lag {:>6}  \
             dropped as known {}{}{}",
            (now - self.start).as_secs(),
            self.published.per_second(totals.published, now),
            self.acked.per_second(totals.acked, now),
            queued.map_or_else(|| "-".to_owned(), |queued| queued.to_string()),
            self.appended.per_second(appended, now),
            self.delivered.per_second(delivered, now),
            totals.acked.saturating_sub(delivered),
            duplicates.unwrap_or(0.0),
            if world.link_is_cut { "  [link cut]" } else { "" },
            if world.edge.is_none() { "  [edge down]" } else { "" },
        )
    }
}

async fn ask(node: &Node, path: &str) -> Option<String> {
    scrape::get(node.address("http").ok()?, path).await
}

/// Prints the books; true when they balance.
pub(super) async fn print_ledger(world: &World) -> bool {
    let after = world.log_records().await;
    let appended = after
        .zip(world.log_before)
        .map(|(after, before)| after.saturating_sub(before));
    let verdict = lock(&world.ledger).verdict();
    let totals = verdict.totals;
    let archive = lock(&world.ledger).judge(world.archive.key);
    println!("\nLedger");
    println!("  {:<34}{:>9}", "published by the devices", totals.published);
    println!("  {:<34}{:>9}", "acknowledged by the edge", totals.acked);
    let once = appended.map(|appended| appended.saturating_sub(archive.resent_by_device));
    match once {
        Some(once) => println!("  {:<34}{once:>9}", "in the cloud's log"),
        None => println!("  {:<34}{:>9}", "in the cloud's log", "unknown"),
    }
    for reader in &verdict.readers {
        print_reader(reader);
    }
    if archive.resent_by_device > 0 {
        println!(
            "  {} more are in the log a second time: devices sent them again (DUP), since a kill took their PUBACK",
            archive.resent_by_device
        );
    }
    let log_balances = once == Some(totals.published);
    let received_all = verdict
        .readers
        .iter()
        .all(|reader| reader.received == totals.published && reader.foreign == 0);
    let balanced = verdict.is_clean() && totals.acked == totals.published && log_balances && received_all;
    if balanced {
        println!("Published = acknowledged = in the log = received. Lost 0, doubled 0, order kept.");
    } else {
        println!(
            "THE BOOKS DO NOT BALANCE: unacknowledged {}, refused {}",
            verdict.unacked, totals.refused
        );
    }
    balanced
}

fn print_reader(reader: &ReaderVerdict) {
    let ReaderVerdict {
        name,
        received,
        lost,
        doubled,
        out_of_order,
        foreign,
        ..
    } = reader;
    let label = format!("received, {name}");
    let order = if *out_of_order == 0 {
        "order kept".to_owned()
    } else {
        format!("out of order {out_of_order}")
    };
    print!("  {label:<34}{received:>9}   lost {lost}, doubled {doubled}, {order}");
    println!(
        "{}",
        if *foreign == 0 {
            String::new()
        } else {
            format!(", foreign {foreign}")
        }
    );
}

/// Prints how to go on by hand.
pub(super) fn print_hints(world: &World) -> Result<(), DemoError> {
    let cloud_mqtt = world.cloud.address("mqtt")?;
    let cloud_http = world.cloud.address("http")?;
    println!("\nBoth nodes are still running. Try it by hand:");
    println!(
        "  mosquitto_sub -h 127.0.0.1 -p {} -q 1 -t '{TOPIC_PREFIX}/#' -v      # at the cloud",
        cloud_mqtt.port()
    );
    let edge_port = world.edge_mqtt.port();
    println!("  mosquitto_pub -h 127.0.0.1 -p {edge_port} -q 1 -t {TOPIC_PREFIX}/hand -m hello   # at the edge");
    println!("  curl -s http://{cloud_http}{}", scrape::STATUS_PATH);
    if let Some(edge) = &world.edge {
        println!("  curl -s http://{}/metrics | grep fellbeck_", edge.address("http")?);
        println!("  kill -9 {}      # the edge; and to start it again:", edge.pid());
        println!("  {}", world.edge_spec.shown()?);
    }
    println!("Ctrl-C ends it.");
    Ok(())
}
