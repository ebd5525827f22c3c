//! The index in a real store: what is known is durable with the records, and nothing else is known.

use fellbeck_core::properties::{Property, put};
use fellbeck_core::{ClockQuality, Properties, QoS, Record, Run, WallTime};
use fellbeck_store::{Commit, Store, StoreConfig, open};

use super::device_id::{Scheme, Scope};
use super::index::{DeviceIds, Intake, Verdict};
use super::mark::LaneKey;
use super::window::WindowLimits;

fn scheme() -> Scheme {
    Scheme {
        property: "message-id".into(),
        scope: Scope::Device,
        cloud_events: true,
    }
}

const LIMITS: WindowLimits = WindowLimits {
    count: 100,
    age_ms: 10_000,
};

fn lane() -> LaneKey {
    LaneKey {
        edge: "barn".into(),
        instance: 1,
        lane: "default".into(),
        run: Run(0),
    }
}

fn judge<'a>(ids: &'a DeviceIds, intake: &mut Option<Intake<'a>>, id: &str, now: u64) -> Verdict {
    let mut block = Vec::new();
    put(&mut block, &Property::User("message-id", id)).unwrap();
    let record = Record {
        device: "d1",
        topic: "t",
        payload: b"",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::parse(&block).unwrap(),
        accepted_at: WallTime(0),
        clock: ClockQuality::Unknown,
        expiry_secs: None,
        origin: None,
        path: "",
    };
    ids.judge(intake, &record, WallTime(now))
}

/// One commit of these identifiers; returns those that were new.
fn commit(store: &Store, ids: &DeviceIds, of: &[&str], now: u64) -> Vec<String> {
    let mut intake = None;
    let new = of
        .iter()
        .filter(|id| judge(ids, &mut intake, id, now) == Verdict::Store)
        .map(|id| (*id).to_owned())
        .collect();
    let mut commit = Commit::default();
    let mut intake = intake.expect("there are identifiers");
    intake.seal(&mut commit, &lane());
    let (submitter, mut answers) = store.submitter(1);
    submitter.submit(commit).unwrap();
    intake.settle();
    answers.blocking_recv().expect("it is durable");
    new
}

fn reopen(dir: &std::path::Path) -> (Store, DeviceIds) {
    let (store, _) = open(dir, StoreConfig::cloud(vec!["stream/default/0".into()])).unwrap();
    let ids = DeviceIds::load(&store, scheme(), LIMITS).unwrap();
    (store, ids)
}

#[test]
fn what_was_committed_is_known_after_a_restart_until_the_window_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ids) = reopen(dir.path());
    assert_eq!(commit(&store, &ids, &["a", "b", "a"], 0), ["a", "b"]);
    store.close();
    let (store, ids) = reopen(dir.path());
    assert_eq!(commit(&store, &ids, &["b", "c"], 9_999), ["c"]);
    store.close();
    let (store, ids) = reopen(dir.path());
    assert_eq!(
        commit(&store, &ids, &["a", "c"], 10_000),
        ["a"],
        "a is forgotten, c is not"
    );
    store.close();
}

#[test]
fn what_the_store_did_not_take_is_not_known() {
    let ids = DeviceIds::new(scheme(), LIMITS);
    let mut intake = None;
    assert_eq!(judge(&ids, &mut intake, "a", 0), Verdict::Store);
    let mut refused = Commit::default();
    if let Some(intake) = &mut intake {
        intake.seal(&mut refused, &lane());
    }
    drop(intake);
    let mut intake = None;
    assert_eq!(
        judge(&ids, &mut intake, "a", 0),
        Verdict::Store,
        "it comes again on the edge's next link"
    );
}

#[test]
fn hostile_identifiers_cost_a_bounded_window() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ids) = reopen(dir.path());
    let long = "x".repeat(super::device_id::ID_BYTES_MAX + 1);
    assert_eq!(judge(&ids, &mut None, &long, 0), Verdict::Unidentified);
    for round in 0..50 {
        let many: Vec<String> = (0..90).map(|n| format!("{round}-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        commit(&store, &ids, &many, 0);
    }
    let entries = store.load(fellbeck_store::Space::Node).unwrap();
    assert!(entries.len() <= 4, "{} entries of 4,500 identifiers", entries.len());
    store.close();
}

/// A cloud did not start any more: another part's entry of the same space was taken for one of the index.
#[test]
fn entries_of_other_parts_of_the_node_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ids) = reopen(dir.path());
    commit(&store, &ids, &["a"], 0);
    let (submitter, _answers) = store.submitter(1);
    let mut other = fellbeck_store::Commit::default();
    for key in ["downlink/openings", "ledger/beat/x", "i", "d"] {
        other.puts.push(fellbeck_store::Put {
            space: fellbeck_store::Space::Node,
            key: key.into(),
            value: "other".into(),
        });
    }
    submitter.submit(other).unwrap();
    drop(submitter);
    store.close();
    let (store, ids) = reopen(dir.path());
    assert_eq!(judge(&ids, &mut None, "a", 0), Verdict::Known);
    store.close();
}
