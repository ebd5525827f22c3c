//! Export files: records of a store with their positions, in a file of its own. Drawn in `docs/format/export.md`.
//!
//! Pure over readers and writers. Each part has a checksum, and the end says how much there should be, so that a file that was cut short
//! is never taken for a whole one.

use std::io::{Read, Write};

use bytes::Bytes;
use fellbeck_core::Batch;
use fellbeck_core::varint::{put_bytes, take_bytes};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: [u8; 8] = *b"FELLBKX\x01";
const BATCH: u8 = 1;
const END: u8 = 2;
/// Largest part: a batch of one record of the largest packet, and its names.
const PART_MAX: u32 = 64 * 1024 * 1024;

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No export file, or one of a later version.
    #[error("not an export file of version 1")]
    Foreign,
    /// A checksum or a length is wrong; what came before is sound.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
    /// The end is missing; what came before is sound.
    #[error("the file was cut short")]
    CutShort,
}

/// Writes an export file.
#[derive(Debug)]
pub struct Exporter<W> {
    out: W,
    batches: u64,
    records: u64,
}

impl<W: Write> Exporter<W> {
    /// Begins a file with records of the store `log_id`.
    pub fn begin(mut out: W, log_id: [u8; 16]) -> std::io::Result<Self> {
        let head = [&MAGIC[..], &log_id].concat();
        out.write_all(&head)?;
        out.write_all(&xxh3_64(&head).to_be_bytes())?;
        let (batches, records) = (0, 0);
        Ok(Self { out, batches, records })
    }

    /// Adds a batch of a track.
    pub fn batch(&mut self, track: &str, batch: &Batch) -> std::io::Result<()> {
        let mut part = Vec::with_capacity(batch.encoded_len() + track.len() + 4);
        put_bytes(&mut part, track.as_bytes());
        batch.encode_into(&mut part);
        self.batches += 1;
        self.records += u64::from(batch.header.count);
        self.part(BATCH, &part)
    }

    /// Ends the file; returns how many records it holds.
    pub fn finish(mut self) -> std::io::Result<(W, u64)> {
        let counts = [self.batches.to_be_bytes(), self.records.to_be_bytes()].concat();
        self.part(END, &counts)?;
        self.out.flush()?;
        Ok((self.out, self.records))
    }

    fn part(&mut self, kind: u8, content: &[u8]) -> std::io::Result<()> {
        let len = u32::try_from(content.len()).ok().filter(|len| *len <= PART_MAX);
        let len = len.ok_or_else(|| std::io::Error::other("a batch above 64 MiB"))?;
        let head = [&[kind][..], &len.to_be_bytes()].concat();
        let checksum = xxh3_64(&[&head[..], content].concat());
        self.out.write_all(&head)?;
        self.out.write_all(content)?;
        self.out.write_all(&checksum.to_be_bytes())
    }
}

/// Reads an export file.
#[derive(Debug)]
pub struct Importer<R> {
    input: R,
    log_id: [u8; 16],
    batches: u64,
    records: u64,
    ended: bool,
}

impl<R: Read> Importer<R> {
    /// Reads the head.
    pub fn begin(mut input: R) -> Result<Self, ExportError> {
        let mut head = [0; 32];
        input.read_exact(&mut head).map_err(|_| ExportError::Foreign)?;
        if head[..8] != MAGIC {
            return Err(ExportError::Foreign);
        }
        if xxh3_64(&head[..24]).to_be_bytes() != head[24..] {
            return Err(ExportError::Damaged("its head"));
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&head[8..24]);
        Ok(Self {
            input,
            log_id,
            batches: 0,
            records: 0,
            ended: false,
        })
    }

    /// The store that the records come from.
    pub fn log_id(&self) -> [u8; 16] {
        self.log_id
    }

    /// The next batch and the name of its track; `None` at the end of a whole file.
    pub fn next_batch(&mut self) -> Result<Option<(String, Batch)>, ExportError> {
        if self.ended {
            return Ok(None);
        }
        let mut head = [0; 5];
        self.exact(&mut head)?;
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if len > PART_MAX {
            return Err(ExportError::Damaged("a length"));
        }
        // Grows with what is there, not with what is claimed.
        let mut content = Vec::new();
        let read = (&mut self.input).take(u64::from(len)).read_to_end(&mut content)?;
        if read < len as usize {
            return Err(ExportError::CutShort);
        }
        let mut checksum = [0; 8];
        self.exact(&mut checksum)?;
        if xxh3_64(&[&head[..], &content].concat()).to_be_bytes() != checksum {
            return Err(ExportError::Damaged("a checksum does not match"));
        }
        match head[0] {
            BATCH => self.open(content).map(Some),
            END => {
                let counts = [self.batches.to_be_bytes(), self.records.to_be_bytes()].concat();
                self.ended = true;
                (content == counts)
                    .then_some(None)
                    .ok_or(ExportError::Damaged("the counts at its end do not match"))
            }
            _ => Err(ExportError::Damaged("a part of an unknown kind")),
        }
    }

    fn open(&mut self, content: Vec<u8>) -> Result<(String, Batch), ExportError> {
        let content = Bytes::from(content);
        let mut rest = &content[..];
        let name = take_bytes(&mut rest).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or(ExportError::Damaged("the name of a track"))?.to_owned();
        let at = content.len() - rest.len();
        let batch = Batch::parse(content.slice(at..)).map_err(|_| ExportError::Damaged("a batch does not decode"))?;
        self.batches += 1;
        self.records += u64::from(batch.header.count);
        Ok((name, batch))
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), ExportError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => ExportError::CutShort,
            _ => ExportError::Io(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use fellbeck_core::{Epoch, Seq};

    use super::*;
    use crate::testing::block_of;

    fn file() -> Vec<u8> {
        let mut exporter = Exporter::begin(Vec::new(), [7; 16]).unwrap();
        for first in [1, 3] {
            let batch = Batch::seal(Epoch(2), Seq(first), &block_of(2, 5));
            exporter.batch("lane/default/0", &batch).unwrap();
        }
        let (file, records) = exporter.finish().unwrap();
        assert_eq!(records, 4);
        file
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, u64)>, ExportError> {
        let mut importer = Importer::begin(bytes)?;
        assert_eq!(importer.log_id(), [7; 16]);
        let mut found = Vec::new();
        while let Some((track, batch)) = importer.next_batch()? {
            found.push((track, batch.header.first.0));
        }
        Ok(found)
    }

    #[test]
    fn a_file_comes_back_and_any_change_or_cut_shows() {
        let file = file();
        let lane = "lane/default/0".to_owned();
        assert_eq!(read(&file).unwrap(), [(lane.clone(), 1), (lane, 3)]);
        (0..file.len()).for_each(|cut| assert!(read(&file[..cut]).is_err(), "cut at {cut}"));
        for at in (0..file.len()).filter(|at| !(8..24).contains(at)) {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
    }
}
