//! P9: the books of both nodes close, always: after traffic, kills, gaps, expiry, with readers that lag or lost something. The cloud
//! notices by itself what an edge sent and it did not store. Each test asks the real nodes, running and at rest.

use std::time::Duration;

use fellbeck_store::{Commit, Put, Space, StoreConfig, Urgency};
use fellbeck_tests::mqtt::{Client, ConnectOptions, Connection, Packet, Publish, Version, encode};
use fellbeck_tests::{Books, Device, DevicePlan, Kind, Node, Reader, ReaderPlan, World, disk, names, run_to_end, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Messages of one load.
const MESSAGES: usize = 400;
/// Kills in the loop.
const ROUNDS: usize = 8;

fn burst(world: &World, name: &str, count: usize) {
    let plan = DevicePlan::burst(name, Version::V5, 1, count);
    let book = Device::start(plan, world.edge.mqtt()).finish();
    assert!(book.acked.iter().all(|acked| *acked), "a burst is acknowledged");
}

fn assert_closed(world: &World) -> (Books, Books) {
    let (edge, cloud) = (Books::of(&world.edge), Books::of(&world.cloud));
    edge.assert_closed("edge");
    cloud.assert_closed("cloud");
    (edge, cloud)
}

/// Waits until the book of the cloud's reader `reader` has so many messages as acknowledged.
fn await_acked(world: &World, count: u64) {
    wait::until_true("the reader's book has all", wait::EVENTUALLY, || {
        let books = Books::of(&world.cloud);
        let book = books.get("readers", "reader", "reader");
        book.is_some_and(|book| book["acked"] == count)
    });
}

fn at_rest(node: &Node) -> Books {
    let finished = node.command(&["ledger", "--json"]);
    finished.assert_ok();
    Books::printed(&finished)
}

#[test]
fn the_books_close_after_traffic_and_the_command_says_so_running_and_at_rest() {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 2), &world.cloud.mqtt());
    burst(&world, "dev", MESSAGES);
    world.await_drained();
    wait::until_true("the reader has all", wait::EVENTUALLY, || reader.received() == MESSAGES);
    await_acked(&world, MESSAGES as u64);
    let (edge, cloud) = assert_closed(&world);
    assert_eq!(cloud.sum("lanes", "stored"), MESSAGES as u64);
    assert_eq!(cloud.0["log"]["appended"], MESSAGES);
    let heartbeats = cloud.sum("lanes", "heartbeats");
    assert_eq!(edge.sum("tracks", "acked"), MESSAGES as u64 + heartbeats);
    assert_eq!(cloud.find("readers", "reader", "reader")["unread"], 0);
    for node in [&world.edge, &world.cloud] {
        let table = node.ledger(&[]);
        table.assert_ok();
        assert!(table.out.contains("the books close"), "{}", table.out);
        Books::printed(&node.ledger(&["--json"])).assert_closed("command");
        assert_eq!(node.metrics().sum("fellbeck_ledger_open_books"), Some(0.0));
    }
    // While a node runs its store is its own: the command asks the node, whose port it is not told here.
    assert_eq!(world.cloud.command(&["ledger"]).code, Some(2));
    drop(reader);
    world.edge.terminate(wait::SOON);
    world.cloud.terminate(wait::SOON);
    at_rest(&world.edge).assert_closed("edge at rest");
    let rest = at_rest(&world.cloud);
    rest.assert_closed("cloud at rest");
    assert_eq!(rest.sum("lanes", "stored"), MESSAGES as u64);
    assert_eq!(rest.find("readers", "reader", "reader")["acked"], MESSAGES);
}

#[test]
fn the_books_close_at_once_after_each_kill_of_either_side() {
    let mut world = World::start();
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let cloud_reader = Reader::start(&ReaderPlan::all("cloud-2", Version::V5, 2), &world.cloud.mqtt());
    let edge_reader = Reader::start(&ReaderPlan::all("edge-1", Version::V3, 1), &world.edge.mqtt());
    let mut group = ReaderPlan::all("member", Version::V5, 2);
    group.filter = "$share/g/site/#".to_owned();
    let member = Reader::start(&group, &world.cloud.mqtt());
    // Holds what it is sent: something is in flight at each kill.
    let mut holder = hold(&world, "site/#");
    let devices: Vec<_> = (0..4u8)
        .map(|n| {
            let plan = DevicePlan::steady(&format!("dev-{n}"), Version::V5, 1 + n % 2);
            Device::start(plan, world.edge.mqtt())
        })
        .collect();
    for round in 0..ROUNDS {
        for device in &devices {
            device.await_acked(device.acked() + rng.random_range(1..60));
        }
        match round % 3 {
            0 => {
                world.edge.kill();
                world.edge.start();
            }
            1 => {
                world.kill_cloud();
                world.start_cloud();
                holder = hold(&world, "site/#");
            }
            _ => {
                world.kill_cloud();
                world.edge.kill();
                world.edge.start();
                world.start_cloud();
                holder = hold(&world, "site/#");
            }
        }
        assert_closed(&world);
    }
    let books: Vec<_> = devices.into_iter().map(Device::settle).collect();
    for reader in [&cloud_reader, &edge_reader, &member] {
        reader.await_all_acked(&books);
    }
    drop(holder);
    world.await_drained();
    let (_, cloud) = assert_closed(&world);
    assert_eq!(
        cloud.sum("lanes", "stored"),
        world.records_in_log() as u64,
        "the log holds what the lanes brought"
    );
    assert_eq!(cloud.0["log"]["others"], 0, "and nothing else");
    assert_eq!(cloud.sum("lanes", "gap"), 0);
}

