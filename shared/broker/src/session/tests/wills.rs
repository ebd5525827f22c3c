//! Wills.

use std::time::Duration;

use super::harness::*;

struct Scene {
    world: World,
    watcher: crate::wire::ConnId,
}

fn scene() -> Scene {
    let mut world = World::new(edge());
    let (watcher, _) = world.join(connect("watcher"));
    world.subscribe(watcher, "log/will/#", 1);
    Scene { world, watcher }
}

impl Scene {
    fn client(&mut self, persists: bool, delay_secs: u32) -> crate::wire::ConnId {
        let mut client = if persists { persistent("c") } else { connect("c") };
        let mut will = will("log/will/c", "gone");
        will.delay_secs = delay_secs;
        client.will = Some(will);
        self.world.join(client).0
    }

    fn wills(&mut self) -> usize {
        self.world.settle();
        self.world.consume(self.watcher).len()
    }
}

/// [MQTT5-3.1.2-8] [MQTT5-3.14.4-3]
#[test]
fn a_will_is_sent_unless_the_client_says_goodbye() {
    for persists in [false, true] {
        let mut scene = scene();
        let conn = scene.client(persists, 0);
        scene.world.cut(conn);
        assert_eq!(scene.wills(), 1, "abnormal end");
        let conn = scene.client(persists, 0);
        scene.world.disconnect(conn);
        assert_eq!(scene.wills(), 0, "DISCONNECT 0x00");
        let conn = scene.client(persists, 0);
        let Scene { world, .. } = &mut scene;
        world
            .core
            .handle_disconnect(conn, 0x04, None, world.now, &mut world.tape);
        assert_eq!(scene.wills(), 1, "DISCONNECT 0x04");
        assert_eq!(scene.world.store.log.len(), 2, "a will is a message like any other");
    }
}

/// [MQTT5-3.1.3-9]
#[test]
fn a_delayed_will_waits_and_is_cancelled_by_a_resume() {
    let mut scene = scene();
    let conn = scene.client(true, 10);
    scene.world.cut(conn);
    scene.world.pass(Duration::from_secs(9));
    assert_eq!(scene.wills(), 0);
    let conn = scene.client(true, 10);
    scene.world.pass(Duration::from_secs(5));
    assert_eq!(scene.wills(), 0, "resumed in time");
    scene.world.cut(conn);
    scene.world.pass(Duration::from_secs(10));
    assert_eq!(scene.wills(), 1);
    scene.world.pass(Duration::from_secs(100));
    assert_eq!(scene.wills(), 0, "once");
}

/// The will is sent when the delay or the session ends, whichever comes first.
#[test]
fn a_delayed_will_is_sent_when_the_session_ends() {
    let mut scene = scene();
    let conn = scene.client(false, 100);
    scene.world.cut(conn);
    assert_eq!(scene.wills(), 1, "a clean session ends with its connection");
    let conn = scene.client(true, 100_000);
    scene.world.cut(conn);
    assert_eq!(scene.wills(), 0);
    scene.world.pass(Duration::from_secs(3600));
    assert_eq!(scene.wills(), 1, "expiry");
    let conn = scene.client(true, 100);
    scene.world.cut(conn);
    scene.world.join(connect("c"));
    assert_eq!(scene.wills(), 1, "clean start");
}

#[test]
fn at_takeover_only_a_will_without_delay_is_sent() {
    let mut scene = scene();
    scene.client(true, 0);
    scene.client(true, 10);
    assert_eq!(scene.wills(), 1);
    scene.client(true, 10);
    scene.world.pass(Duration::from_secs(60));
    assert_eq!(scene.wills(), 0, "the session goes on");
    scene.client(false, 10);
    assert_eq!(scene.wills(), 1, "the session ended");
}

/// A crash of the node is an abnormal end of all its connections.
#[test]
fn the_will_of_a_persistent_session_survives_a_crash_and_is_sent_once() {
    let mut scene = scene();
    scene.client(true, 5);
    for _ in 0..3 {
        scene.world.crash();
        let (watcher, _) = scene.world.join(connect("watcher"));
        scene.world.subscribe(watcher, "log/will/#", 1);
        scene.watcher = watcher;
        scene.world.pass(Duration::from_secs(4));
        assert_eq!(scene.wills(), 0);
    }
    scene.world.pass(Duration::from_secs(1));
    assert_eq!(scene.wills(), 1);
    scene.world.crash();
    scene.world.pass(Duration::from_secs(60));
    scene.world.settle();
    assert_eq!(scene.world.store.log.len(), 1);
}

/// A goodbye is durable: after a crash the will does not come.
#[test]
fn a_crash_after_goodbye_sends_no_will() {
    let mut scene = scene();
    let conn = scene.client(true, 0);
    scene.world.disconnect(conn);
    scene.world.settle();
    scene.world.crash();
    scene.world.pass(Duration::from_secs(60));
    scene.world.settle();
    assert!(scene.world.store.log.is_empty());
}

#[test]
fn a_retained_will_is_retained() {
    let mut scene = scene();
    let mut client = connect("c");
    let mut will = will("log/will/c", "gone");
    will.retain = true;
    client.will = Some(will);
    let (conn, _) = scene.world.join(client);
    scene.world.cut(conn);
    scene.world.settle();
    let (late, _) = scene.world.join(connect("late"));
    scene.world.subscribe(late, "log/will/#", 0);
    assert!(scene.world.messages(late)[0].retain);
}

#[test]
fn a_will_to_a_topic_of_the_node_is_refused() {
    let mut world = World::new(edge());
    let mut client = connect("c");
    client.will = Some(will("$SYS/x", "x"));
    let conn = world.connect_with(client);
    assert_eq!(
        world.take(conn),
        [Out::ConnAck {
            session_present: false,
            reason: 0x90
        }]
    );
}
