//! A disk that loses power: a file system in user space which knows what of it was synced.
//!
//! In: the operations of a real node, by FUSE. Out: after a cut, only what a disk may hold then. [`PendingFs`] is the model, pure and
//! tested without FUSE; [`PowerDisk`] mounts it. `docs/rigs.md` tells what is modelled and what is not.

mod adapter;
mod content;
mod crash;
mod disk;
mod faults;
mod image;
mod pending;
mod switch;
#[cfg(test)]
mod tests;

pub use content::Content;
pub use crash::{CutPlan, CutReport, Survivors, Torn};
pub use disk::PowerDisk;
pub use faults::{Fault, Faults, OpKind};
pub use image::{Entry, Image, Ino, ROOT};
pub use pending::{Attr, FsError, FsResult, PendingFs};
pub use switch::{Counts, Trigger};
