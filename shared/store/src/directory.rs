//! The store directory: its lock, its format file, and small files that are replaced whole.
//!
//! Nothing is written into a directory before it is known to be ours or empty.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::Layout;
use crate::error::OpenError;

const FORMAT_VERSION: u32 = 1;
const FORMAT: &str = "FORMAT";
const LOCK: &str = "LOCK";
/// Names that may stand in a directory that was not yet ours.
const HARMLESS: [&str; 3] = [LOCK, "FORMAT.new", "lost+found"];

/// Where the parts of a store are.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
}

/// Held while the store is open.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the file keeps the lock until it is dropped")] File);

/// What the format file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) log_id: [u8; 16],
    /// It was written by this open.
    pub(crate) created: bool,
    /// It was damaged or gone, and was written anew from its copy.
    pub(crate) remade: bool,
}

impl Directory {
    /// Checks that `root` is ours or empty, locks it and reads or writes the format file.
    pub(crate) fn claim(root: &Path, layout: Layout) -> Result<(Self, Lock, Format), OpenError> {
        let dir = Self { root: root.to_owned() };
        fs::create_dir_all(root).map_err(|source| dir.io(root, source))?;
        let format = dir.path(FORMAT);
        let ours = format.try_exists().map_err(|source| dir.io(&format, source))?;
        if !ours && dir.format_copy()?.is_none() {
            dir.refuse_foreign()?;
        }
        let lock = dir.lock()?;
        // Looked at again under the lock: another process may have been creating the store.
        let text = match fs::read(&format) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(source) => return Err(dir.io(&format, source)),
        };
        // The line has no checksum of its own; its copy has one, and so it is the copy that counts.
        let copy = dir.format_copy()?;
        let remade = copy.is_some() && copy != text;
        let created = text.is_none() && copy.is_none();
        let log_id = match copy.as_ref().or(text.as_ref()) {
            Some(line) => dir.parse_format(&String::from_utf8_lossy(line), layout)?,
            None => dir.write_format(layout)?,
        };
        match (&text, &copy) {
            (_, Some(copy)) if remade => dir.replace_plain(FORMAT, copy)?,
            (Some(text), None) => dir.replace(&copy_of(FORMAT), text)?,
            _ => {}
        }
        let format = Format {
            log_id,
            created,
            remade,
        };
        Ok((dir, lock, format))
    }

    fn format_copy(&self) -> Result<Option<Vec<u8>>, OpenError> {
        Ok(self.read(&copy_of(FORMAT))?.flatten())
    }

    /// Looks at a store without writing a byte, and keeps it locked. Both layouts are welcome.
    pub(crate) fn look(root: &Path) -> Result<(Self, Lock, Layout, [u8; 16]), OpenError> {
        let dir = Self { root: root.to_owned() };
        let file = File::open(dir.path(LOCK)).map_err(|source| dir.io(&dir.path(LOCK), source))?;
        let lock = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Lock(file),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked { dir: root.to_owned() }),
            Err(errno) => return Err(dir.io(&dir.path(LOCK), errno.into())),
        };
        let line = match dir.format_copy()? {
            Some(copy) => copy,
            None => fs::read(dir.path(FORMAT)).map_err(|source| dir.io(&dir.path(FORMAT), source))?,
        };
        let line = String::from_utf8_lossy(&line);
        match dir.parse_format(&line, Layout::Edge) {
            Ok(log_id) => Ok((dir, lock, Layout::Edge, log_id)),
            Err(OpenError::OtherLayout { .. }) => {
                let log_id = dir.parse_format(&line, Layout::Cloud)?;
                Ok((dir, lock, Layout::Cloud, log_id))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("db")
    }

    /// A name for what is moved out of the way.
    pub(crate) fn free_quarantine(&self) -> String {
        let free = (1u32..)
            .map(|n| format!("quarantine-{n}"))
            .find(|name| !self.path(name).exists());
        free.expect("there are more numbers than directories")
    }

    /// What was moved out of the way and is still there.
    pub(crate) fn quarantines(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("quarantine-"))
            {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes a small file for good.
    pub(crate) fn remove(&self, name: &str) -> Result<(), OpenError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(|source| self.io(&self.path(name), source))?,
        }
        self.sync().map_err(|source| self.io(&self.root, source))
    }

    /// Replaces a small file such that after a crash either the old or the new content is there. Adds a checksum.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> Result<(), OpenError> {
        let sealed = [content, &xxh3_64(content).to_be_bytes()].concat();
        self.replace_plain(name, &sealed)
    }

    /// Replaces a small file and its copy, one after the other: damage to one of them costs nothing.
    pub(crate) fn replace_twice(&self, name: &str, content: &[u8]) -> Result<(), OpenError> {
        self.replace(&copy_of(name), content)?;
        self.replace(name, content)
    }

    pub(crate) fn has_copy(&self, name: &str) -> bool {
        self.path(&copy_of(name)).exists()
    }

    /// Reads what [`replace_twice`](Self::replace_twice) wrote: the file, or the copy where the file is damaged or gone.
    pub(crate) fn read_twice(&self, name: &str) -> Result<Twice, OpenError> {
        let (first, copy) = (self.read(name)?, self.read(&copy_of(name))?);
        Ok(match (first, copy) {
            (Some(Some(content)), Some(Some(_)) | None) => Twice::Whole(content),
            (Some(Some(content)), Some(None)) | (_, Some(Some(content))) => Twice::Mended(content),
            (None, None) => Twice::Missing,
            _ => Twice::Lost,
        })
    }

    fn replace_plain(&self, name: &str, content: &[u8]) -> Result<(), OpenError> {
        let fresh = self.path(&format!("{name}.new"));
        let write = || {
            let mut file = File::create(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, self.path(name))?;
            self.sync()
        };
        write().map_err(|source| self.io(&self.path(name), source))
    }

    /// Reads what [`replace`](Self::replace) wrote. `Ok(None)`: there is no such file. `Ok(Some(None))`: it is damaged.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Option<Vec<u8>>>, OpenError> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(unseal(bytes))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io(&self.path(name), source)),
        }
    }

    pub(crate) fn io(&self, path: &Path, source: std::io::Error) -> OpenError {
        OpenError::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn sync(&self) -> std::io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    fn refuse_foreign(&self) -> Result<(), OpenError> {
        let entries = fs::read_dir(&self.root).map_err(|source| self.io(&self.root, source))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
        match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
            Some(found) => Err(OpenError::Foreign {
                dir: self.root.clone(),
                found,
            }),
            None => Ok(()),
        }
    }

    fn lock(&self) -> Result<Lock, OpenError> {
        let path = self.path(LOCK);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|source| self.io(&path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked { dir: self.root.clone() }),
            Err(errno) => Err(self.io(&path, errno.into())),
        }
    }

    fn parse_format(&self, text: &str, layout: Layout) -> Result<[u8; 16], OpenError> {
        let damaged = || OpenError::Damaged {
            file: self.path(FORMAT),
            what: "not a line of the form `fellbeck-store 1 edge <log id>`",
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["fellbeck-store", version, rest @ ..] = words.as_slice() else {
            return Err(damaged());
        };
        let found: u32 = version.parse().map_err(|_| damaged())?;
        if found > FORMAT_VERSION {
            return Err(OpenError::NewerFormat {
                dir: self.root.clone(),
                found,
                supported: FORMAT_VERSION,
            });
        }
        let [kind, log_id] = rest else { return Err(damaged()) };
        if *kind != layout.as_str() {
            let other = match layout {
                Layout::Edge => Layout::Cloud,
                Layout::Cloud => Layout::Edge,
            };
            return Err(OpenError::OtherLayout {
                dir: self.root.clone(),
                found: with_article(other),
                wanted: with_article(layout),
            });
        }
        parse_hex(log_id).ok_or_else(damaged)
    }

    fn write_format(&self, layout: Layout) -> Result<[u8; 16], OpenError> {
        let log_id: [u8; 16] = rand::random();
        let hex: String = log_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("fellbeck-store {FORMAT_VERSION} {} {hex}\n", layout.as_str());
        self.replace_plain(FORMAT, line.as_bytes())?;
        self.replace(&copy_of(FORMAT), line.as_bytes())?;
        self.sync_ancestors()?;
        Ok(log_id)
    }

    /// The directory itself must outlive a power cut, too, and so must those above it, which may be as new.
    fn sync_ancestors(&self) -> Result<(), OpenError> {
        let root = self.root.canonicalize().map_err(|source| self.io(&self.root, source))?;
        for above in root.ancestors().skip(1) {
            match File::open(above).and_then(|above| above.sync_all()) {
                Ok(()) => {}
                // What we may not read, we have not made. Some file systems that are only read refuse a sync.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                    ) =>
                {
                    break;
                }
                Err(source) => return Err(self.io(above, source)),
            }
        }
        Ok(())
    }
}

fn with_article(layout: Layout) -> &'static str {
    match layout {
        Layout::Edge => "an edge",
        Layout::Cloud => "a cloud",
    }
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// What two copies of a small file say.
pub(crate) enum Twice {
    /// There is neither.
    Missing,
    /// The file, and nothing is wrong with either.
    Whole(Vec<u8>),
    /// One of them was damaged or is gone.
    Mended(Vec<u8>),
    /// There was something, and neither can be read.
    Lost,
}

fn copy_of(name: &str) -> String {
    format!("{name}.copy")
}

/// Checks and removes the checksum at the end.
pub(crate) fn unseal(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let at = bytes.len().checked_sub(8)?;
    let checksum = bytes.split_off(at);
    (checksum == xxh3_64(&bytes).to_be_bytes()).then_some(bytes)
}
