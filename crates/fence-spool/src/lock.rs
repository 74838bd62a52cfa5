//! The two locks of a watcher.
//!
//! `.watcher.lock` says that a watcher lives. It is a lock of the open file description, which can be
//! asked for without being taken: a client that looks never disturbs a watcher that starts.
//! `.running.lock` is held by whoever runs children for a watcher, so that the next watcher knows when
//! the last child of the previous one is gone. Both end with their process, however it ends.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::dir::Dir;
use crate::record::{self, Sight};
use crate::{LockError, SpoolError};

/// Whether a watcher serves the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// One does.
    Alive {
        /// Its process, once it has written it down.
        pid: Option<u32>,
    },
    /// One did.
    Dead {
        /// The process that it had.
        pid: Option<u32>,
    },
    /// None ever did, or it left nothing that could be trusted.
    Never,
}

/// The lock that makes this process the spool's one watcher, until it is dropped.
#[derive(Debug)]
pub struct WatcherLock {
    _file: File,
}

/// The lock that is shared by all who run children for a watcher.
#[derive(Debug)]
pub struct RunningLock<'a> {
    requests: &'a Dir,
}

impl RunningLock<'_> {
    /// The lock's file, for a process that takes the lock itself (a shared `flock`).
    pub fn path(&self) -> PathBuf {
        self.requests.join(RUNNING)
    }

    /// Takes a share of the lock, which is kept for as long as the file is open.
    pub fn hold_shared(&self) -> Result<File, SpoolError> {
        let file = open(self.requests, RUNNING)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(self.requests.error("lock", RUNNING, Errno::EWOULDBLOCK))
            }
            Err(TryLockError::Error(source)) => {
                Err(SpoolError::Io { operation: "lock", path: self.path(), source })
            }
        }
    }

    /// Whether nobody holds a share. In doubt somebody does.
    pub fn try_exclusive(&self) -> bool {
        open(self.requests, RUNNING).is_ok_and(|file| file.try_lock().is_ok())
    }
}

/// The lock of the children that run for the watcher of `requests`.
pub(crate) fn running(requests: &Dir) -> RunningLock<'_> {
    RunningLock { requests }
}

/// Makes this process the watcher of `requests`.
pub(crate) fn take(requests: &Dir) -> Result<WatcherLock, LockError> {
    let mut file = open(requests, WATCHER)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => {
            return Err(LockError::Held { path: requests.join(WATCHER), pid: pid_in(&file) });
        }
        Err(errno) => return Err(requests.error("lock", WATCHER, errno).into()),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(|source| {
        let path = requests.join(WATCHER);
        SpoolError::Io { operation: "write", path, source }
    })?;
    Ok(WatcherLock { _file: file })
}

/// Whether somebody is the watcher of `requests`.
pub(crate) fn liveness(requests: &Dir) -> Liveness {
    let Ok(file) = record::open(requests, WATCHER) else {
        return Liveness::Never;
    };
    let mut lock = whole_file();
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock));
    let pid = pid_in(&file);
    match asked {
        Ok(_) if i32::from(lock.l_type) != libc::F_UNLCK => Liveness::Alive { pid },
        _ => Liveness::Dead { pid },
    }
}

fn open(requests: &Dir, name: &str) -> Result<File, SpoolError> {
    let file = requests
        .file(name, OFlag::O_RDWR | OFlag::O_CREAT)
        .map_err(|errno| requests.error("open", name, errno))?;
    // What was there may be anything; the same rules hold as for a record.
    match record::open(requests, name) {
        Ok(_) => Ok(file),
        Err(Sight::Failed(error)) => Err(error),
        Err(_) => Err(requests.error("trust", name, Errno::EPERM)),
    }
}

fn pid_in(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are 0 and 1")]
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

const WATCHER: &str = ".watcher.lock";
const RUNNING: &str = ".running.lock";
