//! Scenarios of 5.0: request and response, topic aliases, subscription identifiers.
//!
//! In: a task. Out: lines for the test, and panics for what is not as sent.

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::json;

use crate::device::{Device, Session};
use crate::task::{Task, say};

const QUESTION: &str = "wie geht's?";
const CORRELATION: &[u8] = b"\x00\x01corr\xff";

/// User properties of a publish: a name twice, beside one another.
pub(crate) fn user() -> Vec<(String, String)> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    [("zone", "north"), ("zone", "south"), ("unit", "°C")].map(pair).into()
}

/// All properties that a device may set, but for the payload format.
pub(crate) fn described(response_topic: &str) -> PublishProperties {
    PublishProperties {
        message_expiry_interval: Some(300),
        response_topic: Some(response_topic.to_owned()),
        correlation_data: Some(CORRELATION.into()),
        user_properties: user(),
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    }
}

fn respond(responder: &mut Device, qos: u8) {
    let request = responder.next_message();
    let asked = request.properties;
    let mut user_properties = asked.user_properties;
    user_properties.push(("answered".to_owned(), "yes".to_owned()));
    let answer = PublishProperties {
        correlation_data: asked.correlation_data,
        user_properties,
        ..PublishProperties::default()
    };
    let payload = [b"re: ", request.payload.as_ref()].concat();
    let topic = asked.response_topic.expect("a request names its response topic");
    responder.publish_described(&topic, &payload, qos, answer);
    responder.await_acked();
}

/// Request and response with correlation data and user properties. Stage "respond" only answers, one request per round.
pub(crate) fn request(task: &Task) {
    let (question, answers) = (format!("{}/question", task.topic), format!("{}/answers", task.topic));
    let mut responder = Device::connect(task, &Session::clean("-responder"));
    responder.subscribe(&question, task.qos, None);
    say("subscribed", &[("topic", json!(task.topic))]);
    if task.text("stage") == "respond" {
        respond(&mut responder, task.qos);
        responder.disconnect();
        return;
    }
    let mut requester = Device::connect(task, &Session::clean("-requester"));
    requester.subscribe(&answers, task.qos, None);
    let asked = PublishProperties {
        payload_format_indicator: Some(1),
        ..described(&answers)
    };
    requester.publish_described(&question, QUESTION.as_bytes(), task.qos, asked);
    requester.await_acked();
    respond(&mut responder, task.qos);
    let answer = requester.next_message();
    assert_eq!(answer.payload, format!("re: {QUESTION}").as_bytes());
    assert_eq!(answer.properties.correlation_data.as_deref(), Some(CORRELATION));
    let mut expected = user();
    expected.push(("answered".to_owned(), "yes".to_owned()));
    assert_eq!(answer.properties.user_properties, expected);
    requester.disconnect();
    responder.disconnect();
}

/// Publishes under topic aliases: the full topic once, then the alias alone.
pub(crate) fn alias(task: &Task) {
    let mut device = Device::connect(task, &Session::clean(""));
    let mut without_topic = 0;
    for turn in 0..task.number("count") {
        for (alias, name) in (1..).zip(["one", "two", "three"]) {
            let topic = if turn == 0 {
                format!("{}/{name}", task.topic)
            } else {
                String::new()
            };
            without_topic += usize::from(topic.is_empty());
            let aliased = PublishProperties {
                topic_alias: Some(alias),
                ..PublishProperties::default()
            };
            device.publish_described(&topic, format!("{name} {turn}").as_bytes(), task.qos, aliased);
        }
    }
    device.await_acked();
    say("aliased", &[("without_topic", json!(without_topic))]);
    device.disconnect();
}

/// Two overlapping subscriptions with identifiers: a message says which of them it matched.
pub(crate) fn identifiers(task: &Task) {
    let mut device = Device::connect(task, &Session::clean(""));
    device.subscribe(&format!("{}/+", task.topic), task.qos, Some(7));
    device.subscribe(&format!("{}/both", task.topic), task.qos, Some(268_435_455));
    say("subscribed", &[("topic", json!(task.topic))]);
    while device.next_message().topic != format!("{}/end", task.topic) {}
    device.disconnect();
}
