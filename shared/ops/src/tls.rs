//! TLS of listeners that serve clients: certificate, key and CAs from PEM files, TLS 1.2 and 1.3, ring provider.
//!
//! In: paths, as the operator gave them. Out: a `rustls` configuration, or one line that names the key, the file and what is wrong
//! with it. Everything is read once, at start. The link between edge and cloud has its own, in `identity`.

use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use rustls::ServerConfig;

use crate::config::ConfigError;
use crate::files;
use crate::identity::ring_provider;

/// Largest PEM file that is read.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// The files of one part of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// Part whose keys `tls_cert`, `tls_key` and `tls_client_ca` name the files.
    pub part: &'a str,
    /// Certificate of the node, with those of its issuers behind it.
    pub certificate: &'a Path,
    /// Key of that certificate.
    pub key: &'a Path,
    /// CAs of clients. If given, a client must show a certificate that one of them signed.
    pub client_ca: Option<&'a Path>,
}

impl TlsFiles<'_> {
    /// Reads the files.
    pub fn load(&self) -> Result<Arc<ServerConfig>, ConfigError> {
        let refuse = |key: &str, path: &Path, reason: String| {
            ConfigError::invalid(&format!("{}.{key}", self.part), path.display(), reason)
        };
        let chain = certificates(self.certificate).map_err(|reason| refuse("tls_cert", self.certificate, reason))?;
        let key = private_key(self.key).map_err(|reason| refuse("tls_key", self.key, reason))?;
        let builder = ServerConfig::builder_with_provider(ring_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| refuse("tls_cert", self.certificate, error.to_string()))?;
        let builder = match self.client_ca {
            Some(path) => builder
                .with_client_cert_verifier(verifier(path).map_err(|reason| refuse("tls_client_ca", path, reason))?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                let reason = format!(
                    "the key does not belong to the certificate in {}",
                    self.certificate.display()
                );
                refuse("tls_key", self.key, reason)
            }
            other => refuse("tls_cert", self.certificate, other.to_string()),
        })?;
        // Devices that come back resume their TLS session, which saves both sides most of the handshake.
        config.ticketer = rustls::crypto::ring::Ticketer::new()
            .map_err(|error| refuse("tls_cert", self.certificate, error.to_string()))?;
        Ok(Arc::new(config))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    files::read_bounded(path, PEM_BYTES_MAX).map_err(|error| format!("cannot be read: {error}"))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not certificates in PEM form: {error}"))?;
    if chain.is_empty() {
        return Err("holds no certificate in PEM form".into());
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| format!("holds no private key in PEM form: {error}"))
}

fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring_provider())
        .build()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    struct Files(TempDir);

    impl Files {
        /// A certificate with its key, both signed by itself, in `NAME.pem` and `NAME.key`.
        fn make(&self, name: &str) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            self.write(&format!("{name}.pem"), &certificate.pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.path(name), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, certificate: &str, key: &str, client_ca: Option<&str>) -> Result<Arc<ServerConfig>, String> {
            let client_ca = client_ca.map(|name| self.path(name));
            let files = TlsFiles {
                part: "mqtt",
                certificate: &self.path(certificate),
                key: &self.path(key),
                client_ca: client_ca.as_deref(),
            };
            files.load().map_err(|error| error.to_string())
        }
    }

    #[test]
    fn good_files_load_with_and_without_a_client_ca() {
        let files = Files(TempDir::new().unwrap());
        files.make("a");
        files.load("a.pem", "a.key", None).unwrap();
        files.load("a.pem", "a.key", Some("a.pem")).unwrap();
    }

    #[test]
    fn bad_files_give_one_line_with_key_and_file() {
        let files = Files(TempDir::new().unwrap());
        files.make("a");
        files.make("b");
        files.write("empty", "");
        files.write(
            "broken",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        let cases = [
            (("absent", "a.key", None), "mqtt.tls_cert", "absent", "cannot be read"),
            (("empty", "a.key", None), "mqtt.tls_cert", "empty", "no certificate"),
            (("a.key", "a.key", None), "mqtt.tls_cert", "a.key", "no certificate"),
            (("broken", "a.key", None), "mqtt.tls_cert", "broken", "certificate"),
            (("a.pem", "absent", None), "mqtt.tls_key", "absent", "cannot be read"),
            (("a.pem", "a.pem", None), "mqtt.tls_key", "a.pem", "no private key"),
            (("a.pem", "b.key", None), "mqtt.tls_key", "b.key", "does not belong"),
            (
                ("a.pem", "a.key", Some("empty")),
                "mqtt.tls_client_ca",
                "empty",
                "no certificate",
            ),
            (
                ("a.pem", "a.key", Some("broken")),
                "mqtt.tls_client_ca",
                "broken",
                "cannot be used",
            ),
        ];
        for ((certificate, key, client_ca), field, file, reason) in cases {
            let error = files.load(certificate, key, client_ca).unwrap_err();
            for part in [field, file, reason] {
                assert!(error.contains(part), "{part:?} is missing: {error}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
