//! Golden bytes of the store: keys, values and the small files of version 1 decode to what is spelled out here, and are written
//! again byte for byte. What the database makes of keys and values is its own format, not frozen here.

use std::fmt::Debug;
use std::fs;

use bytes::Bytes;
use fellbeck_core::incarnation::{Incarnation, IncarnationChain};
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{CommitNumber, Epoch, Seq, TrackId};

use crate::catalog::Span;
use crate::codec;
use crate::config::{Layout, StoreConfig};
use crate::directory::{Directory, Lock};
use crate::entry::Gap;
use crate::error::OpenError;
use crate::high_water::{HighWater, HighWaterFile};
use crate::key::{Head, Seal, entry_key, gap_value, index, parse_entry_key, parse_gap, stamped, take_stamp};
use crate::store::open;
use crate::testing::block_with;

#[path = "../../core/tests/golden/file.rs"]
mod file;

use file::{assert_damage_shows, golden_of};

const FORMAT: &str = "fellbeck-store 1 edge 0123456789abcdeffedcba9876543210\n";
const LOG_ID: [u8; 16] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10,
];

/// Checks a golden file whose bytes are all read.
fn check<T: PartialEq + Debug>(name: &str, encoded: &[u8], expected: &T, decode: impl Fn(&[u8]) -> Option<T>) {
    let stored = golden_of(name, encoded);
    assert_eq!(decode(&stored).as_ref(), Some(expected), "{name}");
    assert_damage_shows(&stored, |_| false, decode);
}

#[test]
fn keys_of_version_1() {
    let track = TrackId(0x0102_0304);
    let place = (track, Seq(0x0506_0708_090a_0b0c));
    check("entry-key.bin", &entry_key(place.0, place.1), &place, parse_entry_key);
    let place_of = |key: &[u8]| (key.first() == Some(&index::GAP)).then(|| parse_entry_key(&key[1..]))?;
    check("index-gap-key.bin", &index::gap(place.0, place.1), &place, place_of);
    let numbered = |kind: u8| {
        move |key: &[u8]| {
            let number = key.split_first().filter(|(first, _)| **first == kind);
            number.and_then(|(_, rest)| index::number(rest))
        }
    };
    let number = u64::from(track.0);
    check(
        "index-acked-key.bin",
        &index::acked(track),
        &number,
        numbered(index::ACKED),
    );
    check("index-end-key.bin", &index::end(track), &number, numbered(index::END));
    let segment = 0x0102_0304_0506_0708;
    check(
        "index-sealed-key.bin",
        &index::sealed(segment),
        &segment,
        numbered(index::SEALED),
    );
    assert_eq!(golden_of("index-commit-key.bin", index::COMMIT), b"c");
    assert_eq!(golden_of("index-floor-key.bin", index::FLOOR), b"f");
}

#[test]
fn heads_and_stamps_of_version_1() {
    let head = Head {
        commit: CommitNumber(0x0102_0304_0506_0708),
        first_index: 0x090a_0b0c,
        count: 0x0d0e_0f10,
        epoch: Epoch(0x1112_1314),
    };
    let mut encoded = Vec::new();
    head.put(&mut encoded);
    check("entry-head.bin", &encoded, &head, Head::peek);
    let keyed = (CommitNumber(0x0102_0304_0506_0708), Bytes::from_static(b"owner's"));
    check("keyed-value.bin", &stamped(keyed.0, &keyed.1), &keyed, |value| {
        let mut value = Bytes::copy_from_slice(value);
        Some((take_stamp(&mut value)?, value))
    });
}

/// One small record per entry, which neither codec compresses.
#[test]
fn entries_of_version_1() {
    for (name, layout) in [
        ("entry-value-edge.bin", Layout::Edge),
        ("entry-value-cloud.bin", Layout::Cloud),
    ] {
        let head = Head {
            commit: CommitNumber(1 << 40),
            first_index: 3,
            count: 1,
            epoch: Epoch(7),
        };
        let first = Seq(1 << 33);
        let block = block_with(std::iter::once(&b"\x00\xff21.5"[..]));
        let stored = golden_of(name, &codec::encode(layout, head, first, &block));
        let decode = |value: &[u8]| {
            let mut batch = Bytes::copy_from_slice(value);
            let head = Head::take(&mut batch)?;
            let block = codec::decode(layout, &head, first, &batch)?;
            Some((head, format!("{:?}", block.iter().collect::<Vec<_>>())))
        };
        let spelled = format!("{:?}", block.iter().collect::<Vec<_>>());
        assert_eq!(decode(&stored), Some((head, spelled)), "{name}");
        // Behind the head of 20 bytes, the leader epoch of a Kafka batch is not read.
        let ignored = |at| layout == Layout::Cloud && (32..36).contains(&at);
        assert_damage_shows(&stored, ignored, decode);
    }
}

