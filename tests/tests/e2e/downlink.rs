//! The downlink: what is published in the cloud reaches the devices of an edge, once and unchanged.
//!
//! In: devices at one node and readers at the other, kills and cuts in between. Out: balanced books in this direction too, properties as
//! they were sent, and nothing that goes round.

use std::collections::BTreeMap;
use std::time::Duration;

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Delivery, Publish, Raw, Version};
use fellbeck_tests::{
    Device, DeviceBook, DevicePlan, Kind, Node, Reader, ReaderPlan, World, disk, join, judge, token, wait,
};
use serde_json::Value;

/// Identifier of the Message Expiry Interval.
const EXPIRY: u8 = 0x02;

/// The cloud's view of the downlink of an edge.
fn reader_of(cloud: &Node, edge: &str) -> Option<Value> {
    let status: Value = serde_json::from_str(&cloud.get("/api/v1/status").body).ok()?;
    let readers = status["downlinks"].as_array()?.iter();
    readers.into_iter().find(|reader| reader["edge"] == edge).cloned()
}

/// Waits until the filters of the edge are in force in the cloud.
fn await_filters(cloud: &Node, edge: &str, filters: u64) {
    wait::until_true("the filters of the edge are in force", wait::EVENTUALLY, || {
        reader_of(cloud, edge).is_some_and(|reader| reader["filters"] == filters && reader["connected"] == true)
    });
}

fn connected(node: &Node, name: &str) -> Raw {
    let at = node.mqtt().get().expect("the node is up");
    Raw::connected(at, &Connect::new(Version::V5, name))
}

/// A client with a session that is kept.
fn kept(node: &Node, name: &str) -> Raw {
    let at = node.mqtt().get().expect("the node is up");
    Raw::connected(at, &Connect::kept(Version::V5, name))
}

fn take(raw: &mut Raw) -> Delivery {
    let delivery = raw.expect_publish();
    raw.acknowledge(&delivery);
    delivery
}

/// Takes the next message and demands its text.
fn take_text(raw: &mut Raw, text: &str) -> Delivery {
    let delivery = take(raw);
    assert_eq!(delivery.text(), text, "{delivery:?}");
    delivery
}

/// All properties of a request but the expiry, in order, user properties twice.
fn properties(response_topic: &str) -> Vec<Vec<u8>> {
    vec![
        property::payload_format(1),
        property::content_type("application/json"),
        property::response_topic(response_topic),
        property::correlation_data([0, 1, 0xfe, 0xff]),
        property::user("k", "1"),
        property::user("a", ""),
        property::user("k", "2"),
        property::user("k", "1"),
    ]
}

/// As they came, apart from the expiry and the order of what comes once; the user properties in their order.
fn carried(delivery: &Delivery) -> (BTreeMap<u8, Vec<u8>>, Vec<Vec<u8>>) {
    let others = delivery
        .properties
        .iter()
        .filter(|(id, _)| ![EXPIRY, 0x26].contains(id));
    let users = delivery.properties.iter().filter(|(id, _)| *id == 0x26);
    (
        others.cloned().collect(),
        users.map(|(_, value)| value.clone()).collect(),
    )
}

fn expected(list: &[Vec<u8>]) -> (BTreeMap<u8, Vec<u8>>, Vec<Vec<u8>>) {
    let value = |one: &Vec<u8>| match one[0] {
        0x01 | 0x26 => one[1..].to_vec(),
        _ => one[3..].to_vec(),
    };
    let others = list.iter().filter(|one| one[0] != 0x26).map(|one| (one[0], value(one)));
    let users = list.iter().filter(|one| one[0] == 0x26).map(value);
    (others.collect(), users.collect())
}

fn expiry_of(delivery: &Delivery) -> u32 {
    let value = delivery.property(EXPIRY).expect("it has an expiry");
    u32::from_be_bytes(value.try_into().expect("four bytes"))
}

