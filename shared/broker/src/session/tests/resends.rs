//! What a device sends again at QoS 1 with DUP: stored once where its PUBACK was not written or nobody knows, and no wider.

use std::time::Duration;

use super::harness::*;

fn first() -> Send {
    Send::new("log/a", "on", 1, 7)
}

fn again() -> Send {
    Send { dup: true, ..first() }
}

/// A world in which the message is stored and PUBACK has not left.
fn with_one_open(config: super::super::CoreConfig) -> World {
    let mut world = World::new(config);
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &first());
    world.submit();
    world.store.commit(1);
    assert_eq!(world.take(conn), []);
    world
}

#[test]
fn a_message_whose_puback_the_crash_took_is_stored_once() {
    for config in [edge(), cloud()] {
        let mut world = with_one_open(config);
        world.crash();
        for _ in 0..2 {
            // Sent again, acknowledged, and the PUBACK is lost by another crash.
            let (conn, present) = world.join(persistent("d"));
            assert!(present);
            world.publish_with(conn, &again());
            assert_eq!(world.take(conn), [Out::PubAck(7, 0)]);
            world.crash();
        }
        assert_eq!(world.store.log.len(), 1);
    }
}

#[test]
fn a_message_whose_connection_broke_before_its_puback_is_stored_once() {
    let mut world = World::new(edge());
    let (old, _) = world.join(persistent("d"));
    world.publish_with(old, &first());
    world.submit();
    world.cut(old);
    let conn = world.connect_with(persistent("d"));
    world.publish_with(conn, &again());
    world.submit();
    assert_eq!(world.take(conn), [], "the record is not durable yet");
    world.settle();
    let out = world.take(conn);
    assert_eq!(out.last(), Some(&Out::PubAck(7, 0)), "{out:?}");
    assert_eq!(world.store.log.len(), 1);
    // That PUBACK has left: the packet ID is free.
    world.cut(conn);
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &again());
    world.settle();
    assert_eq!(world.store.log.len(), 2);
}

/// MQTT 4.3.2: after PUBACK the packet ID is a new message, whatever it says.
#[test]
fn a_new_message_with_a_used_packet_id_and_an_equal_payload_is_stored() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &first());
    world.settle();
    assert_eq!(world.take(conn), [Out::PubAck(7, 0)]);
    // On the same connection, and with DUP after a reconnect: its first copy may have been lost on the way here.
    world.publish_with(conn, &first());
    world.settle();
    world.cut(conn);
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &again());
    world.settle();
    assert_eq!(world.store.log.len(), 3);
}

#[test]
fn after_a_crash_only_dup_with_the_same_packet_id_topic_and_payload_is_eaten() {
    let others = [
        first(),
        Send {
            packet_id: 8,
            ..again()
        },
        Send {
            topic: "log/b".into(),
            ..again()
        },
        Send {
            payload: "off".into(),
            ..again()
        },
    ];
    for other in others {
        let mut world = with_one_open(edge());
        world.crash();
        let (conn, _) = world.join(persistent("d"));
        world.publish_with(conn, &other);
        world.settle();
        assert_eq!(world.store.log.len(), 2, "{other:?}");
        assert_eq!(world.take(conn), [Out::PubAck(other.packet_id, 0)]);
    }
}

#[test]
fn a_new_message_takes_the_place_of_the_one_that_had_its_packet_id() {
    let mut world = with_one_open(edge());
    world.crash();
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(
        conn,
        &Send {
            payload: "off".into(),
            ..first()
        },
    );
    world.settle();
    world.crash();
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &again());
    world.settle();
    assert_eq!(world.store.log.len(), 3, "the older one is not remembered any more");
}

#[test]
fn what_is_not_sent_again_on_a_connection_with_new_messages_is_forgotten() {
    let mut world = with_one_open(edge());
    world.crash();
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &Send::new("log/a", "new", 1, 8));
    world.settle();
    world.cut(conn);
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &again());
    world.settle();
    assert_eq!(world.store.log.len(), 3);
}

#[test]
fn without_a_session_that_is_resumed_nothing_is_eaten() {
    for connect in [
        connect("d"),
        super::super::super::wire::Connect {
            clean_start: true,
            ..persistent("d")
        },
    ] {
        let mut world = World::new(edge());
        let (conn, _) = world.join(connect.clone());
        world.publish_with(conn, &first());
        world.settle();
        world.crash();
        let (conn, _) = world.join(connect);
        world.publish_with(conn, &again());
        world.settle();
        assert_eq!(world.store.log.len(), 2);
    }
}

/// On the connection on which it was taken, a DUP is the client's error or habit; each of its packets gets an answer of its own.
#[test]
fn dup_on_the_same_connection_is_not_a_resend_after_a_loss() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(old_version(persistent("d")));
    world.publish_with(conn, &first());
    world.submit();
    world.publish_with(conn, &again());
    world.settle();
    assert_eq!(world.take(conn), [Out::PubAck(7, 0), Out::PubAck(7, 0)]);
    assert_eq!(world.store.log.len(), 2);
}

#[test]
fn the_table_goes_when_everything_is_acknowledged_and_with_its_session() {
    let table = |world: &World| {
        let stored = world.stored(fellbeck_store::commit::Space::Session);
        stored.keys().filter(|key| key.starts_with('D')).count()
    };
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("d"));
    world.publish_with(conn, &first());
    world.settle();
    assert_eq!(table(&world), 1);
    for _ in 0..3 {
        world.pass(Duration::from_secs(1));
        world.settle();
    }
    assert_eq!(table(&world), 0, "its PUBACK left seconds ago");
    world.publish_with(conn, &first());
    world.settle();
    world.cut(conn);
    world.join(super::super::super::wire::Connect {
        clean_start: true,
        ..persistent("d")
    });
    world.settle();
    assert_eq!(table(&world), 0);
    world.assert_books_balance("d");
}

#[test]
fn the_table_is_no_larger_than_the_receive_maximum() {
    let max = usize::from(edge().limits.receive_maximum);
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("d"));
    for _ in 0..3 {
        for id in 1..=u16::try_from(max).unwrap() {
            world.publish_with(conn, &Send::new("log/a", "x", 1, id));
        }
        world.submit();
        for (key, value) in world.stored(fellbeck_store::commit::Space::Session) {
            assert!(
                !key.starts_with('D') || value.len() <= 3 + 10 * max,
                "{} bytes",
                value.len()
            );
        }
        world.settle();
        for id in 20_000..20_000 + u16::try_from(max).unwrap() {
            world.publish_with(conn, &Send::new("log/a", "x", 1, id));
        }
        world.settle();
        let stored = world.stored(fellbeck_store::commit::Space::Session);
        let largest = stored
            .iter()
            .filter(|(key, _)| key.starts_with('D'))
            .map(|(_, value)| value.len())
            .max();
        assert!(largest.is_some_and(|bytes| bytes <= 3 + 10 * max), "{largest:?}");
    }
}
