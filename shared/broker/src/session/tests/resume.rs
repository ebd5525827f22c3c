//! Resume after reconnect and crash: what is sent again, with which packet ID, and what is never sent twice.

use std::time::Duration;

use fellbeck_core::{CommitNumber, DropReason};

use super::harness::*;

fn reader_with_messages(config: super::super::CoreConfig, qos: u8, count: usize) -> (World, Vec<Got>) {
    let mut world = World::new(config);
    let mut client = persistent("reader");
    client.receive_maximum = 3;
    let (reader, _) = world.join(client);
    world.subscribe_with(reader, Some(7), vec![sub("log/#", qos)]);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..count {
        world.publish(publisher, "log/a", &n.to_string(), qos);
    }
    world.settle();
    let got = world.messages(reader);
    world.cut(reader);
    (world, got)
}

/// [MQTT5-4.4.0-1] [MQTT3-4.4.0-1] [MQTT5-3.3.1-1] [MQTT3-3.3.1-1]
#[test]
fn unacknowledged_messages_come_again_in_order_with_dup_and_the_same_packet_id() {
    for qos in [1, 2] {
        for restart in [false, true] {
            let (mut world, first) = reader_with_messages(edge(), qos, 5);
            assert_eq!(first.len(), 3);
            world.pass(Duration::from_secs(2));
            world.settle();
            if restart {
                world.crash();
            }
            let (reader, present) = world.join(persistent("reader"));
            assert!(present);
            let again = world.messages(reader);
            let expected: Vec<_> = first.iter().cloned().map(|got| Got { dup: true, ..got }).collect();
            assert_eq!(again[..3], expected, "QoS {qos}, restart {restart}");
            let rest: Vec<_> = again[3..].iter().map(|got| (got.dup, got.payload.as_str())).collect();
            assert_eq!(rest, [(false, "3"), (false, "4")]);
        }
    }
}

/// A client may come back with a smaller Receive Maximum than it had.
#[test]
fn redelivery_keeps_to_a_smaller_receive_maximum() {
    let (mut world, first) = reader_with_messages(edge(), 1, 5);
    let mut client = persistent("reader");
    client.receive_maximum = 1;
    let (reader, _) = world.join(client);
    for n in 0..5 {
        let got = world.messages(reader);
        assert_eq!(got.len(), 1, "message {n}");
        assert_eq!((got[0].payload.clone(), got[0].dup), (n.to_string(), n < first.len()));
        world.puback(reader, got[0].packet_id.unwrap());
        world.settle();
    }
}

/// Durable before sent: neither the PUBLISH nor the PUBREL leaves before its commit.
#[test]
fn outbound_qos2_steps_leave_after_their_commit() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 2);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "x", 2);
    world.submit();
    world.store.commit(1);
    world.deliver();
    assert_eq!(world.take(reader), [], "its packet ID is not durable");
    world.submit();
    world.store.commit(1);
    world.deliver();
    let got = world.messages(reader);
    let id = got[0].packet_id.unwrap();
    world.pubrec(reader, id);
    world.submit();
    assert_eq!(world.take(reader), [], "that PUBREC was seen is not durable");
    world.store.commit(1);
    world.deliver();
    assert_eq!(world.take(reader), [Out::PubRel(id, 0)]);
}

/// What a crash may have hidden to be a delivery once came without DUP, so that the client took it for a new message.
/// [MQTT5-3.3.1-1]
#[test]
fn after_a_crash_qos1_that_may_have_been_sent_comes_with_dup_and_what_follows_does_not() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    let (away, _) = world.join(persistent("away"));
    world.subscribe(away, "log/#", 1);
    world.disconnect(away);
    world.settle();
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "before", 1);
    world.settle();
    assert!(!world.messages(reader)[0].dup);
    world.crash();
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "after", 1);
    for (client, before_has_dup) in [("reader", true), ("away", false)] {
        let (conn, present) = world.join(persistent(client));
        assert!(present);
        world.settle();
        let came: Vec<_> = world
            .messages(conn)
            .into_iter()
            .map(|got| (got.payload, got.dup))
            .collect();
        assert_eq!(
            came,
            [("before".to_owned(), before_has_dup), ("after".to_owned(), false)],
            "{client}"
        );
    }
}

