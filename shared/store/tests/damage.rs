//! Damage to the files of a closed store: always opens again, and what is missing is named, never silent (P8, I5).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Node, append, noise, small_edge};
use fellbeck_core::ledger::DropReason;
use fellbeck_core::{CommitNumber, Seq, TrackId};
use fellbeck_store::{Commit, OpenReport, Put, Space, StoreConfig, TrackEntry};

const LANE: TrackId = TrackId(0);
const LOCAL: TrackId = TrackId(1);

/// Everything stays in the journal.
fn journal_only() -> StoreConfig {
    StoreConfig {
        segment_bytes: 1 << 20,
        ram_window: 1 << 20,
        ..small_edge()
    }
}

/// A closed store with 20 commits of one record in one track and one key each.
fn twenty(dir: &Path, config: StoreConfig) -> Vec<u8> {
    let mut node = Node::open(dir, config);
    for n in 1..=20 {
        let mut commit = append(LANE, [noise(n)]);
        commit.puts.push(Put {
            space: Space::Node,
            key: "last".into(),
            value: n.to_string().into(),
        });
        node.commit(commit);
    }
    node.store.close();
    fs::read(journal(dir)).unwrap()
}

fn journal(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let mut journals: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "jnl"))
        .collect();
    assert_eq!(journals.len(), 1);
    journals.remove(0)
}

fn written(journal: &[u8]) -> usize {
    journal.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap()
}

fn gaps(report: &OpenReport) -> Vec<(u32, u64, u64, DropReason)> {
    report
        .gaps
        .iter()
        .map(|(track, gap)| (track.0, gap.first.0, gap.last.0, gap.reason))
        .collect()
}

fn present(node: &Node) -> Vec<u64> {
    let (records, _) = node.track_from(LANE, 1);
    for (seq, text) in &records {
        assert_eq!(*text, String::from_utf8_lossy(&noise(*seq)));
    }
    records.into_iter().map(|(seq, _)| seq).collect()
}

