//! Errors of the identity: of its files ([`IdentityError`]) and of a join ([`JoinError`]).
//!
//! Each is one line that names the file or the rule and says what to do. None repeats a secret.

use std::io;
use std::path::{Path, PathBuf};

use super::name::EdgeName;

/// Keys or certificates cannot be read, made or used. Nothing has been replaced.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there, but is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A key or certificate cannot be made.
    #[error("a key or certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Keys and certificates cannot be used for TLS.
    #[error("the certificates cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// What the cloud sent in answer to a join does not fit the token.
    #[error("the cloud's answer was refused: {0}; nothing was stored")]
    Answer(&'static str),
}

impl IdentityError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(super) fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Why the cloud refuses a join. Unless said otherwise the token is still good.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The request speaks another version.
    #[error("the edge speaks join version {edge}, this cloud speaks {cloud}: update the older of the two")]
    Version {
        /// Version of the request.
        edge: u32,
        /// Version of this cloud.
        cloud: u32,
    },
    /// No such token, or its secret is another.
    #[error(
        "the join token is wrong: this cloud never made it, or it was mistyped; \
         make one with `fellbeck-cloud token create`"
    )]
    Wrong,
    /// The token was redeemed before; it works once.
    #[error(
        "the join token for edge {edge} was already used; \
         make a new one with `fellbeck-cloud token create --edge {edge}`"
    )]
    Used {
        /// Edge that the token names.
        edge: EdgeName,
    },
    /// The token's time is over.
    #[error(
        "the join token for edge {edge} has expired; make a new one with `fellbeck-cloud token create --edge {edge}`"
    )]
    Expired {
        /// Edge that the token names.
        edge: EdgeName,
    },
    /// The certificate request names another edge than the token.
    #[error("the join token is for edge {token}, but the certificate request names {request:?}")]
    Name {
        /// Edge that the token names.
        token: EdgeName,
        /// Name in the request, cut to the length of a name.
        request: String,
    },
    /// The certificate request is malformed or its signature is wrong.
    #[error("the certificate request was refused: {0}")]
    Request(String),
    /// The cloud failed; if the token had been taken already it is spent. The edge is told [`JoinError::for_edge`].
    #[error("a join failed on the cloud's side: {0}")]
    Cloud(#[from] IdentityError),
}

impl JoinError {
    /// Short name, used on the wire and as metric label.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version { .. } => "version",
            Self::Wrong => "wrong",
            Self::Used { .. } => "used",
            Self::Expired { .. } => "expired",
            Self::Name { .. } => "name",
            Self::Request(_) => "request",
            Self::Cloud(_) => "cloud",
        }
    }

    /// What the edge is told: all of it, but no path of the cloud's files.
    #[must_use]
    pub fn for_edge(&self) -> String {
        match self {
            Self::Cloud(_) => {
                "the cloud could not store the new identity; its log says why. Make a new token and join again".into()
            }
            other => other.to_string(),
        }
    }
}
