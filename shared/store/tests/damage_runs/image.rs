//! The files of a store in memory, without the holes of its journals: copied out, damaged by a seed, written anew.

use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng;
use rand::rngs::StdRng;

/// A file: its bytes up to the last that is not zero, and its length.
#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
    len: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    files: Vec<File>,
    folders: Vec<PathBuf>,
}

/// A directory in memory where there is one: a run syncs often.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::Builder::new()
            .prefix("fellbeck-damage-")
            .tempdir_in(memory)
            .unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

impl Image {
    pub(crate) fn read(root: &Path) -> Self {
        let mut image = Self::default();
        image.add(root, Path::new(""));
        image.files.sort_by(|a, b| a.path.cmp(&b.path));
        image
    }

    fn add(&mut self, root: &Path, inner: &Path) {
        for entry in fs::read_dir(root.join(inner)).unwrap() {
            let entry = entry.unwrap();
            let path = inner.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.folders.push(path.clone());
                self.add(root, &path);
                continue;
            }
            let mut bytes = fs::read(entry.path()).unwrap();
            let len = bytes.len() as u64;
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            bytes.truncate(written);
            self.files.push(File { path, bytes, len });
        }
    }

    pub(crate) fn write(&self, root: &Path) {
        for folder in &self.folders {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in &self.files {
            let path = root.join(&file.path);
            fs::write(&path, &file.bytes).unwrap();
            let handle = fs::File::options().write(true).open(&path).unwrap();
            handle.set_len(file.len).unwrap();
        }
    }

    /// Damages one file, and says what was done. Each kind of file is as likely, and within a kind each file.
    pub(crate) fn damage(&mut self, rng: &mut StdRng) -> String {
        let mut kinds: Vec<String> = self.files.iter().map(|file| kind(&file.path)).collect();
        kinds.sort();
        kinds.dedup();
        kinds.retain(|kind| !kind.is_empty());
        let chosen = &kinds[rng.random_range(0..kinds.len())];
        let of_kind: Vec<usize> = (0..self.files.len())
            .filter(|at| kind(&self.files[*at].path) == *chosen)
            .collect();
        let at = of_kind[rng.random_range(0..of_kind.len())];
        if rng.random_bool(0.05) {
            let gone = self.files.remove(at);
            return format!("{} is gone", gone.path.display());
        }
        let what = self.files[at].damage(rng);
        format!("{}: {what}", self.files[at].path.display())
    }
}

impl File {
    fn damage(&mut self, rng: &mut StdRng) -> String {
        let written = self.bytes.len().max(1);
        self.bytes.resize(written, 0);
        self.len = self.len.max(written as u64);
        let sector = [512, 4096][rng.random_range(0..2)];
        let start = rng.random_range(0..written) / sector * sector;
        let end = (start + sector).min(written);
        match rng.random_range(0..6) {
            0 => {
                let at = rng.random_range(0..written);
                self.bytes[at] ^= 1 << rng.random_range(0..8);
                format!("a bit flipped in byte {at} of {written}")
            }
            1 => {
                let at = rng.random_range(0..written);
                self.bytes[at] ^= rng.random_range(1..=255u8);
                format!("byte {at} of {written} changed")
            }
            2 => {
                self.bytes[start..end].fill(0);
                format!("zeros in {start}..{end} of {written}")
            }
            3 => {
                rng.fill(&mut self.bytes[start..end]);
                format!("noise in {start}..{end} of {written}")
            }
            4 => {
                let at = rng.random_range(0..written);
                self.bytes.truncate(at);
                self.len = at as u64;
                format!("cut to {at} of {written}")
            }
            _ => {
                self.bytes.truncate(start);
                self.len = start as u64;
                format!("cut to {start} of {written}, at a block")
            }
        }
    }
}

/// What a file is for; empty for one without content.
fn kind(path: &Path) -> String {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
    match parts[..] {
        ["LOCK"] | ["db", "lock"] => String::new(),
        ["db", "keyspaces", number, ref rest @ ..] => {
            let owner = match number {
                "0" => "list",
                "1" => "index",
                "2" | "3" | "4" | "5" => "keyed",
                _ => "segment",
            };
            let part = if rest.len() > 1 { "table" } else { "manifest" };
            format!("{owner} {part}")
        }
        ["db", name] if name.ends_with(".jnl") => "journal".to_owned(),
        ["db", name] | [name] => name.to_owned(),
        _ => panic!("unknown file {}", path.display()),
    }
}
