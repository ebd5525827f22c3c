//! A tree of files and directories by inode: what a process sees now, or what a disk would show after a cut.
//!
//! In: entries and contents. Out: the same, walked from the root. Two of them make up a [`super::PendingFs`].
//! An inode without an entry may stay for a while, as with an unlinked file that is open.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::content::{Content, PAGE};

/// Number of a file or directory; never reused within the life of a disk.
pub type Ino = u64;

/// The root directory.
pub const ROOT: Ino = 1;

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(Content),
    /// A directory: names and what they stand for.
    Dir(BTreeMap<String, Ino>),
}

/// A tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    nodes: BTreeMap<Ino, Entry>,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Entry::Dir(BTreeMap::new()))]),
        }
    }
}

impl Image {
    /// What `ino` is.
    #[must_use]
    pub fn get(&self, ino: Ino) -> Option<&Entry> {
        self.nodes.get(&ino)
    }

    /// The file `ino`.
    #[must_use]
    pub fn file(&self, ino: Ino) -> Option<&Content> {
        match self.nodes.get(&ino) {
            Some(Entry::File(content)) => Some(content),
            _ => None,
        }
    }

    /// The directory `ino`.
    #[must_use]
    pub fn dir(&self, ino: Ino) -> Option<&BTreeMap<String, Ino>> {
        match self.nodes.get(&ino) {
            Some(Entry::Dir(names)) => Some(names),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> Option<&mut Content> {
        match self.nodes.get_mut(&ino) {
            Some(Entry::File(content)) => Some(content),
            _ => None,
        }
    }

    pub(super) fn dir_mut(&mut self, ino: Ino) -> Option<&mut BTreeMap<String, Ino>> {
        match self.nodes.get_mut(&ino) {
            Some(Entry::Dir(names)) => Some(names),
            _ => None,
        }
    }

    pub(super) fn insert(&mut self, ino: Ino, entry: Entry) {
        self.nodes.insert(ino, entry);
    }

    /// What `path`, with `/` between its names, stands for.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Ino> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |ino, name| self.dir(ino)?.get(name).copied())
    }

    /// Content of the file at `path`.
    #[must_use]
    pub fn bytes_at(&self, path: &str) -> Option<Vec<u8>> {
        self.file(self.find(path)?).map(Content::all)
    }

    /// All paths from the root on, directories with a `/` behind.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        let mut seen = BTreeSet::from([ROOT]);
        while let Some((path, ino)) = open.pop() {
            for (name, child) in self.dir(ino).into_iter().flatten() {
                let path = format!("{path}{name}");
                match self.nodes.get(child) {
                    Some(Entry::Dir(_)) if seen.insert(*child) => {
                        open.push((format!("{path}/"), *child));
                        found.push((format!("{path}/"), *child));
                    }
                    Some(Entry::File(_)) => found.push((path, *child)),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    pub(super) fn reachable(&self) -> BTreeSet<Ino> {
        let paths = self.paths().into_iter().map(|(_, ino)| ino);
        paths.chain([ROOT]).collect()
    }

    pub(super) fn retain(&mut self, keep: &BTreeSet<Ino>) {
        self.nodes.retain(|ino, _| keep.contains(ino));
    }

    pub(super) fn allocated(&self, inos: impl IntoIterator<Item = Ino>) -> u64 {
        inos.into_iter()
            .map(|ino| self.file(ino).map_or(PAGE, Content::allocated))
            .sum()
    }

    /// Writes the tree into the directory `target`, to be looked at with other tools.
    ///
    /// # Errors
    /// When that file system refuses.
    pub fn export(&self, target: &Path) -> std::io::Result<()> {
        fs::create_dir_all(target)?;
        for (path, ino) in self.paths() {
            let to = target.join(&path);
            let Some(content) = self.file(ino) else {
                fs::create_dir_all(&to)?;
                continue;
            };
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            content.export(&fs::File::create(&to)?)?;
        }
        Ok(())
    }
}
