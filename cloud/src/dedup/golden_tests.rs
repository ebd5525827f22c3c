//! Golden bytes of dedup marks: keys and values of version 1 decode to the marks spelled out here, and are written again byte for
//! byte.

use fellbeck_core::{Epoch, Position, Run, Seq};

use super::mark::{LaneKey, Mark, decode, edge_key, edge_value, partition_key, position_value, watermark_key};

#[path = "../../../shared/core/tests/golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden_of};

fn lane() -> LaneKey {
    LaneKey {
        edge: "barn-n\u{f6}rd".into(),
        instance: 300,
        lane: "alarms".into(),
        run: Run(513),
    }
}

fn position() -> Position {
    Position {
        epoch: Epoch(70_000),
        seq: Seq(1 << 40),
    }
}

/// Checks the golden files of one entry.
fn check(name: &str, key: &[u8], value: &[u8], mark: &Mark) {
    let key = golden_of(&format!("mark-{name}-key.bin"), key);
    let value = golden_of(&format!("mark-{name}-value.bin"), value);
    assert_eq!(decode(&key, &value).unwrap(), *mark);
    assert_damage_shows(&key, |_| false, |key| decode(key, &value).ok());
    assert_damage_shows(&value, |_| false, |value| decode(&key, value).ok());
}

#[test]
fn the_state_of_an_edge_of_version_1() {
    let id: [u8; 16] = std::array::from_fn(|at| 0xa0 + at as u8);
    let mark = Mark::Edge {
        edge: "barn-n\u{f6}rd".into(),
        instance: 300,
        epoch: Epoch(70_000),
        incarnation: id,
    };
    let value = edge_value(300, Epoch(70_000), &id);
    check("edge", &edge_key("barn-n\u{f6}rd"), &value, &mark);
}

#[test]
fn a_lane_watermark_of_version_1() {
    let mark = Mark::Watermark {
        lane: lane(),
        position: position(),
    };
    check("watermark", &watermark_key(&lane()), &position_value(position()), &mark);
}

#[test]
fn a_partition_mark_of_version_1() {
    let mark = Mark::Partition {
        lane: lane(),
        track: "stream/default/3".into(),
        position: position(),
    };
    let key = partition_key(&lane(), "stream/default/3");
    check("partition", &key, &position_value(position()), &mark);
}

#[test]
fn a_mark_of_another_version_is_refused() {
    let value = position_value(position());
    let later = [&[2], &value[1..]].concat();
    let error = decode(&watermark_key(&lane()), &later).unwrap_err();
    assert!(error.to_string().contains("does not decode"));
}
