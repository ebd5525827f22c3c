//! Scenarios that exchange messages: through one node, from the edge to the cloud, and among members of a shared subscription.
//!
//! In: a task. Out: lines for the test, and panics for what is not as sent.

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use serde_json::json;

use crate::device::{DEADLINE, Device, Session};
use crate::message::Message;
use crate::properties::{described, user};
use crate::task::{Task, say};

/// What is published, in order. The test makes the same list.
fn payloads(large: bool) -> Vec<Bytes> {
    let mut listed = vec![Bytes::new(), (0..=255).collect(), Bytes::from("grüße ✓")];
    listed.extend((0..20).map(|n| Bytes::from(format!("{n:02}"))));
    if large {
        listed.push((0..1_usize << 20).map(|at| ((at * 31 + 7) % 251) as u8).collect());
    }
    listed
}

/// Publishes a list of payloads and receives them back, and receives the same list from the test: content, QoS and order.
pub(crate) fn messages(task: &Task) {
    let mut device = Device::connect(task, &Session::clean(""));
    let (own, other) = (format!("{}/own", task.topic), format!("{}/other", task.topic));
    device.subscribe(&own, task.qos, None);
    device.subscribe(&other, task.qos, None);
    say("subscribed", &[("topic", json!(task.topic))]);
    let expected = payloads(task.has("large") && task.qos == 1);
    for payload in &expected {
        device.publish(&own, payload, task.qos, false);
    }
    for (topic, got) in split(&mut device, [own, other], expected.len()) {
        for message in &got {
            assert_eq!((message.qos, message.retain), (task.qos, false), "{topic}");
        }
        let got: Vec<Bytes> = got.into_iter().map(|message| message.payload).collect();
        assert!(got == expected, "{topic}: payloads differ or are out of order");
    }
    device.await_acked();
    device.disconnect();
}

fn split(device: &mut Device, topics: [String; 2], each: usize) -> [(String, Vec<Message>); 2] {
    let mut got = topics.map(|topic| (topic, Vec::new()));
    while got.iter().any(|(_, came)| came.len() < each) {
        let message = device.next_message();
        let of_topic = got.iter_mut().find(|(topic, _)| *topic == message.topic);
        of_topic.expect("only what was subscribed to comes").1.push(message);
    }
    got
}

/// A device at the edge and a reader at the cloud: content, QoS, order and properties are the same on both sides.
pub(crate) fn forward(task: &Task) {
    let at_cloud = Session {
        port: task.text("peer-port").parse().ok(),
        ..Session::clean("-reader")
    };
    let mut reader = Device::connect(task, &at_cloud);
    reader.subscribe(&format!("{}/#", task.topic), task.qos, None);
    say("subscribed", &[("topic", json!(task.topic))]);
    let mut device = Device::connect(task, &Session::clean("-device"));
    let sent = payloads(false);
    for payload in &sent {
        let described = described(&format!("{}/answers", task.topic));
        device.publish_described(&format!("{}/up", task.topic), payload, task.qos, described);
    }
    // rumqttc writes while it is polled.
    device.await_acked();
    for payload in &sent {
        let message = reader.next_message();
        assert_eq!(
            (&message.payload, message.qos),
            (payload, task.qos),
            "payload or QoS at the cloud"
        );
        if task.version == 5 {
            assert_eq!(
                message.properties.user_properties,
                user(),
                "user properties at the cloud"
            );
        }
    }
    device.disconnect();
    reader.disconnect();
}

/// Three members of a shared subscription take what the test publishes, each message once.
pub(crate) fn shared(task: &Task) {
    let mut members: Vec<Device> = ["-member0", "-member1", "-member2"]
        .iter()
        .map(|suffix| Device::connect(task, &Session::clean(suffix)))
        .collect();
    for member in &mut members {
        member.subscribe(&format!("$share/crew/{}/work", task.topic), task.qos, None);
    }
    say("subscribed", &[("topic", json!(task.topic))]);
    let (count, mut taken) = (task.number("count"), Vec::new());
    let deadline = Instant::now() + DEADLINE;
    while taken.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} messages came", taken.len());
        for member in &mut members {
            taken.extend(member.ready_message().map(|message| message.payload));
        }
    }
    assert_eq!(
        taken.iter().collect::<HashSet<_>>().len(),
        count,
        "a message came to two members"
    );
    for member in members {
        member.disconnect();
    }
}
