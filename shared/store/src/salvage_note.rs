//! The file `salvage`: which folders were set aside into which quarantine, until what is whole in them is back in the database.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fellbeck_core::varint::{put_bytes, take_bytes};

use crate::directory::Directory;
use crate::error::OpenError;

const SALVAGE: &str = "salvage";

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Name of the quarantine directory.
    pub(crate) quarantine: String,
    /// The whole database was moved: whatever stands in its place is begun anew.
    pub(crate) whole: bool,
    /// Folders to move, by number, with their names where those are known.
    pub(crate) folders: BTreeMap<u64, String>,
}

impl Note {
    pub(crate) fn read(dir: &Directory) -> Result<Option<Self>, OpenError> {
        // One that is damaged says nothing; what it named stays in quarantine.
        let bytes = dir.read(SALVAGE)?.flatten();
        Ok(bytes.and_then(|bytes| Self::decode(&bytes)))
    }

    pub(crate) fn write(&self, dir: &Directory) -> Result<(), OpenError> {
        dir.replace(SALVAGE, &self.encode())
    }

    pub(crate) fn remove(dir: &Directory) -> Result<(), OpenError> {
        dir.remove(SALVAGE)
    }

    pub(crate) fn path(&self, dir: &Directory) -> PathBuf {
        dir.path(&self.quarantine)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![1, u8::from(self.whole)];
        put_bytes(&mut out, self.quarantine.as_bytes());
        for (number, name) in &self.folders {
            out.extend(number.to_be_bytes());
            put_bytes(&mut out, name.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[1, whole], mut rest) = bytes.split_first_chunk::<2>()? else {
            return None;
        };
        let text = |rest: &mut &[u8]| Some(String::from_utf8_lossy(take_bytes(rest)?).into_owned());
        let quarantine = text(&mut rest).filter(|name| name.starts_with("quarantine-") && !name.contains('/'))?;
        let mut folders = BTreeMap::new();
        while let Some((number, tail)) = rest.split_first_chunk::<8>() {
            rest = tail;
            folders.insert(u64::from_be_bytes(*number), text(&mut rest)?);
        }
        let whole = whole == 1;
        rest.is_empty().then_some(Self {
            quarantine,
            whole,
            folders,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_a_strange_one_is_refused() {
        let note = Note {
            quarantine: "quarantine-3".into(),
            whole: false,
            folders: [(7, "segment-0000000000000001".to_owned()), (1, "index".to_owned())].into(),
        };
        let bytes = note.encode();
        assert_eq!(Note::decode(&bytes), Some(note.clone()));
        (0..bytes.len()).for_each(|cut| assert_ne!(Note::decode(&bytes[..cut]), Some(note.clone())));
        let out = Note {
            quarantine: "quarantine-/../..".into(),
            ..note
        };
        assert_eq!(Note::decode(&out.encode()), None);
    }
}
