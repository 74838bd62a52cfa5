//! Whether the standard outputs lead anywhere.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{fstat, stat};

/// Whether the starter closed standard output. Then Rust's run-time opens `/dev/null` instead, for
/// reading and writing; a shell's `>/dev/null` is open for writing alone. A starter that opens it
/// for both, as Python's `subprocess.DEVNULL` does, looks the same as a closed output.
pub fn stdout_was_closed() -> bool {
    let flags = fcntl(io::stdout(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    is_null(io::stdout()) && flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == OFlag::O_RDWR)
}

/// Whether output on standard error is lost, as for a daemon that an init script starts.
pub(crate) fn stderr_is_lost() -> bool {
    fstat(io::stderr()).is_err() || is_null(io::stderr())
}

/// Whether standard error leads to the journal. The variable alone does not show that: programs in a
/// terminal inherit it, too (systemd.exec(5)).
pub(crate) fn stderr_is_journal() -> bool {
    let Ok(stderr) = fstat(io::stderr()) else { return false };
    let stream = format!("{}:{}", stderr.st_dev, stderr.st_ino);
    std::env::var_os("JOURNAL_STREAM").is_some_and(|named| named == *stream)
}

fn is_null(output: impl AsFd) -> bool {
    match (fstat(output), stat("/dev/null")) {
        (Ok(output), Ok(null)) => output.st_rdev == null.st_rdev && null.st_rdev != 0,
        _ => false,
    }
}
