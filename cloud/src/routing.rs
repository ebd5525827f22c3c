//! Routing: which partition of which stream a record goes to.
//!
//! A stream is a named, ordered rule of topic filters with a number of partitions; the first stream that matches takes the record.
//! What no filter matches goes to the default stream, so that no record of an edge is without a place.
//! The partition is Kafka's murmur2 of the key, so that foreign producers and this node agree. The key is the device.
//! The table is fixed while the node runs.

use std::sync::Arc;

use fellbeck_broker::session::Route;
use fellbeck_core::murmur2::partition_for;
use fellbeck_core::{Filter, TrackId};

/// Stream that holds one record per declared gap of an edge's lane.
pub const GAPS_STREAM: &str = "fellbeck.gaps";

/// One stream with its partitions resolved to tracks of the store.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Name; also the Kafka topic.
    pub name: String,
    /// Topics that it takes.
    pub filters: Vec<Filter>,
    /// Track of each partition, by partition number. Not empty.
    pub partitions: Vec<TrackId>,
}

/// Name of the stream that takes what no other takes.
pub const DEFAULT_STREAM: &str = "default";

/// The ordered list of streams. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Streams {
    streams: Arc<[Stream]>,
    default: usize,
}

impl Streams {
    /// Streams in the order in which they are tried. One of them is named [`DEFAULT_STREAM`].
    pub fn new(streams: Vec<Stream>) -> Self {
        let default = streams.iter().position(|stream| stream.name == DEFAULT_STREAM);
        Self {
            streams: streams.into(),
            default: default.expect("the configuration always has a default stream"),
        }
    }

    /// Track of the partition that takes a record.
    pub fn track(&self, topic: &str, device: &str) -> TrackId {
        let matching = self
            .streams
            .iter()
            .find(|stream| stream.filters.iter().any(|filter| filter.matches(topic)));
        let stream = matching.unwrap_or(&self.streams[self.default]);
        let count =
            u32::try_from(stream.partitions.len()).expect("the configuration bounds the partitions of a stream");
        let partition = partition_for(device.as_bytes(), count);
        stream.partitions[partition.0 as usize]
    }
}

impl Route for Streams {
    fn route(&self, topic: &str, device: &str) -> Option<TrackId> {
        Some(self.track(topic, device))
    }
}

/// Name of the store's track for one partition of a stream.
pub fn track_name(stream: &str, partition: u32) -> String {
    format!("stream/{stream}/{partition}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> Streams {
        let stream = |name: &str, filter: &str, first: u32, count: u32| Stream {
            name: name.into(),
            filters: vec![Filter::parse(filter).unwrap()],
            partitions: (first..first + count).map(TrackId).collect(),
        };
        Streams::new(vec![
            stream("alarms", "+/alarm/#", 100, 1),
            stream("default", "#", 0, 8),
        ])
    }

    #[test]
    fn the_first_stream_that_matches_takes_the_record() {
        assert_eq!(streams().track("barn/alarm/fire", "d1"), TrackId(100));
        assert!(streams().track("barn/temp", "d1").0 < 8);
    }

    #[test]
    fn a_device_stays_in_its_partition_and_devices_spread() {
        let streams = streams();
        let track = |device: &str| streams.track("t", device);
        assert_eq!(track("d1"), track("d1"));
        let used: std::collections::BTreeSet<_> = (0..100).map(|n| track(&format!("device-{n}"))).collect();
        assert!(
            used.len() > 4,
            "a hundred devices use more than four of eight partitions"
        );
    }

    #[test]
    fn a_topic_that_no_filter_takes_goes_to_the_default_stream() {
        assert!(streams().track("$site/x", "d1").0 < 8);
    }
}
