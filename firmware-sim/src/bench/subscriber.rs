//! Subscribes, counts, acknowledges, and measures the age of what comes.
//!
//! In: a [`SubPlan`]. Out: a [`SubReport`], and a counter that can be watched meanwhile. Ages come from the stamp that
//! the load generator puts in front of the payload; both run on one clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::histogram::Histogram;
use crate::payload::now_us;
use crate::qos::Qos;
use crate::raw::{RawClient, RawError};
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version};

/// Older than this is no age but a payload without a stamp.
const AGE_MAX_US: u64 = 3_600_000_000;

/// Who listens to what.
#[derive(Debug, Clone)]
pub struct SubPlan {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Connections, all with the same filter.
    pub connections: usize,
    /// Topic filter.
    pub filter: String,
    /// Quality of service asked for.
    pub qos: Qos,
    /// Ends when so many messages have come, all connections together.
    pub expect: Option<u64>,
    /// Ends after this time at the latest.
    pub at_most: Duration,
}

/// What came.
#[derive(Debug, serde::Serialize)]
pub struct SubReport {
    /// Messages.
    pub messages: u64,
    /// From the first to the last message.
    pub seconds: f64,
    /// Messages per second between them.
    pub rate: f64,
    /// Age of the messages on arrival.
    pub age_p50_us: u64,
    /// See `age_p50_us`.
    pub age_p99_us: u64,
}

/// Counts until enough came or time is up. `subscribed` fires when all connections have their SUBACK.
pub async fn subscribe(
    plan: &SubPlan,
    received: &Arc<AtomicU64>,
    subscribed: oneshot::Sender<()>,
) -> Result<SubReport, RawError> {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for index in 0..plan.connections {
        let connection = Connection::open(plan, index, Arc::clone(received)).await?;
        tasks.spawn(connection.run(plan.expect, stopped.clone()));
    }
    // Nobody may be waiting for it.
    subscribed.send(()).ok();
    let end = Instant::now() + plan.at_most;
    let mut seen = Seen {
        messages: 0,
        first: None,
        last: None,
        ages: Histogram::new(),
    };
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => {
                    seen.merge(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
                    // The first to see that enough came tells the others.
                    stop.send_replace(true);
                }
            },
            () = sleep_until(end), if !*stop.borrow() => { stop.send_replace(true); }
        }
    }
    let elapsed = match (seen.first, seen.last) {
        (Some(first), Some(last)) => last - first,
        _ => Duration::ZERO,
    };
    Ok(SubReport {
        messages: seen.messages,
        seconds: elapsed.as_secs_f64(),
        rate: seen.messages as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
        age_p50_us: seen.ages.quantile(0.5),
        age_p99_us: seen.ages.quantile(0.99),
    })
}

struct Seen {
    messages: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    ages: Histogram,
}

impl Seen {
    fn merge(&mut self, other: Self) {
        self.messages += other.messages;
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.ages.merge(&other.ages);
    }
}

struct Connection {
    client: RawClient,
    received: Arc<AtomicU64>,
    seen: Seen,
    answers: Vec<u8>,
}

impl Connection {
    async fn open(plan: &SubPlan, index: usize, received: Arc<AtomicU64>) -> Result<Self, RawError> {
        let client_id = format!("bench-sub-{}-{index}", std::process::id());
        let connect = Connect {
            version: Version::V4,
            client_id: &client_id,
            clean: true,
            keep_alive: 600,
            session_expiry: 0,
        };
        let (mut client, _) = RawClient::connect(&plan.host, plan.port, &connect).await?;
        let mut bytes = Vec::new();
        wire::put_subscribe(&mut bytes, Version::V4, 1, &plan.filter, plan.qos);
        client.write(&bytes).await?;
        loop {
            match client.next_packet()? {
                Some(Packet::SubAck { code, .. }) if code >= 0x80 => return Err(RawError::Subscription { code }),
                Some(Packet::SubAck { .. }) => break,
                Some(_) => {}
                None => client.read_more().await?,
            }
        }
        let seen = Seen {
            messages: 0,
            first: None,
            last: None,
            ages: Histogram::new(),
        };
        Ok(Self {
            client,
            received,
            seen,
            answers: Vec::new(),
        })
    }

    async fn run(mut self, expect: Option<u64>, mut stopped: watch::Receiver<bool>) -> Result<Seen, RawError> {
        loop {
            self.take_packets()?;
            if !self.answers.is_empty() {
                self.client.write(&self.answers).await?;
                self.answers.clear();
            }
            if expect.is_some_and(|expect| self.received.load(Ordering::Relaxed) >= expect) {
                return Ok(self.seen);
            }
            tokio::select! {
                read = self.client.read_more() => read?,
                _ = stopped.wait_for(|stop| *stop) => return Ok(self.seen),
            }
        }
    }

    fn take_packets(&mut self) -> Result<(), RawError> {
        let now = now_us();
        let mut count = 0;
        while let Some(packet) = self.client.next_packet()? {
            match packet {
                Packet::Publish {
                    qos,
                    packet_id,
                    payload,
                    ..
                } => {
                    count += 1;
                    match qos {
                        Qos::AtMostOnce => {}
                        Qos::AtLeastOnce => wire::put_ack(&mut self.answers, PUBACK, packet_id),
                        Qos::ExactlyOnce => wire::put_ack(&mut self.answers, PUBREC, packet_id),
                    }
                    if let Some(age) = age_us(payload, now) {
                        self.seen.ages.record(age);
                    }
                }
                Packet::Ack {
                    kind: PUBREL,
                    packet_id,
                    ..
                } => wire::put_ack(&mut self.answers, PUBCOMP, packet_id),
                Packet::Disconnect { reason } => return Err(RawError::Disconnected { reason }),
                _ => {}
            }
        }
        if count > 0 {
            self.received.fetch_add(count, Ordering::Relaxed);
            self.seen.messages += count;
            let now = Instant::now();
            self.seen.first.get_or_insert(now);
            self.seen.last = Some(now);
        }
        Ok(())
    }
}

/// Age by the stamp in front of the payload; a stamp a little ahead of the clock counts as new.
fn age_us(payload: &[u8], now: u64) -> Option<u64> {
    let stamp = u64::from_be_bytes(*payload.first_chunk()?);
    (stamp.abs_diff(now) < AGE_MAX_US).then(|| now.saturating_sub(stamp))
}
