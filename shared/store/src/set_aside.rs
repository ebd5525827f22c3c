//! Opens the database whatever of it is damaged: sets aside what cannot be opened, and puts back what is whole in it.
//!
//! Only the damaged folders move where the list of folders is sound, else the whole database. What is under way stands in a note first,
//! so that a crash at any point is made good by the next open.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::catalog::Track;
use crate::config::StoreConfig;
use crate::directory::Directory;
use crate::doctor;
use crate::engine::Engine;
use crate::error::{self, HaltError, OpenError};
use crate::manifest::{self, LIST};
use crate::report::OpenReport;
use crate::salvage::{self, Source};
use crate::salvage_note::Note;
use crate::survey::{Belief, Survey, survey};

/// Rounds in which more damage may come to light; then the whole database is set aside.
const ROUNDS_MAX: usize = 4;

pub(crate) fn open_or_set_aside(
    dir: &Directory,
    config: &StoreConfig,
    tracks: &[Track],
    report: &mut OpenReport,
) -> Result<(Engine, Survey), OpenError> {
    let mut opening = Opening {
        dir,
        config,
        tracks,
        note: Note::read(dir)?,
        report,
    };
    if let Some(note) = opening.note.clone() {
        tracing::warn!(
            quarantine = note.quarantine,
            "mending a damaged store was cut short: it is done again"
        );
        opening.carry_out(&note)?;
    }
    for round in 0.. {
        let reason = match opening.attempt() {
            Ok(opened) => {
                if opening.note.is_some() {
                    Note::remove(dir)?;
                }
                return Ok(opened);
            }
            Err(reason) if is_refusal(&reason) || round > ROUNDS_MAX => return Err(engine_error(dir, &reason)),
            Err(reason) => reason,
        };
        tracing::error!(%reason, "the database cannot be read as it is");
        opening.set_aside(&reason, round == ROUNDS_MAX)?;
    }
    unreachable!("the loop ends by itself")
}

struct Opening<'a> {
    dir: &'a Directory,
    config: &'a StoreConfig,
    tracks: &'a [Track],
    note: Option<Note>,
    report: &'a mut OpenReport,
}

impl Opening<'_> {
    /// Opens what is there, puts back what was set aside, and takes stock.
    fn attempt(&mut self) -> Result<(Engine, Survey), HaltError> {
        let db = self.dir.database();
        let mut unsound = manifest::unsound(&db)?;
        let blank: Vec<u64> = manifest::unfinished(&db)?;
        unsound.extend(salvage::journaled(&db, &blank)?);
        if !unsound.is_empty() {
            return Err(HaltError::Unsound(unsound));
        }
        // The engine asserts on some kinds of damage; a panic is then one more way to say that it cannot be read.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let source = match &self.note {
                Some(note) => Some(Source::open(&note.path(self.dir), note.folders.clone())?),
                None => None,
            };
            let engine = Engine::open(&db, self.config)?;
            let unsound = engine.unsound()?;
            if !unsound.is_empty() {
                return Err(HaltError::Unsound(unsound));
            }
            if let Some(source) = &source {
                let restored = salvage::restore(&engine, source, self.config)?;
                self.report.restored_batches = restored.batches;
            }
            let tracks = self.tracks.iter().map(Track::fresh).collect();
            let belief = match (&self.note, self.report.damaged_stretches) {
                (Some(_), _) => Belief::Salvaged,
                (None, 0) => Belief::Whole,
                (None, _) => Belief::Doubtful,
            };
            let survey = survey(&engine, tracks, belief)?;
            Ok((engine, survey))
        }));
        opened.unwrap_or(Err(HaltError::Broken("the engine panicked while opening")))
    }

    /// Moves what is damaged out of the way.
    fn set_aside(&mut self, reason: &HaltError, whole: bool) -> Result<(), OpenError> {
        let db = self.dir.database();
        let io = |source| self.dir.io(&db, source);
        let mut folders = match reason {
            HaltError::Unsound(folders) => folders.clone(),
            _ => manifest::unopenable(&db).map_err(io)?,
        };
        folders.sort_unstable();
        folders.dedup();
        let names = salvage::listed(&db).map_err(|error| engine_error(self.dir, &error))?;
        let mut note = match self.note.take() {
            // What was put back is damaged again, or does not go in: all of it is begun anew, once.
            Some(note) if note.whole => note,
            Some(mut note) => {
                note.whole |= whole || folders.is_empty() || folders.contains(&LIST);
                note
            }
            None => Note {
                quarantine: self.dir.free_quarantine(),
                whole: whole || folders.is_empty() || folders.contains(&LIST),
                ..Note::default()
            },
        };
        for folder in folders {
            note.folders
                .insert(folder, names.get(&folder).cloned().unwrap_or_default());
        }
        // A folder without a name is known by its content.
        note.folders.retain(|_, name| !name.is_empty());
        if !note.whole && note.folders.is_empty() {
            note.whole = true;
        }
        note.write(self.dir)?;
        self.carry_out(&note)?;
        self.note = Some(note);
        Ok(())
    }

    /// Does what the note says; does it again behind a crash.
    fn carry_out(&mut self, note: &Note) -> Result<(), OpenError> {
        let (db, aside) = (self.dir.database(), note.path(self.dir));
        let moved = if note.whole {
            move_whole(&db, &aside)
        } else {
            move_folders(&db, &aside, note)
        };
        moved.map_err(|source| self.dir.io(&aside, source))?;
        self.dir.sync().map_err(|source| self.dir.io(self.dir.root(), source))?;
        tracing::error!(quarantine = %aside.display(), whole = note.whole, folders = ?note.folders, "damaged files of the store were set aside");
        self.report.quarantined = Some(aside);
        Ok(())
    }
}

