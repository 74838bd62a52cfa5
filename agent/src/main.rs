//! The program `fence_gfs2_recorder`. The library has all its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    let start_boot_ms = fence_agent::clock::boot_ms();
    // The current directory may be on a GFS2 file system that hangs.
    let _ = std::env::set_current_dir("/");
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    fence_agent::run(&arguments, start_boot_ms)
}