#[test]
fn entries_of_the_index_of_version_1() {
    let gap = Gap {
        epoch: Epoch(70_000),
        first: Seq(300),
        last: Seq(1 << 40),
        reason: DropReason::LostSuffix,
    };
    let key = index::gap(TrackId(3), gap.first);
    let parse = |value: &[u8]| parse_gap(&key[1..], value);
    check("index-gap-value.bin", &gap_value(&gap), &(TrackId(3), gap), parse);

    let span = |track, first, end| Span {
        track: TrackId(track),
        first: Seq(first),
        end: Seq(end),
    };
    let seal = Seal {
        bytes: 8 << 20,
        first_commit: CommitNumber(300),
        last_commit: CommitNumber(1 << 40),
        touched_ms: 1_700_000_000_123,
        spans: vec![span(0, 1, 300), span(70_000, 1 << 33, 1 << 40)],
    };
    check("index-sealed-value.bin", &seal.encode(), &seal, Seal::parse);

    // Commit, floor, acknowledged position and end of a track are bare numbers.
    let number = 0x0102_0304_0506_0708_u64;
    check("index-number-value.bin", &number.to_be_bytes(), &number, index::number);
}

/// A claimed directory of its own, whose small files the test writes.
fn claimed() -> (tempfile::TempDir, Directory, Lock) {
    let temporary = tempfile::tempdir().unwrap();
    let (dir, lock, _) = Directory::claim(temporary.path(), Layout::Edge).unwrap();
    (temporary, dir, lock)
}

fn mark() -> HighWater {
    let mut mark = HighWater::default();
    mark.epoch = Epoch(70_000);
    mark.commit = CommitNumber(1 << 40);
    mark.tracks = vec![(Seq(301), Seq(299)), (Seq(1), Seq(0))];
    mark
}

/// The slots of generation 1 and 2, which are written in turn.
fn high_water_files(dir: &Directory) -> [Vec<u8>; 2] {
    let mut file = HighWaterFile::read(dir).unwrap().file;
    let mut later = mark();
    later.commit = later.commit.next();
    file.write(mark()).unwrap();
    file.write(later).unwrap();
    [
        ("high-water-1.bin", "high-water.b"),
        ("high-water-2.bin", "high-water.a"),
    ]
    .map(|(name, slot)| golden_of(name, &fs::read(dir.path(slot)).unwrap()))
}

#[test]
fn high_water_slots_of_version_1() {
    let (_temporary, dir, _lock) = claimed();
    let [first, second] = high_water_files(&dir);
    let said = |mark: HighWater| (mark.epoch, mark.commit, mark.tracks);
    let read = |slot: &[u8]| {
        fs::write(dir.path("high-water.a"), slot).unwrap();
        let found = HighWaterFile::read(&dir).unwrap();
        (!found.damaged).then(|| found.file.last().clone())
    };
    fs::write(dir.path("high-water.b"), &first).unwrap();
    let (epoch, _, tracks) = said(mark());
    let later = (epoch, CommitNumber((1 << 40) + 1), tracks);
    assert_eq!(said(read(&second).unwrap()), later, "the higher generation counts");
    assert_eq!(said(read(b"torn").unwrap()), said(mark()), "or the one that is whole");
    fs::remove_file(dir.path("high-water.b")).unwrap();
    assert_eq!(said(read(&first).unwrap()), said(mark()));
    assert_damage_shows(&first, |_| false, read);
}

fn chain() -> IncarnationChain {
    let mut chain = IncarnationChain::default();
    for (epoch, id, parent) in [(69_999, 0xa3, 0xa2), (70_000, 0xa4, 0xa3)] {
        let incarnation = Incarnation {
            epoch: Epoch(epoch),
            id: [id; 16],
            parent: [parent; 16],
        };
        chain.push(incarnation).unwrap();
    }
    chain
}

fn chain_file(dir: &Directory) -> Vec<u8> {
    dir.replace("chain", &chain().encode()).unwrap();
    golden_of("chain.bin", &fs::read(dir.path("chain")).unwrap())
}

#[test]
fn the_chain_file_of_version_1() {
    let (_temporary, dir, _lock) = claimed();
    let stored = chain_file(&dir);
    let read = |bytes: &[u8]| {
        fs::write(dir.path("chain"), bytes).unwrap();
        IncarnationChain::decode(&dir.read("chain").unwrap()??).ok()
    };
    assert_eq!(read(&stored), Some(chain()));
    assert_damage_shows(&stored, |_| false, read);
}

