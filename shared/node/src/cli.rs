//! From the arguments of a process to its exit code.

use std::ffi::OsString;
use std::process::ExitCode as ProcessExit;

use clap::Parser;
use fellbeck_ops::ExitCode;

use crate::NodeError;

/// How parsing ended.
#[derive(Debug)]
pub enum Outcome<A> {
    /// Go on with these arguments.
    Run(A),
    /// Help or an error was printed; exit.
    Exit(ProcessExit),
}

/// Parses the command line `args`, whose first item is the name of the program.
pub fn parse<A: Parser>(args: impl Iterator<Item = OsString>) -> Outcome<A> {
    match A::try_parse_from(args) {
        Ok(args) => Outcome::Run(args),
        Err(error) => {
            // Nothing is left to do when standard output is closed.
            error.print().ok();
            Outcome::Exit(
                if error.use_stderr() {
                    ExitCode::Usage
                } else {
                    ExitCode::Ok
                }
                .into(),
            )
        }
    }
}

impl NodeError {
    /// Prints the error as one line and gives the exit code that goes with it.
    #[must_use]
    pub fn exit(&self) -> ProcessExit {
        self.exit_code().report(self).into()
    }
}
