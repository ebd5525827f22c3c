//! Rows of the table of normative statements.

/// One statement of the standard.
#[derive(Debug, Clone)]
pub(crate) struct Clause {
    /// Version and number, as in tags: `MQTT5-3.12.4-1`.
    pub(crate) id: String,
    /// Whom it binds.
    pub(crate) binds: Binds,
    /// The rule in our own words.
    pub(crate) rule: String,
    /// Why there is no test; empty when one is demanded or the statement binds the client alone.
    pub(crate) reason: String,
}

/// Whom a statement binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binds {
    /// The server.
    Server,
    /// The client.
    Client,
    /// Either, as sender or receiver.
    Both,
    /// An implementation as a whole.
    Implementation,
}

impl Binds {
    /// The word in the table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Both => "both",
            Self::Implementation => "implementation",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Server, Self::Client, Self::Both, Self::Implementation]
            .into_iter()
            .find(|binds| binds.word() == word)
    }
}

impl Clause {
    /// True when a server must show that it keeps the rule.
    pub(crate) fn needs_test(&self) -> bool {
        self.binds != Binds::Client && self.reason.is_empty()
    }

    /// True for a rule with a number of its own in the standard.
    pub(crate) fn is_numbered(&self) -> bool {
        self.id.matches('-').count() == 2
    }

    /// `MQTT5` or `MQTT3`.
    pub(crate) fn version(&self) -> &str {
        self.id.split('-').next().unwrap_or_default()
    }
}

/// Reads the table; panics with the line that is wrong.
pub(crate) fn parse(text: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split('\t');
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let (id, binds, rule, reason) = (next(), next(), next(), next());
        assert!(fields.next().is_none() && !rule.is_empty(), "not a row: {line}");
        assert!(
            id.starts_with("MQTT5-") || id.starts_with("MQTT3-"),
            "not an id: {line}"
        );
        assert!(
            !clauses.iter().any(|clause| clause.id == id),
            "twice in the table: {id}"
        );
        let binds = Binds::parse(&binds).unwrap_or_else(|| panic!("binds nobody known: {line}"));
        clauses.push(Clause {
            id,
            binds,
            rule,
            reason,
        });
    }
    clauses
}

#[test]
fn a_row_is_read_with_and_without_a_reason() {
    let rows = parse("# head\nMQTT5-1.2-3\tserver\tA rule.\nMQTT3-4.1\tclient\tAnother.\tFor a reason.\n");
    assert_eq!(rows.len(), 2);
    assert!(rows[0].needs_test() && rows[0].is_numbered());
    assert!(!rows[1].needs_test() && !rows[1].is_numbered());
    assert_eq!((rows[1].version(), rows[1].reason.as_str()), ("MQTT3", "For a reason."));
}

#[test]
#[should_panic(expected = "twice in the table")]
fn a_clause_that_is_there_twice_is_refused() {
    parse("MQTT5-1.2-3\tserver\tA rule.\nMQTT5-1.2-3\tserver\tA rule.\n");
}
