//! [`HotCertificate`]: the cloud's own certificate, replaced before it ends, while the endpoint runs.
//!
//! In: the CA. Out: to each handshake the newest certificate. It lives in memory only and is made anew at each start,
//! so there is no server key on disk that could leak or expire unseen.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use fellbeck_core::WallTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ca::{CloudCa, SERVER_DAYS};
use super::error::IdentityError;

/// Milliseconds of age at which the certificate is replaced: three quarters of its life.
const RENEW_AFTER_MS: u64 = SERVER_DAYS * 86_400 * 1000 / 4 * 3;

#[derive(Debug)]
pub(super) struct HotCertificate {
    ca: Arc<CloudCa>,
    // Read by each handshake; written once in months, for less than a millisecond.
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    made: WallTime,
}

impl HotCertificate {
    pub(super) fn new(ca: Arc<CloudCa>, now: WallTime) -> Result<Self, IdentityError> {
        let key = ca.issue_server(now)?;
        Ok(Self {
            ca,
            current: RwLock::new(Current { key, made: now }),
        })
    }

    /// The certificate to show at `now`.
    pub(super) fn at(&self, now: WallTime) -> Arc<CertifiedKey> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if now.0.abs_diff(current.made.0) < RENEW_AFTER_MS {
                return current.key.clone();
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        match self.ca.issue_server(now) {
            Ok(key) => {
                tracing::info!("the cloud's certificate was renewed");
                *current = Current { key, made: now };
            }
            // The old one is good for months yet; the next handshake tries again.
            Err(e) => tracing::error!(error = %e, "the cloud's certificate could not be renewed"),
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for HotCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(self.at(WallTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))))
    }
}
