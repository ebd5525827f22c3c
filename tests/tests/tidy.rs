//! Rules of this repository that no compiler keeps: sizes, headers, walls between crates, banned names.
//!
//! In: the source tree, as text. Out: a list of all violations, with file and line. Needs neither git nor cargo.
//! What clippy counts (function length, arguments) is left to clippy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file at most; tests beside it included.
const FILE_LINES_MAX: usize = 600;
/// Lines in which a module header must begin.
const HEADER_WITHIN: usize = 3;

/// Folders whose sources are ours.
const FOLDERS: [&str; 5] = ["edge", "cloud", "shared", "firmware-sim", "tests"];
/// Nouns that hide a missing one.
const BANNED_FILES: [&str; 4] = ["utils.rs", "common.rs", "helpers.rs", "types.rs"];

/// A foreign crate and the manifests that may name it.
const WALLS: [(&str, &[&str]); 6] = [
    ("ntex", &["shared/broker"]),
    ("ntex-mqtt", &["shared/broker"]),
    ("fjall", &["shared/store"]),
    ("quinn", &["edge", "cloud"]),
    ("kafka-protocol", &["cloud"]),
    ("rumqttc", &["firmware-sim", "tests"]),
];

/// Crates that stay pure, and what they must not depend on.
const PURE: [&str; 2] = ["shared/core", "shared/link"];
const IMPURE_CRATES: [&str; 5] = ["tokio", "quinn", "ntex", "fjall", "axum"];
/// Sources that decide, and therefore read no clock.
const CLOCKLESS: [&str; 3] = ["shared/core/src", "shared/link/src", "shared/broker/src/session"];
const CLOCKS: [&str; 3] = ["Instant::now", "SystemTime::now", "UNIX_EPOCH"];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace").to_owned()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" {
                walk(&path, found);
            }
        } else if name != ".git" {
            // In a linked work tree it is a file.
            found.push(path);
        }
    }
}

/// All files of the repository that are text of ours, by path relative to the root.
fn texts() -> Vec<(String, String)> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let mut texts = Vec::new();
    for path in paths {
        let relative = path.strip_prefix(&root).expect("it was found below the root");
        let name = relative.to_str().expect("our paths are UTF-8").to_owned();
        if name == "Cargo.lock" || name.ends_with(".log") {
            continue;
        }
        if let Ok(text) = fs::read_to_string(&path) {
            texts.push((name, text));
        }
    }
    assert!(texts.len() > 50, "the tree was not found: {} files", texts.len());
    texts
}

fn sources() -> Vec<(String, String)> {
    let ours = |name: &str| FOLDERS.iter().any(|folder| name.starts_with(&format!("{folder}/")));
    texts()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".rs") && ours(name))
        .collect()
}

fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n{}", violations.join("\n"));
}

/// All lines of `texts` in which `broken` finds something, as `file:line: what`.
fn lines_where(texts: &[(String, String)], broken: impl Fn(&str, &str) -> Option<String>) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, text) in texts {
        for (at, line) in text.lines().enumerate() {
            if let Some(what) = broken(name, line) {
                violations.push(format!("{name}:{}: {what}", at + 1));
            }
        }
    }
    violations
}

#[test]
fn no_source_file_is_longer_than_the_limit() {
    let long = sources().into_iter().map(|(name, text)| (text.lines().count(), name));
    let long: Vec<String> = long
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, name)| format!("{name}: {lines}"))
        .collect();
    assert_none(
        &format!("files of more than {FILE_LINES_MAX} lines (split by noun)"),
        &long,
    );
}

#[test]
fn every_source_file_begins_with_a_header() {
    let bare = |text: &str| !text.lines().take(HEADER_WITHIN).any(|line| line.starts_with("//! "));
    let bare: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| bare(text))
        .map(|(name, _)| name)
        .collect();
    assert_none("files without a module header", &bare);
}

