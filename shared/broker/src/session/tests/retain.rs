//! Retained messages.

use fellbeck_core::DropReason;
use fellbeck_store::commit::Space;

use super::harness::*;

fn retained(world: &mut World, conn: crate::wire::ConnId) -> Vec<(String, String, u8, bool)> {
    let got = world.messages(conn).into_iter();
    got.map(|got| (got.topic, got.payload, got.qos, got.retain)).collect()
}

/// [MQTT5-3.3.1-5] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7] [MQTT5-3.3.1-9] [MQTT3-3.3.1-6] [MQTT3-3.3.1-8]
#[test]
fn a_new_subscription_is_sent_what_is_retained() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (publisher, _) = world.join(connect("publisher"));
        world.retain(publisher, "log/a", "old", 1);
        world.retain(publisher, "log/a", "new", 1);
        world.retain(publisher, "home/b", "unlogged", 2);
        world.retain(publisher, "log/gone", "x", 1);
        world.retain(publisher, "log/gone", "", 1);
        world.retain(publisher, "$x/c", "hidden", 1);
        world.settle();
        world.take(publisher);
        for client in [connect("clean"), persistent("durable")] {
            let (reader, _) = world.join(client);
            world.subscribe(reader, "#", 1);
            let expected = [("home/b", "unlogged", 1, true), ("log/a", "new", 1, true)];
            let expected =
                expected.map(|(topic, payload, qos, flag)| (topic.to_owned(), payload.to_owned(), qos, flag));
            assert_eq!(retained(&mut world, reader), expected);
        }
    }
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT5-3.8.4-4]
#[test]
fn retain_handling_decides_who_is_sent_retained_messages() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    world.retain(publisher, "log/a", "x", 1);
    world.settle();
    for client in [connect("clean"), persistent("durable")] {
        let (reader, _) = world.join(client);
        let mut count = |handling: u8, filter: &str| {
            let mut wanted = sub(filter, 1);
            wanted.retain_handling = handling;
            world.subscribe_with(reader, None, vec![wanted]);
            world.consume(reader).len()
        };
        assert_eq!(
            [
                count(1, "log/a"),
                count(1, "log/a"),
                count(0, "log/a"),
                count(2, "log/#")
            ],
            [1, 0, 1, 0]
        );
        // Section 4.8.2.
        assert_eq!(count(0, "$share/g/log/a"), 0);
    }
}

/// No gap and no double where the snapshot ends and the live messages begin, and the older value never comes last.
#[test]
fn live_changes_follow_the_snapshot() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (publisher, _) = world.join(connect("publisher"));
        for topic in ["log/a", "log/b", "log/c"] {
            world.retain(publisher, topic, "old", 1);
        }
        world.settle();
        let mut client = persistent("reader");
        client.receive_maximum = 1;
        let (reader, _) = world.join(client);
        world.subscribe(reader, "log/#", 1);
        world.retain(publisher, "log/b", "new", 1);
        world.retain(publisher, "log/d", "new", 1);
        world.settle();
        let mut got = Vec::new();
        loop {
            world.settle();
            let messages = world.messages(reader);
            if messages.is_empty() {
                break;
            }
            for message in messages {
                world.puback(reader, message.packet_id.unwrap());
                got.push((message.topic, message.payload, message.retain));
            }
        }
        let position = |topic: &str, payload: &str, flag: bool| {
            got.iter()
                .position(|entry| *entry == (topic.to_owned(), payload.to_owned(), flag))
        };
        assert!(position("log/a", "old", true).is_some() && position("log/c", "old", true).is_some());
        // The page may have been read before or after the change; the new value comes live in any case, and last.
        assert!(position("log/b", "new", false).is_some() && position("log/d", "new", false).is_some());
        assert!(position("log/b", "old", true) < position("log/b", "new", false));
        assert!(got.len() <= 5, "{got:?}");
    }
}

