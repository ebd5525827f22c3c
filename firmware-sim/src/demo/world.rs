//! The parts of the demo: two node processes, the forwarder between them, two consumers, one ledger.
//!
//! In: a plan, and acts of the script. Out: a running world whose parts the report reads.
//! Dropping it kills the nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Act, DemoError, DemoPlan};
use crate::consumer::{self, ConsumerSpec, ConsumerState, Presence};
use crate::device::{SharedLedger, lock};
use crate::fault::UdpProxy;
use crate::ledger::{Ledger, ReaderKey};
use crate::node::{Node, NodeSpec, Tier, free_port};
use crate::qos::{Qos, QosChoice};
use crate::scenario::{FleetPlan, VersionChoice};
use crate::scrape;
use crate::wire::Version;

/// Name under which the edge joins.
const EDGE_NAME: &str = "demo";
/// First level of the demo's topics.
pub(super) const TOPIC_PREFIX: &str = "demo";
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(10);
/// Span of open messages per device.
const WINDOW: u16 = 32;
/// An edge that cannot reach its cloud tries again soon: nobody wants to watch a long backoff.
const EDGE_SETTINGS: [&str; 2] = ["uplink.connect_timeout_ms=1000", "uplink.backoff_max_ms=500"];

/// A consumer and what it can be told.
pub(super) struct Listener {
    pub(super) key: ReaderKey,
    presence: watch::Sender<Presence>,
    state: watch::Receiver<ConsumerState>,
    task: JoinHandle<()>,
}

pub(super) struct World {
    pub(super) ledger: SharedLedger,
    pub(super) live: Listener,
    pub(super) archive: Listener,
    pub(super) cloud: Node,
    /// `None` between a kill and the restart.
    pub(super) edge: Option<Node>,
    pub(super) edge_mqtt: SocketAddr,
    pub(super) link_is_cut: bool,
    /// Records in the cloud's log before the first device published.
    pub(super) log_before: Option<u64>,
    pub(super) edge_spec: NodeSpec,
    proxy: UdpProxy,
    /// Removes the data when the demo ends.
    _temporary: Option<TempDir>,
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}

