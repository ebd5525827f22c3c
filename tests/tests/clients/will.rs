//! Wills: sent when the client process is killed, not sent when it says goodbye.
//!
//! In: a client library. Out: what our witness saw. One process holds a connection per version and QoS, and is killed with SIGKILL.

use crate::nodes;
use crate::program::{Library, Program, Task};
use crate::raw::Raw;

/// What the programs leave.
const WILL: &[u8] = b"gone \x00\xff";

/// At each node, version and QoS.
pub(crate) fn follow_a_kill_but_not_a_goodbye(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = |name: &str| Task::new(at, &format!("{}/{node}/{name}", library.name()));
        let killed = task("killed");
        let mut witness = Raw::watching(at, &format!("{}/#", killed.topic));
        let mut program = Program::start(library, "will", &killed);
        program.await_event("waiting");
        witness.assert_silent();
        program.kill();
        let mut wills = witness.next_many(killed.rounds().len());
        wills.sort_by(|a, b| a.topic.cmp(&b.topic));
        for (will, (_, qos, topic)) in wills.iter().zip(killed.rounds()) {
            assert_eq!(will.topic, format!("{topic}/will"));
            assert_eq!(
                (will.payload.as_slice(), will.qos, will.retain),
                (WILL, qos, false),
                "{topic}"
            );
        }

        let polite = task("polite");
        let mut witness = Raw::watching(at, &format!("{}/#", polite.topic));
        let mut program = Program::start(library, "will", &polite);
        program.await_event("waiting");
        program.go();
        program.finish();
        // The node has handled each DISCONNECT before it closed the connection, and the program waited for that.
        witness.assert_silent();
    }
}
