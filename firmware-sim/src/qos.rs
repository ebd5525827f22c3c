//! The three qualities of service, and how a device chooses among them.

use crate::model::Kind;

/// MQTT quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

impl Qos {
    /// The number on the wire.
    pub const fn level(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// From the number on the wire.
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// How a fleet publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum QosChoice {
    /// Everything at QoS 0.
    #[value(name = "0")]
    AtMostOnce,
    /// Everything at QoS 1.
    #[value(name = "1")]
    AtLeastOnce,
    /// Everything at QoS 2.
    #[value(name = "2")]
    ExactlyOnce,
    /// Heartbeats at QoS 0, telemetry at QoS 1, alarms at QoS 2.
    Mix,
    /// Telemetry and heartbeats at QoS 1, alarms at QoS 2: everything is acknowledged, so that books must balance.
    Acked,
}

impl QosChoice {
    /// The QoS of one reading.
    pub fn of(self, kind: Kind) -> Qos {
        match (self, kind) {
            (Self::AtMostOnce, _) | (Self::Mix, Kind::Heartbeat) => Qos::AtMostOnce,
            (Self::ExactlyOnce, _) | (Self::Mix | Self::Acked, Kind::Alarm) => Qos::ExactlyOnce,
            (Self::AtLeastOnce | Self::Mix | Self::Acked, _) => Qos::AtLeastOnce,
        }
    }
}
