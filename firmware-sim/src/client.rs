//! The wall around rumqttc: one client for both protocol versions, with the traps of that library closed.
//!
//! In: publishes. Out: [`Event`]s. The crate has two trees of the same types; the macro below is their only twin here.
//!
//! Traps of rumqttc 0.25, each closed here or in `device`:
//! - it resends without DUP, in v5 in the order of packet IDs instead of the order of sending: [`Client::interrupt`]
//!   takes the requests out, and [`Client::resume`] puts them back sorted and marked;
//! - it forgets what is unacknowledged when the broker has no session: `resume` gives it back as new messages;
//! - it lets buffered events of a broken connection out after the next CONNACK: `interrupt` returns them first;
//! - `publish().await` in the polling task blocks for ever: only `try_publish`, on a channel as large as the window;
//! - a collision of packet IDs can lose a message: the window is smaller than the circle of packet IDs.

use std::time::Duration;

use rumqttc::mqttbytes::QoS as QosV4;
use rumqttc::v5::mqttbytes::QoS as QosV5;
use rumqttc::v5::mqttbytes::v5::{PubAck as PubAckV5, PubAckReason, PubRec as PubRecV5, PubRecReason};
use rumqttc::{NetworkOptions, Outgoing};

use crate::qos::Qos;
use crate::wire::Version;

/// Seconds that a v5 session outlives its connection.
const SESSION_EXPIRY_S: u32 = 3600;
/// Largest packet of a simulated device.
const PACKET_MAX: u32 = 1024 * 1024;

/// How to reach the broker, and as whom.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Client ID.
    pub client_id: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protocol version.
    pub version: Version,
    /// Largest span of open messages.
    pub window: u16,
    /// Keep-alive.
    pub keep_alive: Duration,
}

/// What happened on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// CONNACK with success.
    Connected {
        /// The broker kept the session.
        session_present: bool,
    },
    /// A PUBLISH was handed to the socket; packet ID 0 at QoS 0.
    Sent(u16),
    /// PUBACK.
    PubAck {
        /// Which publish.
        packet_id: u16,
        /// The reason code is no error.
        accepted: bool,
    },
    /// PUBREC.
    PubRec {
        /// Which publish.
        packet_id: u16,
        /// The reason code is no error.
        accepted: bool,
    },
    /// PUBCOMP.
    PubComp {
        /// Which publish.
        packet_id: u16,
    },
    /// Anything else.
    Other,
}

/// The request channel to the client is closed: its event loop is gone.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the MQTT client has stopped")]
pub struct Stopped;

/// Hands publishes to a [`Client`] from another task.
#[derive(Debug, Clone)]
pub enum Publisher {
    /// MQTT 3.1.1.
    V4(rumqttc::AsyncClient),
    /// MQTT 5.0.
    V5(rumqttc::v5::AsyncClient),
}

impl Publisher {
    /// Queues a publish. The channel is as large as the window, so that it is never full.
    pub fn try_publish(&self, topic: &str, qos: Qos, payload: Vec<u8>) -> Result<(), Stopped> {
        match self {
            Self::V4(client) => client
                .try_publish(topic, v4::qos(qos), false, payload)
                .map_err(|_| Stopped),
            Self::V5(client) => client
                .try_publish(topic, v5::qos(qos), false, payload)
                .map_err(|_| Stopped),
        }
    }

    /// Queues a DISCONNECT behind all publishes.
    pub fn try_disconnect(&self) -> Result<(), Stopped> {
        match self {
            Self::V4(client) => client.try_disconnect().map_err(|_| Stopped),
            Self::V5(client) => client.try_disconnect().map_err(|_| Stopped),
        }
    }
}

/// The polling side: owned by one task that does nothing but poll.
pub enum Client {
    /// MQTT 3.1.1.
    V4(Box<v4::Looped>),
    /// MQTT 5.0.
    V5(Box<v5::Looped>),
}

impl Client {
    /// A client that connects at the first poll.
    pub fn new(options: &ClientOptions) -> (Publisher, Self) {
        match options.version {
            Version::V4 => {
                let (client, event_loop) = rumqttc::AsyncClient::new(v4_options(options), channel_size(options));
                let mut looped = Box::new(v4::Looped::new(event_loop));
                looped.event_loop.set_network_options(network_options());
                (Publisher::V4(client), Self::V4(looped))
            }
            Version::V5 => {
                let (client, event_loop) = rumqttc::v5::AsyncClient::new(v5_options(options), channel_size(options));
                (Publisher::V5(client), Self::V5(Box::new(v5::Looped::new(event_loop))))
            }
        }
    }

    /// Waits for the next event, connecting when needed. After an error call [`Client::interrupt`], then poll again.
    pub async fn poll(&mut self) -> Result<Event, String> {
        match self {
            Self::V4(looped) => looped.poll().await,
            Self::V5(looped) => looped.poll().await,
        }
    }

    /// Drops the connection and takes back all that was under way. Returns the events that had happened before.
    pub fn interrupt(&mut self) -> Vec<Event> {
        match self {
            Self::V4(looped) => looped.interrupt(),
            Self::V5(looped) => looped.interrupt(),
        }
    }

    /// To be called at each [`Event::Connected`]: gives the client what [`Client::interrupt`] took, in the order of
    /// `rank` of the packet IDs.
    pub fn resume(&mut self, session_present: bool, rank: impl Fn(u16) -> u64) {
        match self {
            Self::V4(looped) => looped.resume(session_present, rank),
            Self::V5(looped) => looped.resume(session_present, rank),
        }
    }

