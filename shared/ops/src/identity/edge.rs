//! [`EdgeKeys`]: key, certificate and cloud of an edge, in `<data>/identity/edge.json` (0600).
//!
//! In: a join token and the cloud's answer. Out: what the uplink needs to connect. One file holds all of it, so that a
//! crash leaves the old identity or the new one, never a mixture. An edge without the file has not joined yet and
//! serves its devices all the same.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::cloud::Issued;
use super::error::IdentityError;
use super::fingerprint::Fingerprint;
use super::peer::EdgeIdentity;
use super::secret::Secret;
use super::token::{JoinToken, encode_32};
use super::wire::{JOIN_VERSION, JoinRequest};
use crate::config::HostPorts;
use crate::files::{self, Access};

const FILE_BYTES_MAX: u64 = 64 * 1024;
const VERSION: u32 = 1;

/// Identity of an edge that has joined.
#[derive(Debug)]
pub struct EdgeKeys {
    /// Name and instance, as in the certificate.
    pub identity: EdgeIdentity,
    /// Addresses of the cloud, as in the token. `uplink.cloud` in the configuration wins over them.
    pub cloud: HostPorts,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) ca: CertificateDer<'static>,
    pub(super) key: Secret<PrivateKeyDer<'static>>,
    file: Secret<File>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    cloud: HostPorts,
    key_pem: String,
    cert_pem: String,
    ca_pem: String,
}

impl EdgeKeys {
    /// Where the identity of the edge in `data_dir` is kept.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("identity").join("edge.json")
    }

    /// Reads the identity; `None` if the edge has not joined.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = Self::path(data_dir);
        let bytes = match files::read_bounded(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(IdentityError::io(&path)(e)),
        };
        files::keep_private(&path);
        // The parser's own text could repeat a piece of the key.
        let file: File = serde_json::from_slice(&bytes).map_err(|e| {
            let reason = format!("not an identity file (line {}); join again with a new token", e.line());
            IdentityError::invalid(&path, reason)
        })?;
        if file.version != VERSION {
            let reason = format!("made by another version ({}); this one knows {VERSION}", file.version);
            return Err(IdentityError::invalid(&path, reason));
        }
        let keys = Self::from_file(file)
            .map_err(|reason| IdentityError::invalid(&path, format!("{reason}; join again with a new token")))?;
        Ok(Some(keys))
    }

    /// Writes the identity, replacing an older one.
    pub fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = Self::path(data_dir);
        let dir = data_dir.join("identity");
        files::create_private_dir(&dir).map_err(IdentityError::io(&dir))?;
        let text = serde_json::to_vec_pretty(self.file.expose()).expect("an identity is always JSON");
        files::write_atomic(&path, &text, Access::Private).map_err(IdentityError::io(&path))
    }

    /// Fingerprint of the cloud's CA.
    #[must_use]
    pub fn ca_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.ca)
    }

    fn from_file(file: File) -> Result<Self, &'static str> {
        let certificate = CertificateDer::from_pem_slice(file.cert_pem.as_bytes())
            .map_err(|_| "the edge's certificate is malformed")?;
        let ca = CertificateDer::from_pem_slice(file.ca_pem.as_bytes()).map_err(|_| "the CA is malformed")?;
        let key = KeyPair::from_pem(&file.key_pem).map_err(|_| "the key is malformed")?;
        let identity = EdgeIdentity::from_chain(std::slice::from_ref(&certificate))
            .map_err(|_| "the certificate is not that of an edge")?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|_| "the edge's certificate is malformed")?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err("the certificate does not belong to the key");
        }
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Self {
            identity,
            cloud: file.cloud.clone(),
            certificate,
            ca,
            key: Secret::new(key),
            file: Secret::new(file),
        })
    }
}

/// A join that waits for the cloud's answer: a fresh key and the request for its certificate.
#[derive(Debug)]
pub struct PendingJoin {
    token: JoinToken,
    key: Secret<KeyPair>,
    csr_pem: String,
}

impl PendingJoin {
    /// Makes a key and a certificate request for the edge that `token` names.
    pub fn new(token: JoinToken) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, token.edge.as_str());
        let csr_pem = params.serialize_request(&key)?.pem()?;
        Ok(Self {
            token,
            key: Secret::new(key),
            csr_pem,
        })
    }

    /// What to send, once the handshake has shown that the cloud's CA is that of the token.
    #[must_use]
    pub fn request(&self) -> JoinRequest {
        JoinRequest {
            version: JOIN_VERSION,
            token_id: self.token.id.to_string(),
            secret: encode_32(self.token.secret.expose()),
            csr_pem: self.csr_pem.clone(),
        }
    }

    /// Checks the cloud's answer against the token. [`EdgeKeys::save`] then makes it the edge's identity.
    pub fn complete(self, issued: &Issued) -> Result<EdgeKeys, IdentityError> {
        let keys = EdgeKeys::from_file(File {
            version: VERSION,
            cloud: self.token.cloud,
            key_pem: self.key.expose().serialize_pem(),
            cert_pem: issued.cert_pem.clone(),
            ca_pem: issued.ca_pem.clone(),
        })
        .map_err(IdentityError::Answer)?;
        if keys.ca_fingerprint() != self.token.ca {
            return Err(IdentityError::Answer("its CA is not the one in the token"));
        }
        if keys.identity.name != self.token.edge || keys.identity.instance != issued.instance {
            return Err(IdentityError::Answer("the certificate names another edge"));
        }
        Ok(keys)
    }
}
