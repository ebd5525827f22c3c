//! [`Fences`]: the refused stores as the running node knows them.
//!
//! In: the files at start, then refusals and admissions. Out: the orders of the operator, the status, the gauge. Calls that say so block
//! on a small file. As many entries as edges that were ever refused, each bounded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fellbeck_core::Incarnation;
use serde_json::{Value, json};

use super::fenced::{Fenced, FencedFile};
use super::file::{self, FileFault};
use super::orders::Orders;

/// Edges whose orders one look at the gauge reads.
const COUNTED_MAX: usize = 1000;

/// The refused stores of all edges.
#[derive(Debug)]
pub(crate) struct Fences {
    data_dir: PathBuf,
    // Held while a small file is written, never across an await: of two refusals the later one is in the file.
    files: Mutex<BTreeMap<String, FencedFile>>,
}

impl Fences {
    /// Reads what is known. Blocks. A file that does not decode is told and forgotten: the next refusal writes it anew.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        for edge in file::names(&FencedFile::dir(data_dir)) {
            match FencedFile::load(data_dir, &edge) {
                Ok(file) => {
                    files.insert(edge, file);
                }
                Err(error) => tracing::error!(%error, "which stores of an edge are fenced cannot be read"),
            }
        }
        Self {
            data_dir: data_dir.to_owned(),
            files: Mutex::new(files),
        }
    }

    /// The operator's orders about `edge`. Blocks.
    pub(crate) fn orders(&self, edge: &str) -> Result<Orders, FileFault> {
        Orders::load(&self.data_dir, edge)
    }

    /// A store that shows this chain was refused. Blocks.
    pub(crate) fn note(&self, edge: &str, chain: &[Incarnation], fenced: Fenced) {
        let mut files = self.lock();
        let file = files.entry(edge.to_owned()).or_insert_with(|| FencedFile::new(edge));
        if file.note(chain, fenced) {
            self.write(file);
        }
    }

    /// The store that shows this chain was admitted, on marks of its own or not. Blocks if it had been refused.
    pub(crate) fn lift(&self, edge: &str, chain: &[Incarnation], is_anew: bool) {
        if let Some(file) = self.lock().get_mut(edge)
            && file.lift(chain, is_anew)
        {
            self.write(file);
        }
    }

    /// A failure costs the operator's list after a restart; the fence itself is in the marks.
    fn write(&self, file: &FencedFile) {
        if let Err(error) = file::write(&FencedFile::dir(&self.data_dir), file) {
            tracing::error!(%error, "which stores of an edge are fenced cannot be written");
        }
    }

    /// The refused stores of `edge`, for the status.
    pub(crate) fn to_json(&self, edge: &str) -> Value {
        self.lock()
            .get(edge)
            .map_or_else(|| json!([]), |file| json!(file.fenced))
    }

    /// Edges with a refused store that waits for the operator. Blocks.
    pub(crate) fn waiting(&self) -> usize {
        let refused: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, file)| !file.fenced.is_empty())
            .take(COUNTED_MAX)
            .map(|(edge, file)| (edge.clone(), file.fenced.clone()))
            .collect();
        let waits = |(edge, fenced): &&(String, Vec<Fenced>)| {
            // Orders that cannot be read decide nothing.
            let orders = self.orders(edge).ok();
            let is_discarded = |of: &Fenced| {
                orders
                    .as_ref()
                    .is_some_and(|orders| orders.is_discarded(of.incarnation))
            };
            fenced
                .iter()
                .any(|of| of.reason != super::Reason::Discarded && !is_discarded(of))
        };
        refused.iter().filter(waits).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, FencedFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
