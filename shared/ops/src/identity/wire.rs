//! Messages of a join: one [`JoinRequest`] and one [`JoinReply`] on a bidirectional stream of its own.
//!
//! Each is a JSON text behind its length (u32, big-endian), at most [`MESSAGE_BYTES_MAX`]. The edge sends its request
//! only after the handshake with [`super::join_client_config`] has checked the CA's fingerprint.
//! Works on any byte stream; knows nothing of QUIC. Whoever calls sets the deadline.

use std::fmt;
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::cloud::Issued;
use super::error::JoinError;
use super::secret::Secret;
use super::token::decode_32;

/// Version of these messages.
pub const JOIN_VERSION: u32 = 1;
/// Largest message, without its length.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Asks for a certificate. Its `Debug` form hides the secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// [`JOIN_VERSION`].
    pub version: u32,
    /// Number of the token.
    pub token_id: String,
    pub(super) secret: String,
    /// Certificate request (PEM) with the edge's name and public key.
    pub csr_pem: String,
}

impl JoinRequest {
    pub(super) fn secret(&self) -> Option<Secret<[u8; 32]>> {
        decode_32(&self.secret).ok().map(Secret::new)
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("version", &self.version)
            .field("token_id", &self.token_id)
            .finish_non_exhaustive()
    }
}

/// Answer to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinReply {
    /// The edge is in.
    Issued(Issued),
    /// It is not.
    Refused {
        /// Short name of the reason, see [`JoinError::code`].
        code: String,
        /// One line for a person.
        text: String,
    },
}

impl From<Result<Issued, JoinError>> for JoinReply {
    fn from(outcome: Result<Issued, JoinError>) -> Self {
        match outcome {
            Ok(issued) => Self::Issued(issued),
            Err(e) => Self::Refused {
                code: e.code().into(),
                text: e.for_edge(),
            },
        }
    }
}

/// A message cannot be read or written. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The stream ended or failed.
    #[error("the connection broke during the join: {0}")]
    Io(#[from] io::Error),
    /// The length in front is too large.
    #[error("a join message of {size} bytes is larger than {MESSAGE_BYTES_MAX}")]
    TooLarge {
        /// Length as announced.
        size: usize,
    },
    /// The text is none of the messages.
    #[error("a join message is malformed")]
    Malformed,
}

/// Writes `message` with its length in front.
pub async fn write<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> Result<(), WireError> {
    let body = serde_json::to_vec(message).map_err(|_| WireError::Malformed)?;
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { size: body.len() });
    }
    let length = u32::try_from(body.len()).map_err(|_| WireError::TooLarge { size: body.len() })?;
    stream.write_u32(length).await?;
    stream.write_all(&body).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one message.
pub async fn read<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, WireError> {
    let size = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if size > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { size });
    }
    let mut body = vec![0; size];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|_| WireError::Malformed)
}
