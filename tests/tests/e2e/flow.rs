//! MAIN.11 (a): Debian's clients through edge and cloud, and what a broker of each tier owes its clients.
//!
//! In: mosquitto_pub and our raw client at the edge. Out: mosquitto_sub and our raw client at the edge and at the cloud.

use std::time::Duration;

use fellbeck_tests::mqtt::{Client, ConnectOptions, Event, Message, Version, Will};
use fellbeck_tests::{Device, DevicePlan, Reader, ReaderPlan, Subscription, World, judge, publish_lines, wait};

/// Messages per version and QoS.
const LINES: usize = 25;

#[test]
fn mosquitto_clients_meet_through_edge_and_cloud_at_each_qos_and_version() {
    let world = World::start();
    let (edge, cloud) = (world.edge.ready().mqtt, world.cloud.ready().mqtt);
    for version in Version::BOTH {
        for qos in 0..=2 {
            let topic = format!("flow/{version:?}/{qos}");
            let at_edge = Subscription::start(&world.site, edge, version, qos, &topic);
            let at_cloud = Subscription::start(&world.site, cloud, version, qos, &topic);
            let lines: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
            publish_lines(edge, version, qos, &topic, &lines);
            let expected: Vec<String> = lines.iter().map(|line| format!("{topic} {qos} {line}")).collect();
            assert_eq!(at_edge.await_lines(LINES), expected, "at the edge");
            assert_eq!(at_cloud.await_lines(LINES), expected, "at the cloud");
        }
    }
    assert_eq!(world.records_in_log(), 6 * LINES);
}

#[test]
fn a_message_published_at_the_cloud_is_logged_and_delivered_there() {
    let world = World::start();
    let cloud = world.cloud.ready().mqtt;
    for version in Version::BOTH {
        let sub = Subscription::start(&world.site, cloud, version, 2, "commands/+");
        publish_lines(cloud, version, 2, "commands/stop", &["now".to_owned()]);
        assert_eq!(sub.await_lines(1), ["commands/stop 2 now"]);
    }
    assert_eq!(world.records_in_log(), 2);
}

#[test]
fn many_devices_reach_every_kind_of_reader_once_and_in_order() {
    let world = World::start();
    let mut readers = Vec::new();
    for version in Version::BOTH {
        for qos in [1, 2] {
            let name = format!("reader-{version:?}-{qos}");
            readers.push(Reader::start(&ReaderPlan::all(&name, version, qos), &world.edge.mqtt()));
            readers.push(Reader::start(
                &ReaderPlan::all(&name, version, qos),
                &world.cloud.mqtt(),
            ));
        }
    }
    let plan = |n: usize| {
        let (version, qos) = (Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2);
        DevicePlan::burst(&format!("dev-{n}"), version, qos, 500)
    };
    let devices: Vec<Device> = (0..8).map(|n| Device::start(plan(n), world.edge.mqtt())).collect();
    let books: Vec<_> = devices.into_iter().map(Device::finish).collect();
    for (n, reader) in readers.iter().enumerate() {
        reader.await_all_acked(&books);
        let verdict = judge(&books, &reader.book());
        verdict.assert_clean(&format!("reader {n}"));
        assert_eq!((verdict.acked, verdict.received), (4000, 4000));
    }
    assert_eq!(world.records_in_log(), 4000);
}