/// A line of text: one more or less of white space at its end, or another case of a digit, says the same.
#[test]
fn the_format_file_of_version_1() {
    let temporary = tempfile::tempdir().unwrap();
    let stored = golden_of("format.bin", FORMAT.as_bytes());
    let claim = |text: &[u8]| {
        // What a directory of an earlier program lacks; where there is one, it is the copy that counts.
        drop(fs::remove_file(temporary.path().join("FORMAT.copy")));
        fs::write(temporary.path().join("FORMAT"), text).unwrap();
        let (_, _, format) = Directory::claim(temporary.path(), Layout::Edge).ok()?;
        Some(format.log_id)
    };
    assert_eq!(claim(&stored), Some(LOG_ID));
    for cut in 0..stored.len() - 1 {
        assert_eq!(claim(&stored[..cut]), None, "cut at {cut}");
    }
    let (mut damaged, line) = (stored.clone(), stored.len() - 1);
    // Byte 15 is the version: only a larger one means anything.
    for (at, bit) in (0..line)
        .filter(|at| *at != 15)
        .flat_map(|at| (0..8).map(move |bit| (at, bit)))
    {
        damaged[at] ^= 1 << bit;
        let is_same = damaged.eq_ignore_ascii_case(&stored) && at >= line - 32;
        assert_eq!(
            claim(&damaged) == Some(LOG_ID),
            is_same,
            "bit {bit} of byte {at} flipped"
        );
        damaged[at] ^= 1 << bit;
    }
    drop(fs::remove_file(temporary.path().join("FORMAT.copy")));
    fs::write(temporary.path().join("FORMAT"), FORMAT.replace(" 1 ", " 2 ")).unwrap();
    let error = Directory::claim(temporary.path(), Layout::Edge).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, .. }), "{error}");
}

/// The files by their names in the directory, as an open writes and finds them. Only the database is missing, which is a loss.
#[test]
fn an_open_goes_on_from_the_small_files_of_version_1() {
    let fresh = tempfile::tempdir().unwrap();
    let config = StoreConfig::edge(vec!["lane/default/0".into(), "lane/n\u{f6}rd/1".into()]);
    let (store, _) = open(fresh.path(), config).unwrap();
    let hex: String = store.log_id().iter().map(|byte| format!("{byte:02x}")).collect();
    let line = fs::read_to_string(fresh.path().join("FORMAT")).unwrap();
    assert_eq!(line, format!("fellbeck-store 1 edge {hex}\n"));
    let tracks = golden_of("tracks.bin", &fs::read(fresh.path().join("tracks")).unwrap());
    store.close();

    let (old, dir, lock) = claimed();
    let [high_water, _] = high_water_files(&dir);
    fs::remove_file(dir.path("high-water.a")).unwrap();
    fs::remove_file(dir.path("FORMAT.copy")).unwrap();
    for (name, bytes) in [
        ("FORMAT", golden_of("format.bin", FORMAT.as_bytes())),
        ("tracks", tracks.clone()),
        ("chain", chain_file(&dir)),
        ("high-water.b", high_water),
    ] {
        fs::write(dir.path(name), bytes).unwrap();
    }
    let read = |bytes: &[u8]| {
        fs::write(dir.path("unread"), bytes).unwrap();
        dir.read("unread").unwrap()?
    };
    assert_damage_shows(&tracks, |_| false, read);
    drop(lock);

    // The configuration does not name the old tracks: those of the file keep their numbers all the same.
    let (store, report) = open(old.path(), StoreConfig::edge(vec!["lane/late/0".into()])).unwrap();
    assert_eq!(store.log_id(), LOG_ID);
    let names = ["lane/default/0", "lane/n\u{f6}rd/1", "lane/late/0"];
    assert_eq!(names.map(|name| store.track(name)), [0, 1, 2].map(|n| Some(TrackId(n))));
    let newest = report.incarnation.unwrap();
    assert_eq!((newest.epoch, newest.parent), (Epoch(70_001), [0xa4; 16]));
    assert_eq!(store.incarnations(), [chain().as_slice(), &[newest]].concat());
    let bounds = store.bounds(TrackId(0));
    assert_eq!((bounds.end, bounds.acked), (Seq(301), Seq(299)));
    let lost = Gap {
        epoch: Epoch(70_000),
        first: Seq(300),
        last: Seq(300),
        reason: DropReason::LostSuffix,
    };
    assert_eq!(report.gaps, [(TrackId(0), lost)]);
    assert_eq!(report.high_water, CommitNumber(1 << 40));
    store.close();
}
