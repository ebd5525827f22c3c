//! Subscriptions of 5.0: shared among members, and with identifiers.
//!
//! In: a client library. Out: each message came to one member, and a message names each subscription that it matched.

use std::collections::{BTreeMap, BTreeSet};

use crate::nodes;
use crate::program::{Library, Program, Task, heard};
use crate::raw::Raw;

/// Messages for the members of a shared subscription.
const WORK: usize = 60;

/// Three members, at each node and QoS.
pub(crate) fn share_the_work(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/shared", library.name())).only_5();
        let task = task.with(&[&format!("--count={WORK}")]);
        let mut source = Raw::connect(at);
        let mut program = Program::start(library, "shared", &task);
        for (_, qos, topic) in task.rounds() {
            program.await_event("subscribed");
            for n in 0..WORK {
                source.publish(&format!("{topic}/work"), format!("{n:02}").as_bytes(), qos, Vec::new());
            }
        }
        let all = heard(&program.finish());
        for (_, qos, topic) in task.rounds() {
            let of_round = all.iter().filter(|message| message.topic == format!("{topic}/work"));
            let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
            let mut done: Vec<String> = Vec::new();
            for message in of_round {
                *shares.entry(&message.client).or_default() += 1;
                assert_eq!(message.qos, qos, "{topic}");
                done.push(String::from_utf8_lossy(&message.payload).into_owned());
            }
            done.sort();
            let expected: Vec<String> = (0..WORK).map(|n| format!("{n:02}")).collect();
            assert_eq!(done, expected, "{topic}: each message came once");
            assert_eq!(shares.len(), 3, "{topic}: a member got nothing: {shares:?}");
        }
    }
}

/// Two overlapping subscriptions, one of them with the largest identifier.
pub(crate) fn name_their_identifiers(library: Library) {
    let world = nodes::shared();
    for (node, at) in nodes::both(&world) {
        let task = Task::new(at, &format!("{}/{node}/identifiers", library.name())).only_5();
        let mut source = Raw::connect(at);
        let mut program = Program::start(library, "identifiers", &task);
        for (_, _, topic) in task.rounds() {
            program.await_event("subscribed");
            for name in ["one", "both", "end"] {
                source.publish(&format!("{topic}/{name}"), name.as_bytes(), 2, Vec::new());
            }
        }
        let all = heard(&program.finish());
        for (_, _, topic) in task.rounds() {
            for (name, expected) in [("one", vec![7]), ("both", vec![7, 268_435_455]), ("end", vec![7])] {
                let of_topic = all.iter().filter(|message| message.topic == format!("{topic}/{name}"));
                let listed: Vec<u64> = of_topic
                    .flat_map(|message| {
                        message.properties["identifiers"]
                            .as_array()
                            .cloned()
                            .unwrap_or_default()
                    })
                    .filter_map(|identifier| identifier.as_u64())
                    .collect();
                // One message may name both, or each of two messages one of them.
                let distinct: BTreeSet<u64> = listed.iter().copied().collect();
                assert_eq!(
                    distinct.len(),
                    listed.len(),
                    "{topic}/{name}: {listed:?} repeats itself"
                );
                assert_eq!(distinct, expected.into_iter().collect(), "{topic}/{name}");
            }
        }
    }
}
