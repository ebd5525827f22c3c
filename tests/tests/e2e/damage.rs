//! P8 on whole nodes: an edge with a backlog is stopped, a block of any file of its store is damaged, and it is started again.
//!
//! In: a seed per round. Out: the edge is ready within 10 s, drains, takes new messages; what is lost is named in its HTTP API, in the
//! cloud's, and to an MQTT consumer, and published = in the log + in gaps. Also the commands on a store that no node has open.

use std::path::Path;
use std::time::{Duration, Instant};

use fellbeck_tests::mqtt::Version;
use fellbeck_tests::{Device, DevicePlan, Node, Reader, ReaderPlan, World, disk, wait};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Rounds in the gate; `FELLBECK_DAMAGE_NODES` sets another number.
const ROUNDS: u64 = 12;
/// P8: the node is ready again within this time.
const READY_MAX: Duration = Duration::from_secs(10);
/// Messages per round.
const MESSAGES: usize = 150;

/// Damages a block of one file below the store of a node, and says what it did.
fn damage(store: &Path, rng: &mut StdRng) -> String {
    let mut files = disk::files(store);
    files.retain(|path| {
        let written = std::fs::read(path).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0));
        written
            && !path
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with("quarantine-"))
    });
    files.sort();
    // A journal in every third round, where most of a short backlog is.
    let journals: Vec<_> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .cloned()
        .collect();
    let from = if rng.random_ratio(1, 3) && !journals.is_empty() {
        journals
    } else {
        files
    };
    let path = from[rng.random_range(0..from.len())].clone();
    let mut bytes = std::fs::read(&path).expect("a file of a stopped node can be read");
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |at| at + 1);
    let start = rng.random_range(0..written) / 512 * 512;
    let end = (start + 512).min(written);
    let what = match rng.random_range(0..3) {
        0 => {
            bytes[start] ^= 1 << rng.random_range(0..8);
            "a flipped bit"
        }
        1 => {
            bytes[start..end].fill(0);
            "zeros"
        }
        _ => {
            bytes.truncate(start);
            "cut off"
        }
    };
    std::fs::write(&path, bytes).expect("a file of a stopped node can be written");
    format!("{}: {what} at {start}", path.display())
}

/// Ranges of the default lane by one node's `/api/v1/gaps`, and how many numbers they hold.
fn counted(list: &serde_json::Value) -> u64 {
    let list = list.as_array().expect("a list of ranges");
    list.iter()
        .map(|gap| {
            let number = |name: &str| gap[name].as_u64().expect("a range has numbers");
            assert_eq!(number("count"), number("last") - number("first") + 1);
            number("count")
        })
        .sum()
}

fn gaps(node: &Node) -> serde_json::Value {
    serde_json::from_str(&node.get("/api/v1/gaps").body).expect("JSON")
}

#[test]
fn a_damaged_edge_starts_serves_and_names_exactly_what_it_lost() {
    let rounds = std::env::var("FELLBECK_DAMAGE_NODES").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let mut world = World::start();
    let plan = ReaderPlan {
        filter: "$fellbeck/gaps/gate-1/#".to_owned(),
        ..ReaderPlan::all("watch", Version::V5, 1)
    };
    let watch = Reader::start(&plan, &world.cloud.mqtt());
    let mut published = 0;
    for seed in 0..rounds {
        world.link.aim(None);
        let burst = |world: &World, part: &str| {
            let plan = DevicePlan::burst(&format!("{part}-{seed}"), Version::V5, 1, MESSAGES);
            let book = Device::start(plan, world.edge.mqtt()).finish();
            assert_eq!((book.acked_count(), book.resends()), (MESSAGES, 0));
        };
        burst(&world, "before");
        assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
        let what = damage(&world.edge.data_dir().join("store"), &mut StdRng::seed_from_u64(seed));
        println!("seed {seed}: {what}");
        let began = Instant::now();
        world.edge.start();
        assert!(began.elapsed() < READY_MAX, "ready in {:?}: {what}", began.elapsed());
        world.link.aim(world.cloud.ready().link);
        burst(&world, "after");
        published += 2 * MESSAGES as u64;
        world.await_drained();
        let own = counted(&gaps(&world.edge)["gaps"]);
        let lost = || counted(&gaps(&world.cloud)["edges"]);
        wait::until_true("published = in the log + in gaps", wait::EVENTUALLY, || {
            world.records_in_log() as u64 + lost() == published
        });
        assert!(own <= lost(), "what the edge names is known in the cloud: {what}");
    }
    let listed = gaps(&world.cloud)["edges"].as_array().expect("a list").len();
    wait::until_true("each gap reaches a consumer", wait::EVENTUALLY, || {
        watch.book().strange == listed
    });
    println!(
        "{rounds} rounds: {} of {published} lost in {listed} gaps",
        counted(&gaps(&world.cloud)["edges"])
    );

    // The list outlives a restart of the cloud.
    let before = gaps(&world.cloud)["edges"].clone();
    world.link.aim(None);
    assert_eq!(world.cloud.terminate(wait::SOON).code(), Some(0));
    world.start_cloud();
    assert_eq!(gaps(&world.cloud)["edges"], before);
}

