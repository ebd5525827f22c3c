//! A full quota: reason 0x97 for 5.0, held acknowledgements for 3.1.1, nothing acknowledged and dropped (P2).
//!
//! In: an edge with a small quota and no cloud. Out: what was acknowledged before and while it was full arrives once the cloud appears,
//! and the 3.1.1 device, which was only held back, gets the rest acknowledged then.

use std::time::Duration;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Reader, ReaderPlan, World, judge, names, wait};

/// Quota of the edge.
const QUOTA: u64 = 24 * 1024 * 1024;
/// Payload size: the quota is full after a few thousand.
const SIZE: usize = 8 * 1024;
/// MQTT 5: Quota exceeded.
const QUOTA_EXCEEDED: u8 = 0x97;

#[test]
fn a_full_quota_refuses_or_holds_and_drops_nothing_that_was_acknowledged() {
    let mut world = World::prepare();
    world
        .edge
        .set(names::QUOTA_KEY, &QUOTA.to_string())
        .set("store.segment", &(1024 * 1024).to_string());
    world.start_cloud();
    world.join();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    world.link.cut();
    world.edge.start();

    let plan = |name: &str, version| DevicePlan {
        size: SIZE,
        interval: Duration::ZERO,
        window: 16,
        ..DevicePlan::steady(name, version, 1)
    };
    let held = Device::start(plan("held", Version::V3), world.edge.mqtt());
    let refused = Device::start(plan("refused", Version::V5), world.edge.mqtt());
    wait::until_true("the 5.0 device is refused", wait::EVENTUALLY, || {
        !refused.book().rejected.is_empty()
    });
    let refused = refused.abandon();
    assert!(
        refused.rejected.values().all(|code| *code == QUOTA_EXCEEDED),
        "{:?}",
        refused.rejected
    );
    // The 3.1.1 device has no code for it: its acknowledgements stop, its connection may stay or go.
    let mut before = held.acked();
    wait::until_true("the 3.1.1 device is held back", wait::EVENTUALLY, || {
        wait::last(Duration::from_millis(300));
        std::mem::replace(&mut before, held.acked()) == held.acked()
    });
    wait::throughout("nothing is acknowledged", Duration::from_secs(1), || {
        held.acked() == before
    });
    let acked = held.acked() + refused.acked_count();
    assert!((acked * SIZE) as u64 > QUOTA / 4, "full after {acked} messages only");
    assert!(
        fellbeck_tests::disk::bytes(&world.edge.data_dir()) < 2 * QUOTA,
        "the quota is kept"
    );

    world.link.heal();
    let held = held.settle();
    assert!(
        held.acked_count() > before,
        "the held publishes are taken once there is space"
    );
    let books = [held, refused];
    reader.await_all_acked(&books);
    let verdict = judge(&books, &reader.book());
    assert_eq!((verdict.lost, verdict.disordered), (0, 0), "{verdict:?}");
    for (seq, code) in &books[1].rejected {
        let stamp = fellbeck_tests::Stamp {
            device: "refused".to_owned(),
            seq: *seq,
        };
        assert_eq!(
            reader.book().count(&stamp),
            0,
            "{stamp:?} was refused with {code:#x} and delivered"
        );
    }
}
