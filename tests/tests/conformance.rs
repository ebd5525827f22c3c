//! The table of normative statements against the tests that prove them.
//!
//! In: `tests/conformance/clauses.tsv` and the tags in doc comments right above tests (`/// [MQTT5-3.12.4-1] what is seen`).
//! Out: `docs/conformance.md`, compared with what is generated; `FELLBECK_UPDATE=1` writes it anew.
//! A tag that names no clause fails, and so does a clause that binds a server and has neither a test nor a reason, beyond the numbers allowed below.

#[path = "conformance/clauses.rs"]
mod clauses;
#[path = "conformance/report.rs"]
mod report;
#[path = "conformance/tags.rs"]
mod tags;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clauses::Clause;
use tags::Tagged;

/// Clauses that bind a server and may still be without a test. It only goes down.
const UNTESTED_MAX: usize = 1;
/// Tests that are ignored because a numbered bug is open. It only goes down.
const IGNORED_MAX: usize = 2;

/// Folders in which tests may carry tags.
const FOLDERS: [&str; 2] = ["tests/tests", "shared/broker"];

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in the workspace").to_owned()
}

fn table() -> Vec<Clause> {
    let path = root().join("tests/conformance/clauses.tsv");
    clauses::parse(&fs::read_to_string(path).expect("the table of clauses is there"))
}

/// All sources in which tags may stand, by path relative to the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for folder in FOLDERS {
        walk(&root.join(folder), &mut |path, text| {
            let relative = path.strip_prefix(&root).expect("it was found below the root");
            found.push((relative.to_string_lossy().into_owned(), text));
        });
    }
    // These hold examples of tags.
    found.retain(|(path, _)| !path.starts_with("tests/tests/conformance"));
    found
}

fn tagged() -> Vec<Tagged> {
    let sources = sources();
    let all = sources.iter().flat_map(|(path, text)| tags::scan(path, text));
    let mut tests: Vec<Tagged> = all.collect();
    assert!(!tests.is_empty(), "no test carries a tag");
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    tests
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path, String)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|end| end == "rs") {
            visit(&path, fs::read_to_string(&path).expect("a source is text"));
        }
    }
}

#[test]
fn every_tag_names_a_clause() {
    let known: BTreeSet<String> = table().into_iter().map(|clause| clause.id).collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let cited = tags::citations(&path, &text);
        let unknown = cited.into_iter().filter(|(_, id)| !known.contains(id));
        wrong.extend(unknown.map(|(place, id)| format!("{place}: {id} is no clause of the table")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_tag_in_a_test_target_stands_above_a_test_and_says_what_is_seen() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("tests/tests/") {
            let mut comments = tags::commented(&path, &text);
            comments.retain(|test| test.name.is_empty() || test.seen.is_empty());
            wrong.extend(comments.into_iter().map(|test| test.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_clause_that_binds_a_server_has_a_test_or_a_reason() {
    let tests = tagged();
    let clauses = table();
    let untested: Vec<&str> = clauses
        .iter()
        .filter(|clause| clause.needs_test() && !tests.iter().any(|test| test.proves(&clause.id)))
        .map(|clause| clause.id.as_str())
        .collect();
    assert!(
        untested.len() <= UNTESTED_MAX,
        "{} clauses without test or reason, {UNTESTED_MAX} are allowed: {}",
        untested.len(),
        untested.join(" ")
    );
}

#[test]
fn no_test_is_ignored_beyond_the_open_bugs() {
    let tests = tagged();
    let ignored: Vec<&str> = tests
        .iter()
        .filter(|test| test.ignored.is_some())
        .map(|test| test.name.as_str())
        .collect();
    assert!(
        ignored.len() <= IGNORED_MAX,
        "{} tests are ignored, {IGNORED_MAX} are allowed: {}",
        ignored.len(),
        ignored.join(" ")
    );
}

#[test]
fn the_report_is_up_to_date() {
    let path = root().join("docs/conformance.md");
    let report = report::render(&table(), &tagged());
    if std::env::var_os("FELLBECK_UPDATE").is_some() {
        fs::write(&path, report).expect("the report can be written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == report,
        "docs/conformance.md is not what the tests say; FELLBECK_UPDATE=1 cargo test -p fellbeck-tests --test conformance writes it"
    );
}
