//! A record: what a device published, as the log and the link carry it.

use crate::{ClockQuality, Epoch, Properties, Run, Seq, WallTime};

/// MQTT quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with the wire number `n`.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Where a record that came over the link was minted: the fields of its record ID, and the edge's name.
///
/// The lane is named, not numbered: numbers are private to a node's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Name of the edge, as the cloud knows it.
    pub edge: &'a str,
    /// Rises when an operator adopts a restored or cloned edge as new.
    pub instance: u32,
    /// Lane on that edge.
    pub lane: &'a str,
    /// Run within the lane.
    pub run: Run,
    /// Incarnation that minted the record.
    pub epoch: Epoch,
    /// Sequence number within lane and run.
    pub seq: Seq,
}

/// Borrowed view of one record; the owned form is a slot of a [`RecordBlock`](crate::RecordBlock).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// MQTT client ID of the publisher; the routing key unless the stream says otherwise.
    pub device: &'a str,
    /// Topic name, already validated.
    pub topic: &'a str,
    /// Application payload, opaque.
    pub payload: &'a [u8],
    /// QoS of the PUBLISH as it came in.
    pub qos: QoS,
    /// RETAIN flag of the PUBLISH as it came in.
    pub retain: bool,
    /// MQTT 5 properties that travel with the message.
    pub properties: Properties<'a>,
    /// When the first node took the message, on the clock of the node that holds this record.
    pub accepted_at: WallTime,
    /// What that node knew of its clock.
    pub clock: ClockQuality,
    /// Message Expiry Interval as published, in seconds from `accepted_at`.
    pub expiry_secs: Option<u32>,
    /// Set once the record has crossed a link; `None` where it was published to this node by MQTT.
    pub origin: Option<Origin<'a>>,
    /// Names of the nodes that the record has passed through, joined by `/`; empty where it was published here.
    pub path: &'a str,
}

impl Record<'_> {
    /// When the record expires, on the clock of the node that holds it; `None` where it never does.
    #[must_use]
    pub fn expires_at(&self) -> Option<WallTime> {
        let secs = self.expiry_secs.filter(|_| self.clock != ClockQuality::Unknown)?;
        Some(WallTime(self.accepted_at.0.saturating_add(u64::from(secs) * 1000)))
    }

    /// Seconds of the expiry interval that remain at `now`.
    ///
    /// `None`: no expiry was set. `Some(0)`: expired. While the clock quality is unknown nothing expires.
    #[must_use]
    pub fn remaining_expiry_secs(&self, now: WallTime) -> Option<u32> {
        let interval = self.expiry_secs?;
        if self.clock == ClockQuality::Unknown {
            return Some(interval.max(1));
        }
        let age = now.0.saturating_sub(self.accepted_at.0) / 1000;
        Some(interval.saturating_sub(u32::try_from(age).unwrap_or(u32::MAX)))
    }
}
