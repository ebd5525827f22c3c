//! Why a link is refused, and why one is left: the codes on the wire and what the edge does about them.

use std::time::Duration;

/// Why the cloud does not take the link of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RefuseCode {
    /// The Hello is of a version that the cloud does not speak.
    Version = 1,
    /// The Hello contradicts itself.
    Malformed = 2,
    /// The name in the Hello is not the one of the certificate.
    Name = 3,
    /// Another node with this identity is connected and answers.
    SecondIdentity = 4,
    /// The edge's history is not a continuation of the one the cloud knows: a clone or a restored backup.
    Fenced = 5,
    /// The cloud holds records that this edge, by its own account, has not minted yet.
    EdgeBehind = 6,
    /// The cloud takes no link just now (shutting down, too many edges).
    Busy = 7,
}

impl RefuseCode {
    /// The code with the wire number `n`.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        [
            Self::Version,
            Self::Malformed,
            Self::Name,
            Self::SecondIdentity,
            Self::Fenced,
            Self::EdgeBehind,
            Self::Busy,
        ]
        .into_iter()
        .find(|code| *code as u8 == n)
    }

    /// Name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Name => "name",
            Self::SecondIdentity => "second_identity",
            Self::Fenced => "fenced",
            Self::EdgeBehind => "edge_behind",
            Self::Busy => "busy",
        }
    }

    /// Least time until the edge should try again. `None`: the normal backoff will do.
    ///
    /// A refusal that only an operator can lift is retried slowly and for ever, so that lifting it needs no visit to
    /// the edge.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Busy => None,
            Self::SecondIdentity => Some(Duration::from_secs(15)),
            Self::Version | Self::Malformed | Self::Name | Self::Fenced | Self::EdgeBehind => {
                Some(Duration::from_secs(60))
            }
        }
    }
}

/// Why one side leaves a link that was working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ByeReason {
    /// The node shuts down.
    Shutdown = 1,
    /// A newer connection of the same incarnation takes over.
    TakenOver = 2,
    /// The other side broke the protocol.
    Protocol = 3,
    /// The cloud's W names a record that this edge minted differently: two histories under one name.
    Diverged = 4,
    /// The cloud's W lies above everything that the edge has minted.
    CloudAhead = 5,
    /// The edge leaves to adopt the epoch of the Welcome and comes back.
    Adopting = 6,
    /// A newer incarnation of the edge has been admitted in place of this one.
    Replaced = 7,
}

impl ByeReason {
    /// The reason with the wire number `n`.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        [
            Self::Shutdown,
            Self::TakenOver,
            Self::Protocol,
            Self::Diverged,
            Self::CloudAhead,
            Self::Adopting,
            Self::Replaced,
        ]
        .into_iter()
        .find(|reason| *reason as u8 == n)
    }

    /// Name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::TakenOver => "taken_over",
            Self::Protocol => "protocol",
            Self::Diverged => "diverged",
            Self::CloudAhead => "cloud_ahead",
            Self::Adopting => "adopting",
            Self::Replaced => "replaced",
        }
    }
}
