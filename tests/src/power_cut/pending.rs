//! A file system that knows what of it is durable: pure, without FUSE, clock or threads.
//!
//! In: the operations of a process. Out: their results, and [`PendingFs::cut`], after which only what a power cut left is there.
//! It holds two trees, what is seen *now* and what is on *disk*, and between them the operations that were not synced: bytes and
//! lengths per file, names for all directories in one list. A sync moves operations to the disk; nothing else does before the cut.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::StdRng;

use super::crash::{self, CutPlan, CutReport};
use super::image::{Entry, Image, Ino, ROOT};

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsError {
    /// There is no such name.
    NotFound,
    /// The name is taken.
    Exists,
    /// A directory was needed.
    NotDir,
    /// A file was needed.
    IsDir,
    /// The directory is not empty.
    NotEmpty,
    /// Not offered.
    Unsupported,
    /// The disk is full.
    NoSpace,
    /// The device failed.
    Io,
    /// The file system may only be read.
    ReadOnly,
}

/// Outcome of an operation.
pub type FsResult<T> = Result<T, FsError>;

/// A change of bytes or length that was not synced.
#[derive(Debug, Clone)]
pub(super) struct DataOp {
    pub(super) what: Data,
    pub(super) len_before: u64,
    pub(super) len_after: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Write { at: u64, bytes: Vec<u8> },
    SetLen,
}

/// A change of names that was not synced.
#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Link { at: Place, ino: Ino },
    Unlink { at: Place },
    Rename { from: Place, to: Place, ino: Ino },
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) dir: Ino,
    pub(super) name: String,
}

impl NameOp {
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        let (first, second) = match self {
            Self::Link { at, .. } | Self::Unlink { at } => (at, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    /// True when `self` cannot be on disk without `earlier`: both are about one name.
    pub(super) fn needs(&self, earlier: &Self) -> bool {
        self.places().any(|place| earlier.places().any(|other| other == place))
    }

    pub(super) fn apply(&self, image: &mut Image) {
        match self {
            Self::Link { at, ino } => put(image, at, *ino),
            Self::Unlink { at } => {
                image.dir_mut(at.dir).and_then(|dir| dir.remove(&at.name));
            }
            Self::Rename { from, to, ino } => {
                if let Some(dir) = image.dir_mut(from.dir)
                    && dir.get(&from.name) == Some(ino)
                {
                    dir.remove(&from.name);
                }
                put(image, to, *ino);
            }
        }
    }
}

fn put(image: &mut Image, at: &Place, ino: Ino) {
    if let Some(dir) = image.dir_mut(at.dir) {
        dir.insert(at.name.clone(), ino);
    }
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode.
    pub ino: Ino,
    /// A directory.
    pub is_dir: bool,
    /// Length in bytes.
    pub len: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Permissions.
    pub mode: u32,
}

/// The file system.
#[derive(Debug, Clone, Default)]
pub struct PendingFs {
    pub(super) now: Image,
    pub(super) disk: Image,
    pub(super) data: BTreeMap<Ino, Vec<DataOp>>,
    pub(super) names: Vec<NameOp>,
    /// A sync of anything makes all names durable that came before, as a journaling file system does.
    journaled: bool,
    quota: Option<u64>,
    next: Ino,
    open: HashMap<Ino, u32>,
    modes: HashMap<Ino, u32>,
    titles: HashMap<Ino, String>,
}

impl PendingFs {
    /// An empty one, in which the root is durable.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next: ROOT + 1,
            ..Self::default()
        }
    }

    /// Chooses between the two models: with `journaled`, names become durable in their order and any sync takes all earlier ones
    /// along; without, each directory has to be synced for its own names.
    pub fn set_journaled(&mut self, journaled: bool) {
        self.journaled = journaled;
    }

    /// Bytes that may be occupied; `None` is without a bound.
    pub fn set_quota(&mut self, quota: Option<u64>) {
        self.quota = quota;
    }

    /// The bound on bytes.
    #[must_use]
    pub fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// Bytes occupied by what is seen now.
    #[must_use]
    pub fn used(&self) -> u64 {
        let mut held = self.now.reachable();
        held.extend(self.open.keys());
        self.now.allocated(held)
    }