#[test]
fn no_source_file_has_a_banned_name() {
    let banned = |name: &str| {
        BANNED_FILES
            .iter()
            .any(|banned| name.rsplit('/').next() == Some(banned))
    };
    let banned: Vec<String> = sources()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| banned(name))
        .collect();
    assert_none("files whose name hides a missing noun", &banned);
}

#[test]
fn no_leftovers_of_work_remain() {
    // Joined here, so that this file does not match itself.
    let marks = [
        ["dbg", "!("],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["FIX", "ME"],
        ["#[ig", "nore"],
    ]
    .map(|mark| mark.concat());
    let broken = |_: &str, line: &str| marks.iter().find(|mark| line.contains(mark.as_str())).cloned();
    assert_none("leftovers", &lines_where(&sources(), broken));
    let unnumbered = ["TO", "DO"].concat();
    let broken = |_: &str, line: &str| (line.contains(&unnumbered) && !line.contains('#')).then(|| unnumbered.clone());
    assert_none("open ends without an issue number", &lines_where(&sources(), broken));
}

#[test]
fn no_source_line_has_a_tab_or_trailing_space() {
    let broken =
        |_: &str, line: &str| (line.contains('\t') || line.ends_with(' ')).then(|| "tab or trailing space".to_owned());
    assert_none("white space", &lines_where(&sources(), broken));
}

#[test]
fn deciding_code_reads_no_clock() {
    let broken = |name: &str, line: &str| {
        let decides = CLOCKLESS.iter().any(|folder| name.starts_with(folder));
        CLOCKS
            .iter()
            .find(|clock| decides && line.contains(**clock))
            .map(|clock| (*clock).to_owned())
    };
    assert_none(
        "clocks in deciding code (time is an argument)",
        &lines_where(&sources(), broken),
    );
}

#[test]
fn tests_do_not_sleep() {
    let sleep = ["sleep", "(Duration"].concat();
    let broken = |name: &str, line: &str| {
        let is_test = name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("tests.rs");
        (is_test && line.contains(&sleep)).then(|| sleep.clone())
    };
    assert_none(
        "sleeps in tests (wait for an event with a deadline)",
        &lines_where(&sources(), broken),
    );
}

#[test]
fn no_text_names_a_place_on_one_machine() {
    let places = ["work", "root", "farm", "home"].map(|folder| format!("/{folder}/"));
    let broken = |_: &str, line: &str| {
        places.iter().find(|place| {
            let mut found = line.match_indices(place.as_str());
            // A path inside the repository or a topic may contain such a word; an absolute path begins with it.
            found.any(|(at, _)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| !(c.is_alphanumeric() || "_.-/*}>".contains(c)))
            })
        })
    };
    let broken = |name: &str, line: &str| broken(name, line).cloned();
    assert_none("paths of one machine", &lines_where(&texts(), broken));
}

/// Names of the dependencies of a manifest, development and build included.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let table: toml::Table = toml::from_str(manifest).expect("a manifest is TOML");
    let mut names = BTreeSet::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(section) = table.get(kind).and_then(toml::Value::as_table) {
            names.extend(section.keys().cloned());
        }
    }
    names
}

fn manifests() -> Vec<(String, BTreeSet<String>)> {
    let member = |name: &str| name.strip_suffix("/Cargo.toml").map(str::to_owned);
    let all: Vec<_> = texts()
        .iter()
        .filter_map(|(name, text)| Some((member(name)?, dependencies(text))))
        .collect();
    assert!(all.len() >= 9, "the manifests were not found: {}", all.len());
    all
}

#[test]
fn foreign_crates_stay_behind_their_walls() {
    let mut violations = Vec::new();
    for (member, names) in manifests() {
        for (foreign, allowed) in WALLS {
            if names.contains(foreign) && !allowed.contains(&member.as_str()) {
                violations.push(format!("{member} depends on {foreign}"));
            }
        }
        for foreign in IMPURE_CRATES {
            if names.contains(foreign) && PURE.contains(&member.as_str()) {
                violations.push(format!("{member} is pure and depends on {foreign}"));
            }
        }
    }
    assert_none("walls (DESIGN section 4)", &violations);
}

