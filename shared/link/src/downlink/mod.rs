//! The downlink: messages from the cloud to the devices of an edge, on a stream of their own.
//!
//! In and out: the frames of that stream ([`FromEdge`], [`FromCloud`]), and what each side keeps so that a message comes once: the
//! edge's [`DownMark`], the cloud's [`Openings`]. The stream is used only where both sides named the ALPN of this version, so an
//! older peer never sees one of its frames. No I/O, no clock. The bytes are drawn in `docs/format/link.md`.

mod frame;
mod mark;
mod openings;

pub use frame::{FromCloud, FromEdge, Messages, Open, Opened, Tag, Wanted};
pub use mark::{DownMark, StoredMark};
pub use openings::{Opening, Openings};

/// Filters that one edge may announce. Costs the cloud a subscription each.
pub const FILTERS_MAX: usize = 4096;
/// Bytes of all filters that one edge announces.
pub const FILTERS_BYTES_MAX: usize = 256 << 10;
/// Longest filter that an edge announces, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;
/// Messages of one frame, and messages that an edge may have unacknowledged.
pub const WINDOW_MAX: u16 = 1024;
