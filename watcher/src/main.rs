//! The program `fence-watcher`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fence_watcher::cli::main(std::env::args_os().collect())
}
