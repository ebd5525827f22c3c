//! Archive of an initial RAM file system, in the format `newc` that the kernel unpacks.
//!
//! In: folders and files, parents first. Out: bytes. Knows nothing of what is in them.

/// Size of a header and granularity of everything.
const ALIGN: usize = 4;
/// Mode of a folder that all may read.
const FOLDER: u32 = 0o040_755;
/// Mode of a program.
const PROGRAM: u32 = 0o100_755;

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder, `name` without a slash at either end.
    pub(crate) fn folder(&mut self, name: &str) -> &mut Self {
        self.entry(name, FOLDER, &[])
    }

    /// Adds a file that may be executed.
    pub(crate) fn program(&mut self, name: &str, content: &[u8]) -> &mut Self {
        self.entry(name, PROGRAM, content)
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of a RAM file system is below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        // Magic, inode, mode, user, group, links, time, size, device twice two, length of the name, no check sum.
        let numbers = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn an_entry_has_a_header_of_110_bytes_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.folder("bin").program("bin/a", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 3);
        // 110 + "bin\0" is 114, padded 116.
        assert!(text[116..].starts_with("070701"));
        assert_eq!(&text[116 + 54..116 + 62], "00000005", "the size of the file");
        assert!(text[116 + 116..].starts_with("hello\0\0\0"));
    }
}
