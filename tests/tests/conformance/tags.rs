//! Tags in the doc comments above tests: which clauses a test proves, and what is seen.

/// A doc comment with tags and the test below it.
#[derive(Debug, Clone)]
pub(crate) struct Tagged {
    /// File and line of the comment.
    pub(crate) place: String,
    /// Path of the test, short: `mqtt/ping::a_ping_is_answered`. Empty when no test follows.
    pub(crate) name: String,
    /// The clauses.
    pub(crate) ids: Vec<String>,
    /// The words behind the tags.
    pub(crate) seen: String,
    /// The open bug for which the test is ignored.
    pub(crate) ignored: Option<String>,
}

impl Tagged {
    /// True when the test runs and names the clause.
    pub(crate) fn proves(&self, id: &str) -> bool {
        self.ignored.is_none() && self.ids.iter().any(|own| own == id)
    }
}

/// All tagged tests of a source.
pub(crate) fn scan(path: &str, text: &str) -> Vec<Tagged> {
    let mut found = commented(path, text);
    found.retain(|test| !test.name.is_empty());
    found
}

/// All doc comments with tags, above a test or above something else.
pub(crate) fn commented(path: &str, text: &str) -> Vec<Tagged> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let comment = block(&lines, at, |line| line.starts_with("///"));
        if comment.is_empty() {
            at += 1;
            continue;
        }
        let below = block(&lines, at + comment.len(), |line| line.starts_with("#["));
        let function = lines.get(at + comment.len() + below.len()).copied().unwrap_or_default();
        let (ids, seen) = read_comment(comment);
        if !ids.is_empty() {
            let is_test = below
                .iter()
                .any(|line| line.contains("test]") || line.contains("test("));
            let name = if is_test { function_name(function) } else { None };
            found.push(Tagged {
                place: format!("{path}:{}", at + 1),
                name: name.map_or_else(String::new, |name| format!("{}::{name}", short(path))),
                ids,
                seen,
                ignored: below.iter().find_map(|line| ignore_reason(line)),
            });
        }
        at += comment.len() + below.len();
    }
    found
}

fn block<'a>(lines: &'a [&'a str], from: usize, belongs: impl Fn(&str) -> bool) -> &'a [&'a str] {
    let rest = lines.get(from..).unwrap_or_default();
    &rest[..rest.iter().take_while(|line| belongs(line)).count()]
}

/// Ids of all tags in a line of comment: what stands in brackets and begins with `MQTT`.
fn ids_in(line: &str) -> Vec<String> {
    let tags = line.split('[').skip(1).filter_map(|piece| piece.split_once(']'));
    let ids = tags.map(|(id, _)| id).filter(|id| id.starts_with("MQTT"));
    ids.map(str::to_owned).collect()
}

/// The tags of a comment, and its words without them.
fn read_comment(lines: &[&str]) -> (Vec<String>, String) {
    let text = lines.iter().map(|line| line.trim_start_matches('/').trim());
    let text = text.collect::<Vec<_>>().join(" ");
    let ids = ids_in(&text);
    let bare = ids
        .iter()
        .fold(text, |text, id| text.replacen(&format!("[{id}]"), "", 1));
    let words = bare.trim_start_matches([' ', ',']).split_whitespace();
    (ids, words.collect::<Vec<_>>().join(" "))
}

/// Ids cited in any comment of a source, with their places.
pub(crate) fn citations(path: &str, text: &str) -> Vec<(String, String)> {
    let numbered = text.lines().enumerate();
    let comments = numbered.filter_map(|(at, line)| Some((at, line.split_once("//")?.1)));
    let cited = comments.flat_map(|(at, comment)| ids_in(comment).into_iter().map(move |id| (at, id)));
    cited.map(|(at, id)| (format!("{path}:{}", at + 1), id)).collect()
}

fn function_name(line: &str) -> Option<&str> {
    let rest = line
        .trim_start_matches("pub ")
        .trim_start_matches("async ")
        .strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

/// The line is split, so that the rule against ignored tests does not see it here.
fn ignore_reason(line: &str) -> Option<String> {
    let rest = line.strip_prefix("#[")?.strip_prefix("ignore")?;
    Some(rest.split('"').nth(1).unwrap_or_default().to_owned())
}

/// `tests/tests/mqtt/ping.rs` is `mqtt/ping`, `shared/broker/src/front/auth.rs` is `broker/src/front/auth`.
fn short(path: &str) -> &str {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    path.strip_prefix("tests/tests/")
        .or_else(|| path.strip_prefix("shared/"))
        .unwrap_or(path)
}

#[test]
fn a_tagged_test_is_found_with_its_words() {
    let text = "/// [MQTT5-1.2-3] [MQTT3-4.5-6] One thing\n/// is seen.\n#[test]\nfn it_holds() {}\n/// Plain.\n#[test]\nfn plain() {}\n";
    let found = scan("tests/tests/mqtt/ping.rs", text);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "mqtt/ping::it_holds");
    assert_eq!(found[0].ids, ["MQTT5-1.2-3", "MQTT3-4.5-6"]);
    assert_eq!(found[0].seen, "One thing is seen.");
    assert!(found[0].proves("MQTT3-4.5-6") && !found[0].proves("MQTT3-4.5"));
}

#[test]
fn a_citation_is_found_in_any_comment() {
    let text = "let a = 1; // why ([MQTT5-1.2-3], [MQTT3-4.5]).\n";
    let found = citations("a.rs", text);
    assert_eq!(
        found,
        [
            ("a.rs:1".into(), "MQTT5-1.2-3".into()),
            ("a.rs:1".into(), "MQTT3-4.5".into())
        ]
    );
}

#[test]
fn a_tag_above_something_else_has_no_name_and_an_ignored_test_proves_nothing() {
    let text = [
        "/// [MQTT5-1.2-3] x\nfn helper() {}\n/// [MQTT5-1.2-3] x\n#[test]\n#[ig",
        "nore = \"B7\"]\nfn later() {}\n",
    ]
    .concat();
    assert_eq!(scan("a.rs", &text).len(), 1);
    let found = commented("a.rs", &text);
    assert_eq!(found[0].name, "");
    assert_eq!(found[1].ignored.as_deref(), Some("B7"));
    assert!(!found[1].proves("MQTT5-1.2-3"));
}
