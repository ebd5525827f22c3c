//! Bounds of the link protocol. What a peer may make this node hold follows from these numbers and the credit window.
//! Those that edge, cloud and store must agree on, such as the largest frame of a lane, are in `core::limits`.

use fellbeck_core::limits::{CHAIN_MAX, NAME_BYTES_MAX};

/// Version of the protocol that this code speaks; the first byte of a Hello.
pub const VERSION: u8 = 1;
/// Bytes of the length prefix of a frame.
pub const PREFIX: usize = 4;
/// Largest frame of a control stream. A Hello with every list full stays below it.
pub const CONTROL_FRAME_MAX: usize = 64 * 1024;
/// Lanes and runs in one Hello.
pub const LANES_MAX: usize = 64;
/// Bytes of the text of a refusal; longer texts are cut before they are sent.
pub const TEXT_MAX: usize = 1024;
/// Largest sequence number on the wire: leaves room so that no sum with a record count overflows.
pub const SEQ_MAX: u64 = 1 << 62;
/// Largest epoch on the wire, so that the next one always exists.
pub const EPOCH_MAX: u32 = u32::MAX - 1;
/// What a lane frame costs at least in credit. Bounds the number of frames in a window, not only their bytes.
pub const FRAME_COST_MIN: u64 = 256;
/// Pongs that may wait for the control stream; a peer that pings faster than it reads loses the oldest.
pub const PONGS_MAX: usize = 8;
/// Events that may wait to be polled before the sender asks for no further read.
pub const EVENTS_MAX: usize = 256;

const _: () = assert!(
    LANES_MAX * (NAME_BYTES_MAX + 64) + CHAIN_MAX * 48 + NAME_BYTES_MAX + 64 <= CONTROL_FRAME_MAX,
    "a full Hello must fit a control frame"
);
