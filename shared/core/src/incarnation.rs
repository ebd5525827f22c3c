//! Incarnations of an edge's store: which opening minted a record, and of which earlier one it is the successor.
//!
//! The store writes one at each open; the edge shows the chain at Hello; the cloud tells a restart from a clone by it.
//! A chain in hand is well linked: epochs rise, and each names the one before as its parent.
//! Where the chain is stored, and its checksum there, are the store's business.

use crate::Epoch;
use crate::limits::CHAIN_MAX;

/// Encoded size of one incarnation.
pub const INCARNATION_BYTES: usize = 36;

/// Parent of the first incarnation.
pub const NO_PARENT: [u8; 16] = [0; 16];

const CHAIN_VERSION: u8 = 1;

/// Bytes that are not a chain of incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Written by a later version.
    #[error("incarnation chain of unknown version {0}")]
    Version(u8),
    /// Cut short, or with bytes behind its end.
    #[error("incarnation chain of {size} bytes does not fit its count")]
    Length {
        /// Size in bytes.
        size: usize,
    },
    /// Too many links, an epoch that does not rise, a parent that is not the one before, or an id of zeros.
    #[error("incarnation {index} does not follow the one before")]
    Link {
        /// Index of the first bad link, oldest first.
        index: usize,
    },
}

/// One opening of an edge's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Rises along the chain.
    pub epoch: Epoch,
    /// Random, never all zeros.
    pub id: [u8; 16],
    /// The incarnation before; [`NO_PARENT`] where there was none.
    pub parent: [u8; 16],
}

impl Incarnation {
    /// Encoded form: epoch (big-endian), id, parent.
    #[must_use]
    pub fn encode(&self) -> [u8; INCARNATION_BYTES] {
        let mut out = [0; INCARNATION_BYTES];
        out[..4].copy_from_slice(&self.epoch.0.to_be_bytes());
        out[4..20].copy_from_slice(&self.id);
        out[20..].copy_from_slice(&self.parent);
        out
    }

    /// The incarnation that `bytes` encode. Any bytes are one; whether it makes sense is the chain's question.
    #[must_use]
    pub fn decode(bytes: &[u8; INCARNATION_BYTES]) -> Self {
        let (epoch, rest) = bytes.split_first_chunk::<4>().expect("36 bytes hold 4");
        let (id, rest) = rest.split_first_chunk::<16>().expect("32 bytes hold 16");
        let (parent, _) = rest.split_first_chunk::<16>().expect("16 bytes hold 16");
        Self {
            epoch: Epoch(u32::from_be_bytes(*epoch)),
            id: *id,
            parent: *parent,
        }
    }
}

/// The last [`CHAIN_MAX`] incarnations, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IncarnationChain(Vec<Incarnation>);

impl IncarnationChain {
    /// Adds the next incarnation and forgets the oldest beyond the bound.
    ///
    /// Refused where it does not follow [`newest`](Self::newest); the chain is then unchanged.
    pub fn push(&mut self, next: Incarnation) -> Result<(), ChainError> {
        if !follows(self.newest(), &next) {
            return Err(ChainError::Link { index: self.0.len() });
        }
        if self.0.len() == CHAIN_MAX {
            self.0.remove(0);
        }
        self.0.push(next);
        Ok(())
    }

    /// Starts the successor of the newest incarnation, at an epoch of at least `epoch_min`. Returns it.
    ///
    /// `id` must be random and not all zeros, as [`push`](Self::push) checks.
    pub fn succeed(&mut self, id: [u8; 16], epoch_min: Epoch) -> Result<Incarnation, ChainError> {
        // The last epoch there is has no successor: a chain that claims it is damaged or forged.
        let above = match self.newest() {
            Some(last) => last
                .epoch
                .0
                .checked_add(1)
                .ok_or(ChainError::Link { index: self.0.len() })?,
            None => 0,
        };
        let next = Incarnation {
            epoch: Epoch(above).max(epoch_min),
            id,
            parent: self.newest().map_or(NO_PARENT, |last| last.id),
        };
        self.push(next).map(|()| next)
    }

    /// The running incarnation.
    #[must_use]
    pub fn newest(&self) -> Option<&Incarnation> {
        self.0.last()
    }

    /// The incarnation with this id, if it is remembered.
    #[must_use]
    pub fn find(&self, id: &[u8; 16]) -> Option<&Incarnation> {
        self.0.iter().rev().find(|incarnation| incarnation.id == *id)
    }

