//! The edge node: the only place that knows all parts, in the order in which they start and stop.
//!
//! Start: store, broker, HTTP, uplink, ready file. Stop: MQTT drains and commits, the uplink leaves, the store closes.
//! Whatever part fails first ends the node with its reason; what was acknowledged is durable.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Json;
use axum::routing::get;
use fellbeck_broker::front::MqttServer;
use fellbeck_broker::session::{CoreConfig, CoreLimits, Mode, Route};
use fellbeck_core::Filter;
use fellbeck_link::limits::LANES_MAX;
use fellbeck_node::ledger::{LedgerArgs, LedgerSource, ReaderSource, ledger_command};
use fellbeck_node::{
    BrokerParts, DefaultPorts, NodeError, block_on, join_all, listeners, losses, refresh, start_http, start_mqtt,
    stop_mqtt, wait,
};
use fellbeck_ops::config::ConfigError;
use fellbeck_ops::http::{HttpParts, Refresh};
use fellbeck_ops::identity::EdgeKeys;
use fellbeck_ops::{Metrics, NodeClock, Readiness, ReadyFile, Shutdown, Signals, files};
use fellbeck_store::{OpenReport, Store, StoreConfig};
use serde_json::json;
use tokio::sync::watch;

use crate::config::{Durability, EdgeConfig};
use crate::downlink::{DownlinkParts, DownlinkState};
use crate::ledger::LaneBooks;
use crate::rules::{LOCAL_LANE, Rule, Rules, track_name};
use crate::status::{status, sys_values};
use crate::uplink::Uplink;
use crate::uplink::lanes::Lanes;
use crate::uplink::state::UplinkState;
use crate::wear::Wear;

