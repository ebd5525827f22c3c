//! Sessions that outlive connections and restarts, what expires meanwhile, and a client ID that connects twice.
//!
//! In: a client library. Out: the resumed program heard each message once and in order, whether the node was killed or ended in between.

use std::time::Duration;

use fellbeck_tests::{Kind, Node, Site, wait};

use crate::nodes;
use crate::program::{Heard, Library, Program, Task, heard};
use crate::properties;
use crate::raw::Raw;

/// Messages before the restart, and again after it.
const HALF: usize = 10;
/// Longest orderly end of a node.
const END_MAX: Duration = Duration::from_secs(20);

fn publish_half(node: &Node, task: &Task, from: usize) {
    let mut source = Raw::connect(node.ready().mqtt);
    for (_, qos, topic) in task.rounds() {
        for n in from..from + HALF {
            source.publish(&format!("{topic}/news"), format!("{n:03}").as_bytes(), qos, Vec::new());
        }
    }
}

/// Payloads of the news of one round.
fn news(all: &[Heard], topic: &str) -> Vec<String> {
    let news = format!("{topic}/news");
    let of_topic = all.iter().filter(|message| message.topic == news);
    of_topic
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect()
}

/// At each kind of node, killed and ended, for each version and QoS 1 and 2.
pub(crate) fn survive_a_restart_of_the_node(library: Library) {
    for kind in [Kind::Edge, Kind::Cloud] {
        let site = Site::new();
        let mut node = Node::new(kind, &site.path("node"));
        node.start();
        for kill in [true, false] {
            let topic = format!("{}/{}", library.name(), if kill { "killed" } else { "ended" });
            let task = |node: &Node, stage: &str| {
                let count = format!("--count={}", 2 * HALF);
                let task = Task::new(node.ready().mqtt, &topic).at_qos(&[1, 2]);
                task.with(&[&format!("--stage={stage}"), &count])
            };
            let subscribe = task(&node, "subscribe");
            Program::start(library, "session", &subscribe).finish();
            publish_half(&node, &subscribe, 0);
            if kill {
                node.kill();
            } else {
                assert!(node.terminate(END_MAX).success(), "{kind:?} ends with 0");
            }
            node.start();
            publish_half(&node, &subscribe, HALF);
            let lines = Program::start(library, "session", &task(&node, "resume")).finish();
            let present = lines.iter().filter(|line| line["session_present"] == true).count();
            assert_eq!(present, subscribe.rounds().len(), "{kind:?} {topic}: sessions present");
            let all = heard(&lines);
            let expected: Vec<String> = (0..2 * HALF).map(|n| format!("{n:03}")).collect();
            for (_, _, topic) in subscribe.rounds() {
                assert_eq!(news(&all, &topic), expected, "{kind:?} {topic}");
            }
        }
    }
}

/// What expired while the reader was away does not come; what did not says how long it has left.
pub(crate) fn get_no_expired_messages(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let topic = format!("{}/{node}/expiry", library.name());
        let task = |stage: &str| {
            let task = Task::new(at, &topic).only_5().at_qos(&[1, 2]);
            task.with(&[&format!("--stage={stage}"), "--count=2"])
        };
        Program::start(library, "session", &task("subscribe")).finish();
        let mut source = Raw::connect(at);
        for (_, qos, topic) in task("").rounds() {
            let topic = format!("{topic}/news");
            source.publish(&topic, b"0 lasting", qos, properties::expiry(600));
            source.publish(&topic, b"1 doomed", qos, properties::expiry(1));
            source.publish(&topic, b"2 for ever", qos, Vec::new());
        }
        // Time is what is tested here: the reader is away for longer than the message lives.
        wait::last(Duration::from_millis(1500));
        let all = heard(&Program::start(library, "session", &task("resume")).finish());
        for (_, _, topic) in task("").rounds() {
            assert_eq!(news(&all, &topic), ["0 lasting", "2 for ever"], "{topic}");
            let expiries: Vec<_> = all
                .iter()
                .filter(|message| message.topic == format!("{topic}/news"))
                .map(|message| message.properties["expiry"].as_u64())
                .collect();
            let [Some(left), None] = expiries[..] else {
                panic!("{topic}: expiries {expiries:?}");
            };
            assert!((560..600).contains(&left), "{topic}: 600 s became {left} s");
        }
    }
}

/// The first connection of a client ID is closed, with reason 0x8E in 5.0, when the second one comes, which is served.
pub(crate) fn move_to_the_newest_connection(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/takeover", library.name())).at_qos(&[1]);
        let mut source = Raw::connect(at);
        let mut program = Program::start(library, "takeover", &task);
        for (version, _, topic) in task.rounds() {
            let taken = program.await_event("taken");
            assert!(version == 3 || taken["reason"] == 0x8E, "{topic}: {taken}");
            program.await_event("subscribed");
            source.publish(&format!("{topic}/first"), b"to the first", 1, Vec::new());
            source.publish(&format!("{topic}/second"), b"to the second", 1, Vec::new());
        }
        let all = heard(&program.finish());
        let topics: Vec<&str> = all.iter().map(|message| message.topic.as_str()).collect();
        let expected: Vec<String> = task
            .rounds()
            .iter()
            .map(|(_, _, topic)| format!("{topic}/second"))
            .collect();
        assert_eq!(topics, expected);
    }
}
