//! What was refused: the stores that came under an edge's name and do not continue its history.
//!
//! In: refusals. Out: a list, the oldest forgotten beyond its bound. A store that restarts is the same entry: its chain says so.

use std::path::{Path, PathBuf};

use fellbeck_core::Incarnation;
use fellbeck_link::{ByeReason, RefuseCode};
use serde::{Deserialize, Serialize};

use super::file::{self, FileFault, OfEdge, VERSION};
use super::id::IncarnationId;

/// Refused stores of one edge that are remembered.
const FENCED_MAX: usize = 8;

/// Why a store was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// Its chain lacks the incarnation that the cloud knows.
    Fenced,
    /// It lacks records that the cloud has.
    EdgeBehind,
    /// Another store of the name is connected and answers.
    SecondIdentity,
    /// It holds another record at the cloud's watermark.
    Diverged,
    /// It is empty and the name is known.
    Empty,
    /// The operator has discarded it.
    Discarded,
}

impl Reason {
    /// Of a refusal that an operator can lift.
    pub(crate) fn of_refusal(code: RefuseCode) -> Option<Self> {
        match code {
            RefuseCode::Fenced => Some(Self::Fenced),
            RefuseCode::EdgeBehind => Some(Self::EdgeBehind),
            RefuseCode::SecondIdentity => Some(Self::SecondIdentity),
            RefuseCode::Version | RefuseCode::Malformed | RefuseCode::Name | RefuseCode::Busy => None,
        }
    }

    /// Of an edge that was welcomed and found out by itself.
    pub(crate) fn of_bye(reason: ByeReason) -> Option<Self> {
        match reason {
            ByeReason::Diverged => Some(Self::Diverged),
            ByeReason::CloudAhead => Some(Self::EdgeBehind),
            ByeReason::Adopting => Some(Self::Empty),
            ByeReason::Shutdown | ByeReason::TakenOver | ByeReason::Protocol | ByeReason::Replaced => None,
        }
    }

    /// Name in tables.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::EdgeBehind => "edge_behind",
            Self::SecondIdentity => "second_identity",
            Self::Diverged => "diverged",
            Self::Empty => "empty",
            Self::Discarded => "discarded",
        }
    }
}

/// One store that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fenced {
    /// Its running incarnation at the last refusal.
    pub(crate) incarnation: IncarnationId,
    /// Epoch of that.
    pub(crate) epoch: u32,
    /// Instance under which it was judged.
    pub(crate) instance: u32,
    /// Why it was refused last.
    pub(crate) reason: Reason,
    /// Milliseconds since 1970 of the first refusal.
    pub(crate) first_ms: u64,
    /// Milliseconds since 1970 of a late refusal; exact to a minute.
    pub(crate) last_ms: u64,
}

/// The refused stores of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FencedFile {
    version: u32,
    edge: String,
    /// Oldest first.
    pub(crate) fenced: Vec<Fenced>,
}

impl OfEdge for FencedFile {
    fn label(&self) -> (u32, &str) {
        (self.version, &self.edge)
    }
}

/// Exactness of `last_ms`: a file is not written more often for it.
const EXACT_MS: u64 = 60_000;

impl FencedFile {
    /// Where they are.
    pub(super) fn dir(data_dir: &Path) -> PathBuf {
        data_dir.join("fenced")
    }

    /// Nothing of `edge` was refused.
    pub(super) fn new(edge: &str) -> Self {
        Self {
            version: VERSION,
            edge: edge.to_owned(),
            fenced: Vec::new(),
        }
    }

    /// The file about `edge`, empty when there is none.
    pub(super) fn load(data_dir: &Path, edge: &str) -> Result<Self, FileFault> {
        let read = file::read(&Self::dir(data_dir), edge)?;
        Ok(read.unwrap_or_else(|| Self::new(edge)))
    }

    /// Notes a refusal of the store with this chain. Whether anything changed that is worth writing.
    pub(super) fn note(&mut self, chain: &[Incarnation], mut fenced: Fenced) -> bool {
        if let Some(known) = self.fenced.iter_mut().find(|known| known.incarnation.is_in(chain)) {
            fenced.first_ms = known.first_ms;
            if fenced.reason == Reason::Discarded {
                // The operator knows it, and may take it back, under the id that was discarded.
                (fenced.incarnation, fenced.epoch) = (known.incarnation, known.epoch);
            }
            let late = fenced.last_ms.saturating_sub(known.last_ms) < EXACT_MS;
            let last_ms = if late { known.last_ms } else { fenced.last_ms };
            let fenced = Fenced { last_ms, ..fenced };
            return std::mem::replace(known, fenced.clone()) != fenced;
        }
        if self.fenced.len() == FENCED_MAX {
            self.fenced.remove(0);
        }
        self.fenced.push(fenced);
        true
    }

    /// Forgets the store with this chain: it was admitted. One that left by itself since it had diverged is welcomed at each try, and
    /// forgotten only when it stands on other marks. Whether anything changed.
    pub(super) fn lift(&mut self, chain: &[Incarnation], is_anew: bool) -> bool {
        let before = self.fenced.len();
        let stays = |known: &Fenced| known.reason == Reason::Diverged && !is_anew;
        self.fenced
            .retain(|known| stays(known) || !known.incarnation.is_in(chain));
        before != self.fenced.len()
    }
}

impl IncarnationId {
    /// Whether the store with this chain was once opened as this incarnation.
    pub(super) fn is_in(self, chain: &[Incarnation]) -> bool {
        chain.iter().any(|incarnation| incarnation.id == self.0)
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

    fn fenced(id: u8, now: u64) -> Fenced {
        Fenced {
            incarnation: IncarnationId([id; 16]),
            epoch: u32::from(id),
            instance: 1,
            reason: Reason::Fenced,
            first_ms: now,
            last_ms: now,
        }
    }

    #[test]
    fn a_refused_store_that_restarts_is_one_entry_and_the_file_is_not_written_at_each_try() {
        let mut file = FencedFile::new("barn");
        assert!(file.note(&chain(&[1, 2]), fenced(2, 1_000)));
        assert!(!file.note(&chain(&[1, 2]), fenced(2, 20_000)));
        assert!(file.note(&chain(&[1, 2]), fenced(2, 70_000)));
        assert!(file.note(&chain(&[1, 2, 3]), fenced(3, 71_000)));
        assert!(
            file.note(&chain(&[1, 9]), fenced(9, 71_000)),
            "a clone is another store"
        );
        let known: Vec<_> = file.fenced.iter().map(|known| (known.epoch, known.first_ms)).collect();
        assert_eq!(known, [(3, 1_000), (9, 71_000)]);
        assert!(file.lift(&chain(&[1, 2, 3, 4]), false));
        assert_eq!(file.fenced.len(), 1);
    }

    #[test]
    fn more_refused_stores_than_are_remembered_push_out_the_oldest() {
        let mut file = FencedFile::new("barn");
        for id in 1..=20 {
            file.note(&chain(&[id]), fenced(id, 0));
        }
        assert_eq!(file.fenced.len(), FENCED_MAX);
        assert_eq!(file.fenced[0].epoch, 13);
    }
}