/// Subscribes at the cloud and acknowledges nothing.
fn hold(world: &World, filter: &str) -> Connection {
    let options = ConnectOptions::persistent(Version::V5, "holder");
    let at = world.cloud.ready().mqtt;
    let (mut connection, answer) = Connection::open(at, &options).expect("the cloud answers");
    assert_eq!(answer.reason, 0);
    let subscribe = encode::subscribe(Version::V5, 1, &[(filter, 1)]);
    connection.send(&subscribe).expect("the connection is open");
    connection
}

#[test]
fn counters_of_a_reader_survive_kill_9() {
    let mut world = World::start();
    let reader = Reader::start(&ReaderPlan::all("reader", Version::V5, 1), &world.cloud.mqtt());
    burst(&world, "before", MESSAGES);
    wait::until_true("the reader has all", wait::EVENTUALLY, || reader.received() == MESSAGES);
    // An orderly leave puts the cursor into a commit; a publish that is acknowledged afterwards shows that it is durable.
    let away = reader.leave();
    await_acked(&world, MESSAGES as u64);
    let mut publisher = Client::connected(world.cloud.ready().mqtt, ConnectOptions::clean(Version::V5, "p"));
    for round in 1..=3u64 {
        publisher.publish("site/p/state", b"x".to_vec(), 1, 0);
        assert!(publisher.poll_until(wait::SOON, |event| matches!(
            event,
            fellbeck_tests::mqtt::Event::Acked { .. }
        )));
        world.kill_cloud();
        world.start_cloud();
        let books = Books::of(&world.cloud);
        books.assert_closed("cloud");
        let book = books.find("readers", "reader", "reader");
        assert_eq!(book["acked"], MESSAGES, "{book}");
        assert_eq!(book["unread"], round, "published to while away: {book}");
        publisher.connect(world.cloud.ready().mqtt).expect("the cloud is back");
    }
    let log = &Books::of(&world.cloud).0["log"];
    assert_eq!(log["others"], 3, "published at the cloud: {log}");
    drop(away);
}

#[test]
fn a_reader_that_lags_and_lost_something_has_books_that_close() {
    let world = World::start();
    // QoS 0 is not kept for a session that is away, QoS 1 is.
    let away = Reader::start(&ReaderPlan::all("lagging", Version::V5, 2), &world.edge.mqtt()).leave();
    let kept = 30;
    burst(&world, "kept", kept);
    let mut publisher = Client::connected(world.edge.ready().mqtt, ConnectOptions::clean(Version::V5, "p"));
    for n in 0..20 {
        publisher.publish("site/lost/state", format!("lost {n} ").into_bytes(), 0, n);
    }
    publisher.publish("site/kept-too/state", b"kept-too 0 ".to_vec(), 1, 0);
    assert!(publisher.poll_until(wait::SOON, |event| matches!(
        event,
        fellbeck_tests::mqtt::Event::Acked { .. }
    )));
    let unread = || Books::of(&world.edge).get("readers", "reader", "lagging")?["unread"].as_u64();
    wait::until_true("all of it is behind the head", wait::EVENTUALLY, || {
        unread().is_some_and(|unread| unread > kept as u64)
    });
    assert_closed(&world);
    let back = away.come_back();
    wait::until_true("what was kept comes", wait::EVENTUALLY, || back.received() == kept + 1);
    wait::until_true("what was not kept is counted", wait::EVENTUALLY, || {
        let books = Books::of(&world.edge);
        books.assert_closed("edge");
        let book = books.get("readers", "reader", "lagging");
        book.is_some_and(|book| {
            book["dropped"]["qos0_offline"] == 20 && book["unread"] == 0 && book["acked"] == kept + 1
        })
    });
}

#[test]
fn what_expired_on_its_way_is_in_the_books_of_both_sides() {
    let mut world = World::start();
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    let options = ConnectOptions::clean(Version::V5, "p");
    let (mut connection, _) = Connection::open(world.edge.ready().mqtt, &options).expect("the edge answers");
    let short = 25u16;
    for id in 1..=short {
        let message = Publish::new("site/short/state", format!("short {id} ")).qos(1).id(id);
        // Message Expiry Interval: 1 s.
        let message = message.property([2, 0, 0, 0, 1]);
        connection
            .send(&encode::publish(Version::V5, &message))
            .expect("the connection is open");
        let answer = connection.recv(wait::SOON).expect("the connection is open");
        assert!(matches!(answer, Some(Packet::Ack { .. })), "{answer:?}");
    }
    burst(&world, "lasting", 10);
    Books::of(&world.edge).assert_closed("edge");
    // The rule is about the clock, so time has to pass.
    wait::last(Duration::from_millis(2500));
    world.start_cloud();
    world.await_drained();
    let (edge, cloud) = assert_closed(&world);
    let expired = edge.sum("tracks", "expired");
    assert_eq!(expired, cloud.sum("lanes", "expired"), "{:#}", edge.0);
    assert_eq!(cloud.sum("lanes", "stored") + expired, u64::from(short) + 10);
    assert!(expired > 0, "{:#}", edge.0);
}

