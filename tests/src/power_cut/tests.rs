//! The model against what file systems promise, without FUSE.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{CutPlan, Image, OpKind, PendingFs, PowerDisk, ROOT, Survivors, Torn};

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

fn any(share: f64) -> CutPlan {
    CutPlan {
        names: Survivors::Any(share),
        data: Survivors::Any(share),
        torn: Torn::Never,
        ..CutPlan::lose_all()
    }
}

#[test]
fn a_file_without_a_synced_name_vanishes_with_its_synced_bytes() {
    let mut fs = PendingFs::new();
    let file = fs.create(ROOT, "a", 0o600).unwrap();
    fs.write(file, 0, b"synced").unwrap();
    fs.sync(file).unwrap();
    let mut named = fs.clone();
    fs.cut(&CutPlan::lose_all(), &mut rng(1));
    assert_eq!(fs.now().paths(), []);
    named.sync(ROOT).unwrap();
    named.write(file, 6, b" and more").unwrap();
    named.cut(&CutPlan::lose_all(), &mut rng(1));
    assert_eq!(named.now().bytes_at("a").unwrap(), b"synced");
}

#[test]
fn a_journal_takes_earlier_names_along_with_any_sync() {
    let mut fs = PendingFs::new();
    fs.set_journaled(true);
    let dir = fs.mkdir(ROOT, "d", 0o755).unwrap();
    let file = fs.create(dir, "a", 0o600).unwrap();
    fs.sync(file).unwrap();
    fs.create(dir, "b", 0o600).unwrap();
    fs.cut(&CutPlan::lose_all(), &mut rng(1));
    let paths: Vec<String> = fs.now().paths().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["d/", "d/a"]);
}

#[test]
fn a_rename_that_nobody_synced_is_undone_or_done_but_never_half() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut fs = PendingFs::new();
        for (name, bytes) in [("file", "old"), ("file.new", "new")] {
            let ino = fs.create(ROOT, name, 0o600).unwrap();
            fs.write(ino, 0, bytes.as_bytes()).unwrap();
            fs.sync(ino).unwrap();
            fs.sync(ROOT).unwrap();
        }
        fs.rename((ROOT, "file.new"), (ROOT, "file")).unwrap();
        fs.cut(&any(0.5), &mut rng(seed));
        let shown = |name: &str| fs.now().bytes_at(name).map(|bytes| String::from_utf8(bytes).unwrap());
        seen.insert((shown("file"), shown("file.new")));
    }
    let old = (Some("old".to_owned()), Some("new".to_owned()));
    let new = (Some("new".to_owned()), None);
    assert_eq!(seen, [old, new].into());
}

#[test]
fn an_unlinked_file_may_come_back_until_the_directory_is_synced() {
    let mut fs = PendingFs::new();
    let file = fs.create(ROOT, "a", 0o600).unwrap();
    fs.write(file, 0, b"x").unwrap();
    fs.sync_all();
    fs.unlink(ROOT, "a").unwrap();
    let mut synced = fs.clone();
    fs.cut(&CutPlan::lose_all(), &mut rng(1));
    assert_eq!(fs.now().bytes_at("a").unwrap(), b"x");
    synced.sync(ROOT).unwrap();
    synced.cut(&any(1.0), &mut rng(1));
    assert_eq!(synced.now().paths(), []);
}

#[test]
fn sectors_are_kept_dropped_and_reordered_each_on_its_own() {
    let (mut hole, mut swapped, mut all, mut none) = (0, 0, 0, 0);
    for seed in 0..500 {
        let mut fs = PendingFs::new();
        let file = fs.create(ROOT, "a", 0o600).unwrap();
        fs.write(file, 0, &[1; 2048]).unwrap();
        fs.sync_all();
        fs.write(file, 0, &[2; 1024]).unwrap();
        fs.write(file, 1024, &[3; 1024]).unwrap();
        fs.cut(&any(0.5), &mut rng(seed));
        let bytes = fs.now().bytes_at("a").unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            bytes
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        );
        hole += usize::from(sectors == [2, 1, 1, 3]);
        swapped += usize::from(sectors == [1, 1, 3, 3]);
        all += usize::from(sectors == [2, 2, 3, 3]);
        none += usize::from(sectors == [1, 1, 1, 1]);
    }
    assert!(
        hole > 0 && swapped > 0 && all > 0 && none > 0,
        "{hole} {swapped} {all} {none}"
    );
}

