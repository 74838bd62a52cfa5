//! The start of one program. It inherits nothing of this process.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeReader, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

use super::{Command, RunOutcome};
use crate::boot_ms_now;

/// A program that runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    pub(super) stdout: PipeReader,
    pub(super) stderr: PipeReader,
}

/// Starts `command`, or returns why it was certainly not started.
pub(super) fn spawn(command: &Command, null: &File) -> Result<Started, RunOutcome> {
    let program = command.argv.first().map_or("", String::as_str);
    prepare_and_spawn(command, program, null).unwrap_or_else(|error| {
        Err(RunOutcome::NotStarted(format!("cannot start \"{program}\": {error}")))
    })
}

fn prepare_and_spawn(
    command: &Command,
    program: &str,
    null: &File,
) -> io::Result<Result<Started, RunOutcome>> {
    let argv = command.argv.iter().map(|text| CString::new(text.as_str()));
    let argv = argv.collect::<Result<Vec<_>, _>>()?;
    let env = command.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    let env = env.collect::<Result<Vec<_>, _>>()?;
    let input = prepared_input(&command.stdin)?;
    let (stdout, stdout_theirs) = io::pipe()?;
    let (stderr, stderr_theirs) = io::pipe()?;
    // Only our ends: a program with non-blocking output would lose lines.
    for end in [&stdout, &stderr] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }

    let mut files = PosixSpawnFileActions::init()?;
    files.add_dup2(input.as_ref().unwrap_or(null).as_raw_fd(), 0)?;
    files.add_dup2(stdout_theirs.as_fd().as_raw_fd(), 1)?;
    files.add_dup2(stderr_theirs.as_fd().as_raw_fd(), 2)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    // The executor blocks and ignores signals. A program that inherited this could not even wait
    // for its own children.
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;

    // Checked last before the start, so that each delay until here counts.
    if command.client.as_ref().is_some_and(|client| !client.is_waiting(command.limit)) {
        return Ok(Err(RunOutcome::Withdrawn));
    }
    let now = boot_ms_now();
    if now >= command.start_not_after_boot_ms || now >= command.limit.not_after_boot_ms {
        return Ok(Err(RunOutcome::TooLate));
    }
    let pid = posix_spawn(program, &files, &attributes, &argv, &env)?;
    Ok(Ok(Started { pid, stdout, stderr }))
}

/// A file in memory: unlike a pipe, it takes any amount at once, and nothing waits for a program
/// that does not read it.
fn prepared_input(text: &str) -> io::Result<Option<File>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut file = File::from(memfd_create("stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(Some(file))
}
