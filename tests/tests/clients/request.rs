//! Request and response, and topic aliases of a device: what 5.0 adds to a PUBLISH.
//!
//! In: a client library, as requester, as responder, and as responder to a client of another kind. Out: our witness and the programs see the
//! same properties, user properties in their order.

use serde_json::{Value, json};

use crate::messages::{user_properties, without_expiry};
use crate::nodes;
use crate::program::{Library, Program, Task, heard};
use crate::properties;
use crate::raw::Raw;

/// Publishes per topic, of which only the first names it.
const TURNS: usize = 4;

/// Requester and responder of one library, watched.
pub(crate) fn finds_its_response(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/request", library.name())).only_5();
        let mut witness = Raw::watching(at, &format!("{}/#", task.topic));
        let program = Program::start(library, "request", &task);
        let came = witness.next_many(2 * task.rounds().len());
        let all = heard(&program.finish());
        assert_eq!(all.len(), came.len(), "each question and answer comes once");
        for (_, qos, topic) in task.rounds() {
            let seen = |name: &str| {
                let found = came.iter().find(|message| message.topic == format!("{topic}/{name}"));
                found.unwrap_or_else(|| panic!("{topic}/{name} was not seen"))
            };
            let (question, answer) = (seen("question"), seen("answers"));
            let asked = json!({
                "payload_format": 1, "content_type": "text/plain", "response_topic": format!("{topic}/answers"),
                "correlation": "0001636f7272ff", "user": user_properties(),
            });
            let properties = without_expiry(properties::decode(&question.properties), 300);
            assert_eq!(properties, asked, "{topic}: the question at the witness");
            assert_eq!(
                (question.payload.as_slice(), question.qos),
                ("wie geht's?".as_bytes(), qos)
            );
            let properties = properties::decode(&answer.properties);
            assert_eq!(
                properties,
                answered(user_properties()),
                "{topic}: the answer at the witness"
            );
            assert_eq!(
                (answer.payload.as_slice(), answer.qos),
                ("re: wie geht's?".as_bytes(), qos)
            );
            let heard = |name: &str| {
                let found = all.iter().find(|message| message.topic == format!("{topic}/{name}"));
                found
                    .unwrap_or_else(|| panic!("{topic}/{name} was not heard"))
                    .properties
                    .clone()
            };
            assert_eq!(
                without_expiry(heard("question"), 300),
                asked,
                "{topic}: the question as heard"
            );
            assert_eq!(
                heard("answers"),
                answered(user_properties()),
                "{topic}: the answer as heard"
            );
        }
    }
}

fn answered(user: Value) -> Value {
    let mut user = user;
    user.as_array_mut().expect("a list").push(json!(["answered", "yes"]));
    json!({ "correlation": "0001636f7272ff", "user": user })
}

/// A responder of this library answers our raw client.
pub(crate) fn answers_others(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/respond", library.name())).only_5();
        let task = task.with(&["--stage=respond"]);
        let mut raw = Raw::watching(at, &format!("{}/+/+/answers", task.topic));
        let mut program = Program::start(library, "request", &task);
        for (_, qos, topic) in task.rounds() {
            program.await_event("subscribed");
            let request = properties::request(&format!("{topic}/answers"), b"\x00\x01corr\xff");
            raw.publish(&format!("{topic}/question"), b"who?", qos, request);
            let answer = raw.next();
            assert_eq!((answer.payload.as_slice(), answer.qos), (b"re: who?".as_slice(), qos));
            assert_eq!(properties::decode(&answer.properties), answered(json!([])), "{topic}");
        }
        program.finish();
    }
}

/// A device that publishes under aliases: every message arrives under its full topic.
pub(crate) fn aliases_stand_for_their_topics(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/alias", library.name())).only_5();
        let task = task.with(&[&format!("--count={TURNS}")]);
        let mut witness = Raw::watching(at, &format!("{}/#", task.topic));
        let lines = Program::start(library, "alias", &task).finish();
        let aliased: Vec<&Value> = lines.iter().filter(|line| line["event"] == "aliased").collect();
        assert_eq!(aliased.len(), task.rounds().len());
        for line in aliased {
            assert_eq!(line["without_topic"], json!(3 * (TURNS - 1)), "aliases were used");
        }
        let all = witness.next_many(task.rounds().len() * 3 * TURNS);
        for (_, qos, topic) in task.rounds() {
            // Order is promised within a QoS only.
            let came = all.iter().filter(|message| message.qos == qos);
            let came: Vec<_> = came
                .map(|message| (message.topic.as_str(), String::from_utf8_lossy(&message.payload)))
                .collect();
            let topics = ["one", "two", "three"].map(|name| (name, format!("{topic}/{name}")));
            let expected: Vec<_> = (0..TURNS)
                .flat_map(|turn| {
                    topics
                        .iter()
                        .map(move |(name, topic)| (topic.as_str(), format!("{name} {turn}").into()))
                })
                .collect();
            assert_eq!(came, expected);
        }
        witness.assert_silent();
    }
}