#[test]
fn a_torn_sector_keeps_the_synced_bytes_beside_it() {
    let mut noisy = 0;
    for seed in 0..200 {
        let mut fs = PendingFs::new();
        let file = fs.create(ROOT, "log", 0o600).unwrap();
        fs.write(file, 0, &[1; 100]).unwrap();
        fs.sync_all();
        fs.write(file, 100, &[2; 100]).unwrap();
        let plan = CutPlan {
            torn: Torn::Noise,
            ..any(0.3)
        };
        fs.cut(&plan, &mut rng(seed));
        let bytes = fs.now().bytes_at("log").unwrap();
        assert!(bytes[..100].iter().all(|byte| *byte == 1), "seed {seed}");
        noisy += usize::from(bytes.len() == 200 && bytes[100..].iter().any(|byte| *byte > 2));
    }
    assert!(noisy > 10, "{noisy}");
}

#[test]
fn with_a_journal_a_length_never_shows_bytes_that_were_not_written() {
    for seed in 0..500 {
        let mut fs = PendingFs::new();
        fs.set_journaled(true);
        let file = fs.create(ROOT, "log", 0o600).unwrap();
        fs.sync_all();
        let mut rng = rng(seed);
        for _ in 0..rng.random_range(1..6) {
            let len = fs.attr(file).unwrap().len;
            fs.write(file, len, &vec![7; rng.random_range(1..3000)]).unwrap();
        }
        let plan = CutPlan::random(true, &mut rng);
        fs.cut(&plan, &mut rng);
        let bytes = fs.now().bytes_at("log").unwrap_or_default();
        assert!(
            bytes.iter().all(|byte| *byte == 7),
            "seed {seed} {plan:?}: {}",
            bytes.len()
        );
    }
}

#[test]
fn what_was_cut_away_and_written_anew_is_never_mixed_with_the_old() {
    for seed in 0..500 {
        let mut fs = PendingFs::new();
        let file = fs.create(ROOT, "a", 0o600).unwrap();
        fs.write(file, 0, &[1; 3000]).unwrap();
        fs.sync_all();
        fs.set_len(file, 0).unwrap();
        fs.write(file, 0, &[2; 2000]).unwrap();
        fs.cut(&any(0.5), &mut rng(seed));
        let bytes = fs.now().bytes_at("a").unwrap();
        let old = bytes.iter().all(|byte| *byte == 1);
        assert!(old || bytes.iter().all(|byte| *byte != 1), "seed {seed}");
        assert!([0, 2000, 3000].contains(&bytes.len()), "seed {seed}: {}", bytes.len());
    }
}

#[test]
fn after_a_failed_sync_a_later_one_succeeds_and_the_bytes_are_lost_all_the_same() {
    let mut fs = PendingFs::new();
    let file = fs.create(ROOT, "a", 0o600).unwrap();
    fs.write(file, 0, b"old").unwrap();
    fs.sync_all();
    fs.write(file, 0, b"new").unwrap();
    fs.fail_sync(file, &CutPlan::lose_all(), &mut rng(1));
    assert_eq!(fs.read(file, 0, 9).unwrap(), b"new");
    fs.write(file, 3, b" more").unwrap();
    fs.sync(file).unwrap();
    fs.cut(&CutPlan::lose_all(), &mut rng(1));
    assert_eq!(fs.now().bytes_at("a").unwrap(), b"old more");
}

#[test]
fn a_full_disk_takes_no_byte_more_and_gives_room_back() {
    let mut fs = PendingFs::new();
    let file = fs.create(ROOT, "a", 0o600).unwrap();
    fs.set_quota(Some(3 * 4096));
    fs.write(file, 0, &[1; 8192]).unwrap();
    assert_eq!(fs.write(file, 8192, b"x"), Err(super::FsError::NoSpace));
    assert_eq!(fs.create(ROOT, "b", 0o600), Err(super::FsError::NoSpace));
    fs.write(file, 0, b"in place").unwrap();
    fs.set_len(file, 0).unwrap();
    assert!(fs.create(ROOT, "b", 0o600).is_ok());
}

