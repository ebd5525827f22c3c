//! A consumer that checks: it subscribes, acknowledges properly, and enters each message in the ledger.
//!
//! In: a subscription. Out: entries of one reader in the ledger. It speaks MQTT by hand, so that what it counts is what
//! the broker sent: rumqttc shows a QoS 2 message again when the broker repeats it, and trips over a PUBREL it forgot.
//! A QoS 2 message is delivered once per packet ID until its PUBREL, as in MQTT 4.3.3.
//! It reconnects for ever, until it is told to be gone.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::device::{SharedLedger, lock};
use crate::ledger::ReaderKey;
use crate::payload::{decode, now_us};
use crate::qos::Qos;
use crate::raw::{RawClient, RawError};
use crate::wire::{self, Connect, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version};

const KEEP_ALIVE: Duration = Duration::from_secs(20);
const RECONNECT_AFTER: Duration = Duration::from_millis(100);
const SESSION_EXPIRY_S: u32 = 3600;
const SUBSCRIBE_ID: u16 = 1;

/// How a consumer subscribes.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// Host name or address of the broker.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protocol version.
    pub version: Version,
    /// Client ID.
    pub client_id: String,
    /// Topic filter.
    pub filter: String,
    /// Highest QoS asked for.
    pub qos: Qos,
    /// Whether the session ends with the connection.
    pub clean: bool,
    /// Opens a book for each device that it meets: for `check`, which knows no fleet.
    pub discover: bool,
}

/// State of a consumer, as others may watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerState {
    /// No connection: why the last one ended.
    Away(String),
    /// Subscribed: messages come.
    Subscribed,
    /// The broker will not have the subscription: the consumer has ended.
    Refused(u8),
}

/// What a consumer is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Be connected.
    Here,
    /// Be disconnected, and keep what the session needs.
    Away,
    /// End.
    Gone,
}

/// Runs until it is told to be gone, or its sender is.
pub async fn run(
    spec: ConsumerSpec,
    reader: ReaderKey,
    ledger: SharedLedger,
    state: watch::Sender<ConsumerState>,
    mut presence: watch::Receiver<Presence>,
) {
    let mut consumer = Consumer {
        spec,
        reader,
        ledger,
        state,
        unreleased: HashSet::new(),
        answers: Vec::new(),
    };
    loop {
        let Ok(now) = presence
            .wait_for(|presence| *presence != Presence::Away)
            .await
            .map(|now| *now)
        else {
            return;
        };
        if now == Presence::Gone {
            return;
        }
        let ended = tokio::select! {
            Err(ended) = consumer.connection() => ended,
            left = left(&mut presence) => left,
        };
        tracing::debug!(consumer = %consumer.spec.client_id, error = %ended, "connection ended");
        if let RawError::Subscription { code } = ended {
            consumer.state.send_replace(ConsumerState::Refused(code));
            return;
        }
        consumer.state.send_replace(ConsumerState::Away(ended.to_string()));
        sleep(RECONNECT_AFTER).await;
    }
}

/// Waits until the consumer is told to leave its connection.
async fn left(presence: &mut watch::Receiver<Presence>) -> RawError {
    // A sender that is gone means the same; the caller asks again.
    presence
        .wait_for(|presence| *presence != Presence::Here)
        .await
        .map(drop)
        .ok();
    RawError::Left
}

struct Consumer {
    spec: ConsumerSpec,
    reader: ReaderKey,
    ledger: SharedLedger,
    state: watch::Sender<ConsumerState>,
    /// QoS 2 packet IDs delivered here and not yet released.
    unreleased: HashSet<u16>,
    /// Acknowledgements of one read, sent together.
    answers: Vec<u8>,
}

impl Consumer {
    /// One connection, to its end.
    async fn connection(&mut self) -> Result<std::convert::Infallible, RawError> {
        let spec = &self.spec;
        let connect = Connect {
            version: spec.version,
            client_id: &spec.client_id,
            clean: spec.clean,
            keep_alive: KEEP_ALIVE.as_secs() as u16,
            session_expiry: if spec.clean { 0 } else { SESSION_EXPIRY_S },
        };
        let (mut client, session_present) = RawClient::connect(&spec.host, spec.port, &connect).await?;
        if !session_present {
            self.unreleased.clear();
        }
        self.answers.clear();
        wire::put_subscribe(&mut self.answers, spec.version, SUBSCRIBE_ID, &spec.filter, spec.qos);
        let mut pings = interval(KEEP_ALIVE / 2);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.take_packets(&mut client)?;
            if !self.answers.is_empty() {
                client.write(&self.answers).await?;
                self.answers.clear();
            }
            tokio::select! {
                read = client.read_more() => read?,
                _ = pings.tick() => wire::put_ping(&mut self.answers),
            }
        }
    }

    /// Enters what one read brought, under one lock of the ledger, and collects the answers.
    fn take_packets(&mut self, client: &mut RawClient) -> Result<(), RawError> {
        let now = now_us();
        let mut ledger = lock(&self.ledger);
        while let Some(packet) = client.next_packet()? {
            match packet {
                Packet::Publish {
                    qos,
                    packet_id,
                    payload,
                    ..
                } => {
                    if let Some(kind) = answer_to(qos) {
                        wire::put_ack(&mut self.answers, kind, packet_id);
                    }
                    if qos == Qos::ExactlyOnce && !self.unreleased.insert(packet_id) {
                        continue;
                    }
                    let Ok(stamp) = decode(payload) else {
                        ledger.handle_received(self.reader, "", 0, 0);
                        continue;
                    };
                    if self.spec.discover {
                        ledger.device(&stamp.device);
                    }
                    ledger.handle_received(self.reader, &stamp.device, stamp.seq, now.saturating_sub(stamp.time_us));
                }
                Packet::Ack {
                    kind: PUBREL,
                    packet_id,
                    ..
                } => {
                    self.unreleased.remove(&packet_id);
                    wire::put_ack(&mut self.answers, PUBCOMP, packet_id);
                }
                Packet::SubAck { code, .. } if code >= 0x80 => return Err(RawError::Subscription { code }),
                Packet::SubAck { .. } => {
                    self.state.send_replace(ConsumerState::Subscribed);
                }
                Packet::Disconnect { reason } => return Err(RawError::Disconnected { reason }),
                Packet::ConnAck { .. } | Packet::Ack { .. } | Packet::Pong | Packet::Other => {}
            }
        }
        Ok(())
    }
}

fn answer_to(qos: Qos) -> Option<u8> {
    match qos {
        Qos::AtMostOnce => None,
        Qos::AtLeastOnce => Some(PUBACK),
        Qos::ExactlyOnce => Some(PUBREC),
    }
}
