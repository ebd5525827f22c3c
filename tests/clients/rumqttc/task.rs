//! Arguments of a scenario, and what it says.
//!
//! In: `--name=value` arguments. Out: a [`Task`] per version and QoS, and JSON lines. Holds no state.

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Map, Value};

/// What the scenario is asked to do.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    args: HashMap<String, String>,
    /// 3 or 5.
    pub(crate) version: u8,
    /// QoS of this round.
    pub(crate) qos: u8,
    /// First levels of all topics of this round.
    pub(crate) topic: String,
    /// Client ID of this round.
    pub(crate) id: String,
}

impl Task {
    /// Reads the arguments.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Self {
        let pair = |arg: String| {
            let arg = arg.strip_prefix("--").expect("arguments begin with --").to_owned();
            let (name, value) = arg.split_once('=').unwrap_or((&arg, ""));
            (name.to_owned(), value.to_owned())
        };
        Self {
            args: args.map(pair).collect(),
            version: 0,
            qos: 0,
            topic: String::new(),
            id: String::new(),
        }
    }

    /// One task per version and QoS.
    pub(crate) fn rounds(&self) -> Vec<Self> {
        let numbers = |name: &str| -> Vec<u8> { self.text(name).split(',').filter_map(|n| n.parse().ok()).collect() };
        let mut rounds = Vec::new();
        for version in numbers("versions") {
            for qos in numbers("qos") {
                rounds.push(Self {
                    version,
                    qos,
                    topic: format!("{}/{version}/{qos}", self.text("topic")),
                    id: format!("{}-{version}-{qos}", self.text("id")),
                    ..self.clone()
                });
            }
        }
        assert!(!rounds.is_empty(), "no version or no QoS");
        rounds
    }

    /// Value of an argument; empty when it was not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.args.get(name).map_or("", String::as_str)
    }

    /// True when an argument was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    /// A number among the arguments.
    pub(crate) fn number(&self, name: &str) -> usize {
        self.text(name)
            .parse()
            .unwrap_or_else(|_| panic!("--{name} is a number"))
    }
}

/// Prints a line.
pub(crate) fn say(event: &str, fields: &[(&str, Value)]) {
    let mut line = Map::new();
    line.insert("event".to_owned(), event.into());
    line.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let mut out = io::stdout().lock();
    writeln!(out, "{}", Value::Object(line)).expect("the test reads");
    out.flush().expect("the test reads");
}

/// Waits until the test says go.
pub(crate) fn await_go() {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("standard input can be read");
    assert_eq!(line.trim(), "go", "the test ended before it said go");
}
