//! Fenced edges: which stores were refused under a known name, and what the operator has decided about them.
//!
//! In: refusals of links; orders of `fellbeck-cloud edges`. Out: what admission asks, the status, the gauge. The running node writes
//! `<data>/fenced/NAME.json`, the command writes `<data>/orders/NAME.json`, and neither writes the other's: the command works whether
//! or not the node runs. Layouts: `docs/format/fencing.md`.

pub(crate) mod command;
mod fenced;
mod fences;
mod file;
mod id;
mod orders;

pub(crate) use fenced::{Fenced, Reason};
pub(crate) use fences::Fences;
pub(crate) use id::IncarnationId;
pub(crate) use orders::Orders;
