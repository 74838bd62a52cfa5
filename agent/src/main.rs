//! The program `fence_gfs2_recorder`; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let start_boot_ms = fence_agent::clock::boot_ms();
    // The directory in which we were started may lie on a GFS2 file system that hangs.
    let _ = std::env::set_current_dir("/");
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    fence_agent::run(&arguments, start_boot_ms)
}
