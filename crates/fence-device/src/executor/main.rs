//! The process of an executor or a keeper: its start and its end.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::libc;
use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{close, setsid};

use super::keeper::keeper_main;
use super::mark::{self, Mark};
use super::service::Executor;
use super::{Greeting, json_line};

/// The body of the watcher's hidden mode: runs programs for the watcher at the other end of
/// standard input. Returns when the watcher is gone and all that it started is killed.
///
/// Makes `lock_file` if needed, and holds a shared lock on it until the process and its keepers
/// end. To be called first in a fresh, single-threaded process. To make a keeper, the executor
/// starts the same program with the same arguments, except this path. Then this is a keeper's body.
pub fn executor_main(lock_file: &Path) -> io::Result<()> {
    if UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?).peer_addr().is_err() {
        return Err(io::Error::other("this mode is for the watcher's own use"));
    }
    if lock_file == Path::new(KEEPER) {
        return keeper_main();
    }
    close_inherited()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut mark = None;
    let prepared = prepare(lock_file, &mut mark)
        .and_then(|lock| Ok((Executor::new(socket.try_clone()?, lock.try_clone()?)?, lock)));
    let problem = prepared.as_ref().err();
    let problem = problem.map(|error| format!("executor: \"{}\": {error}", lock_file.display()));
    socket.write_all(&json_line(&Greeting { problem, mark }))?;
    // The watcher reports the problem.
    let Ok((mut executor, lock)) = prepared else { return Ok(()) };

    let ended = executor.serve();
    executor.end_everything();
    // No process is left to end.
    mark::leave_note(&lock, None)?;
    ended
}

/// Separates the process from the terminal and the session of the watcher, and locks the file.
fn prepare(lock_file: &Path, mark: &mut Option<Mark>) -> io::Result<File> {
    // The watcher alone decides when the executor ends, also at Ctrl-C and at shutdown.
    SigSet::all().thread_block()?;
    setsid()?;
    set_name(c"fence-executor")?;
    set_child_subreaper(true)?;
    env::set_current_dir("/")?;
    let (_, files_max) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, files_max.min(FILES_MAX), files_max)?;

    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock_file)?;
    lock.lock_shared()?;
    mark::take_over(&lock)?;
    *mark = Mark::set();
    mark::leave_note(&lock, mark.as_ref())?;
    Ok(lock)
}

/// Closes inherited open files, so that no program gets them.
fn close_inherited() -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    for name in names.collect::<io::Result<Vec<_>>>()? {
        // The directory itself was one of them, and is closed by now.
        if let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok())
            && number > 2
        {
            let _ = close(number);
        }
    }
    Ok(())
}

/// The executor's limit of open files. Each program needs two; the usual 1024 are too few for a
/// burst.
const FILES_MAX: u64 = 16_384;

/// The argument of a keeper in place of the lock's path. That path is never relative.
pub(super) const KEEPER: &str = "keeper";