    /// What a process sees.
    #[must_use]
    pub fn now(&self) -> &Image {
        &self.now
    }

    /// What is certain to be there after a cut.
    #[must_use]
    pub fn disk(&self) -> &Image {
        &self.disk
    }

    /// Operations that were not synced.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.names.len() + self.data.values().map(Vec::len).sum::<usize>()
    }

    /// Name under which `ino` was last known, for messages.
    #[must_use]
    pub fn title(&self, ino: Ino) -> String {
        self.titles.get(&ino).cloned().unwrap_or_else(|| format!("#{ino}"))
    }

    /// The entry `name` of the directory `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn lookup(&self, dir: Ino, name: &str) -> FsResult<Ino> {
        let names = self.now.dir(dir).ok_or(FsError::NotDir)?;
        names.get(name).copied().ok_or(FsError::NotFound)
    }

    /// What `ino` is like.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn attr(&self, ino: Ino) -> FsResult<Attr> {
        let entry = self.now.get(ino).ok_or(FsError::NotFound)?;
        let (is_dir, len, allocated) = match entry {
            Entry::File(content) => (false, content.len(), content.allocated()),
            Entry::Dir(_) => (true, 4096, 4096),
        };
        let mode = self.modes.get(&ino).copied().unwrap_or(0o755);
        Ok(Attr {
            ino,
            is_dir,
            len,
            allocated,
            mode,
        })
    }

    /// Names in a directory.
    ///
    /// # Errors
    /// When it is none.
    pub fn list(&self, dir: Ino) -> FsResult<Vec<(String, Ino)>> {
        let names = self.now.dir(dir).ok_or(FsError::NotDir)?;
        Ok(names.iter().map(|(name, ino)| (name.clone(), *ino)).collect())
    }

    /// Makes a file.
    ///
    /// # Errors
    /// When the name is taken or there is no room.
    pub fn create(&mut self, dir: Ino, name: &str, mode: u32) -> FsResult<Ino> {
        self.make(dir, name, mode, Entry::File(super::Content::default()))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// When the name is taken or there is no room.
    pub fn mkdir(&mut self, dir: Ino, name: &str, mode: u32) -> FsResult<Ino> {
        self.make(dir, name, mode, Entry::Dir(BTreeMap::new()))
    }

    fn make(&mut self, dir: Ino, name: &str, mode: u32, entry: Entry) -> FsResult<Ino> {
        if self.now.dir(dir).ok_or(FsError::NotDir)?.contains_key(name) {
            return Err(FsError::Exists);
        }
        if self.quota.is_some_and(|quota| self.used() + 4096 > quota) {
            return Err(FsError::NoSpace);
        }
        let ino = self.next;
        self.next += 1;
        self.modes.insert(ino, mode & 0o7777);
        self.titles.insert(ino, format!("{}/{name}", self.title_of_dir(dir)));
        // The inode is there on both sides; without an entry nobody can reach it.
        self.now.insert(ino, entry.clone());
        self.disk.insert(ino, entry);
        self.change(NameOp::Link {
            at: place(dir, name),
            ino,
        });
        Ok(ino)
    }

    fn title_of_dir(&self, dir: Ino) -> String {
        self.titles.get(&dir).cloned().unwrap_or_default()
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &str) -> FsResult<()> {
        self.now.file(ino).ok_or(FsError::IsDir)?;
        if self.now.dir(dir).ok_or(FsError::NotDir)?.contains_key(name) {
            return Err(FsError::Exists);
        }
        self.change(NameOp::Link {
            at: place(dir, name),
            ino,
        });
        Ok(())
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// When it is not there, or is a directory.
    pub fn unlink(&mut self, dir: Ino, name: &str) -> FsResult<()> {
        let ino = self.lookup(dir, name)?;
        self.now.file(ino).ok_or(FsError::IsDir)?;
        self.change(NameOp::Unlink { at: place(dir, name) });
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// When it is not there, or not an empty directory.
    pub fn rmdir(&mut self, dir: Ino, name: &str) -> FsResult<()> {
        let ino = self.lookup(dir, name)?;
        if !self.now.dir(ino).ok_or(FsError::NotDir)?.is_empty() {
            return Err(FsError::NotEmpty);
        }
        self.change(NameOp::Unlink { at: place(dir, name) });
        Ok(())
    }

    /// Moves a name, over another one where there is one.
    ///
    /// # Errors
    /// When the first is not there, or the second is of the other kind or not empty.
    pub fn rename(&mut self, (dir, name): (Ino, &str), (to_dir, to): (Ino, &str)) -> FsResult<()> {
        let ino = self.lookup(dir, name)?;
        let is_dir = self.now.dir(ino).is_some();
        match self.lookup(to_dir, to) {
            Err(FsError::NotFound) => {}
            Err(error) => return Err(error),
            Ok(there) if there == ino => return Ok(()),
            Ok(there) => match (is_dir, self.now.dir(there)) {
                (true, None) => return Err(FsError::NotDir),
                (false, Some(_)) => return Err(FsError::IsDir),
                (true, Some(names)) if !names.is_empty() => return Err(FsError::NotEmpty),
                _ => {}
            },
        }
        self.titles.insert(ino, format!("{}/{to}", self.title_of_dir(to_dir)));
        self.change(NameOp::Rename {
            from: place(dir, name),
            to: place(to_dir, to),
            ino,
        });
        Ok(())
    }

    fn change(&mut self, op: NameOp) {
        op.apply(&mut self.now);
        self.names.push(op);
    }

    /// Reads bytes of a file.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(&self, ino: Ino, at: u64, len: u64) -> FsResult<Vec<u8>> {
        let content = self.now.file(ino).ok_or(FsError::IsDir)?;
        Ok(content.read(at, len))
    }

    /// Writes bytes of a file.
    ///
    /// # Errors
    /// When it is none, or there is no room.
    pub fn write(&mut self, ino: Ino, at: u64, bytes: &[u8]) -> FsResult<()> {
        let end = at + bytes.len() as u64;
        let missing = self.now.file(ino).ok_or(FsError::IsDir)?.missing(at..end);
        if missing > 0 && self.quota.is_some_and(|quota| self.used() + missing * 4096 > quota) {
            return Err(FsError::NoSpace);
        }
        self.alter(
            ino,
            Data::Write {
                at,
                bytes: bytes.to_vec(),
            },
            |content| content.write(at, bytes),
        )
    }

    /// Cuts or grows a file. Growing takes no room.
    ///
    /// # Errors
    /// When it is no file.
    pub fn set_len(&mut self, ino: Ino, len: u64) -> FsResult<()> {
        if self.now.file(ino).ok_or(FsError::IsDir)?.len() == len {
            return Ok(());
        }
        self.alter(ino, Data::SetLen, |content| content.set_len(len))
    }

    fn alter(&mut self, ino: Ino, what: Data, act: impl FnOnce(&mut super::Content)) -> FsResult<()> {
        let content = self.now.file_mut(ino).ok_or(FsError::IsDir)?;
        let len_before = content.len();
        act(content);
        let len_after = content.len();
        let op = DataOp {
            what,
            len_before,
            len_after,
        };
        self.data.entry(ino).or_default().push(op);
        Ok(())
    }

    /// Sets permissions; durable at once, since nobody relies on them here.
    pub fn set_mode(&mut self, ino: Ino, mode: u32) {
        self.modes.insert(ino, mode & 0o7777);
    }

    /// `fsync` or `fdatasync` of a file, or `fsync` of a directory.
    ///
    /// # Errors
    /// When `ino` does not exist.
    pub fn sync(&mut self, ino: Ino) -> FsResult<()> {
        let is_dir = matches!(self.now.get(ino).ok_or(FsError::NotFound)?, Entry::Dir(_));
        for op in self.data.remove(&ino).unwrap_or_default() {
            if let Some(content) = self.disk.file_mut(ino) {
                op.apply(content);
            }
        }
        if self.journaled {
            let all = vec![true; self.names.len()];
            self.settle_names(&all);
        } else if is_dir {
            let chosen: Vec<bool> = self
                .names
                .iter()
                .map(|op| op.places().any(|place| place.dir == ino))
                .collect();
            self.settle_names(&chosen);
        }
        if is_dir {
            self.forget_unreachable();
        }
        Ok(())
    }

    /// A sync that failed. The kernel then takes the pages for clean: by chance each has reached the disk or never will, while a process
    /// goes on seeing all of it, and a later sync of them says that all is well.
    pub fn fail_sync(&mut self, ino: Ino, plan: &CutPlan, rng: &mut StdRng) {
        if let Some(ops) = self.data.remove(&ino)
            && let Some(content) = self.disk.file_mut(ino)
        {
            *content = crash::settle_data(content, &ops, plan, rng);
        }
    }

    /// Makes everything durable, as a clean unmount does.
    pub fn sync_all(&mut self) {
        let inos: Vec<Ino> = self.data.keys().copied().collect();
        for ino in inos.into_iter().chain([ROOT]) {
            self.sync(ino)
                .expect("a file that is pending exists, and so does the root");
        }
        let all = vec![true; self.names.len()];
        self.settle_names(&all);
        self.forget_unreachable();
    }

    /// Applies the chosen pending names to the disk, with all that they need, and keeps the rest.
    pub(super) fn settle_names(&mut self, chosen: &[bool]) {
        let mut chosen = chosen.to_vec();
        for at in (0..self.names.len()).rev().filter(|at| chosen[*at]).collect::<Vec<_>>() {
            self.choose_needed(at, &mut chosen);
        }
        let names = std::mem::take(&mut self.names);
        for (op, chosen) in names.into_iter().zip(chosen) {
            if chosen {
                op.apply(&mut self.disk);
            } else {
                self.names.push(op);
            }
        }
    }

    fn choose_needed(&self, at: usize, chosen: &mut [bool]) {
        for earlier in (0..at).rev() {
            if !chosen[earlier] && self.names[at].needs(&self.names[earlier]) {
                chosen[earlier] = true;
                self.choose_needed(earlier, chosen);
            }
        }
    }

    /// A handle on `ino` is opened.
    pub fn opened(&mut self, ino: Ino) {
        *self.open.entry(ino).or_default() += 1;
    }

    /// A handle on `ino` is closed.
    pub fn closed(&mut self, ino: Ino) {
        if let Some(count) = self.open.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&ino);
            }
        }
    }

    fn forget_unreachable(&mut self) {
        let mut keep: BTreeSet<Ino> = self.now.reachable();
        keep.extend(self.disk.reachable());
        keep.extend(self.open.keys());
        for op in &self.names {
            keep.extend(op.places().map(|place| place.dir));
            if let NameOp::Link { ino, .. } | NameOp::Rename { ino, .. } = op {
                keep.insert(*ino);
            }
        }
        self.now.retain(&keep);
        self.disk.retain(&keep);
        self.data.retain(|ino, _| keep.contains(ino));
        self.titles.retain(|ino, _| keep.contains(ino));
        self.modes.retain(|ino, _| keep.contains(ino));
    }

    /// A power cut: what was not synced is dropped, kept, torn or reordered as `plan` and `rng` say. What is left is the new state, and
    /// all of it is durable. Nothing is open afterwards.
    pub fn cut(&mut self, plan: &CutPlan, rng: &mut StdRng) -> CutReport {
        let report = crash::cut(self, plan, rng);
        self.open.clear();
        self.now = self.disk.clone();
        self.forget_unreachable();
        report
    }
}

impl DataOp {
    pub(super) fn apply(&self, content: &mut super::Content) {
        match &self.what {
            Data::Write { at, bytes } => {
                content.write(*at, bytes);
                // After a failed sync the disk may lag behind what the process takes for the length.
                if content.len() < self.len_after {
                    content.set_len(self.len_after);
                }
            }
            Data::SetLen => content.set_len(self.len_after),
        }
    }
}

fn place(dir: Ino, name: &str) -> Place {
    Place {
        dir,
        name: name.to_owned(),
    }
}