/// The end of a connection was once durable before the cursor, and said that the cursor was exact.
/// [MQTT5-3.3.1-1]
#[test]
fn what_was_sent_right_before_the_connection_ended_comes_with_dup_after_a_crash() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "sent", 1);
    world.settle();
    let sent = world.messages(reader).remove(0);
    world.cut(reader);
    world.settle();
    world.crash();
    let (reader, present) = world.join(persistent("reader"));
    assert!(present);
    world.settle();
    let again = world.messages(reader);
    assert_eq!(again.len(), 1);
    assert!(again[0].dup);
    assert_eq!(again[0].packet_id, sent.packet_id);
}

/// A crash at any step of outbound QoS 2: the message is seen once, and completed.
#[test]
fn a_crash_at_any_step_of_qos2_shows_the_message_once() {
    for crash_at in 0..12 {
        let mut world = World::new(edge());
        let (mut reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "log/#", 2);
        let (publisher, _) = world.join(connect("publisher"));
        world.publish(publisher, "log/a", "x", 2);
        world.submit();
        world.store.commit(1);
        // A QoS 2 client: it takes a message when its packet ID is new.
        let (mut known, mut seen) = (std::collections::BTreeSet::new(), 0);
        for step in 0..60 {
            if step == crash_at {
                world.crash();
                (reader, _) = world.join(persistent("reader"));
            }
            world.deliver();
            for out in world.take(reader) {
                match out {
                    Out::Publish(got) => {
                        seen += u32::from(known.insert(got.packet_id));
                        world.pubrec(reader, got.packet_id.unwrap());
                    }
                    Out::PubRel(id, _) => {
                        known.remove(&Some(id));
                        world.pubcomp(reader, id);
                    }
                    other => panic!("{other:?}"),
                }
            }
            if step % 2 == 0 {
                world.submit();
            } else {
                world.store.commit(1);
            }
            world.look_up();
        }
        assert_eq!((seen, world.status("reader").in_flight), (1, 0), "crash at {crash_at}");
    }
}

/// [MQTT5-4.4.0-1] for PUBREL.
#[test]
fn an_unfinished_release_is_sent_again() {
    for restart in [false, true] {
        let (mut world, first) = reader_with_messages(edge(), 2, 1);
        let (reader, _) = world.join(persistent("reader"));
        let id = first[0].packet_id.unwrap();
        world.take(reader);
        world.pubrec(reader, id);
        world.settle();
        assert_eq!(world.take(reader), [Out::PubRel(id, 0)]);
        if restart {
            world.crash();
        } else {
            world.cut(reader);
        }
        let (reader, _) = world.join(persistent("reader"));
        assert_eq!(world.take(reader), [Out::PubRel(id, 0)]);
        world.pubcomp(reader, id);
        assert_eq!(world.status("reader").in_flight, 0);
    }
}

/// The head moves within a second; until then, and no longer, a QoS 1 reader may see again what it acknowledged.
#[test]
fn after_a_crash_only_the_acks_of_the_last_second_may_be_seen_again() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..3 {
        world.publish(publisher, "log/a", &n.to_string(), 1);
    }
    assert_eq!(world.consume(reader), ["0", "1", "2"]);
    world.pass(Duration::from_secs(1));
    world.settle();
    world.publish(publisher, "log/a", "3", 1);
    assert_eq!(world.consume(reader), ["3"]);
    world.crash();
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.consume(reader), ["3"]);
    world.assert_books_balance("reader");
}

#[test]
fn a_session_that_was_away_gets_all_of_it_once_also_after_crashes() {
    for config in [edge(), cloud()] {
        let mut config = config;
        config.limits.read_bytes = 200;
        let mut world = World::new(config);
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "log/#", 1);
        world.disconnect(reader);
        world.settle();
        let (mut publisher, _) = world.join(connect("publisher"));
        let mut expected = Vec::new();
        for n in 0..100 {
            world.publish(publisher, "log/a", &n.to_string(), 1);
            expected.push(n.to_string());
            world.settle();
            if n % 30 == 0 {
                world.pass(Duration::from_secs(1));
                world.settle();
                world.crash();
                (publisher, _) = world.join(connect("publisher"));
            }
        }
        let (reader, _) = world.join(persistent("reader"));
        assert_eq!(world.consume(reader), expected);
        world.assert_books_balance("reader");
    }
}

