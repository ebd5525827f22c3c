//! What a machine is made of: kernel and modules, busybox, the C library, and the cross-built edge.
//!
//! In: what `tests/gateway.sh` made below `target/gateway` (another edge by `FELLBECK_GATEWAY_EDGE`), and the
//! cross compiler's libraries. Out: paths, the RAM file system, and a disk with the system, both made anew for each run of the tests. Reads no network.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use super::image;

/// Modules that the guest needs, in any order; what they depend on is added.
const MODULES: [&str; 6] = [
    "crc32c_generic",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "ext4",
];
/// Shared libraries of the edge.
const LIBRARIES: [&str; 4] = ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"];
/// Where the cross compiler's packages put them.
const CROSS_LIBRARIES: &str = "/usr/aarch64-linux-gnu/lib";

/// First program of the RAM file system: modules, then the disk with the system.
const FIRST: &str = include_str!("first.sh");
/// First program of the disk: network, the disk with the data, the edge.
const SECOND: &str = include_str!("second.sh");

/// Files that all machines share.
#[derive(Debug)]
pub struct Kit {
    pub(crate) kernel: PathBuf,
    pub(crate) ram: PathBuf,
    pub(crate) system: PathBuf,
}

impl Kit {
    /// Makes them in `dir`.
    ///
    /// # Errors
    /// What is missing, and what to do.
    ///
    /// # Panics
    /// When a file cannot be read or written.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/gateway");
        let linux = home.join("kit/linux");
        let edge = std::env::var_os("FELLBECK_GATEWAY_EDGE").map_or_else(
            || home.join("aarch64-unknown-linux-gnu/gateway/fellbeck-edge"),
            PathBuf::from,
        );
        let busybox = linux.join("bin/busybox");
        for (file, how) in [(&busybox, "kit"), (&home.join("kit/made-by"), "kit"), (&edge, "build")] {
            if !file.exists() {
                return Err(format!("{} is missing: run tests/gateway.sh {how}", file.display()));
            }
        }
        fs::create_dir_all(dir).expect("a folder for the kit can be made");
        let kit = Self {
            kernel: only(&linux.join("boot"), "vmlinuz-"),
            ram: dir.join("ram.cpio"),
            system: dir.join("system.ext4"),
        };
        let modules = only(&linux.join("lib/modules"), "");
        fs::write(&kit.ram, ram(&busybox, &modules)).expect("the RAM file system can be written");
        system(dir, &busybox, &edge, &kit.system);
        Ok(kit)
    }
}

/// The one entry of `dir` whose name begins with `start`.
fn only(dir: &Path, start: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut found = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path());
    found
        .next()
        .unwrap_or_else(|| panic!("no {start}* in {}", dir.display()))
}

fn ram(busybox: &Path, modules: &Path) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "system"] {
        archive.folder(folder);
    }
    archive.program("bin/busybox", &read(busybox));
    archive.program("init", FIRST.as_bytes());
    for (at, module) in in_order(modules).iter().enumerate() {
        archive.program(&format!("modules/{at:02}.ko"), &read(module));
    }
    archive.finish()
}

/// The modules and what they depend on, each behind what it needs.
fn in_order(modules: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut HashMap<String, PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko")) {
                found.insert(name.replace('-', "_"), path);
            }
        }
    }
    fn add(name: &str, all: &HashMap<String, PathBuf>, order: &mut Vec<PathBuf>) {
        let path = all
            .get(name)
            .unwrap_or_else(|| panic!("the kernel has no module {name}"));
        if order.contains(path) {
            return;
        }
        for needed in depends(&read(path)) {
            add(&needed, all, order);
        }
        order.push(path.clone());
    }
    let (mut all, mut order) = (HashMap::new(), Vec::new());
    walk(modules, &mut all);
    for module in MODULES {
        add(module, &all, &mut order);
    }
    order
}

/// What a module says of itself: `depends=a,b` between two zeros.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let names = String::from_utf8_lossy(value).replace('-', "_");
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The disk with the programs, mounted read-only: what a gateway has in flash and pages in, not what lies in its memory for ever.
fn system(dir: &Path, busybox: &Path, edge: &Path, target: &Path) {
    let root = dir.join("system");
    for folder in ["bin", "data", "dev", "lib", "proc", "sys", "run"] {
        fs::create_dir_all(root.join(folder)).expect("a folder can be made");
    }
    let copy = |from: &Path, to: &str| {
        fs::copy(from, root.join(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    copy(busybox, "bin/busybox");
    copy(edge, "bin/fellbeck-edge");
    for library in LIBRARIES {
        copy(&Path::new(CROSS_LIBRARIES).join(library), &format!("lib/{library}"));
    }
    image::write_program(&root.join("init"), SECOND);
    image::make(&root, target, "system", 96);
    fs::remove_dir_all(&root).expect("a folder of ours can be removed");
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn the_dependencies_of_a_module_are_read() {
        assert_eq!(depends(b"x\0license=GPL\0depends=jbd2,crc-16\0y"), ["jbd2", "crc_16"]);
        assert_eq!(depends(b"x\0depends=\0y"), [""; 0]);
        assert_eq!(depends(b"nothing"), [""; 0]);
    }
}