    /// Moves what an interrupted client of the same version had under way into this fresh one.
    pub fn inherit(&mut self, other: Self) {
        match (self, other) {
            (Self::V4(looped), Self::V4(other)) => looped.held = other.held,
            (Self::V5(looped), Self::V5(other)) => looped.held = other.held,
            _ => unreachable!("a device never changes its protocol version"),
        }
    }
}

/// One more than the window, for the DISCONNECT.
fn channel_size(options: &ClientOptions) -> usize {
    usize::from(options.window) + 1
}

/// The circle of packet IDs is twice the window, so that no ID in use is met again.
fn packet_ids(options: &ClientOptions) -> u16 {
    options.window.saturating_mul(2)
}

fn network_options() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network
}

fn v4_options(options: &ClientOptions) -> rumqttc::MqttOptions {
    let mut mqtt = rumqttc::MqttOptions::new(&options.client_id, &options.host, options.port);
    mqtt.set_clean_session(false)
        .set_inflight(packet_ids(options))
        .set_keep_alive(options.keep_alive)
        .set_max_packet_size(PACKET_MAX as usize, PACKET_MAX as usize);
    mqtt
}

fn v5_options(options: &ClientOptions) -> rumqttc::v5::MqttOptions {
    let mut mqtt = rumqttc::v5::MqttOptions::new(&options.client_id, &options.host, options.port);
    mqtt.set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_keep_alive(options.keep_alive)
        .set_max_packet_size(Some(PACKET_MAX));
    mqtt.set_outgoing_inflight_upper_limit(packet_ids(options));
    mqtt.set_network_options(network_options());
    mqtt
}

/// An acknowledgement that may refuse the message. Version 4 knows no refusal.
trait Answer {
    fn accepted(&self) -> bool;
}

impl Answer for rumqttc::PubAck {
    fn accepted(&self) -> bool {
        true
    }
}

impl Answer for rumqttc::PubRec {
    fn accepted(&self) -> bool {
        true
    }
}

impl Answer for PubAckV5 {
    fn accepted(&self) -> bool {
        matches!(self.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers)
    }
}

impl Answer for PubRecV5 {
    fn accepted(&self) -> bool {
        matches!(self.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers)
    }
}

/// The same code over the twin types of rumqttc's two trees, which share no trait.
macro_rules! looped {
    ($module:ident, $tree:path, $packet:path, $qos:ident) => {
        /// An event loop and what was taken out of it.
        pub mod $module {
            use $packet as Packet;
            use $tree as tree;

            use super::{Answer, Event, Outgoing, Qos, $qos};

            /// See the module.
            pub struct Looped {
                pub(super) event_loop: tree::EventLoop,
                pub(super) held: Vec<tree::Request>,
            }

            pub(super) fn qos(qos: Qos) -> $qos {
                match qos {
                    Qos::AtMostOnce => $qos::AtMostOnce,
                    Qos::AtLeastOnce => $qos::AtLeastOnce,
                    Qos::ExactlyOnce => $qos::ExactlyOnce,
                }
            }

            fn event(event: &tree::Event) -> Event {
                match event {
                    tree::Event::Outgoing(Outgoing::Publish(packet_id)) => Event::Sent(*packet_id),
                    tree::Event::Incoming(Packet::ConnAck(connack)) => Event::Connected {
                        session_present: connack.session_present,
                    },
                    tree::Event::Incoming(Packet::PubAck(ack)) => Event::PubAck {
                        packet_id: ack.pkid,
                        accepted: ack.accepted(),
                    },
                    tree::Event::Incoming(Packet::PubRec(ack)) => Event::PubRec {
                        packet_id: ack.pkid,
                        accepted: ack.accepted(),
                    },
                    tree::Event::Incoming(Packet::PubComp(ack)) => Event::PubComp { packet_id: ack.pkid },
                    _ => Event::Other,
                }
            }

            impl Looped {
                pub(super) fn new(event_loop: tree::EventLoop) -> Self {
                    Self {
                        event_loop,
                        held: Vec::new(),
                    }
                }

                pub(super) async fn poll(&mut self) -> Result<Event, String> {
                    let next = self.event_loop.poll().await;
                    next.map(|next| event(&next)).map_err(|error| error.to_string())
                }

                pub(super) fn interrupt(&mut self) -> Vec<Event> {
                    self.event_loop.clean();
                    self.held.extend(self.event_loop.pending.drain(..));
                    self.event_loop
                        .state
                        .events
                        .drain(..)
                        .map(|next| event(&next))
                        .collect()
                }

                pub(super) fn resume(&mut self, session_present: bool, rank: impl Fn(u16) -> u64) {
                    let (mut sent, mut releases, mut unsent) = (Vec::new(), Vec::new(), Vec::new());
                    for request in self.held.drain(..) {
                        match request {
                            tree::Request::Publish(publish) if publish.pkid != 0 => sent.push(publish),
                            tree::Request::Publish(_) => unsent.push(request),
                            tree::Request::PubRel(_) if session_present => releases.push(request),
                            _ => {}
                        }
                    }
                    sent.sort_by_key(|publish| rank(publish.pkid));
                    for publish in &mut sent {
                        publish.dup = session_present;
                        if !session_present {
                            publish.pkid = 0;
                        }
                    }
                    let pending = &mut self.event_loop.pending;
                    pending.extend(releases);
                    pending.extend(sent.into_iter().map(tree::Request::Publish));
                    pending.extend(unsent);
                }
            }
        }
    };
}

looped!(v4, rumqttc, rumqttc::mqttbytes::v4::Packet, QosV4);
looped!(v5, rumqttc::v5, rumqttc::v5::mqttbytes::v5::Packet, QosV5);