#[test]
fn a_commit_torn_at_the_end_of_the_journal_is_dropped_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let clean = twenty(dir.path(), journal_only());
    let end = written(&clean);
    for torn in [1, 5, 13, 40, 200] {
        let mut bytes = clean.clone();
        let start = find(&clean, &noise(20)[..]) - 100;
        let piece = clean[start..start + torn].to_vec();
        bytes[end..end + torn].copy_from_slice(&piece);
        fs::write(journal(dir.path()), &bytes).unwrap();
        let node = Node::open(dir.path(), journal_only());
        assert!(!node.report.is_damaged(), "{torn}: {:?}", node.report);
        assert_eq!(present(&node), (1..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_lost_suffix_becomes_a_gap_once_and_numbers_continue_above_it() {
    let dir = tempfile::tempdir().unwrap();
    let clean = twenty(dir.path(), journal_only());
    fs::File::options()
        .write(true)
        .open(journal(dir.path()))
        .unwrap()
        .set_len(written(&clean) as u64 - 700)
        .unwrap();
    let mut node = Node::open(dir.path(), journal_only());
    assert!(node.report.is_damaged());
    let [(0, first, 20, DropReason::LostSuffix)] = gaps(&node.report)[..] else {
        panic!("one gap up to the end: {:?}", node.report)
    };
    assert!((17..=19).contains(&first), "{first}");
    assert_eq!(node.report.high_water, CommitNumber(20));
    assert_eq!(node.report.recovered, CommitNumber(first - 1));
    assert_eq!(node.store.bounds(LANE).end, Seq(21), "a number is never reused (I5)");
    let value = node.store.get(Space::Node, b"last").unwrap().unwrap();
    assert_eq!(value.value, (first - 1).to_string());
    let committed = node.commit(append(LANE, [noise(21)]));
    assert!(committed.commit > CommitNumber(20));
    let expected: Vec<_> = (1..first).chain([21]).collect();
    for _ in 0..2 {
        let (_, missing) = node.track_from(LANE, 1);
        assert_eq!((present(&node), missing), (expected.clone(), vec![(first, 20)]));
        assert_eq!(node.store.stats().tracks[0].gap, 21 - first);
        node.store.close();
        node = Node::open(dir.path(), journal_only());
        assert!(!node.report.is_damaged(), "reported once: {:?}", node.report);
    }
    node.commit(Commit {
        acked: vec![(LANE, Seq(20))],
        ..Commit::default()
    });
    assert_eq!(node.store.stats().tracks[0].queued, 1);
}

#[test]
fn damage_in_the_middle_of_the_journal_costs_the_damaged_commit_only() {
    for (what, at, len, mask) in [
        ("a flipped bit", 100, 1, 4),
        ("a zeroed stretch", 50, 120, 0),
        ("a broken head", -30, 4, 0x55),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = twenty(dir.path(), journal_only());
        let record = find(&bytes, &noise(7)) as i64;
        let start = (record + at) as usize;
        bytes[start..start + len]
            .iter_mut()
            .for_each(|byte| *byte = if mask == 0 { 0 } else { *byte ^ mask });
        fs::write(journal(dir.path()), &bytes).unwrap();
        for round in 0..2 {
            let node = Node::open(dir.path(), journal_only());
            if round == 0 {
                assert_eq!(gaps(&node.report), [(0, 7, 7, DropReason::Damaged)], "{what}");
                assert_eq!(node.report.damaged_stretches, 1);
            } else {
                assert!(!node.report.is_damaged(), "{what}: reported once: {:?}", node.report);
            }
            assert_eq!(present(&node), (1..=20).filter(|n| *n != 7).collect::<Vec<_>>());
            assert_eq!(node.track_from(LANE, 1).1, [(7, 7)]);
            let read = node.read_log(fellbeck_core::LogPosition::start_of(CommitNumber(1)), usize::MAX);
            assert_eq!((read.skipped, read.blocks.len()), (1, 19));
        }
    }
}

#[test]
fn a_journal_that_is_gone_is_a_lost_suffix() {
    let dir = tempfile::tempdir().unwrap();
    twenty(dir.path(), journal_only());
    fs::remove_file(journal(dir.path())).unwrap();
    let mut node = Node::open(dir.path(), journal_only());
    assert_eq!(gaps(&node.report), [(0, 1, 20, DropReason::LostSuffix)]);
    assert_eq!(node.track_from(LANE, 1), (vec![], vec![(1, 20)]));
    assert_eq!(node.store.bounds(LANE).first, Seq(1));
    assert!(node.commit(append(LOCAL, ["x"])).commit > CommitNumber(20));
}

#[test]
fn an_unreadable_database_goes_to_quarantine_and_numbers_continue() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), journal_only());
    let log_id = node.store.log_id();
    for n in 1..=20 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.commit(Commit {
        acked: vec![(LANE, Seq(5))],
        ..Commit::default()
    });
    drop(node);
    fs::write(dir.path().join("db/version"), "broken").unwrap();
    let mut bytes = fs::read(journal(dir.path())).unwrap();
    let end = written(&bytes);
    bytes[..end].fill(0x5a);
    fs::write(journal(dir.path()), bytes).unwrap();
    let mut node = Node::open(dir.path(), journal_only());
    assert_eq!(node.report.quarantined, Some(dir.path().join("quarantine-1")));
    assert_eq!(gaps(&node.report), [(0, 6, 20, DropReason::LostSuffix)]);
    assert_eq!(node.store.bounds(LANE).acked, Seq(5));
    assert_eq!(node.store.log_id(), log_id);
    assert_eq!(node.store.incarnations().len(), 2);
    assert!(node.commit(append(LANE, [noise(21)])).commit > CommitNumber(21));
    drop(node);
    let node = Node::open(dir.path(), journal_only());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    let TrackEntry::Gap(gap) = node.read_track(LANE, 6, 1).entries.remove(0) else {
        panic!("the gap comes first")
    };
    assert_eq!((gap.first, gap.last, gap.epoch.0), (Seq(6), Seq(20), 1));
    assert_eq!(present(&node), [21]);
}

#[test]
fn what_is_whole_in_a_database_that_cannot_be_opened_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let log_id = {
        twenty(dir.path(), journal_only());
        let node = Node::open(dir.path(), journal_only());
        node.store.log_id()
    };
    fs::write(dir.path().join("db/version"), "broken").unwrap();
    let node = Node::open(dir.path(), journal_only());
    assert_eq!(node.report.quarantined, Some(dir.path().join("quarantine-1")));
    assert_eq!((gaps(&node.report), node.report.restored_batches), (vec![], 20));
    assert_eq!(present(&node), (1..=20).collect::<Vec<_>>());
    assert_eq!(node.store.get(Space::Node, b"last").unwrap().unwrap().value, "20");
    assert_eq!(node.store.log_id(), log_id);
}

