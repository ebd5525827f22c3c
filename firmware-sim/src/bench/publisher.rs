//! Publishes as fast as the window allows, or at a fixed rate.
//!
//! In: a [`PubPlan`]. Out: a [`PubReport`], and a counter that can be watched meanwhile.
//! Each connection keeps `window` publishes open; acks are counted in order, as MQTT asks for. Packets are prepared
//! once with different hexadecimal bodies (they compress about two to one) and copied; only packet ID and stamp change.
//! At QoS 0 a ping behind each write stands for the acks: without it, socket buffers would pass for a broker.
//! Payload: `time_us u64 BE | number u64 BE | body`; the stamp is left out where the size does not hold it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use crate::histogram::Histogram;
use crate::payload::now_us;
use crate::qos::Qos;
use crate::raw::{RawClient, RawError};
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version};

/// Different bodies per connection.
const VARIANTS: usize = 64;
/// Bytes of the stamp in the payload.
const STAMP_BYTES: usize = 16;
/// At QoS 0 so many windows are under way: each quarter of it has one ping.
const QOS_0_WINDOWS: u64 = 4;
/// While a broker acks one by one, acks are left to gather for so long; most of the window stays open meanwhile.
const PAUSE: Duration = Duration::from_millis(1);
/// Acks that are still open at the end may take this long.
const DRAIN: Duration = Duration::from_secs(10);

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many messages of all connections together.
    Messages(u64),
    /// So long.
    Elapsed(Duration),
}

/// A load.
#[derive(Debug, Clone)]
pub struct PubPlan {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Connections; each publishes to a topic of its own.
    pub connections: usize,
    /// Open publishes per connection.
    pub window: u16,
    /// Payload bytes.
    pub size: usize,
    /// Quality of service.
    pub qos: Qos,
    /// When to stop.
    pub until: Until,
    /// Messages per second of all connections together; without it, as fast as the window allows.
    pub rate: Option<f64>,
    /// Topics are `prefix/number of the connection`.
    pub topic_prefix: String,
}

/// What came of it.
#[derive(Debug, serde::Serialize)]
pub struct PubReport {
    /// Messages acknowledged; at QoS 0, those with an answered ping behind them.
    pub messages: u64,
    /// From the first publish to the last ack.
    pub seconds: f64,
    /// Messages per second.
    pub rate: f64,
    /// Time from the write to the ack.
    pub ack_p50_us: u64,
    /// See `ack_p50_us`.
    pub ack_p99_us: u64,
}

/// Runs the load; `acked` counts on while it runs.
pub async fn publish(plan: &PubPlan, acked: &Arc<AtomicU64>) -> Result<PubReport, RawError> {
    let together = Arc::new(Barrier::new(plan.connections));
    let mut tasks = JoinSet::new();
    for index in 0..plan.connections {
        let connection = Connection::open(plan, index, Arc::clone(acked)).await?;
        tasks.spawn(connection.run(Arc::clone(&together), plan.until, plan.connections));
    }
    let mut latency = Histogram::new();
    let (mut messages, mut seconds) = (0, 0.0_f64);
    while let Some(ended) = tasks.join_next().await {
        let outcome = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        latency.merge(&outcome.latency);
        messages += outcome.acked;
        seconds = seconds.max(outcome.elapsed.as_secs_f64());
    }
    Ok(PubReport {
        messages,
        seconds,
        rate: messages as f64 / seconds.max(f64::EPSILON),
        ack_p50_us: latency.quantile(0.5),
        ack_p99_us: latency.quantile(0.99),
    })
}

struct Outcome {
    acked: u64,
    elapsed: Duration,
    latency: Histogram,
}

/// One prepared packet.
struct Template {
    bytes: Vec<u8>,
    id_at: usize,
    payload_at: usize,
}

struct Connection {
    client: RawClient,
    templates: Vec<Template>,
    qos: Qos,
    window: u64,
    stamped: bool,
    /// Rate limit of this connection.
    ticks: Option<Interval>,
    sent: u64,
    acked: u64,
    /// Messages written together: when, and how many of them are open.
    open: VecDeque<(Instant, u64)>,
    latency: Histogram,
    watched: Arc<AtomicU64>,
    out: Vec<u8>,
}

