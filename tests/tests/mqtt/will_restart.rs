//! Wills over a restart of the node: its own end is no DISCONNECT of a client.

use std::thread;
use std::time::Instant;

use fellbeck_tests::mqtt::wire::property;
use fellbeck_tests::mqtt::{Connect, Delivery, LastWill, Publish, Raw, Version};
use fellbeck_tests::{Node, wait};

use crate::brokers::{Target, on_own, target, unique};
use crate::pair::{absent, resume, take, texts};

/// Ends the node in one of two ways and starts it again.
fn restart(node: &mut Node, is_graceful: bool) {
    if is_graceful {
        assert!(node.terminate(wait::EVENTUALLY).success());
    } else {
        node.kill();
    }
    node.start();
}

/// Runs `body` with an edge and a cloud that it is to kill, and at the same time with two that it is to stop.
fn on_each_end(body: impl Fn(&mut Node, bool) + Sync) {
    thread::scope(|scope| {
        for is_graceful in [false, true] {
            let body = &body;
            scope.spawn(move || on_own(&[], |node| body(node, is_graceful)));
        }
    });
}

/// A session of 5.0 that waits for wills below a topic.
fn waiting(node: &Node, topic: &str) -> Connect {
    absent(&target(node, Version::V5), "will-waits", &format!("{topic}/#"), 2)
}

/// [MQTT5-3.1.2-7] [MQTT5-3.1.2-8] [MQTT5-4.1] [MQTT3-3.1.2-8] A node that is killed, or stopped, and started again
/// publishes the wills of the connections that ended with it, once, with all they had: those of kept sessions and of
/// clean ones, of both versions.
#[test]
fn a_restart_publishes_the_wills() {
    on_each_end(|node, is_graceful| {
        let topic = unique("restart");
        let away = waiting(node, &topic);
        let mut clients = Vec::new();
        for version in Version::BOTH {
            let target = target(node, version);
            for (name, hello) in [
                ("kept", Connect::kept(version, unique("kept"))),
                ("clean", target.hello("clean")),
            ] {
                let will = LastWill::new(format!("{topic}/{name}/{version:?}"), "gone")
                    .qos(1)
                    .retain();
                let will = if target.is_v5() {
                    will.property(property::user("k", "v"))
                } else {
                    will
                };
                clients.push(target.connect(&hello.will(will)));
            }
        }
        restart(node, is_graceful);
        drop(clients);
        let mut client = resume(&after(node), &away);
        assert_wills(&take(&mut client, 4), &topic);
        let mut late = after(node).client("restart-late");
        assert_eq!(late.subscribe(&format!("{topic}/#"), 1), 1);
        assert_wills(&take(&mut late, 4), &topic);
        client.ping();
        drop((client, late));
        // A second start has nothing left to publish.
        restart(node, true);
        resume(&after(node), &away).ping();
    });
}

/// The node as it is now, in 5.0.
fn after(node: &Node) -> Target {
    target(node, Version::V5)
}

fn assert_wills(deliveries: &[Delivery], topic: &str) {
    let mut got: Vec<(String, usize)> = deliveries
        .iter()
        .map(|one| (one.topic.clone(), one.properties.len()))
        .collect();
    got.sort();
    let wanted = [("clean/V3", 0), ("clean/V5", 1), ("kept/V3", 0), ("kept/V5", 1)];
    assert_eq!(got, wanted.map(|(end, count)| (format!("{topic}/{end}"), count)));
}

/// [MQTT5-3.14.4-3] [MQTT5-3.1.2-10] [MQTT5-3.1.2-8] [MQTT3-3.14.4-3] [MQTT3-3.1.2-10] A restart publishes no will that
/// DISCONNECT had deleted, nor one that was published before.
#[test]
fn a_restart_publishes_no_will_that_is_done() {
    on_each_end(|node, is_graceful| {
        let topic = unique("done");
        let away = waiting(node, &topic);
        for version in Version::BOTH {
            let target = target(node, version);
            for hello in [Connect::kept(version, unique("done")), target.hello("done")] {
                let will = |payload: &str| LastWill::new(format!("{topic}/a"), payload).qos(1);
                target.connect(&hello.clone().will(will("never"))).disconnect();
                let mut watcher = target.client("done-watcher");
                assert_eq!(watcher.subscribe(&format!("{topic}/#"), 1), 1);
                target.connect(&hello.will(will("once"))).reset();
                assert_eq!(texts(&take(&mut watcher, 1)), ["once"]);
            }
        }
        restart(node, is_graceful);
        let target = target(node, Version::V5);
        target
            .client("done-end")
            .publish(&Publish::new(&format!("{topic}/a"), "end").qos(1));
        let mut client = resume(&target, &away);
        assert_eq!(texts(&take(&mut client, 5)), ["once", "once", "once", "once", "end"]);
        client.ping();
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9] [MQTT5-3.1.3.2.2] [MQTT5-4.1] A will whose delay runs goes on to wait over a
/// restart: published when the delay has passed, cancelled when its client is back before, whether the connection had
/// ended before the restart or with it.
#[test]
fn a_delay_goes_on_over_a_restart() {
    on_each_end(|node, is_graceful| {
        let topic = unique("delay");
        let away = waiting(node, &topic);
        let will = |payload: &str, delay| {
            let will = LastWill::new(format!("{topic}/a"), payload).qos(1);
            Connect::kept(Version::V5, unique("delay")).will(will.property(property::will_delay(delay)))
        };
        let hellos = [
            will("before", 4),
            will("cancelled", 4),
            will("with", 4),
            will("cancelled", 4),
        ];
        let before = target(node, Version::V5);
        let mut clients: Vec<Raw> = hellos.iter().map(|hello| before.connect(hello)).collect();
        let since = Instant::now();
        let open = clients.split_off(2);
        clients.into_iter().for_each(Raw::reset);
        restart(node, is_graceful);
        drop(open);
        let after = target(node, Version::V5);
        let back = [resume(&after, &hellos[1]), resume(&after, &hellos[3])];
        let mut watcher = resume(&after, &away);
        let mut got = texts(&take(&mut watcher, 2));
        got.sort();
        assert_eq!(got, ["before", "with"]);
        assert!(since.elapsed().as_secs() >= 4, "{:?}", since.elapsed());
        back.into_iter().for_each(Raw::disconnect);
        watcher.ping();
    });
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3.2.4] A delay that passes while the node is down is over at the start, and a session
/// that expired then publishes its will.
#[test]
fn a_delay_may_pass_while_the_node_is_down() {
    on_own(&[], |node| {
        let topic = unique("down");
        let away = waiting(node, &topic);
        let before = target(node, Version::V5);
        let will = |payload: &str, delay| {
            LastWill::new(format!("{topic}/a"), payload)
                .qos(1)
                .property(property::will_delay(delay))
        };
        let delayed = Connect::kept(Version::V5, unique("down")).will(will("delayed", 1));
        let expired = Connect::new(Version::V5, unique("down")).property(property::session_expiry(1));
        let open = [
            before.connect(&delayed),
            before.connect(&expired.will(will("expired", 1000))),
        ];
        node.kill();
        drop(open);
        node.start();
        let mut watcher = resume(&target(node, Version::V5), &away);
        let mut got = texts(&take(&mut watcher, 2));
        got.sort();
        assert_eq!(got, ["delayed", "expired"]);
        watcher.ping();
    });
}
