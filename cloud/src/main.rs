//! Entry point of `fellbeck-cloud`: hands the arguments to the library and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fellbeck_cloud::cli(std::env::args_os())
}
