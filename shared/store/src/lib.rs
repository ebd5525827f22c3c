//! (in work)
pub mod commit;
pub mod committed;
