//! Commits of many ingests: what they hold of marks, and of records that a device had sent before.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use fellbeck_core::properties::{Property, put};
use fellbeck_core::{
    Batch, ClockQuality, Epoch, Filter, Position, Properties, QoS, Record, RecordBlockBuilder, Run, Seq, TrackId,
    WallTime,
};
use fellbeck_link::{Ingest, IngestEntry, LaneIndex};
use fellbeck_store::Space;

use super::append::{Appender, Built, Places};
use crate::dedup::device_id::{Scheme, Scope};
use crate::dedup::index::DeviceIds;
use crate::dedup::window::WindowLimits;
use crate::routing::{Stream, Streams, track_name};

const PARTITIONS: u32 = 3;

fn places() -> Places {
    let tracks: Vec<TrackId> = (0..PARTITIONS).map(TrackId).collect();
    let names = tracks.iter().map(|track| (*track, track_name("default", track.0)));
    let scheme = Scheme {
        property: "message-id".into(),
        scope: Scope::Device,
        cloud_events: true,
    };
    let limits = WindowLimits {
        count: 1_000,
        age_ms: 1_000_000,
    };
    Places {
        track_names: Arc::new(names.collect()),
        streams: Streams::new(vec![Stream {
            name: "default".into(),
            filters: vec![Filter::parse("#").unwrap()],
            partitions: tracks,
        }]),
        gaps: TrackId(PARTITIONS),
        device_ids: Arc::new(DeviceIds::new(scheme, limits)),
    }
}

/// Two messages of a lane from `first` on; they are named where `named` is set.
fn ingest(lane: &str, first: u64, named: bool) -> Ingest {
    let mut builder = RecordBlockBuilder::default();
    for seq in first..first + 2 {
        let mut block = Vec::new();
        if named {
            put(&mut block, &Property::User("message-id", &seq.to_string())).unwrap();
        }
        builder.push(&Record {
            device: &format!("d{}", if named { 0 } else { seq % 97 }),
            topic: "t",
            payload: b"x",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::parse(&block).unwrap(),
            accepted_at: WallTime(1),
            clock: ClockQuality::Synced,
            expiry_secs: None,
            origin: None,
            path: "",
        });
    }
    let batch = Batch::seal(Epoch(1), Seq(first), &builder.finish());
    Ingest {
        lane: LaneIndex(0),
        name: lane.into(),
        run: Run(0),
        entries: vec![IngestEntry::Batch {
            batch,
            skip: 0,
            sent_at: WallTime(1),
            received_at: WallTime(1),
        }],
        through: Position {
            epoch: Epoch(1),
            seq: Seq(first + 1),
        },
    }
}

fn build<'p>(places: &'p Places, edge: &str, ingest: &Ingest) -> Built<'p> {
    let marks = HashMap::new();
    let appender = Appender::new(places, (edge, 1), (&marks, None), WallTime(1), ClockQuality::Synced);
    appender.build(ingest).unwrap()
}

/// O(edges x lanes x partitions), however much was forwarded.
#[test]
fn marks_are_bounded_by_edges_lanes_and_partitions() {
    let places = places();
    let mut keys = BTreeSet::new();
    for round in 0..200 {
        for (edge, lane) in [("a", "default"), ("a", "alarms"), ("b", "default"), ("b", "alarms")] {
            let built = build(&places, edge, &ingest(lane, 1 + 2 * round, false));
            let marks = built.commit.puts.iter().filter(|put| put.space == Space::Mark);
            keys.extend(marks.map(|put| put.key.clone()));
        }
    }
    assert_eq!(keys.len(), 2 * 2 * (1 + PARTITIONS as usize));
}

/// I3: W moves over what is known, and nothing of it is appended, whichever edge brings it.
#[test]
fn a_known_message_moves_w_and_is_not_appended() {
    let places = places();
    let first = build(&places, "a", &ingest("default", 1, true));
    assert_eq!(first.commit.appends.len(), 1);
    first.intake.expect("it has identifiers").settle();
    let again = ingest("default", 1, true);
    let second = build(&places, "b", &again);
    assert!(second.commit.appends.is_empty());
    assert_eq!((second.tally.device_duplicates, second.tally.duplicates), (2, 0));
    assert_eq!(second.moved.w, again.through);
    drop(second);
    // Of a commit that the store did not take nothing is known.
    drop(build(&places, "a", &ingest("default", 11, true)));
    let retried = build(&places, "b", &ingest("default", 11, true));
    assert_eq!((retried.commit.appends.len(), retried.tally.device_duplicates), (1, 0));
}
