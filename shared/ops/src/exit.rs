//! Exit codes of the binaries, as `docs/operating.md` lists them.
//!
//! In: why a process ends. Out: a number that a supervisor can act on, and one line on standard error.
//! The numbers are a contract: they never change their meaning.

use std::fmt::Display;
use std::io::Write;

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// All went well, or a signal asked to stop and everything was drained.
    Ok = 0,
    /// Something failed at run time; a supervisor should restart the process.
    Failed = 1,
    /// Wrong arguments or configuration; a restart does not help.
    Usage = 2,
    /// The data directory is locked, foreign, of a newer format or unreadable.
    DataDir = 3,
    /// A listener could not bind its address.
    Listener = 4,
    /// Keys, certificates or tokens are missing, wrong or refused.
    Identity = 5,
    /// A signal asked to stop, but draining took longer than the deadline. What was acknowledged is durable.
    Deadline = 6,
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Prints `error: ...` on standard error as one line and gives the code on.
    #[must_use]
    pub fn report(self, error: &dyn Display) -> Self {
        let line = error.to_string().replace(['\n', '\r'], " ");
        // With standard error gone there is nobody left to tell; the exit code still says it.
        writeln!(std::io::stderr(), "error: {line}").ok();
        self
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode::{DataDir, Deadline, Failed, Identity, Listener, Ok, Usage};

    /// The numbers are documented; this test and docs/operating.md change together or not at all.
    #[test]
    fn the_documented_numbers_hold() {
        let codes = [Ok, Failed, Usage, DataDir, Listener, Identity, Deadline].map(super::ExitCode::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
        let manual = include_str!("../../../docs/operating.md");
        for code in codes {
            assert!(
                manual.contains(&format!("\n| {code} |")),
                "exit code {code} is not in docs/operating.md"
            );
        }
    }
}
