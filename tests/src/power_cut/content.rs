//! Bytes of one file, in pages that copies share.
//!
//! In: writes, lengths. Out: reads. A page that was never written takes no memory and reads as zeros, so that a journal of 64 MiB that
//! is nearly empty costs nothing. Knows nothing of what is durable.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// Content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it occupies.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Pages that a write of `range` would add.
    #[must_use]
    pub fn missing(&self, range: Range<u64>) -> u64 {
        pages_of(&range).filter(|page| !self.pages.contains_key(page)).count() as u64
    }

    /// Bytes from `at` on, at most `len` and not beyond the end.
    #[must_use]
    pub fn read(&self, at: u64, len: u64) -> Vec<u8> {
        let range = at.min(self.len)..at.saturating_add(len).min(self.len).max(at.min(self.len));
        let mut out = vec![0; to_usize(range.end - range.start)];
        for (page, bytes) in self.pages.range(pages_of(&range)) {
            let start = range.start.max(page * PAGE);
            let end = range.end.min((page + 1) * PAGE);
            let from = &bytes[to_usize(start - page * PAGE)..to_usize(end - page * PAGE)];
            out[to_usize(start - range.start)..to_usize(end - range.start)].copy_from_slice(from);
        }
        out
    }

    /// All bytes.
    #[must_use]
    pub fn all(&self) -> Vec<u8> {
        self.read(0, self.len)
    }

    /// Writes `bytes` at `at`; grows where needed.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let range = at..at + bytes.len() as u64;
        for page in pages_of(&range) {
            let start = range.start.max(page * PAGE);
            let end = range.end.min((page + 1) * PAGE);
            let part = &bytes[to_usize(start - at)..to_usize(end - at)];
            let target = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(target)[to_usize(start - page * PAGE)..to_usize(end - page * PAGE)].copy_from_slice(part);
        }
        if !bytes.is_empty() {
            self.len = self.len.max(range.end);
        }
    }

    /// Cuts or grows to `len`; what is new reads as zeros.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            drop(self.pages.split_off(&len.div_ceil(PAGE)));
            let within = to_usize(len % PAGE);
            if within > 0
                && let Some(last) = self.pages.get_mut(&(len / PAGE))
            {
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.len = len;
    }

    pub(super) fn export(&self, file: &File) -> std::io::Result<()> {
        for (page, bytes) in &self.pages {
            file.write_all_at(&bytes[..], page * PAGE)?;
        }
        file.set_len(self.len)
    }
}

fn pages_of(range: &Range<u64>) -> Range<u64> {
    if range.start >= range.end {
        return 0..0;
    }
    range.start / PAGE..(range.end - 1) / PAGE + 1
}

pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("files of a test fit into memory")
}

#[cfg(test)]
mod tests {
    use super::Content;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn it_reads_as_a_plain_vector_would() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut content, mut plain) = (Content::default(), Vec::new());
        for _ in 0..2_000 {
            let at = rng.random_range(0..20_000usize);
            let len = rng.random_range(0..9_000usize);
            match rng.random_range(0..4) {
                0 => {
                    content.set_len(at as u64);
                    plain.resize(at, 0);
                }
                1 => {
                    let from = at.min(plain.len());
                    let expected = &plain[from..(at + len).min(plain.len()).max(from)];
                    assert_eq!(content.read(at as u64, len as u64), expected);
                }
                _ => {
                    let bytes = vec![rng.random::<u8>(); len];
                    content.write(at as u64, &bytes);
                    if len > 0 {
                        plain.resize(plain.len().max(at + len), 0);
                        plain[at..at + len].copy_from_slice(&bytes);
                    }
                }
            }
            assert_eq!(content.len(), plain.len() as u64);
        }
        assert_eq!(content.all(), plain);
    }

    #[test]
    fn a_long_file_with_little_in_it_takes_little() {
        let mut content = Content::default();
        content.set_len(64 << 20);
        content.write(5_000, b"x");
        assert_eq!((content.len(), content.allocated()), (64 << 20, 4096));
        assert_eq!((content.missing(0..4096), content.missing(4_000..8_192)), (1, 1));
    }
}