/// Device -> edge -> cloud -> consumer, and back over the response topic, with nothing configured.
#[test]
fn a_request_is_answered_with_all_properties_unchanged_both_ways() {
    let world = World::start();
    let mut consumer = kept(&world.cloud, "consumer");
    assert_eq!(consumer.subscribe("request/#", 2), 2);
    for qos in 0..=2 {
        let mut device = connected(&world.edge, &format!("dev-{qos}"));
        let response_topic = format!("reply/dev-{qos}");
        assert_eq!(device.subscribe(&response_topic, 2), 2);
        await_filters(&world.cloud, "gate-1", 1);
        let list = properties(&response_topic);
        let message = |topic: &str, text: &str| {
            let all = list.iter().cloned().chain([property::message_expiry(600)]);
            all.fold(Publish::new(topic, text).qos(qos), |message, one| message.property(one))
        };
        device.publish(&message("request/x", "ask"));
        let request = take_text(&mut consumer, "ask");
        assert_eq!((carried(&request), request.qos), (expected(&list), qos));
        assert!((1..=600).contains(&expiry_of(&request)));
        let reply_to = String::from_utf8(request.property(0x08).expect("a response topic").to_vec());
        consumer.publish(&message(&reply_to.expect("a topic"), "answer"));
        let response = take_text(&mut device, "answer");
        assert_eq!((carried(&response), response.qos), (expected(&list), qos));
        assert_eq!(
            (response.topic.as_str(), response.retain),
            (response_topic.as_str(), false)
        );
        assert!((1..=600).contains(&expiry_of(&response)));
        device.disconnect();
        await_filters(&world.cloud, "gate-1", 0);
    }
}

fn reader_at_edge(world: &World) -> Reader {
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.edge.mqtt());
    await_filters(&world.cloud, "gate-1", 1);
    reader
}

/// Kills of either node and cuts of the link under load: each QoS 2 message of the cloud's clients reaches the edge's reader once, in
/// order.
#[test]
fn messages_come_down_once_through_kills_of_either_node_and_cuts() {
    let mut world = World::start();
    let reader = reader_at_edge(&world);
    let plan = |n: usize| DevicePlan::steady(&format!("app-{n}"), Version::BOTH[n % 2], 2);
    let devices: Vec<Device> = (0..2).map(|n| Device::start(plan(n), world.cloud.mqtt())).collect();
    let more = || {
        for device in &devices {
            device.await_acked(device.acked() + 60);
        }
    };
    for round in 0..9 {
        more();
        match round % 3 {
            0 => {
                world.edge.kill();
                more();
                world.edge.start();
            }
            1 => {
                world.kill_cloud();
                world.start_cloud();
            }
            _ => {
                world.link.cut();
                more();
                world.link.heal();
            }
        }
    }
    let books: Vec<DeviceBook> = devices.into_iter().map(Device::settle).collect();
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean_across_kills("reader at the edge");
    wait::until_true("the cloud knows that all was taken", wait::EVENTUALLY, || {
        reader_of(&world.cloud, "gate-1").is_some_and(|reader| reader["in_flight"] == 0 && reader["waiting"] == 0)
    });
    let verdict = judge(&books, &reader.book());
    assert_eq!((verdict.lost, verdict.doubled), (0, 0), "{verdict:?}");
}

/// What is published while the edge is away waits for it, QoS 0 apart; what expires meanwhile does not come.
#[test]
fn an_edge_that_was_away_gets_what_waited_and_has_not_expired() {
    let world = World::start();
    let mut device = kept(&world.edge, "dev");
    device.subscribe("cmd/#", 2);
    await_filters(&world.cloud, "gate-1", 1);
    world.link.cut();
    wait::until_true("the cloud has noticed", wait::EVENTUALLY, || {
        reader_of(&world.cloud, "gate-1").is_some_and(|reader| reader["connected"] == false)
    });
    let mut app = connected(&world.cloud, "app");
    let expiring = |secs| property::message_expiry(secs);
    app.publish(&Publish::new("cmd/0", "0"));
    app.publish(&Publish::new("cmd/1", "short").qos(1).property(expiring(2)));
    app.publish(&Publish::new("cmd/1", "1").qos(1).property(expiring(600)));
    app.publish(&Publish::new("cmd/2", "2").qos(2));
    wait::until_true("two messages wait", wait::EVENTUALLY, || {
        reader_of(&world.cloud, "gate-1").is_some_and(|reader| reader["waiting"].as_u64() >= Some(3))
    });
    wait::last(Duration::from_secs(3));
    world.link.heal();
    let first = take_text(&mut device, "1");
    assert!((500..=597).contains(&expiry_of(&first)), "{}", expiry_of(&first));
    take_text(&mut device, "2");
}

