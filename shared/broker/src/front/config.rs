//! Settings of the MQTT front, already validated by the node's own configuration.
//!
//! Receive Maximum and the longest session expiry are limits of the session core, and announced from there. Each field says its unit, its default and what it costs. Every bound here is enforced and counted when it is reached.

use std::net::SocketAddr;
use std::time::Duration;

use fellbeck_core::ClockQuality;

/// Settings of one MQTT server.
#[derive(Debug, Clone)]
pub struct MqttServerConfig {
    /// Addresses to listen on; port 0 lets the system choose. At least one.
    pub listen: Vec<SocketAddr>,
    /// Largest packet accepted, in bytes, fixed header included. Announced to MQTT 5 clients. Default 2 MiB.
    pub packet_max: u32,
    /// Open connections, handshakes included. Beyond it a new connection is closed at once. Default 10,000; each idle one
    /// costs about 10 kB.
    pub connections_max: usize,
    /// Time from accept to a whole CONNECT. Default 10 s.
    pub first_packet_timeout: Duration,
    /// Largest keep-alive, in seconds. A longer or absent one of an MQTT 5 client is replaced (Server Keep Alive); a 3.1.1
    /// client keeps its own. Default: none.
    pub keep_alive_max: Option<u16>,
    /// Topic Alias Maximum announced to MQTT 5 clients. Default 64; the cost is one topic name per alias in use.
    pub topic_alias_maximum: u16,
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
    /// How often the values below `$SYS` are brought up to date; at a multiple of a second. Zero: there are none. Default 10 s.
    pub sys_interval: Duration,
    /// What the node knows of its clock, asked once a second. Default: unknown.
    pub clock: fn() -> ClockQuality,
}

impl Default for MqttServerConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1883))],
            packet_max: 2 << 20,
            connections_max: 10_000,
            first_packet_timeout: Duration::from_secs(10),
            keep_alive_max: None,
            topic_alias_maximum: 64,
            write_buffer_high: 64 << 10,
            stalled_after: Duration::from_secs(60),
            partial_bytes_max: 16 << 20,
            partial_within: Duration::from_secs(30),
            submissions_max: 64,
            sys_interval: Duration::from_secs(10),
            clock: || ClockQuality::Unknown,
        }
    }
}
