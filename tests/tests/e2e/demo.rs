//! MAIN.8: the demo, and devices against a broker of any make.
//!
//! In: the firmware-sim binary. Out: the demo cuts the link, kills the edge and closes its books with exit code 0; the books of `run` and
//! `check` agree with one another when a node stands between them.

use std::process::Command;
use std::time::Duration;

use fellbeck_tests::{Site, World, binary, run_to_end};

/// Time for the whole demo, start of the nodes included.
const DEMO_WITHIN: Duration = Duration::from_secs(90);

#[test]
fn the_demo_cuts_kills_and_closes_its_books() {
    let _site = Site::new();
    let args = ["demo", "--devices", "12", "--rate", "400", "--seconds", "12"];
    let demo = run_to_end("firmware-sim", &args, &[], DEMO_WITHIN);
    let text = demo.assert_ok().text();
    assert!(text.contains("Lost 0, doubled 0, order kept."), "{text}");
}

#[test]
fn simulated_devices_and_a_checking_consumer_agree_through_edge_and_cloud() {
    let world = World::start();
    let ledger = world.site.path("ledger.json");
    let ledger = ledger.to_str().expect("the path is text");
    let [edge, cloud] = [&world.edge, &world.cloud].map(|node| node.mqtt().get().expect("the node is up").to_string());
    let check = Command::new(binary("firmware-sim"))
        .args([
            "check",
            "--broker",
            &cloud,
            "--filter",
            "fell/#",
            "--qos",
            "2",
            "--session",
            "checker",
        ])
        .args(["--seconds", "40", "--idle", "5", "--ledger", ledger])
        .spawn()
        .expect("the consumer starts");
    let load = [
        "run",
        "--broker",
        &edge,
        "--devices",
        "10",
        "--rate",
        "200",
        "--seconds",
        "4",
        "--version",
        "mix",
    ];
    let args = [&load[..], &["--qos", "2", "--ledger", ledger]].concat();
    run_to_end("firmware-sim", &args, &[], DEMO_WITHIN).assert_ok();
    let status = check.wait_with_output().expect("the consumer ends").status;
    assert_eq!(status.code(), Some(0), "the consumer's books do not balance");
}
