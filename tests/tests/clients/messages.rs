//! Messages through one node, and from a device at the edge to a reader at the cloud.
//!
//! In: a client library. Out: our witness saw what the program published, and the program heard what we published: payloads (empty, binary,
//! 1 MiB), QoS, order and, with 5.0, properties.

use std::net::SocketAddr;

use fellbeck_tests::mqtt::Publish;
use serde_json::{Value, json};

use crate::nodes;
use crate::program::{Heard, Library, Program, Task, heard};
use crate::properties;
use crate::raw::Raw;

/// The programs make the same list.
pub(crate) fn payloads(large: bool) -> Vec<Vec<u8>> {
    let mut listed = vec![Vec::new(), (0..=255).collect(), "grüße ✓".into()];
    listed.extend((0..20).map(|n| format!("{n:02}").into_bytes()));
    if large {
        listed.push((0..1_usize << 20).map(|at| ((at * 31 + 7) % 251) as u8).collect());
    }
    listed
}

/// What the programs put beside a payload.
pub(crate) fn user_properties() -> Value {
    json!([["zone", "north"], ["zone", "south"], ["unit", "°C"]])
}

/// Takes the expiry out and demands that it is the one that was set, or a few seconds less.
pub(crate) fn without_expiry(mut properties: Value, set: u64) -> Value {
    let expiry = properties
        .as_object_mut()
        .and_then(|all| all.remove("expiry"))
        .unwrap_or_default();
    let left = expiry.as_u64().unwrap_or_else(|| panic!("no expiry in {properties}"));
    assert!((set - 30..=set).contains(&left), "an expiry of {set} became {left}");
    properties
}

/// QoS and payload of each message, short enough to be printed.
fn outline<'a>(messages: impl IntoIterator<Item = (u8, &'a Vec<u8>)>) -> Vec<(u8, usize, Vec<u8>)> {
    let outline = |(qos, payload): (u8, &Vec<u8>)| (qos, payload.len(), payload.iter().take(32).copied().collect());
    messages.into_iter().map(outline).collect()
}

fn assert_same(what: &str, came: &[(u8, &Vec<u8>)], sent: &[Vec<u8>], qos: u8) {
    let expected: Vec<(u8, &Vec<u8>)> = sent.iter().map(|payload| (qos, payload)).collect();
    assert_eq!(
        outline(came.iter().copied()),
        outline(expected.iter().copied()),
        "{what}"
    );
    assert!(came == expected, "{what}: payloads differ behind their first bytes");
}

fn of_topic<'a>(all: &'a [Heard], topic: &str) -> Vec<(u8, &'a Vec<u8>)> {
    let found: Vec<&Heard> = all.iter().filter(|message| message.topic == topic).collect();
    assert!(found.iter().all(|message| !message.retain), "{topic}: retain is set");
    found.iter().map(|message| (message.qos, &message.payload)).collect()
}

/// Messages of one topic among what the witness saw. Order is promised within a topic and QoS only.
fn seen<'a>(all: &'a [Publish], topic: &str) -> Vec<&'a Publish> {
    let found: Vec<&Publish> = all.iter().filter(|message| message.topic == topic).collect();
    assert!(found.iter().all(|message| !message.retain), "{topic}: retain is set");
    found
}

fn content<'a>(seen: &[&'a Publish]) -> Vec<(u8, &'a Vec<u8>)> {
    seen.iter().map(|message| (message.qos, &message.payload)).collect()
}

/// Both ways through each node.
pub(crate) fn keep_content_and_order(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/messages", library.name())).with(&["--large"]);
        exchange(library, &task, at);
    }
}

/// The same over another transport; the witness stays on the plain listener.
pub(crate) fn keep_content_and_order_over(library: Library, transport: &str) {
    let nodes = nodes::shared();
    let ca = format!("--ca={}", nodes.certificate().display());
    for (node, plain, at) in nodes.over(transport) {
        let task = Task::new(at, &format!("{}/{node}/{transport}", library.name()));
        let task = task.with(&["--large", &format!("--transport={transport}"), &ca]);
        exchange(library, &task, plain);
    }
}