#[test]
fn a_retained_message_reaches_a_later_subscriber_at_the_edge_and_at_the_cloud() {
    let world = World::start();
    let (edge, cloud) = (world.edge.ready().mqtt, world.cloud.ready().mqtt);
    let mut device = Client::connected(edge, ConnectOptions::clean(Version::V5, "device"));
    for (tag, text) in ["old", "new"].into_iter().enumerate() {
        device.publish_retained("kept/state", text.into(), 1, tag);
        assert!(device.poll_until(wait::SOON, |event| event == Event::Acked { tag }));
    }
    wait::until_true("both are in the cloud's log", wait::EVENTUALLY, || {
        world.records_in_log() == 2
    });
    for at in [edge, cloud] {
        for version in Version::BOTH {
            let mut late = Client::connected(at, ConnectOptions::clean(version, "late"));
            late.subscribe(&[("kept/#", 1)]);
            let message = next_message(&mut late);
            assert_eq!(
                (message.payload.as_slice(), message.retain),
                (b"new".as_slice(), true),
                "{version:?} at {at}"
            );
        }
    }
    device.publish_retained("kept/state", Vec::new(), 1, 2);
    assert!(device.poll_until(wait::SOON, |event| event == Event::Acked { tag: 2 }));
    wait::until_true("the deletion is in the cloud's log", wait::EVENTUALLY, || {
        world.records_in_log() == 3
    });
    for at in [edge, cloud] {
        let mut late = Client::connected(at, ConnectOptions::clean(Version::V5, "later"));
        late.subscribe(&[("kept/#", 1)]);
        // The answer to a ping comes after whatever the subscription brought.
        late.publish("probe", b"x".to_vec(), 1, 0);
        let only_ack = late.poll_until(wait::SOON, |event| {
            assert!(
                !matches!(event, Event::Message(_)),
                "a deleted retained message came back: {event:?}"
            );
            event == Event::Acked { tag: 0 }
        });
        assert!(only_ack);
    }
}

#[test]
fn the_will_of_a_device_that_vanishes_reaches_the_cloud() {
    let world = World::start();
    let sub = Subscription::start(&world.site, world.cloud.ready().mqtt, Version::V5, 1, "wills/#");
    for version in Version::BOTH {
        let name = format!("frail-{version:?}");
        let will = Will {
            topic: format!("wills/{name}"),
            payload: b"gone".to_vec(),
            qos: 1,
            retain: false,
        };
        let options = ConnectOptions {
            will: Some(will),
            ..ConnectOptions::clean(version, &name)
        };
        let mut device = Client::connected(world.edge.ready().mqtt, options.clone());
        device.drop_connection();
        // One that says goodbye leaves no will.
        let polite = ConnectOptions {
            client_id: format!("polite-{version:?}"),
            ..options
        };
        Client::connected(world.edge.ready().mqtt, polite).disconnect();
    }
    let mut lines = sub.await_lines(2);
    lines.sort();
    assert_eq!(lines, ["wills/frail-V3 1 gone", "wills/frail-V5 1 gone"]);
}

#[test]
fn members_of_a_shared_subscription_divide_the_messages_among_them() {
    let world = World::start();
    for at in [world.edge.ready().mqtt, world.cloud.ready().mqtt] {
        let mut members: Vec<Client> = (0..3)
            .map(|n| Client::connected(at, ConnectOptions::clean(Version::V5, &format!("member-{n}"))))
            .collect();
        for member in &mut members {
            assert_eq!(member.subscribe(&[("$share/crew/work/#", 1)]), [1]);
        }
        let lines: Vec<String> = (0..60).map(|n| format!("{n:02}")).collect();
        publish_lines(at, Version::V5, 1, "work/item", &lines);
        let mut got: Vec<String> = Vec::new();
        let mut shares = [0; 3];
        wait::until_true("all items have come", wait::EVENTUALLY, || {
            for (n, member) in members.iter_mut().enumerate() {
                for event in member.poll(Duration::from_millis(2)) {
                    if let Event::Message(message) = event {
                        got.push(String::from_utf8_lossy(&message.payload).into_owned());
                        shares[n] += 1;
                    }
                }
            }
            got.len() >= lines.len()
        });
        got.sort();
        assert_eq!(got, lines, "each item came to one member");
        assert!(
            shares.iter().all(|share| *share > 0),
            "a member got nothing: {shares:?}"
        );
    }
}

fn next_message(client: &mut Client) -> Message {
    let mut found = None;
    client.poll_until(wait::SOON, |event| {
        if let Event::Message(message) = event {
            found = Some(message);
        }
        found.is_some()
    });
    found.expect("a message comes")
}
