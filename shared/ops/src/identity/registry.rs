//! [`EdgeRegistry`]: what the cloud knows of its edges, one file each: `<data>/edges/NAME.json`.
//!
//! In: joins raise the instance of a name; links ask whether a certificate is the newest of its name. Out: yes, or a
//! [`Refusal`] that says what to do.
//! The signature of the CA is the authority. The registry only knows exceptions: superseded instances, and edges whose
//! file says `"refused": true`. So a cloud whose data directory was put back to an older copy still accepts the edges
//! that joined in between, and learns them again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fellbeck_core::WallTime;
use serde::{Deserialize, Serialize};

use super::error::IdentityError;
use super::fingerprint::Fingerprint;
use super::name::EdgeName;
use super::peer::EdgeIdentity;
use crate::files::{self, Access};

/// Largest file of one edge.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Version of the file.
const VERSION: u32 = 1;

/// What the cloud keeps of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEntry {
    /// Version of this file; 1.
    pub version: u32,
    /// Name.
    pub name: EdgeName,
    /// Newest instance.
    pub instance: u32,
    /// When that instance joined, in milliseconds since 1970 by the cloud's clock.
    pub created_ms: u64,
    /// SHA-256 of its certificate.
    pub fingerprint: Fingerprint,
    /// Set by the operator to lock the edge out; a new join clears it.
    #[serde(default)]
    pub refused: bool,
    /// Instances up to this one are given already, without a certificate of their own: the next join goes above it.
    #[serde(default)]
    pub reserved: u32,
}

impl EdgeEntry {
    /// The highest instance that was ever given to the name.
    #[must_use]
    pub fn newest(&self) -> u32 {
        self.instance.max(self.reserved)
    }
}

/// Why an edge may not connect although the CA signed its certificate.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A newer join has taken the name.
    #[error(
        "edge {name} instance {shown} is superseded: instance {newest} has joined since. If this is the right machine, \
         let it join again with a new token"
    )]
    Superseded {
        /// Name.
        name: EdgeName,
        /// Instance of the certificate shown.
        shown: u32,
        /// Newest instance.
        newest: u32,
    },
    /// The operator has locked the edge out.
    #[error("edge {name} is refused by the operator of the cloud (\"refused\" in its file under edges/)")]
    Refused {
        /// Name.
        name: EdgeName,
    },
    /// The registry cannot be read; the edge may try again.
    #[error(transparent)]
    Registry(#[from] IdentityError),
}

/// The edges of a cloud.
#[derive(Debug)]
pub struct EdgeRegistry {
    dir: PathBuf,
    // One change at a time, so that no instance is given twice. Held while a small file is written, never across an
    // await.
    changing: Mutex<()>,
}

impl EdgeRegistry {
    pub(super) fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("edges");
        files::create_private_dir(&dir).map_err(IdentityError::io(&dir))?;
        Ok(Self {
            dir,
            changing: Mutex::new(()),
        })
    }

    /// What is known of `name`.
    pub fn get(&self, name: &EdgeName) -> Result<Option<EdgeEntry>, IdentityError> {
        let path = self.path(name);
        let bytes = match files::read_bounded(&path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(IdentityError::io(&path)(e)),
        };
        let entry: EdgeEntry = serde_json::from_slice(&bytes)
            .map_err(|e| IdentityError::invalid(&path, format!("not an edge's file: {e}")))?;
        if entry.version != VERSION || entry.name != *name {
            return Err(IdentityError::invalid(
                &path,
                "the file is of another version or of another edge",
            ));
        }
        Ok(Some(entry))
    }

    /// All edges, by name. Files that cannot be read are named in the log and left out.
    pub fn list(&self) -> Result<Vec<EdgeEntry>, IdentityError> {
        let mut edges = Vec::new();
        for file in std::fs::read_dir(&self.dir).map_err(IdentityError::io(&self.dir))? {
            let file = file.map_err(IdentityError::io(&self.dir))?.file_name();
            let name = file
                .to_str()
                .and_then(|f| f.strip_suffix(".json"))
                .and_then(|n| n.parse().ok());
            let Some(name) = name else { continue };
            match self.get(&name) {
                Ok(entry) => edges.extend(entry),
                Err(e) => tracing::error!(error = %e, "an edge's file cannot be read"),
            }
        }
        edges.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(edges)
    }

    /// Whether the edge behind `identity` may connect.
    pub fn admit(&self, identity: &EdgeIdentity, now: WallTime) -> Result<(), Refusal> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let name = identity.name.clone();
        let known = self.get(&name)?;
        let reserved = known.as_ref().map(|known| known.reserved);
        if let Some(known) = known {
            if known.refused {
                return Err(Refusal::Refused { name });
            }
            let same = identity.instance == known.instance && identity.fingerprint == known.fingerprint;
            if same {
                return Ok(());
            }
            if identity.instance <= known.instance {
                return Err(Refusal::Superseded {
                    name,
                    shown: identity.instance,
                    newest: known.instance,
                });
            }
        }
        tracing::warn!(edge = %name, instance = identity.instance, "this edge joined after the data directory was \
            copied: learning it again from its certificate");
        self.write(identity, now)?;
        if let Some(reserved) = reserved.filter(|reserved| *reserved > identity.instance) {
            let entry = self.get(&identity.name)?;
            entry.map_or(Ok(()), |entry| self.put(&EdgeEntry { reserved, ..entry }))?;
        }
        Ok(())
    }

    /// Gives an instance above `floor`, and above all that were given, to a store that keeps its certificate.
    pub fn reserve(&self, name: &EdgeName, floor: u32) -> Result<u32, IdentityError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut entry) = self.get(name)? else {
            return Err(IdentityError::invalid(&self.path(name), "this edge has never joined"));
        };
        entry.reserved = floor.max(entry.newest()).saturating_add(1);
        self.put(&entry)?;
        Ok(entry.reserved)
    }

    /// Gives the next instance of `name` to the certificate that `sign` makes for it.
    pub(super) fn raise<T>(
        &self,
        name: &EdgeName,
        now: WallTime,
        sign: impl FnOnce(u32) -> Result<(T, Fingerprint), IdentityError>,
    ) -> Result<(T, u32), IdentityError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let instance = self.get(name)?.map_or(1, |known| known.newest().saturating_add(1));
        let (made, fingerprint) = sign(instance)?;
        self.write(
            &EdgeIdentity {
                name: name.clone(),
                instance,
                fingerprint,
            },
            now,
        )?;
        Ok((made, instance))
    }

    fn write(&self, identity: &EdgeIdentity, now: WallTime) -> Result<(), IdentityError> {
        let entry = EdgeEntry {
            version: VERSION,
            name: identity.name.clone(),
            instance: identity.instance,
            created_ms: now.0,
            fingerprint: identity.fingerprint,
            refused: false,
            reserved: 0,
        };
        self.put(&entry)
    }

    fn put(&self, entry: &EdgeEntry) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(entry).expect("an entry is always JSON");
        let path = self.path(&entry.name);
        files::write_atomic(&path, &text, Access::Private).map_err(IdentityError::io(&path))
    }

    fn path(&self, name: &EdgeName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}
