//! Shared subscriptions.

use std::collections::BTreeSet;
use std::time::Duration;

use super::harness::*;

#[test]
fn each_message_goes_to_one_member_and_the_load_is_even() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let readers = ["a", "b", "c"].map(|name| world.join(connect(name)).0);
        for reader in readers {
            world.subscribe(reader, "$share/g/log/#", 1);
        }
        let (publisher, _) = world.join(connect("publisher"));
        for n in 0..30 {
            world.publish(publisher, "log/x", &n.to_string(), n % 2);
        }
        world.settle();
        let mut all = BTreeSet::new();
        for reader in readers {
            let payloads = world.payloads(reader);
            assert_eq!(payloads.len(), 10);
            all.extend(payloads);
        }
        assert_eq!(all.len(), 30);
    }
}

/// A group and an ordinary subscription of one client are two deliveries.
#[test]
fn a_member_with_a_subscription_of_its_own_gets_both() {
    let mut world = World::new(cloud());
    let (reader, _) = world.join(connect("a"));
    world.subscribe(reader, "$share/g/log/#", 1);
    world.subscribe(reader, "log/#", 0);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/x", "m", 1);
    world.settle();
    let mut qos: Vec<_> = world.messages(reader).into_iter().map(|got| got.qos).collect();
    qos.sort_unstable();
    assert_eq!(qos, [0, 1]);
}

/// [MQTT5-4.8.2-4]: no loss when a member leaves with unacknowledged messages.
#[test]
fn what_a_member_left_unacknowledged_goes_to_others() {
    for persists in [false, true] {
        for config in [edge(), cloud()] {
            let mut world = World::new(config);
            let client = |name| if persists { persistent(name) } else { connect(name) };
            let (leaver, _) = world.join(client("leaver"));
            let (stayer, _) = world.join(client("stayer"));
            for reader in [leaver, stayer] {
                world.subscribe(reader, "$share/g/log/#", 1);
            }
            let (publisher, _) = world.join(connect("publisher"));
            for n in 0..6 {
                world.publish(publisher, "log/x", &n.to_string(), 1);
            }
            world.settle();
            assert_eq!(world.payloads(leaver).len(), 3);
            world.cut(leaver);
            let mut got = world.consume(stayer);
            got.sort_unstable();
            assert_eq!(got, ["0", "1", "2", "3", "4", "5"]);
        }
    }
}

#[test]
fn a_durable_group_keeps_messages_while_nobody_is_there() {
    for restart in [false, true] {
        let mut world = World::new(cloud());
        let (reader, _) = world.join(persistent("a"));
        world.subscribe(reader, "$share/g/log/#", 1);
        let (mut publisher, _) = world.join(connect("publisher"));
        world.publish(publisher, "log/x", "unacked", 1);
        world.settle();
        assert_eq!(world.payloads(reader), ["unacked"]);
        world.cut(reader);
        for n in 0..5 {
            world.publish(publisher, "log/x", &n.to_string(), 1);
            world.publish(publisher, "log/x", "zero", 0);
        }
        world.settle();
        world.pass(Duration::from_secs(1));
        world.settle();
        if restart {
            world.crash();
            (publisher, _) = world.join(connect("publisher"));
        }
        let (reader, _) = world.join(persistent("a"));
        assert_eq!(
            world.consume(reader),
            ["unacked", "0", "1", "2", "3", "4"],
            "restart {restart}"
        );
        world.publish(publisher, "log/x", "live", 1);
        assert_eq!(world.consume(reader), ["live"]);
    }
}

