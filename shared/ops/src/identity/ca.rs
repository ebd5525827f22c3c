//! [`CloudCa`]: the certificate authority of a cloud. It signs the cloud's own certificate and those of its edges.
//!
//! In: `<data>/identity/ca.key` (0600) and `ca.crt`, made at first start, or files that the operator gives.
//! Out: certificates. Server and edge certificates differ by their purpose (server or client authentication), so none
//! can pass for the other.
//! All certificates are valid from 1970 on: a gateway without a battery clock must be able to connect before it knows
//! the time. Two processes that start at once end with the same CA.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fellbeck_core::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::error::IdentityError;
use super::fingerprint::Fingerprint;
use super::name::EdgeName;
use super::peer::edge_uri;
use super::tls::{CLOUD_NAME, ring_provider};
use crate::files::{self, Access};

/// Days for which the CA is valid.
const CA_DAYS: u64 = 30 * 365;
/// Days for which the cloud's own certificate is valid. It is made at each start and renewed while running.
pub(super) const SERVER_DAYS: u64 = 365;
/// Days for which an edge's certificate is valid.
const EDGE_DAYS: u64 = 10 * 365;
/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 64 * 1024;

/// A CA that the operator gives, instead of one made at first start.
#[derive(Debug, Clone)]
pub struct CaFiles {
    /// Certificate (PEM); it must be allowed to sign certificates.
    pub certificate: PathBuf,
    /// Its private key (PEM, PKCS#8).
    pub key: PathBuf,
}

/// Certificate authority of a cloud.
pub struct CloudCa {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for CloudCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloudCa")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl CloudCa {
    /// Opens the CA in `<data>/identity`, making it if there is none.
    pub(super) fn open_or_create(data_dir: &Path, now: WallTime) -> Result<Self, IdentityError> {
        let dir = data_dir.join("identity");
        files::create_private_dir(&dir).map_err(IdentityError::io(&dir))?;
        let given = CaFiles {
            certificate: dir.join("ca.crt"),
            key: dir.join("ca.key"),
        };
        let has_certificate = given.certificate.exists();
        if !given.key.exists() {
            if has_certificate {
                let reason = "the CA's key is missing although its certificate is there; put the key back, or move \
                              the certificate away to make a new CA (all edges must then join again)";
                return Err(IdentityError::invalid(&given.key, reason));
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            files::create_atomic(&given.key, key.serialize_pem().as_bytes(), Access::Private)
                .map_err(IdentityError::io(&given.key))?;
        }
        if !has_certificate {
            let key = read_key(&given.key)?;
            let certificate = ca_params(&key, now).self_signed(&key)?;
            files::create_atomic(&given.certificate, certificate.pem().as_bytes(), Access::Public)
                .map_err(IdentityError::io(&given.certificate))?;
        }
        Self::open(&given, now)
    }

    /// Opens the CA in `given` and checks that it can do its work.
    pub(super) fn open(given: &CaFiles, now: WallTime) -> Result<Self, IdentityError> {
        let key = read_key(&given.key)?;
        let path = &given.certificate;
        let pem = files::read_bounded(path, PEM_BYTES_MAX).map_err(IdentityError::io(path))?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|e| IdentityError::invalid(path, format!("not a certificate in PEM form: {e}")))?;
        check_ca(&certificate, &key, now).map_err(|reason| IdentityError::invalid(path, reason))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { certificate, issuer })
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate, as join tokens carry it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The certificate in PEM form.
    #[must_use]
    pub fn pem(&self) -> String {
        pem_of(&self.certificate)
    }

    /// A fresh certificate with key for the cloud's link endpoint. The key never leaves memory.
    pub(super) fn issue_server(&self, now: WallTime) -> Result<Arc<CertifiedKey>, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = leaf_params(CLOUD_NAME, now, SERVER_DAYS);
        params.subject_alt_names = vec![SanType::DnsName(CLOUD_NAME.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &ring_provider())?))
    }

    /// A certificate for the edge `name`. Of `request` only the public key is used.
    pub(super) fn issue_edge(
        &self,
        request: CertificateSigningRequestParams,
        name: &EdgeName,
        instance: u32,
        now: WallTime,
    ) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = leaf_params(name.as_str(), now, EDGE_DAYS);
        params.subject_alt_names = vec![SanType::URI(edge_uri(name, instance).as_str().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let request = CertificateSigningRequestParams {
            params,
            public_key: request.public_key,
        };
        Ok(request.signed_by(&self.issuer)?.der().clone())
    }
}

fn ca_params(key: &KeyPair, now: WallTime) -> CertificateParams {
    // The name carries a piece of the key, so that two CAs never share a subject.
    let id = &super::fingerprint::to_hex(&super::secret::sha256(key.der_bytes()))[..8];
    let mut params = leaf_params(&format!("Fellbeck CA {id}"), now, CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    params
}

fn leaf_params(common_name: &str, now: WallTime, days: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = days_after(now, days);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn days_after(now: WallTime, days: u64) -> OffsetDateTime {
    // A clock that stands far in the future must not keep the cloud from starting: the last second X.509 can name.
    const LAST: i64 = 253_402_300_799;
    let seconds = (now.0 / 1000).saturating_add(days * 86_400);
    let seconds = i64::try_from(seconds).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn read_key(path: &Path) -> Result<KeyPair, IdentityError> {
    let pem = files::read_bounded(path, PEM_BYTES_MAX).map_err(IdentityError::io(path))?;
    files::keep_private(path);
    let refuse = || IdentityError::invalid(path, "not a private key in PEM form (PKCS#8)");
    KeyPair::from_pem(std::str::from_utf8(&pem).map_err(|_| refuse())?).map_err(|_| refuse())
}

/// Whether `certificate` is a CA that is valid now and belongs to `key`.
fn check_ca(certificate: &CertificateDer<'_>, key: &KeyPair, now: WallTime) -> Result<(), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|e| format!("not a certificate: {e}"))?;
    let constraints = parsed
        .basic_constraints()
        .map_err(|e| format!("not a CA certificate: {e}"))?;
    if !constraints.is_some_and(|c| c.value.ca) {
        return Err("not a CA certificate: basic constraints do not say CA".into());
    }
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err("the certificate does not belong to the CA's key".into());
    }
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    if parsed.validity().not_after.timestamp() <= seconds {
        return Err(format!(
            "the CA expired at {}; edges must join a new CA",
            parsed.validity().not_after
        ));
    }
    Ok(())
}

/// `certificate` in PEM form.
pub(super) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
