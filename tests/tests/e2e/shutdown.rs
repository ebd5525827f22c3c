//! MAIN.11 (f): SIGTERM in mid-load loses nothing and exits 0.
//!
//! In: devices that publish all the time. Out: exit code 0 within the deadline, balanced books, and nothing doubled: an orderly end writes
//! what it knows, so only a device that never saw its PUBACK may cause a double.

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Reader, ReaderPlan, World, judge, wait};

/// Restarts per node.
const RESTARTS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Which {
    Edge,
    Cloud,
}

fn restarts_under_load(which: Which) {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    let plan = |n: usize| DevicePlan::steady(&format!("dev-{n}"), Version::BOTH[n % 2], 1 + (n as u8 / 2) % 2);
    let devices: Vec<Device> = (0..4).map(|n| Device::start(plan(n), world.edge.mqtt())).collect();
    for _ in 0..RESTARTS {
        for device in &devices {
            device.await_acked(device.acked() + 100);
        }
        let status = match which {
            Which::Edge => world.edge.terminate(wait::SOON),
            Which::Cloud => {
                let status = world.cloud.terminate(wait::SOON);
                world.link.aim(None);
                status
            }
        };
        assert_eq!(status.code(), Some(0), "{which:?}");
        match which {
            Which::Edge => {
                world.edge.start();
            }
            Which::Cloud => world.start_cloud(),
        }
    }
    let books: Vec<_> = devices.into_iter().map(Device::settle).collect();
    reader.await_all_acked(&books);
    world.await_drained();
    let verdict = judge(&books, &reader.book());
    verdict.assert_clean("reader");
    assert_eq!(
        world.records_in_log(),
        verdict.received,
        "each record of the log came once"
    );
}

#[test]
fn sigterm_of_the_edge_in_mid_load_loses_nothing_and_exits_0() {
    restarts_under_load(Which::Edge);
}

#[test]
fn sigterm_of_the_cloud_in_mid_load_loses_nothing_and_exits_0() {
    restarts_under_load(Which::Cloud);
}

#[test]
fn sigterm_of_an_idle_node_exits_0() {
    let mut world = World::start();
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    assert_eq!(world.cloud.terminate(wait::SOON).code(), Some(0));
}
