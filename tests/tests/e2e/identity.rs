//! MAIN.7: who may link, who may not, and what both sides say about it.
//!
//! In: tokens and data directories, right and wrong ones. Out: refusals that name the reason, on both sides; private files that only
//! their owner reads; logs without secrets.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Kind, Node, Reader, ReaderPlan, Site, World, disk, join, judge, token, wait};

#[test]
fn a_second_node_with_the_same_identity_is_refused_and_the_first_goes_on() {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    let home = world.site.path("clone");
    disk::copy(&world.edge.data_dir(), &home.join("data"));
    world.edge.start();
    let device = Device::start(DevicePlan::steady("dev", Version::V5, 1), world.edge.mqtt());
    device.await_acked(50);
    wait::until_true("the first edge is linked", wait::EVENTUALLY, || reader.received() > 0);

    let mut clone = Node::new(Kind::Edge, &home);
    clone.set("uplink.cloud", &format!("[\"{}\"]", world.link.address()));
    clone.start();
    clone.await_log(&["identity"]);
    world.cloud.await_log(&["gate-1", "identity"]);
    // Refused by the cloud is not refused to its devices.
    let local = Device::start(DevicePlan::burst("local", Version::V3, 1, 20), clone.mqtt()).finish();
    assert_eq!(local.acked_count(), 20);

    device.await_acked(device.acked() + 50);
    let books = [device.settle()];
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("reader");
    let strangers = reader
        .book()
        .received
        .iter()
        .filter(|stamp| stamp.device == "local")
        .count();
    assert_eq!(strangers, 0, "nothing of the clone reached the log");
}

#[test]
fn a_token_works_once() {
    let world = World::start();
    let once = token(&world.cloud, "gate-2", Some(world.link.address()));
    let first = Node::new(Kind::Edge, &world.site.path("first"));
    join(&first, &once).assert_ok();
    let second = Node::new(Kind::Edge, &world.site.path("second"));
    join(&second, &once).assert_refused(&["token", "used"]);
    world.cloud.await_log(&["token", "used"]);
}

#[test]
fn an_expired_token_is_refused_with_the_reason() {
    let world = World::start();
    let tokens = world.cloud.data_dir().join("tokens");
    let before = disk::files(&tokens);
    let late = token(&world.cloud, "gate-2", Some(world.link.address()));
    let made = disk::files(&tokens)
        .into_iter()
        .find(|file| !before.contains(file))
        .expect("a token has a file");
    // The shortest life that can be asked for is an hour, so the cloud's memory of it is put back by two days.
    let mut kept: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&made).expect("the file is there")).expect("it is JSON");
    let expires = kept["expires_ms"].as_u64().expect("it says when it expires");
    kept["expires_ms"] = (expires - 48 * 3600 * 1000).into();
    std::fs::write(&made, kept.to_string()).expect("the file can be written");
    let edge = Node::new(Kind::Edge, &world.site.path("late"));
    join(&edge, &late).assert_refused(&["token", "expired", "token create"]);
    world.cloud.await_log(&["token", "expired"]);
}

#[test]
fn a_wrong_token_is_refused_with_the_reason() {
    let world = World::start();
    let right = token(&world.cloud, "gate-2", Some(world.link.address()));
    let node = |name: &str| Node::new(Kind::Edge, &world.site.path(name));
    join(&node("garbage"), "no-token-at-all").assert_refused(&["token"]);
    join(&node("cut"), &right[..right.len() - 8]).assert_refused(&["token"]);
    let mut forged = right.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("a token is ASCII");
    join(&node("forged"), &forged).assert_refused(&[]);
    // None of them used it up.
    join(&node("right"), &right).assert_ok();
}

#[test]
fn a_cloud_with_another_ca_is_refused_when_joining() {
    let site = Site::new();
    let mut ours = Node::new(Kind::Cloud, &site.path("ours"));
    let mut foreign = Node::new(Kind::Cloud, &site.path("foreign"));
    ours.start();
    let elsewhere = foreign.start().link;
    let misled = token(&ours, "gate-1", elsewhere);
    let edge = Node::new(Kind::Edge, &site.path("edge"));
    join(&edge, &misled).assert_refused(&["fingerprint"]);
}

#[test]
fn a_cloud_with_another_ca_is_refused_when_linking_and_nothing_is_lost() {
    let mut world = World::start();
    let mut foreign = Node::new(Kind::Cloud, &world.site.path("foreign"));
    let elsewhere = foreign.start().link;
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    world.link.aim(elsewhere);
    world.edge.start();
    let book = Device::start(DevicePlan::burst("dev", Version::V5, 1, 100), world.edge.mqtt()).finish();
    world.edge.await_log(&["certificate"]);
    foreign.await_log(&["certificate"]);
    assert_eq!(world.records_queued(), 100);
    world.link.aim(world.cloud.ready().link);
    reader.await_all_acked(std::slice::from_ref(&book));
    judge(&[book], &reader.book()).assert_clean("reader");
}

#[test]
fn private_files_are_for_their_owner_only_and_no_secret_is_logged() {
    let mut world = World::start();
    let open = token(&world.cloud, "gate-2", Some(world.link.address()));
    let late = Node::new(Kind::Edge, &world.site.path("late"));
    let used = token(&world.cloud, "gate-3", Some(world.link.address()));
    let joined = join(&late, &used);
    joined.assert_ok();
    for dir in [world.edge.data_dir(), world.cloud.data_dir(), late.data_dir()] {
        assert!(check_modes(&dir) > 0, "no private key below {}", dir.display());
    }
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    assert_eq!(world.cloud.terminate(wait::SOON).code(), Some(0));
    for text in [world.edge.log(), world.cloud.log(), joined.text()] {
        for secret in [&open, &used] {
            assert!(!text.contains(secret.as_str()), "a token is in a log");
        }
        assert!(!text.contains("PRIVATE KEY"), "a key is in a log");
    }
}

/// Demands mode 0600 of all files with a private key, and returns their number.
fn check_modes(dir: &Path) -> usize {
    let mut keys = 0;
    for file in disk::files(dir) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let is_key = bytes.windows(11).any(|window| window == b"PRIVATE KEY");
        let is_token = file
            .components()
            .any(|part| part.as_os_str().to_string_lossy().contains("token"));
        if is_key || is_token {
            let mode = std::fs::metadata(&file)
                .expect("the file is there")
                .permissions()
                .mode()
                & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
            keys += usize::from(is_key);
        }
    }
    keys
}
