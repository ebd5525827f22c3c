//! `$SYS`: values at subscription, changes to the connected, and nothing in the store.

use fellbeck_core::DropReason;
use fellbeck_store::commit::Space;

use super::harness::*;
use crate::wire::ConnId;

const UPTIME: &str = "$SYS/broker/uptime";
const VERSION: &str = "$SYS/broker/version";
const NAME: &str = "$SYS/fellbeck/node/name";

fn tell(world: &mut World, entries: &[(&str, &str)]) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(topic, value)| ((*topic).to_owned(), (*value).to_owned()))
        .collect();
    world.core.publish_status(&entries, world.now, &mut world.tape);
}

fn seen(world: &mut World, conn: ConnId) -> Vec<(String, String, bool)> {
    let got = world.messages(conn).into_iter();
    got.map(|got| {
        assert_eq!((got.qos, got.packet_id), (0, None));
        (got.topic, got.payload, got.retain)
    })
    .collect()
}

fn lines(expected: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
    let owned = |(topic, value, retain): &(&str, &str, bool)| ((*topic).to_owned(), (*value).to_owned(), *retain);
    expected.iter().map(owned).collect()
}

/// Clean and durable, on an edge and on a cloud.
fn all_kinds(check: impl Fn(&mut World, ConnId)) {
    for config in [edge(), cloud()] {
        for client in [connect("reader"), persistent("reader")] {
            let mut world = World::new(config.clone());
            let (reader, _) = world.join(client);
            check(&mut world, reader);
        }
    }
}

#[test]
fn a_new_subscription_is_sent_the_values_and_then_the_changes() {
    all_kinds(|world, reader| {
        assert!(!world.core.wants_status());
        tell(world, &[(UPTIME, "1 seconds"), (VERSION, "v"), (NAME, "n")]);
        world.subscribe(reader, "$SYS/broker/#", 2);
        assert!(world.core.wants_status());
        let expected = [(UPTIME, "1 seconds", true), (VERSION, "v", true)];
        assert_eq!(seen(world, reader), lines(&expected));
        tell(world, &[(UPTIME, "2 seconds"), (VERSION, "v"), (NAME, "m")]);
        // [MQTT5-3.3.1-12]: without Retain As Published. What has not changed is not sent again.
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "2 seconds", false)]));
        world.unsubscribe(reader, "$SYS/broker/#");
        tell(world, &[(UPTIME, "3 seconds")]);
        assert_eq!(seen(world, reader), []);
    });
}

/// [MQTT5-4.7.2-1]
#[test]
fn a_wildcard_at_the_front_does_not_reach_the_values() {
    all_kinds(|world, reader| {
        tell(world, &[(UPTIME, "1 seconds")]);
        for filter in ["#", "+/broker/uptime", "+/broker/#"] {
            world.subscribe(reader, filter, 0);
        }
        assert!(!world.core.wants_status());
        tell(world, &[(UPTIME, "2 seconds")]);
        assert_eq!(seen(world, reader), []);
        world.subscribe(reader, "$SYS/+/uptime", 0);
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "2 seconds", true)]));
    });
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT5-3.3.1-13]
#[test]
fn retain_handling_and_retain_as_published_are_followed() {
    all_kinds(|world, reader| {
        tell(world, &[(UPTIME, "0")]);
        let mut count = |handling: u8| {
            let mut wanted = sub(UPTIME, 0);
            wanted.retain_handling = handling;
            wanted.retain_as_published = true;
            world.subscribe_with(reader, None, vec![wanted]);
            seen(world, reader).len()
        };
        assert_eq!([count(2), count(1), count(0)], [0, 0, 1]);
        tell(world, &[(UPTIME, "1")]);
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "1", true)]));
        world.unsubscribe(reader, UPTIME);
        let mut wanted = sub(UPTIME, 0);
        wanted.retain_handling = 1;
        world.subscribe_with(reader, None, vec![wanted]);
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "1", true)]));
    });
}

/// [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]
#[test]
fn subscription_identifiers_come_with_the_values() {
    all_kinds(|world, reader| {
        tell(world, &[(UPTIME, "1")]);
        world.subscribe_with(reader, Some(7), vec![sub("$SYS/#", 0)]);
        world.subscribe_with(reader, Some(9), vec![sub(UPTIME, 0)]);
        let ids = |world: &mut World| -> Vec<_> { world.messages(reader).into_iter().map(|got| got.ids).collect() };
        assert_eq!(ids(world), [[7], [9]]);
        tell(world, &[(UPTIME, "2")]);
        let mut both = ids(world);
        both[0].sort_unstable();
        assert_eq!(both, [[7, 9]]);
    });
}

#[test]
fn what_a_backlogged_reader_misses_is_counted() {
    all_kinds(|world, reader| {
        world.subscribe(reader, "$SYS/#", 0);
        world.backlog(reader);
        tell(world, &[(UPTIME, "1"), (VERSION, "v")]);
        let ledger = world.status("reader").ledger;
        assert_eq!(ledger.dropped_for(DropReason::Qos0SlowReader), 2);
        world.unblock(reader);
        assert_eq!(seen(world, reader), []);
        tell(world, &[(UPTIME, "2"), (VERSION, "v")]);
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "2", false)]));
        world.assert_books_balance("reader");
    });
}

