//! Messages from clients: acknowledgements, their order, QoS 2, limits.

use super::super::{Outcome, Pressure};
use super::harness::*;

/// I1.
#[test]
fn puback_leaves_after_the_commit_of_the_record() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(connect("c"));
    let id = world.publish(conn, "log/a", "1", 1);
    world.submit();
    assert_eq!(world.take(conn), []);
    world.store.commit(1);
    world.deliver();
    assert_eq!(world.take(conn), [Out::PubAck(id, 0)]);
    assert_eq!(world.store.log.len(), 1);
}

/// [MQTT3-4.6.0-2] [MQTT3-4.6.0-3], and as 5.0 asks of clients: also where a later message needs no commit.
#[test]
fn acknowledgements_leave_in_the_order_of_the_messages() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(connect("c"));
    let a = world.publish(conn, "log/a", "1", 1);
    let b = world.publish(conn, "other", "2", 1);
    let c = world.publish(conn, "log/a", "3", 2);
    let d = world.publish(conn, "other", "4", 2);
    assert_eq!(world.take(conn), []);
    world.settle();
    let expected = [
        Out::PubAck(a, 0),
        Out::PubAck(b, 0),
        Out::PubRec(c, 0),
        Out::PubRec(d, 0),
    ];
    assert_eq!(world.take(conn), expected);
    let e = world.publish(conn, "other", "5", 1);
    assert_eq!(world.take(conn), [Out::PubAck(e, 0)], "nothing to wait for");
}

/// [MQTT5-4.3.3-10]
#[test]
fn a_qos2_message_sent_again_is_acknowledged_and_not_stored_again() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    let send = Send::new("log/a", "1", 2, 9);
    world.publish_with(conn, &send);
    world.settle();
    assert_eq!(world.take(conn), [Out::PubRec(9, 0)]);
    for restart in [false, true] {
        if restart {
            world.crash();
        } else {
            world.cut(conn);
        }
        let (conn, _) = world.join(persistent("p"));
        world.publish_with(
            conn,
            &Send {
                dup: true,
                ..send.clone()
            },
        );
        world.settle();
        assert_eq!(world.take(conn), [Out::PubRec(9, 0)]);
        assert_eq!(world.store.log.len(), 1);
    }
    let (conn, _) = world.join(persistent("p"));
    world.pubrel(conn, 9);
    world.submit();
    assert_eq!(world.take(conn), [], "the release must be durable first");
    world.settle();
    assert_eq!(world.take(conn), [Out::PubComp(9, 0)]);
    // From here on the packet ID is a new message.
    world.publish_with(conn, &send);
    world.settle();
    assert_eq!(world.take(conn), [Out::PubRec(9, 0)]);
    assert_eq!(world.store.log.len(), 2);
}

/// A crash between PUBREL and its commit leaves the packet ID known; after the commit it is unknown, which is no error.
#[test]
fn an_unknown_pubrel_gets_pubcomp() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    world.pubrel(conn, 77);
    world.settle();
    assert_eq!(world.take(conn), [Out::PubComp(77, 0x92)]);
}

/// The packet ID and the record are one commit: neither can be there without the other.
#[test]
fn a_crash_before_the_commit_forgets_record_and_packet_id_together() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    let send = Send::new("log/a", "1", 2, 9);
    world.publish_with(conn, &send);
    world.submit();
    world.crash();
    let (conn, _) = world.join(persistent("p"));
    world.publish_with(conn, &send);
    world.settle();
    assert_eq!(world.take(conn), [Out::PubRec(9, 0)]);
    assert_eq!(world.store.log.len(), 1);
}

/// [MQTT5-3.3.4-7]
#[test]
fn a_client_above_the_announced_receive_maximum_is_closed() {
    let mut config = edge();
    config.limits.receive_maximum = 2;
    let mut world = World::new(config);
    let (conn, _) = world.join(connect("c"));
    world.publish(conn, "log/a", "1", 1);
    world.publish(conn, "log/a", "2", 2);
    world.publish(conn, "log/a", "0", 0);
    assert_eq!(world.take(conn), []);
    world.publish(conn, "log/a", "3", 1);
    assert_eq!(world.take(conn), [Out::Closed(0x93)]);
}

/// A QoS 2 message counts until PUBCOMP, a QoS 1 message until PUBACK.
#[test]
fn acknowledged_messages_free_the_receive_maximum() {
    let mut config = edge();
    config.limits.receive_maximum = 2;
    let mut world = World::new(config);
    let (conn, _) = world.join(connect("c"));
    for round in 0..20 {
        let one = world.publish(conn, "log/a", "1", 1);
        let two = world.publish(conn, "log/a", "2", 2);
        world.settle();
        assert_eq!(
            world.take(conn),
            [Out::PubAck(one, 0), Out::PubRec(two, 0)],
            "round {round}"
        );
        world.pubrel(conn, two);
        world.settle();
        assert_eq!(world.take(conn), [Out::PubComp(two, 0)]);
    }
}

