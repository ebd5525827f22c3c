//! Scenarios about what a node keeps: retained messages, wills, sessions, and which connection a session belongs to.
//!
//! In: a task. Out: lines for the test, and panics for what is not as it must be.

use serde_json::json;

use crate::device::{Device, Session};
use crate::task::{Task, await_go, say};

const KEPT: &[u8] = b"kept \x00\xff";

/// Sets a retained message twice, reads the newest one back, deletes it, and finds nothing.
pub(crate) fn retained(task: &Task) {
    let (topic, fence) = (format!("{}/kept", task.topic), format!("{}/fence", task.topic));
    let mut device = Device::connect(task, &Session::clean(""));
    device.publish(&topic, b"replaced", task.qos, true);
    device.publish(&topic, KEPT, task.qos, true);
    device.fence();
    say("kept", &[("topic", json!(topic))]);
    await_go();

    let mut reader = Device::connect(task, &Session::clean("-reader"));
    reader.subscribe(&topic, task.qos, None);
    let message = reader.next_message();
    assert_eq!(
        (message.payload.as_ref(), message.qos, message.retain),
        (KEPT, task.qos, true)
    );
    reader.disconnect();

    device.publish(&topic, b"", task.qos, true);
    device.fence();
    say("deleted", &[("topic", json!(topic))]);
    await_go();

    let mut late = Device::connect(task, &Session::clean("-late"));
    late.subscribe(&topic, task.qos, None);
    late.subscribe(&fence, 1, None);
    late.fence();
    assert_eq!(late.next_message().topic, fence, "the deleted message came back");
    late.disconnect();
    device.disconnect();
}

/// Leaves wills with the node and waits: to be killed, or for the word to say goodbye.
pub(crate) fn wills(task: &Task) {
    let leave = |round: &Task| {
        let session = Session {
            will: Some((format!("{}/will", round.topic), b"gone \x00\xff".to_vec(), round.qos)),
            ..Session::clean("")
        };
        Device::connect(round, &session)
    };
    let devices: Vec<Device> = task.rounds().iter().map(leave).collect();
    say("waiting", &[]);
    await_go();
    for device in devices {
        device.disconnect();
    }
}

/// A session that outlives its connection. Stage "subscribe" makes it, stage "resume" takes what came meanwhile.
pub(crate) fn session(task: &Task) {
    let mut device = Device::connect(task, &Session::lasting());
    let end = format!("{}/end", task.topic);
    if task.text("stage") == "subscribe" {
        assert!(!device.session_present(), "the session was there before");
        device.subscribe(&format!("{}/#", task.topic), task.qos, None);
    } else {
        assert!(device.session_present(), "the session is lost");
        device.publish(&end, b"end", task.qos, false);
        let mut payloads = Vec::new();
        loop {
            let message = device.next_message();
            if message.topic == end {
                break;
            }
            payloads.push(message.payload);
        }
        assert_eq!(payloads.len(), task.number("count"));
        assert!(
            payloads.is_sorted_by(|a, b| a < b),
            "a message came twice or out of order"
        );
        device.await_acked();
    }
    device.disconnect();
}

/// A second connection with the same client ID: the first one is told and closed, the second one is served.
pub(crate) fn takeover(task: &Task) {
    let mut first = Device::connect(task, &Session::clean(""));
    first.subscribe(&format!("{}/first", task.topic), task.qos, None);
    let mut second = Device::connect(task, &Session::clean(""));
    let reason = first.await_end();
    assert!(task.version == 3 || reason == Some(0x8E), "closed with {reason:?}");
    say("taken", &[("reason", json!(reason))]);
    second.subscribe(&format!("{}/second", task.topic), task.qos, None);
    say("subscribed", &[("topic", json!(task.topic))]);
    second.next_message();
    second.disconnect();
}
