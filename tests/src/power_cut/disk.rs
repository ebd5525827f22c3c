//! A disk of a test, mounted where a node keeps its data, whose power can be cut.
//!
//! In: a directory, a seed, orders. Out: cuts, faults, and what is on it. Owns the mount and the thread that serves it; both end with it.
//! A cut goes in steps, so that several disks can lose power at one moment: [`PowerDisk::fail`] on each, the signal to each process,
//! [`PowerDisk::off`], and, once the processes are gone, [`PowerDisk::restore`].

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::adapter::Adapter;
use super::crash::{CutPlan, CutReport};
use super::faults::Faults;
use super::image::Image;
use super::pending::PendingFs;
use super::switch::{Counts, Switch, Trigger};

/// A mounted disk.
#[derive(Debug)]
pub struct PowerDisk {
    at: PathBuf,
    switch: Arc<Switch>,
    session: Option<BackgroundSession>,
    /// As it was after the last cut, for a failed test.
    restored: Option<(Image, CutReport, Vec<String>)>,
}

impl PowerDisk {
    /// Mounts an empty disk at `at`, which is made. With `journaled` names are made durable as ext4 does.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(at: &Path, journaled: bool, seed: u64) -> Self {
        fs::create_dir_all(at).expect("a mount point can be made");
        let mut fs = PendingFs::new();
        fs.set_journaled(journaled);
        let mut disk = Self {
            at: at.to_owned(),
            switch: Arc::new(Switch::new(fs, seed)),
            session: None,
            restored: None,
        };
        disk.attach();
        disk
    }

    /// Why a disk cannot be mounted on this machine, if it cannot.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let adapter = Adapter(Arc::new(Switch::new(PendingFs::new(), 0)));
        match fuser::spawn_mount(adapter, dir.path(), &config()) {
            Ok(session) => session.umount_and_join().err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    fn attach(&mut self) {
        let adapter = Adapter(Arc::clone(&self.switch));
        let session = fuser::spawn_mount(adapter, &self.at, &config());
        self.session = Some(session.unwrap_or_else(|error| panic!("mounting {}: {error}", self.at.display())));
    }

    /// Takes the mount away and waits until nobody uses it any more: files of a process may outlive its end by a moment.
    fn detach(&mut self) -> std::io::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        let done = Command::new("umount").arg("--lazy").arg(&self.at).output()?;
        if !done.status.success() {
            return Err(std::io::Error::other(
                String::from_utf8_lossy(&done.stderr).into_owned(),
            ));
        }
        match session.join() {
            // How the kernel may end the thread that served a mount which is gone.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(()),
            outcome => outcome,
        }
    }

    /// Lets the power go by itself at an operation to come.
    pub fn arm(&self, trigger: Trigger) {
        self.switch.arm(trigger);
    }

    /// Waits for the power to go by itself; false when it has not within `within`.
    #[must_use]
    pub fn await_cut(&self, within: Duration) -> bool {
        self.switch.await_cut(within)
    }

    /// The power goes, unless it has gone. From now on no operation is answered.
    pub fn fail(&self) {
        self.switch.fail();
    }

    /// The processes have got their signal: what still waits may end.
    pub fn off(&self) {
        self.switch.off();
    }

    /// The power comes back, with the disk as a cut by `plan` and `seed` leaves it. No process may be using it.
    ///
    /// # Panics
    /// When it cannot be unmounted.
    pub fn restore(&mut self, plan: &CutPlan, seed: u64) -> CutReport {
        self.detach()
            .unwrap_or_else(|error| panic!("unmounting {}: {error}", self.at.display()));
        let trace = self.switch.trace();
        let report = {
            let mut state = self.switch.lock();
            let report = state.fs.cut(plan, &mut StdRng::seed_from_u64(seed));
            state.faults.mend();
            state.fs.set_quota(None);
            self.restored = Some((state.fs.disk().clone(), report.clone(), trace));
            report
        };
        self.switch.on();
        self.attach();
        report
    }

    /// Changes the faults.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.switch.lock().faults);
    }

    /// Operations that were made to fail.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.switch.lock().faults.hits()
    }

    /// Bounds the bytes on the disk.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.switch.lock().fs.set_quota(quota);
    }

    /// True when a quota leaves no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let state = self.switch.lock();
        state.fs.quota().is_some_and(|quota| quota < state.fs.used() + 4096)
    }

    /// Bytes occupied.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.switch.lock().fs.used()
    }

    /// Operations seen so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.switch.counts()
    }

    /// The disk as a process sees it.
    #[must_use]
    pub fn now(&self) -> Image {
        self.switch.lock().fs.now().clone()
    }

    /// Writes what a failed test needs into `target`: the disk after the last cut, what the cut did, and the operations since.
    fn explain(&self, target: &Path) -> std::io::Result<()> {
        if let Some((image, report, trace)) = &self.restored {
            image.export(&target.join("after-last-cut"))?;
            fs::write(target.join("last-cut.txt"), report.lines.join("\n"))?;
            fs::write(target.join("operations-before-cut.txt"), trace.join("\n"))?;
        }
        self.now().export(&target.join("now"))?;
        fs::write(target.join("operations-since.txt"), self.switch.trace().join("\n"))
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let target = std::env::temp_dir().join(format!("fellbeck-power-cut-{}", rand::random::<u32>()));
            let told = self.explain(&target);
            eprintln!("the disk at {}: {} {told:?}", self.at.display(), target.display());
        }
        self.switch.fail();
        self.switch.off();
        if let Err(error) = self.detach() {
            eprintln!("unmounting {}: {error}", self.at.display());
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("fellbeck-power-cut".to_owned()),
        MountOption::NoAtime,
    ];
    config
}
