//! The seam between the pure session core and the MQTT front: packets in plain form, and the port that sends them.
//!
//! Both MQTT versions share these types; the front translates. Nothing here knows a socket.

use fellbeck_core::{LogPosition, QoS, Record};

/// One network connection of this node, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1 (or 3.1).
    V3,
    /// MQTT 5.0.
    V5,
}

/// A CONNECT that the front has decoded and authenticated.
#[derive(Debug, Clone)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Client identifier; never empty (the front assigns one where the standard allows an empty one).
    pub client_id: String,
    /// Clean Start, or Clean Session for 3.1.1.
    pub clean_start: bool,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires. For 3.1.1: 0 with clean session, else `u32::MAX`.
    pub session_expiry_secs: u32,
    /// Receive Maximum of the client, at least 1. For 3.1.1: the node's configured window.
    pub receive_maximum: u16,
    /// Maximum Packet Size that the client accepts.
    pub packet_max: Option<u32>,
    /// The will, if any.
    pub will: Option<Will>,
}

/// A will message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic name, validated.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: QoS,
    /// Retain flag.
    pub retain: bool,
    /// Encoded properties that travel with it.
    pub properties: Vec<u8>,
    /// Message Expiry Interval in seconds.
    pub expiry_secs: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_secs: u32,
}

/// A PUBLISH from a client, borrowed from the read buffer.
#[derive(Debug, Clone, Copy)]
pub struct PublishIn<'a> {
    /// Topic name, alias resolved, validated.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
    /// Packet ID; `Some` for QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// Encoded properties that travel with the message.
    pub properties: &'a [u8],
    /// Message Expiry Interval in seconds.
    pub expiry_secs: Option<u32>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeIn {
    /// Topic filter as sent, `$share/...` included; not yet validated.
    pub filter: String,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local (5.0).
    pub no_local: bool,
    /// Retain As Published (5.0).
    pub retain_as_published: bool,
    /// Retain Handling (5.0): 0, 1 or 2.
    pub retain_handling: u8,
}

/// A SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet ID of the client.
    pub packet_id: u16,
    /// Subscription Identifier (5.0), not 0.
    pub subscription_id: Option<u32>,
    /// The filters, in order; at least one.
    pub filters: Vec<SubscribeIn>,
}

/// An UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet ID of the client.
    pub packet_id: u16,
    /// The filters as sent, in order; at least one.
    pub filters: Vec<String>,
}

/// A packet to a client.
#[derive(Debug, Clone, Copy)]
pub enum PacketOut<'a> {
    /// CONNACK. A reason other than 0 is followed by a close.
    ConnAck {
        /// Session Present.
        session_present: bool,
        /// Reason code of MQTT 5; the front maps it for 3.1.1.
        reason: u8,
    },
    /// PUBLISH.
    Publish(Delivery<'a>),
    /// PUBACK.
    PubAck {
        /// Packet ID of the client.
        packet_id: u16,
        /// Reason code of MQTT 5. A code of 0x80 or above is never sent to a 3.1.1 client: the core closes instead.
        reason: u8,
    },
    /// PUBREC.
    PubRec {
        /// Packet ID of the client.
        packet_id: u16,
        /// Reason code.
        reason: u8,
    },
    /// PUBREL.
    PubRel {
        /// Packet ID of the node.
        packet_id: u16,
        /// Reason code.
        reason: u8,
    },
    /// PUBCOMP.
    PubComp {
        /// Packet ID of the client.
        packet_id: u16,
        /// Reason code.
        reason: u8,
    },
    /// SUBACK.
    SubAck {
        /// Packet ID of the client.
        packet_id: u16,
        /// One reason code per filter.
        reasons: &'a [u8],
    },
    /// UNSUBACK; 3.1.1 has no codes.
    UnsubAck {
        /// Packet ID of the client.
        packet_id: u16,
        /// One reason code per filter.
        reasons: &'a [u8],
    },
}

/// An outbound PUBLISH.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Packet ID; `Some` for QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// DUP flag.
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// Topic, payload, properties.
    pub record: Record<'a>,
    /// Message Expiry Interval that remains, in seconds.
    pub expiry_secs: Option<u32>,
    /// Subscription Identifiers, one per matching subscription that has one.
    pub subscription_ids: &'a [u32],
    /// Place in the log; `None` for a retained message of a new subscription, and for what no log holds.
    pub position: Option<LogPosition>,
}

/// Why the core ends a connection. The front sends DISCONNECT with the code (5.0 only), then closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Reason code of MQTT 5; 0x00 closes without a DISCONNECT.
    pub reason: u8,
    /// Reason string and log text.
    pub text: &'static str,
}

/// The port through which the core speaks to connections. Calls for a connection that is gone are ignored.
pub trait Wire {
    /// Queues a packet for the connection. Returns false when the packet was not sent because it exceeds the client's Maximum
    /// Packet Size (a PUBLISH only); the core then treats it as delivered and counts it.
    fn send(&mut self, to: ConnId, packet: PacketOut<'_>) -> bool;

    /// True while the connection's write buffer is above its bound. The core sends no PUBLISH then, and goes on when the front
    /// calls `handle_writable`.
    fn is_backlogged(&self, to: ConnId) -> bool;

    /// Ends the connection. The core has already forgotten it.
    fn close(&mut self, to: ConnId, why: Close);

    /// The inflow with this number is durable, or need not be.
    fn inflow_taken(&mut self, _number: u64) {}
}
