//! Retained messages: set, replaced, read by a later subscriber, deleted.
//!
//! In: a client library. Out: the program and our witness find the newest one with its flag and QoS, and nothing after its deletion.

use crate::nodes;
use crate::program::{Library, Program, Task, heard};
use crate::raw::Raw;

/// What the programs keep.
const KEPT: &[u8] = b"kept \x00\xff";

/// At each node, version and QoS.
pub(crate) fn are_kept_replaced_and_deleted(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/retained", library.name()));
        let mut program = Program::start(library, "retained", &task);
        for (_, qos, topic) in task.rounds() {
            let topic = format!("{topic}/kept");
            assert_eq!(program.await_event("kept")["topic"], topic.as_str());
            let mut witness = Raw::watching(at, &topic);
            let message = witness.next();
            assert_eq!(
                (message.payload.as_slice(), message.qos, message.retain),
                (KEPT, qos, true),
                "{topic}"
            );
            witness.assert_silent();
            program.go();
            program.await_event("deleted");
            Raw::watching(at, &topic).assert_silent();
            program.go();
        }
        let all = heard(&program.finish());
        for (_, qos, topic) in task.rounds() {
            let topic = format!("{topic}/kept");
            let of_topic: Vec<_> = all.iter().filter(|message| message.topic == topic).collect();
            let outline: Vec<_> = of_topic
                .iter()
                .map(|message| (message.payload.as_slice(), message.qos, message.retain))
                .collect();
            assert_eq!(outline, [(KEPT, qos, true)], "{topic}");
        }
    }
}