/// [MQTT5-4.8.2-5]: QoS 2 stays with the member that has it until it is complete.
#[test]
fn qos2_in_flight_stays_with_its_member() {
    for restart in [false, true] {
        let mut world = World::new(cloud());
        let (a, _) = world.join(persistent("a"));
        world.subscribe(a, "$share/g/log/#", 2);
        let (publisher, _) = world.join(connect("publisher"));
        world.publish(publisher, "log/x", "m", 2);
        world.settle();
        let first = world.messages(a);
        let (b, _) = world.join(persistent("b"));
        world.subscribe(b, "$share/g/log/#", 2);
        if restart {
            world.crash();
        } else {
            world.cut(a);
        }
        let (b, _) = world.join(persistent("b"));
        assert_eq!(world.consume(b), [""; 0]);
        let (a, _) = world.join(persistent("a"));
        let again = world.messages(a);
        assert_eq!(
            again,
            [Got {
                dup: true,
                ..first[0].clone()
            }],
            "restart {restart}"
        );
    }
}

/// A completed QoS 2 message of a group is not given out again, whatever was stored when.
#[test]
fn a_crash_after_completion_gives_nobody_the_message_again() {
    let mut world = World::new(cloud());
    let (a, _) = world.join(persistent("a"));
    let (b, _) = world.join(persistent("b"));
    for reader in [a, b] {
        world.subscribe(reader, "$share/g/log/#", 2);
    }
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..4 {
        world.publish(publisher, "log/x", &n.to_string(), 2);
    }
    let mut got = world.consume(a);
    got.extend(world.consume(b));
    got.sort_unstable();
    assert_eq!(got, ["0", "1", "2", "3"]);
    world.crash();
    let (a, _) = world.join(persistent("a"));
    let (b, _) = world.join(persistent("b"));
    let left: Vec<_> = [a, b].into_iter().flat_map(|reader| world.take(reader)).collect();
    assert!(left.iter().all(|out| matches!(out, Out::PubRel(..))), "{left:?}");
}

#[test]
fn members_with_full_windows_make_the_group_wait_and_nothing_is_lost() {
    let mut config = cloud();
    config.limits.session_queue_records = 4;
    config.limits.read_bytes = 200;
    let mut world = World::new(config);
    let readers = ["a", "b"].map(|name| {
        let mut client = persistent(name);
        client.receive_maximum = 2;
        world.join(client).0
    });
    for reader in readers {
        world.subscribe(reader, "$share/g/log/#", 1);
    }
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..100 {
        world.publish(publisher, "log/x", &format!("{n:03}"), 1);
        if n % 5 == 0 {
            world.settle();
        }
    }
    world.settle();
    let mut all = Vec::new();
    for _ in 0..200 {
        for reader in readers {
            for got in world.messages(reader) {
                world.puback(reader, got.packet_id.unwrap());
                all.push(got.payload);
            }
        }
        world.settle();
    }
    let unique: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!((all.len(), unique.len()), (100, 100));
}

#[test]
fn the_last_member_to_unsubscribe_ends_the_group() {
    let mut world = World::new(cloud());
    let (a, _) = world.join(persistent("a"));
    world.subscribe(a, "$share/g/log/#", 1);
    assert_eq!(world.core.groups.len(), 1);
    assert_eq!(world.unsubscribe(a, "$share/g/log/#"), [0]);
    assert_eq!(world.core.groups.len(), 0);
    world.settle();
    assert!(
        world
            .stored(fellbeck_store::commit::Space::Session)
            .keys()
            .all(|key| !key.starts_with('G'))
    );
    assert!(world.core.committed.is_empty());
}

#[test]
fn unlogged_messages_of_a_group_go_to_one_connected_member() {
    let mut world = World::new(edge());
    let readers = ["a", "b"].map(|name| world.join(connect(name)).0);
    for reader in readers {
        world.subscribe(reader, "$share/g/home/#", 1);
    }
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..4 {
        world.publish(publisher, "home/x", &n.to_string(), 1);
    }
    let [a, b] = readers;
    assert_eq!(world.payloads(a), ["0", "2"]);
    world.cut(a);
    assert_eq!(world.consume(b), ["1", "3", "0", "2"].map(String::from).to_vec());
}