/// Runs the node until a signal or a failure.
pub(crate) fn run(config: EdgeConfig, ready_file: Option<&Path>) -> Result<(), NodeError> {
    let ready_file = ReadyFile::new(ready_file)?;
    let data_dir = config.data_dir.clone().ok_or(NodeError::NoDataDir)?;
    files::create_private_dir(&data_dir).map_err(|source| NodeError::DataDir {
        path: data_dir.clone(),
        source,
    })?;
    let metrics = Metrics::install();
    let (store, report) = fellbeck_store::open(&data_dir.join("store"), store_config(&config))?;
    tell(&report);
    let lanes = Lanes::of(&store).specs().len();
    if lanes > LANES_MAX {
        let reason =
            format!("with those of earlier configurations there are {lanes} lanes; a link carries {LANES_MAX}");
        return Err(ConfigError::invalid("forward", lanes, reason).into());
    }
    let outcome = block_on(serve(&config, &data_dir, &store, metrics, &ready_file));
    store.close();
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

async fn serve(
    config: &EdgeConfig,
    data_dir: &Path,
    store: &Store,
    metrics: Metrics,
    ready_file: &ReadyFile,
) -> Result<(), NodeError> {
    let mut signals = Signals::install().map_err(NodeError::Runtime)?;
    let clock = NodeClock::start();
    let name = node_name(data_dir);
    let uplink_state = Arc::new(UplinkState::new());
    let broker = broker_parts(config, &name, store, &uplink_state)?;
    let mqtt = start_mqtt(&config.mqtt, &config.session, broker, store)?;
    let downlink_state = Arc::new(DownlinkState::default());
    let books = Arc::new(LaneBooks::load(store, &unwritten(config)));
    let shown = Shown {
        links: (uplink_state.clone(), downlink_state.clone()),
        books: books.clone(),
        readers: mqtt.as_ref().map(MqttServer::books),
        endurance: config.store.endurance.map(|bytes| bytes.0),
    };
    let parts = http_parts(&name, store, metrics.clone(), shown);
    let http = start_http(&config.http, parts, &signals.shutdown).await?;
    let upkeep = metrics.spawn_upkeep(signals.shutdown.clone());
    let downlink = mqtt.as_ref().map(|mqtt| DownlinkParts {
        config: config.downlink.clone(),
        inside: mqtt.inside(),
        store: store.clone(),
        clock: clock.clone(),
        state: downlink_state,
    });
    let uplink = Uplink {
        downlink,
        config: config.uplink.clone(),
        data_dir: data_dir.to_owned(),
        store: store.clone(),
        clock,
        state: uplink_state,
        books,
        heart_track: config
            .forward_rules()
            .first()
            .and_then(|rule| store.track(&track_name(&rule.lane))),
    };
    let (leave, leaving) = Shutdown::manual();
    let failed = watch::Sender::new(None);
    let broken = failed.subscribe();
    let uplink = tokio::spawn(watched(uplink.run(leaving), failed));

    let http_address = http.as_ref().map(|(address, _)| *address);
    let listeners = listeners(mqtt.as_ref(), &[("http", http_address)]);
    ready_file.write(&listeners)?;
    tracing::info!(?listeners, name, "ready");

    let failure = wait(&mut signals.shutdown, store, mqtt.as_ref(), broken).await;
    signals.trigger.stop();
    let drained = stop_mqtt(mqtt).await;
    leave.stop();
    let left = join_all([uplink, upkeep].into_iter().chain(http.map(|(_, task)| task)).collect()).await;
    failure.map_or(drained.and(left), Err)
}

/// Runs the uplink and reports when it ends in a panic: an edge that buffers for ever and forwards nothing must not look well.
async fn watched(uplink: impl Future<Output = ()> + Send + 'static, failed: watch::Sender<Option<String>>) {
    if tokio::spawn(uplink).await.is_err() {
        failed.send_replace(Some("the uplink has panicked".into()));
    }
}

/// The name in the certificate; before the edge has joined, a neutral one.
fn node_name(data_dir: &Path) -> String {
    match EdgeKeys::load(data_dir) {
        Ok(Some(keys)) => keys.identity.name.to_string(),
        Ok(None) | Err(_) => "edge".to_owned(),
    }
}

pub(crate) fn store_config(config: &EdgeConfig) -> StoreConfig {
    let rules = config.forward_rules();
    let mut policies: Vec<_> = rules
        .iter()
        .map(|rule| (track_name(&rule.lane), rule.policy()))
        .collect();
    policies.sort_by(|one, other| one.0.cmp(&other.0));
    policies.dedup_by(|one, other| one.0 == other.0);
    let mut tracks: Vec<String> = policies.iter().map(|(track, _)| track.clone()).collect();
    let local = track_name(LOCAL_LANE);
    tracks.push(local.clone());
    StoreConfig {
        sessions_only: vec![local],
        policies,
        segment_bytes: config.store.segment_bytes(),
        quota_bytes: Some(config.store.quota.0),
        reserve_bytes: config.store.reserve.0,
        grace_bytes: config.store.grace.0,
        session_pin_share: config.store.session_pin_share,
        tail_bytes: config.store.tail.as_usize(),
        ..StoreConfig::edge(tracks)
    }
}

/// One line on what was found, at the level that it deserves.
fn tell(report: &OpenReport) {
    let epoch = report.incarnation.map(|incarnation| incarnation.epoch.0);
    if report.is_damaged() || report.lost_records() > 0 {
        tracing::error!(
            ?epoch,
            lost = report.lost_records(),
            ?report,
            "the store was damaged; what is lost is declared as gaps"
        );
    } else {
        tracing::info!(
            ?epoch,
            created = report.created,
            recovered = report.recovered.0,
            "store open"
        );
    }
}

fn broker_parts(
    config: &EdgeConfig,
    name: &str,
    store: &Store,
    uplink: &Arc<UplinkState>,
) -> Result<BrokerParts, NodeError> {
    let uplink = uplink.clone();
    let rules = rules(config, store)?;
    let core = CoreConfig {
        mode: Mode::ImmediateForClean,
        local_track: store.track(&track_name(LOCAL_LANE)),
        limits: CoreLimits {
            live_window_bytes: config.store.tail.0,
            ..CoreLimits::default()
        },
    };
    Ok(BrokerParts {
        ports: DefaultPorts { ws: 8083, tls: 8883 },
        name: name.to_owned(),
        route: Box::new(move || Box::new(rules) as Box<dyn Route>),
        core,
        status: Box::new(move |stats| sys_values(stats, &uplink)),
    })
}

fn rules(config: &EdgeConfig, store: &Store) -> Result<Rules, NodeError> {
    let rules = config.forward_rules().into_iter().map(|rule| {
        let filter = Filter::parse(&rule.filter)
            .map_err(|error| ConfigError::invalid("forward.filter", &rule.filter, error.to_string()))?;
        let track = store
            .track(&track_name(&rule.lane))
            .expect("the store was opened with the lanes of the rules");
        let terms = rule.terms();
        Ok(Rule { filter, track, terms })
    });
    Ok(Rules::new(rules.collect::<Result<_, NodeError>>()?, store.clone()))
}

/// What the ledger, the status page and the metrics of the node are made of.
struct Shown {
    links: (Arc<UplinkState>, Arc<DownlinkState>),
    books: Arc<LaneBooks>,
    readers: ReaderSource,
    endurance: Option<u64>,
}

fn http_parts(name: &str, store: &Store, metrics: Metrics, shown: Shown) -> HttpParts {
    let readiness = Readiness::new(&["store", "mqtt"]);
    readiness.met("store");
    readiness.met("mqtt");
    let Shown {
        links: (uplink, downlink),
        books,
        readers,
        endurance,
    } = shown;
    let wear = Wear::start(store, endurance);
    let (of_store, of_wear) = (refresh(store), wear.clone());
    let refresh: Refresh = Arc::new(move || {
        of_store();
        of_wear.show();
    });
    let lost = store.clone();
    let gaps = get(async move || Json(json!({ "gaps": losses(&lost) })));
    let ledger = LedgerSource::new(store, readers, move |store| books.ledger(store));
    let refresh = ledger.refresh(refresh);
    let (name, store) = (name.to_owned(), store.clone());
    HttpParts {
        title: "fellbeck-edge",
        readiness,
        metrics,
        refresh,
        status: Arc::new(move || status(&name, &store, (&uplink, &downlink), &wear)),
        extra: ledger.routes().route("/api/v1/gaps", gaps),
    }
}

/// Tracks of the lanes that are kept in memory only.
fn unwritten(config: &EdgeConfig) -> Vec<String> {
    let rules = config.forward_rules().into_iter();
    let in_memory = rules.filter(|rule| rule.durability == Durability::Memory);
    in_memory.map(|rule| track_name(&rule.lane)).collect()
}

/// `fellbeck-edge ledger`: the books of the running node, or of its store at rest.
pub(crate) fn ledger(config: &EdgeConfig, args: &LedgerArgs) -> ExitCode {
    let open = || {
        let data_dir = config.data_dir.as_ref().ok_or(NodeError::NoDataDir)?;
        Ok(fellbeck_store::open(&data_dir.join("store"), store_config(config))?.0)
    };
    let make = |store: &Store| Ok(LaneBooks::load(store, &unwritten(config)).ledger(store));
    ledger_command(args, &config.http.listen, open, make)
}