impl Connection {
    async fn open(plan: &PubPlan, index: usize, watched: Arc<AtomicU64>) -> Result<Self, RawError> {
        let client_id = format!("bench-pub-{}-{index}", std::process::id());
        let connect = Connect {
            version: Version::V4,
            client_id: &client_id,
            clean: true,
            keep_alive: 600,
            session_expiry: 0,
        };
        let (client, _) = RawClient::connect(&plan.host, plan.port, &connect).await?;
        let window = u64::from(plan.window.max(1));
        let ticks = plan.rate.map(|rate| {
            let period = Duration::from_secs_f64(plan.connections as f64 / rate.clamp(0.001, 1e7));
            let phase = period.mul_f64(index as f64 / plan.connections as f64);
            let mut ticks = interval_at(Instant::now() + phase, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        });
        Ok(Self {
            client,
            templates: templates(plan, index),
            qos: plan.qos,
            window: if plan.qos == Qos::AtMostOnce {
                window * QOS_0_WINDOWS
            } else {
                window
            },
            stamped: plan.size >= STAMP_BYTES,
            ticks,
            sent: 0,
            acked: 0,
            open: VecDeque::new(),
            latency: Histogram::new(),
            watched,
            out: Vec::new(),
        })
    }

    /// Publishes until it is time to stop, then waits for what is open.
    async fn run(mut self, together: Arc<Barrier>, until: Until, connections: usize) -> Result<Outcome, RawError> {
        together.wait().await;
        let start = Instant::now();
        let (quota, end) = match until {
            Until::Messages(messages) => (messages.div_ceil(connections as u64), None),
            Until::Elapsed(elapsed) => (u64::MAX, Some(start + elapsed)),
        };
        let stop = sleep_until(end.unwrap_or(start + Duration::from_secs(24 * 3600)));
        tokio::pin!(stop);
        while self.sent < quota && end.is_none_or(|end| Instant::now() < end) {
            let room = self
                .window
                .saturating_sub(self.sent - self.acked)
                .min(quota - self.sent);
            if let Some(ticks) = &mut self.ticks
                && room > 0
            {
                tokio::select! {
                    _ = ticks.tick() => self.send(1).await?,
                    read = self.client.read_more() => { read?; self.take_acks().await?; }
                    () = &mut stop => break,
                }
                continue;
            }
            // Refilled by quarters, so that neither side pays a system call per message.
            if room > self.window / 4 || room == quota - self.sent {
                self.send_room(room).await?;
            } else {
                sleep(PAUSE).await;
            }
            tokio::select! {
                read = self.client.read_more() => read?,
                () = &mut stop => break,
            }
            self.take_acks().await?;
        }
        self.drain().await?;
        Ok(Outcome {
            acked: self.acked,
            elapsed: start.elapsed(),
            latency: self.latency,
        })
    }

    /// Fills the room: at once, or at QoS 0 in parts that each have a ping.
    async fn send_room(&mut self, room: u64) -> Result<(), RawError> {
        let part = if self.qos == Qos::AtMostOnce {
            self.window / QOS_0_WINDOWS
        } else {
            room
        };
        let mut left = room;
        while left > 0 {
            self.send(left.min(part)).await?;
            left = left.saturating_sub(part);
        }
        Ok(())
    }

    /// Writes `count` publishes with one call.
    async fn send(&mut self, count: u64) -> Result<(), RawError> {
        if count == 0 {
            return Ok(());
        }
        self.out.clear();
        let stamp = now_us().to_be_bytes();
        for _ in 0..count {
            let template = &self.templates[(self.sent % VARIANTS as u64) as usize];
            let at = self.out.len();
            self.out.extend_from_slice(&template.bytes);
            if self.qos != Qos::AtMostOnce {
                let packet_id = (self.sent % u64::from(u16::MAX)) as u16 + 1;
                self.out[at + template.id_at..][..2].copy_from_slice(&packet_id.to_be_bytes());
            }
            if self.stamped {
                let payload = &mut self.out[at + template.payload_at..];
                payload[..8].copy_from_slice(&stamp);
                payload[8..STAMP_BYTES].copy_from_slice(&self.sent.to_be_bytes());
            }
            self.sent += 1;
        }
        if self.qos == Qos::AtMostOnce {
            wire::put_ping(&mut self.out);
        }
        self.open.push_back((Instant::now(), count));
        self.client.write(&self.out).await
    }

    /// Counts what was read; answers PUBREC.
    async fn take_acks(&mut self) -> Result<(), RawError> {
        let (mut done, mut pongs) = (0, 0);
        self.out.clear();
        while let Some(packet) = self.client.next_packet()? {
            match packet {
                Packet::Ack {
                    kind: PUBACK | PUBCOMP, ..
                } => done += 1,
                Packet::Ack {
                    kind: PUBREC,
                    packet_id,
                    ..
                } => wire::put_ack(&mut self.out, PUBREL, packet_id),
                Packet::Pong => {
                    done += self.open.get(pongs).map_or(0, |(_, count)| *count);
                    pongs += 1;
                }
                _ => {}
            }
        }
        self.handle_done(done);
        if self.out.is_empty() {
            Ok(())
        } else {
            self.client.write(&self.out).await
        }
    }

    fn handle_done(&mut self, mut done: u64) {
        self.count_acked(done);
        let now = Instant::now();
        while done > 0
            && let Some((at, count)) = self.open.front_mut()
        {
            let taken = done.min(*count);
            self.latency.record_many((now - *at).as_micros() as u64, taken);
            *count -= taken;
            done -= taken;
            if *count == 0 {
                self.open.pop_front();
            }
        }
    }

    fn count_acked(&mut self, count: u64) {
        self.acked += count;
        self.watched.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until all is acknowledged.
    async fn drain(&mut self) -> Result<(), RawError> {
        let deadline = Instant::now() + DRAIN;
        while self.acked < self.sent {
            tokio::select! {
                read = self.client.read_more() => read?,
                () = sleep_until(deadline) => return Ok(()),
            }
            self.take_acks().await?;
        }
        Ok(())
    }
}

fn templates(plan: &PubPlan, index: usize) -> Vec<Template> {
    let mut random = StdRng::seed_from_u64(index as u64);
    let topic = format!("{}/{index}", plan.topic_prefix);
    let template = |_| {
        let body: Vec<u8> = (0..plan.size)
            .map(|_| b"0123456789abcdef"[random.random_range(0..16)])
            .collect();
        let mut bytes = Vec::new();
        let (id_at, payload_at) = wire::put_publish(&mut bytes, Version::V4, &topic, plan.qos, &body);
        Template {
            bytes,
            id_at,
            payload_at,
        }
    };
    (0..VARIANTS).map(template).collect()
}
