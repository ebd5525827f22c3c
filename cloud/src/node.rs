//! The cloud node: the only place that knows all parts, in the order in which they start and stop.
//!
//! Start: identity, store, broker, link, HTTP, ready file. Stop: links end and their commits become durable, MQTT drains, the store
//! closes. Whatever part fails first ends the node with its reason; what was acknowledged is durable.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Json;
use axum::routing::get;
use fellbeck_broker::front::MqttServer;
use fellbeck_broker::session::{CoreConfig, CoreLimits, Mode, Route};
use fellbeck_core::Filter;
use fellbeck_node::ledger::{LedgerArgs, LedgerSource, ReaderSource};
use fellbeck_node::{
    BrokerParts, DefaultPorts, NodeError, block_on, join_all, listeners, refresh, start_http, start_mqtt, stop_mqtt,
    wait,
};
use fellbeck_ops::config::ConfigError;
use fellbeck_ops::http::HttpParts;
use fellbeck_ops::identity::CloudIdentity;
use fellbeck_ops::{Metrics, NodeClock, Readiness, ReadyFile, Shutdown, Signals, files};
use fellbeck_store::{OpenReport, Store, StoreConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::CloudConfig;
use crate::dedup::index::DeviceIds;
use crate::downlink::{self, Downlink};
use crate::gaps::GapList;
use crate::ingest::accept::{LinkParts, LinkServer};
use crate::ingest::append::Places;
use crate::ingest::edges::Edges;
use crate::ledger;
use crate::routing::{GAPS_STREAM, Stream, Streams, track_name};
use crate::status::{publish_health, status, sys_values};
use crate::token::remember_link_address;

/// Runs the node until a signal or a failure.
pub(crate) fn run(config: CloudConfig, ready_file: Option<&Path>) -> Result<(), NodeError> {
    let ready_file = ReadyFile::new(ready_file)?;
    let data_dir = config.data_dir.clone().ok_or(NodeError::NoDataDir)?;
    files::create_private_dir(&data_dir).map_err(|source| NodeError::DataDir {
        path: data_dir.clone(),
        source,
    })?;
    let metrics = Metrics::install();
    let (store, report) = fellbeck_store::open(&data_dir.join("store"), store_config(&config))?;
    tell(&report);
    let outcome = block_on(serve(&config, &data_dir, &store, metrics, &ready_file));
    store.close();
    if outcome.is_ok() {
        tracing::info!("stopped");
    }
    outcome
}

async fn serve(
    config: &CloudConfig,
    data_dir: &Path,
    store: &Store,
    metrics: Metrics,
    ready_file: &ReadyFile,
) -> Result<(), NodeError> {
    let mut signals = Signals::install().map_err(NodeError::Runtime)?;
    let clock = NodeClock::start();
    let identity = CloudIdentity::open(data_dir, config.link.given_ca().as_ref(), clock.wall())
        .map_err(|error| NodeError::Identity(error.to_string()))?;
    let openings = downlink::begin(store).await.map_err(NodeError::State)?;
    let streams = streams(config, store)?;
    let link = Arc::new(LinkParts {
        config: config.link.clone(),
        store: store.clone(),
        gaps: GapList::load(store, gaps_track(store)).map_err(|error| NodeError::State(error.to_string()))?,
        places: places(config, streams.clone(), store)?,
        edges: Edges::load(store).map_err(|error| NodeError::State(error.to_string()))?,
        identity,
        clock,
        downlink: OnceLock::new(),
        joins: Default::default(),
        live: AtomicUsize::new(0),
        strangers: AtomicUsize::new(0),
        failed: watch::Sender::new(None),
        noise: Default::default(),
    });
    let broker = broker_parts(config, streams, &link);
    let mqtt = start_mqtt(&config.mqtt, &config.session, broker, store)?;
    if let Some(mqtt) = &mqtt {
        let inside = mqtt.inside();
        link.downlink.set(Downlink { inside, openings }).ok();
    }
    let (leave, leaving) = Shutdown::manual();
    let (link_address, link_task) = start_link(config, data_dir, &link, leaving)?;
    let readers = mqtt.as_ref().map(MqttServer::books);
    let parts = http_parts(&link, metrics.clone(), readers);
    let http = start_http(&config.http, parts, &signals.shutdown).await?;
    let upkeep = metrics.spawn_upkeep(signals.shutdown.clone());

    let http_address = http.as_ref().map(|(address, _)| *address);
    let listeners = listeners(mqtt.as_ref(), &[("link", link_address), ("http", http_address)]);
    ready_file.write(&listeners)?;
    tracing::info!(?listeners, "ready");

    let failure = wait(&mut signals.shutdown, store, mqtt.as_ref(), link.failed.subscribe()).await;
    signals.trigger.stop();
    leave.stop();
    let tasks = [upkeep].into_iter().chain(link_task).chain(http.map(|(_, task)| task));
    let left = join_all(tasks.collect()).await;
    let drained = stop_mqtt(mqtt).await;
    failure.map_or(left.and(drained), Err)
}

fn store_config(config: &CloudConfig) -> StoreConfig {
    let streams = config.streams();
    let partitions = streams
        .iter()
        .flat_map(|stream| (0..stream.partitions).map(|n| track_name(&stream.name, n)));
    let tracks = partitions.chain([track_name(GAPS_STREAM, 0)]).collect();
    let bound = |bytes: u64| (bytes > 0).then_some(bytes);
    StoreConfig {
        segment_bytes: config.store.segment.0,
        quota_bytes: bound(config.store.quota.0),
        retention_bytes: bound(config.store.retention.0),
        retention_age: bound(config.store.retention_hours).map(|hours| Duration::from_secs(hours * 3600)),
        tail_bytes: config.store.tail.as_usize(),
        ..StoreConfig::cloud(tracks)
    }
}

/// `fellbeck-cloud ledger`.
pub(crate) fn ledger(config: &CloudConfig, args: &LedgerArgs) -> ExitCode {
    ledger::command(config, store_config(config), args)
}

fn streams(config: &CloudConfig, store: &Store) -> Result<Streams, NodeError> {
    let streams = config.streams().into_iter().map(|stream| {
        let filters = stream.filters.iter().map(|filter| {
            Filter::parse(filter).map_err(|error| ConfigError::invalid("stream.filters", filter, error.to_string()))
        });
        let partitions = (0..stream.partitions).map(|n| {
            store
                .track(&track_name(&stream.name, n))
                .expect("the store was opened with the partitions of the streams")
        });
        Ok(Stream {
            filters: filters.collect::<Result<_, _>>()?,
            partitions: partitions.collect(),
            name: stream.name,
        })
    });
    Ok(Streams::new(streams.collect::<Result<_, NodeError>>()?))
}

fn gaps_track(store: &Store) -> fellbeck_core::TrackId {
    let track = store.track(&track_name(GAPS_STREAM, 0));
    track.expect("the store was opened with the gaps stream")
}

fn places(config: &CloudConfig, streams: Streams, store: &Store) -> Result<Places, NodeError> {
    let gaps = gaps_track(store);
    let track_names: HashMap<_, _> = store.tracks().into_iter().collect();
    let device_ids = DeviceIds::load(store, config.dedup.scheme(), config.dedup.limits());
    let device_ids = device_ids.map_err(|error| NodeError::State(error.to_string()))?;
    Ok(Places {
        streams,
        gaps,
        track_names: Arc::new(track_names),
        device_ids: Arc::new(device_ids),
    })
}

/// One line on what was found, at the level that it deserves.
fn tell(report: &OpenReport) {
    if report.is_damaged() || report.lost_records() > 0 {
        tracing::error!(
            lost = report.lost_records(),
            ?report,
            "the store was damaged; edges send again what they still hold"
        );
    } else {
        tracing::info!(created = report.created, recovered = report.recovered.0, "store open");
    }
}

fn broker_parts(config: &CloudConfig, streams: Streams, link: &Arc<LinkParts>) -> BrokerParts {
    let link = link.clone();
    let limits = CoreLimits {
        live_window_bytes: config.store.tail.0,
        ..CoreLimits::default()
    };
    let core = CoreConfig {
        mode: Mode::CommittedOnly,
        local_track: None,
        limits,
    };
    BrokerParts {
        ports: DefaultPorts { ws: 8084, tls: 8884 },
        name: "cloud".into(),
        route: Box::new(move || Box::new(streams) as Box<dyn Route>),
        core,
        status: Box::new(move |_| sys_values(&link)),
    }
}

fn start_link(
    config: &CloudConfig,
    data_dir: &Path,
    link: &Arc<LinkParts>,
    leaving: Shutdown,
) -> Result<(Option<SocketAddr>, Option<JoinHandle<()>>), NodeError> {
    let Some(address) = config.link.listen.resolve("link.listen")? else {
        return Ok((None, None));
    };
    let server = LinkServer::bind(address, link)?;
    let bound = server.address();
    remember_link_address(data_dir, bound)?;
    Ok((Some(bound), Some(tokio::spawn(server.run(link.clone(), leaving)))))
}

fn http_parts(link: &Arc<LinkParts>, metrics: Metrics, readers: ReaderSource) -> HttpParts {
    let readiness = Readiness::new(&["store", "mqtt", "link"]);
    for part in ["store", "mqtt", "link"] {
        readiness.met(part);
    }
    let of_links = link.clone();
    let ledger = LedgerSource::new(&link.store, readers, move |store| {
        ledger::ledger(&of_links.edges, store)
    });
    let of_store = refresh(&link.store);
    let of_links = link.clone();
    let refresh = ledger.refresh(Arc::new(move || {
        of_store();
        publish_health(&of_links);
    }));
    let (link, listed) = (link.clone(), link.clone());
    let gaps = get(async move || Json(listed.gaps.to_json(&listed.store)));
    HttpParts {
        title: "fellbeck-cloud",
        readiness,
        metrics,
        refresh,
        status: Arc::new(move || status(&link)),
        extra: ledger.routes().route("/api/v1/gaps", gaps),
    }
}