    /// All that are remembered, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Incarnation] {
        &self.0
    }

    /// Encoded form: version, count, then the incarnations, oldest first. Without a checksum.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 + self.0.len() * INCARNATION_BYTES);
        out.push(CHAIN_VERSION);
        out.push(u8::try_from(self.0.len()).expect("a chain holds at most 64 incarnations"));
        self.0
            .iter()
            .for_each(|incarnation| out.extend_from_slice(&incarnation.encode()));
        out
    }

    /// Decodes a whole chain and checks its links. An empty chain is one.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        let (&[version, count], rest) = bytes
            .split_first_chunk::<2>()
            .ok_or(ChainError::Length { size: bytes.len() })?;
        if version != CHAIN_VERSION {
            return Err(ChainError::Version(version));
        }
        let (links, tail) = rest.as_chunks::<INCARNATION_BYTES>();
        if links.len() != usize::from(count) || !tail.is_empty() {
            return Err(ChainError::Length { size: bytes.len() });
        }
        if links.len() > CHAIN_MAX {
            return Err(ChainError::Link { index: CHAIN_MAX });
        }
        let mut chain = Self(Vec::with_capacity(links.len()));
        for link in links {
            chain.push(Incarnation::decode(link))?;
        }
        Ok(chain)
    }
}

/// The oldest remembered one may name a parent that is forgotten; each later one names its predecessor.
fn follows(last: Option<&Incarnation>, next: &Incarnation) -> bool {
    next.id != NO_PARENT && last.is_none_or(|last| last.epoch < next.epoch && last.id == next.parent)
}

const _: () = assert!(CHAIN_MAX <= u8::MAX as usize, "the count of a chain is one byte");

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> [u8; 16] {
        [n; 16]
    }

    fn chain_of(links: u8) -> IncarnationChain {
        let mut chain = IncarnationChain::default();
        for n in 1..=links {
            chain.succeed(id(n), Epoch(0)).unwrap();
        }
        chain
    }

    #[test]
    fn a_chain_keeps_the_last_64_and_comes_back_from_its_bytes() {
        let chain = chain_of(70);
        assert_eq!(chain.as_slice().len(), CHAIN_MAX);
        assert_eq!(chain.find(&id(6)), None);
        assert_eq!(chain.as_slice()[0].parent, id(6));
        assert_eq!(chain.newest().unwrap().epoch, Epoch(69));
        assert_eq!(IncarnationChain::decode(&chain.encode()), Ok(chain));
        assert_eq!(IncarnationChain::decode(&[1, 0]), Ok(IncarnationChain::default()));
    }

    #[test]
    fn an_adopted_epoch_skips_ahead_and_never_falls_back() {
        let mut chain = chain_of(2);
        assert_eq!(chain.succeed(id(8), Epoch(40)).unwrap().epoch, Epoch(40));
        assert_eq!(chain.succeed(id(9), Epoch(3)).unwrap().epoch, Epoch(41));
    }

    #[test]
    fn the_last_epoch_there_is_has_no_successor() {
        let mut chain = chain_of(1);
        chain.succeed(id(7), Epoch(u32::MAX)).unwrap();
        let before = chain.clone();
        assert_eq!(chain.succeed(id(8), Epoch(0)), Err(ChainError::Link { index: 2 }));
        assert_eq!(chain, before);
        assert_eq!(IncarnationChain::decode(&chain.encode()), Ok(chain));
    }

    #[test]
    fn links_that_do_not_follow_are_refused() {
        let mut chain = chain_of(2);
        let good = Incarnation {
            epoch: Epoch(9),
            id: id(9),
            parent: id(2),
        };
        for bad in [
            Incarnation {
                epoch: Epoch(1),
                ..good
            },
            Incarnation { parent: id(1), ..good },
            Incarnation { id: NO_PARENT, ..good },
        ] {
            assert_eq!(chain.push(bad), Err(ChainError::Link { index: 2 }));
        }
        assert_eq!(chain, chain_of(2));
        let mut bytes = chain_of(3).encode();
        bytes.swap(2 + 4, 2 + INCARNATION_BYTES + 4);
        assert!(matches!(IncarnationChain::decode(&bytes), Err(ChainError::Link { .. })));
    }

    #[test]
    fn a_chain_cut_anywhere_is_refused() {
        let bytes = chain_of(3).encode();
        for cut in 0..bytes.len() {
            assert_eq!(
                IncarnationChain::decode(&bytes[..cut]),
                Err(ChainError::Length { size: cut })
            );
        }
        assert_eq!(IncarnationChain::decode(&[9, 0]), Err(ChainError::Version(9)));
    }
}
