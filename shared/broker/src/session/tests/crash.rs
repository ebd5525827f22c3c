//! What a crash of the node leaves known: DUP, packet IDs and the books of a session.

use std::time::Duration;

use fellbeck_core::DropReason;

use super::harness::*;

/// A backlog of one commit each that waits for a client with a small window.
fn backlog(config: super::super::CoreConfig, count: usize) -> World {
    let mut world = World::new(config);
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "log/#", 1);
    world.disconnect(reader);
    let (publisher, _) = world.join(connect("publisher"));
    for n in 0..count {
        world.publish(publisher, "log/a", &n.to_string(), 1);
        world.settle();
    }
    world
}

/// What comes to the reader, which acknowledges all, and whether it has DUP.
fn drained(world: &mut World) -> Vec<(String, bool)> {
    let (reader, _) = world.join(persistent("reader"));
    let mut came = Vec::new();
    loop {
        let got = world.messages(reader);
        if got.is_empty() {
            return came;
        }
        for got in got {
            world.puback(reader, got.packet_id.unwrap());
            came.push((got.payload, got.dup));
        }
        world.settle();
    }
}

/// [MQTT5-3.3.1-1]
#[test]
fn a_backlog_that_was_not_sent_before_a_crash_has_no_dup_and_what_was_sent_has_it_after_a_second_crash_too() {
    for crashes in [1, 2] {
        for config in [edge(), cloud()] {
            let count = 400;
            let mut world = backlog(config, count);
            let mut client = persistent("reader");
            client.receive_maximum = 20;
            let (reader, _) = world.join(client);
            // One window was sent and acknowledged, the next was sent; the cursor of neither is stored.
            for got in world.messages(reader) {
                world.puback(reader, got.packet_id.unwrap());
            }
            world.settle();
            let sent = 20 + world.messages(reader).len();
            assert_eq!(sent, 40);
            for _ in 0..crashes {
                world.crash();
                world.pass(Duration::from_secs(2));
                world.settle();
            }
            let came = drained(&mut world);
            let payloads: Vec<_> = came.iter().map(|(payload, _)| payload.clone()).collect();
            assert_eq!(payloads, (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
            let dups = came.iter().filter(|(_, dup)| *dup).count();
            assert!(came[..sent].iter().all(|(_, dup)| *dup), "{crashes} crashes: {came:?}");
            assert!(
                dups <= 128,
                "{crashes} crashes: {dups} messages with DUP, {sent} were sent"
            );
        }
    }
}

/// The bound is stored some commits ahead, and moves on with the reader.
#[test]
fn each_message_of_a_long_backlog_has_dup_when_it_comes_again_after_a_crash_wherever_that_happens() {
    for rounds in [1, 4, 9, 13, 30] {
        let mut world = backlog(edge(), 300);
        let mut client = persistent("reader");
        client.receive_maximum = 10;
        let (reader, _) = world.join(client);
        let mut sent = std::collections::BTreeSet::new();
        for _ in 0..rounds {
            for got in world.messages(reader) {
                sent.insert(got.payload);
                world.puback(reader, got.packet_id.unwrap());
            }
            world.settle();
        }
        world.crash();
        let again = drained(&mut world)
            .into_iter()
            .filter(|(payload, _)| sent.contains(payload));
        assert!(again.into_iter().all(|(_, dup)| dup), "{rounds} rounds");
    }
}

/// [MQTT5-4.3.3-10]: a client throws away what comes under a QoS 2 packet ID that it holds.
#[test]
fn a_qos2_packet_id_of_a_message_that_no_log_holds_is_not_given_again_after_a_crash() {
    let mut world = World::new(cloud());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "#", 2);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "unlogged", "first", 2);
    world.settle();
    let first = world.messages(reader);
    assert_eq!(first.len(), 1);
    world.crash();
    let (reader, present) = world.join(persistent("reader"));
    assert!(present);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "log/a", "second", 2);
    world.settle();
    let second = world.messages(reader);
    assert_eq!((second.len(), second[0].payload.as_str()), (1, "second"));
    assert_ne!(second[0].packet_id, first[0].packet_id);
}

/// P9
#[test]
fn the_books_balance_after_a_restart_with_a_message_in_flight_that_no_log_holds() {
    let mut world = World::new(cloud());
    let (reader, _) = world.join(persistent("reader"));
    world.subscribe(reader, "#", 1);
    let (publisher, _) = world.join(connect("publisher"));
    world.publish(publisher, "unlogged", "lost", 1);
    world.settle();
    assert_eq!(world.messages(reader).len(), 1);
    world.core.flush_all();
    world.settle();
    world.crash();
    world.assert_books_balance("reader");
    assert_eq!(world.status("reader").ledger.dropped_for(DropReason::NotLogged), 1);
}