#[test]
fn the_values_wait_for_room_and_are_then_those_of_that_moment() {
    all_kinds(|world, reader| {
        tell(world, &[(UPTIME, "1"), (VERSION, "v")]);
        world.backlog(reader);
        world.subscribe(reader, "$SYS/#", 0);
        tell(world, &[(UPTIME, "2")]);
        assert_eq!(seen(world, reader), []);
        world.unblock(reader);
        assert_eq!(seen(world, reader), lines(&[(UPTIME, "2", true), (VERSION, "v", true)]));
    });
}

#[test]
fn the_values_that_are_owed_go_to_the_subscription_that_replaces_the_first() {
    all_kinds(|world, reader| {
        tell(world, &[(UPTIME, "1")]);
        world.backlog(reader);
        world.subscribe(reader, "$SYS/#", 0);
        let mut wanted = sub("$SYS/#", 1);
        wanted.retain_handling = 2;
        world.subscribe_with(reader, Some(3), vec![wanted]);
        world.unblock(reader);
        let got = world.messages(reader);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].ids, [3]);
        world.backlog(reader);
        world.subscribe(reader, UPTIME, 0);
        world.unsubscribe(reader, UPTIME);
        world.unblock(reader);
        assert_eq!(seen(world, reader), []);
    });
}

#[test]
fn a_session_that_is_away_misses_the_values_and_nothing_is_stored() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "$SYS/#", 2);
        world.cut(reader);
        world.settle();
        world.pass(std::time::Duration::from_secs(2));
        world.settle();
        let before = (world.store.newest, world.stored(Space::Session));
        for n in 0..5 {
            tell(&mut world, &[(UPTIME, &n.to_string())]);
            world.pass(std::time::Duration::from_secs(2));
            world.settle();
        }
        assert_eq!((world.store.newest, world.stored(Space::Session)), before);
        assert_eq!(world.stored(Space::Retained).len(), 0);
        let (reader, present) = world.join(persistent("reader"));
        assert!(present);
        world.settle();
        assert_eq!(seen(&mut world, reader), []);
        tell(&mut world, &[(UPTIME, "6")]);
        assert_eq!(seen(&mut world, reader), lines(&[(UPTIME, "6", false)]));
    }
}

/// Readers of all kinds, connected: no commit for a value, now or at a flush.
#[test]
fn values_make_no_commits() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (clean, _) = world.join(connect("clean"));
        let (durable, _) = world.join(persistent("durable"));
        let (member, _) = world.join(persistent("member"));
        for (conn, filter) in [(clean, "$SYS/#"), (durable, "$SYS/#"), (member, "$share/g/$SYS/#")] {
            world.subscribe(conn, filter, 1);
        }
        world.pass(std::time::Duration::from_secs(2));
        world.settle();
        let before = world.store.newest;
        for n in 0..5 {
            tell(&mut world, &[(UPTIME, &n.to_string())]);
            world.pass(std::time::Duration::from_secs(2));
            world.settle();
        }
        assert_eq!(world.store.newest, before);
        for conn in [clean, durable, member] {
            assert_eq!(seen(&mut world, conn).len(), 5);
        }
    }
}

#[test]
fn a_shared_subscription_gives_each_change_to_one_member() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        tell(&mut world, &[(UPTIME, "0")]);
        let members = ["a", "b"].map(|name| world.join(connect(name)).0);
        for member in members {
            assert_eq!(world.subscribe(member, "$share/g/$SYS/#", 1), [1]);
        }
        for n in 1..=6 {
            tell(&mut world, &[(UPTIME, &n.to_string())]);
        }
        let [a, b] = members.map(|member| seen(&mut world, member));
        assert_eq!((a.len(), b.len()), (3, 3));
        world.backlog(members[0]);
        tell(&mut world, &[(UPTIME, "7")]);
        tell(&mut world, &[(UPTIME, "8")]);
        assert_eq!(seen(&mut world, members[1]).len(), 2);
    }
}

#[test]
fn values_are_bounded_and_only_below_the_prefix() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(connect("reader"));
    for filter in ["$SYS/#", "other/#"] {
        world.subscribe(reader, filter, 0);
    }
    let long = "x".repeat(2000);
    tell(&mut world, &[("other/topic", "x"), (UPTIME, &long)]);
    assert_eq!(seen(&mut world, reader), []);
    for n in 0..2000 {
        tell(&mut world, &[(&format!("$SYS/{n}"), "x")]);
    }
    assert_eq!(seen(&mut world, reader).len(), 512);
    // What is known goes on to change.
    tell(&mut world, &[("$SYS/0", "y"), ("$SYS/1999", "y")]);
    assert_eq!(seen(&mut world, reader), lines(&[("$SYS/0", "y", false)]));
}

#[test]
fn values_are_not_held_up_by_messages_that_wait() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    let mut client = persistent("reader");
    client.receive_maximum = 1;
    let (reader, _) = world.join(client);
    world.subscribe(reader, "log/#", 1);
    for n in 0..5 {
        world.publish(publisher, "log/a", &n.to_string(), 1);
    }
    world.settle();
    assert_eq!(world.payloads(reader), ["0"]);
    tell(&mut world, &[(UPTIME, "1")]);
    world.subscribe(reader, "$SYS/#", 0);
    assert_eq!(world.payloads(reader), ["1"]);
}
