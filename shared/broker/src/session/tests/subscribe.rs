//! SUBSCRIBE and UNSUBSCRIBE: reason codes, and subscriptions over time.

use super::harness::*;

/// [MQTT5-3.8.4-6] [MQTT5-3.9.3-1] [MQTT5-3.9.3-2] [MQTT5-3.11.3-1] [MQTT5-4.8.2-1] [MQTT5-4.8.2-2] [MQTT3-3.9.3-2]
#[test]
fn bad_filters_are_answered_one_by_one() {
    let mut world = World::new(edge());
    let filters = || {
        vec![
            sub("a/#", 2),
            sub("a/#/b", 1),
            sub("", 0),
            sub("$share/g", 0),
            sub("b", 0),
        ]
    };
    let (new, _) = world.join(connect("new"));
    assert_eq!(world.subscribe_with(new, None, filters()), [2, 0x8f, 0x8f, 0x8f, 0]);
    let (old, _) = world.join(old_version(persistent("old")));
    assert_eq!(world.subscribe_with(old, None, filters()), [2, 0x80, 0x80, 0x80, 0]);
    assert_eq!(world.unsubscribe(new, "a/#"), [0]);
    assert_eq!(world.unsubscribe(new, "a/#"), [0x11]);
    assert_eq!(world.unsubscribe(new, "a/#/b"), [0x8f]);
}

#[test]
fn more_subscriptions_than_allowed_are_refused_but_known_ones_may_change() {
    let mut config = edge();
    config.limits.subscriptions_max = 2;
    let mut world = World::new(config);
    for client in [connect("clean"), persistent("durable")] {
        let (conn, _) = world.join(client);
        assert_eq!(
            world.subscribe_with(conn, None, vec![sub("a", 0), sub("b", 0), sub("c", 0)]),
            [0, 0, 0x97]
        );
        assert_eq!(world.subscribe(conn, "a", 2), [2]);
        assert_eq!(world.unsubscribe(conn, "b"), [0]);
        assert_eq!(world.subscribe(conn, "c", 1), [1]);
    }
}

/// [MQTT5-3.8.3-4]
#[test]
fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(connect("c"));
    let mut shared = sub("$share/g/a", 1);
    shared.no_local = true;
    world.send_subscribe(conn, None, vec![shared]);
    assert_eq!(world.take(conn), [Out::Closed(0x82)]);
}

/// SUBACK says that the subscription is kept.
#[test]
fn suback_of_a_persistent_session_follows_its_commit() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    let id = world.send_subscribe(conn, None, vec![sub("log/#", 1)]);
    world.submit();
    assert_eq!(world.take(conn), []);
    world.settle();
    assert_eq!(world.take(conn), [Out::SubAck(id, vec![1])]);
    world.crash();
    let (publisher, _) = world.join(connect("q"));
    world.publish(publisher, "log/a", "x", 1);
    world.settle();
    let (conn, _) = world.join(persistent("p"));
    assert_eq!(world.payloads(conn), ["x"]);
}

/// Subscribing does not deliver the past, and misses nothing that is published after SUBACK.
#[test]
fn a_subscription_begins_at_its_commit() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (conn, _) = world.join(persistent("p"));
        let (publisher, _) = world.join(connect("q"));
        world.publish(publisher, "log/a", "before", 1);
        world.send_subscribe(conn, None, vec![sub("log/#", 1)]);
        world.settle();
        world.publish(publisher, "log/a", "after", 1);
        world.settle();
        world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
        assert_eq!(world.payloads(conn), ["after"]);
    }
}

/// A clean session of the edge that subscribes and publishes in one go sees its message.
#[test]
fn a_clean_session_of_the_edge_is_subscribed_at_once() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(connect("c"));
    let id = world.send_subscribe(conn, None, vec![sub("log/#", 0)]);
    world.publish(conn, "log/a", "mine", 0);
    world.settle();
    let outs = world.take(conn);
    assert_eq!(outs[0], Out::SubAck(id, vec![0]));
    assert!(
        matches!(&outs[1], Out::Publish(got) if got.payload == "mine"),
        "{outs:?}"
    );
}

