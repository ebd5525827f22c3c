//! The monitor in virtual time: single stories, and random ones against its rules.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const PATIENCE: Duration = Duration::from_secs(15);

fn at(ms: u64) -> Tick {
    Tick(Duration::from_millis(ms))
}

fn monitor() -> HealthMonitor {
    let mut monitor = HealthMonitor::new(PATIENCE, 2);
    monitor.handle_connected(at(0));
    monitor
}

/// A heartbeat leaves every interval; the link swallows everything from second 20 on.
#[test]
fn a_black_hole_shows_within_two_heartbeats() {
    let mut monitor = monitor();
    monitor.await_beat(at(15_000));
    monitor.handle_flow(0, Flow::Waits, at(15_000));
    monitor.handle_flow(0, Flow::Idle, at(15_040));
    monitor.handle_beat(true, at(15_040));
    assert_eq!(monitor.poll_timeout(), None, "nothing waits");
    monitor.await_beat(at(30_000));
    monitor.handle_flow(0, Flow::Waits, at(30_000));
    let due = monitor.poll_timeout().expect("something waits");
    assert!(due <= at(20_000 + 2 * 15_000), "{due:?}");
    monitor.handle_timeout(due);
    assert_eq!(monitor.health(), LinkHealth::Degraded);
}

#[test]
fn a_lane_that_is_stuck_shows_although_another_flows_and_beats_come_back() {
    let mut monitor = monitor();
    monitor.handle_flow(1, Flow::Waits, at(1000));
    for second in 1..=20 {
        monitor.handle_flow(0, Flow::Moves, at(second * 1000));
        monitor.await_beat(at(second * 1000));
        monitor.handle_beat(true, at(second * 1000 + 5));
    }
    assert_eq!(monitor.health(), LinkHealth::Degraded);
}

#[test]
fn a_beat_behind_a_backlog_that_moves_is_draining_and_not_degraded() {
    let mut monitor = monitor();
    monitor.await_beat(at(0));
    for second in 0..3600 {
        monitor.handle_flow(0, Flow::Moves, at(second * 1000));
        assert_ne!(monitor.health(), LinkHealth::Degraded);
    }
    assert_eq!(monitor.health(), LinkHealth::Draining);
    monitor.handle_flow(0, Flow::Idle, at(3_600_000));
    monitor.handle_beat(false, at(3_600_000));
    assert_eq!(monitor.health(), LinkHealth::Draining, "it was late");
    monitor.await_beat(at(3_600_100));
    monitor.handle_beat(true, at(3_600_200));
    assert_eq!(monitor.health(), LinkHealth::Up);
}

#[test]
fn a_link_that_lets_something_through_now_and_then_stays_degraded() {
    let mut monitor = monitor();
    monitor.await_beat(at(0));
    monitor.handle_flow(0, Flow::Waits, at(0));
    let mut seen = Vec::new();
    for round in 1..20 {
        let now = round * 20_000;
        if let Some(due) = monitor.poll_timeout().filter(|due| *due <= at(now)) {
            monitor.handle_timeout(due);
        }
        monitor.handle_flow(0, Flow::Moves, at(now));
        monitor.handle_beat(false, at(now));
        monitor.await_beat(at(now));
        seen.push(monitor.health());
    }
    assert!(seen.iter().all(|health| *health == LinkHealth::Degraded), "{seen:?}");
    monitor.handle_flow(0, Flow::Idle, at(400_001));
    monitor.handle_beat(true, at(400_001));
    assert_eq!(monitor.health(), LinkHealth::Up);
}

#[test]
fn a_backlog_that_flows_again_is_draining_once_it_has_moved_for_long_enough() {
    let mut monitor = monitor();
    monitor.await_beat(at(0));
    monitor.handle_flow(0, Flow::Waits, at(0));
    monitor.handle_timeout(at(15_001));
    assert_eq!(monitor.health(), LinkHealth::Degraded);
    for second in 20..=36 {
        assert_eq!(monitor.health(), LinkHealth::Degraded, "second {second}");
        monitor.handle_flow(0, Flow::Moves, at(second * 1000));
    }
    assert_eq!(monitor.health(), LinkHealth::Draining);
}

