//! The downlink as the core sees it: an edge that reads the cloud, and messages that come in from one.

use bytes::Bytes;
use fellbeck_core::{ClockQuality, Properties, QoS, Record, RecordBlock, RecordBlockBuilder, TrackId, WallTime};
use fellbeck_store::commit::Space;

use super::super::{EdgeScope, FROM_CLOUD, Inflow, Outcome, Pressure, edge_client_id};
use super::harness::*;
use crate::wire::{Connect, SubscribeIn};

fn record<'a>(topic: &'a str, payload: &'a str, path: &'a str) -> Record<'a> {
    Record {
        device: "far",
        topic,
        payload: payload.as_bytes(),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: Properties::default(),
        accepted_at: WallTime(1_700_000_000_000),
        clock: ClockQuality::Synced,
        expiry_secs: None,
        origin: None,
        path,
    }
}

fn block(records: &[Record<'_>]) -> RecordBlock {
    let mut builder = RecordBlockBuilder::default();
    records.iter().for_each(|record| builder.push(record));
    builder.finish()
}

fn inflow(number: u64, records: &[Record<'_>]) -> Inflow {
    Inflow {
        number,
        block: block(records),
        mark: Some((Bytes::from_static(b"mark"), Bytes::from(number.to_string()))),
    }
}

fn offer(world: &mut World, inflow: &Inflow) -> Outcome {
    world
        .core
        .handle_inflow(inflow, world.pressure, world.now, &mut world.tape)
}

fn edge_link(name: &str) -> Connect {
    Connect {
        client_id: edge_client_id(name),
        session_expiry_secs: u32::MAX,
        ..persistent("")
    }
}

fn wanted(filter: &str) -> Vec<SubscribeIn> {
    vec![SubscribeIn {
        retain_as_published: true,
        retain_handling: 1,
        ..sub(filter, 1)
    }]
}

/// The QoS 2 record is delivered under QoS 1, with its place in the log; what came from the edge itself, and by default what came
/// from other edges, is not delivered: neither live, nor from the log, nor as a retained message.
#[test]
fn an_edge_gets_what_was_published_here_and_nothing_that_came_from_it() {
    for catch_up in [false, true] {
        let mut world = World::new(cloud());
        let (publisher, _) = world.join(connect("publisher"));
        let (a, _) = world.join(edge_link("a"));
        let (b, _) = world.join(edge_link("b"));
        world.subscribe_with(a, Some(EdgeScope::Here as u32), wanted("log/#"));
        world.subscribe_with(b, Some(EdgeScope::All as u32), wanted("log/#"));
        if catch_up {
            world.cut(a);
            world.cut(b);
            world.settle();
        }
        world.tape.positions.clear();
        for path in ["a", "b", "c", "c/a"] {
            world
                .store
                .commit_foreign(TrackId(0), block(&[record("log/x", path, path)]));
            world.settle();
        }
        world.publish(publisher, "log/y", "here", 2);
        world.settle();
        world.take(publisher);
        let (a, b) = if catch_up {
            (world.join(edge_link("a")).0, world.join(edge_link("b")).0)
        } else {
            (a, b)
        };
        world.settle();
        let to_a = world.messages(a);
        assert_eq!(
            to_a.iter().map(|got| got.payload.as_str()).collect::<Vec<_>>(),
            ["here"]
        );
        assert_eq!(to_a[0].qos, 1);
        let to_b: Vec<_> = world.messages(b).into_iter().map(|got| got.payload).collect();
        assert_eq!(to_b, ["a", "c", "c/a", "here"], "catch up: {catch_up}");
        assert!(world.tape.positions.iter().all(Option::is_some));
    }
}

#[test]
fn an_edge_is_not_sent_its_own_retained_messages() {
    let mut world = World::new(edge());
    for (number, path) in [(1, "a"), (2, "b"), (3, "")] {
        let (topic, payload) = (format!("state/{path}"), format!("of {path}"));
        let kept = Record {
            retain: true,
            ..record(&topic, &payload, path)
        };
        assert_eq!(offer(&mut world, &inflow(number, &[kept])), Outcome::Done);
    }
    world.settle();
    for (name, scope, expected) in [
        ("a", EdgeScope::All, vec!["of ", "of b"]),
        ("b", EdgeScope::Here, vec!["of "]),
        ("c", EdgeScope::All, vec!["of ", "of a", "of b"]),
    ] {
        let (edge, _) = world.join(edge_link(name));
        world.subscribe_with(edge, Some(scope as u32), wanted("state/#"));
        assert_eq!(world.payloads(edge), expected, "{name}");
    }
}

/// Records, retained messages and the mark are one commit, and the answer follows it; no rule takes the records.
#[test]
fn an_inflow_is_one_commit_in_the_local_track_and_is_answered_after_it() {
    let mut world = World::new(edge());
    let (durable, _) = world.join(persistent("durable"));
    let (clean, _) = world.join(connect("clean"));
    world.subscribe(durable, "log/#", 2);
    world.subscribe(clean, "log/#", 2);
    let path = format!("b/{FROM_CLOUD}");
    let kept = Record {
        retain: true,
        ..record("log/kept", "k", &path)
    };
    offer(
        &mut world,
        &inflow(7, &[record("log/x", "x", &path), kept, record("other", "o", &path)]),
    );
    assert_eq!(world.payloads(clean), ["x", "k"], "from memory, before the commit");
    assert!(world.tape.inflows.is_empty());
    world.submit();
    assert_eq!(world.store.waiting(), 1, "one submission");
    world.settle();
    assert_eq!(world.tape.inflows, [7]);
    assert_eq!(world.consume(durable), ["x", "k"]);
    let logged: Vec<_> = world.store.log.iter().flat_map(|block| &block.tracks).collect();
    assert_eq!(logged.len(), 1);
    assert_eq!((logged[0].track, logged[0].block.len()), (LOCAL, 2));
    assert_eq!(logged[0].block.get(0).qos, QoS::ExactlyOnce);
    assert_eq!(world.stored(Space::Node)["mark"], b"7");
    assert_eq!(world.stored(Space::Retained).len(), 1);
}

#[test]
fn an_inflow_that_is_not_durable_is_gone_with_its_mark() {
    let mut world = World::new(edge());
    let (durable, _) = world.join(persistent("durable"));
    world.subscribe(durable, "log/#", 2);
    offer(&mut world, &inflow(1, &[record("log/x", "x", FROM_CLOUD)]));
    world.submit();
    world.crash();
    assert!(world.tape.inflows.is_empty());
    assert!(!world.stored(Space::Node).contains_key("mark"));
    let (durable, _) = world.join(persistent("durable"));
    assert_eq!(world.consume(durable), [""; 0]);
}

#[test]
fn under_pressure_an_inflow_that_needs_room_is_held_as_a_whole() {
    let mut world = World::new(edge());
    let (durable, _) = world.join(persistent("durable"));
    let (clean, _) = world.join(connect("clean"));
    world.subscribe(durable, "log/#", 1);
    world.subscribe(clean, "#", 1);
    world.pressure = Pressure::High;
    let whole = inflow(1, &[record("other", "o", FROM_CLOUD), record("log/x", "x", FROM_CLOUD)]);
    assert_eq!(offer(&mut world, &whole), Outcome::Hold);
    world.settle();
    assert_eq!(world.payloads(clean), [""; 0]);
    let free = Inflow {
        mark: None,
        ..inflow(2, &[record("other", "o", FROM_CLOUD)])
    };
    assert_eq!(offer(&mut world, &free), Outcome::Done);
    assert_eq!(world.tape.inflows, [2], "nothing to wait for");
    world.pressure = Pressure::Normal;
    assert_eq!(offer(&mut world, &whole), Outcome::Done);
    world.settle();
    assert_eq!(world.consume(durable), ["x"]);
}

/// No Local is about the clients of this node: one elsewhere may have the same name.
#[test]
fn no_local_leaves_in_what_came_from_elsewhere() {
    let mut world = World::new(edge());
    let (far, _) = world.join(connect("far"));
    let no_local = SubscribeIn {
        no_local: true,
        ..sub("#", 1)
    };
    world.subscribe_with(far, None, vec![no_local]);
    offer(&mut world, &inflow(1, &[record("x", "x", FROM_CLOUD)]));
    assert_eq!(world.payloads(far), ["x"]);
}

#[test]
fn the_interest_is_what_sessions_are_subscribed_to_also_while_they_are_away() {
    let mut world = World::new(edge());
    let interest = |world: &World| {
        let mut list: Vec<_> = world.core.interest().collect();
        list.sort();
        list
    };
    let (durable, _) = world.join(persistent("durable"));
    let (clean, _) = world.join(connect("clean"));
    let before = world.core.interest_changes();
    world.subscribe(durable, "a/#", 1);
    world.subscribe(clean, "b", 1);
    world.subscribe(clean, "$share/g/c", 1);
    assert_ne!(world.core.interest_changes(), before);
    assert_eq!(interest(&world), ["a/#", "b", "c"]);
    world.cut(durable);
    world.cut(clean);
    world.settle();
    assert_eq!(interest(&world), ["a/#"]);
    world.crash();
    assert_eq!(interest(&world), ["a/#"]);
}
