//! Golden bytes of stored sessions, groups and retained messages: keys and values of version 1 decode to what is spelled out here,
//! and are written again byte for byte.

use std::fmt::Debug;

use bytes::Bytes;
use fellbeck_core::{
    ClockQuality, CommitNumber, DropReason, Filter, LogPosition, Properties, QoS, Record, ShareName, WallTime,
};
use fellbeck_store::commit::Space;

use super::in_flight::Step;
use super::ledger::ReaderLedger;
use super::persist::{
    self, DecodeError, StoredCursor, StoredEntry, StoredGroup, StoredKey, StoredSession, StoredSource, parse_key,
};
use super::retained::{RetainedChange, decode as decode_retained, retained_change};
use super::versions::{Options, SubscriptionVersion};
use crate::wire::Will;

#[path = "../../../core/tests/golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden_of};

const CLIENT: &str = "pump-n\u{f6}rd";

/// Checks the golden file of a value: what it decodes to, its damage, and that a later version is told apart.
fn check<T: PartialEq + Debug>(
    name: &str,
    encoded: &[u8],
    expected: &T,
    ignored: impl Fn(usize) -> bool,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let stored = golden_of(name, encoded);
    assert_eq!(decode(&stored).as_ref(), Ok(expected), "{name}");
    assert_damage_shows(&stored, ignored, |bytes| decode(bytes).ok());
    let later = [&[2], &stored[1..]].concat();
    assert_eq!(decode(&later), Err(DecodeError::Newer(2)), "{name}");
}

fn all_read(_: usize) -> bool {
    false
}

fn at(commit: u64, index: u32) -> LogPosition {
    LogPosition {
        commit: CommitNumber(commit),
        index,
    }
}

fn books() -> ReaderLedger {
    ReaderLedger {
        matched: 1 << 40,
        acked: 300,
        expired: 2,
        dropped: vec![(DropReason::SessionQueueFull, 7), (DropReason::Damaged, 128)],
        skipped: 5,
    }
}

