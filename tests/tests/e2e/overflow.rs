//! What each overflow policy gives up, on the real nodes (P2, P7; T05, T06): the cloud has every message that was acknowledged, or a gap names it.
//!
//! In: an edge with a small quota, its link cut, bulk at three times the quota and alarms beside it; the edge is killed on the way. Out: with the link healed,
//! received + declared gaps = acknowledged, exactly; every alarm is there, and the newest of each topic where the policy keeps it.

use std::time::Duration;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Reader, ReaderPlan, Stamp, World, names, wait};

const QUOTA: u64 = 4 << 20;
const SIZE: usize = 4 << 10;
/// Bulk messages: three times the quota.
const BULK: usize = 3 * QUOTA as usize / SIZE;
const QUOTA_EXCEEDED: u8 = 0x97;

fn world(overflow: &str) -> World {
    let mut world = World::prepare();
    let rules = format!(
        "[{{filter=\"site/alarm/#\",lane=\"alarm\",priority=9}},\
         {{filter=\"#\",overflow=\"{overflow}\",thin_interval_ms=3600000}}]"
    );
    world
        .edge
        .set(names::QUOTA_KEY, &QUOTA.to_string())
        .set("forward", &rules);
    world.start_cloud();
    world.join();
    world.link.cut();
    world.edge.start();
    world
}

fn bulk(world: &World, n: usize, version: Version) -> Device {
    let plan = DevicePlan {
        size: SIZE,
        interval: Duration::ZERO,
        window: 16,
        ..DevicePlan::steady(&format!("bulk-{n}"), version, 2)
    };
    Device::start(plan, world.edge.mqtt())
}

fn alarms(world: &World) -> Device {
    let plan = DevicePlan {
        interval: Duration::from_millis(20),
        ..DevicePlan::steady("alarm", Version::V5, 2)
    };
    Device::start(plan, world.edge.mqtt())
}

fn gap_records(world: &World) -> usize {
    world.cloud.metrics().sum(names::GAP_RECORDS).unwrap_or(0.0) as usize
}

fn dropped(world: &World) -> usize {
    world.edge.metrics().sum(names::DROPPED).unwrap_or(0.0) as usize
}

fn acked(books: &[DeviceBook]) -> usize {
    books.iter().map(DeviceBook::acked_count).sum()
}

/// Heals the link; the books close. Returns how many records are named by gaps.
fn balance(world: &World, books: &[DeviceBook]) -> usize {
    world.link.heal();
    let acked = acked(books);
    let mut seen = (0, 0);
    let closed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until_true(
            "received and declared make up what was acknowledged",
            wait::EVENTUALLY,
            || {
                seen = (world.records_in_log(), gap_records(world));
                seen.0 + seen.1 == acked
            },
        );
    }));
    assert!(
        closed.is_ok(),
        "received {}, in gaps {}, acknowledged {acked}",
        seen.0,
        seen.1
    );
    wait::until_true("nothing is queued", wait::EVENTUALLY, || world.records_queued() == 0);
    assert_eq!(world.records_in_log() + gap_records(world), acked, "and it stays so");
    gap_records(world)
}

/// Fills the edge under a policy that always takes what is new.
fn given_up(overflow: &str, keeps_newest: bool) {
    let mut world = world(overflow);
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    let devices: Vec<Device> = (0..3).map(|n| bulk(&world, n, Version::BOTH[n % 2])).collect();
    let alarm = alarms(&world);
    let taken = |part: usize| {
        wait::until_true("bulk is acknowledged", wait::EVENTUALLY, || {
            devices.iter().map(Device::acked).sum::<usize>() >= BULK * part / 2
        });
    };
    taken(1);
    world.edge.kill();
    world.edge.start();
    taken(2);
    assert!(dropped(&world) > 0, "what is given up is counted");
    let alarm = alarm.settle();
    let mut books: Vec<DeviceBook> = devices.into_iter().map(Device::settle).collect();
    let newest: Vec<Stamp> = books
        .iter()
        .map(|book| Stamp {
            device: book.device.clone(),
            seq: book.sends.len() - 1,
        })
        .collect();
    books.push(alarm);
    let gaps = balance(&world, &books);
    assert!(gaps > BULK / 3, "{gaps} given up of {}", acked(&books));
    reader.await_all_acked(&books[3..]);
    if keeps_newest {
        wait::until_true("the newest of each device is there", wait::EVENTUALLY, || {
            let book = reader.book();
            newest.iter().all(|stamp| book.count(stamp) == 1)
        });
    }
}

#[test]
fn drop_oldest_keeps_what_is_new_and_names_what_went() {
    given_up("drop-oldest", true);
}

#[test]
fn keep_latest_keeps_the_newest_of_each_topic_and_names_what_went() {
    given_up("keep-latest", true);
}

#[test]
fn thin_keeps_one_per_interval_and_names_what_went() {
    given_up("thin", false);
}

/// mosquitto#3687: the code 0x00 for messages that were then dropped.
#[test]
fn drop_new_acknowledges_nothing_that_it_turns_away() {
    let world = world("drop-new");
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    let (old, new) = (bulk(&world, 0, Version::V3), bulk(&world, 1, Version::V5));
    wait::until_true("the 5.0 device is refused", wait::EVENTUALLY, || {
        !new.book().rejected.is_empty()
    });
    let new = new.abandon();
    assert!(
        new.rejected.values().all(|code| *code == QUOTA_EXCEEDED),
        "{:?}",
        new.rejected
    );
    let connects = old.book().connects;
    wait::until_true(
        "the 3.1.1 device is told by the end of its connection",
        wait::EVENTUALLY,
        || old.book().connects > connects + 1,
    );
    let before = old.acked();
    let alarm = alarms(&world);
    alarm.await_acked(20);
    assert_eq!(old.acked(), before, "there is room for alarms only");
    let alarm = alarm.settle();
    world.link.heal();
    let old = old.settle();
    let books = [old, new, alarm];
    reader.await_all_acked(&books);
    let refused = books[1].rejected.keys().map(|seq| Stamp {
        device: "bulk-1".into(),
        seq: *seq,
    });
    let book = reader.book();
    assert!(
        refused.into_iter().all(|stamp| book.count(&stamp) == 0),
        "refused and delivered"
    );
    assert_eq!(gap_records(&world), 0, "nothing was given up");
}
