//! A group of processes with a bound on its memory, as a small gateway has.
//!
//! In: bytes, processes. Out: whether one was killed for want of memory. Uses whichever of cgroup 1 and 2 has the memory controller here;
//! needs root. Page cache counts, as on a real machine, and is given back under pressure.

use std::fs;
use std::path::{Path, PathBuf};

/// The group; removed when this is dropped, once its processes have ended.
#[derive(Debug)]
pub struct MemoryGroup {
    dir: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// Makes a group of `bytes`.
    ///
    /// # Panics
    /// When this machine offers no group with a bound on memory: a test that needs one must not pass without it.
    #[must_use]
    pub fn new(name: &str, bytes: u64) -> Self {
        let name = format!("fellbeck-{name}-{}", std::process::id());
        let (root, is_v2) = root();
        let group = Self {
            dir: root.join(name),
            is_v2,
        };
        fs::create_dir(&group.dir).expect("a memory group can be made (as root)");
        let bound = if is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(group.dir.join(bound), bytes.to_string()).expect("a memory group takes its bound");
        // Swap would hide what is too much.
        let swap = if is_v2 {
            ("memory.swap.max", "0")
        } else {
            ("memory.swappiness", "0")
        };
        drop(fs::write(group.dir.join(swap.0), swap.1));
        group
    }

    /// Puts a process into the group; what it has allocated already is not counted.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn add(&self, pid: u32) {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string()).expect("a process can be put into a group");
    }

    /// Processes of the group that were killed for want of memory.
    ///
    /// # Panics
    /// When the system does not say.
    #[must_use]
    pub fn killed(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.dir.join(file)).expect("the state of a group can be read");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .expect("the system counts such kills")
    }

    /// Most memory that the group has used, page cache included.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        let file = if self.is_v2 {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        fs::read_to_string(self.dir.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.dir));
    }
}

fn root() -> (PathBuf, bool) {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    if v1.join("memory.limit_in_bytes").exists() {
        return (v1.to_owned(), false);
    }
    let v2 = Path::new("/sys/fs/cgroup");
    drop(fs::write(v2.join("cgroup.subtree_control"), "+memory"));
    let controllers = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
    let has_memory = controllers.split_whitespace().any(|name| name == "memory");
    assert!(
        has_memory,
        "no cgroup with a bound on memory: neither version 1 nor version 2 offers one here"
    );
    (v2.to_owned(), true)
}
