//! How a world begins: tracks, lanes, streams, settings of the cores, devices.
//!
//! Bounds are tiny, so that each of them is reached.

use std::collections::HashMap;
use std::sync::Arc;

use fellbeck_broker::session::{CoreConfig, CoreLimits, Mode, Route, Terms};
use fellbeck_cloud::pure::{DeviceIds, GAPS_STREAM, Places, Scheme, Scope, Stream, Streams, WindowLimits};
use fellbeck_core::{Filter, TrackId};
use fellbeck_edge::pure::{LOCAL_LANE, Rule, RuleList, track_name};

use super::device::{Device, Side};
use super::dice::Dice;
use super::node::Node;
use super::plan::Plan;
use super::store::{Layout, MemStore};

fn limits() -> CoreLimits {
    CoreLimits {
        receive_maximum: 8,
        in_flight_max: 8,
        session_queue_records: 6,
        session_queue_bytes: 1 << 20,
        outstanding_max: 6,
        reads_max: 2,
        read_bytes: 300,
        live_window_bytes: 600,
        ..CoreLimits::default()
    }
}

/// The rules of the edge. All lanes wait for room: the store in memory knows no other policy.
#[derive(Clone)]
struct Rules(RuleList);

impl Route for Rules {
    fn route(&self, topic: &str, _device: &str) -> Option<TrackId> {
        self.0.route(topic)
    }

    fn terms(&self, track: TrackId) -> Terms {
        self.0.terms(track)
    }
}

/// No message of a world has a device message ID.
fn device_ids() -> DeviceIds {
    let scheme = Scheme {
        property: String::new(),
        scope: Scope::Device,
        cloud_events: false,
    };
    DeviceIds::new(scheme, WindowLimits { count: 1, age_ms: 1 })
}

/// Tracks, and how cores of the edge are made.
pub(crate) fn edge_node(plan: &Plan, devices: usize) -> Node {
    let mut tracks = vec![(track_name("default"), false)];
    if plan.lanes > 1 {
        tracks.push((track_name("alarms"), false));
    }
    tracks.push((track_name(LOCAL_LANE), true));
    let local = TrackId(tracks.len() as u32 - 1);
    let rule = |filter: &str, track| Rule {
        filter: Filter::parse(filter).expect("a filter"),
        track: TrackId(track),
        terms: Terms::default(),
    };
    let mut rules = vec![rule("#", 0)];
    if plan.lanes > 1 {
        rules.insert(0, rule("alarm/#", 1));
    }
    let rules = Rules(RuleList::new(rules));
    let make = move || {
        let config = CoreConfig {
            mode: Mode::ImmediateForClean,
            local_track: Some(local),
            limits: limits(),
        };
        (config, Box::new(rules.clone()) as Box<dyn Route>)
    };
    Node::new(
        MemStore::new(Layout::Edge, &tracks, plan),
        devices,
        plan.planted,
        Box::new(make),
    )
}

/// Streams of the cloud, its tracks, and how its cores are made.
pub(crate) fn cloud_node(plan: &Plan, devices: usize) -> (Node, Places) {
    let name = fellbeck_cloud::pure::track_name;
    let mut tracks: Vec<_> = (0..plan.partitions).map(|n| (name("default", n), false)).collect();
    let default = (0..plan.partitions).map(TrackId).collect();
    tracks.push((name("alarms", 0), false));
    let alarms = TrackId(tracks.len() as u32 - 1);
    tracks.push((name(GAPS_STREAM, 0), false));
    let gaps = TrackId(tracks.len() as u32 - 1);
    let stream = |name: &str, filter: &str, partitions| Stream {
        name: name.to_owned(),
        filters: vec![Filter::parse(filter).expect("a filter")],
        partitions,
    };
    let streams = Streams::new(vec![
        stream("alarms", "alarm/#", vec![alarms]),
        stream("default", "#", default),
    ]);
    let numbered = tracks.iter().enumerate();
    let track_names: HashMap<_, _> = numbered
        .map(|(at, (name, _))| (TrackId(at as u32), name.clone()))
        .collect();
    let places = Places {
        streams: streams.clone(),
        gaps,
        track_names: Arc::new(track_names),
        device_ids: Arc::new(device_ids()),
    };
    let make = move || {
        let config = CoreConfig {
            mode: Mode::CommittedOnly,
            local_track: None,
            limits: limits(),
        };
        (config, Box::new(streams.clone()) as Box<dyn Route>)
    };
    let store = MemStore::new(Layout::Cloud, &tracks, plan);
    (Node::new(store, devices, plan.planted, Box::new(make)), places)
}

pub(crate) fn devices(plan: &Plan, dice: &mut Dice) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for (side, is_reader, count) in [
        (Side::Edge, false, plan.edge_publishers),
        (Side::Edge, true, plan.edge_readers),
        (Side::Cloud, false, plan.cloud_publishers),
        (Side::Cloud, true, plan.cloud_readers),
    ] {
        for _ in 0..count {
            devices.push(Device::new(devices.len(), side, is_reader, dice));
        }
    }
    if plan.damage || plan.cloud_restore || plan.edge_restore {
        devices.iter_mut().for_each(Device::use_fresh_ids);
    }
    if plan.stuck_reader
        && let Some(reader) = devices.iter_mut().rev().find(|device| device.is_reader)
    {
        reader.is_stuck = true;
    }
    devices
}
