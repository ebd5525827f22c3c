//! A node's ledger as a test sees it: asked over HTTP, or by the `ledger` command from a node that runs or one that does not.
//!
//! In: a node. Out: the JSON, and whether the node says that its books close; never without balancing them here once more.

use serde_json::Value;

use crate::command::{self, Finished};
use crate::node::Node;
use crate::wait;

/// The books of one node at one moment.
#[derive(Debug, Clone)]
pub struct Books(pub Value);

impl Books {
    /// Asks a running node.
    ///
    /// # Panics
    /// When it does not answer with a ledger.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let answer = node.get("/api/v1/ledger");
        assert_eq!(answer.status, 200, "GET /api/v1/ledger: {}", answer.body);
        Self(serde_json::from_str(&answer.body).expect("the ledger is JSON"))
    }

    /// What `ledger --json` printed.
    ///
    /// # Panics
    /// When that is no ledger.
    #[must_use]
    pub fn printed(finished: &Finished) -> Self {
        Self(serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {}", finished.text())))
    }

    /// Sum of a number over all books of a part: `tracks`, `lanes` or `readers`.
    #[must_use]
    pub fn sum(&self, part: &str, column: &str) -> u64 {
        let books = self.0[part].as_array().into_iter().flatten();
        books.filter_map(|book| book[column].as_u64()).sum()
    }

    /// The book whose `key` is `name`. That of a reader may be a second late.
    #[must_use]
    pub fn get(&self, part: &str, key: &str, name: &str) -> Option<&Value> {
        let books = self.0[part].as_array()?;
        books.iter().find(|book| book[key] == name)
    }

    /// The book whose `key` is `name`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn find(&self, part: &str, key: &str, name: &str) -> &Value {
        let found = self.get(part, key, name);
        found.unwrap_or_else(|| panic!("no {part} with {key} {name}: {:#}", self.0))
    }

    /// Demands that every book closes, by the node's word and by the sums.
    ///
    /// # Panics
    /// When one does not.
    pub fn assert_closed(&self, who: &str) {
        assert_eq!(self.0["closes"], true, "{who}: {:#}", self.0);
        let number = |book: &Value, column: &str| {
            let number = book[column].as_u64();
            number.unwrap_or_else(|| panic!("{who}: no {column} in {book}"))
        };
        let sum = |book: &Value, columns: &[&str]| columns.iter().map(|column| number(book, column)).sum::<u64>();
        let books = |part: &str| self.0[part].as_array().cloned().unwrap_or_default();
        assert!(!books("tracks").is_empty(), "{who}: a node has tracks");
        for book in books("tracks") {
            let right = sum(&book, &["acked", "queued", "expired", "gap"]);
            assert_eq!(number(&book, "appended"), right, "{who}: {book}");
        }
        for book in books("lanes") {
            let right = sum(&book, &["base", "stored", "known", "heartbeats", "expired", "gap"]);
            assert_eq!(number(&book, "through"), right, "{who}: {book}");
        }
        for book in books("readers") {
            let dropped = book["dropped"].as_object().into_iter().flatten();
            let dropped: u64 = dropped.filter_map(|(_, count)| count.as_u64()).sum();
            let right = sum(&book, &["acked", "in_flight", "expired"]) + dropped;
            assert_eq!(number(&book, "matched"), right, "{who}: {book}");
        }
    }
}

impl Node {
    /// `ledger` with further arguments against this running node.
    ///
    /// # Panics
    /// When the node has no HTTP listener.
    #[must_use]
    pub fn ledger(&self, args: &[&str]) -> Finished {
        let url = self.ready().http.expect("the HTTP listener is on").to_string();
        let mut all = vec!["ledger", "--url", &url];
        all.extend(args);
        command::run_to_end(self.kind().binary(), &all, &[], wait::EVENTUALLY)
    }
}
