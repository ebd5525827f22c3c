//! Who is who: the cloud's CA, the certificates of edges, join tokens, and the TLS configurations made of them.
//!
//! In: the data directory, tokens, certificate requests, certificates of peers. Out: [`CloudIdentity`] on the cloud,
//! [`EdgeKeys`] on the edge, and `rustls` configurations for both, TLS 1.3 only, with the ring provider given
//! explicitly.
//! The cloud owns `<data>/identity` (CA), `<data>/edges` (one file per edge) and `<data>/tokens`; the edge owns
//! `<data>/identity/edge.json`. Keys and tokens are mode 0600, their directories 0700, and no secret can be printed.
//! An edge checks the CA's fingerprint from its token within the handshake, so the secret never goes to a stranger.
//! All of it is blocking and quick; a driver calls it through `spawn_blocking`.

mod ca;
mod cloud;
mod edge;
mod error;
mod fingerprint;
mod hot_certificate;
mod limiter;
mod name;
mod peer;
mod registry;
mod secret;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod token_store;
pub mod wire;

pub use ca::{CaFiles, CloudCa};
pub use cloud::{CloudIdentity, Issued};
pub use edge::{EdgeKeys, PendingJoin};
pub use error::{IdentityError, JoinError};
pub use fingerprint::Fingerprint;
pub use limiter::JoinLimiter;
pub use name::{EdgeName, EdgeNameError};
pub use peer::{EdgeIdentity, PeerError};
pub use registry::{EdgeEntry, EdgeRegistry, Refusal};
pub use secret::Secret;
pub(crate) use tls::ring_provider;
pub use tls::{
    CLOUD_NAME, JOIN_ALPN, LINK_ALPN, LINK_ALPN_DOWNLINK, Side, cloud_server_config, edge_client_config,
    explain_crypto_error, join_client_config,
};
pub use token::{JoinToken, TOKEN_PREFIX, TokenError, TokenId};
