//! Fan-out and delivery: who sees what and when, windows, queues, the seam between memory and log.

use fellbeck_core::{ClockQuality, DropReason, WallTime};

use super::harness::*;

/// DESIGN section 3: clean sessions of the edge are served before the commit, all others after it.
#[test]
fn clean_sessions_of_the_edge_are_served_at_once_and_all_others_after_the_commit() {
    let mut world = World::new(edge());
    let (clean, _) = world.join(connect("clean"));
    let (durable, _) = world.join(persistent("durable"));
    let (publisher, _) = world.join(connect("publisher"));
    world.subscribe(clean, "log/#", 1);
    world.subscribe(durable, "log/#", 1);
    world.publish(publisher, "log/a", "x", 1);
    assert_eq!(world.payloads(clean), ["x"]);
    world.submit();
    assert_eq!(world.payloads(durable), [""; 0]);
    world.settle();
    assert_eq!(world.payloads(durable), ["x"]);
    assert_eq!(world.payloads(clean), [""; 0]);
}

#[test]
fn clean_sessions_of_the_cloud_see_committed_records_only() {
    let mut world = World::new(cloud());
    let (reader, _) = world.join(connect("reader"));
    let (publisher, _) = world.join(connect("publisher"));
    world.subscribe(reader, "log/#", 2);
    world.publish(publisher, "log/a", "0", 0);
    world.publish(publisher, "log/b", "2", 2);
    world.submit();
    assert_eq!(world.payloads(reader), [""; 0]);
    world.settle();
    let got: Vec<_> = world
        .messages(reader)
        .into_iter()
        .map(|got| (got.qos, got.payload))
        .collect();
    assert_eq!(got, [(0, "0".to_owned()), (2, "2".to_owned())]);
    assert!(
        world.stored(fellbeck_store::commit::Space::Session).is_empty(),
        "nothing of it is stored"
    );
}

/// Records that another part of the node appends, as the cloud's ingest does, reach subscribers like any other.
#[test]
fn records_of_other_submitters_are_fanned_out() {
    let mut world = World::new(cloud());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    let mut builder = fellbeck_core::RecordBlockBuilder::default();
    builder.push(&fellbeck_core::Record {
        device: "far",
        topic: "log/a",
        payload: b"from the link",
        qos: fellbeck_core::QoS::AtLeastOnce,
        retain: false,
        properties: fellbeck_core::Properties::default(),
        accepted_at: world.now.wall,
        clock: ClockQuality::Synced,
        expiry_secs: None,
        origin: None,
        path: "far",
    });
    world.store.commit_foreign(fellbeck_core::TrackId(3), builder.finish());
    world.deliver();
    assert_eq!(world.payloads(reader), ["from the link"]);
}

/// [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4] [MQTT3-3.3.5-1]
#[test]
fn overlapping_subscriptions_make_one_delivery_with_the_highest_qos_and_all_identifiers() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        for client in [connect("clean"), persistent("durable")] {
            let (reader, _) = world.join(client);
            world.subscribe_with(reader, Some(5), vec![sub("log/#", 1)]);
            world.subscribe_with(reader, Some(6), vec![sub("log/+", 2)]);
            world.subscribe(reader, "log/a", 0);
            let (publisher, _) = world.join(connect("publisher"));
            world.publish(publisher, "log/a", "x", 2);
            world.settle();
            let got = world.messages(reader);
            assert_eq!((got.len(), got[0].qos), (1, 2));
            let mut ids = got[0].ids.clone();
            ids.sort_unstable();
            assert_eq!(ids, [5, 6]);
        }
    }
}

/// [MQTT5-3.8.3-3] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]
#[test]
fn no_local_and_retain_as_published_are_kept_to() {
    let mut world = World::new(cloud());
    let (own, _) = world.join(connect("own"));
    let (other, _) = world.join(connect("other"));
    let mut mine = sub("log/#", 1);
    mine.no_local = true;
    mine.retain_as_published = true;
    world.subscribe_with(own, None, vec![mine]);
    world.subscribe(other, "log/#", 1);
    world.retain(own, "log/a", "mine", 0);
    world.retain(other, "log/b", "other's", 0);
    world.settle();
    let flags = |world: &mut World, conn| -> Vec<(String, bool)> {
        world
            .messages(conn)
            .into_iter()
            .map(|got| (got.payload, got.retain))
            .collect()
    };
    assert_eq!(flags(&mut world, own), [("other's".to_owned(), true)]);
    assert_eq!(
        flags(&mut world, other),
        [("mine".to_owned(), false), ("other's".to_owned(), false)]
    );
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-2]: most brokers break this.
#[test]
fn the_receive_maximum_of_the_client_is_never_exceeded() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        for kind in [connect("clean"), persistent("durable")] {
            let mut client = kind;
            client.receive_maximum = 3;
            let (reader, _) = world.join(client);
            world.subscribe(reader, "log/#", 2);
            let (publisher, _) = world.join(connect("publisher"));
            for n in 0..10 {
                world.publish(publisher, "log/a", &n.to_string(), 1 + n % 2);
            }
            world.settle();
            let first = world.messages(reader);
            assert_eq!(first.len(), 3);
            world.puback(reader, first[0].packet_id.unwrap());
            world.settle();
            assert_eq!(world.payloads(reader), ["3"]);
            world.pubrec(reader, first[1].packet_id.unwrap());
            world.settle();
            // PUBREC frees nothing; PUBCOMP does.
            assert!(matches!(world.take(reader)[..], [Out::PubRel(..)]));
            world.pubcomp(reader, first[1].packet_id.unwrap());
            world.puback(reader, first[2].packet_id.unwrap());
            world.settle();
            assert_eq!(world.payloads(reader), ["4", "5"]);
            world.disconnect(publisher);
        }
    }
}

