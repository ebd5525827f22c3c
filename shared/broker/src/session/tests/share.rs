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

/// Section 4.8.2: no loss when a member leaves with unacknowledged messages at QoS 1.
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

/// [MQTT5-4.8.2-4] [MQTT5-4.8.2-5]: QoS 2 stays with the member that has it until it is complete.
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

/// The member's own QoS 2 message holds the group's back until it was sent; then they follow by themselves.
#[test]
fn a_group_goes_on_when_a_reserved_message_of_its_member_has_left() {
    let mut world = World::new(edge());
    world.tape.payload_max = Some(10);
    let (publisher, _) = world.join(connect("publisher"));
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "$share/g/log/#", 2);
    world.publish(publisher, "log/a", "much too large for it", 2);
    world.publish(publisher, "log/a", "small", 1);
    world.settle();
    assert_eq!(world.payloads(reader), ["small"]);
}

/// A client may leave a group before it is known to have joined it.
#[test]
fn a_group_that_is_left_in_one_go_with_joining_it_does_not_stay() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    let (reader, _) = world.join(connect("reader"));
    for n in 0..5 {
        world.publish(publisher, "log/load", "x", 1);
        let filter = format!("$share/g/log/{n}");
        let joined = world.send_subscribe(reader, None, vec![sub(&filter, 1)]);
        let left = world.send_unsubscribe(reader, &filter);
        world.settle();
        assert_eq!(
            world.take(reader),
            [Out::SubAck(joined, vec![1]), Out::UnsubAck(left, vec![0])]
        );
    }
    assert_eq!(world.core.groups.len(), 0);
    assert!(world.core.committed.is_empty());
}

/// Old blocks stay in memory for no group.
#[test]
fn a_group_whose_members_do_not_keep_up_reads_the_log_instead_of_keeping_old_blocks() {
    let mut config = cloud();
    config.limits.live_window_bytes = 100;
    let mut world = World::new(config);
    let mut client = persistent("reader");
    client.receive_maximum = 1;
    let (reader, _) = world.join(client);
    world.subscribe(reader, "$share/g/log/#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..3 {
        world.publish(publisher, "log/x", &n.to_string(), 1);
    }
    world.settle();
    let queued = |world: &World| {
        let groups = world.core.groups.iter();
        groups.map(|group| group.reader.queue.len()).sum::<usize>()
    };
    assert_eq!(queued(&world), 2);
    for _ in 0..5 {
        world.publish(publisher, "log2/x", &"x".repeat(100), 1);
    }
    world.subscribe(publisher, "log2/#", 0);
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert_eq!(queued(&world), 0);
    world.take(publisher);
    assert_eq!(world.consume(reader), ["0", "1", "2"]);
}

/// [MQTT5-3.10.4-3]: who leaves the group may still acknowledge what it was sent, and nobody else gets that; what it does not
/// acknowledge goes to the others when its connection ends.
#[test]
fn who_unsubscribes_from_a_group_may_finish_what_it_was_sent() {
    for persists in [false, true] {
        for acknowledges in [false, true] {
            let mut world = World::new(cloud());
            let client = |name| if persists { persistent(name) } else { connect(name) };
            let (leaver, _) = world.join(client("leaver"));
            let (stayer, _) = world.join(client("stayer"));
            for reader in [leaver, stayer] {
                world.subscribe(reader, "$share/g/log/#", 1);
            }
            let (publisher, _) = world.join(connect("publisher"));
            for n in 0..4 {
                world.publish(publisher, "log/x", &n.to_string(), 1);
            }
            world.settle();
            let sent = world.messages(leaver);
            assert_eq!(world.unsubscribe(leaver, "$share/g/log/#"), [0]);
            assert_eq!(world.consume(stayer).len(), 2, "the leaver's are not given to others");
            if acknowledges {
                for got in &sent {
                    world.puback(leaver, got.packet_id.unwrap());
                }
            }
            world.cut(leaver);
            let rest = world.consume(stayer);
            let expected: Vec<_> = sent.iter().map(|got| got.payload.clone()).collect();
            assert_eq!(rest, if acknowledges { vec![] } else { expected });
            for group in world.core.groups.iter() {
                assert!(group.outstanding.is_empty() && group.returned.is_empty(), "{group:?}");
            }
        }
    }
}

/// [MQTT5-4.8.2-6]
#[test]
fn what_a_member_refuses_is_given_to_nobody() {
    for qos in [1, 2] {
        let mut world = World::new(cloud());
        let readers = ["a", "b"].map(|name| world.join(persistent(name)).0);
        for reader in readers {
            world.subscribe(reader, "$share/g/log/#", qos);
        }
        let (publisher, _) = world.join(connect("publisher"));
        world.publish(publisher, "log/x", "m", qos);
        world.settle();
        let got = world.messages(readers[0]);
        let id = got[0].packet_id.unwrap();
        match qos {
            1 => world
                .core
                .handle_puback(readers[0], id, 0x80, world.now, &mut world.tape),
            _ => world
                .core
                .handle_pubrec(readers[0], id, 0x97, world.now, &mut world.tape),
        }
        world.cut(readers[0]);
        assert_eq!(world.consume(readers[1]), [""; 0]);
        let (a, _) = world.join(persistent("a"));
        assert_eq!(world.consume(a), [""; 0]);
    }
}

/// [MQTT5-4.8.2-3] [MQTT5-4.7.2-1]: each member at its own QoS, and no `$` topics for a leading wildcard.
#[test]
fn members_get_their_own_qos_and_no_hidden_topics() {
    let mut world = World::new(cloud());
    let readers = [0, 1, 2].map(|qos| {
        let (reader, _) = world.join(persistent(&format!("q{qos}")));
        let wanted = vec![sub("$share/g/#", qos), sub("$share/h/+/x", qos)];
        assert_eq!(world.subscribe_with(reader, None, wanted), [qos, qos]);
        reader
    });
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "$hidden/x", "hidden", 2);
    for n in 0..3 {
        world.publish(publisher, "log/y", &n.to_string(), 2);
    }
    world.settle();
    for (qos, reader) in readers.into_iter().enumerate() {
        let got: Vec<_> = world
            .messages(reader)
            .into_iter()
            .map(|got| (got.topic, got.qos))
            .collect();
        assert_eq!(got, [("log/y".to_owned(), qos as u8)]);
    }
}

/// Two filters under one share name are two groups; each gets every message.
#[test]
fn filters_of_one_share_name_are_groups_of_their_own() {
    let mut world = World::new(cloud());
    let (a, _) = world.join(connect("a"));
    let (b, _) = world.join(connect("b"));
    world.subscribe(a, "$share/g/log/#", 1);
    world.subscribe(b, "$share/g/log/x", 1);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..3 {
        world.publish(publisher, "log/x", &n.to_string(), 1);
    }
    assert_eq!(world.consume(a), ["0", "1", "2"]);
    assert_eq!(world.consume(b), ["0", "1", "2"]);
}
