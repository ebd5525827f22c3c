//! Clones and restored backups: fenced, told apart from a restart, and adopted or discarded by their operator.
//!
//! In: copies of an edge's data directory that come back, alone or beside the original. Out: what was minted by the store that goes on is
//! in the cloud once and in order, nothing of the other, and both sides say what to do.

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DeviceBook, DevicePlan, Kind, Node, Reader, ReaderPlan, World, disk, judge, names, wait};
use serde_json::Value;

/// Name of the edge of a world.
const EDGE: &str = "gate-1";

fn publish(edge: &Node, name: &str, count: usize) -> DeviceBook {
    Device::start(DevicePlan::burst(name, Version::V5, 1, count), edge.mqtt()).finish()
}

fn forwarded(world: &World, name: &str, count: usize) -> DeviceBook {
    let book = publish(&world.edge, name, count);
    world.await_drained();
    book
}

fn reader(world: &World) -> Reader {
    Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt())
}

fn stop(node: &mut Node) {
    assert_eq!(node.terminate(wait::SOON).code(), Some(0));
}

/// A refused edge dials again after a minute, a restarted one at once.
fn restart(edge: &mut Node) {
    stop(edge);
    edge.start();
}

fn fenced_edges(world: &World) -> f64 {
    world.cloud.metrics().sum("fellbeck_link_fenced_edges").unwrap_or(-1.0)
}

fn await_fenced(world: &World, count: f64) {
    wait::until_true("the gauge of fenced edges", wait::EVENTUALLY, || {
        fenced_edges(world) == count
    });
}

/// `fellbeck-cloud edges ...`, which has to succeed.
fn edges(world: &World, args: &[&str]) -> String {
    let args: Vec<_> = ["edges"].iter().chain(args).copied().collect();
    world.cloud.command(&args).assert_ok().out.clone()
}

fn http(world: &World) -> String {
    world.cloud.ready().http.expect("the cloud has HTTP").to_string()
}

/// The row of the edge in `edges list`.
fn row(world: &World) -> Value {
    let at = http(world);
    let rows: Value = serde_json::from_str(&edges(world, &["list", "--json", "--url", &at])).expect("it is JSON");
    let row = rows
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["edge"] == EDGE));
    row.expect("the edge is listed").clone()
}

/// Waits until the running edge is refused and both sides say with which command that is lifted.
fn await_refused(world: &World, edge: &Node, reason: &str) {
    await_fenced(world, 1.0);
    let command = format!("fellbeck-cloud edges adopt {EDGE}");
    edge.await_log(&[&command]);
    world.cloud.await_log(&[&command]);
    wait::until_true("the status of the edge says so", wait::SOON, || {
        edge.get("/api/v1/status").body.contains(&command)
    });
    let row = row(world);
    assert_eq!(row["fenced"][0]["reason"], reason, "{row}");
    assert_eq!(row["fenced"][0]["order"], Value::Null, "{row}");
}

/// All of `books` came once and in order, and the log holds nothing else.
fn assert_exact(world: &World, reader: &Reader, books: &[DeviceBook]) {
    world.await_drained();
    reader.await_all_acked(books);
    judge(books, &reader.book()).assert_clean("reader");
    let acked: usize = books.iter().map(DeviceBook::acked_count).sum();
    assert_eq!(world.records_in_log(), acked, "the log holds each message once");
    assert_eq!(world.cloud.metrics().sum(names::LINK_GAPS).unwrap_or(0.0), 0.0);
    let at = http(world);
    world.cloud.command(&["ledger", "--url", &at]).assert_ok();
}

