//! Memory of connections that say nothing, and of sessions that are away with messages queued for them.
//!
//! In: a [`SessionsPlan`]. Out: a markdown table on stdout, progress on stderr, and whether every queued message came, once.
//! Both figures are the resident memory of one broker process (`VmRSS`), before and after. Each broker is fresh per figure.
//! The sessions come back at the end and are emptied, so that a broker that forgets messages does not look small.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::mosquitto::{self, Mosquitto};
use super::rig;
use super::suite::{BenchError, Side};
use crate::node::{Node, Programs};
use crate::qos::Qos;
use crate::raw::{RawClient, RawError};
use crate::wire::{self, Connect, PUBACK, Packet, Version};

const HOST: &str = "127.0.0.1";
/// Clients that connect, fill or drain at the same time.
const AT_ONCE: usize = 64;
/// A session that is not drained by then has lost messages.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
/// Nobody pings here; the longest keep-alive is more than any run takes.
const KEEP_ALIVE: u16 = u16::MAX;

/// What to open, and where.
#[derive(Debug, Clone)]
pub struct SessionsPlan {
    /// Idle connections.
    pub idle: usize,
    /// Persistent sessions that go away.
    pub sessions: usize,
    /// Messages queued for each of them.
    pub queued: usize,
    /// Payload bytes.
    pub size: usize,
    /// Where data directories are made.
    pub folder: PathBuf,
    /// Where the nodes' programs are.
    pub programs: Programs,
}

/// A broker under test.
enum Broker {
    Fellbeck(Box<Node>),
    Mosquitto(Mosquitto),
}

/// Resident memory in KiB at the points of interest.
#[derive(Debug, Default)]
struct Memory {
    fresh: u64,
    idle: u64,
    /// Fresh process of the second figure.
    empty: u64,
    sessions: u64,
    queued: u64,
    drained: u64,
}

/// Runs both figures on both brokers and prints the table; true when no queued message was lost or doubled.
pub async fn run(plan: &SessionsPlan) -> Result<bool, BenchError> {
    let mut rows = Vec::new();
    let mut complete = true;
    for side in [Side::Mosquitto, Side::Fellbeck] {
        let mut memory = Memory::default();
        measure_idle(side, plan, &mut memory).await?;
        eprintln!("{side:?}: {} idle connections: {memory:?}", plan.idle);
        let came = measure_queued(side, plan, &mut memory).await?;
        eprintln!("{side:?}: {came} messages came: {memory:?}");
        complete &= came == plan.sessions * plan.queued;
        rows.push((side, memory, came));
    }
    print(plan, &rows).await;
    Ok(complete)
}

async fn measure_idle(side: Side, plan: &SessionsPlan, memory: &mut Memory) -> Result<(), BenchError> {
    let folder = folder(plan)?;
    let broker = Broker::start(side, plan, folder.path()).await?;
    let port = broker.port()?;
    memory.fresh = broker.resident_kib()?;
    let open = each(plan.idle, move |index| async move {
        let (client, _) = connect(port, &format!("idle-{index}"), true).await?;
        Ok(client)
    })
    .await?;
    memory.idle = broker.resident_kib()?;
    drop(open);
    broker.stop().await
}

/// Messages that came in the end.
async fn measure_queued(side: Side, plan: &SessionsPlan, memory: &mut Memory) -> Result<usize, BenchError> {
    let folder = folder(plan)?;
    let broker = Broker::start(side, plan, folder.path()).await?;
    let port = broker.port()?;
    memory.empty = broker.resident_kib()?;
    each(plan.sessions, move |index| subscribe_and_leave(port, index)).await?;
    memory.sessions = broker.resident_kib()?;
    let (queued, size) = (plan.queued, plan.size);
    each(plan.sessions, move |index| fill(port, index, queued, size)).await?;
    memory.queued = broker.resident_kib()?;
    let came = each(plan.sessions, move |index| drain(port, index, queued)).await?;
    memory.drained = broker.resident_kib()?;
    broker.stop().await?;
    Ok(came.into_iter().sum())
}

/// Runs `work` for each index, some at a time, and keeps what they return.
async fn each<T, F>(count: usize, work: impl Fn(usize) -> F) -> Result<Vec<T>, RawError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, RawError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done = Vec::with_capacity(count);
    for index in 0..count {
        if running.len() >= AT_ONCE {
            done.push(ended(running.join_next().await)?);
        }
        running.spawn(work(index));
    }
    while !running.is_empty() {
        done.push(ended(running.join_next().await)?);
    }
    Ok(done)
}

