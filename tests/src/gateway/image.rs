//! Images of ext4 disks, made without mounting anything.
//!
//! In: a folder. Out: a file with an ext4 file system that holds it (`mke2fs -d`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::command;
use crate::wait;

/// An ext4 disk of `mib` MiB at `target` with the data directory `data` as `edge` and `config` as `edge.toml`.
///
/// # Panics
/// When it cannot be made.
pub fn data_image(data: &Path, config: &str, target: &Path, mib: usize) {
    let root = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(root.path().join("edge.toml"), config).expect("a file can be written in a fresh directory");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(data).arg(root.path().join("edge"));
    command::finish(copy, wait::SOON).assert_ok();
    make(root.path(), target, "data", mib);
}

/// An ext4 disk with the content of `root`.
pub(crate) fn make(root: &Path, target: &Path, label: &str, mib: usize) {
    let mut make = Command::new("/sbin/mke2fs");
    // As Debian's installer makes it. All of it is initialised now: the guest shall not write that in the background.
    make.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
        "-L",
        label,
    ]);
    make.arg("-d").arg(root).arg(target).arg(format!("{mib}M"));
    command::finish(make, wait::SOON).assert_ok();
}

/// A script that may be executed.
pub(crate) fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("a file of ours can be written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the mode of our file can be set");
}