/// The backlog in the copy was forwarded after the copy was made: the adopted store sends it again, and it is not stored again.
#[test]
fn a_restored_backup_is_fenced_and_once_adopted_its_new_messages_come_and_nothing_comes_twice() {
    let mut world = World::start();
    let reader = reader(&world);
    let before = forwarded(&world, "before", 200);
    world.link.aim(None);
    let backlog = publish(&world.edge, "backlog", 200);
    stop(&mut world.edge);
    let copy = world.site.path("copy");
    disk::copy(&world.edge.data_dir(), &copy);
    world.link.aim(world.cloud.ready().link);
    world.edge.start();
    world.await_drained();
    let after = forwarded(&world, "after", 100);
    stop(&mut world.edge);

    disk::replace(&world.edge.data_dir(), &copy);
    world.edge.start();
    let new = publish(&world.edge, "new", 150);
    await_refused(&world, &world.edge, "fenced");
    assert_eq!(world.records_in_log(), 500, "nothing of a fenced store is taken");
    edges(&world, &["adopt", EDGE]);
    assert_eq!(row(&world)["fenced"][0]["order"], "adopt");
    restart(&mut world.edge);
    let later = publish(&world.edge, "later", 50);
    let mut books = vec![before, backlog, after, new, later];
    assert_exact(&world, &reader, &books);
    await_fenced(&world, 0.0);
    assert_eq!(row(&world)["instance"], 2);
    let resent = world.cloud.metrics().sum(names::LINK_DUPLICATES).unwrap_or(0.0);
    assert_eq!(
        resent, 200.0,
        "what the copy knew to be acknowledged does not cross the link again, the rest does"
    );

    // What was adopted restarts, survives a restart of the cloud, and joins again, like any edge.
    restart(&mut world.edge);
    books.push(forwarded(&world, "restarted", 20));
    stop(&mut world.cloud);
    let away = reader.leave();
    world.start_cloud();
    let reader = away.come_back();
    books.push(forwarded(&world, "cloud-restarted", 20));
    world.join();
    assert_eq!(row(&world)["instance"], 3, "a join goes above what was adopted");
    restart(&mut world.edge);
    books.push(forwarded(&world, "joined", 20));
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("reader");
    assert_eq!(world.records_in_log(), 760);
    assert_eq!(fenced_edges(&world), 0.0);
}

/// SIM1: the copy's chain still has the incarnation that the cloud knows, so each join carried the marks over that refused it.
#[test]
fn a_restored_backup_that_joins_again_goes_on() {
    let mut world = World::start();
    let reader = reader(&world);
    let before = forwarded(&world, "before", 100);
    let copy = world.site.path("copy");
    disk::copy(&world.edge.data_dir(), &copy);
    let after = forwarded(&world, "after", 100);
    stop(&mut world.edge);
    disk::replace(&world.edge.data_dir(), &copy);
    world.edge.start();
    await_refused(&world, &world.edge, "edge_behind");
    world.join();
    restart(&mut world.edge);
    let new = publish(&world.edge, "new", 50);
    assert_exact(&world, &reader, &[before, after, new]);
    await_fenced(&world, 0.0);
}

/// The copy has minted beyond what the cloud has of the original: only the comparison at the watermark tells them apart.
fn diverged() -> (World, Reader, Vec<DeviceBook>, Node) {
    let mut world = World::start();
    let reader = reader(&world);
    let before = forwarded(&world, "before", 100);
    let home = world.site.path("clone");
    disk::copy(&world.edge.data_dir(), &home.join("data"));
    let after = forwarded(&world, "after", 20);
    stop(&mut world.edge);
    let mut clone = Node::new(Kind::Edge, &home);
    // Nobody listens there: it mints before it meets the cloud.
    clone.set("uplink.cloud", "[\"127.0.0.1:9\"]");
    clone.start();
    let new = publish(&clone, "new", 150);
    stop(&mut clone);
    clone.set("uplink.cloud", &format!("[\"{}\"]", world.link.address()));
    clone.start();
    await_refused(&world, &clone, "diverged");
    (world, reader, vec![before, after, new], clone)
}

#[test]
fn a_clone_that_has_diverged_is_adopted_and_the_original_is_fenced() {
    let (mut world, reader, books, mut clone) = diverged();
    edges(&world, &["adopt", EDGE]);
    restart(&mut clone);
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("reader");
    await_fenced(&world, 0.0);
    stop(&mut clone);
    world.edge.start();
    await_refused(&world, &world.edge, "fenced");
    assert_eq!(world.records_in_log(), 270);
}

#[test]
fn a_clone_that_has_diverged_is_discarded_and_the_original_goes_on() {
    let (mut world, reader, mut books, mut clone) = diverged();
    books.pop();
    edges(&world, &["discard", EDGE]);
    restart(&mut clone);
    clone.await_log(&["discarded", "for good"]);
    stop(&mut clone);
    world.edge.start();
    books.push(forwarded(&world, "goes-on", 30));
    assert_exact(&world, &reader, &books);
    assert_eq!(fenced_edges(&world), 0.0);
}

