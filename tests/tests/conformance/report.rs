//! The report as Markdown: one table per version, with counts in front.

use std::fmt::Write as _;

use crate::clauses::{Binds, Clause};
use crate::tags::Tagged;

const HEAD: &str = "\
# Conformance to MQTT 5.0 and 3.1.1

Generated from `tests/conformance/clauses.tsv` and the tags above tests; `tests/tests/conformance.rs` keeps it true.
`FELLBECK_UPDATE=1 cargo test -p fellbeck-tests --test conformance` writes it anew. The rules are paraphrased; the standard's text counts.
Ids are those of the standard's Appendix B. An id without a number at its end names a section whose rule has none (*).
Tests below `mqtt/` run on raw sockets against the real edge and the real cloud; those below `broker/` run against the front or the session core.
";

const VERSIONS: [(&str, &str); 2] = [("MQTT5", "MQTT 5.0"), ("MQTT3", "MQTT 3.1.1")];

/// What the table says of one clause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Tested,
    Reason,
    Client,
    Untested,
}

fn standing(clause: &Clause, tests: &[Tagged]) -> Standing {
    if tests.iter().any(|test| test.proves(&clause.id)) {
        Standing::Tested
    } else if !clause.reason.is_empty() {
        Standing::Reason
    } else if clause.binds == Binds::Client {
        Standing::Client
    } else {
        Standing::Untested
    }
}

/// The whole report.
pub(crate) fn render(clauses: &[Clause], tests: &[Tagged]) -> String {
    let mut out = HEAD.to_owned();
    out.push_str(
        "\n| version | clauses | bind a server | tested | with a reason | no test |\n|---|---|---|---|---|---|\n",
    );
    for (version, title) in VERSIONS {
        let own: Vec<&Clause> = clauses.iter().filter(|clause| clause.version() == version).collect();
        let count = |wanted: Standing| own.iter().filter(|clause| standing(clause, tests) == wanted).count();
        let bind = own.iter().filter(|clause| clause.binds != Binds::Client).count();
        let (tested, reason, untested) = (
            count(Standing::Tested),
            count(Standing::Reason),
            count(Standing::Untested),
        );
        let numbered = own.iter().filter(|clause| clause.is_numbered()).count();
        writeln!(
            out,
            "| {title} | {} ({numbered} numbered) | {bind} | {tested} | {reason} | {untested} |",
            own.len()
        )
        .expect("a string takes all");
    }
    for (version, title) in VERSIONS {
        write!(
            out,
            "\n## {title}\n\n| clause | binds | rule | how met |\n|---|---|---|---|\n"
        )
        .expect("a string takes all");
        for clause in clauses.iter().filter(|clause| clause.version() == version) {
            let mark = if clause.is_numbered() { "" } else { " *" };
            let how = how_met(clause, tests);
            let (id, binds, rule) = (&clause.id, clause.binds.word(), escape(&clause.rule));
            writeln!(out, "| {id}{mark} | {binds} | {rule} | {how} |").expect("a string takes all");
        }
    }
    out
}

fn how_met(clause: &Clause, tests: &[Tagged]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for test in tests.iter().filter(|test| test.ids.contains(&clause.id)) {
        let seen = escape(&test.seen);
        parts.push(match &test.ignored {
            None => format!("{seen} `{}`", test.name),
            Some(bug) => format!("Open ({bug}): {seen} `{}`", test.name),
        });
    }
    match standing(clause, tests) {
        Standing::Reason => parts.push(format!("Not applicable: {}", escape(&clause.reason))),
        Standing::Client if parts.is_empty() => parts.push("Binds the client alone.".to_owned()),
        Standing::Untested => parts.push("**no test**".to_owned()),
        Standing::Tested | Standing::Client => {}
    }
    parts.join("<br>")
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}
