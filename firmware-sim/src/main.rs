//! The firmware-sim program: a thin shell on the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    firmware_sim::cli::main(std::env::args_os())
}
