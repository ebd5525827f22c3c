//! (in work)
pub mod wire;
