//! What the operator has decided about refused stores: adopt one, discard some.
//!
//! In: the command. Out: answers for admission. An order to adopt is done once the edge's instance is above the one that it names, so
//! nobody has to take it back, and a crash between the two repeats nothing.

use std::path::{Path, PathBuf};

use fellbeck_core::Incarnation;
use serde::{Deserialize, Serialize};

use super::file::{self, FileFault, OfEdge, VERSION};
use super::id::IncarnationId;

/// Discarded stores of one edge; the oldest is forgotten beyond that.
pub(super) const DISCARDED_MAX: usize = 64;

/// An order to adopt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopt {
    /// The store that has this in its chain.
    pub(crate) incarnation: IncarnationId,
    /// Done, or overtaken, once the instance of the edge is above this.
    pub(crate) above: u32,
}

/// The operator's orders about one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    version: u32,
    edge: String,
    /// At most one store can go on under a name.
    adopt: Option<Adopt>,
    /// Oldest first.
    discarded: Vec<IncarnationId>,
}

impl OfEdge for Orders {
    fn label(&self) -> (u32, &str) {
        (self.version, &self.edge)
    }
}

impl Orders {
    /// Where they are.
    fn dir(data_dir: &Path) -> PathBuf {
        data_dir.join("orders")
    }

    /// None about `edge`.
    pub(super) fn new(edge: &str) -> Self {
        Self {
            version: VERSION,
            edge: edge.to_owned(),
            adopt: None,
            discarded: Vec::new(),
        }
    }

    /// Reads the orders about `edge`. A file that does not decode is an error: a guess could lift a fence.
    pub(super) fn load(data_dir: &Path, edge: &str) -> Result<Self, FileFault> {
        let read = file::read(&Self::dir(data_dir), edge)?;
        Ok(read.unwrap_or_else(|| Self::new(edge)))
    }

    /// Writes them.
    pub(super) fn store(&self, data_dir: &Path) -> Result<(), FileFault> {
        file::write(&Self::dir(data_dir), self)
    }

    /// Orders that a store is adopted. It is not discarded any more.
    pub(super) fn adopt(&mut self, adopt: Adopt) {
        self.discarded.retain(|discarded| *discarded != adopt.incarnation);
        self.adopt = Some(adopt);
    }

    /// Orders that a store is refused for good.
    pub(super) fn discard(&mut self, incarnation: IncarnationId) {
        self.adopt = self.adopt.filter(|adopt| adopt.incarnation != incarnation);
        self.discarded.retain(|discarded| *discarded != incarnation);
        if self.discarded.len() >= DISCARDED_MAX {
            self.discarded.remove(0);
        }
        self.discarded.push(incarnation);
    }

    /// Whether the store with this chain was discarded.
    pub(crate) fn discards(&self, chain: &[Incarnation]) -> bool {
        self.discarded.iter().any(|discarded| discarded.is_in(chain))
    }

    /// Whether this incarnation was discarded.
    pub(crate) fn is_discarded(&self, incarnation: IncarnationId) -> bool {
        self.discarded.contains(&incarnation)
    }

    /// Whether the store with this chain is to be adopted, by an edge whose newest instance is `instance`.
    pub(crate) fn adopts(&self, chain: &[Incarnation], instance: u32) -> bool {
        self.adopt
            .is_some_and(|adopt| adopt.incarnation.is_in(chain) && instance <= adopt.above)
    }

    /// The order to adopt, while it is not done.
    pub(super) fn open(&self, instance: u32) -> Option<Adopt> {
        self.adopt.filter(|adopt| instance <= adopt.above)
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::Epoch;

    use super::*;

    fn chain(ids: &[u8]) -> Vec<Incarnation> {
        let of = |id: &u8| Incarnation {
            epoch: Epoch(u32::from(*id)),
            id: [*id; 16],
            parent: [0; 16],
        };
        ids.iter().map(of).collect()
    }

    fn id(id: u8) -> IncarnationId {
        IncarnationId([id; 16])
    }

    #[test]
    fn an_order_is_done_once_and_holds_for_a_store_that_has_restarted() {
        let mut orders = Orders::new("barn");
        orders.adopt(Adopt {
            incarnation: id(5),
            above: 3,
        });
        assert!(orders.adopts(&chain(&[4, 5]), 3));
        assert!(orders.adopts(&chain(&[4, 5, 6]), 3), "it has restarted since");
        assert!(!orders.adopts(&chain(&[4, 7]), 3), "its twin is another store");
        assert!(!orders.adopts(&chain(&[4, 5]), 4), "it is done");
    }

    #[test]
    fn the_last_word_about_a_store_holds() {
        let mut orders = Orders::new("barn");
        let adopt = Adopt {
            incarnation: id(5),
            above: 3,
        };
        orders.adopt(adopt);
        orders.discard(id(5));
        assert!(orders.discards(&chain(&[4, 5, 6])) && !orders.adopts(&chain(&[4, 5]), 3));
        assert!(!orders.discards(&chain(&[4, 7])));
        orders.adopt(adopt);
        assert!(!orders.discards(&chain(&[4, 5])) && orders.adopts(&chain(&[4, 5]), 3));
    }

    #[test]
    fn orders_survive_their_file_and_a_damaged_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut orders = Orders::load(dir.path(), "barn").unwrap();
        for n in 0..100 {
            orders.discard(id(n));
        }
        orders.adopt(Adopt {
            incarnation: id(200),
            above: 3,
        });
        orders.store(dir.path()).unwrap();
        let loaded = Orders::load(dir.path(), "barn").unwrap();
        assert_eq!(loaded, orders);
        assert!(loaded.discards(&chain(&[99])) && !loaded.discards(&chain(&[35])));
        let path = Orders::dir(dir.path()).join("barn.json");
        let text = std::fs::read_to_string(&path).unwrap();
        for wrong in [
            text.replace("\"version\": 1", "\"version\": 2"),
            text[..text.len() / 2].to_owned(),
        ] {
            std::fs::write(&path, wrong).unwrap();
            assert!(Orders::load(dir.path(), "barn").is_err());
        }
    }
}