/// [MQTT5-3.3.4-7]: a refused message counts until its refusal leaves; else the line of refusals would have no bound.
#[test]
fn refused_messages_count_until_they_are_answered() {
    for qos in [1, 2] {
        let mut config = edge();
        config.limits.receive_maximum = 3;
        let mut world = World::new(config);
        let (conn, _) = world.join(connect("c"));
        world.publish(conn, "log/a", "taken", 1);
        for _ in 0..2 {
            world.publish(conn, "$SYS/x", "refused", qos);
        }
        world.publish(conn, "$SYS/x", "too many", qos);
        assert_eq!(world.take(conn), [Out::Closed(0x93)], "QoS {qos}");
        let (conn, _) = world.join(connect("c"));
        for _ in 0..10 {
            world.publish(conn, "$SYS/x", "refused", qos);
        }
        assert_eq!(world.take(conn).len(), 10, "answered at once");
    }
}

/// [MQTT5-3.3.4-7]: resends of a former connection count on the present one.
#[test]
fn resent_messages_count_on_the_new_connection() {
    let mut config = edge();
    config.limits.receive_maximum = 2;
    let mut world = World::new(config);
    for first in [1, 3] {
        let (conn, _) = world.join(persistent("p"));
        for id in [first, first + 1] {
            world.publish_with(conn, &Send::new("log/a", "x", 2, id));
        }
        world.settle();
        world.cut(conn);
    }
    let (conn, _) = world.join(persistent("p"));
    for id in 1..4 {
        let mut send = Send::new("log/a", "x", 2, id);
        send.dup = true;
        world.publish_with(conn, &send);
    }
    world.settle();
    assert_eq!(
        world.take(conn),
        [Out::PubRec(1, 0), Out::PubRec(2, 0), Out::Closed(0x93)]
    );
    assert_eq!(world.store.log.len(), 2, "nothing was stored again");
}

/// [MQTT5-2.2.1-3]: the packet ID of a QoS 2 message is taken until PUBCOMP has left.
#[test]
fn a_packet_id_of_an_unfinished_qos2_message_is_in_use() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    world.publish_with(conn, &Send::new("log/a", "1", 2, 9));
    world.settle();
    world.publish_with(conn, &Send::new("log/a", "2", 1, 9));
    let filters = vec![sub("x", 1), sub("y", 1)];
    let subscribe = crate::wire::Subscribe {
        packet_id: 9,
        subscription_id: None,
        filters,
    };
    world.core.handle_subscribe(conn, subscribe, world.now, &mut world.tape);
    let unsubscribe = crate::wire::Unsubscribe {
        packet_id: 9,
        filters: vec!["x".to_owned()],
    };
    world
        .core
        .handle_unsubscribe(conn, unsubscribe, world.now, &mut world.tape);
    world.settle();
    assert_eq!(
        world.take(conn),
        [
            Out::PubRec(9, 0),
            Out::PubAck(9, 0x91),
            Out::SubAck(9, vec![0x91, 0x91]),
            Out::UnsubAck(9, vec![0x91])
        ]
    );
    assert_eq!(world.store.log.len(), 1);
    world.pubrel(conn, 9);
    world.settle();
    world.publish_with(conn, &Send::new("log/a", "2", 1, 9));
    world.settle();
    assert_eq!(world.take(conn), [Out::PubComp(9, 0), Out::PubAck(9, 0)]);
}

/// A 3.1.1 client was told no bound, so it is held, not closed; its PUBRELs always get through.
#[test]
fn a_3_1_1_client_with_many_unanswered_messages_is_held() {
    let mut config = edge();
    config.limits.receive_maximum = 2;
    let mut world = World::new(config);
    let (conn, _) = world.join(old_version(connect("c")));
    for id in 1..=2 {
        assert_eq!(world.publish_with(conn, &Send::new("log/a", "x", 2, id)), Outcome::Done);
    }
    let third = Send::new("log/a", "x", 2, 3);
    assert_eq!(world.publish_with(conn, &third), Outcome::Hold);
    world.settle();
    // Both are received and none is released: a bound on those would wait for PUBRELs that stand behind the held message.
    assert_eq!(world.publish_with(conn, &third), Outcome::Done);
    world.settle();
    assert_eq!(world.take(conn).len(), 3);
}

