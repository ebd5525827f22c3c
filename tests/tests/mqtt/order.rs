//! Order of messages (4.6): per topic and QoS as they came from a client, for each subscriber.

use fellbeck_tests::mqtt::{AckKind, Answer, Delivery, Publish, Raw, Version, encode};

use crate::brokers::{Target, on_each_version, on_own, target, unique};
use crate::pair::{absent, resume, take};

/// Topics below a root that a burst goes round.
const TOPICS: usize = 3;

/// Sends `count` messages at once, going round three topics and the QoS given, and takes all acknowledgements.
fn burst(publisher: &mut Raw, root: &str, from: usize, count: usize, qos: &[u8]) {
    let version = publisher.version;
    let mut bytes = Vec::new();
    let mut open = 0;
    for at in from..from + count {
        let qos = qos[(at / TOPICS) % qos.len()];
        let id = u16::try_from(at + 1).expect("a burst is short");
        let message = Publish::new(&format!("{root}/{}", at % TOPICS), at.to_string())
            .qos(qos)
            .id(id);
        bytes.extend(encode::publish(version, &message));
        open += usize::from(qos);
    }
    publisher.send(&bytes);
    while open > 0 {
        match publisher.recv() {
            Answer::Ack {
                kind: AckKind::PubRec,
                id,
                ..
            } => publisher.send(&encode::ack(AckKind::PubRel, id)),
            Answer::Ack { .. } => {}
            other => panic!("expected an acknowledgement, got {other:02x?}"),
        }
        open -= 1;
    }
}

/// Demands that each topic has its messages in rising order at each QoS, none twice, and all of them.
fn assert_ordered(deliveries: &[Delivery], from: usize, count: usize) {
    let number = |delivery: &Delivery| delivery.text().parse::<usize>().expect("a number");
    for topic in 0..TOPICS {
        for qos in 0..3 {
            let of = |one: &&Delivery| one.qos == qos && one.topic.ends_with(&format!("/{topic}"));
            let list: Vec<usize> = deliveries.iter().filter(of).map(number).collect();
            assert!(list.is_sorted_by(|a, b| a < b), "topic {topic}, QoS {qos}: {list:?}");
            assert!(list.iter().all(|at| at % TOPICS == topic));
        }
    }
    let mut all: Vec<usize> = deliveries.iter().map(number).collect();
    all.sort_unstable();
    assert_eq!(all, (from..from + count).collect::<Vec<usize>>());
}

/// Takes `count` messages, and demands that none is left.
fn take_all(client: &mut Raw, count: usize) -> Vec<Delivery> {
    let got = take(client, count);
    client.ping();
    got
}

fn clean_reader(target: &Target, root: &str, qos: u8) -> Raw {
    let mut reader = target.client("order-reader");
    assert_eq!(reader.subscribe(&format!("{root}/#"), qos), qos);
    reader
}

/// [MQTT5-4.6.0-5] [MQTT5-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6] A burst at one QoS arrives in order at subscribers
/// of every QoS, with a session or without.
#[test]
fn a_burst_arrives_in_order() {
    on_each_version(|target| {
        for qos in [0, 1, 2] {
            let root = unique("burst");
            let mut readers: Vec<Raw> = (0..3).map(|granted| clean_reader(&target, &root, granted)).collect();
            if qos > 0 {
                let hello = absent(&target, "burst-kept", &format!("{root}/#"), 2);
                readers.push(resume(&target, &hello));
            }
            burst(&mut target.client("burst"), &root, 0, 300, &[qos]);
            for reader in &mut readers {
                assert_ordered(&take_all(reader, 300), 0, 300);
            }
        }
    });
}

/// [MQTT5-4.6.0-5] [MQTT3-4.6.0-6] In a burst of all QoS mixed each QoS keeps its order.
#[test]
fn a_mixed_burst_arrives_in_order_at_each_qos() {
    on_each_version(|target| {
        let root = unique("mixed");
        let mut readers: Vec<Raw> = (0..3).map(|granted| clean_reader(&target, &root, granted)).collect();
        let hello = absent(&target, "mixed-kept", &format!("{root}/#"), 2);
        readers.push(resume(&target, &hello));
        burst(&mut target.client("mixed"), &root, 0, 300, &[2, 0, 1, 1, 2]);
        for (granted, reader) in (0..).zip(&mut readers) {
            let got = take_all(reader, 300);
            if granted == 0 {
                // All are of QoS 0 now, and one order holds only within what was of one QoS before.
                assert_eq!(got.len(), 300);
            } else if granted == 1 {
                let zero: Vec<Delivery> = got.into_iter().filter(|one| one.qos == 0).collect();
                assert_eq!(zero.len(), 60);
            } else {
                assert_ordered(&got, 0, 300);
            }
        }
    });
}

/// [MQTT5-4.6.0-5] [MQTT5-4.5.0-1] [MQTT3-4.6.0-6] [MQTT3-4.5.0-1] What waits for an absent session comes in order and
/// goes over into what is published meanwhile, without a gap and without a message twice.
#[test]
fn the_queue_goes_over_into_what_is_live() {
    on_each_version(|target| {
        let root = unique("seam");
        let hello = absent(&target, "seam", &format!("{root}/#"), 2);
        let mut publisher = target.client("seam-publisher");
        burst(&mut publisher, &root, 0, 200, &[1, 2]);
        let mut client = resume(&target, &hello);
        burst(&mut publisher, &root, 200, 200, &[1, 2]);
        assert_ordered(&take_all(&mut client, 400), 0, 400);
    });
}

/// [MQTT5-4.6.0-5] [MQTT3-4.6.0-6] [MQTT3-4.6.0-5] A restart of the node keeps the order of what waits, and new
/// messages come behind it.
#[test]
fn a_restart_keeps_the_order() {
    on_own(&[], |node| {
        let root = unique("restart");
        let hellos = Version::BOTH.map(|version| absent(&target(node, version), "restart", &format!("{root}/#"), 2));
        burst(&mut target(node, Version::V5).client("restart"), &root, 0, 150, &[1, 2]);
        node.kill();
        node.start();
        burst(
            &mut target(node, Version::V3).client("restart"),
            &root,
            150,
            150,
            &[2, 1],
        );
        for hello in &hellos {
            let mut client = resume(&target(node, hello.version), hello);
            assert_ordered(&take_all(&mut client, 300), 0, 300);
        }
    });
}

/// [MQTT5-4.6.0-5] [MQTT3-4.6.0-6] A queue longer than the memory for it, read from the log, comes in order and whole;
/// a small Receive Maximum does not change that.
#[test]
fn a_queue_beyond_memory_comes_in_order() {
    let settings = [
        ("session.queue_records_max", "10"),
        ("session.queue_bytes_max", "\"1 KiB\""),
    ];
    on_own(&settings, |node| {
        for version in Version::BOTH {
            let target = target(node, version);
            let root = unique("beyond");
            let away = absent(&target, "beyond-away", &format!("{root}/#"), 2);
            let present = absent(&target, "beyond-present", &format!("{root}/#"), 1);
            let mut present = resume(&target, &present);
            burst(&mut target.client("beyond"), &root, 0, 600, &[1]);
            assert_ordered(&take_all(&mut present, 600), 0, 600);
            let mut away = resume(&target, &away);
            assert_ordered(&take_all(&mut away, 600), 0, 600);
        }
    });
}