/// The oldest commit that somebody still has to read pins the log, and nothing else does.
#[test]
fn the_floor_follows_the_slowest_persistent_session() {
    let mut world = World::new(edge());
    let (idle, _) = world.join(persistent("idle"));
    world.subscribe(idle, "other/#", 1);
    world.disconnect(idle);
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    world.disconnect(reader);
    let (publisher, _) = world.join(connect("publisher"));
    world.settle();
    world.publish(publisher, "log/a", "first", 1);
    world.settle();
    let first = world.store.log[0].commit;
    for _ in 0..10 {
        world.publish(publisher, "log/a", "more", 1);
        world.settle();
    }
    world.pass(Duration::from_secs(1));
    world.settle();
    assert_eq!(world.store.floor, Some(first));
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.consume(reader).len(), 11);
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(
        world.store.floor > Some(world.store.log[10].commit),
        "an idle session pins nothing"
    );
    // Nor does it after a crash, when it reads on by itself.
    world.crash();
    world.settle();
    world.pass(Duration::from_secs(1));
    world.settle();
    assert!(world.store.floor > Some(world.store.log[10].commit));
    assert_eq!(world.status("idle").ledger.matched, 0);
}

/// Found by power cuts: the floor came with the first flush, a second later. A node that was killed before had none, and its store gave
/// up at the start what the uplink had acknowledged and a session had still to read.
#[test]
fn a_session_pins_the_log_from_its_first_commit_on() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    world.disconnect(reader);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "first", 1);
    world.settle();
    let first = world.store.log[0].commit;
    let floor = world.store.floor;
    assert!(floor.is_some_and(|floor| floor <= first), "{floor:?}, {first}");
}

/// What retention took before the reader came is counted, never silent, and nothing hangs.
#[test]
fn a_reader_that_retention_has_overtaken_counts_what_is_gone_and_goes_on() {
    let (mut world, first) = reader_with_messages(edge(), 1, 1);
    assert_eq!(first.len(), 1);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 1..10 {
        world.publish(publisher, "log/a", &n.to_string(), 1);
        world.settle();
    }
    world.store.trimmed_below = CommitNumber(world.store.log[6].commit.0);
    let (reader, _) = world.join(persistent("reader"));
    let rest: Vec<_> = (6..10).map(|n| n.to_string()).collect();
    assert_eq!(world.consume(reader), rest);
    let ledger = world.status("reader").ledger;
    // The one in flight was matched before, the others were not looked at.
    assert_eq!((ledger.dropped_for(DropReason::Trimmed), ledger.skipped), (1, 5));
    world.assert_books_balance("reader");
}

/// A message at QoS 2 that was sent and cannot be sent again: its client may hold the packet ID, and would take the message that gets it
/// in the next round for a repetition. So the ID is released.
#[test]
fn a_packet_id_of_a_message_that_is_given_up_is_released_before_it_is_free() {
    let (mut world, first) = reader_with_messages(edge(), 2, 1);
    let id = first[0].packet_id.unwrap();
    world.pass(Duration::from_secs(2));
    world.settle();
    world.store.trimmed_below = CommitNumber(u64::MAX);
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.take(reader), [Out::PubRel(id, 0)]);
    let ledger = world.status("reader").ledger;
    assert_eq!((ledger.dropped_for(DropReason::Trimmed), ledger.acked), (1, 0));
    world.assert_books_balance("reader");
    // PUBREL is lost: it comes again, and the message is counted once.
    world.cut(reader);
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.take(reader), [Out::PubRel(id, 0)]);
    world.pubcomp(reader, id);
    world.settle();
    let ledger = world.status("reader").ledger;
    assert_eq!((ledger.dropped_for(DropReason::Trimmed), ledger.acked), (1, 0));
    assert_eq!(world.status("reader").in_flight, 0);
    world.assert_books_balance("reader");
}