#[test]
fn crates_of_ours_depend_in_one_direction() {
    let allowed: [(&str, &[&str]); 10] = [
        ("shared/core", &[]),
        ("shared/link", &["core"]),
        ("shared/store", &["core"]),
        ("shared/broker", &["core", "store"]),
        ("shared/ops", &["core"]),
        // What the wiring of both nodes has in common: docs/adr/0004-shared-node-crate.md.
        ("shared/node", &["core", "store", "broker", "ops"]),
        ("edge", &["core", "link", "store", "broker", "ops", "node"]),
        ("cloud", &["core", "link", "store", "broker", "ops", "node"]),
        ("firmware-sim", &["edge", "cloud", "ops", "core"]),
        ("tests", &["core", "link", "store", "broker", "ops", "edge", "cloud"]),
    ];
    let mut violations = Vec::new();
    for (member, names) in manifests() {
        let Some((_, allowed)) = allowed.iter().find(|(name, _)| *name == member) else {
            // Crates that are not members (fuzz targets) may name what they test.
            continue;
        };
        for ours in names.iter().filter_map(|name| name.strip_prefix("fellbeck-")) {
            if !allowed.contains(&ours) {
                violations.push(format!("{member} depends on fellbeck-{ours}"));
            }
        }
    }
    assert_none("direction of dependencies (DESIGN section 4)", &violations);
}

#[test]
fn foreign_types_of_the_front_stay_in_the_front() {
    let broken = |name: &str, line: &str| {
        let session = name.starts_with("shared/broker/src/session");
        let code = !line.trim_start().starts_with("//");
        (session && code && (line.contains("ntex::") || line.contains("ntex_mqtt"))).then(|| "ntex".to_owned())
    };
    assert_none("the session core is pure", &lines_where(&sources(), broken));
    let broken = |name: &str, line: &str| {
        let drivers = [
            "edge/src/uplink",
            "cloud/src/ingest",
            "edge/src/downlink",
            "cloud/src/downlink",
        ];
        let driver = drivers.iter().any(|folder| name.starts_with(folder));
        let code = !line.trim_start().starts_with("//");
        (!driver && code && line.contains(&["quinn", "::"].concat())).then(|| "quinn".to_owned())
    };
    assert_none(
        "quinn stays in uplink, ingest and the downlinks",
        &lines_where(&sources(), broken),
    );
}

/// The names of metrics in a line of code: what stands in quotes, whole.
fn metrics_in(line: &str) -> impl Iterator<Item = &str> {
    let quoted = line.split('"').skip(1).step_by(2);
    quoted.filter_map(|text| text.strip_prefix("fellbeck_")).filter(|name| {
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        is_name && METRICS.iter().any(|part| name.starts_with(part)) && !name.ends_with('_')
    })
}

/// What names of metrics begin with, behind the prefix of all.
const METRICS: [&str; 5] = ["broker_", "http_", "link_", "reader_", "store_"];

#[test]
fn every_metric_is_documented() {
    let path = root().join("docs/operating.md");
    let document = fs::read_to_string(&path).expect("the document is there");
    let words: BTreeSet<&str> = document
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let product = |name: &str| name.contains("/src/") && !name.starts_with("tests/") && !name.contains("/tests");
    let ours: Vec<_> = sources().into_iter().filter(|(name, _)| product(name)).collect();
    let mut found = 0;
    let mut missing = Vec::new();
    for (name, text) in &ours {
        for metric in text.lines().flat_map(metrics_in) {
            found += 1;
            if !words.contains(metric) {
                missing.push(format!("{name}: {metric}"));
            }
        }
    }
    assert!(found > 60, "only {found} metrics were found");
    assert_none("metrics that docs/operating.md does not name", &missing);
}
