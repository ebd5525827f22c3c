//! The whole path: publishers at the edge, a subscriber at the far end.
//!
//! In: which pair of brokers. Out: one sample. Both pairs carry the same number of messages; the rate counts from the
//! first publish to the last arrival, the CPU is that of both brokers over the same time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::ingest::{join, pub_plan, start};
use super::mosquitto::Mosquitto;
use super::publisher::{PubPlan, Until};
use super::report::Sample;
use super::subscriber::{self, SubPlan, SubReport};
use super::suite::{BenchError, BenchPlan, Side};
use super::{cpu, rig};
use crate::node::Node;
use crate::qos::Qos;
use crate::raw::RawError;

/// A path that has not carried its messages by then is broken.
const WITHIN: Duration = Duration::from_secs(180);
/// A bridge needs some time until it carries the first message.
const PROBE_WITHIN: Duration = Duration::from_secs(20);
/// Load of the latency figure.
const CALM_RATE: f64 = 5_000.0;

/// Two brokers in a row.
enum Pair {
    /// Edge, cloud.
    Fellbeck(Box<[Node; 2]>),
    /// Near, far.
    Mosquitto(Box<[Mosquitto; 2]>),
}

impl Pair {
    async fn start(side: Side, plan: &BenchPlan, folder: &Path) -> Result<Self, BenchError> {
        match side {
            Side::Fellbeck => {
                let (edge, cloud) = rig::edge_and_cloud(&plan.programs, folder).await?;
                Ok(Self::Fellbeck(Box::new([edge, cloud])))
            }
            Side::Mosquitto => {
                let far = Mosquitto::start(folder).await?;
                let near = Mosquitto::start_bridge(folder, far.port).await?;
                Ok(Self::Mosquitto(Box::new([near, far])))
            }
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Fellbeck(_) => "fellbeck",
            Self::Mosquitto(_) => "mosquitto bridge",
        }
    }

    fn pids(&self) -> [u32; 2] {
        match self {
            Self::Fellbeck(nodes) => nodes.each_ref().map(Node::pid),
            Self::Mosquitto(brokers) => brokers.each_ref().map(Mosquitto::pid),
        }
    }

    /// MQTT ports of the near and the far end.
    fn ports(&self) -> Result<(u16, u16), BenchError> {
        Ok(match self {
            Self::Fellbeck(nodes) => (nodes[0].address("mqtt")?.port(), nodes[1].address("mqtt")?.port()),
            Self::Mosquitto(brokers) => (brokers[0].port, brokers[1].port),
        })
    }

    async fn stop(self) -> Result<(), BenchError> {
        match self {
            Self::Fellbeck(nodes) => {
                for mut node in *nodes {
                    node.kill().await?;
                }
            }
            Self::Mosquitto(brokers) => {
                for broker in *brokers {
                    broker.stop().await?;
                }
            }
        }
        Ok(())
    }
}

/// As fast as it goes.
pub(super) async fn measure(side: Side, plan: &BenchPlan, folder: &Path) -> Result<Sample, BenchError> {
    let pair = Pair::start(side, plan, folder).await?;
    let per_connection = plan.path_messages.div_ceil(plan.connections as u64);
    let messages = per_connection * plan.connections as u64;
    let load = pub_plan(pair.ports()?.0, Qos::AtLeastOnce, Until::Messages(messages), plan);
    let sample = carry(&pair, load, messages).await?;
    pair.stop().await?;
    Ok(sample)
}

/// At a calm, fixed rate.
pub(super) async fn measure_latency(side: Side, plan: &BenchPlan, folder: &Path) -> Result<Sample, BenchError> {
    let pair = Pair::start(side, plan, folder).await?;
    let connections = plan.connections as u64;
    let wanted = (CALM_RATE * plan.measure_for.as_secs_f64()) as u64;
    let messages = wanted.div_ceil(connections) * connections;
    let mut load = pub_plan(pair.ports()?.0, Qos::AtLeastOnce, Until::Messages(messages), plan);
    load.rate = Some(CALM_RATE);
    let sample = carry(&pair, load, messages).await?;
    pair.stop().await?;
    Ok(sample)
}

async fn carry(pair: &Pair, load: PubPlan, messages: u64) -> Result<Sample, BenchError> {
    let (near, far) = pair.ports()?;
    probe(pair, near, far, &load).await?;
    let received = Arc::new(AtomicU64::new(0));
    let subscriber = listen(far, &load.topic_prefix, Some(messages), WITHIN, Arc::clone(&received)).await?;
    let pids = pair.pids();
    let (cpu_before, since) = (cpu::used_by_all(&pids)?, Instant::now());
    let generator = start(load, Arc::new(AtomicU64::new(0)));
    let seen = join(subscriber).await?;
    let elapsed = since.elapsed();
    let cpu_used = cpu::used_by_all(&pids)? - cpu_before;
    join(generator).await?;
    if seen.messages < messages {
        let broker = pair.name();
        return Err(BenchError::Incomplete {
            broker,
            received: seen.messages,
            expected: messages,
            within: WITHIN,
        });
    }
    Ok(Sample {
        rate: messages as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu_used.as_secs_f64() * 1e6 / messages as f64,
        p50_us: seen.age_p50_us as f64,
        p99_us: seen.age_p99_us as f64,
    })
}

/// Sends single messages until one comes out at the far end.
async fn probe(pair: &Pair, near: u16, far: u16, load: &PubPlan) -> Result<(), BenchError> {
    let received = Arc::new(AtomicU64::new(0));
    let prefix = format!("probe-{}", load.topic_prefix);
    let subscriber = listen(far, &prefix, Some(1), PROBE_WITHIN, Arc::clone(&received)).await?;
    let deadline = Instant::now() + PROBE_WITHIN;
    while received.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
        let one = PubPlan {
            port: near,
            connections: 1,
            until: Until::Messages(1),
            rate: None,
            topic_prefix: prefix.clone(),
            ..load.clone()
        };
        join(start(one, Arc::new(AtomicU64::new(0)))).await?;
        sleep(Duration::from_millis(100)).await;
    }
    let seen = join(subscriber).await?;
    if seen.messages == 0 {
        return Err(BenchError::Incomplete {
            broker: pair.name(),
            received: 0,
            expected: 1,
            within: PROBE_WITHIN,
        });
    }
    Ok(())
}

/// Starts a subscriber on a thread of its own and waits for its SUBACK.
async fn listen(
    port: u16,
    prefix: &str,
    expect: Option<u64>,
    at_most: Duration,
    received: Arc<AtomicU64>,
) -> Result<JoinHandle<Result<SubReport, RawError>>, BenchError> {
    let plan = SubPlan {
        host: "127.0.0.1".to_owned(),
        port,
        connections: 1,
        filter: format!("{prefix}/#"),
        qos: Qos::AtLeastOnce,
        expect,
        at_most,
    };
    let (subscribed, awaited) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(subscriber::subscribe(&plan, &received, subscribed))
    });
    if awaited.await.is_err() {
        // It ended before it was subscribed: its own error says why.
        join(thread).await?;
        return Err(RawError::Closed.into());
    }
    Ok(thread)
}
