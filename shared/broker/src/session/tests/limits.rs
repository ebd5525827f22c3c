//! Bounds: who gives way, what is refused, and that room comes back.

use super::harness::*;

fn refused(world: &mut World, client: crate::wire::Connect) -> bool {
    let conn = world.connect_with(client);
    world.settle();
    let outs = world.take(conn);
    match outs[..] {
        [Out::ConnAck { reason: 0x97, .. }] => true,
        [Out::ConnAck { reason: 0, .. }] => false,
        _ => panic!("{outs:?}"),
    }
}

/// Clients that open sessions and leave them behind empty must not lock others out, also after a restart.
#[test]
fn sessions_that_hold_nothing_give_way_the_longest_away_first() {
    for restart in [false, true] {
        let mut config = edge();
        config.limits.sessions_max = 4;
        let mut world = World::new(config);
        let (keeper, _) = world.join(persistent("keeper"));
        world.subscribe(keeper, "log/#", 1);
        world.cut(keeper);
        for n in 0..3 {
            let (conn, _) = world.join(persistent(&format!("empty{n}")));
            world.cut(conn);
            world.pass(std::time::Duration::from_secs(1));
        }
        world.settle();
        if restart {
            world.crash();
        }
        assert!(!refused(&mut world, connect("a")), "restart {restart}");
        assert!(!refused(&mut world, persistent("b")), "restart {restart}");
        assert!(world.core.session_status("empty1").is_none() && world.core.session_status("empty2").is_some());
        assert!(world.join(persistent("empty2")).1, "it came in time");
        assert!(
            refused(&mut world, connect("c")),
            "the others are connected or hold something"
        );
        assert!(world.core.session_status("keeper").is_some());
        world.crash();
        assert!(world.core.session_status("empty1").is_none(), "it is gone for good");
    }
}

/// What would be lost does not give way: subscriptions, messages in either direction, wills.
#[test]
fn sessions_that_hold_something_do_not_give_way() {
    let mut config = edge();
    config.limits.sessions_max = 3;
    let mut world = World::new(config);
    let (subscriber, _) = world.join(persistent("subscriber"));
    world.subscribe(subscriber, "x", 0);
    let (publisher, _) = world.join(persistent("publisher"));
    world.publish_with(publisher, &Send::new("log/a", "x", 2, 1));
    world.settle();
    let mut client = persistent("will");
    let mut delayed = will("log/w", "w");
    delayed.delay_secs = 50;
    client.will = Some(delayed);
    let (with_will, _) = world.join(client);
    for conn in [subscriber, publisher, with_will] {
        world.cut(conn);
    }
    assert!(refused(&mut world, connect("a")));
    world.pass(std::time::Duration::from_secs(50));
    world.settle();
    assert!(
        !refused(&mut world, connect("a")),
        "the will was sent, so nothing is left"
    );
    assert!(world.core.session_status("will").is_none());
}

/// One client may hold many filters, or long ones, not many long ones.
#[test]
fn filters_are_bounded_by_their_bytes_too_and_room_comes_back() {
    let mut config = edge();
    config.limits.subscription_bytes_max = 30;
    let mut world = World::new(config);
    for client in [connect("clean"), persistent("durable")] {
        let (conn, _) = world.join(client);
        let long = |n: u8| format!("{n}{}", "y".repeat(11));
        let wanted = vec![
            sub(&long(0), 1),
            sub(&format!("$share/g/{}", long(1)), 1),
            sub(&long(2), 1),
        ];
        assert_eq!(world.subscribe_with(conn, None, wanted), [1, 1, 0x97]);
        assert_eq!(world.subscribe(conn, &long(0), 2), [2], "one that is there may change");
        world.unsubscribe(conn, &long(0));
        world.pass(std::time::Duration::from_secs(1));
        world.settle();
        assert_eq!(world.subscribe(conn, &long(2), 1), [1]);
        world.unsubscribe(conn, &long(2));
        world.unsubscribe(conn, &format!("$share/g/{}", long(1)));
        world.pass(std::time::Duration::from_secs(1));
        world.settle();
        let session = world.core.sessions.iter().next().unwrap();
        assert_eq!(session.subscriptions.bytes(), 0);
        world.disconnect(conn);
        world.core.handle_tick(world.now, &mut world.tape);
        world.settle();
    }
}