/// What was subscribed when a record was committed decides, however late it is read, also after a crash: versions are stored.
#[test]
fn records_are_matched_with_the_subscriptions_of_their_time() {
    for restart in [false, true] {
        let mut world = World::new(edge());
        let (mut conn, _) = world.join(persistent("p"));
        let (publisher, _) = world.join(connect("q"));
        // Nothing can be sent, so all this is delivered later.
        world.backlog(conn);
        let step = |world: &mut World, name: &str| {
            world.publish(publisher, "log/a", name, 2);
            world.settle();
        };
        step(&mut world, "not subscribed");
        world.subscribe_with(conn, Some(1), vec![sub("log/#", 1)]);
        step(&mut world, "at 1");
        world.subscribe_with(conn, Some(2), vec![sub("log/#", 2)]);
        step(&mut world, "at 2");
        world.unsubscribe(conn, "log/#");
        step(&mut world, "in between");
        world.subscribe_with(conn, Some(3), vec![sub("log/+", 1)]);
        step(&mut world, "at 3");
        if restart {
            world.crash();
            (conn, _) = world.join(persistent("p"));
        } else {
            world.unblock(conn);
            world.settle();
        }
        let got: Vec<_> = world
            .messages(conn)
            .into_iter()
            .map(|got| (got.payload, got.qos, got.ids))
            .collect();
        let expected = [("at 1", 1, vec![1]), ("at 2", 2, vec![2]), ("at 3", 1, vec![3])];
        assert_eq!(
            got,
            expected.map(|(payload, qos, ids)| (payload.to_owned(), qos, ids)),
            "restart {restart}"
        );
    }
}

/// Versions that were read past go, from memory and from the store.
#[test]
fn old_versions_of_subscriptions_do_not_pile_up() {
    let mut world = World::new(edge());
    let (conn, _) = world.join(persistent("p"));
    let (publisher, _) = world.join(connect("q"));
    for round in 0..50 {
        world.subscribe(conn, "log/#", round % 3);
        world.unsubscribe(conn, "log/#");
        if round % 10 == 0 {
            world.publish(publisher, "log/a", "x", 1);
        }
        world.consume(conn);
        world.pass(std::time::Duration::from_secs(1));
        world.settle();
    }
    world.pass(std::time::Duration::from_secs(1));
    world.settle();
    let stored = world.stored(fellbeck_store::commit::Space::Session);
    let versions = stored.keys().filter(|key| key.starts_with('S')).count();
    assert!(versions <= 2, "{stored:?}");
    assert_eq!(world.core.ending.len(), 0);
}

/// However many filters one packet names, no more are looked at than a session may have.
#[test]
fn filters_of_one_packet_beyond_the_bound_are_refused_unseen() {
    let mut config = edge();
    config.limits.subscriptions_max = 2;
    let mut world = World::new(config);
    for client in [connect("clean"), persistent("durable")] {
        let (conn, _) = world.join(client);
        let filters = vec![sub("a", 0), sub("a", 1), sub("a", 2), sub("#/", 0)];
        assert_eq!(world.subscribe_with(conn, None, filters), [0, 1, 0x97, 0x97]);
        let session = world.core.sessions.iter().find(|session| session.attached.is_some());
        assert_eq!(session.unwrap().subscriptions.open_count(), 1);
        world.disconnect(conn);
        world.settle();
    }
}

/// Packets of one client are handled in their order: what it publishes behind its SUBSCRIBE is for that subscription, whatever is on
/// its way to the store, and also without waiting for SUBACK. [MQTT5-4.5.0-1]
#[test]
fn a_message_published_right_behind_subscribe_is_not_missed() {
    for config in [edge(), cloud()] {
        for client in [connect("c"), persistent("c"), old_version(persistent("c"))] {
            for (filter, qos) in [("log/#", 0), ("log/#", 1), ("$share/g/log/#", 1), ("log/#", 2)] {
                let mut world = World::new(config.clone());
                let (load, _) = world.join(connect("load"));
                let (conn, _) = world.join(client.clone());
                world.publish(load, "log2/load", "x", 1);
                world.send_subscribe(conn, None, vec![sub(filter, qos)]);
                world.publish(conn, "log/a", "mine", qos);
                world.publish(load, "log2/load", "x", 1);
                world.submit();
                world.store.commit(2);
                world.deliver();
                world.settle();
                let outs = world.take(conn);
                let mine = |out: &Out| matches!(out, Out::Publish(got) if got.payload == "mine");
                let suback = outs.iter().position(|out| matches!(out, Out::SubAck(..)));
                let message = outs.iter().position(mine);
                assert!(suback.is_some() && suback < message, "{filter} {qos}: {outs:?}");
            }
        }
    }
}

/// [MQTT5-3.10.4-2]: nor is what it publishes behind its UNSUBSCRIBE delivered.
#[test]
fn a_message_published_right_behind_unsubscribe_is_not_delivered() {
    for config in [edge(), cloud()] {
        for client in [connect("c"), persistent("c")] {
            let mut world = World::new(config.clone());
            let (conn, _) = world.join(client);
            world.subscribe(conn, "log/#", 1);
            world.publish(conn, "log2/load", "x", 0);
            world.send_unsubscribe(conn, "log/#");
            world.publish(conn, "log/a", "mine", 0);
            world.settle();
            assert!(matches!(world.take(conn)[..], [Out::UnsubAck(..)]));
        }
    }
}
