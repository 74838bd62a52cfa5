//! The two locks of a watcher.
//!
//! `.watcher.lock` says that a watcher lives. It is a lock of the open file description, which can be
//! asked for without being taken: a client that looks never disturbs a watcher that starts.
//! `.running.lock` is held by whoever runs children for a watcher, so that the next watcher knows when
//! the last child of the previous one is gone. Both end with their process, however it ends.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::dir::Dir;
use crate::record::{self, Refusal};
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

    /// Takes a share of the lock, as the process that runs children does by the file's path.
    #[cfg(test)]
    fn hold_shared(&self) -> Result<File, SpoolError> {
        let file = open(self.requests, RUNNING)?;
        file.try_lock_shared().unwrap();
        Ok(file)
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
    let Ok(file) = record::open(requests, WATCHER, OFlag::O_RDONLY) else {
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
    record::open(requests, name, OFlag::O_RDWR | OFlag::O_CREAT).map_err(|refusal| match refusal {
        Refusal::Untrusted(error) => error,
        Refusal::System(errno) => requests.error("open", name, errno),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pair, each_untrusted, mode, write};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_watcher_is_alive_for_as_long_as_it_holds_its_lock() {
        let pair = Pair::new();
        let us = Some(std::process::id());
        assert_eq!(pair.client.watcher(), Liveness::Never);

        let lock = pair.watcher.lock().unwrap();
        assert_eq!(pair.client.watcher(), Liveness::Alive { pid: us });
        assert_eq!(mode(&pair.request(WATCHER)), 0o600);

        drop(lock);
        assert_eq!(pair.client.watcher(), Liveness::Dead { pid: us });
    }

    #[test]
    fn a_second_watcher_is_refused_and_told_who_the_first_one_is() {
        let pair = Pair::new();
        let first = pair.watcher.lock().unwrap();

        let error = pair.watcher.lock().unwrap_err();

        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id())
        );
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        assert_eq!(pair.client.watcher(), Liveness::Alive { pid: Some(std::process::id()) });
        drop(first);
        assert!(pair.watcher.lock().is_ok());
    }

    #[test]
    fn a_client_that_asks_never_keeps_a_watcher_from_starting() {
        let pair = Pair::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    pair.client.watcher();
                }
            });
            for _ in 0..1000 {
                let lock = pair.watcher.lock();
                done.store(lock.is_err(), Ordering::Relaxed);
                lock.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn a_shorter_pid_replaces_a_longer_one_whole() {
        let pair = Pair::new();
        write(&pair.request(WATCHER), b"4194304999\n");

        let _lock = pair.watcher.lock().unwrap();

        let text = std::fs::read_to_string(pair.request(WATCHER)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_lock_file_that_is_not_ours_is_neither_used_nor_believed() {
        let pair = Pair::new();
        each_untrusted(&pair.request(WATCHER), |word| {
            let error = pair.watcher.lock().unwrap_err();
            assert!(error.to_string().contains(word), "{word}: {error}");
            assert_eq!(pair.client.watcher(), Liveness::Never, "{word}");
        });
        each_untrusted(&pair.request(RUNNING), |word| {
            assert!(pair.watcher.running_lock().hold_shared().is_err(), "{word}");
            assert!(!pair.watcher.running_lock().try_exclusive(), "{word}");
        });
    }

    #[test]
    fn children_run_until_the_last_share_of_their_lock_is_gone() {
        let pair = Pair::new();
        let lock = pair.watcher.running_lock();
        assert!(lock.try_exclusive());
        assert!(lock.try_exclusive(), "asking takes nothing");

        let one = lock.hold_shared().unwrap();
        let other = lock.hold_shared().unwrap();
        assert!(!lock.try_exclusive());
        drop(one);
        assert!(!lock.try_exclusive());
        drop(other);
        assert!(lock.try_exclusive());
        assert!(lock.path().is_file());
    }
}