/// P2: nothing is acknowledged that will not be kept.
#[test]
fn under_pressure_messages_are_refused_or_held_and_never_acknowledged() {
    let mut world = World::new(edge());
    let (new, _) = world.join(connect("new"));
    let (old, _) = world.join(old_version(connect("old")));
    world.pressure = Pressure::High;
    let one = world.publish(new, "log/a", "1", 1);
    let two = world.publish(new, "log/a", "2", 2);
    assert_eq!(world.take(new), [Out::PubAck(one, 0x97), Out::PubRec(two, 0x97)]);
    assert_eq!(world.publish_with(old, &Send::new("log/a", "3", 1, 5)), Outcome::Hold);
    world.publish(new, "log/a", "4", 0);
    world.settle();
    assert_eq!((world.take(old), world.store.log.len()), (vec![], 0));
    // What needs no flash is served as always.
    let free = world.publish(new, "other", "5", 1);
    assert_eq!(world.take(new), [Out::PubAck(free, 0)]);
    world.pressure = Pressure::Normal;
    assert_eq!(world.publish_with(old, &Send::new("log/a", "3", 1, 5)), Outcome::Done);
    world.settle();
    assert_eq!(world.take(old), [Out::PubAck(5, 0)]);
    // A refused QoS 2 packet ID is free again.
    world.publish_with(new, &Send::new("log/a", "2", 2, two));
    world.settle();
    assert_eq!(world.take(new), [Out::PubRec(two, 0)]);
}

#[test]
fn topics_of_the_node_are_refused() {
    let mut world = World::new(edge());
    let (new, _) = world.join(connect("new"));
    let (old, _) = world.join(old_version(connect("old")));
    let id = world.publish(new, "$SYS/broker/uptime", "x", 1);
    world.publish(new, "$SYS/broker/uptime", "x", 0);
    assert_eq!(world.take(new), [Out::PubAck(id, 0x87)]);
    world.publish(old, "$share/g/x", "x", 1);
    assert_eq!(world.take(old), [Out::Closed(0x87)]);
}

/// When the store does not take a commit, it and all that came after it go together later, in order.
#[test]
fn a_commit_that_the_store_did_not_take_is_part_of_the_next() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(connect("c"));
    let a = world.publish(conn, "log/a", "1", 1);
    world.retain(conn, "log/r", "old", 0);
    let commit = world.core.take_commit().unwrap();
    world.core.untake_commit(commit);
    let b = world.publish(conn, "log/a", "2", 1);
    world.retain(conn, "log/r", "new", 0);
    world.settle();
    assert_eq!(world.take(conn), [Out::PubAck(a, 0), Out::PubAck(b, 0)]);
    let log: Vec<_> = world
        .store
        .log
        .iter()
        .flat_map(|block| block.tracks[0].block.iter())
        .map(|record| record.payload.to_vec())
        .collect();
    assert_eq!(log, [b"1".to_vec(), b"old".to_vec(), b"2".to_vec(), b"new".to_vec()]);
    let (reader, _) = world.join(connect("r"));
    world.subscribe(reader, "log/r", 0);
    assert_eq!(world.payloads(reader), ["new"]);
}

#[test]
fn the_front_is_asked_to_pause_while_too_much_is_on_its_way() {
    let mut config = edge();
    config.limits.commit_bytes_max = 1000;
    config.limits.outstanding_max = 2;
    let mut world = World::new(config);
    let (conn, _) = world.join(connect("c"));
    world.publish(conn, "log/a", &"x".repeat(1000), 0);
    assert!(world.core.wants_pause());
    world.submit();
    assert!(!world.core.wants_pause());
    world.publish(conn, "log/a", "x", 0);
    world.submit();
    assert!(world.core.wants_pause());
    world.settle();
    assert!(!world.core.wants_pause());
}

/// Nothing is published that nobody can name: names and filters have the same bound of levels.
#[test]
fn a_topic_of_more_levels_than_a_filter_may_have_is_refused() {
    let mut world = World::new(edge());
    let (new, _) = world.join(connect("new"));
    let (old, _) = world.join(old_version(connect("old")));
    let deep = |levels: usize| "/".repeat(levels - 1);
    for conn in [new, old] {
        assert_eq!(world.subscribe(conn, &deep(256), 0), [0]);
    }
    assert_eq!(world.subscribe(new, &deep(257), 0), [0x8f]);
    world.publish(new, &deep(256), "reaches both", 0);
    assert_eq!(world.payloads(new), ["reaches both"]);
    assert_eq!(world.payloads(old), ["reaches both"]);
    world.publish(new, &deep(257), "x", 0);
    let one = world.publish(new, &deep(257), "x", 1);
    let two = world.publish(new, &deep(257), "x", 2);
    assert_eq!(world.take(new), [Out::PubAck(one, 0x90), Out::PubRec(two, 0x90)]);
    world.publish(old, &deep(257), "x", 1);
    assert_eq!(world.take(old), [Out::Closed(0x90)]);
    let mut client = connect("willing");
    client.will = Some(will(&deep(257), "x"));
    let conn = world.connect_with(client);
    assert!(matches!(world.take(conn)[..], [Out::ConnAck { reason: 0x90, .. }]));
}