/// A cloud restored to an older copy asks for what the edge does not hold any more: both sides name it.
#[test]
fn gaps_are_in_the_books() {
    let mut world = World::start_with(|edge, _| {
        edge.set("store.grace", "0").set("store.segment", "\"64 KiB\"");
    });
    burst(&world, "before", 50);
    world.await_drained();
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    let copy = world.site.path("copy");
    disk::copy(&world.cloud.data_dir(), &copy);
    world.start_cloud();
    let plan = DevicePlan {
        size: 4096,
        ..DevicePlan::burst("lost", Version::V5, 1, MESSAGES)
    };
    let book = Device::start(plan, world.edge.mqtt()).finish();
    assert!(book.acked.iter().all(|acked| *acked), "a burst is acknowledged");
    world.await_drained();
    assert_closed(&world);
    world.link.aim(None);
    world.cloud.terminate(wait::SOON);
    disk::replace(&world.cloud.data_dir(), &copy);
    world.start_cloud();
    burst(&world, "after", 50);
    let gap = || Books::of(&world.cloud).sum("lanes", "gap");
    wait::until_true("the gap is in the cloud's books", wait::EVENTUALLY, || gap() > 0);
    world.await_drained();
    wait::until_true("all that the edge appended is accounted for", wait::EVENTUALLY, || {
        let cloud = Books::of(&world.cloud);
        cloud.assert_closed("cloud");
        let lanes = |column: &str| cloud.sum("lanes", column);
        lanes("stored") + lanes("gap") + lanes("heartbeats")
            == world.edge.metric(names::TRACK_END, names::DEFAULT_LANE) as u64
    });
    assert_closed(&world);
}

/// The books are worth something only if they can fail: one record more than came is written into the cloud's store.
#[test]
fn a_broken_book_exits_1_at_rest_and_running() {
    let mut world = World::start();
    burst(&world, "dev", 100);
    world.await_drained();
    world.cloud.terminate(wait::SOON);
    at_rest(&world.cloud).assert_closed("cloud");
    plant(&world.cloud);
    let finished = world.cloud.command(&["ledger"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    assert!(finished.out.contains("do NOT close"), "{}", finished.out);
    world.start_cloud();
    let finished = world.cloud.ledger(&["--json"]);
    assert_eq!(finished.code, Some(1), "{}", finished.text());
    let books = Books::printed(&finished);
    assert_eq!(books.find("lanes", "edge", "gate-1")["difference"], 1, "{:#}", books.0);
    assert_eq!(world.cloud.metrics().sum("fellbeck_ledger_open_books"), Some(1.0));
    // It is not forgotten with the next records.
    burst(&world, "more", 10);
    world.await_drained();
    assert_eq!(world.cloud.ledger(&[]).code, Some(1));
}

/// Takes one record off the lane's book: value = version, base, through, stored, ... (`docs/format/ledger.md`).
fn plant(cloud: &Node) {
    let config = StoreConfig::cloud(vec!["stream/default/0".to_owned()]);
    let (store, _) = fellbeck_store::open(&cloud.data_dir().join("store"), config).expect("the node is not running");
    let stored = store.load(Space::Node).expect("the store can be read");
    let entry = stored.iter().find(|stored| stored.key.starts_with(b"ledger/link/"));
    let entry = entry.expect("the cloud keeps books of the lane");
    let mut value = entry.value.to_vec();
    assert_eq!(value[..4], [1, 0, 100, 100], "version, base, through, stored");
    value[3] -= 1;
    let (submitter, mut answers) = store.submitter(1);
    let put = Put {
        space: Space::Node,
        key: entry.key.clone(),
        value: value.into(),
    };
    let commit = Commit {
        puts: vec![put],
        urgency: Urgency::Now,
        ..Commit::default()
    };
    submitter.submit(commit).expect("the store takes it");
    assert!(answers.blocking_recv().is_some());
    store.close();
}

#[test]
fn a_ledger_that_cannot_be_had_exits_2() {
    for kind in [Kind::Edge, Kind::Cloud] {
        let missing = run_to_end(
            kind.binary(),
            &["ledger", "--url", "127.0.0.1:1"],
            &[],
            wait::EVENTUALLY,
        );
        assert_eq!(missing.code, Some(2), "{}", missing.text());
        assert!(missing.err.starts_with("error: "), "{}", missing.err);
    }
}
