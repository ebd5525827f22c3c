//! Settings of the MQTT front, already validated by the node's own configuration.
//!
//! Receive Maximum and the longest session expiry are limits of the session core, and announced from there. Each field says its
//! unit, its default and what it costs. Every bound here is enforced and counted when it is reached; `docs/limits.md` lists them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_core::ClockQuality;
use fellbeck_core::limits::TOPIC_LEVELS_MAX;
use rustls::ServerConfig;

use super::auth::{AllowAll, Authenticator};
use super::transport::Transport;

/// Settings of one MQTT server.
#[derive(Debug, Clone)]
pub struct MqttServerConfig {
    /// Addresses for MQTT over TCP; port 0 lets the system choose. There must be at least one address of any kind.
    pub listen: Vec<SocketAddr>,
    /// Addresses for MQTT over TLS; they need `tls`. Default: none.
    pub tls_listen: Vec<SocketAddr>,
    /// Addresses for MQTT over WebSocket. Default: none.
    pub ws_listen: Vec<SocketAddr>,
    /// Addresses for MQTT over WebSocket over TLS; they need `tls`. Default: none.
    pub wss_listen: Vec<SocketAddr>,
    /// Origins (`https://example.org`) whose web pages may open a WebSocket; others get 403. Clients that are not browsers send no
    /// origin, and are served. Default: empty, which is any.
    pub ws_origins: Vec<String>,
    /// Listeners that may be missing when their address is taken, with a warning. Default: none.
    pub optional: Vec<Transport>,
    /// Certificate, key and demands on clients of the TLS listeners.
    pub tls: Option<Arc<ServerConfig>>,
    /// New connections per second, over all listeners; more wait in the backlog of the system. 0: no bound. Default 1,000.
    pub connect_rate: u32,
    /// New connections that may come at once before the rate counts. Default 2,000.
    pub connect_burst: u32,
    /// Largest packet accepted, in bytes, fixed header included. Announced to MQTT 5 clients. Default 2 MiB.
    pub packet_max: u32,
    /// Open connections, handshakes included. Beyond it a new connection is closed at once. Default 10,000; each idle one
    /// costs about 10 kB.
    pub connections_max: usize,
    /// TLS handshakes in progress. Beyond it a new socket of a TLS listener is closed at once. Default 1,000; what each holds counts
    /// for `partial_bytes_max`.
    pub handshakes_max: usize,
    /// Time from accept to a whole CONNECT, TLS handshake and WebSocket upgrade included. Default 10 s.
    pub first_packet_timeout: Duration,
    /// Largest keep-alive, in seconds. A longer or absent one of an MQTT 5 client is replaced (Server Keep Alive); a 3.1.1
    /// client keeps its own. Default: none.
    pub keep_alive_max: Option<u16>,
    /// Topic Alias Maximum announced to MQTT 5 clients. Default 64; the cost is one topic name per alias in use.
    pub topic_alias_maximum: u16,
    /// Levels of a topic name; beyond it the client is told 0x90. Default 256, which is also the most that a filter may have.
    pub topic_levels_max: usize,
    /// Bytes in a connection's write buffer at which it counts as backlogged. Default 64 KiB.
    pub write_buffer_high: usize,
    /// A connection that has been backlogged for this long without falling below half of the bound is closed. Default 60 s.
    pub stalled_after: Duration,
    /// Bytes of packets that have not arrived whole, or wait for room, over all connections. Beyond it the connection that has
    /// held most of them for longest is closed with 0x97. Default 16 MiB; at least four times `packet_max` is used.
    pub partial_bytes_max: usize,
    /// A connection whose packet is not whole after this long is closed. Time in which nothing is read from it does not count.
    /// Default 30 s.
    pub partial_within: Duration,
    /// Commits handed to the store and not yet durable. Default 64.
    pub submissions_max: usize,
    /// Decides who may connect. Default: everybody, and no method of enhanced authentication is known.
    pub authenticator: Arc<dyn Authenticator>,
    /// How often the values below `$SYS` are brought up to date; at a multiple of a second. Zero: there are none. Default 10 s.
    pub sys_interval: Duration,
    /// What the node knows of its clock, asked once a second. Default: unknown.
    pub clock: fn() -> ClockQuality,
}

impl Default for MqttServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1883))],
            tls_listen: Vec::new(),
            ws_listen: Vec::new(),
            wss_listen: Vec::new(),
            ws_origins: Vec::new(),
            optional: Vec::new(),
            tls: None,
            connect_rate: 1000,
            connect_burst: 2000,
            packet_max: 2 << 20,
            connections_max: 10_000,
            handshakes_max: 1000,
            first_packet_timeout: Duration::from_secs(10),
            keep_alive_max: None,
            topic_alias_maximum: 64,
            topic_levels_max: Self::TOPIC_LEVELS_MAX,
            write_buffer_high: 64 << 10,
            stalled_after: Duration::from_secs(60),
            partial_bytes_max: 16 << 20,
            partial_within: Duration::from_secs(30),
            submissions_max: 64,
            authenticator: Arc::new(AllowAll),
            sys_interval: Duration::from_secs(10),
            clock: || ClockQuality::Unknown,
        }
    }
}

/// A WebSocket frame may hold this many packets of the largest size, and some more.
const PACKETS_PER_FRAME: u64 = 8;
const FRAME_ROOM: u64 = 64 << 10;

impl MqttServerConfig {
    /// Most levels that a topic or a filter may have at all.
    pub const TOPIC_LEVELS_MAX: usize = TOPIC_LEVELS_MAX;

    /// Addresses of the listeners of one kind.
    pub(super) fn addresses(&self, transport: Transport) -> &[SocketAddr] {
        match transport {
            Transport::Tcp => &self.listen,
            Transport::Tls => &self.tls_listen,
            Transport::Ws => &self.ws_listen,
            Transport::Wss => &self.wss_listen,
        }
    }

    /// Largest WebSocket frame. Frames are not kept, so this costs nothing; some clients send all that they have in one.
    pub(super) fn frame_max(&self) -> u64 {
        u64::from(self.packet_max) * PACKETS_PER_FRAME + FRAME_ROOM
    }
}
