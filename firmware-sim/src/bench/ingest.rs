//! Ingest into one broker: CPU and rate over a span in the middle of the load.
//!
//! In: which broker, which QoS. Out: one sample. The load runs on a thread of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::mosquitto::Mosquitto;
use super::publisher::{self, PubPlan, PubReport, Until};
use super::report::Sample;
use super::suite::{BenchError, BenchPlan, Side};
use super::{cpu, rig};
use crate::qos::Qos;
use crate::raw::RawError;

/// Load before the measured span.
const WARM_UP: Duration = Duration::from_secs(1);

/// A load generator on its own thread.
pub(super) type Load = JoinHandle<Result<PubReport, RawError>>;

pub(super) async fn measure(side: Side, qos: Qos, plan: &BenchPlan, folder: &Path) -> Result<Sample, BenchError> {
    match side {
        Side::Mosquitto => {
            let broker = Mosquitto::start(folder).await?;
            let sample = load(broker.pid(), broker.port, qos, plan).await?;
            broker.stop().await?;
            Ok(sample)
        }
        Side::Fellbeck => {
            let mut edge = rig::edge_alone(&plan.programs, folder).await?;
            let sample = load(edge.pid(), edge.address("mqtt")?.port(), qos, plan).await?;
            edge.kill().await?;
            Ok(sample)
        }
    }
}

async fn load(pid: u32, port: u16, qos: Qos, plan: &BenchPlan) -> Result<Sample, BenchError> {
    let acked = Arc::new(AtomicU64::new(0));
    let until = Until::Elapsed(WARM_UP + plan.measure_for + WARM_UP / 2);
    let generator = start(pub_plan(port, qos, until, plan), Arc::clone(&acked));
    sleep(WARM_UP).await;
    let (cpu_before, acked_before, since) = (cpu::used_by(pid)?, acked.load(Ordering::Relaxed), Instant::now());
    sleep(plan.measure_for).await;
    let (cpu_after, acked_after) = (cpu::used_by(pid)?, acked.load(Ordering::Relaxed));
    let elapsed = since.elapsed();
    let report = join(generator).await?;
    let messages = (acked_after - acked_before).max(1) as f64;
    Ok(Sample {
        rate: messages / elapsed.as_secs_f64(),
        cpu_us: (cpu_after - cpu_before).as_secs_f64() * 1e6 / messages,
        p50_us: report.ack_p50_us as f64,
        p99_us: report.ack_p99_us as f64,
    })
}

pub(super) fn pub_plan(port: u16, qos: Qos, until: Until, plan: &BenchPlan) -> PubPlan {
    PubPlan {
        host: "127.0.0.1".to_owned(),
        port,
        connections: plan.connections,
        window: plan.window,
        size: plan.size,
        qos,
        until,
        rate: None,
        topic_prefix: "bench".to_owned(),
    }
}

/// Starts a load on a thread with a runtime of its own.
pub(super) fn start(plan: PubPlan, acked: Arc<AtomicU64>) -> Load {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(publisher::publish(&plan, &acked))
    })
}

/// Waits for a thread without holding up the runtime.
pub(super) async fn join<T: Send + 'static>(thread: JoinHandle<T>) -> T {
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
