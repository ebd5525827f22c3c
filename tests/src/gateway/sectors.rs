//! What is on a drive whose cache is lost with its power.
//!
//! In: reads, writes and flushes of sectors, cuts. Out: bytes. What was not flushed is kept apart, in the order in which it was written; at a
//! cut some of it reaches the image and the rest never will. The cache is bounded: beyond the bound the oldest writes reach the image, as in a drive.
//! Relies on the image file alone, which holds what is durable at any moment.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;

/// What a drive writes whole or not at all: a block of ext4. Smaller ones would find a weakness of the journal of ext4 in Linux 6.1, which does
/// not mount after a commit block that was written in part.
pub(crate) const SECTOR: usize = 4096;
/// Bytes of the cache.
const CACHE_MAX: usize = 32 << 20;

/// What becomes of the writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlashCut {
    /// All reach the image: only the guest's memory is lost.
    KeepAll,
    /// None does.
    LoseAll,
    /// Those up to some moment do, the last one perhaps in part.
    InOrder,
    /// Each sector by itself shows one of the states that it went through.
    AnyOrder,
}

impl FlashCut {
    /// One of them, the rough ones more often.
    pub fn random(rng: &mut StdRng) -> Self {
        [
            Self::KeepAll,
            Self::LoseAll,
            Self::InOrder,
            Self::InOrder,
            Self::AnyOrder,
            Self::AnyOrder,
        ][rng.random_range(0..6)]
    }
}

/// What a drive has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlashStats {
    /// Bytes written by the guest.
    pub written: u64,
    /// Flushes, and writes that the guest wanted on the flash at once.
    pub flushes: u64,
    /// Sectors that cuts took away.
    pub lost_sectors: u64,
}

/// A drive.
#[derive(Debug)]
pub struct Sectors {
    image: File,
    size: u64,
    /// Sectors not flushed, oldest first: number and content.
    waiting: VecDeque<(u64, Box<[u8; SECTOR]>)>,
    /// Newest content of each of them.
    newest: HashMap<u64, Box<[u8; SECTOR]>>,
    stats: FlashStats,
}