/// Many more messages than the queue holds, to a client that does not read for a while: the log has them all, in order, once.
#[test]
fn a_slow_reader_gets_everything_once_and_in_order_at_the_seam() {
    for config in [edge(), cloud()] {
        let mut config = config;
        config.limits.session_queue_records = 5;
        config.limits.read_bytes = 300;
        let mut world = World::new(config);
        let mut client = persistent("reader");
        client.receive_maximum = 4;
        let (reader, _) = world.join(client);
        world.subscribe(reader, "#", 1);
        let (publisher, _) = world.join(connect("publisher"));
        let mut expected = Vec::new();
        world.backlog(reader);
        for n in 0..200 {
            let topic = if n % 3 == 0 { "log/a" } else { "log2/b" };
            world.publish(publisher, topic, &n.to_string(), n % 2);
            expected.push(n.to_string());
            if n % 7 == 0 {
                world.settle();
            }
            if n == 150 {
                world.unblock(reader);
            }
        }
        world.settle();
        // Within one commit, a session sees the tracks one after the other.
        let order: Vec<_> = world
            .store
            .log
            .iter()
            .flat_map(|block| block.tracks.iter())
            .flat_map(|track| {
                track
                    .block
                    .iter()
                    .map(|record| String::from_utf8_lossy(record.payload).into_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(order.len(), expected.len());
        assert_eq!(world.consume(reader), order);
        world.publish(publisher, "log/a", "live", 1);
        assert_eq!(world.consume(reader), ["live"]);
        assert_eq!(world.status("reader").unread, 0);
        world.assert_books_balance("reader");
    }
}

/// A queue must not keep blocks in memory that the store has long let go of.
#[test]
fn a_queue_that_grows_old_is_given_up_for_the_log() {
    let mut config = edge();
    config.limits.live_window_bytes = 2000;
    let mut world = World::new(config);
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/mine", 1);
    let (publisher, _) = world.join(connect("publisher"));
    world.backlog(reader);
    world.publish(publisher, "log/mine", "a", 1);
    world.settle();
    assert_eq!(world.status("reader").queued, 1);
    for _ in 0..10 {
        world.publish(publisher, "log/other", &"x".repeat(500), 1);
        world.settle();
    }
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!((world.status("reader").queued, world.status("reader").unread), (0, 1));
    world.publish(publisher, "log/mine", "b", 1);
    world.settle();
    world.unblock(reader);
    assert_eq!(world.consume(reader), ["a", "b"]);
    world.assert_books_balance("reader");
}

/// The tail of the store is bounded: when the core comes too late, readers go on in the log.
#[test]
fn a_core_that_missed_part_of_the_tail_reads_it_from_the_log() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..5 {
        world.publish(publisher, "log/a", &n.to_string(), 1);
        world.submit();
        world.store.commit(1);
    }
    world.store.tail.truncate(1);
    world.deliver();
    world.core.handle_tail_behind(world.store.newest.next());
    assert_eq!(world.consume(reader), ["0", "1", "2", "3", "4"]);
}

/// A slow clean session of the edge has no log behind it: oldest QoS 0 goes first, then what is new, all of it counted.
#[test]
fn a_full_queue_of_a_clean_session_drops_oldest_qos0_first_and_counts() {
    let mut config = edge();
    config.limits.session_queue_records = 3;
    let mut world = World::new(config);
    let (reader, _) = world.join(connect("reader"));
    world.subscribe(reader, "#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    world.backlog(reader);
    for (payload, qos) in [("a", 0), ("b", 1), ("c", 0), ("d", 1), ("e", 1), ("f", 1), ("g", 0)] {
        world.publish(publisher, "t", payload, qos);
    }
    let ledger = world.status("reader").ledger;
    assert_eq!(ledger.dropped_for(DropReason::Qos0SlowReader), 3);
    assert_eq!(ledger.dropped_for(DropReason::SessionQueueFull), 1);
    world.unblock(reader);
    assert_eq!(world.payloads(reader), ["b", "d", "e"]);
    world.assert_books_balance("reader");
}

/// A gateway without a battery clock was in 1970 when it took a message, and is in this century behind a reboot: the message used to be dropped as expired.
#[test]
fn a_message_of_another_clock_does_not_expire_by_the_difference_of_the_two() {
    let (unsynced, synced) = (ClockQuality::Unsynced, ClockQuality::Synced);
    for (before, after, rebooted, left) in [
        (unsynced, unsynced, true, Some(10)),
        (unsynced, synced, false, Some(10)),
        (synced, unsynced, true, Some(10)),
        (synced, unsynced, false, None),
        (unsynced, unsynced, false, None),
        (synced, synced, true, None),
    ] {
        let mut world = World::new(edge());
        world.now.clock = before;
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, "log/#", 1);
        world.cut(reader);
        let (publisher, _) = world.join(connect("publisher"));
        let mut send = Send::new("log/a", "m", 1, 1);
        send.expiry_secs = Some(10);
        world.publish_with(publisher, &send);
        world.settle();
        world.now.wall.0 += 1_000_000;
        world.now.clock = after;
        if rebooted {
            world.now.runs_since = WallTime(world.now.wall.0 - 5000);
        }
        world.crash();
        let (reader, _) = world.join(persistent("reader"));
        let got: Vec<_> = world.messages(reader).iter().map(|got| got.expiry_secs).collect();
        let wanted: Vec<_> = left.map(Some).into_iter().collect();
        assert_eq!(got, wanted, "{before:?} {after:?} {rebooted}");
    }
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn expiry_counts_down_and_expired_messages_are_not_delivered() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    world.cut(reader);
    let (publisher, _) = world.join(connect("publisher"));
    for (n, secs) in [(1, Some(10)), (2, Some(100)), (3, None)] {
        let mut send = Send::new("log/a", &n.to_string(), 1, n);
        send.expiry_secs = secs;
        world.publish_with(publisher, &send);
    }
    world.settle();
    world.pass(std::time::Duration::from_secs(30));
    world.now.clock = ClockQuality::Synced;
    let (reader, _) = world.join(persistent("reader"));
    let got: Vec<_> = world
        .messages(reader)
        .into_iter()
        .map(|got| (got.payload, got.expiry_secs))
        .collect();
    assert_eq!(got, [("2".to_owned(), Some(70)), ("3".to_owned(), None)]);
    assert_eq!(world.status("reader").ledger.expired, 1);
    let dropped = world.core.totals().dropped;
    assert!(
        dropped.contains(&(fellbeck_core::DropReason::Expired, 1)),
        "{dropped:?}"
    );
    world.assert_books_balance("reader");
}

/// [MQTT5-3.3.2-5]: nobody has seen it yet, so it expires like any other; a message that was sent does not. [MQTT5-4.3.3-7]
#[test]
fn a_message_expires_also_while_it_waits_for_its_packet_id_to_be_durable() {
    for shared in [false, true] {
        let mut world = World::new(edge());
        let (reader, _) = world.join(persistent("reader"));
        world.subscribe(reader, if shared { "$share/g/log/#" } else { "log/#" }, 2);
        let (publisher, _) = world.join(connect("publisher"));
        for (packet_id, payload) in [(1, "late"), (2, "in time")] {
            let mut send = Send::new("log/a", payload, 2, packet_id);
            send.expiry_secs = Some(if packet_id == 1 { 10 } else { 100 });
            world.publish_with(publisher, &send);
        }
        world.submit();
        world.store.commit(1);
        world.deliver();
        world.backlog(reader);
        world.settle();
        world.pass(std::time::Duration::from_secs(10));
        world.unblock(reader);
        world.settle();
        let got = world.messages(reader);
        assert_eq!(
            (got.len(), &got[0].payload[..], got[0].expiry_secs),
            (1, "in time", Some(90))
        );
        world.cut(reader);
        world.pass(std::time::Duration::from_secs(100));
        let (reader, _) = world.join(persistent("reader"));
        let again = world.messages(reader);
        assert_eq!((again.len(), again[0].dup, again[0].expiry_secs), (1, true, Some(1)));
        world.pubrec(reader, again[0].packet_id.unwrap());
        world.settle();
        world.pubcomp(reader, again[0].packet_id.unwrap());
        let group = world.core.groups.iter().next().map(|group| group.reader.ledger.clone());
        let ledger = group.unwrap_or_else(|| world.status("reader").ledger);
        assert_eq!((ledger.expired, ledger.acked, ledger.in_flight()), (1, 1, 0));
        assert_eq!(world.status("reader").in_flight, 0);
    }
}

/// An interval of 0 is over at once: nobody is sent the message, whatever kind of session, and it is counted.
#[test]
fn a_message_with_an_expiry_of_zero_is_delivered_to_nobody() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        for client in [connect("clean"), persistent("durable")] {
            let name = client.client_id.clone();
            let (reader, _) = world.join(client);
            world.subscribe(reader, "#", 2);
            for (topic, retain) in [("log/a", false), ("home/a", false), ("log/r", true)] {
                let packet_id = world.next_packet_id();
                let mut send = Send::new(topic, "x", 1, packet_id);
                (send.expiry_secs, send.retain) = (Some(0), retain);
                let (publisher, _) = world.join(connect("publisher"));
                world.publish_with(publisher, &send);
                world.settle();
                assert_eq!(world.take(publisher), [Out::PubAck(packet_id, 0)]);
            }
            assert_eq!(world.take(reader), []);
            assert!(world.status(&name).ledger.expired >= 2);
            let (late, _) = world.join(connect("late"));
            world.subscribe(late, "log/#", 1);
            assert_eq!(world.take(late), [], "nor as a retained message");
        }
    }
}

