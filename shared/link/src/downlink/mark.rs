//! How far an edge has taken what came down: so that nothing is published twice when it is sent again.
//!
//! In: positions of messages. Out: whether one is new. A mark is true only of the log and the opening in which it was made: see
//! [`Openings`](super::Openings).

use fellbeck_core::LogPosition;
use fellbeck_core::limits::NAME_BYTES_MAX;

use super::frame::{put_position, take_position};
use crate::wire::{put_text, take_id, take_text, take_u8};

/// Version of the stored form.
const VERSION: u8 = 1;

/// The newest message that an edge has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownMark {
    /// Log of the cloud that sent it.
    pub log_id: [u8; 16],
    /// Opening of that log in which it was sent.
    pub opening: [u8; 16],
    /// Its place in that log. All that the cloud sent this edge up to here has been taken.
    pub position: LogPosition,
}

impl DownMark {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.opening);
        put_position(out, self.position);
    }

    pub(super) fn take(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            log_id: take_id(input)?,
            opening: take_id(input)?,
            position: take_position(input)?,
        })
    }
}

/// A mark as the edge's store keeps it: of one name of the edge, since another name is another reader in the cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMark {
    /// Name of the edge.
    pub edge: String,
    /// Its mark.
    pub mark: DownMark,
}

impl StoredMark {
    /// The bytes for the store.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.edge);
        self.mark.put(&mut out);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote. `None`: damaged, or of a version that this code does not know.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes;
        let version = take_u8(&mut input)?;
        let stored = Self {
            edge: take_text(&mut input, NAME_BYTES_MAX)?.to_owned(),
            mark: DownMark::take(&mut input)?,
        };
        (version == VERSION && input.is_empty()).then_some(stored)
    }
}