/// Seen on an overloaded machine: a reader at QoS 2 was thousands of messages behind while its publishers went on. It was slow, not
/// stuck: each message costs it two commits, so with a window of 20 it takes 10 per commit while 32 more are published in each.
#[test]
fn a_qos2_reader_that_is_far_behind_goes_on_with_every_commit_and_gets_everything_once() {
    let mut world = World::new(edge());
    let mut client = persistent("reader");
    client.receive_maximum = 20;
    let (reader, _) = world.join(client);
    world.subscribe(reader, "log/#", 2);
    let (publisher, _) = world.join(connect("publisher"));
    let (mut published, mut got) = (0, Vec::new());
    let mut silent = 0;
    while got.len() < published || published < 6_400 {
        if published < 6_400 {
            for _ in 0..32 {
                world.publish(publisher, "log/a", &published.to_string(), 2);
                published += 1;
            }
        }
        world.submit();
        world.store.commit(1);
        world.deliver();
        while world.look_up() {}
        let before = got.len();
        let mut released = false;
        for out in world.take(publisher) {
            if let Out::PubRec(id, 0) = out {
                world.pubrel(publisher, id);
            }
        }
        for out in world.take(reader) {
            match out {
                Out::Publish(message) => {
                    got.push(message.payload);
                    match (message.qos, message.packet_id.unwrap()) {
                        (2, id) => world.pubrec(reader, id),
                        (_, id) => world.puback(reader, id),
                    }
                }
                Out::PubRel(id, _) => {
                    released = true;
                    world.pubcomp(reader, id);
                }
                other => panic!("{other:?}"),
            }
        }
        silent = if got.len() > before || released { 0 } else { silent + 1 };
        assert!(
            silent < 4,
            "nothing came for {silent} commits, {} of {published} are there",
            got.len()
        );
    }
    let expected: Vec<_> = (0..published).map(|n| n.to_string()).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_read_that_fails_is_tried_again() {
    let (mut world, _) = reader_with_messages(edge(), 1, 1);
    let reader = world.connect_with(persistent("reader"));
    world.submit();
    world.store.commit(1);
    world.deliver();
    world.take(reader);
    let request = world.core.poll_read(world.now).unwrap();
    world.core.handle_read(request.reader, None, world.now, &mut world.tape);
    assert_eq!(world.core.poll_read(world.now), None, "not at once");
    let due = world.core.poll_timeout().unwrap();
    world.pass(due.since(world.now.tick));
    world.settle();
    assert_eq!(world.payloads(reader), ["0"]);
}

/// [MQTT5-4.4.0-2]: a PUBREC with a failure ends the delivery.
#[test]
fn a_message_that_the_client_refuses_is_complete() {
    let (mut world, first) = reader_with_messages(edge(), 2, 1);
    let (reader, _) = world.join(persistent("reader"));
    world.take(reader);
    world
        .core
        .handle_pubrec(reader, first[0].packet_id.unwrap(), 0x97, world.now, &mut world.tape);
    world.settle();
    assert_eq!((world.take(reader), world.status("reader").in_flight), (vec![], 0));
}

#[test]
fn acknowledgements_of_the_wrong_kind_close_the_connection_and_unknown_ones_do_not() {
    let (mut world, first) = reader_with_messages(edge(), 1, 1);
    let (reader, _) = world.join(persistent("reader"));
    world.take(reader);
    world.puback(reader, 999);
    world.pubcomp(reader, 999);
    world.pubrec(reader, 999);
    assert_eq!(world.take(reader), [Out::PubRel(999, 0x92)]);
    world.core.handle_pubrec(reader, 999, 0x80, world.now, &mut world.tape);
    assert_eq!(world.take(reader), [], "a refusal is not answered [MQTT5-4.3.3-4]");
    world.pubrec(reader, first[0].packet_id.unwrap());
    assert_eq!(world.take(reader), [Out::Closed(0x82)]);
    assert_eq!(world.status("reader").in_flight, 1);
}

/// The client took the message on its former connection and says so before it was sent again: it may forget the packet ID then,
/// and would take the message for a new one.
#[test]
fn a_message_that_the_client_says_it_has_received_is_not_sent_again() {
    for unlogged in [false, true] {
        let mut world = World::new(edge());
        let (publisher, _) = world.join(connect("publisher"));
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "log/#", 2);
        if unlogged {
            world.subscribe(reader, "home/#", 1);
        }
        world.publish(publisher, "log/a", "received", 2);
        world.settle();
        world.publish(publisher, if unlogged { "home/a" } else { "log/a" }, "next", 1);
        world.settle();
        let ids: Vec<_> = world
            .messages(reader)
            .iter()
            .map(|got| got.packet_id.unwrap())
            .collect();
        world.cut(reader);
        world.settle();
        let reader = world.connect_with(persistent("reader"));
        world.submit();
        world.store.commit(1);
        world.deliver();
        assert!(matches!(world.take(reader)[..], [Out::ConnAck { .. }]));
        world.pubrec(reader, ids[0]);
        world.settle();
        let outs = world.take(reader);
        assert!(outs.contains(&Out::PubRel(ids[0], 0)), "{outs:?}");
        let again: Vec<_> = outs
            .iter()
            .filter_map(|out| match out {
                Out::Publish(got) => Some((got.payload.as_str(), got.dup)),
                _ => None,
            })
            .collect();
        assert_eq!(again, [("next", true)], "unlogged {unlogged}");
        world.pubcomp(reader, ids[0]);
        world.puback(reader, ids[1]);
        world.settle();
        assert_eq!((world.take(reader), world.status("reader").in_flight), (vec![], 0));
    }
}