/// A crash while what was set aside is put back: the next open does it again.
#[test]
fn mending_that_was_cut_short_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    twenty(dir.path(), journal_only());
    let note = {
        fs::write(dir.path().join("db/version"), "broken").unwrap();
        // What the note says once the database was moved.
        let mut note = vec![1, 1, 12];
        note.extend(b"quarantine-1");
        note.extend(xxhash_rust::xxh3::xxh3_64(&note).to_be_bytes());
        note
    };
    fs::rename(dir.path().join("db"), dir.path().join("quarantine-1")).unwrap();
    fs::write(dir.path().join("salvage"), note).unwrap();
    fs::create_dir(dir.path().join("db")).unwrap();
    fs::write(dir.path().join("db/0.jnl"), "half of it").unwrap();
    let node = Node::open(dir.path(), journal_only());
    assert_eq!(present(&node), (1..=20).collect::<Vec<_>>());
    assert!(!dir.path().join("salvage").exists() && gaps(&node.report).is_empty());
    node.store.close();
    assert!(!Node::open(dir.path(), journal_only()).report.is_damaged());
}

#[test]
fn a_damaged_table_file_is_a_gap_and_readers_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        ram_window: 1000,
        journal_nudge: 3000,
        ..small_edge()
    };
    let mut node = Node::open(dir.path(), config());
    for n in 1..=100 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.store.close();
    let mut tables = Vec::new();
    for keyspace in fs::read_dir(dir.path().join("db/keyspaces")).unwrap() {
        let Ok(files) = fs::read_dir(keyspace.unwrap().path().join("tables")) else {
            continue;
        };
        let files = files.map(|file| file.unwrap().path());
        tables.extend(files.filter(|path| find_any(path, &noise(30))));
    }
    assert_eq!(tables.len(), 1, "the record is in one table");
    let mut bytes = fs::read(&tables[0]).unwrap();
    let at = find(&bytes, &noise(30));
    bytes[at + 10] ^= 1;
    fs::write(&tables[0], bytes).unwrap();

    let node = Node::open(dir.path(), config());
    let (records, missing) = node.track_from(LANE, 1);
    let seqs: Vec<_> = records.iter().map(|(seq, _)| *seq).collect();
    // Where a journal still has it, nothing is lost.
    assert!(seqs.contains(&1) && seqs.contains(&100));
    let lost: u64 = missing.iter().map(|(first, last)| last - first + 1).sum();
    assert_eq!(
        seqs.len() as u64 + lost,
        100,
        "every number is a record or in a gap: {missing:?}"
    );
    assert!(lost <= 10, "one segment at most: {missing:?}");
    let read = node.read_log(fellbeck_core::LogPosition::start_of(CommitNumber(1)), usize::MAX);
    assert_eq!(read.skipped + read.blocks.len() as u64, 100);
}

fn find_any(path: &Path, needle: &[u8]) -> bool {
    fs::read(path)
        .unwrap()
        .windows(needle.len())
        .any(|window| window == needle)
}

#[test]
fn small_files_beside_the_database_survive_damage() {
    let dir = tempfile::tempdir().unwrap();
    twenty(dir.path(), journal_only());
    fs::write(dir.path().join("chain"), "broken").unwrap();
    let node = Node::open(dir.path(), journal_only());
    assert_eq!(node.report.remade, ["chain"]);
    assert_eq!(
        node.store.bounds(LANE).epoch.0,
        2,
        "the epoch continues above that of the high-water file"
    );
    drop(node);

    // One slot is enough; with both gone the store knows that it cannot know.
    let slots = ["high-water.a", "high-water.b"].map(|name| dir.path().join(name));
    let whole = fs::read(&slots[0]).unwrap();
    fs::write(&slots[0], "broken").unwrap();
    assert!(!Node::open(dir.path(), journal_only()).report.is_damaged());
    for slot in &slots {
        fs::write(slot, &whole[..whole.len() - 1]).unwrap();
    }
    let node = Node::open(dir.path(), journal_only());
    assert_eq!(node.report.remade, ["high-water"]);
    assert_eq!(present(&node).len(), 20);
    drop(node);
    assert!(!Node::open(dir.path(), journal_only()).report.is_damaged());
}

#[test]
fn a_failing_disk_halts_the_store_and_nothing_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::open(dir.path(), journal_only());
    let mut halted = node.store.halted();
    assert!(halted.borrow_and_update().is_none());
    node.commit(append(LANE, [noise(1)]));
    // The first record of another track needs a new segment, which needs the directory.
    fs::rename(dir.path().join("db"), dir.path().join("elsewhere")).unwrap();
    node.submitter.submit(append(LOCAL, ["x"])).unwrap();
    while halted.borrow().is_none() {
        std::thread::yield_now();
    }
    assert!(node.submitter.submit(append(LANE, ["y"])).is_err());
    assert_eq!(
        node.answers.blocking_recv(),
        None,
        "the channel closes without an answer"
    );
    node.store.close();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    fs::rename(dir.path().join("elsewhere"), dir.path().join("db")).unwrap();
    let node = Node::open(dir.path(), journal_only());
    assert!(!node.report.is_damaged());
    assert_eq!(present(&node), [1]);
}

