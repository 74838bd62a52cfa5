//! The process that is an executor or a keeper: its beginning and its end.

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
/// standard input, and returns when that has gone and everything it started has been killed.
///
/// `lock_file` is made if needed, and locked in shared mode until the process and its keepers end.
/// To be called first in a fresh, single-threaded process. The executor starts the same program
/// with the same arguments but this one to make a keeper; then this is a keeper's body.
pub fn executor_main(lock_file: &Path) -> io::Result<()> {
    if UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?).peer_addr().is_err() {
        return Err(io::Error::other("this mode is for the watcher's own use"));
    }
    if lock_file == Path::new(KEEPER) {
        return keeper_main();
    }
    close_inherited()?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let problem = |error: io::Error| format!("executor: \"{}\": {error}", lock_file.display());
    let mut mark = None;
    let prepared = prepare(lock_file, &mut mark).and_then(|lock| {
        Executor::new(socket.try_clone()?, lock.try_clone()?).map(|executor| (lock, executor))
    });
    let (greeting, result) = match prepared {
        Ok(prepared) => (None, Ok(prepared)),
        Err(error) => (Some(problem(error)), Err(())),
    };
    socket.write_all(&json_line(&Greeting { problem: greeting, mark }))?;
    // Who started us has read the problem.
    let Ok((lock, mut executor)) = result else { return Ok(()) };

    let ended = executor.serve();
    executor.end_everything();
    // Nothing is left that could be ended.
    mark::leave_note(&lock, None)?;
    ended
}

/// Leaves everything that ties the process to who started the watcher.
fn prepare(lock_file: &Path, mark: &mut Option<Mark>) -> io::Result<File> {
    // Whether and when to end is the watcher's decision, also at Ctrl-C and at shutdown.
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

/// Closes what whoever started the watcher left open, so that no program gets it.
fn close_inherited() -> io::Result<()> {
    let mut inherited: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        inherited.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    for number in inherited.into_iter().filter(|number| *number > 2) {
        // One of them was the directory that was read, and is closed by now.
        let _ = close(number);
    }
    Ok(())
}

/// Open files that the executor allows itself, two for each program; the usual 1024 are too few for
/// a burst.
const FILES_MAX: u64 = 16_384;

/// What stands in a keeper's arguments in the place of the lock's path, which is never relative.
pub(super) const KEEPER: &str = "keeper";
