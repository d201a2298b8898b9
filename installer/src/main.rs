//! The `cofferdam` program: reads the command line, runs the command, turns its result into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    installer::cli::main()
}
