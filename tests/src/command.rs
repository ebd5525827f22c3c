//! Commands that end by themselves: `check`, `join`, `token create`, a `run` that must refuse to start.
//!
//! In: a built binary and its arguments. Out: exit code and all that it printed. A command that does not end within the deadline is
//! killed and fails the test. The environment is passed on without our own variables, so that a developer's shell changes nothing.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::wait;

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Standard output and error together.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Demands a refusal as DESIGN section 9 wants it: not 0, no panic, and a line that contains each of `words`,
    /// in whatever case.
    ///
    /// # Panics
    /// When it was anything else.
    pub fn assert_refused(&self, words: &[&str]) {
        let text = self.text();
        assert!(
            self.code.is_some_and(|code| code != 0),
            "ended with {:?}:\n{text}",
            self.code
        );
        assert!(!text.contains("panicked at"), "a panic is no refusal:\n{text}");
        let lower = text.to_lowercase();
        let said = lower
            .lines()
            .any(|line| words.iter().all(|word| line.contains(&word.to_lowercase())));
        assert!(said, "no line names all of {words:?}:\n{text}");
    }

    /// Demands exit code 0.
    ///
    /// # Panics
    /// When it was another.
    pub fn assert_ok(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.text());
        self
    }
}

/// Path of a binary of this workspace, built before the tests run.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("FELLBECK_BIN_DIR").map_or_else(
        || {
            let mut dir = std::env::current_exe().expect("the path of the test binary is known");
            // target/debug/deps/e2e-0123 -> target/debug
            dir.pop();
            dir.pop();
            dir
        },
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not built: run tests/run.sh, or cargo build --workspace",
        path.display()
    );
    path
}

/// A command for `name` without our variables in its environment and without standard input.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("FELLBECK_") || key == "RUST_LOG" {
            command.env_remove(key);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the binary `name` with `args` and `env` to its end.
///
/// # Panics
/// When it cannot be started or does not end within `within`.
#[must_use]
pub fn run_to_end(name: &str, args: &[&str], env: &[(&str, &str)], within: Duration) -> Finished {
    let mut command = command(name);
    command.args(args).envs(env.iter().copied());
    finish(command, within)
}

/// Runs any command to its end; its output goes through files, so that a talkative one cannot block.
pub(crate) fn finish(mut command: Command, within: Duration) -> Finished {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| dir.path().join(name);
    let file = |name: &str| File::create(path(name)).expect("a file can be made in a fresh directory");
    command.stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + within;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the state of a child can be asked") {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().ok();
            child.wait().ok();
            break None;
        }
        wait::pause();
    };
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(path(name)).unwrap_or_default()).into_owned();
    let (out, err) = (read("out"), read("err"));
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end within {within:?}:\n{out}{err}"));
    Finished {
        code: status.code(),
        out,
        err,
    }
}