#[test]
fn a_clone_beside_its_original_is_discarded_for_good_and_the_original_goes_on() {
    let mut world = World::start();
    let reader = reader(&world);
    stop(&mut world.edge);
    let home = world.site.path("clone");
    disk::copy(&world.edge.data_dir(), &home.join("data"));
    world.edge.start();
    let device = Device::start(DevicePlan::steady("dev", Version::V5, 1), world.edge.mqtt());
    wait::until_true("the original is linked", wait::EVENTUALLY, || reader.received() > 0);

    let mut clone = Node::new(Kind::Edge, &home);
    clone.set("uplink.cloud", &format!("[\"{}\"]", world.link.address()));
    clone.start();
    assert_eq!(publish(&clone, "local", 20).acked_count(), 20, "its devices are served");
    wait::until_true("the clone is refused", wait::EVENTUALLY, || fenced_edges(&world) == 1.0);
    assert_eq!(row(&world)["connected"], true);
    edges(&world, &["discard", EDGE]);
    await_fenced(&world, 0.0);
    restart(&mut clone);
    clone.await_log(&["discarded", "for good"]);
    assert_eq!(row(&world)["fenced"][0]["order"], "discard");
    let again = world.cloud.command(&["edges", "adopt", EDGE]);
    again.assert_refused(&[EDGE, "discarded already", "--incarnation"]);
    device.await_acked(device.acked() + 50);
    let books = [device.settle()];
    assert_exact(&world, &reader, &books);

    // Also when the original is not there to object.
    stop(&mut world.edge);
    clone.kill();
    clone.start();
    clone.await_log(&["discarded", "for good"]);
    world.edge.start();
    let more = forwarded(&world, "more", 20);
    reader.await_all_acked(std::slice::from_ref(&more));
    assert_eq!(world.records_in_log(), books[0].acked_count() + 20);
}

/// The name goes to the clone while the original is connected: the original is told to leave, and is fenced from then on.
#[test]
fn a_clone_beside_its_original_is_adopted_and_the_original_is_fenced() {
    let mut world = World::start();
    let reader = reader(&world);
    let mut books = vec![forwarded(&world, "before", 50)];
    stop(&mut world.edge);
    let home = world.site.path("clone");
    disk::copy(&world.edge.data_dir(), &home.join("data"));
    world.edge.start();
    books.push(forwarded(&world, "original", 50));
    let mut clone = Node::new(Kind::Edge, &home);
    clone.set("uplink.cloud", &format!("[\"{}\"]", world.link.address()));
    clone.start();
    books.push(publish(&clone, "clone", 50));
    await_fenced(&world, 1.0);
    edges(&world, &["adopt", EDGE]);
    restart(&mut clone);
    reader.await_all_acked(&books);
    await_refused(&world, &world.edge, "fenced");
    assert_eq!(
        publish(&world.edge, "late", 20).acked_count(),
        20,
        "its devices are served"
    );
    books.push(publish(&clone, "goes-on", 50));
    reader.await_all_acked(&books);
    judge(&books, &reader.book()).assert_clean("reader");
    assert_eq!(world.records_in_log(), 200);
}

#[test]
fn an_edge_that_is_killed_and_restarted_is_never_fenced() {
    let mut world = World::start();
    let device = Device::start(DevicePlan::steady("dev", Version::V5, 1), world.edge.mqtt());
    for _ in 0..5 {
        device.await_acked(device.acked() + 20);
        world.edge.kill();
        world.edge.start();
    }
    let book = device.settle();
    assert!(book.acked_count() >= 100);
    world.await_drained();
    let row = row(&world);
    assert_eq!(
        (&row["fenced"], &row["instance"]),
        (&serde_json::json!([]), &serde_json::json!(1))
    );
    assert_eq!(fenced_edges(&world), 0.0);
    for code in ["fenced", "edge_behind", "second_identity"] {
        assert!(!world.cloud.log().contains(&format!("code=\"{code}\"")), "{code}");
    }
}

#[test]
fn an_order_about_an_unknown_edge_or_without_a_refused_store_is_an_error_that_says_so() {
    let mut world = World::prepare();
    world.start_cloud();
    world
        .cloud
        .command(&["edges", "adopt", "nobody"])
        .assert_refused(&["nobody", "edges list"]);
    world
        .cloud
        .command(&["edges", "discard", "No Name"])
        .assert_refused(&["No Name"]);
    stop(&mut world.cloud);
    assert_eq!(edges(&world, &["list", "--json"]).trim(), "[]");
}
