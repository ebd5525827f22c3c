//! Entry point of `fellbeck-edge`: hands the arguments to the library and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fellbeck_edge::cli(std::env::args_os())
}