impl World {
    pub(super) async fn create(plan: &DemoPlan) -> Result<Self, DemoError> {
        let (root, temporary) = data_root(plan)?;
        let cloud_spec = NodeSpec {
            tier: Tier::Cloud,
            programs: plan.programs.clone(),
            data_dir: root.join("cloud"),
            settings: loopback(&["link.listen", "mqtt.listen", "http.listen"]),
        };
        let cloud = cloud_spec.start().await?;
        let proxy = UdpProxy::start(cloud.address("link")?).map_err(io_error("UDP forwarder"))?;
        println!(
            "-- cloud node: MQTT {}, link {}",
            cloud.address("mqtt")?,
            cloud.address("link")?
        );

        let edge_mqtt = SocketAddr::from(([127, 0, 0, 1], free_port().map_err(io_error("a port for the edge"))?));
        let mut settings = loopback(&["http.listen"]);
        settings.push(format!("mqtt.listen={edge_mqtt}"));
        settings.push(format!("uplink.cloud={}", proxy.address()));
        settings.extend(EDGE_SETTINGS.map(str::to_owned));
        let edge_spec = NodeSpec {
            tier: Tier::Edge,
            programs: plan.programs.clone(),
            data_dir: root.join("edge"),
            settings,
        };
        join(&cloud_spec, &edge_spec, proxy.address()).await?;
        let edge = edge_spec.start().await?;
        println!(
            "-- edge node: MQTT {edge_mqtt}, uplink through a forwarder at {}",
            proxy.address()
        );

        let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::default()));
        let mqtt = cloud.address("mqtt")?;
        let live = Listener::start("live, QoS 1", &ledger, spec(mqtt, plan.seed, Qos::AtLeastOnce));
        let archive = Listener::start("persistent, QoS 2", &ledger, spec(mqtt, plan.seed, Qos::ExactlyOnce));
        let mut world = Self {
            ledger,
            live,
            archive,
            edge: Some(edge),
            edge_mqtt,
            link_is_cut: false,
            log_before: None,
            edge_spec,
            cloud,
            proxy,
            _temporary: temporary,
        };
        world.live.await_subscribed().await?;
        world.archive.await_subscribed().await?;
        world.log_before = world.log_records().await;
        Ok(world)
    }

    pub(super) fn fleet_plan(&self, plan: &DemoPlan) -> FleetPlan {
        FleetPlan {
            host: self.edge_mqtt.ip().to_string(),
            port: self.edge_mqtt.port(),
            devices: plan.devices,
            rate: plan.rate,
            version: VersionChoice::Mix,
            // Only what is acknowledged can be balanced to the last message across a kill.
            qos: QosChoice::Acked,
            seed: plan.seed,
            topic_prefix: TOPIC_PREFIX.to_owned(),
            window: WINDOW,
            reconnect_every: Some(plan.publish_for.mul_f64(0.8).max(Duration::from_secs(1))),
        }
    }

    pub(super) async fn play(&mut self, act: Act) -> Result<(), DemoError> {
        match act {
            Act::CutLink | Act::HealLink => {
                self.link_is_cut = act == Act::CutLink;
                if self.link_is_cut {
                    self.proxy.cut()
                } else {
                    self.proxy.heal()
                }
            }
            Act::KillEdge => {
                if let Some(mut edge) = self.edge.take() {
                    edge.kill().await?;
                }
            }
            Act::StartEdge => self.edge = Some(self.edge_spec.start().await?),
            Act::LeaveArchive => {
                self.archive.presence.send_replace(Presence::Away);
            }
            Act::ReturnArchive => {
                self.archive.presence.send_replace(Presence::Here);
            }
        }
        Ok(())
    }

    /// Records ever appended to the cloud's log, as it says itself.
    pub(super) async fn log_records(&self) -> Option<u64> {
        let status = scrape::get(self.cloud.address("http").ok()?, scrape::STATUS_PATH).await?;
        scrape::log_records(&status)
    }

    pub(super) fn all_received(&self) -> bool {
        let ledger = lock(&self.ledger);
        [&self.live, &self.archive]
            .into_iter()
            .all(|listener| ledger.is_complete(listener.key))
    }

    pub(super) async fn shut_down(mut self) -> Result<(), DemoError> {
        for listener in [self.live, self.archive] {
            listener.presence.send_replace(Presence::Gone);
            if let Err(error) = listener.task.await {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        if let Some(mut edge) = self.edge.take() {
            edge.terminate().await?;
        }
        Ok(self.cloud.terminate().await?)
    }
}

fn data_root(plan: &DemoPlan) -> Result<(PathBuf, Option<TempDir>), DemoError> {
    if let Some(path) = &plan.data_dir {
        std::fs::create_dir_all(path).map_err(io_error("data directory"))?;
        return Ok((path.clone(), None));
    }
    let temporary = tempfile::Builder::new()
        .prefix("fellbeck-demo-")
        .tempdir()
        .map_err(io_error("data directory"))?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

/// Port 0 for each listener.
fn loopback(listeners: &[&str]) -> Vec<String> {
    listeners
        .iter()
        .map(|listener| format!("{listener}=127.0.0.1:0"))
        .collect()
}

/// Enrols the edge, unless its data directory is from an earlier demo.
async fn join(cloud: &NodeSpec, edge: &NodeSpec, dial: SocketAddr) -> Result<(), DemoError> {
    if edge.data_dir.exists() {
        return Ok(());
    }
    let dial = dial.to_string();
    let printed = cloud
        .command(&["token", "create", "--edge", EDGE_NAME, "--address", &dial])
        .await?;
    let token = printed.split_whitespace().last().unwrap_or_default();
    edge.command(&["join", token]).await?;
    println!("-- the edge {EDGE_NAME:?} has joined with a one-time token");
    Ok(())
}

fn spec(broker: SocketAddr, seed: u64, qos: Qos) -> ConsumerSpec {
    let persistent = qos == Qos::ExactlyOnce;
    ConsumerSpec {
        host: broker.ip().to_string(),
        port: broker.port(),
        version: if persistent { Version::V4 } else { Version::V5 },
        client_id: format!("demo-{}-{seed}", if persistent { "archive" } else { "live" }),
        filter: format!("{TOPIC_PREFIX}/#"),
        qos,
        clean: !persistent,
        discover: false,
    }
}

impl Listener {
    fn start(name: &str, ledger: &SharedLedger, spec: ConsumerSpec) -> Self {
        let key = lock(ledger).reader(name);
        let (presence, follow) = watch::channel(Presence::Here);
        let (report, state) = watch::channel(ConsumerState::Away("not yet connected".to_owned()));
        let task = tokio::spawn(consumer::run(spec, key, Arc::clone(ledger), report, follow));
        Self {
            key,
            presence,
            state,
            task,
        }
    }

    async fn await_subscribed(&mut self) -> Result<(), DemoError> {
        let subscribed = self.state.wait_for(|state| *state == ConsumerState::Subscribed);
        match timeout(SUBSCRIBE_WITHIN, subscribed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(DemoError::Subscribe(SUBSCRIBE_WITHIN)),
        }
    }
}
