//! Wills.

use std::time::Duration;

use super::harness::*;

struct Scene {
    world: World,
    watcher: crate::wire::ConnId,
}

fn scene() -> Scene {
    scene_of(edge())
}

fn scene_of(config: crate::session::CoreConfig) -> Scene {
    let mut world = World::new(config);
    let (watcher, _) = world.join(persistent("watcher"));
    world.subscribe(watcher, "log/will/#", 2);
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

    /// The process dies and starts again.
    fn restart(&mut self) {
        self.world.crash();
        (self.watcher, _) = self.world.join(persistent("watcher"));
    }

    fn wills(&mut self) -> usize {
        self.world.settle();
        self.world.consume(self.watcher).len()
    }
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.2-10] [MQTT5-3.14.4-3] [MQTT3-3.1.2-8] [MQTT3-3.14.4-3]
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

/// A crash of the node is an abnormal end of all its connections. [MQTT5-3.1.2-7] [MQTT5-3.1.2-10]
#[test]
fn the_will_of_a_persistent_session_survives_a_crash_and_is_sent_once() {
    let mut scene = scene();
    scene.client(true, 13);
    for _ in 0..3 {
        scene.restart();
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

/// However often the node is restarted, the delay counts from the end of the connection, or from the first restart after it.
#[test]
fn a_will_delay_does_not_begin_anew_with_each_restart() {
    for connected in [false, true] {
        let mut scene = scene();
        let conn = scene.client(true, 60);
        if !connected {
            scene.world.cut(conn);
            scene.world.settle();
        }
        for _ in 0..5 {
            scene.restart();
            scene.world.pass(Duration::from_secs(10));
            assert_eq!(scene.wills(), 0, "connected {connected}");
        }
        scene.world.settle();
        scene.restart();
        scene.world.pass(Duration::from_secs(11));
        assert_eq!(scene.wills(), 1, "connected {connected}");
    }
}

/// Publishing the will does not make the session younger.
#[test]
fn a_will_that_was_sent_does_not_put_the_expiry_off() {
    let mut scene = scene();
    let conn = scene.client(true, 3000);
    scene.world.cut(conn);
    scene.world.pass(Duration::from_secs(3000));
    assert_eq!(scene.wills(), 1);
    scene.restart();
    scene.world.pass(Duration::from_secs(601));
    scene.world.settle();
    assert!(scene.world.core.session_status("c").is_none());
}

/// [MQTT5-3.1.2-7] [MQTT5-3.1.2-8] [MQTT3-3.1.2-8]: a session that ends with its connection has a durable will too.
#[test]
fn the_will_of_a_clean_session_survives_a_crash_and_is_sent_once() {
    for config in [edge(), cloud()] {
        for delay_secs in [0, 50] {
            let mut scene = scene_of(config.clone());
            scene.client(false, delay_secs);
            scene.restart();
            scene.world.pass(Duration::ZERO);
            assert_eq!(scene.wills(), 1, "the session has ended, so no delay is waited for");
            assert!(scene.world.core.session_status("c").is_none());
            scene.world.pass(Duration::from_secs(1));
            scene.world.settle();
            scene.restart();
            scene.world.pass(Duration::from_secs(60));
            assert_eq!((scene.wills(), scene.world.store.log.len()), (0, 1));
            let stored = scene.world.stored(fellbeck_store::commit::Space::Session);
            assert!(!stored.contains_key("Mc") && !stored.contains_key("Cc"), "{stored:?}");
        }
    }
}

/// CONNACK says that the will is kept.
#[test]
fn connack_of_a_clean_session_with_a_will_follows_its_commit() {
    let mut world = World::new(edge());
    let mut client = connect("c");
    client.will = Some(will("log/will/c", "gone"));
    let conn = world.connect_with(client);
    world.submit();
    assert_eq!(world.take(conn), []);
    world.settle();
    assert!(matches!(world.take(conn)[..], [Out::ConnAck { reason: 0, .. }]));
    assert_eq!(world.stored(fellbeck_store::commit::Space::Session).len(), 1);
    world.disconnect(conn);
    world.settle();
    assert!(world.stored(fellbeck_store::commit::Space::Session).is_empty());
}

/// The client comes back before the clock has told that the session, kept for its will only, ended with the crash.
#[test]
fn a_clean_session_restored_for_its_will_is_not_resumed() {
    let mut scene = scene();
    scene.client(false, 0);
    scene.restart();
    let mut client = connect("c");
    client.clean_start = false;
    let (_, present) = scene.world.join(client);
    assert!(!present);
    assert_eq!(scene.wills(), 1);
}

/// The delay was over, only the clock had not told yet. [MQTT5-3.1.2-8]
#[test]
fn a_will_that_is_due_is_sent_although_the_client_comes_back_before_the_tick() {
    let mut scene = scene();
    let conn = scene.client(true, 10);
    scene.world.cut(conn);
    scene.world.now.tick = scene.world.now.tick.after(Duration::from_secs(10));
    scene.client(true, 10);
    assert_eq!(scene.wills(), 1);
}

/// [MQTT5-3.1.2-8]: the session ends at DISCONNECT when that sets its interval to 0, whatever the delay.
#[test]
fn a_disconnect_that_ends_the_session_decides_by_its_reason_on_the_will() {
    for (reason, wills) in [(0x00, 0), (0x04, 1)] {
        let mut scene = scene();
        let conn = scene.client(true, 100);
        let Scene { world, .. } = &mut scene;
        world
            .core
            .handle_disconnect(conn, reason, Some(0), world.now, &mut world.tape);
        assert!(world.core.session_status("c").is_none());
        assert_eq!(scene.wills(), wills, "reason {reason}");
    }
}

/// Section 3.1.2.5: a will delay beyond the expiry interval tells that the session has expired, also with the interval of DISCONNECT.
#[test]
fn a_will_delayed_beyond_the_interval_of_disconnect_tells_the_end_of_the_session() {
    let mut scene = scene();
    let conn = scene.client(true, 1000);
    let Scene { world, .. } = &mut scene;
    world
        .core
        .handle_disconnect(conn, 0x04, Some(20), world.now, &mut world.tape);
    scene.world.pass(Duration::from_secs(19));
    assert_eq!(scene.wills(), 0);
    scene.world.pass(Duration::from_secs(1));
    assert_eq!(scene.wills(), 1);
    assert!(scene.world.core.session_status("c").is_none());
}

/// [MQTT5-3.1.3-9]: the session goes on, so the will of the connection taken over is not sent later either.
#[test]
fn a_will_of_the_former_connection_is_not_sent_after_the_next_one_says_goodbye() {
    let mut scene = scene();
    let conn = scene.client(true, 10);
    scene.world.cut(conn);
    let (conn, _) = scene.world.join(persistent("c"));
    scene.world.cut(conn);
    scene.world.pass(Duration::from_secs(100));
    assert_eq!(scene.wills(), 0);
}

#[test]
fn the_expiry_of_a_will_counts_from_its_publication() {
    let mut scene = scene();
    let mut client = persistent("c");
    let mut will = will("log/will/c", "gone");
    (will.delay_secs, will.expiry_secs) = (100, Some(30));
    client.will = Some(will);
    let (conn, _) = scene.world.join(client);
    scene.world.pass(Duration::from_secs(500));
    scene.world.cut(conn);
    scene.world.pass(Duration::from_secs(100));
    scene.world.settle();
    let got = scene.world.messages(scene.watcher);
    assert_eq!(got.iter().map(|got| got.expiry_secs).collect::<Vec<_>>(), [Some(30)]);
}

/// A will that no rule takes reaches who is connected.
#[test]
fn a_will_to_a_topic_without_a_route_is_fanned_out() {
    let mut world = World::new(edge());
    let (watcher, _) = world.join(connect("watcher"));
    world.subscribe(watcher, "home/#", 1);
    let mut client = connect("c");
    client.will = Some(will("home/c", "gone"));
    let (conn, _) = world.join(client);
    world.cut(conn);
    world.settle();
    assert_eq!(world.payloads(watcher), ["gone"]);
}

#[test]
fn more_bytes_of_wills_than_allowed_are_refused_and_room_comes_back() {
    let mut config = edge();
    config.limits.will_bytes_max = 25;
    let mut world = World::new(config);
    let client = |name: &str, persists: bool| {
        let mut client = if persists { persistent(name) } else { connect(name) };
        client.will = Some(will("log/will/c", "0123456789"));
        client
    };
    for persists in [false, true] {
        let (first, _) = world.join(client("a", persists));
        let second = world.connect_with(client("b", persists));
        assert!(matches!(world.take(second)[..], [Out::ConnAck { reason: 0x97, .. }]));
        // The same client may bring another will.
        let (again, _) = world.join(client("a", persists));
        world.take(first);
        world.cut(again);
        world.settle();
        let (second, _) = world.join(client("b", persists));
        world.disconnect(second);
        world.settle();
    }
    assert_eq!(world.core.will_bytes, 0);
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

/// After a restart, all wills of those who were connected may be due at one moment: they must not make one commit of any size.
#[test]
fn wills_that_are_due_at_one_moment_go_out_in_commits_of_bounded_size() {
    let mut config = edge();
    config.limits.commit_bytes_max = 4096;
    config.limits.outstanding_max = 2;
    let mut world = World::new(config);
    let count = 200;
    for n in 0..count {
        let mut client = persistent(&format!("c{n}"));
        client.will = Some(will("log/gone", &"x".repeat(100)));
        world.join(client);
    }
    world.crash();
    let mut commits = 0;
    for _ in 0..10 * count {
        world.pass(Duration::from_millis(1));
        while let Some(commit) = world.core.take_commit() {
            let bytes: usize = commit.appends.iter().map(|append| append.block.bytes().len()).sum();
            assert!(bytes <= 4096 + 1024, "{bytes} bytes in one commit");
            commits += usize::from(bytes > 0);
            let ticket = world.store.submit(commit);
            world.core.handle_submitted(ticket);
        }
        world.store.commit(1);
        world.deliver();
    }
    assert!(commits > 3, "{commits}");
    let sent: usize = world.store.log.iter().map(|block| block.record_count() as usize).sum();
    assert_eq!(sent, count, "each will once");
}

/// [MQTT5-4.1.0-2]: also while so much is due that not all of it has been done.
#[test]
fn a_session_that_has_expired_is_not_resumed_while_other_timers_wait() {
    let mut config = edge();
    config.limits.commit_bytes_max = 256;
    let mut world = World::new(config);
    for n in 0..40 {
        let mut client = persistent(&format!("c{n:02}"));
        client.session_expiry_secs = 5;
        client.will = Some(crate::wire::Will {
            delay_secs: 5,
            ..will("log/gone", &n.to_string())
        });
        let (conn, _) = world.join(client);
        world.cut(conn);
    }
    world.settle();
    world.now.tick = world.now.tick.after(Duration::from_secs(6));
    world.now.wall.0 += 6000;
    let (_, present) = world.join(persistent("c39"));
    assert!(!present, "the session had expired");
    world.pass(Duration::ZERO);
    world.settle();
    for _ in 0..100 {
        world.pass(Duration::from_millis(1));
        world.settle();
    }
    assert_eq!(world.core.session_count(), 1);
}
