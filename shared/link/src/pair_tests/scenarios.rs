//! Stories of the pair that have a name: resume, a cloud that went back, clones, many restarts.

use fellbeck_core::{DropReason, Seq};

use super::World;
use super::edge::Edge;
use crate::{RefuseCode, SenderEvent};

/// A world of one lane in which `count` records, two per batch, have reached the cloud.
fn world_with(count: u64) -> World {
    let mut world = World::new(1);
    world.edge = Edge::new(1);
    world.cloud = super::cloud::Cloud::new(1);
    append(&mut world, count);
    world.settle();
    world
}

fn append(world: &mut World, count: u64) {
    for _ in 0..count / 2 {
        world.edge.append_to(0, 2, 10);
    }
    world.drain();
}

fn part(world: &mut World) {
    world.cut();
    world.edge_notices();
    world.cloud_notices();
    world.run_on(10);
}

fn assert_refused(world: &World, expected: RefuseCode, words: &str) {
    let is_it = |event: &SenderEvent| match event {
        SenderEvent::Refused { code, text } => *code == expected && text.contains(words),
        _ => false,
    };
    assert!(world.edge.events.iter().any(is_it), "{:?}", world.edge.events);
}

/// The edge sent something, then the cloud falls back to a copy from before, and what was acked since is partly out
/// of grace.
#[test]
fn a_cloud_that_went_back_gets_the_grace_window_and_a_declared_gap_for_the_rest() {
    let mut world = world_with(10);
    world.cloud.take_snapshot();
    append(&mut world, 40);
    world.settle();
    world.edge.flush_cursors_keeping(15);
    world.kill_cloud();
    world.cloud.restore_snapshot();
    world.restored = true;
    append(&mut world, 4);
    world.settle();
    world.check();
    let went_back = world
        .edge
        .events
        .iter()
        .find_map(|event| match event {
            SenderEvent::CloudWentBack { cloud_w, edge_w, .. } => Some((cloud_w.unwrap().seq, *edge_w)),
            _ => None,
        })
        .expect("the edge raises the alarm");
    assert_eq!(went_back, (Seq(10), Seq(50)));
    let gaps: Vec<_> = world
        .edge
        .events
        .iter()
        .filter_map(|event| match event {
            SenderEvent::GapDeclared { gap, .. } => Some((gap.first, gap.last, gap.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(gaps, [(Seq(11), Seq(34), DropReason::BeyondGrace)]);
    assert_eq!(world.cloud.durable.declared[0], [(Seq(11), Seq(34))]);
    assert_eq!(world.cloud.durable.log[0].len(), 10 + 20);
}

/// Nothing at all is held any more: the gap has to be declared without a read that would show where it ends.
#[test]
fn a_cloud_that_went_back_behind_an_empty_store_gets_a_gap_and_the_link_lives_on() {
    let mut world = world_with(10);
    world.cloud.take_snapshot();
    append(&mut world, 40);
    world.settle();
    world.edge.flush_cursors_keeping(0);
    world.kill_cloud();
    world.cloud.restore_snapshot();
    world.restored = true;
    world.settle();
    assert_eq!(world.cloud.durable.declared[0], [(Seq(11), Seq(50))]);
    append(&mut world, 4);
    world.settle();
    world.check();
}

#[test]
fn a_resume_after_a_cut_sends_only_what_is_above_w() {
    let mut world = world_with(20);
    let frames = world.edge.frames_sent();
    part(&mut world);
    append(&mut world, 6);
    world.settle();
    world.check();
    assert_eq!(world.edge.frames_sent() - frames, 3);
}

/// A copy of the disk that was started after the original had restarted and spoken to the cloud.
#[test]
fn a_clone_whose_chain_lacks_the_last_known_incarnation_is_fenced() {
    let mut world = world_with(10);
    let mut clone = world.edge.copy_of_disk();
    world.kill_edge(false);
    world.settle();
    let log = world.cloud.durable.log.clone();
    part(&mut world);
    clone.kill_as(9, false);
    clone.append_to(0, 2, 10);
    world.edge = clone;
    world.connect();
    world.run_on(200);
    assert_refused(&world, RefuseCode::Fenced, "clone");
    assert_eq!(world.cloud.durable.log, log);
}

/// The chain of the copy does contain the last known incarnation, and it has minted beyond W. Only the comparison at
/// W tells.
#[test]
fn a_copy_that_went_on_by_itself_is_stopped_before_it_sends() {
    let mut world = world_with(10);
    world.edge.flush_cursors_keeping(5);
    let mut copy = world.edge.copy_of_disk();
    append(&mut world, 10);
    world.settle();
    let log = world.cloud.durable.log.clone();
    part(&mut world);
    copy.kill_as(9, false);
    for _ in 0..20 {
        copy.append_to(0, 2, 10);
    }
    world.edge = copy;
    let acked = world.edge.acked(0);
    assert_eq!(acked, Seq(10));
    world.connect();
    world.run_on(200);
    let diverged =
        |event: &SenderEvent| matches!(event, SenderEvent::Diverged { cloud_w, .. } if cloud_w.seq == Seq(20));
    assert!(world.edge.events.iter().any(diverged), "{:?}", world.edge.events);
    assert_eq!(world.cloud.durable.log, log);
    assert_eq!(
        world.edge.acked(0),
        acked,
        "nothing of the copy may be trimmed by a W that is not its own"
    );
    // Adopted, it goes on behind what it was told itself, whatever epoch that has.
    world.cloud.adopt(&world.edge);
    part(&mut world);
    world.settle();
    world.check();
    assert_eq!(world.cloud.durable.log[0].len(), 10 + 40);
}

/// A backup that is older than what the cloud holds.
#[test]
fn a_restored_backup_is_told_that_it_is_behind() {
    let mut world = world_with(10);
    let mut backup = world.edge.copy_of_disk();
    append(&mut world, 10);
    world.settle();
    part(&mut world);
    backup.kill_as(9, false);
    world.edge = backup;
    world.connect();
    world.run_on(200);
    assert_refused(&world, RefuseCode::EdgeBehind, "1/20");
}

#[test]
fn an_edge_that_restarted_more_often_than_its_chain_remembers_is_taken() {
    for restarts in [1, 63, 64, 200] {
        let mut world = world_with(10);
        part(&mut world);
        append(&mut world, 4);
        (0..restarts).for_each(|_| world.kill_edge(false));
        append(&mut world, 4);
        world.settle();
        world.check();
        assert_eq!(world.cloud.durable.log[0].len(), 18, "after {restarts} restarts");
    }
}
