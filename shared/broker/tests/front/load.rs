//! Many clients at once, slow ones, and the bounds that keep the broker small.

use std::time::{Duration, Instant};

use fellbeck_broker::front::MqttServerConfig;
use fellbeck_broker::session::CoreLimits;
use fellbeck_core::Seq;
use fellbeck_store::commit::Commit;
use rand::RngCore;

use crate::client::{Client, ack, connect, publish};
use crate::node::{Node, config};

#[test]
fn two_hundred_connects_at_once_are_all_served() {
    let node = Node::start();
    let mut clients: Vec<Client> = (0..200).map(|_| Client::open(node.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&connect(4, &format!("c{n}"), 2, 60, &[]));
    }
    for client in &mut clients {
        client.expect(&[0x20, 2, 0, 0]);
    }
    for client in &mut clients {
        client.expect_nothing();
    }
    assert_eq!(node.server.as_ref().unwrap().connections(), 200);
    drop(clients);
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.server.as_ref().unwrap().connections() > 0 {
        assert!(Instant::now() < deadline, "connections stay in the table");
        std::thread::yield_now();
    }
    node.stop();
}

pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_reader_that_stands_still_costs_bounded_memory_and_slows_nobody() {
    let node = Node::start();
    let mut still = Client::clean(node.addr(), 4, "still");
    still.subscribe("t", 0);
    let mut reader = Client::clean(node.addr(), 4, "reader");
    reader.subscribe("t", 0);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let payload = vec![0x55; 10_000];
    let mut before = 0;
    // 100 MB in all: far beyond socket buffers and bounds. A burst stays below the bound of a session's queue, so that the
    // client that reads loses nothing.
    for round in 0..200u16 {
        let ids = round * 50 + 1..=round * 50 + 50;
        let burst: Vec<u8> = ids.clone().flat_map(|id| publish(4, 0x02, "t", id, &payload)).collect();
        publisher.send(&burst);
        for id in ids {
            publisher.expect(&ack(0x40, id));
            assert_eq!(reader.publish().payload.len(), payload.len());
        }
        if round == 40 {
            before = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 40 << 20, "grew by {grown} bytes");
    node.stop();
}

#[test]
fn a_client_that_never_reads_is_closed_in_the_end() {
    let config = MqttServerConfig {
        stalled_after: Duration::from_secs(1),
        ..config()
    };
    let node = Node::start_with(config, CoreLimits::default());
    let mut still = Client::clean(node.addr(), 4, "still");
    still.subscribe("t", 0);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let payload = vec![0x55; 100_000];
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while node.server.as_ref().unwrap().connections() == 2 {
        n = n % 60_000 + 1;
        publisher.send(&publish(4, 0x02, "t", n, &payload));
        publisher.expect(&ack(0x40, n));
        assert!(Instant::now() < deadline, "still connected");
    }
    publisher.expect_nothing();
    drop(still);
}

#[test]
fn shutdown_in_mid_load_loses_nothing_that_was_acked() {
    let node = Node::start();
    let (mut subscriber, _) = Client::keep(node.addr(), 4, "keeper");
    subscriber.subscribe("t", 1);
    drop(subscriber);
    let mut publisher = Client::clean(node.addr(), 4, "pub");
    let stream = std::thread::spawn(move || {
        let mut acked = Vec::new();
        let mut sent = 0u16;
        loop {
            if sent - acked.len() as u16 <= 32 {
                sent += 1;
                publisher.try_send(&publish(4, 0x02, "t", sent, &sent.to_be_bytes()));
            }
            if sent - acked.len() as u16 >= 32 {
                match publisher.packet() {
                    Some(packet) => acked.push(u16::from_be_bytes([packet[2], packet[3]])),
                    None => return acked,
                }
            }
            if acked.len() == 50_000 {
                return acked;
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    let lane = node.store.track("lane/default/0").unwrap();
    while node.store.bounds(lane).end.0 < 500 {
        assert!(Instant::now() < deadline, "nothing is appended");
        std::thread::yield_now();
    }
    let dir = node.stop();
    let acked = stream.join().unwrap();
    assert!(!acked.is_empty());
    let node = Node::start_in(dir, config(), CoreLimits::default(), |store| store);
    let (mut subscriber, present) = Client::keep(node.addr(), 4, "keeper");
    assert!(present);
    for expected in &acked {
        let message = subscriber.publish();
        assert_eq!(message.payload, expected.to_be_bytes());
        subscriber.send(&ack(0x40, message.packet_id.unwrap()));
    }
}

#[test]
fn a_version_3_burst_beyond_the_receive_maximum_is_held_and_then_served() {
    let limits = CoreLimits {
        receive_maximum: 5,
        ..CoreLimits::default()
    };
    let node = Node::start_with(config(), limits);
    let mut v3 = Client::clean(node.addr(), 4, "three");
    let burst: Vec<u8> = (1..=200u16).flat_map(|n| publish(4, 0x02, "t", n, b"x")).collect();
    v3.send(&burst);
    for n in 1..=200 {
        v3.expect(&ack(0x40, n));
    }
    let mut v5 = Client::clean(node.addr(), 5, "five");
    let burst: Vec<u8> = (1..=200u16).flat_map(|n| publish(5, 0x04, "t", n, b"x")).collect();
    v5.try_send(&burst);
    // [MQTT5-3.3.4-7]: up to five are answered, then the connection ends.
    loop {
        let packet = v5.packet().expect("DISCONNECT");
        if packet[0] == 0xE0 {
            assert_eq!(packet[2], 0x93);
            break;
        }
    }
}

#[test]
fn a_full_store_refuses_version_5_and_holds_version_3_without_an_ack_until_there_is_room() {
    let node = Node::start_in(
        tempfile::TempDir::new().unwrap(),
        config(),
        CoreLimits::default(),
        |store| fellbeck_store::StoreConfig {
            quota_bytes: Some(8 << 20),
            segment_bytes: 1 << 20,
            grace_bytes: 0,
            ..store
        },
    );
    let mut v5 = Client::clean(node.addr(), 5, "five");
    // Does not compress, so that the quota is reached by what is sent.
    let mut payload = vec![0; 100_000];
    rand::rng().fill_bytes(&mut payload);
    let mut n = 0;
    let refused = loop {
        n += 1;
        v5.send(&publish(5, 0x02, "t", n, &payload));
        let answer = v5.packet().unwrap();
        assert_eq!((answer[0], &answer[2..4]), (0x40, &n.to_be_bytes()[..]));
        if answer[1] > 2 {
            break answer[4];
        }
        assert!(n < 1000, "the quota is never reached");
    };
    assert_eq!(refused, 0x97);
    let mut v3 = Client::clean(node.addr(), 4, "three");
    v3.send(&publish(4, 0x02, "t", 1, &payload));
    // The hold stops reading, so not even PINGREQ is answered.
    v3.send(&[0xC0, 0]);
    v3.stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert!(v3.waits_in_vain());
    v5.expect_nothing();
    // Somebody has taken over all that is stored.
    let lane = node.store.track("lane/default/0").unwrap();
    let (submitter, _answers) = node.store.submitter(1);
    let commit = Commit {
        acked: vec![(lane, Seq(node.store.bounds(lane).end.0 - 1))],
        ..Commit::default()
    };
    submitter.submit(commit).unwrap();
    v3.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The answer to the PINGREQ need not wait for the commit.
    let mut answers = [v3.packet().unwrap(), v3.packet().unwrap()];
    answers.sort();
    assert_eq!(answers, [ack(0x40, 1), vec![0xD0, 0]]);
}

#[test]
fn a_flood_of_publishes_on_one_connection_does_not_starve_another() {
    let node = Node::start();
    let flood: Vec<u8> = publish(4, 0x00, "local/flood", 0, b"x").repeat(50_000);
    let addr = node.addr();
    let flooding = std::thread::spawn(move || {
        let mut client = Client::clean(addr, 4, "flood");
        for _ in 0..40 {
            client.send(&flood);
        }
        client.expect_nothing();
    });
    let mut bystander = Client::clean(addr, 5, "bystander");
    let mut slowest = Duration::ZERO;
    let mut pings = 0;
    while !flooding.is_finished() {
        let asked = Instant::now();
        bystander.expect_nothing();
        slowest = slowest.max(asked.elapsed());
        pings += 1;
    }
    flooding.join().unwrap();
    // The flood takes longer than this in all; a read buffer of it takes a fraction of a millisecond.
    assert!(
        pings > 20 && slowest < Duration::from_secs(1),
        "{pings} pings, slowest {slowest:?}"
    );
}
