//! Ingest: takes the links of edges and appends what they bring to the log, once.
//!
//! In: QUIC connections on one UDP socket. Out: commits of the store, acknowledgements to the edges; certificates for those that join.
//! [`accept`] lets connections in and tells links from joins, [`edges`] keeps at most one link per edge, [`driver`] runs one link.
//! Decides nothing about data: [`fellbeck_link`] does.

pub(crate) mod accept;
mod admit;
pub(crate) mod append;
#[cfg(test)]
mod append_tests;
mod driver;
pub(crate) mod edges;
pub(crate) mod flow;
mod ground;
mod join;
pub(crate) mod noise;
mod streams;