#[test]
fn a_lost_connection_is_down_and_a_new_one_begins_with_a_clean_slate() {
    let mut monitor = monitor();
    monitor.await_beat(at(0));
    monitor.handle_flow(0, Flow::Waits, at(0));
    monitor.handle_disconnected();
    monitor.handle_timeout(at(60_000));
    assert_eq!(monitor.health(), LinkHealth::Down);
    assert_eq!(monitor.poll_timeout(), None);
    monitor.handle_connected(at(70_000));
    assert_eq!(monitor.health(), LinkHealth::Up);
    monitor.handle_timeout(at(84_000));
    assert_eq!(
        monitor.health(),
        LinkHealth::Up,
        "what waited while there was no link is no sign"
    );
    monitor.handle_timeout(at(85_001));
    assert_eq!(monitor.health(), LinkHealth::Degraded);
}

/// Plain books of what happened, from which the verdict's bounds follow.
#[derive(Default)]
struct Plain {
    connected: bool,
    waits: [Option<u64>; 2],
    /// Degraded was due since this time, and no heartbeat in time has come since.
    stuck: bool,
}

impl Plain {
    fn is_stuck(&self, now: u64) -> bool {
        let patience = PATIENCE.as_millis() as u64;
        self.connected && self.waits.iter().flatten().any(|since| now - since > patience)
    }
}

/// Goal: stuck is degraded at once, degraded is never without cause, up again only by a heartbeat in time; and whoever calls at
/// `poll_timeout` misses nothing. Method: random stories, judged each millisecond-scale step by plain books; a second monitor is
/// called at its deadlines only.
#[test]
fn random_stories_keep_the_rules() {
    for seed in 0..3000 {
        story(seed);
    }
}

fn story(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut monitor = HealthMonitor::new(PATIENCE, 2);
    let mut lazy = monitor.clone();
    let mut plain = Plain::default();
    let mut now = 0;
    for step in 0..120 {
        now += random.random_range(0..6000);
        while let Some(due) = lazy.poll_timeout().filter(|due| *due <= at(now)) {
            let before = (lazy.poll_timeout(), lazy.health());
            lazy.handle_timeout(due);
            assert_ne!(
                before,
                (lazy.poll_timeout(), lazy.health()),
                "seed {seed}: a deadline that does nothing"
            );
        }
        monitor.handle_timeout(at(now));
        plain.stuck |= plain.is_stuck(now);
        assert_eq!(
            monitor.health(),
            lazy.health(),
            "seed {seed} step {step}: a deadline was missed"
        );
        let before = monitor.health();
        let action = random.random_range(0..12);
        let flow = random.random_range(0..2);
        let in_time = random.random_bool(0.5);
        for monitor in [&mut monitor, &mut lazy] {
            act(monitor, action, flow, in_time, now);
        }
        book(&mut plain, action, flow, now);
        let after = monitor.health();
        let context = format!("seed {seed} step {step}: action {action}, {before:?} to {after:?}");
        assert_eq!(after == LinkHealth::Down, !plain.connected, "{context}");
        if plain.is_stuck(now) {
            assert_eq!(after, LinkHealth::Degraded, "{context}");
        }
        if after == LinkHealth::Degraded {
            assert!(plain.stuck, "{context}: without cause");
        }
        if before == LinkHealth::Degraded && after == LinkHealth::Up {
            assert!(
                action == 0 || (action >= 10 && in_time),
                "{context}: up without a heartbeat in time"
            );
        }
        if after != LinkHealth::Degraded && !plain.is_stuck(now) {
            plain.stuck = false;
        }
    }
}

fn act(monitor: &mut HealthMonitor, action: u32, flow: usize, in_time: bool, now: u64) {
    match action {
        0 => monitor.handle_connected(at(now)),
        1 => monitor.handle_disconnected(),
        2 | 3 => monitor.handle_flow(flow, Flow::Idle, at(now)),
        4 | 5 => monitor.handle_flow(flow, Flow::Waits, at(now)),
        6..=8 => monitor.handle_flow(flow, Flow::Moves, at(now)),
        9 => monitor.await_beat(at(now)),
        _ => monitor.handle_beat(in_time, at(now)),
    }
}

fn book(plain: &mut Plain, action: u32, flow: usize, now: u64) {
    match action {
        0 => {
            plain.connected = true;
            plain.stuck = false;
            for since in plain.waits.iter_mut().flatten() {
                *since = now;
            }
        }
        1 => plain.connected = false,
        2 | 3 => plain.waits[flow] = None,
        4 | 5 => plain.waits[flow] = plain.waits[flow].or(Some(now)),
        6..=8 => plain.waits[flow] = Some(now),
        _ => {}
    }
}