fn ended<T>(task: Option<Result<Result<T, RawError>, tokio::task::JoinError>>) -> Result<T, RawError> {
    task.expect("a task is running")
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

async fn connect(port: u16, client_id: &str, clean: bool) -> Result<(RawClient, bool), RawError> {
    let connect = Connect {
        version: Version::V4,
        client_id,
        clean,
        keep_alive: KEEP_ALIVE,
        session_expiry: 0,
    };
    RawClient::connect(HOST, port, &connect).await
}

fn topic(index: usize) -> String {
    format!("sessions/{index}")
}

async fn subscribe_and_leave(port: u16, index: usize) -> Result<(), RawError> {
    let (mut client, _) = connect(port, &format!("session-{index}"), false).await?;
    let mut bytes = Vec::new();
    wire::put_subscribe(&mut bytes, Version::V4, 1, &topic(index), Qos::AtLeastOnce);
    client.write(&bytes).await?;
    loop {
        match client.next_packet()? {
            Some(Packet::SubAck { code, .. }) if code >= 0x80 => return Err(RawError::Subscription { code }),
            Some(Packet::SubAck { .. }) => break,
            Some(_) => {}
            None => client.read_more().await?,
        }
    }
    leave(client).await
}

async fn leave(mut client: RawClient) -> Result<(), RawError> {
    let mut bytes = Vec::new();
    wire::put_disconnect(&mut bytes);
    client.write(&bytes).await?;
    // The broker closes once it has taken the DISCONNECT.
    loop {
        match client.read_more().await {
            Ok(()) => {}
            Err(RawError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Publishes the messages of one session, all in flight at once, and waits for their acks.
async fn fill(port: u16, index: usize, queued: usize, size: usize) -> Result<(), RawError> {
    let (mut client, _) = connect(port, &format!("filler-{index}"), true).await?;
    let mut bytes = Vec::new();
    let mut payload = vec![b'x'; size];
    for number in 0..queued {
        let stamp = (number as u64).to_be_bytes();
        let stamped = size.min(stamp.len());
        payload[..stamped].copy_from_slice(&stamp[stamp.len() - stamped..]);
        let (id_at, _) = wire::put_publish(&mut bytes, Version::V4, &topic(index), Qos::AtLeastOnce, &payload);
        bytes[id_at..id_at + 2].copy_from_slice(&packet_id(number).to_be_bytes());
    }
    client.write(&bytes).await?;
    let mut acked = 0;
    while acked < queued {
        match client.next_packet()? {
            Some(Packet::Ack { kind: PUBACK, .. }) => acked += 1,
            Some(_) => {}
            None => client.read_more().await?,
        }
    }
    leave(client).await
}

fn packet_id(number: usize) -> u16 {
    u16::try_from(number % 60_000).expect("below 60,000") + 1
}

/// Comes back, takes and acknowledges what is there. Returns how many different messages came.
async fn drain(port: u16, index: usize, queued: usize) -> Result<usize, RawError> {
    let (mut client, _) = connect(port, &format!("session-{index}"), false).await?;
    let mut came = 0;
    let all = async {
        while came < queued {
            let mut acks = Vec::new();
            while let Some(packet) = client.next_packet()? {
                if let Packet::Publish { packet_id, dup, .. } = packet {
                    wire::put_ack(&mut acks, PUBACK, packet_id);
                    came += usize::from(!dup);
                }
            }
            if acks.is_empty() {
                client.read_more().await?;
            } else {
                client.write(&acks).await?;
            }
        }
        Ok::<_, RawError>(())
    };
    match timeout(DRAIN_WITHIN, all).await {
        Ok(result) => result?,
        // The sum shows what is missing.
        Err(_) => eprintln!("session {index}: {came} of {queued} messages came"),
    }
    leave(client).await?;
    Ok(came)
}

fn folder(plan: &SessionsPlan) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("fellbeck-bench-")
        .tempdir_in(&plan.folder)
}

impl Broker {
    async fn start(side: Side, plan: &SessionsPlan, folder: &Path) -> Result<Self, BenchError> {
        Ok(match side {
            Side::Fellbeck => {
                let connections = format!("mqtt.connections_max={}", plan.idle + AT_ONCE);
                let sessions = format!("session.sessions_max={}", plan.idle.max(plan.sessions) + AT_ONCE);
                let node = rig::edge_alone_with(&plan.programs, folder, &[&connections, &sessions]).await?;
                Self::Fellbeck(Box::new(node))
            }
            Side::Mosquitto => Self::Mosquitto(Mosquitto::start(folder).await?),
        })
    }

    fn port(&self) -> Result<u16, BenchError> {
        Ok(match self {
            Self::Fellbeck(node) => node.address("mqtt")?.port(),
            Self::Mosquitto(broker) => broker.port,
        })
    }

    fn resident_kib(&self) -> io::Result<u64> {
        let pid = match self {
            Self::Fellbeck(node) => node.pid(),
            Self::Mosquitto(broker) => broker.pid(),
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        resident(&status).ok_or_else(|| io::Error::other("no VmRSS in /proc"))
    }

    async fn stop(self) -> Result<(), BenchError> {
        match self {
            Self::Fellbeck(mut node) => node.terminate().await?,
            Self::Mosquitto(broker) => broker.stop().await?,
        }
        Ok(())
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

async fn print(plan: &SessionsPlan, rows: &[(Side, Memory, usize)]) {
    let SessionsPlan {
        idle,
        sessions,
        queued,
        size,
        ..
    } = plan;
    let build = if cfg!(debug_assertions) {
        " (NOT A RELEASE BUILD)"
    } else {
        ""
    };
    println!(
        "firmware-sim {}{build}, mosquitto {} without persistence. Resident memory of the broker.\n\n\
         | broker | fresh | {idle} idle connections | per connection | {sessions} sessions away | {queued} messages of \
         {size} B queued for each | per message | drained | messages that came |\n|---|---|---|---|---|---|---|---|---|",
        env!("CARGO_PKG_VERSION"),
        mosquitto::version().await,
    );
    for (side, memory, came) in rows {
        let each = |grown: u64, count: usize| grown as f64 / count.max(1) as f64;
        println!(
            "| {side:?} | {:.1} MB | {:.1} MB | {:.2} KiB | {:.1} MB | {:.1} MB | {:.3} KiB | {:.1} MB | {came} |",
            megabytes(memory.fresh),
            megabytes(memory.idle),
            each(memory.idle.saturating_sub(memory.fresh), *idle),
            megabytes(memory.sessions),
            megabytes(memory.queued),
            each(memory.queued.saturating_sub(memory.sessions), sessions * queued),
            megabytes(memory.drained),
        );
    }
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_of_a_process() {
        assert_eq!(resident("VmPeak:\t  10 kB\nVmRSS:\t   4321 kB\n"), Some(4321));
        assert_eq!(resident("VmPeak:\t  10 kB\n"), None);
    }
}