/// An entry of the table that is not stored has still used its packet ID up: the client may hold it.
#[test]
fn a_packet_id_is_not_given_again_after_a_crash_while_the_client_may_hold_it() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/own", 1);
    world.subscribe(reader, "$share/g/log/g", 2);
    world.publish(publisher, "log/own", "own", 1);
    world.settle();
    world.publish(publisher, "log/g", "group", 2);
    world.settle();
    let first = world.messages(reader);
    assert_eq!(first.len(), 2);
    // The message of the group cannot be stored any more: nothing says where it is.
    world.unsubscribe(reader, "$share/g/log/g");
    world.pass(Duration::from_secs(2));
    world.settle();
    world.crash();
    let (publisher, _) = world.join(connect("publisher"));
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/b", 2);
    world.publish(publisher, "log/b", "next", 2);
    world.settle();
    let got = world.messages(reader);
    let next = got.iter().find(|got| got.payload == "next").expect("it is delivered");
    assert_ne!(next.packet_id, first[1].packet_id);
    assert!(!next.dup);
}

/// QoS 0 is not kept for a session that is away, so the log is not kept for it either.
#[test]
fn a_session_that_left_with_qos0_messages_in_its_queue_pins_nothing() {
    for qos in [0, 1] {
        let mut world = World::new(edge());
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "log/#", 1);
        world.backlog(reader);
        let (publisher, _) = world.join(connect("publisher"));
        world.publish(publisher, "log/a", "queued", qos);
        world.settle();
        let queued = world.store.log[0].commit;
        world.cut(reader);
        world.publish(publisher, "log2/a", "later", 1);
        world.subscribe(publisher, "log2/#", 0);
        world.settle();
        world.pass(Duration::from_secs(1));
        world.settle();
        assert_eq!(world.store.floor.unwrap() <= queued, qos == 1, "QoS {qos}");
        assert_eq!(world.status("reader").unread, u64::from(qos));
        world.assert_books_balance("reader");
    }
}

/// The node that stops waits for what clients were sent, not for what they were not.
#[test]
fn a_message_whose_packet_id_is_not_durable_awaits_no_acknowledgement() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 2);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "x", 2);
    world.submit();
    world.store.commit(1);
    world.deliver();
    assert_eq!(world.status("reader").in_flight, 1);
    assert!(!world.core.awaits_acks());
    world.settle();
    assert_eq!(world.payloads(reader), ["x"]);
    assert!(world.core.awaits_acks());
}
