//! Session expiry.

use std::time::Duration;

use fellbeck_core::{ClockQuality, WallTime};
use fellbeck_store::commit::Space;

use super::harness::*;

fn away(expiry_secs: u32) -> World {
    away_by(expiry_secs, ClockQuality::Synced)
}

fn away_by(expiry_secs: u32, clock: ClockQuality) -> World {
    let mut world = World::new(edge());
    world.now.clock = clock;
    let mut client = persistent("p");
    client.session_expiry_secs = expiry_secs;
    let (conn, _) = world.join(client);
    world.subscribe(conn, "log/#", 1);
    world.cut(conn);
    world.settle();
    world
}

/// [MQTT5-3.1.2-23] [MQTT5-4.1.0-2]
#[test]
fn a_session_expires_after_its_interval_and_leaves_nothing() {
    let mut world = away(100);
    world.pass(Duration::from_secs(99));
    assert_eq!(world.core.session_count(), 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.core.session_count(), 0);
    world.settle();
    assert!(world.stored(Space::Session).keys().all(|key| key == "L"));
    assert!(world.core.committed.is_empty());
}

#[test]
fn a_connected_session_does_not_expire_and_a_return_stops_the_clock() {
    let mut world = away(100);
    world.pass(Duration::from_secs(99));
    let mut client = persistent("p");
    client.session_expiry_secs = 100;
    let (conn, present) = world.join(client);
    assert!(present);
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.core.session_count(), 1);
    world.cut(conn);
    world.pass(Duration::from_secs(99));
    assert_eq!(world.core.session_count(), 1);
}

#[test]
fn expiry_goes_on_across_a_restart_when_the_clock_is_known() {
    for (clock, left) in [(ClockQuality::Synced, 0), (ClockQuality::Unknown, 1)] {
        let mut world = away(100);
        world.now.wall.0 += 60_000;
        world.now.clock = clock;
        world.crash();
        world.pass(Duration::from_secs(40));
        assert_eq!(world.core.session_count(), left);
        world.pass(Duration::from_secs(60));
        assert_eq!(world.core.session_count(), 0);
    }
}

/// A gateway without a battery clock was in 1970 before its power went, and is in this century behind it: its sessions used to be forgotten.
#[test]
fn a_free_running_clock_tells_nothing_of_the_time_before_the_machine_was_started() {
    let (unsynced, synced) = (ClockQuality::Unsynced, ClockQuality::Synced);
    for (before, after, rebooted, left) in [
        (unsynced, unsynced, true, 1),
        (unsynced, synced, true, 1),
        (synced, unsynced, true, 1),
        (synced, synced, true, 0),
        (unsynced, unsynced, false, 0),
        (unsynced, synced, false, 1),
    ] {
        let mut world = away_by(100, before);
        world.now.wall.0 += 1_000_000;
        world.now.clock = after;
        if rebooted {
            world.now.runs_since = WallTime(world.now.wall.0 - 5000);
        }
        world.crash();
        world.pass(Duration::from_secs(1));
        assert_eq!(world.core.session_count(), left, "{before:?} {after:?} {rebooted}");
        world.pass(Duration::from_secs(100));
        assert_eq!(world.core.session_count(), 0);
    }
}

/// Section 3.14.2.2.2.
#[test]
fn disconnect_may_change_the_interval_but_not_from_zero() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    world
        .core
        .handle_disconnect(conn, 0, Some(0), world.now, &mut world.tape);
    assert_eq!(world.core.session_count(), 0);
    let (conn, _) = world.join(connect("c"));
    world
        .core
        .handle_disconnect(conn, 0, Some(10), world.now, &mut world.tape);
    assert_eq!(
        (world.take(conn), world.core.session_count()),
        (vec![Out::Closed(0x82)], 0)
    );
    let (conn, _) = world.join(persistent("p"));
    world
        .core
        .handle_disconnect(conn, 0, Some(5), world.now, &mut world.tape);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.core.session_count(), 0);
}

#[test]
fn the_interval_is_capped() {
    let mut config = edge();
    config.limits.session_expiry_max_secs = 50;
    let mut world = World::new(config);
    let mut client = old_version(persistent("p"));
    client.session_expiry_secs = u32::MAX;
    let (conn, _) = world.join(client);
    world.cut(conn);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.core.session_count(), 0);
}

/// A session that is resumed with an interval of zero ends with its connection, also when the node crashes.
#[test]
fn a_session_resumed_with_interval_zero_ends_with_its_connection() {
    for crash in [false, true] {
        let mut world = away(100);
        let mut client = persistent("p");
        client.session_expiry_secs = 0;
        let (conn, present) = world.join(client);
        assert!(present);
        if crash {
            world.crash();
            world.pass(Duration::ZERO);
        } else {
            world.cut(conn);
        }
        assert_eq!(world.core.session_count(), 0);
    }
}
