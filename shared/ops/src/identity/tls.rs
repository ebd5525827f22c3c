//! TLS configurations of the link and of the join: TLS 1.3 only, ring provider, no default of the process needed.
//!
//! In: identities. Out: `rustls` configurations for the QUIC drivers.
//! ONE server endpoint serves both ALPNs, so TLS itself cannot demand a certificate from everyone: client certificates
//! are optional here, verified when shown, and **the driver refuses a link without one** (`PeerError::None`).
//! The cloud's certificate always names [`CLOUD_NAME`], whatever address was dialled: dial with that server name.
//! 0-RTT stays off on both sides, since its data could be replayed.

use std::sync::{Arc, OnceLock};

use fellbeck_core::WallTime;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::cloud::CloudIdentity;
use super::edge::EdgeKeys;
use super::error::IdentityError;
use super::fingerprint::Fingerprint;
use super::hot_certificate::HotCertificate;

/// Name in the cloud's certificate. Dial with it as server name.
pub const CLOUD_NAME: &str = "fellbeck-cloud";
/// ALPN of the link; needs a client certificate.
pub const LINK_ALPN: &[u8] = b"fellbeck/1";
/// ALPN of the link between nodes that both know the downlink; else as [`LINK_ALPN`].
pub const LINK_ALPN_DOWNLINK: &[u8] = b"fellbeck/1.1";
/// ALPN of the join; the client has no certificate yet.
pub const JOIN_ALPN: &[u8] = b"fellbeck-join/1";
/// Certificates of a chain that are compared with a fingerprint.
const CHAIN_MAX: usize = 8;

pub(crate) fn ring_provider() -> Arc<CryptoProvider> {
    static RING: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    RING.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
        .clone()
}

/// For the uplink: shows the edge's certificate and accepts only the cloud that it joined.
pub fn edge_client_config(keys: &EdgeKeys) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(&keys.ca)?)
        .with_client_auth_cert(vec![keys.certificate.clone()], keys.key.expose().clone_key())?;
    config.alpn_protocols = vec![LINK_ALPN_DOWNLINK.to_vec(), LINK_ALPN.to_vec()];
    Ok(config)
}

/// For a join: accepts only a cloud whose chain holds the CA with `fingerprint`, which the token carries.
pub fn join_client_config(fingerprint: Fingerprint) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { fingerprint }))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    Ok(config)
}

/// For the cloud's link endpoint. Client certificates are optional: see the head of this module.
pub fn cloud_server_config(cloud: &CloudIdentity, now: WallTime) -> Result<ServerConfig, IdentityError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(cloud.ca().certificate())?), ring_provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
    let certificate = HotCertificate::new(cloud.ca().clone(), now)?;
    let mut config = ServerConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = [LINK_ALPN_DOWNLINK, LINK_ALPN, JOIN_ALPN].map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone())?;
    Ok(roots)
}

/// Accepts a server whose chain holds the CA with the fingerprint, and whose certificate that CA signed.
#[derive(Debug)]
struct PinnedCa {
    fingerprint: Fingerprint,
}

/// The chain does not hold the CA of the token.
#[derive(thiserror::Error)]
#[error(
    "the CA of the server does not have the fingerprint that the token names (SHA-256 {0}): either this is another \
     cloud, or somebody stands in between. Nothing secret was sent"
)]
struct OtherCa(Fingerprint);

/// `rustls` shows the `Debug` form of such an error, so that is where the text must be.
impl std::fmt::Debug for OtherCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .take(CHAIN_MAX)
            .find(|certificate| Fingerprint::of(certificate) == self.fingerprint)
            .ok_or_else(|| CertificateError::Other(OtherError(Arc::new(OtherCa(self.fingerprint)))))?;
        let roots = Arc::new(roots(&ca.clone().into_owned())?);
        let inner = WebPkiServerVerifier::builder_with_provider(roots, ring_provider())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let name = ServerName::try_from(CLOUD_NAME).map_err(|e| rustls::Error::General(e.to_string()))?;
        inner.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ring_provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Which side reports a failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The edge that dials.
    Edge,
    /// The cloud that is dialled.
    Cloud,
}

/// What a failed handshake means and what to do, for a QUIC error code from 0x100 to 0x1ff (0x100 + the TLS alert).
///
/// The alerts are the same whether this side or the other raised them: an unknown CA is one misfit of two.
#[must_use]
pub fn explain_crypto_error(code: u64, side: Side) -> Option<&'static str> {
    let alert = code.checked_sub(0x100)?;
    let (edge, cloud) = match alert {
        // unknown_ca, decrypt_error, bad_certificate, certificate_unknown
        48 | 51 | 42 | 46 => (
            "the cloud's CA is not that of this edge's identity or token; join with a token made on this cloud",
            "edge and cloud do not share a CA: the edge joined another cloud; let it join with a token made here",
        ),
        45 => (
            "a certificate has expired; check the clocks, or join again with a new token",
            "the edge's certificate has expired; let it join again with a new token",
        ),
        116 => (
            "the cloud wants a certificate: join first (`fellbeck-edge join TOKEN`)",
            "the edge shows no certificate; it must join first",
        ),
        120 => (
            "the server at this address does not speak Fellbeck's link protocol, or only another version of it",
            "the peer speaks another protocol or version",
        ),
        70 => ("the server does not speak TLS 1.3", "the peer does not speak TLS 1.3"),
        _ => return None,
    };
    Some(match side {
        Side::Edge => edge,
        Side::Cloud => cloud,
    })
}
