//! [`TokenStore`]: the tokens of a cloud, one file each under `<data>/tokens` (0600), beside the store.
//!
//! In: new tokens, by a running node or by the command line beside it; redemptions. Out: each token is taken at most
//! once: taking renames `ID.json` to `ID.used.json`, which only one of several processes can do.
//! Only a hash of the secret is kept. Files of tokens that are long over are removed when a new token is made.

use std::io;
use std::path::{Path, PathBuf};

use fellbeck_core::WallTime;
use serde::{Deserialize, Serialize};

use super::error::{IdentityError, JoinError};
use super::fingerprint::{from_hex, to_hex};
use super::name::EdgeName;
use super::secret::{equal, sha256};
use super::token::{JoinToken, TokenId};
use crate::files::{self, Access};

const FILE_BYTES_MAX: u64 = 4096;
const VERSION: u32 = 1;
/// For so long after its expiry a token is still known, so that the answer is "used" or "expired" and not "wrong".
const REMEMBER_MS: u64 = 30 * 24 * 3600 * 1000;

/// What the cloud keeps of a token.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    edge: EdgeName,
    /// SHA-256 of the secret.
    secret_sha256: String,
    expires_ms: u64,
}

#[derive(Debug)]
pub(super) struct TokenStore {
    dir: PathBuf,
}

impl TokenStore {
    pub(super) fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("tokens");
        files::create_private_dir(&dir).map_err(IdentityError::io(&dir))?;
        Ok(Self { dir })
    }

    /// Keeps what is needed to recognise `token`.
    pub(super) fn add(&self, token: &JoinToken, now: WallTime) -> Result<(), IdentityError> {
        self.prune(now)?;
        let kept = Kept {
            version: VERSION,
            edge: token.edge.clone(),
            secret_sha256: to_hex(&sha256(token.secret.expose())),
            expires_ms: token.expires.0,
        };
        let text = serde_json::to_vec_pretty(&kept).expect("a token's file is always JSON");
        let path = self.fresh(token.id);
        files::write_atomic(&path, &text, Access::Private).map_err(IdentityError::io(&path))
    }

    /// The edge that the token names, if the secret is right and the token can be taken now.
    pub(super) fn check(&self, id: TokenId, secret: &[u8; 32], now: WallTime) -> Result<EdgeName, JoinError> {
        let fresh = read(&self.fresh(id))?;
        let is_fresh = fresh.is_some();
        let kept = match fresh {
            Some(kept) => kept,
            None => read(&self.used(id))?.ok_or(JoinError::Wrong)?,
        };
        let expected = from_hex(&kept.secret_sha256).ok_or(JoinError::Wrong)?;
        if kept.version != VERSION || !equal(&expected, &sha256(secret)) {
            return Err(JoinError::Wrong);
        }
        if !is_fresh {
            return Err(JoinError::Used { edge: kept.edge });
        }
        if kept.expires_ms <= now.0 {
            return Err(JoinError::Expired { edge: kept.edge });
        }
        Ok(kept.edge)
    }

    /// Takes the token; of several who try, one succeeds. Durable before it returns.
    pub(super) fn take(&self, id: TokenId, edge: &EdgeName) -> Result<(), JoinError> {
        let path = self.fresh(id);
        match std::fs::rename(&path, self.used(id)).and_then(|()| files::sync_dir(&self.dir)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(JoinError::Used { edge: edge.clone() }),
            Err(e) => Err(IdentityError::io(&path)(e).into()),
        }
    }

    /// Removes the files of tokens that are long over.
    fn prune(&self, now: WallTime) -> Result<(), IdentityError> {
        for file in std::fs::read_dir(&self.dir).map_err(IdentityError::io(&self.dir))? {
            let path = file.map_err(IdentityError::io(&self.dir))?.path();
            let over = read(&path)
                .is_ok_and(|kept| kept.is_some_and(|kept| kept.expires_ms.saturating_add(REMEMBER_MS) < now.0));
            if over {
                std::fs::remove_file(&path).map_err(IdentityError::io(&path))?;
            }
        }
        Ok(())
    }

    fn fresh(&self, id: TokenId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn used(&self, id: TokenId) -> PathBuf {
        self.dir.join(format!("{id}.used.json"))
    }
}

fn read(path: &Path) -> Result<Option<Kept>, IdentityError> {
    match files::read_bounded(path, FILE_BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| IdentityError::invalid(path, format!("not a token's file: {e}"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(IdentityError::io(path)(e)),
    }
}
