//! CONNECT: clean start, resume, takeover, refusals.

use fellbeck_store::commit::Space;

use super::harness::*;

#[test]
fn a_clean_session_is_connected_at_once() {
    let mut world = World::new(edge());
    let conn = world.connect("c");
    assert_eq!(
        world.take(conn),
        [Out::ConnAck {
            session_present: false,
            reason: 0
        }]
    );
    world.disconnect(conn);
    assert_eq!(world.core.session_count(), 0);
}

/// What CONNACK says of a session must be durable when it says so.
#[test]
fn connack_of_a_persistent_session_follows_the_commit_of_its_state() {
    let mut world = World::new(edge());
    let conn = world.connect_with(persistent("p"));
    world.submit();
    assert_eq!(world.take(conn), []);
    world.store.commit(1);
    world.deliver();
    assert_eq!(
        world.take(conn),
        [Out::ConnAck {
            session_present: false,
            reason: 0
        }]
    );
}

/// [MQTT5-3.1.2-5] [MQTT5-3.2.2-3]
#[test]
fn a_session_is_present_after_reconnect_and_after_a_crash() {
    let mut world = World::new(edge());
    let (conn, present) = world.join(persistent("p"));
    assert!(!present);
    world.cut(conn);
    let (_, present) = world.join(persistent("p"));
    assert!(present);
    world.crash();
    let (_, present) = world.join(persistent("p"));
    assert!(present);
}

/// [MQTT5-3.1.2-4]
#[test]
fn a_clean_start_deletes_the_old_state_before_connack() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    world.subscribe(conn, "log/#", 1);
    world.disconnect(conn);
    world.settle();
    assert!(!world.stored(Space::Session).is_empty());
    let conn = world.connect("p");
    world.submit();
    assert_eq!(world.take(conn), [], "the old state is still there");
    world.settle();
    assert_eq!(
        world.take(conn),
        [Out::ConnAck {
            session_present: false,
            reason: 0
        }]
    );
    assert!(
        world.stored(Space::Session).keys().all(|key| key == "L"),
        "{:?}",
        world.stored(Space::Session)
    );
    world.crash();
    assert_eq!(world.core.session_count(), 0);
}

/// [MQTT5-3.1.4-3]
#[test]
fn a_second_connection_takes_the_session_over() {
    let mut world = World::new(edge());
    let (first, _) = world.join(persistent("p"));
    world.subscribe(first, "log/#", 1);
    let (second, present) = world.join(persistent("p"));
    assert!(present);
    assert_eq!(world.take(first), [Out::Closed(0x8e)]);
    let (publisher, _) = world.join(connect("q"));
    world.publish(publisher, "log/a", "1", 0);
    world.publish(publisher, "log/a", "2", 1);
    world.settle();
    assert_eq!(world.payloads(second), ["1", "2"]);
    // What comes late from the old connection is ignored.
    world.puback(first, 1);
    assert_eq!(world.status("p").in_flight, 1);
}

#[test]
fn a_client_id_that_cannot_be_kept_is_refused() {
    let mut world = World::new(edge());
    for client in ["", "a\0b", &"x".repeat(65_001)] {
        let conn = world.connect(client);
        let refused = Out::ConnAck {
            session_present: false,
            reason: 0x85,
        };
        assert_eq!(world.take(conn), [refused]);
    }
    assert_eq!(world.core.session_count(), 0);
}

#[test]
fn more_sessions_than_allowed_are_refused_but_known_ones_are_not() {
    let mut config = edge();
    config.limits.sessions_max = 1;
    let mut world = World::new(config);
    let (known, _) = world.join(persistent("p"));
    let other = world.connect("q");
    assert_eq!(
        world.take(other),
        [Out::ConnAck {
            session_present: false,
            reason: 0x97
        }]
    );
    world.cut(known);
    assert!(world.join(persistent("p")).1);
}

/// The answers of packets that came before CONNACK stand behind it. [MQTT5-3.2.0-1]
#[test]
fn packets_that_follow_connect_at_once_are_answered_after_connack() {
    let mut world = World::new(edge());
    let conn = world.connect_with(persistent("p"));
    let subscribe = world.send_subscribe(conn, None, vec![sub("x/#", 1)]);
    world.publish(conn, "x/a", "unlogged", 1);
    world.publish(conn, "log/a", "logged", 1);
    world.settle();
    let outs = world.take(conn);
    assert_eq!(
        outs[0],
        Out::ConnAck {
            session_present: false,
            reason: 0
        }
    );
    assert!(matches!(outs[1], Out::SubAck(id, _) if id == subscribe), "{outs:?}");
}