/// Everything is allowed and subscribed to everywhere: what a device publishes comes back to nobody, and crosses once.
#[test]
fn nothing_goes_round_and_edges_get_one_anothers_messages_where_they_allow_it() {
    let mut world = World::start_with(|edge, _| {
        edge.set("downlink.edges", "[\"#\"]");
    });
    let mut second = Node::new(Kind::Edge, &world.site.path("second"));
    let address = world.link.address();
    second.set("uplink.cloud", &format!("[\"{address}\"]"));
    second.set("downlink.edges", "[\"plant/#\"]");
    join(&second, &token(&world.cloud, "gate-2", Some(address))).assert_ok();
    second.start();
    let mut a = kept(&world.edge, "dev");
    let mut b = kept(&second, "dev");
    a.subscribe("#", 2);
    b.subscribe("#", 2);
    await_filters(&world.cloud, "gate-1", 1);
    await_filters(&world.cloud, "gate-2", 2);
    for qos in 0..=2 {
        let text = format!("a-{qos}");
        a.send_publish(&Publish::new("plant/a", &text).qos(qos).id(u16::from(qos)));
        b.send_publish(&Publish::new("other/b", format!("b-{qos}")).qos(qos).id(u16::from(qos)));
    }
    let mut app = connected(&world.cloud, "app");
    wait::until_true("all is in the log", wait::EVENTUALLY, || world.records_in_log() == 6);
    app.publish(&Publish::new("plant/end", "end").qos(1));
    let got_a = collect(&mut a);
    let got_b = collect(&mut b);
    assert_eq!(got_a, ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2", "end"]);
    assert_eq!(got_b, ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2", "end"]);
    assert_eq!(world.records_in_log(), 7, "nothing came back to the cloud");
    b.send_publish(&Publish::new("other/c", "mine"));
    wait::until_true("it is in the log", wait::EVENTUALLY, || world.records_in_log() == 8);
    app.publish(&Publish::new("plant/end", "end").qos(1));
    assert_eq!(collect(&mut a), ["end", "mine"]);
    world.edge.terminate(wait::SOON);
}

/// Everything up to "end", sorted, answering each exchange; acknowledgements of own publishes are passed over.
fn collect(raw: &mut Raw) -> Vec<String> {
    use fellbeck_tests::mqtt::{AckKind, Answer, encode};
    let mut texts = Vec::new();
    while !texts.iter().any(|text| text == "end") {
        match raw.recv() {
            Answer::Publish(delivery) => {
                texts.push(delivery.text());
                match delivery.qos {
                    0 => {}
                    1 => raw.send(&encode::ack(AckKind::PubAck, delivery.id)),
                    _ => raw.send(&encode::ack(AckKind::PubRec, delivery.id)),
                }
            }
            Answer::Ack {
                kind: AckKind::PubRec,
                id,
                ..
            } => raw.send(&encode::ack(AckKind::PubRel, id)),
            Answer::Ack {
                kind: AckKind::PubRel,
                id,
                ..
            } => raw.send(&encode::ack(AckKind::PubComp, id)),
            Answer::Ack { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    texts.sort();
    texts
}

/// By default an edge that subscribes to everything is sent nothing of other edges, whose telemetry may be much.
#[test]
fn the_default_brings_no_messages_of_other_edges() {
    let world = World::start();
    let mut second = Node::new(Kind::Edge, &world.site.path("second"));
    let address = world.link.address();
    second.set("uplink.cloud", &format!("[\"{address}\"]"));
    join(&second, &token(&world.cloud, "gate-2", Some(address))).assert_ok();
    second.start();
    let mut dashboard = connected(&second, "dashboard");
    dashboard.subscribe("#", 1);
    await_filters(&world.cloud, "gate-2", 1);
    let mut device = connected(&world.edge, "dev");
    device.publish(&Publish::new("plant/a", "telemetry").qos(1));
    wait::until_true("it is in the log", wait::EVENTUALLY, || world.records_in_log() == 1);
    let mut app = connected(&world.cloud, "app");
    app.publish(&Publish::new("cmd/all", "command").qos(1));
    take_text(&mut dashboard, "command");
}

/// Retained messages of the cloud are retained at the edge: they come with the first subscription, are there without the cloud, and
/// are deleted by the cloud.
#[test]
fn retained_messages_come_down_and_stay() {
    let mut world = World::start();
    let mut app = connected(&world.cloud, "app");
    app.publish(&Publish::new("config/a", "one").qos(1).retain());
    let mut device = kept(&world.edge, "dev");
    device.subscribe("config/+", 1);
    take_text(&mut device, "one");
    app.publish(&Publish::new("config/b", "two").qos(1).retain());
    take_text(&mut device, "two");
    world.kill_cloud();
    let mut late = connected(&world.edge, "late");
    late.subscribe("config/#", 1);
    let got = [take(&mut late), take(&mut late)].map(|delivery| (delivery.text(), delivery.retain));
    assert_eq!(got, [("one".to_owned(), true), ("two".to_owned(), true)]);
    world.start_cloud();
    let mut app = connected(&world.cloud, "app");
    app.publish(&Publish::new("config/a", "").qos(1).retain());
    // At least once: what the cloud had as unacknowledged when it was killed comes again before.
    loop {
        let text = take(&mut device).text();
        if text.is_empty() {
            break;
        }
        assert!(["one", "two"].contains(&text.as_str()), "{text}");
    }
    let mut last = connected(&world.edge, "last");
    last.subscribe("config/#", 1);
    take_text(&mut last, "two");
    last.ping();
}

/// The cloud is put back to an older copy, and its commit numbers are used again: what is new then is not taken for what the edge has.
#[test]
fn a_restored_cloud_loses_no_new_message_for_the_edge() {
    let mut world = World::start();
    let mut device = kept(&world.edge, "dev");
    device.subscribe("cmd", 1);
    await_filters(&world.cloud, "gate-1", 1);
    let say = |world: &World, texts: std::ops::Range<u32>| {
        let mut app = connected(&world.cloud, "app");
        for n in texts {
            app.publish(&Publish::new("cmd", n.to_string()).qos(1));
        }
    };
    say(&world, 0..3);
    (0..3).for_each(|n| drop(take_text(&mut device, &n.to_string())));
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    let copy = world.site.path("copy");
    disk::copy(&world.cloud.data_dir(), &copy);
    world.start_cloud();
    await_filters(&world.cloud, "gate-1", 1);
    say(&world, 100..150);
    (100..150).for_each(|n| drop(take_text(&mut device, &n.to_string())));
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    disk::replace(&world.cloud.data_dir(), &copy);
    world.start_cloud();
    say(&world, 200..220);
    let mut next = 200;
    while next < 220 {
        // At least once: what the copy had as unacknowledged may come again.
        let got = take(&mut device).text();
        if got == next.to_string() {
            next += 1;
        } else {
            assert!(got.parse::<u32>().expect("a number") < next, "{got} before {next}");
        }
    }
}

#[test]
fn the_client_identifier_of_an_edge_is_nobody_elses() {
    let world = World::start();
    let at = world.cloud.mqtt().get().expect("the cloud is up");
    let mut thief = Raw::open(at, Version::V5);
    thief.send(&Connect::kept(Version::V5, "$fellbeck/edge/gate-1").bytes());
    thief.expect_refused(0x85);
    let rejects = world.cloud.metrics();
    let why = "client identifier of the nodes themselves";
    assert_eq!(rejects.sum_where("fellbeck_broker_rejects_total", why), Some(1.0));
}
