//! [`JoinToken`]: the text that an operator carries from the cloud to an edge: `fbj1.` and base64url of a small JSON.
//!
//! In: what `token create` made, or the text given to `join`. Out: addresses of the cloud, fingerprint of its CA, name
//! of the edge, a secret and the expiry. The text is a secret as a whole until it is redeemed; it works once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fellbeck_core::WallTime;
use serde::{Deserialize, Serialize};

use super::fingerprint::{Fingerprint, from_hex, to_hex};
use super::name::EdgeName;
use super::secret::{Secret, random};
use crate::config::HostPorts;

/// How every token begins.
pub const TOKEN_PREFIX: &str = "fbj1.";
/// Longest token that is parsed.
const TOKEN_BYTES_MAX: usize = 4096;

/// Number of a token, in the open: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenId([u8; 8]);

impl TokenId {
    pub(super) fn new() -> Self {
        Self(random())
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        from_hex(text).map(Self).ok_or(TokenError::Damaged)
    }
}

/// The text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin like one.
    #[error("not a join token: it begins with \"{TOKEN_PREFIX}\"; make one with `fellbeck-cloud token create`")]
    Prefix,
    /// It begins like one, but the rest cannot be read.
    #[error("the join token is damaged: copy it again, whole and on one line")]
    Damaged,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Number under which the cloud keeps it.
    pub id: TokenId,
    /// Name that the edge gets.
    pub edge: EdgeName,
    /// Where the cloud's link endpoint is reached.
    pub cloud: HostPorts,
    /// Fingerprint of the cloud's CA.
    pub ca: Fingerprint,
    /// Proves that the cloud's operator let this edge in.
    pub secret: Secret<[u8; 32]>,
    /// When it ends, by the cloud's clock. The edge does not judge it, since its own clock may be wrong.
    pub expires: WallTime,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    i: String,
    e: EdgeName,
    c: HostPorts,
    f: String,
    s: String,
    x: u64,
}

impl JoinToken {
    /// The text to hand over. It is a secret.
    #[must_use]
    pub fn to_text(&self) -> String {
        let wire = Wire {
            i: self.id.to_string(),
            e: self.edge.clone(),
            c: self.cloud.clone(),
            f: URL_SAFE_NO_PAD.encode(self.ca.0),
            s: URL_SAFE_NO_PAD.encode(self.secret.expose()),
            x: self.expires.0 / 1000,
        };
        let json = serde_json::to_vec(&wire).expect("a token is always JSON");
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let body = text.trim().strip_prefix(TOKEN_PREFIX).ok_or(TokenError::Prefix)?;
        if body.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Damaged);
        }
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| TokenError::Damaged)?;
        if wire.c.0.is_empty() {
            return Err(TokenError::Damaged);
        }
        Ok(Self {
            id: wire.i.parse()?,
            edge: wire.e,
            cloud: wire.c,
            ca: Fingerprint(decode_32(&wire.f)?),
            secret: Secret::new(decode_32(&wire.s)?),
            expires: WallTime(wire.x.saturating_mul(1000)),
        })
    }
}

/// 32 bytes from base64url.
pub(super) fn decode_32(text: &str) -> Result<[u8; 32], TokenError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|b| b.try_into().ok())
        .ok_or(TokenError::Damaged)
}

/// Base64url of 32 bytes.
pub(super) fn encode_32(bytes: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