/// An edge at rest that holds [`MESSAGES`] in its lane.
fn at_rest() -> World {
    let mut world = World::start();
    world.link.aim(None);
    let plan = DevicePlan::burst("shown", Version::V5, 1, MESSAGES);
    let book = Device::start(plan, world.edge.mqtt()).finish();
    assert_eq!(book.acked_count(), MESSAGES);
    let doctor = world.edge.command(&["doctor"]);
    doctor.assert_refused(&["in use by another process"]);
    assert_eq!(world.edge.terminate(wait::SOON).code(), Some(0));
    world
}

fn peek(node: &Node, args: &[&str]) -> Vec<serde_json::Value> {
    let shown = node.command(&[&["peek", "--json"], args].concat());
    let lines = shown.assert_ok().out.lines();
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_store_at_rest_is_examined_and_shown() {
    let world = at_rest();
    let doctor = world.edge.command(&["doctor", "--json"]);
    doctor.assert_ok();
    let found: serde_json::Value = serde_json::from_str(doctor.out.trim()).expect("JSON");
    assert_eq!((&found["sound"], &found["missing"]), (&true.into(), &0.into()));
    let all = peek(&world.edge, &["--lane", "default", "--topic", "site/#"]);
    assert_eq!(all.len(), MESSAGES);
    let mut numbered = all.iter().enumerate();
    assert!(numbered.all(|(at, record)| record["seq"] == at as u64 + 1));
    assert_eq!(peek(&world.edge, &["--first", "10", "--limit", "3"]), all[9..12]);
    let since = all[20]["accepted_at_ms"].to_string();
    let late = peek(&world.edge, &["--since", &since]);
    assert!(!late.is_empty());
    let mut late = late.iter();
    assert!(late.all(|record| record["accepted_at_ms"].as_u64() >= since.parse().ok()));
    let other = peek(&world.edge, &["--topic", "other/#"]);
    assert_eq!(other, Vec::<serde_json::Value>::new());

    // Damaged: said with exit code 7, mended on demand, and sound then.
    for file in ["store/db/version", "store/db/keyspaces/1/current"] {
        std::fs::write(world.edge.data_dir().join(file), "broken").expect("the file can be written");
    }
    assert_eq!(world.edge.command(&["doctor"]).code, Some(7));
    world.edge.command(&["doctor", "--repair"]).assert_ok();
    assert_eq!(peek(&world.edge, &[]).len(), MESSAGES);
}

#[test]
fn a_range_is_exported_and_imported_exactly() {
    let world = at_rest();
    let all = peek(&world.edge, &[]);
    let file = world.site.path("records.export");
    let path = file.to_str().expect("a path of text");
    let export = world.edge.command(&["export", path, "--first", "11", "--last", "60"]);
    export.assert_ok();
    let mut other = Node::new(fellbeck_tests::Kind::Edge, &world.site.path("other"));
    other.start();
    assert_eq!(other.terminate(wait::SOON).code(), Some(0));
    let fields = [
        "topic",
        "device",
        "qos",
        "retain",
        "accepted_at_ms",
        "expiry_secs",
        "payload",
    ];
    for _ in 0..2 {
        other.command(&["import", path]).assert_ok();
        let there = peek(&other, &[]);
        assert_eq!(there.len(), 50, "each once");
        for (mine, theirs) in all[10..60].iter().zip(&there) {
            for field in fields {
                assert_eq!(mine[field], theirs[field], "{field}");
            }
        }
    }
    // Into the store that they come from: all of them are there.
    world.edge.command(&["import", path]).assert_ok();
    assert_eq!(peek(&world.edge, &[]).len(), MESSAGES);
    let mut bytes = std::fs::read(&file).expect("the file is there");
    bytes.truncate(bytes.len() - 5);
    std::fs::write(&file, bytes).expect("the file can be written");
    other.command(&["import", path]).assert_refused(&["cut short"]);
}