#[test]
fn keys_of_version_1() {
    let share = Filter::parse_subscription("$share/workers/plant/+/t").unwrap();
    let share_name: ShareName = share.share.unwrap();
    let keys: [(&str, Bytes, StoredKey<'_>); 9] = [
        ("resends", persist::resends_key(CLIENT), StoredKey::Resends(CLIENT)),
        ("session", persist::session_key(CLIENT), StoredKey::Session(CLIENT)),
        ("cursor", persist::cursor_key(CLIENT), StoredKey::Cursor(CLIENT)),
        (
            "subscription",
            persist::subscription_key(CLIENT, 0x0102_0304),
            StoredKey::Subscription(CLIENT, 0x0102_0304),
        ),
        ("ended", persist::ended(CLIENT, 258).0, StoredKey::Ended(CLIENT, 258)),
        (
            "received",
            persist::received(CLIENT, 258).0,
            StoredKey::Received(CLIENT, 258),
        ),
        (
            "group",
            persist::group_key(&share_name, &share.filter),
            StoredKey::Group("workers", "plant/+/t"),
        ),
        ("bound", persist::bound_key(CLIENT), StoredKey::Bound(CLIENT)),
        ("level-mark", persist::mark(CommitNumber(1)).0, StoredKey::Mark),
    ];
    for (name, encoded, expected) in keys {
        let stored = golden_of(&format!("{name}-key.bin"), &encoded);
        assert_eq!(parse_key(&stored), Some(expected), "{name}");
        assert_damage_shows(
            &stored,
            |_| false,
            |bytes| parse_key(bytes).map(|key| format!("{key:?}")),
        );
    }
}

#[test]
fn a_table_of_resends_of_version_1() {
    let table = vec![(1, 0x0102_0304_0506_0708), (258, u64::MAX), (65_535, 0)];
    check(
        "resends.bin",
        &persist::resends(&table),
        &table,
        all_read,
        persist::decode_resends,
    );
}

#[test]
fn a_session_of_version_1() {
    let full = StoredSession {
        expiry_secs: 86_400,
        left: Some((WallTime(1_700_000_000_123), ClockQuality::Synced)),
        will: Some(Will {
            topic: "plant/gone".into(),
            payload: vec![0x00, 0xff],
            qos: QoS::ExactlyOnce,
            retain: true,
            properties: vec![0x01, 1, 0x03, 0, 4, b't', b'e', b'x', b't'],
            expiry_secs: Some(60),
            delay_secs: 300,
        }),
    };
    let connected = StoredSession {
        expiry_secs: u32::MAX,
        left: None,
        will: None,
    };
    check(
        "session-full.bin",
        &full.encode(),
        &full,
        all_read,
        StoredSession::decode,
    );
    let encoded = connected.encode();
    check(
        "session-connected.bin",
        &encoded,
        &connected,
        all_read,
        StoredSession::decode,
    );
}

#[test]
fn a_cursor_of_version_1() {
    let entry = |packet_id, qos, step, source| StoredEntry {
        packet_id,
        qos,
        step,
        source,
    };
    let full = StoredCursor {
        level: false,
        head: at(1 << 40, 300),
        last_packet_id: u16::MAX,
        in_flight: vec![
            entry(65_530, QoS::AtLeastOnce, Step::Sent, StoredSource::Log(at(9, 3))),
            entry(
                65_531,
                QoS::ExactlyOnce,
                Step::Received,
                StoredSource::Group(300, at(9, 4)),
            ),
            entry(
                65_535,
                QoS::ExactlyOnce,
                Step::Released,
                StoredSource::Retained(Bytes::from_static(b"plant/1/t"), CommitNumber(7), 2),
            ),
        ],
        snapshots: vec![(2, CommitNumber(8), Some(Bytes::from_static(b"plant/1/t")))],
        unread: 129,
        ledger: books(),
    };
    let level = StoredCursor {
        level: true,
        head: at(1, 0),
        last_packet_id: 0,
        in_flight: Vec::new(),
        snapshots: vec![(1, CommitNumber(1), None)],
        unread: 0,
        ledger: ReaderLedger::default(),
    };
    check("cursor-full.bin", &full.encode(), &full, all_read, StoredCursor::decode);
    check(
        "cursor-level.bin",
        &level.encode(),
        &level,
        all_read,
        StoredCursor::decode,
    );
}

#[test]
fn a_group_of_version_1() {
    let full = StoredGroup {
        level: false,
        since: Some(CommitNumber(1 << 33)),
        head: at(1 << 40, 2),
        outstanding: vec![at(9, 3), at(9, 300)],
        unread: 129,
        ledger: books(),
    };
    let level = StoredGroup {
        level: true,
        since: None,
        head: at(1, 0),
        outstanding: Vec::new(),
        unread: 0,
        ledger: ReaderLedger::default(),
    };
    check("group-full.bin", &full.encode(), &full, all_read, StoredGroup::decode);
    check(
        "group-level.bin",
        &level.encode(),
        &level,
        all_read,
        StoredGroup::decode,
    );
}

#[test]
fn a_subscription_of_version_1() {
    let decode = |bytes: &[u8]| {
        let version = persist::decode_subscription(bytes, 7, CommitNumber(9))?;
        Ok(format!("{version:?}"))
    };
    let version = |text: &str, options| {
        let subscription = Filter::parse_subscription(text).unwrap();
        SubscriptionVersion {
            slot: 7,
            share: subscription.share,
            filter: subscription.filter,
            options,
            since: Some(CommitNumber(9)),
            until: None,
            closing: false,
            heir: None,
        }
    };
    let plain = Options {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    let all = Options {
        qos: QoS::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        id: Some(268_435_455),
    };
    for (name, version) in [
        ("subscription-plain.bin", version("#", plain)),
        ("subscription-full.bin", version("plant/+/n\u{f6}rd/#", all)),
        (
            "subscription-shared.bin",
            version(
                "$share/workers/plant/+/t",
                Options {
                    qos: QoS::AtLeastOnce,
                    ..plain
                },
            ),
        ),
    ] {
        let encoded = persist::subscription(&version);
        check(name, &encoded, &format!("{version:?}"), all_read, decode);
    }
}

#[test]
fn marks_of_version_1() {
    let (_, level) = persist::mark(CommitNumber(1 << 40));
    let expected = CommitNumber(1 << 40);
    check("level-mark.bin", &level, &expected, all_read, persist::decode_commit);
    let bound = persist::commit(CommitNumber(300));
    check(
        "bound.bin",
        &bound,
        &CommitNumber(300),
        all_read,
        persist::decode_commit,
    );
    // An ended subscription and a received packet ID say all by their keys.
    for (name, value) in [
        ("ended.bin", persist::ended(CLIENT, 258).1),
        ("received.bin", persist::received(CLIENT, 258).1),
    ] {
        let stored = golden_of(name, &value);
        assert_eq!(persist::decode_empty(&stored), Ok(()));
        assert_eq!(persist::decode_empty(&[2]), Err(DecodeError::Newer(2)));
        assert_eq!(persist::decode_empty(&[]), Err(DecodeError::Damaged));
        assert_eq!(
            persist::decode_empty(&[&stored[..], &[0]].concat()),
            Err(DecodeError::Damaged)
        );
    }
}

#[test]
fn a_retained_message_of_version_1() {
    let record = Record {
        device: "sensor-7",
        topic: "plant/hall 1/temp\u{e9}rature",
        payload: b"\x00\xff21.5",
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: Properties::parse(&[0x01, 1]).unwrap(),
        accepted_at: WallTime(1_700_000_000_123),
        clock: ClockQuality::Unsynced,
        expiry_secs: Some(3_600),
        origin: None,
        path: "barn",
    };
    let RetainedChange::Put(put) = retained_change(&record) else {
        panic!("a payload replaces the value");
    };
    assert_eq!(put.space, Space::Retained);
    assert_eq!(golden_of("retained-key.bin", &put.key), record.topic.as_bytes());
    let stored = golden_of("retained.bin", &put.value);
    let decode = |bytes: &[u8]| {
        let block = decode_retained(&Bytes::copy_from_slice(bytes))?;
        Some(format!("{:?}", block.get(0)))
    };
    assert_eq!(decode(&stored), Some(format!("{record:?}")));
    assert_damage_shows(&stored, |_| false, decode);
}