/// After a reboot the clock may be anything.
#[test]
fn nothing_expires_while_the_clock_is_unknown() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    world.cut(reader);
    let (publisher, _) = world.join(connect("publisher"));
    let mut send = Send::new("log/a", "x", 1, 1);
    send.expiry_secs = Some(10);
    world.publish_with(publisher, &send);
    world.settle();
    world.pass(std::time::Duration::from_secs(30));
    world.now.clock = ClockQuality::Unknown;
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.messages(reader)[0].expiry_secs, Some(10));
}

#[test]
fn a_message_above_the_clients_maximum_packet_size_counts_as_dropped_and_holds_nothing_up() {
    for config in [edge(), cloud()] {
        let mut world = World::new(config);
        world.tape.payload_max = Some(10);
        for client in [connect("clean"), persistent("durable")] {
            let name = client.client_id.clone();
            let (reader, _) = world.join(client);
            world.subscribe(reader, "log/#", 2);
            let (publisher, _) = world.join(connect("publisher"));
            for qos in 0..3 {
                world.publish(publisher, "log/a", "much too long", qos);
            }
            world.publish(publisher, "log/a", "short", 2);
            assert_eq!(world.consume(reader), ["short"]);
            assert_eq!(world.status(&name).ledger.dropped_for(DropReason::PacketTooLarge), 3);
            assert_eq!(world.status(&name).in_flight, 0);
            world.assert_books_balance(&name);
        }
    }
}