#[test]
fn a_crash_in_the_middle_of_a_snapshot_shows_each_retained_qos2_message_once() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..20 {
        world.retain(publisher, &format!("log/{n:02}"), &n.to_string(), 2);
    }
    world.settle();
    let mut client = persistent("reader");
    client.receive_maximum = 3;
    let (mut reader, _) = world.join(client.clone());
    world.subscribe(reader, "log/#", 2);
    let (mut known, mut seen) = (std::collections::BTreeSet::new(), Vec::new());
    for round in 0..200 {
        if round % 5 == 4 {
            world.crash();
            (reader, _) = world.join(client.clone());
        }
        world.settle();
        for out in world.take(reader) {
            match out {
                Out::Publish(got) => {
                    assert!(got.retain);
                    if known.insert(got.packet_id) {
                        seen.push(got.payload);
                    }
                    world.pubrec(reader, got.packet_id.unwrap());
                }
                Out::PubRel(id, _) => {
                    known.remove(&Some(id));
                    world.pubcomp(reader, id);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(seen, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    world.assert_books_balance("reader");
}

/// [MQTT5-4.4.0-1]: the same packet, subscription identifier included.
#[test]
fn an_unacknowledged_retained_message_comes_again_as_it_was() {
    for restart in [false, true] {
        let mut world = World::new(edge());
        let (publisher, _) = world.join(connect("publisher"));
        world.retain(publisher, "log/a", "x", 2);
        world.settle();
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe_with(reader, Some(9), vec![sub("log/#", 2)]);
        let first = world.messages(reader);
        assert_eq!((first.len(), &first[0].ids[..]), (1, &[9][..]));
        if restart {
            world.crash();
        }
        let (reader, _) = world.join(persistent("reader"));
        assert_eq!(
            world.messages(reader),
            [Got {
                dup: true,
                ..first[0].clone()
            }],
            "restart {restart}"
        );
    }
}

/// [MQTT5-4.4.0-1]: what was sent is sent again, also where its value was replaced meanwhile; the new one comes by the subscription,
/// behind it. After a restart, or beyond the bound of what is kept, the old one is gone, and counted.
#[test]
fn a_retained_message_in_flight_comes_again_although_it_was_replaced() {
    for (restart, bytes) in [(false, 3), (true, 3), (false, 300 << 10)] {
        for qos in [1, 2] {
            let mut world = World::new(edge());
            let (publisher, _) = world.join(connect("publisher"));
            let old = "o".repeat(bytes);
            world.retain(publisher, "log/a", &old, qos);
            world.settle();
            let (reader, _) = world.join(persistent("reader"));
            world.subscribe_with(reader, Some(4), vec![sub("log/a", qos)]);
            let first = world.messages(reader);
            assert_eq!((first.len(), &first[0].payload), (1, &old));
            world.cut(reader);
            world.retain(publisher, "log/a", "new", qos);
            world.settle();
            world.pass(std::time::Duration::from_secs(1));
            world.settle();
            if restart {
                world.crash();
            }
            let (reader, _) = world.join(persistent("reader"));
            let is_kept = !restart && bytes == 3;
            if qos == 2 && !is_kept {
                // The client may hold its packet ID.
                let released = Out::PubRel(first[0].packet_id.unwrap(), 0);
                assert!(world.release(reader, &released), "{released:?}");
            }
            let again = world.messages(reader);
            if is_kept {
                let dup = true;
                assert_eq!(
                    again[0],
                    Got {
                        dup,
                        ..first[0].clone()
                    }
                );
            }
            let payloads: Vec<_> = again.iter().map(|got| got.payload.as_str()).collect();
            assert_eq!(payloads[usize::from(is_kept)..], ["new"]);
            let dropped = world.status("reader").ledger.dropped_for(DropReason::Trimmed);
            assert_eq!(dropped, u64::from(!is_kept));
            world.assert_books_balance("reader");
        }
    }
}

/// [MQTT5-4.4.0-1]: also where the subscription that it was sent for was replaced or is gone meanwhile.
#[test]
fn an_unacknowledged_retained_message_keeps_the_identifier_of_its_subscription() {
    for replaced in [false, true] {
        let mut world = World::new(edge());
        let (publisher, _) = world.join(connect("publisher"));
        world.retain(publisher, "log/a", "x", 1);
        world.settle();
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe_with(reader, Some(9), vec![sub("log/#", 1)]);
        let first = world.messages(reader);
        if replaced {
            let mut again = sub("log/#", 1);
            again.retain_handling = 2;
            world.subscribe_with(reader, None, vec![again]);
        } else {
            world.unsubscribe(reader, "log/#");
        }
        world.pass(std::time::Duration::from_secs(2));
        world.settle();
        world.crash();
        let (reader, _) = world.join(persistent("reader"));
        let dup = true;
        assert_eq!(
            world.messages(reader),
            [Got {
                dup,
                ..first[0].clone()
            }],
            "replaced {replaced}"
        );
        world.puback(reader, first[0].packet_id.unwrap());
        world.pass(std::time::Duration::from_secs(2));
        world.settle();
        let stored = world.stored(Space::Session);
        let versions = stored.keys().filter(|key| key.starts_with('S')).count();
        assert_eq!(versions, usize::from(replaced), "the old one goes then");
    }
}

#[test]
fn a_large_retained_store_is_read_in_pages() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    let payload = "x".repeat(3000);
    for n in 0..100 {
        world.retain(publisher, &format!("log/{n}"), &payload, 0);
    }
    world.settle();
    let (reader, _) = world.join(connect("reader"));
    world.subscribe(reader, "log/#", 0);
    assert_eq!(world.messages(reader).len(), 100);
    assert_eq!(world.stored(Space::Retained).len(), 100);
}

#[test]
fn a_subscription_that_ends_is_sent_no_more_retained_messages() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..10 {
        world.retain(publisher, &format!("log/{n}"), "x", 1);
    }
    world.settle();
    let mut client = persistent("reader");
    client.receive_maximum = 2;
    let (reader, _) = world.join(client);
    world.subscribe(reader, "log/#", 1);
    world.unsubscribe(reader, "log/#");
    assert_eq!(world.consume(reader).len(), 2);
}

/// An older retained value never follows a newer live one, also where live messages do not wait for commits.
#[test]
fn a_clean_session_of_the_edge_ends_with_the_newest_value() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    world.retain(publisher, "log/x", "old", 1);
    world.settle();
    let (reader, _) = world.join(connect("reader"));
    world.publish(publisher, "log/y", "load", 1);
    world.send_subscribe(reader, None, vec![sub("log/x", 0)]);
    world.submit();
    world.retain(publisher, "log/x", "new", 1);
    world.submit();
    world.store.commit(1);
    world.deliver();
    world.look_up();
    world.settle();
    world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
    assert_eq!(world.payloads(reader), ["old", "new"]);
}

/// What no log holds is found in the store, or comes live; there is no time in between.
#[test]
fn an_unlogged_value_published_between_subscribe_and_suback_is_not_missed() {
    for config in [edge(), cloud()] {
        for qos in [0, 1] {
            for together in [false, true] {
                let mut world = World::new(config.clone());
                let (publisher, _) = world.join(connect("publisher"));
                world.retain(publisher, "$app/x", "old", qos);
                world.settle();
                let (reader, _) = world.join(persistent("reader"));
                world.send_subscribe(reader, None, vec![sub("$app/x", 1)]);
                world.submit();
                world.retain(publisher, "$app/x", "new", qos);
                world.submit();
                world.store.commit(1);
                if together {
                    // SUBACK leaves when the new value is durable already; else the scan must wait for it.
                    world.store.commit(1);
                }
                world.deliver();
                world.look_up();
                world.settle();
                world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
                assert_eq!(world.payloads(reader), ["new"], "QoS {qos}, together {together}");
            }
        }
    }
}

/// A reader may be ahead of the answers of the store: what it passed would be missed by a subscription that begins there.
#[test]
fn a_read_passes_no_commit_that_a_subscription_may_begin_at() {
    let mut config = cloud();
    config.limits.session_queue_records = 1;
    let mut world = World::new(config);
    let (publisher, _) = world.join(connect("publisher"));
    world.retain(publisher, "log/x", "old", 1);
    world.settle();
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/other", 1);
    world.backlog(reader);
    for n in 0..4 {
        world.publish(publisher, "log/other", &n.to_string(), 1);
        world.settle();
    }
    world.unblock(reader);
    world.send_subscribe(reader, None, vec![sub("log/x", 1)]);
    world.submit();
    world.store.commit(1);
    world.retain(publisher, "log/x", "new", 1);
    world.submit();
    world.store.commit(1);
    let request = world.core.poll_read(world.now).expect("it is behind");
    let answer = world.store.read(request.from, request.bytes_max);
    assert_eq!(answer.blocks.last().map(|block| block.commit), Some(world.store.newest));
    world
        .core
        .handle_read(request.reader, Some(answer), world.now, &mut world.tape);
    world.settle();
    world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
    assert_eq!(world.payloads(reader), ["0", "1", "2", "3", "new"]);
}

/// [MQTT5-3.3.1-10]: the retained messages that the first SUBSCRIBE asked for are owed, whatever the second says.
#[test]
fn a_subscription_that_is_replaced_is_sent_the_rest_of_its_retained_messages() {
    for client in [connect("reader"), persistent("reader")] {
        for sent_first in [false, true] {
            let mut world = World::new(edge());
            let (publisher, _) = world.join(connect("publisher"));
            for n in 0..5 {
                world.retain(publisher, &format!("log/{n}"), &n.to_string(), 1);
            }
            world.settle();
            let mut client = client.clone();
            client.receive_maximum = 2;
            let (reader, _) = world.join(client);
            // Something is on its way, so that nobody is answered at once.
            world.publish(publisher, "log2/load", "x", 1);
            world.send_subscribe(reader, None, vec![sub("log/#", 0)]);
            if sent_first {
                world.settle();
            }
            let mut again = sub("log/#", 1);
            again.retain_handling = 1;
            world.send_subscribe(reader, None, vec![again]);
            world.settle();
            world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
            assert_eq!(
                world.consume(reader),
                ["0", "1", "2", "3", "4"],
                "sent first {sent_first}"
            );
        }
    }
}

/// [MQTT5-3.8.3-3]: retained or live, it was published by the same client.
#[test]
fn no_local_holds_for_retained_messages_too() {
    let mut world = World::new(edge());
    let (own, _) = world.join(persistent("own"));
    let (other, _) = world.join(connect("other"));
    world.retain(own, "log/a", "mine", 1);
    world.retain(other, "log/b", "other's", 1);
    world.settle();
    world.take(own);
    let mut wanted = sub("log/#", 1);
    wanted.no_local = true;
    world.subscribe_with(own, None, vec![wanted]);
    assert_eq!(world.payloads(own), ["other's"]);
}

/// Published between the moment that the subscription is in force and the end of what was on its way: it comes live, and is in the
/// store when that is read.
#[test]
fn a_value_that_no_log_holds_does_not_come_live_and_retained() {
    for config in [edge(), cloud()] {
        for client in [connect("reader"), persistent("reader")] {
            for before in [false, true] {
                let mut world = World::new(config.clone());
                let (publisher, _) = world.join(connect("publisher"));
                world.retain(publisher, "$app/x", "old", 0);
                world.settle();
                let (reader, _) = world.join(client.clone());
                world.publish(publisher, "log/load", "x", 1);
                world.send_subscribe(reader, None, vec![sub("$app/x", 0)]);
                if before {
                    world.retain(publisher, "$app/x", "new", 0);
                }
                world.submit();
                // More is on its way when the subscription comes into force.
                world.retain(publisher, "$app/y", "load", 0);
                world.submit();
                world.store.commit(1);
                world.deliver();
                if !before {
                    world.retain(publisher, "$app/x", "new", 0);
                }
                world.settle();
                world.tape.sent.retain(|(_, out)| !matches!(out, Out::SubAck(..)));
                let got = world.payloads(reader);
                let news = got.iter().filter(|payload| *payload == "new").count();
                assert_eq!(
                    (news, got.last().unwrap().as_str()),
                    (1, "new"),
                    "before {before}: {got:?}"
                );
            }
        }
    }
}

/// [MQTT5-3.3.1-6] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]: who is subscribed sees the message that deletes, like any other.
#[test]
fn a_message_that_deletes_is_forwarded_to_those_who_are_subscribed() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        let (publisher, _) = world.join(connect("publisher"));
        let (reader, _) = world.join(connect("reader"));
        let mut as_published = sub("log/a", 1);
        as_published.retain_as_published = true;
        world.subscribe_with(reader, None, vec![as_published, sub("home/a", 1)]);
        for topic in ["log/a", "home/a"] {
            world.retain(publisher, topic, "x", 1);
            world.retain(publisher, topic, "", 1);
        }
        world.settle();
        let mut got = retained(&mut world, reader);
        got.sort_unstable();
        let expected = [
            ("home/a", "", false),
            ("home/a", "x", false),
            ("log/a", "", true),
            ("log/a", "x", true),
        ];
        assert_eq!(
            got,
            expected.map(|(topic, payload, flag)| (topic.to_owned(), payload.to_owned(), 1, flag))
        );
        let (late, _) = world.join(connect("late"));
        world.subscribe(late, "#", 1);
        assert_eq!(world.take(late), []);
    }
}

/// [MQTT5-3.3.2-5]: a retained message expires, counted down until then. [MQTT5-3.3.2-6]
#[test]
fn a_retained_message_counts_down_and_is_not_sent_once_it_expired() {
    for restart in [false, true] {
        let mut world = World::new(edge());
        let (publisher, _) = world.join(connect("publisher"));
        let mut send = Send::new("log/a", "x", 1, 1);
        (send.retain, send.expiry_secs) = (true, Some(60));
        world.publish_with(publisher, &send);
        world.settle();
        if restart {
            world.crash();
        }
        for (passed, expected) in [(20, Some(40)), (39, Some(1)), (1, None)] {
            world.pass(std::time::Duration::from_secs(passed));
            let (reader, _) = world.join(connect("reader"));
            world.subscribe(reader, "log/a", 1);
            let got = world.messages(reader);
            assert_eq!(got.first().and_then(|got| got.expiry_secs), expected);
            let expired = world.status("reader").ledger.expired;
            assert_eq!(
                (got.len(), expired),
                (usize::from(expected.is_some()), u64::from(expected.is_none()))
            );
        }
    }
}
