//! What is already in the log: by position for what edges send again, by device message ID for what devices send again.
//!
//! The transport part is exact and without a time window: positions, O(edges x lanes x partitions). The device part remembers
//! identifiers within a stated window. Everything here is written in the commit of the records that it covers (I3, I4).

pub(crate) mod book;
pub(crate) mod device_id;
#[cfg(test)]
mod golden_tests;
pub(crate) mod index;
#[cfg(test)]
mod index_tests;
pub(crate) mod mark;
pub(crate) mod window;
