//! Transport dedup: what of each edge is already in the log.
//!
//! Exact and without a time window: positions, O(edges x lanes x partitions). Everything here is written in the commit of the
//! records that it covers (I3, I4).

pub(crate) mod book;
#[cfg(test)]
mod golden_tests;
pub(crate) mod mark;