/// The table file that holds `needle`.
fn table_with(dir: &Path, needle: &[u8]) -> PathBuf {
    let folders = fs::read_dir(dir.join("db/keyspaces"))
        .unwrap()
        .map(|folder| folder.unwrap().path().join("tables"));
    let files = folders.filter_map(|tables| fs::read_dir(tables).ok()).flatten();
    let mut found: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| find_any(path, needle))
        .collect();
    assert_eq!(found.len(), 1, "the record is in one table");
    found.remove(0)
}

/// 2,000 records in one segment, which is still open, and mostly in one table.
fn one_large_table(dir: &Path) -> StoreConfig {
    let config = StoreConfig {
        segment_bytes: 1 << 30,
        ram_window: 400_000,
        journal_nudge: 1 << 30,
        ..small_edge()
    };
    let mut node = Node::open(dir, config.clone());
    for n in 1..=2000 {
        node.commit(append(LANE, [noise(n)]));
    }
    node.store.close();
    config
}

#[test]
fn damage_in_a_table_costs_a_block_and_not_the_rest_of_the_segment() {
    // A search by commit comes upon the second one in its third step.
    for damaged in [200, 750] {
        let dir = tempfile::tempdir().unwrap();
        let config = one_large_table(dir.path());
        let table = table_with(dir.path(), &noise(damaged));
        let mut bytes = fs::read(&table).unwrap();
        let at = find(&bytes, &noise(damaged));
        bytes[at + 10] ^= 1;
        fs::write(&table, bytes).unwrap();

        let mut node = Node::open(dir.path(), config.clone());
        let [(0, first, last, DropReason::Damaged)] = gaps(&node.report)[..] else {
            panic!("one gap, found at open: {:?}", node.report)
        };
        assert!(
            first <= damaged && damaged <= last && last - first < 100,
            "{first} to {last}"
        );
        for _ in 0..2 {
            let (records, missing) = node.track_from(LANE, 1);
            let seqs: Vec<u64> = records.iter().map(|(seq, _)| *seq).collect();
            assert!(seqs.into_iter().eq((1..first).chain(last + 1..=2000)));
            assert_eq!(missing, [(first, last)]);
            let log = node.log_from(1, 50_000);
            assert_eq!(log.len() as u64, 2000 - (last - first + 1));
            for from in [first.max(2) - 1, first, last, last + 1, last + 20, 1500] {
                let rest = log.iter().filter(|record| record.0 >= from).count();
                assert_eq!(node.log_from(from, 50_000).len(), rest, "from commit {from}");
            }
            node.store.close();
            node = Node::open(dir.path(), config.clone());
            assert!(!node.report.is_damaged(), "reported once: {:?}", node.report);
        }
    }
}

/// The engine looks for the end of a table before the start of an empty file, which the system calls an invalid argument.
#[test]
fn a_table_cut_to_nothing_is_set_aside_and_its_records_come_from_the_journal() {
    for list_too in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Node::open(dir.path(), small_edge());
        for n in 1..=60 {
            node.commit(append(LANE, [noise(n)]));
        }
        node.store.close();
        let table = table_with(dir.path(), &noise(2));
        fs::write(&table, []).unwrap();
        if list_too {
            // Without names for the folders all of the database is set aside.
            for file in fs::read_dir(dir.path().join("db/keyspaces/0")).unwrap() {
                let file = file.unwrap().path();
                if file.file_name().unwrap().to_string_lossy().starts_with('v') {
                    fs::write(file, b"no list").unwrap();
                }
            }
        }
        let node = Node::open(dir.path(), small_edge());
        assert_eq!(node.report.quarantined, Some(dir.path().join("quarantine-1")));
        assert_eq!(gaps(&node.report), [], "the journal has what the table held");
        assert_eq!(present(&node), (1..=60).collect::<Vec<_>>());
        drop(node);
        let node = Node::open(dir.path(), small_edge());
        assert!(!node.report.is_damaged(), "reported once: {:?}", node.report);
    }
}

