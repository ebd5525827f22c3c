//! A record: what a device published, as the log and the link carry it.

use crate::limits::{NAME_BYTES_MAX, PATH_NODES_MAX, TOPIC_BYTES_MAX};
use crate::topic::validate_topic_name;
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

/// A rule of MQTT or of the node that a record breaks. Such a record is never stored or delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The topic name is malformed, or belongs to the nodes themselves.
    #[error("topic name is malformed or reserved")]
    Topic,
    /// The device name is longer than an MQTT client ID.
    #[error("device name is too long")]
    Device,
    /// More nodes than any sound topology has.
    #[error("path names too many nodes")]
    Path,
    /// A property is repeated or has a value that MQTT does not allow.
    #[error("properties break MQTT's rules")]
    Properties,
    /// Topic, device, payload and properties together exceed what a batch holds.
    #[error("record is too large")]
    Size,
}

impl Record<'_> {
    /// Checks what the layout of a block does not: a record of another node may have been made by anybody.
    pub fn check(&self, bytes_max: usize) -> Result<(), RecordError> {
        let reserved = ["$SYS/", "$share/", "$fellbeck/"]
            .iter()
            .any(|prefix| self.topic.starts_with(prefix));
        if reserved || validate_topic_name(self.topic).is_err() {
            return Err(RecordError::Topic);
        }
        if self.device.len() > TOPIC_BYTES_MAX {
            return Err(RecordError::Device);
        }
        if self.path.split('/').count() > PATH_NODES_MAX || self.path.len() > PATH_NODES_MAX * NAME_BYTES_MAX {
            return Err(RecordError::Path);
        }
        if !self.properties.are_legal() {
            return Err(RecordError::Properties);
        }
        let bytes = self.topic.len() + self.device.len() + self.payload.len() + self.properties.as_bytes().len();
        if bytes > bytes_max {
            Err(RecordError::Size)
        } else {
            Ok(())
        }
    }

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

#[cfg(test)]
mod check_tests {
    use super::*;

    fn record(topic: &'static str) -> Record<'static> {
        Record {
            device: "d",
            topic,
            payload: b"p",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "edge",
        }
    }

    #[test]
    fn topics_of_the_nodes_and_malformed_ones_are_refused() {
        for topic in ["$fellbeck/gaps/x/y", "$SYS/uptime", "$share/g/t", "a/#", "", "a\0b"] {
            assert_eq!(record(topic).check(100), Err(RecordError::Topic), "{topic:?}");
        }
        assert_eq!(record("$site/x").check(100), Ok(()));
    }

    #[test]
    fn a_long_path_and_a_large_record_are_refused() {
        let path = ["n"; PATH_NODES_MAX + 1].join("/");
        let long = Record {
            path: &path,
            ..record("t")
        };
        assert_eq!(long.check(100), Err(RecordError::Path));
        assert_eq!(record("t").check(2), Err(RecordError::Size));
        assert_eq!(record("t").check(3), Ok(()));
    }

    #[test]
    fn properties_that_mqtt_allows_once_are_refused_twice() {
        let illegal: [&[u8]; 4] = [
            &[1, 2],
            &[1, 0, 1, 0],
            &[8, 0, 1, b'#'],
            &[3, 0, 1, b'a', 3, 0, 1, b'b'],
        ];
        for bytes in illegal {
            let properties = Properties::parse(bytes).unwrap();
            assert_eq!(
                Record {
                    properties,
                    ..record("t")
                }
                .check(100),
                Err(RecordError::Properties),
                "{bytes:?}"
            );
        }
        let properties = Properties::parse(&[1, 1, 8, 0, 1, b'r']).unwrap();
        assert_eq!(
            Record {
                properties,
                ..record("t")
            }
            .check(100),
            Ok(())
        );
    }
}
