//! [`CloudIdentity`]: all that the cloud needs to let edges in: CA, registry, tokens.
//!
//! In: `<data>` and perhaps a CA of the operator. Out: join tokens, redeemed joins, the answer whether an edge may
//! connect, and the TLS configuration of the link endpoint.
//! Tokens can be made by the command line while the node runs: all state is in files that are whole at any moment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fellbeck_core::WallTime;
use rcgen::{CertificateSigningRequestParams, DnType, DnValue};
use serde::{Deserialize, Serialize};

use super::ca::{CaFiles, CloudCa, pem_of};
use super::error::{IdentityError, JoinError};
use super::fingerprint::Fingerprint;
use super::name::{EdgeName, NAME_BYTES_MAX};
use super::registry::EdgeRegistry;
use super::secret::{Secret, random};
use super::token::{JoinToken, TokenId};
use super::token_store::TokenStore;
use super::wire::{JOIN_VERSION, JoinRequest};
use crate::config::HostPorts;

/// What an edge gets for its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// The edge's certificate.
    pub cert_pem: String,
    /// The cloud's CA.
    pub ca_pem: String,
    /// Instance of the edge from now on.
    pub instance: u32,
}

/// Identity of a cloud.
#[derive(Debug)]
pub struct CloudIdentity {
    ca: Arc<CloudCa>,
    edges: EdgeRegistry,
    tokens: TokenStore,
}

impl CloudIdentity {
    /// How long a token is good unless said otherwise.
    pub const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

    /// Opens the identity in `data_dir`, making a CA if there is none and `given` names none.
    pub fn open(data_dir: &Path, given: Option<&CaFiles>, now: WallTime) -> Result<Self, IdentityError> {
        let ca = match given {
            Some(files) => CloudCa::open(files, now)?,
            None => CloudCa::open_or_create(data_dir, now)?,
        };
        Ok(Self {
            ca: Arc::new(ca),
            edges: EdgeRegistry::open(data_dir)?,
            tokens: TokenStore::open(data_dir)?,
        })
    }

    /// The CA.
    #[must_use]
    pub fn ca(&self) -> &Arc<CloudCa> {
        &self.ca
    }

    /// The edges that have joined; [`EdgeRegistry::admit`] decides on each link.
    #[must_use]
    pub fn edges(&self) -> &EdgeRegistry {
        &self.edges
    }

    /// Makes a token with which `edge` can join once, at one of the addresses `cloud`, within `lifetime`.
    pub fn create_token(
        &self,
        edge: &EdgeName,
        cloud: &HostPorts,
        lifetime: Duration,
        now: WallTime,
    ) -> Result<JoinToken, IdentityError> {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let token = JoinToken {
            id: TokenId::new(),
            edge: edge.clone(),
            cloud: cloud.clone(),
            ca: self.ca.fingerprint(),
            secret: Secret::new(random()),
            // Whole seconds, as the text of the token carries them.
            expires: WallTime(now.0.saturating_add(lifetime) / 1000 * 1000),
        };
        self.tokens.add(&token, now)?;
        Ok(token)
    }

    /// Redeems a token: checks it, takes it, raises the instance of the edge and signs its certificate.
    ///
    /// The older instance of the same name is superseded from then on. After [`JoinError::Cloud`] the token may be
    /// spent; after any other error it is as before.
    pub fn redeem(&self, request: &JoinRequest, now: WallTime) -> Result<Issued, JoinError> {
        if request.version != JOIN_VERSION {
            return Err(JoinError::Version {
                edge: request.version,
                cloud: JOIN_VERSION,
            });
        }
        let id: TokenId = request.token_id.parse().map_err(|_| JoinError::Wrong)?;
        let secret = request.secret().ok_or(JoinError::Wrong)?;
        let edge = self.tokens.check(id, secret.expose(), now)?;
        let csr = parse_request(&request.csr_pem, &edge)?;
        self.tokens.take(id, &edge)?;
        let (certificate, instance) = self.edges.raise(&edge, now, |instance| {
            let certificate = self.ca.issue_edge(csr, &edge, instance, now)?;
            let fingerprint = Fingerprint::of(&certificate);
            Ok((certificate, fingerprint))
        })?;
        tracing::info!(edge = %edge, instance, token = %id, "an edge has joined");
        Ok(Issued {
            cert_pem: pem_of(&certificate),
            ca_pem: self.ca.pem(),
            instance,
        })
    }
}

/// Parses a certificate request, checks its signature and that it names `edge`.
fn parse_request(pem: &str, edge: &EdgeName) -> Result<CertificateSigningRequestParams, JoinError> {
    let csr = CertificateSigningRequestParams::from_pem(pem).map_err(|e| JoinError::Request(e.to_string()))?;
    let name = match csr.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => name.as_str(),
        Some(DnValue::PrintableString(name)) => name.as_str(),
        _ => "",
    };
    if name != edge.as_str() {
        let request = name.chars().take(NAME_BYTES_MAX).collect();
        return Err(JoinError::Name {
            token: edge.clone(),
            request,
        });
    }
    Ok(csr)
}
