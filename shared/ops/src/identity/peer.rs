//! [`EdgeIdentity`]: who the other side of a link is, by its certificate.
//!
//! In: the certificate chain of a peer, whose signature, time and purpose TLS has checked already. Out: name, instance
//! and fingerprint, or why this is no certificate of an edge.
//! The registry then says whether that edge may connect ([`super::EdgeRegistry::admit`]).

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::fingerprint::Fingerprint;
use super::name::EdgeName;

/// Identity of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeIdentity {
    /// Name.
    pub name: EdgeName,
    /// Instance; rises with each join.
    pub instance: u32,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
}

/// The certificate is none of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The peer showed no certificate.
    #[error("the peer shows no certificate: an edge must join first (`fellbeck-edge join TOKEN`)")]
    None,
    /// The bytes are no certificate.
    #[error("the peer's certificate is malformed")]
    Malformed,
    /// The certificate was not made by a join.
    #[error("the peer's certificate is not that of an edge: it has no fellbeck://edge/ name")]
    NotAnEdge,
}

const URI_PREFIX: &str = "fellbeck://edge/";

/// The URI in an edge's certificate.
pub(super) fn edge_uri(name: &EdgeName, instance: u32) -> String {
    format!("{URI_PREFIX}{name}?instance={instance}")
}

impl EdgeIdentity {
    /// Reads the identity from the chain that the peer showed, its own certificate first.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, PeerError> {
        let certificate = chain.first().ok_or(PeerError::None)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerError::Malformed)?;
        let (name, instance) = edge_of(&parsed).ok_or(PeerError::NotAnEdge)?;
        Ok(Self {
            name,
            instance,
            fingerprint: Fingerprint::of(certificate),
        })
    }
}

/// Name and instance, if the subject and the only alternative name agree.
fn edge_of(certificate: &X509Certificate<'_>) -> Option<(EdgeName, u32)> {
    let names = certificate.subject_alternative_name().ok()??;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return None;
    };
    let (name, instance) = uri.strip_prefix(URI_PREFIX)?.split_once("?instance=")?;
    let name: EdgeName = name.parse().ok()?;
    let instance: u32 = instance.parse().ok()?;
    let mut subjects = certificate.subject().iter_common_name();
    let subject = subjects.next()?.as_str().ok()?;
    (subject == name.as_str() && subjects.next().is_none()).then_some((name, instance))
}