/// Found by the damage runs: nobody acknowledges the local lane, so the high-water file tells what of it was trimmed.
#[test]
fn what_was_trimmed_before_everything_was_lost_is_not_called_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        segment_bytes: 1500,
        ..journal_only()
    };
    let mut node = Node::open(dir.path(), config.clone());
    for n in 1..=60 {
        let mut commit = append(LOCAL, [noise(n)]);
        commit.session_floor = Some(CommitNumber(n.saturating_sub(20)));
        node.commit(commit);
    }
    node.settle();
    let bounds = node.store.bounds(LOCAL);
    assert!(bounds.first > Seq(20) && bounds.first < Seq(41), "{bounds:?}");
    node.store.close();
    fs::remove_file(journal(dir.path())).unwrap();
    let node = Node::open(dir.path(), config);
    assert_eq!(gaps(&node.report), [(1, bounds.first.0, 60, DropReason::LostSuffix)]);
    let lost: u64 = node.store.losses().iter().map(fellbeck_store::Loss::count).sum();
    assert_eq!(lost, 61 - bounds.first.0);
    assert_eq!(node.store.bounds(LOCAL).end, Seq(61), "a number is never reused (I5)");
}

#[test]
fn a_first_open_that_was_cut_short_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(Node::open(dir.path(), small_edge()));
    for file in ["high-water.a", "high-water.b", "chain", "chain.copy", "db/version"] {
        drop(fs::remove_file(dir.path().join(file)));
    }
    assert!(!dir.path().join("db/version").exists() && dir.path().join("db/0.jnl").exists());
    let mut node = Node::open(dir.path(), small_edge());
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    node.commit(append(LANE, [noise(1)]));
    drop(node);

    // Where something was accepted, nothing is removed.
    fs::remove_file(dir.path().join("db/version")).unwrap();
    let node = Node::open(dir.path(), small_edge());
    assert_eq!(node.report.quarantined, Some(dir.path().join("quarantine-1")));
    assert_eq!((gaps(&node.report), present(&node)), (vec![], vec![1]));
}

#[test]
fn a_chain_at_the_last_epoch_is_refused_with_a_line() {
    let dir = tempfile::tempdir().unwrap();
    drop(Node::open(dir.path(), small_edge()));
    let chain = [&[1, 1][..], &u32::MAX.to_be_bytes(), &[7; 16], &[0; 16]].concat();
    let sealed = [&chain[..], &xxhash_rust::xxh3::xxh3_64(&chain).to_be_bytes()].concat();
    fs::write(dir.path().join("chain"), sealed).unwrap();
    let error = fellbeck_store::open(dir.path(), small_edge()).unwrap_err().to_string();
    assert!(
        error.contains("chain is damaged") && error.contains("no successor"),
        "{error}"
    );
}

#[test]
fn a_failure_of_the_engine_between_commits_halts_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        ram_window: 1000,
        ..journal_only()
    };
    let mut node = Node::open(dir.path(), config.clone());
    node.commit(append(LANE, [noise(1)]));
    let (keyspaces, away) = (dir.path().join("db/keyspaces"), dir.path().join("away"));
    fs::rename(&keyspaces, &away).unwrap();
    // Durable, and answered; then the table cannot be written.
    node.commit(append(LANE, (2..=9).map(noise)));
    let halted = node.store.halted();
    while halted.borrow().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(node.answers.blocking_recv(), None, "the channel closes");
    node.store.close();
    drop(fs::remove_dir_all(&keyspaces));
    fs::rename(&away, &keyspaces).unwrap();
    let node = Node::open(dir.path(), config);
    assert!(!node.report.is_damaged(), "{:?}", node.report);
    assert_eq!(present(&node), (1..=9).collect::<Vec<_>>());
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_kept_and_its_loss_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = || StoreConfig {
        ram_window: 1,
        ..journal_only()
    };
    let mut node = Node::open(dir.path(), config());
    node.commit(append(LANE, (1..=3).map(noise)));
    let tables = dir.path().join("db/keyspaces/7/tables");
    while fs::read_dir(&tables).unwrap().next().is_none() {
        std::thread::yield_now();
    }
    node.store.close();
    fs::remove_file(journal(dir.path())).unwrap();
    let table = table_with(dir.path(), &noise(2));
    let sound = fs::read(&table).unwrap();
    let mut bytes = sound.clone();
    let at = find(&bytes, &noise(2));
    bytes[at] ^= 1;
    fs::write(&table, bytes).unwrap();

    let mut node = Node::open(dir.path(), config());
    assert_eq!(gaps(&node.report), [(0, 1, 3, DropReason::LostSuffix)]);
    node.commit(append(LANE, [noise(4)]));
    assert_eq!(present(&node), [4]);
    drop(node);
    // It is not deleted.
    let aside = dir
        .path()
        .join("quarantine-1/keyspaces/7/tables")
        .join(table.file_name().unwrap());
    assert_eq!(fs::read(aside).unwrap().len(), sound.len());
}