/// The same with a client that takes topic aliases of the node: each topic is named in full at first, and by its alias alone later.
pub(crate) fn keep_their_topics_behind_aliases(library: Library) {
    let nodes = nodes::shared();
    for (node, at) in nodes::both(&nodes) {
        // At QoS 2 MQTT.js 5.16 hands out the empty topic of the packet.
        let task = Task::new(at, &format!("{}/{node}/resolved", library.name()))
            .only_5()
            .at_qos(&[0, 1]);
        let task = task.with(&["--stage=resolve"]);
        let lines = exchange(library, &task, at);
        let resolved: Vec<&Value> = lines.iter().filter(|line| line["event"] == "resolved").collect();
        assert_eq!(resolved.len(), task.rounds().len());
        for line in resolved {
            assert!(
                line["without_topic"].as_u64().is_some_and(|count| count > 0),
                "{node}: {line}"
            );
        }
    }
}

/// Runs the scenario "messages" against a node whose plain listener is `plain`, and returns what the program said.
fn exchange(library: Library, task: &Task, plain: SocketAddr) -> Vec<Value> {
    let mut witness = Raw::watching(plain, &format!("{}/+/+/own", task.topic));
    let mut source = Raw::connect(plain);
    let mut program = Program::start(library, "messages", task);
    let sent_in = |qos: u8| payloads(qos == 1 && task.more.iter().any(|arg| arg == "--large"));
    for (_, qos, topic) in task.rounds() {
        program.await_event("subscribed");
        for payload in sent_in(qos) {
            source.publish(&format!("{topic}/other"), &payload, 2, Vec::new());
        }
    }
    let total = task.rounds().iter().map(|(_, qos, _)| sent_in(*qos).len()).sum();
    let came = witness.next_many(total);
    let lines = program.finish();
    let all = heard(&lines);
    for (_, qos, topic) in task.rounds() {
        let own = format!("{topic}/own");
        assert_same(&own, &content(&seen(&came, &own)), &sent_in(qos), qos);
        for side in ["own", "other"] {
            let topic = format!("{topic}/{side}");
            assert_same(&topic, &of_topic(&all, &topic), &sent_in(qos), qos);
        }
    }
    witness.assert_silent();
    lines
}

/// Device at the edge, reader at the cloud.
pub(crate) fn travel_to_the_cloud_unchanged(library: Library) {
    let world = nodes::shared();
    let [(_, edge), (_, cloud)] = nodes::both(&world);
    let peer = format!("--peer-port={}", cloud.port());
    let task = Task::new(edge, &format!("{}/forward", library.name())).with(&[&peer]);
    let mut witness = Raw::watching(cloud, &format!("{}/#", task.topic));
    let program = Program::start(library, "forward", &task);
    let sent = payloads(false);
    let came = witness.next_many(task.rounds().len() * sent.len());
    let all = heard(&program.finish());
    for (version, qos, topic) in task.rounds() {
        let up = format!("{topic}/up");
        let came = seen(&came, &up);
        assert_same(&up, &content(&came), &sent, qos);
        assert_same(&up, &of_topic(&all, &up), &sent, qos);
        let described = json!({
            "content_type": "text/plain", "response_topic": format!("{topic}/answers"), "correlation": "0001636f7272ff",
            "user": user_properties(),
        });
        for message in came {
            let properties = properties::decode(&message.properties);
            if version == 5 {
                assert_eq!(without_expiry(properties, 300), described, "{up}: at the witness");
            } else {
                assert_eq!(properties, json!({}), "{up}: 3.1.1 has no properties");
            }
        }
        if version == 5 {
            for message in all.iter().filter(|message| message.topic == up) {
                assert_eq!(
                    without_expiry(message.properties.clone(), 300),
                    described,
                    "{up}: at the reader"
                );
            }
        }
    }
    witness.assert_silent();
}