impl Sectors {
    /// A drive with the image at `path`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let image = File::options().read(true).write(true).open(path)?;
        let size = image.metadata()?.len() / SECTOR as u64 * SECTOR as u64;
        Ok(Self {
            image,
            size,
            waiting: VecDeque::new(),
            newest: HashMap::new(),
            stats: FlashStats::default(),
        })
    }

    /// Bytes of the drive.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> FlashStats {
        self.stats
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// When they are not on the drive, or the image cannot be read.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(at, into.len())?;
        self.image.read_exact_at(into, at)?;
        for (sector, bytes) in (at / SECTOR as u64..).zip(into.chunks_exact_mut(SECTOR)) {
            if let Some(newest) = self.newest.get(&sector) {
                bytes.copy_from_slice(&newest[..]);
            }
        }
        Ok(())
    }

    /// Writes whole sectors into the cache.
    ///
    /// # Errors
    /// When they are not on the drive, or the image cannot be written.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(at, bytes.len())?;
        for (sector, bytes) in (at / SECTOR as u64..).zip(bytes.chunks_exact(SECTOR)) {
            let mut content = Box::new([0; SECTOR]);
            content.copy_from_slice(bytes);
            self.newest.insert(sector, content.clone());
            self.waiting.push_back((sector, content));
        }
        self.stats.written += bytes.len() as u64;
        while self.waiting.len() * SECTOR > CACHE_MAX {
            self.settle_oldest()?;
        }
        Ok(())
    }

    /// All that was written reaches the image.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stats.flushes += 1;
        while !self.waiting.is_empty() {
            self.settle_oldest()?;
        }
        self.newest.clear();
        Ok(())
    }

    /// The power goes. Returns how many sectors were waiting.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn cut(&mut self, how: FlashCut, rng: &mut StdRng) -> io::Result<usize> {
        let waiting: Vec<_> = self.waiting.drain(..).collect();
        self.newest.clear();
        let kept: Vec<usize> = match how {
            FlashCut::KeepAll => (0..waiting.len()).collect(),
            FlashCut::LoseAll => Vec::new(),
            FlashCut::InOrder => (0..rng.random_range(0..=waiting.len())).collect(),
            FlashCut::AnyOrder => {
                let share = rng.random_range(0.0..=1.0);
                (0..waiting.len()).filter(|_| rng.random_bool(share)).collect()
            }
        };
        for at in &kept {
            let (sector, content) = &waiting[*at];
            self.image.write_all_at(&content[..], sector * SECTOR as u64)?;
        }
        self.stats.lost_sectors += (waiting.len() - kept.len()) as u64;
        Ok(waiting.len())
    }

    fn settle_oldest(&mut self) -> io::Result<()> {
        let Some((sector, content)) = self.waiting.pop_front() else {
            return Ok(());
        };
        self.image.write_all_at(&content[..], sector * SECTOR as u64)
    }

    fn check(&self, at: u64, len: usize) -> io::Result<()> {
        let whole = at.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR);
        let inside = at.checked_add(len as u64).is_some_and(|end| end <= self.size);
        if whole && inside {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at {at} of {}", self.size),
        ))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn drive() -> (tempfile::NamedTempFile, Sectors) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(64 * SECTOR as u64).unwrap();
        let sectors = Sectors::open(file.path()).unwrap();
        (file, sectors)
    }

    fn first_bytes(sectors: &Sectors) -> Vec<u8> {
        let mut all = vec![0; 64 * SECTOR];
        sectors.read(0, &mut all).unwrap();
        all.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn what_was_flushed_survives_every_cut_and_the_rest_as_it_is_told() {
        let mut rng = StdRng::seed_from_u64(1);
        for how in [
            FlashCut::KeepAll,
            FlashCut::LoseAll,
            FlashCut::InOrder,
            FlashCut::AnyOrder,
        ] {
            for _ in 0..50 {
                let (_file, mut drive) = drive();
                drive.write(0, &[1; 4 * SECTOR]).unwrap();
                drive.flush().unwrap();
                for n in 0..20 {
                    drive
                        .write(4 * SECTOR as u64 * (1 + n % 3), &[2 + n as u8; 2 * SECTOR])
                        .unwrap();
                }
                let before = first_bytes(&drive);
                assert_eq!(drive.cut(how, &mut rng).unwrap(), 40);
                let after = first_bytes(&drive);
                assert_eq!(after[..4], [1; 4], "{how:?}");
                match how {
                    FlashCut::KeepAll => assert_eq!(after, before),
                    FlashCut::LoseAll => assert!(after[4..].iter().all(|byte| *byte == 0)),
                    FlashCut::InOrder | FlashCut::AnyOrder => {
                        assert!(after.iter().all(|byte| *byte < 22));
                    }
                }
            }
        }
    }

    #[test]
    fn a_cut_in_order_keeps_nothing_behind_what_it_lost() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..100 {
            let (_file, mut drive) = drive();
            for n in 0..10 {
                drive.write(n * SECTOR as u64, &[1; SECTOR]).unwrap();
            }
            drive.cut(FlashCut::InOrder, &mut rng).unwrap();
            let kept = first_bytes(&drive);
            let gone = kept.iter().position(|byte| *byte == 0).unwrap();
            assert!(kept[gone..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_full_cache_gives_its_oldest_writes_to_the_image_and_reads_show_the_newest() {
        let (_file, mut drive) = drive();
        drive.write(0, &[9; SECTOR]).unwrap();
        for n in 0..(CACHE_MAX / SECTOR / 8) {
            drive.write(8 * SECTOR as u64, &[(n % 200) as u8; 8 * SECTOR]).unwrap();
        }
        drive.cut(FlashCut::LoseAll, &mut StdRng::seed_from_u64(0)).unwrap();
        assert_eq!(first_bytes(&drive)[0], 9);
        drive.write(0, &[5; SECTOR]).unwrap();
        drive.write(0, &[6; SECTOR]).unwrap();
        assert_eq!(first_bytes(&drive)[0], 6);
        assert!(drive.write(1, &[0; SECTOR]).is_err());
        assert!(drive.write(64 * SECTOR as u64, &[0; SECTOR]).is_err());
        assert!(drive.read(u64::MAX - 511, &mut [0; SECTOR]).is_err());
    }
}