/// The whole database takes the place of the quarantine; where some of its folders are there already, the rest follows them.
fn move_whole(db: &Path, aside: &Path) -> std::io::Result<()> {
    if !aside.try_exists()? {
        match fs::rename(db, aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir(aside)?,
            outcome => outcome?,
        }
    }
    // The mark is written before anything is begun anew: behind a crash, what was begun must not be taken for a part of what is aside.
    if !aside.join("whole").try_exists()? {
        if db.try_exists()? {
            for (number, folder) in manifest::folders(db)? {
                let target = aside.join("keyspaces").join(number.to_string());
                if !target.try_exists()? {
                    fs::create_dir_all(aside.join("keyspaces"))?;
                    fs::rename(folder, target)?;
                }
            }
            keep_journals(db, aside)?;
        }
        File::create(aside.join("whole"))?.sync_all()?;
        sync_all(aside)?;
    }
    // What is in its place was begun from the quarantine, and nothing was accepted since.
    match fs::remove_dir_all(db) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn move_folders(db: &Path, aside: &Path, note: &Note) -> std::io::Result<()> {
    fs::create_dir_all(aside.join("keyspaces"))?;
    keep_journals(db, aside)?;
    for number in note.folders.keys() {
        let folder = db.join("keyspaces").join(number.to_string());
        let target = aside.join("keyspaces").join(number.to_string());
        // Behind a crash, what stands there is the one that was made anew.
        if folder.try_exists()? && !target.try_exists()? {
            fs::rename(folder, target)?;
        }
    }
    sync_all(aside)?;
    File::open(db.join("keyspaces"))?.sync_all()
}

/// Copies the journals, once: the engine will write into its own.
fn keep_journals(db: &Path, aside: &Path) -> std::io::Result<()> {
    for journal in doctor::journals(db)? {
        let Some(name) = journal.file_name() else { continue };
        let target = aside.join(name);
        if target.try_exists()? {
            continue;
        }
        let walk = crate::journal::walk(&journal)?;
        let fresh = target.with_extension("new");
        crate::journal::copy_valid(&journal, &walk, &fresh)?;
        fs::rename(&fresh, &target)?;
    }
    Ok(())
}

fn sync_all(aside: &Path) -> std::io::Result<()> {
    for folder in [&aside.join("keyspaces"), aside] {
        if folder.try_exists()? {
            File::open(folder)?.sync_all()?;
        }
    }
    Ok(())
}

/// Errors of the environment, which setting aside would not cure.
fn is_refusal(error: &HaltError) -> bool {
    match error {
        // A file is in the way of a database that has lost its version file.
        HaltError::Engine(fjall::Error::Io(io)) if io.kind() == ErrorKind::AlreadyExists => false,
        HaltError::Engine(error) => error::is_refusal(error),
        HaltError::Broken(_) | HaltError::Unsound(_) => false,
    }
}

pub(crate) fn engine_error(dir: &Directory, error: &HaltError) -> OpenError {
    OpenError::Engine {
        dir: dir.root().to_owned(),
        reason: error.to_string(),
    }
}