/// Random operations on a few names.
fn act(fs: &mut PendingFs, rng: &mut StdRng) {
    let dirs: Vec<u64> = fs.now().paths().into_iter().map(|(_, ino)| ino).chain([ROOT]).collect();
    let dir = dirs[rng.random_range(0..dirs.len())];
    let name = ["a", "b", "c"][rng.random_range(0..3)];
    let other = ["a", "b", "c"][rng.random_range(0..3)];
    let target = fs.lookup(dir, name).unwrap_or(ROOT);
    let (at, len) = (rng.random_range(0..10_000), rng.random_range(1..5_000));
    // Many of them fail, as they should: the kind of a name is left to chance.
    match rng.random_range(0..10) {
        0 => drop(fs.create(dir, name, 0o600)),
        1 => drop(fs.mkdir(dir, name, 0o700)),
        2 => drop(fs.unlink(dir, name)),
        3 => drop(fs.rmdir(dir, name)),
        4 => drop(fs.rename((dir, name), (ROOT, other))),
        5 => drop(fs.link(target, dir, other)),
        6 => drop(fs.set_len(target, at)),
        7 => drop(fs.sync(if rng.random() { target } else { dir })),
        _ => drop(fs.write(target, at, &vec![rng.random(); len])),
    }
}

fn shape(image: &Image) -> Vec<(String, Option<Vec<u8>>)> {
    let paths = image.paths().into_iter();
    paths
        .map(|(path, ino)| (path, image.file(ino).map(super::Content::all)))
        .collect()
}

#[test]
fn a_cut_that_keeps_all_changes_nothing_and_one_after_a_full_sync_neither() {
    for seed in 0..300 {
        let mut rng = rng(seed);
        let mut fs = PendingFs::new();
        fs.set_journaled(rng.random());
        for _ in 0..60 {
            act(&mut fs, &mut rng);
        }
        let seen = shape(fs.now());
        let mut kept = fs.clone();
        let plan = CutPlan {
            names: Survivors::All,
            data: Survivors::All,
            ..CutPlan::lose_all()
        };
        kept.cut(&plan, &mut rng);
        assert_eq!(shape(kept.now()), seen, "seed {seed}");
        fs.sync_all();
        assert_eq!(fs.pending(), 0);
        let plan = CutPlan::random(false, &mut rng);
        fs.cut(&plan, &mut rng);
        assert_eq!(shape(fs.now()), seen, "seed {seed}");
    }
}

#[test]
fn any_cut_leaves_a_disk_that_a_second_cut_does_not_change() {
    for seed in 0..300 {
        let mut rng = rng(seed);
        let mut fs = PendingFs::new();
        fs.set_journaled(rng.random());
        for _ in 0..80 {
            act(&mut fs, &mut rng);
            if rng.random_bool(0.05) {
                let plan = CutPlan::random(rng.random(), &mut rng);
                fs.cut(&plan, &mut rng);
                let seen = shape(fs.now());
                fs.cut(&CutPlan::random(false, &mut rng), &mut rng.clone());
                assert_eq!(shape(fs.now()), seen, "seed {seed}");
            }
        }
    }
}

/// The same calls through a real mount: what std sees, what is refused, and a cut.
#[test]
fn a_mounted_disk_behaves_and_forgets_what_was_not_synced() {
    use std::fs::{self, File};
    use std::io::Write;

    if let Some(reason) = PowerDisk::unavailable() {
        return println!("skipped: FUSE may not be mounted here ({reason})");
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("disk");
    let mut disk = PowerDisk::mount(&at, false, 1);
    fs::create_dir(at.join("d")).unwrap();
    let mut file = File::create(at.join("d/a")).unwrap();
    file.write_all(b"one").unwrap();
    file.sync_data().unwrap();
    File::open(&at).unwrap().sync_all().unwrap();
    File::open(at.join("d")).unwrap().sync_all().unwrap();
    file.write_all(b"two").unwrap();
    fs::write(at.join("d/b"), "never synced").unwrap();
    let mut log = File::options().append(true).open(at.join("d/a")).unwrap();
    log.write_all(b"three").unwrap();
    assert_eq!(fs::read(at.join("d/a")).unwrap(), b"onetwothree");
    fs::rename(at.join("d/b"), at.join("c")).unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), 2);
    disk.faults(|faults| faults.fail(super::Fault::all(OpKind::Read)));
    assert!(fs::read(at.join("c")).is_err());
    disk.faults(super::Faults::mend);
    drop((file, log));

    disk.fail();
    disk.off();
    let report = disk.restore(&CutPlan::lose_all(), 1);
    assert!(report.files.1 > 0 && report.names.1 == 0, "{report:?}");
    assert_eq!(fs::read(at.join("d/a")).unwrap(), b"one");
    assert!(!at.join("c").exists());
    assert_eq!(fs::read_dir(at.join("d")).unwrap().count(), 1);
}
