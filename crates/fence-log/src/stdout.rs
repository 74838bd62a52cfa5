//! Whether standard output leads anywhere.

use std::io;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{fstat, stat};

/// Whether the starter closed standard output. Then Rust's run-time opens `/dev/null` instead, for
/// reading and writing; a shell's `>/dev/null` is open for writing alone. A starter that opens it
/// for both, as Python's `subprocess.DEVNULL` does, looks the same as a closed output.
pub fn stdout_was_closed() -> bool {
    let is_null = match (fstat(io::stdout()), stat("/dev/null")) {
        (Ok(stdout), Ok(null)) => stdout.st_rdev == null.st_rdev && null.st_rdev != 0,
        _ => false,
    };
    let flags = fcntl(io::stdout(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    is_null && flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDWR)
}
