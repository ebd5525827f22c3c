//! A node with nothing to do writes nothing: flash wears out by writes, and a gateway idles most of its life.
//!
//! In: an edge and a cloud with a persistent session each, after one message. Out: their stores come to rest and stay so.

use std::time::Duration;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Node, Reader, ReaderPlan, World, judge, wait};

/// Commits of a node's store since its start.
const COMMITS: &str = "fellbeck_store_commits_total";
/// Several times the second after which lazy writes are due.
const REST: Duration = Duration::from_secs(4);

fn commits(node: &Node) -> f64 {
    node.metrics().sum(COMMITS).unwrap_or(0.0)
}

/// The level mark of the sessions used to be written by a commit that moved the level: for ever, once a second.
#[test]
fn idle_nodes_with_persistent_sessions_come_to_rest() {
    let world = World::start();
    let readers =
        [&world.edge, &world.cloud].map(|node| Reader::start(&ReaderPlan::all("reader", Version::V5, 1), &node.mqtt()));
    let device = Device::start(DevicePlan::steady("dev", Version::V3, 1), world.edge.mqtt());
    device.await_acked(10);
    let books = [device.settle()];
    for reader in &readers {
        reader.await_all_acked(&books);
        judge(&books, &reader.book()).assert_clean("reader");
    }
    world.await_drained();
    for node in [&world.edge, &world.cloud] {
        wait::until_true("the store comes to rest", wait::EVENTUALLY, || {
            let before = commits(node);
            wait::last(REST);
            commits(node) <= before
        });
    }
}
