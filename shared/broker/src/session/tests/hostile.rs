//! Bytes from flash and calls in any order: errors, never a panic.

use bytes::Bytes;
use fellbeck_core::CommitNumber;
use fellbeck_store::commit::{Space, Stored};
use proptest::prelude::*;

use super::super::{Core, RestoreError};
use super::harness::*;

/// A store with every kind of value in it.
fn full_store() -> World {
    let mut world = World::new(edge());
    let mut client = persistent("p");
    client.will = Some(will("log/w", "w"));
    let (conn, _) = world.join(client);
    let (publisher, _) = world.join(persistent("q"));
    world.retain(publisher, "log/r", "r", 2);
    world.settle();
    world.subscribe_with(conn, Some(3), vec![sub("log/#", 2), sub("$share/g/log/#", 2)]);
    world.publish(publisher, "log/a", "read by the first version", 1);
    world.settle();
    world.subscribe(conn, "log/#", 1);
    for n in 0..3 {
        world.publish(publisher, "log/a", "x", n);
    }
    world.settle();
    world.pass(std::time::Duration::from_secs(1));
    world.settle();
    world
}

fn restore(values: Vec<Stored>, newest: CommitNumber) -> Result<Core, RestoreError> {
    let world = World::new(edge());
    let mut core = world.core;
    core.restore(values, newest, world.now)?;
    Ok(core)
}

#[test]
fn state_of_a_newer_program_stops_the_start() {
    let world = full_store();
    for index in 0..world.store.values_of(Space::Session).len() {
        let mut values = world.store.values_of(Space::Session);
        let mut bytes = values[index].value.to_vec();
        bytes[0] = 2;
        values[index].value = bytes.into();
        let error = restore(values, world.store.newest).err();
        assert_eq!(error, Some(RestoreError::NewerFormat { found: 2 }));
    }
}

/// A damaged value costs what it described; the other session is there.
#[test]
fn a_value_cut_short_is_discarded_and_the_rest_is_restored() {
    let world = full_store();
    let kinds: std::collections::BTreeSet<u8> = world
        .store
        .values_of(Space::Session)
        .iter()
        .map(|stored| stored.key[0])
        .collect();
    assert_eq!(
        kinds,
        std::collections::BTreeSet::from(*b"CDEGLMQS"),
        "every kind of value is there"
    );
    for index in 0..world.store.values_of(Space::Session).len() {
        let mut values = world.store.values_of(Space::Session);
        let length = values[index].value.len();
        for cut in 0..length {
            values[index].value = world.store.values_of(Space::Session)[index].value.slice(..cut);
            let core = restore(values.clone(), world.store.newest).unwrap();
            assert!(core.session_count() >= 1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes under any key: no panic, and what comes back works.
    #[test]
    fn random_state_never_panics(
        values in proptest::collection::vec(
            (proptest::sample::select(b"MCSEQGLx".to_vec()), proptest::collection::vec(any::<u8>(), 0..12),
             proptest::collection::vec(any::<u8>(), 0..60)),
            0..20),
        flips in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..6),
    ) {
        let mut world = full_store();
        let mut stored = world.store.values_of(Space::Session);
        for (index, at, bits) in flips {
            let index = index as usize % stored.len();
            let mut bytes = stored[index].value.to_vec();
            let at = at as usize % bytes.len();
            bytes[at] ^= bits;
            stored[index].value = bytes.into();
        }
        for (kind, key, mut value) in values {
            if let Some(version) = value.first_mut() {
                *version = 1;
            }
            let key: Bytes = [vec![kind], key].concat().into();
            stored.push(Stored { key, value: value.into(), commit: CommitNumber(1) });
        }
        if let Ok(core) = restore(stored, world.store.newest) {
            world.core = core;
            world.forged = true;
            world.store.crash();
            world.settle();
            let (conn, _) = world.join(persistent("p"));
            let (publisher, _) = world.join(connect("other"));
            world.publish(publisher, "log/a", "x", 2);
            world.settle();
            world.pass(std::time::Duration::from_secs(2));
            world.settle();
            world.cut(conn);
            world.settle();
        }
    }
}