/// As mosquitto does by default. Counted, and delivered while the session is connected.
#[test]
fn qos0_is_not_kept_for_a_session_that_is_away() {
    let mut world = World::new(edge());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "connected", 0);
    world.settle();
    assert_eq!(world.payloads(reader), ["connected"]);
    world.cut(reader);
    for n in 0..3 {
        world.publish(publisher, "log/a", "lost", 0);
        world.publish(publisher, "log/a", &n.to_string(), 1);
    }
    world.publish(publisher, "unlogged", "lost", 0);
    world.settle();
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.consume(reader), ["0", "1", "2"]);
    assert_eq!(world.status("reader").ledger.dropped_for(DropReason::Qos0Offline), 4);
    world.assert_books_balance("reader");
}

/// Edge: what matches no rule but a persistent session goes to the local track, and only then.
#[test]
fn unrouted_messages_for_a_persistent_session_go_to_the_local_track() {
    let mut world = World::new(edge());
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "home/a", "nobody", 1);
    world.settle();
    assert!(world.store.log.is_empty());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "home/#", 1);
    world.cut(reader);
    world.take(publisher);
    let id = world.publish(publisher, "home/a", "kept", 1);
    assert_eq!(world.take(publisher), [], "its acknowledgement waits for the commit");
    world.settle();
    assert_eq!(world.take(publisher), [Out::PubAck(id, 0)]);
    assert_eq!(world.store.log[0].tracks[0].track, LOCAL);
    world.crash();
    let (reader, _) = world.join(persistent("reader"));
    assert_eq!(world.consume(reader), ["kept"]);
}

/// Cloud: what no stream takes has nobody durable to lose it, but it is counted.
#[test]
fn without_a_local_track_unrouted_messages_reach_who_is_connected_and_are_counted_for_others() {
    let mut world = World::new(cloud());
    let (here, _) = world.join(persistent("here"));
    let (away, _) = world.join(persistent("away"));
    for reader in [here, away] {
        world.subscribe(reader, "home/#", 2);
    }
    world.cut(away);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "home/a", "x", 2);
    world.settle();
    assert_eq!(world.consume(here), ["x"]);
    assert_eq!(world.status("away").ledger.dropped_for(DropReason::NotLogged), 1);
    world.assert_books_balance("away");
}
