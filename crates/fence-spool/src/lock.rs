//! The two locks of a watcher.
//!
//! `.watcher.lock` shows that a watcher lives. It is a lock of the open file description, which a
//! client can examine without taking it: a client never disturbs a watcher that starts. Each
//! process that runs children for a watcher holds `.running.lock`, so the next watcher knows when
//! the last child of the previous watcher has ended. Both locks end with their processes.
//!
//! The text of `.watcher.lock` is the watcher's pid, and a line for each directory that it serves:
//! an agent with another directory of answers would wait in vain for fences that are executed.
//!
//! Somebody may remove the files while they are locked. The directories also show that a watcher
//! lives (`sign`). The lock of the children has a second name among the claims. The running watcher
//! restores both files.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::fstat;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::dir::Dir;
use crate::record::{self, OpenRefusal};
use crate::served::Served;
use crate::sign::{self, Sign};
use crate::{LockError, SpoolError};

/// Whether a watcher serves the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// A watcher serves it.
    Alive {
        /// Its process, if the watcher has already written it.
        pid: Option<u32>,
    },
    /// A watcher served it, and has ended.
    Dead {
        /// The process of that watcher.
        pid: Option<u32>,
    },
    /// No watcher ever served it, or it left no trusted file.
    Never,
}

/// The lock that makes this process the spool's one watcher, until it is dropped.
#[derive(Debug)]
pub struct WatcherLock {
    file: File,
    _sign: Sign,
}

/// The lock that all processes share that run children for a watcher.
#[derive(Debug)]
pub struct RunningLock<'a> {
    pub(crate) requests: &'a Dir,
    pub(crate) claimed: &'a Dir,
}

impl RunningLock<'_> {
    /// The lock's file, for a process that takes the lock itself (a shared `flock`). This is the
    /// name among the claims: the other name may be gone at that moment.
    pub fn path(&self) -> PathBuf {
        self.claimed.join(RUNNING)
    }

    /// Takes a share of the lock, as the process that runs children does by the file's path.
    #[cfg(test)]
    fn hold_shared(&self) -> Result<File, SpoolError> {
        let file = open(self.claimed, RUNNING)?;
        file.try_lock_shared().unwrap();
        Ok(file)
    }

    /// Whether certainly no process holds a share, under either name.
    ///
    /// Afterwards both names name one file: the file that an executor used last, with its note. An
    /// earlier version, which knows only one name, may have run meanwhile.
    pub fn try_exclusive(&self) -> bool {
        is_free(self.requests) && is_free(self.claimed) && self.join_names().is_ok()
    }

    /// Restores the file's name in the directory of requests, if the name is gone or names an empty
    /// file that nobody uses. Returns whether it did so.
    pub fn restore(&self) -> Result<bool, SpoolError> {
        let Some(hidden) = identity(self.claimed)? else { return Ok(false) };
        match identity(self.requests)? {
            None => link(self.claimed, self.requests).map(|()| true),
            Some((file, 0)) if file != hidden.0 && is_free(self.requests) => {
                self.join_names().map(|()| true)
            }
            Some(_) => Ok(false),
        }
    }

    fn join_names(&self) -> Result<(), SpoolError> {
        let (visible, hidden) = (identity(self.requests)?, identity(self.claimed)?);
        match (visible, hidden) {
            (Some((visible, _)), Some((hidden, _))) if visible == hidden => Ok(()),
            (None | Some((_, 0)), Some(_)) => {
                self.requests.unlink(RUNNING)?;
                link(self.claimed, self.requests)
            }
            _ => {
                self.claimed.unlink(RUNNING)?;
                link(self.requests, self.claimed)
            }
        }
    }
}

/// Whether nobody holds the children's lock by its name in `dir`. Creates a missing file.
fn is_free(dir: &Dir) -> bool {
    open(dir, RUNNING).is_ok_and(|file| file.try_lock().is_ok())
}

/// Links the children's lock in `from` into `to`.
fn link(from: &Dir, to: &Dir) -> Result<(), SpoolError> {
    from.link(RUNNING, to).map_err(|errno| to.error("create", RUNNING, errno))
}

/// Device and inode of a file.
type Identity = (u64, u64);

/// The identity and the size of the children's lock in `dir`.
fn identity(dir: &Dir) -> Result<Option<(Identity, i64)>, SpoolError> {
    identity_of(dir, RUNNING)
}

fn identity_of(dir: &Dir, name: &str) -> Result<Option<(Identity, i64)>, SpoolError> {
    match dir.stat(name) {
        Ok(stat) => Ok(Some(((stat.st_dev, stat.st_ino), stat.st_size))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(dir.error("examine", name, errno)),
    }
}

/// Makes this process the watcher of `requests`.
pub(crate) fn take(requests: &Dir, served: &Served) -> Result<WatcherLock, LockError> {
    let refused = || LockError::Served { path: requests.join(""), lock: requests.join(WATCHER) };
    // First, so that a refused watcher leaves nothing that others would look at.
    if sign::is_set(requests)? {
        return Err(match of_file(requests) {
            Liveness::Alive { pid } => LockError::Held { path: requests.join(WATCHER), pid },
            Liveness::Dead { .. } | Liveness::Never => refused(),
        });
    }
    let file = take_file(requests, served)?;
    let sign = sign::set(requests)?.ok_or_else(refused)?;
    Ok(WatcherLock { file, _sign: sign })
}

/// Creates the file of `lock` again if somebody removed or replaced it. Returns whether it did so.
/// Fails if another process holds a lock on the new file: a watcher of an earlier version, which
/// knows only the file.
pub(crate) fn restore(
    requests: &Dir,
    served: &Served,
    lock: &mut WatcherLock,
) -> Result<bool, LockError> {
    let there = identity_of(requests, WATCHER)?;
    let ours = fstat(&lock.file).map_err(|errno| requests.error("examine", WATCHER, errno))?;
    if there.is_some_and(|(file, _)| file == (ours.st_dev, ours.st_ino)) {
        return Ok(false);
    }
    lock.file = take_file(requests, served)?;
    Ok(true)
}

/// Locks the file, and writes our pid and our directories into it.
fn take_file(requests: &Dir, served: &Served) -> Result<File, LockError> {
    let mut file = open(requests, WATCHER)?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => {
            return Err(LockError::Held { path: requests.join(WATCHER), pid: pid_in(&file) });
        }
        Err(errno) => return Err(requests.error("lock", WATCHER, errno).into()),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(&served.to_text(std::process::id())))
        .map_err(|error| requests.error("write", WATCHER, error))?;
    Ok(file)
}

/// Whether a watcher serves `requests`.
pub(crate) fn liveness(requests: &Dir) -> Liveness {
    match of_file(requests) {
        alive @ Liveness::Alive { .. } => alive,
        // The file may be gone, or not the watcher's. A sign that cannot be examined shows no
        // watcher.
        _ if sign::is_set(requests).unwrap_or(false) => Liveness::Alive { pid: None },
        other => other,
    }
}

fn of_file(requests: &Dir) -> Liveness {
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
    record::open(requests, name, OFlag::O_RDWR | OFlag::O_CREAT)
        .map_err(|refusal| refusal.into_error(requests, "open", name))
}

/// Why the locks' files, if they exist, cannot be used. Takes no lock.
pub(crate) fn examine(requests: &Dir, claimed: Option<&Dir>) -> Vec<SpoolError> {
    let files =
        [Some((requests, WATCHER)), Some((requests, RUNNING)), claimed.map(|c| (c, RUNNING))];
    let problem = |(dir, name): (&Dir, &str)| match record::open(dir, name, OFlag::O_RDWR) {
        Ok(_) | Err(OpenRefusal::System(Errno::ENOENT)) => None,
        Err(refusal) => Some(refusal.into_error(dir, "open", name)),
    };
    files.into_iter().flatten().filter_map(problem).collect()
}

/// The directories that the running watcher serves; `None` if its lock does not name them, as in
/// earlier versions.
pub(crate) fn served(requests: &Dir) -> Option<Served> {
    let file = record::open(requests, WATCHER, OFlag::O_RDONLY).ok()?;
    Served::parse(&text_of(&file))
}

fn pid_in(file: &File) -> Option<u32> {
    let text = text_of(file);
    let (first, _) = text.split_at(text.iter().position(|byte| *byte == b'\n')?);
    std::str::from_utf8(first).ok()?.parse().ok()
}

fn text_of(file: &File) -> Vec<u8> {
    let mut text = Vec::new();
    // A file that cannot be read counts as empty.
    let _ = file.take(TEXT_BYTES_MAX).read_to_end(&mut text);
    text
}

/// The longest text of the lock, in bytes: two paths.
const TEXT_BYTES_MAX: u64 = 16 * 1024;

fn whole_file() -> libc::flock {
    sign::range(libc::F_WRLCK, 0, 0)
}

/// Whether this is the name of a lock's file in the directory of requests.
pub fn is_lock(file_name: &str) -> bool {
    matches!(file_name, WATCHER | RUNNING)
}

const WATCHER: &str = ".watcher.lock";
const RUNNING: &str = ".running.lock";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Pair, each_untrusted, mode, names, set_mode, write};
    use std::fs;
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
        assert!(text.starts_with(&format!("{}\nresponses ", std::process::id())), "{text}");
        assert_eq!(pair.client.watcher(), Liveness::Alive { pid: Some(std::process::id()) });
    }

    #[test]
    fn a_lock_file_that_is_not_ours_is_neither_used_nor_believed() {
        let pair = Pair::new();
        each_untrusted(&pair.request(WATCHER), |word| {
            let error = pair.watcher.lock().unwrap_err();
            assert!(error.to_string().contains(word), "{word}: {error}");
            assert_eq!(pair.client.watcher(), Liveness::Never, "{word}");
        });
        for path in [pair.request(RUNNING), pair.request(".claimed/.running.lock")] {
            each_untrusted(&path, |word| {
                assert!(!pair.watcher.running_lock().try_exclusive(), "{word}");
            });
        }
        each_untrusted(&pair.request(".claimed/.running.lock"), |word| {
            assert!(pair.watcher.running_lock().hold_shared().is_err(), "{word}");
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

    #[test]
    fn a_watcher_whose_lock_file_is_gone_or_another_one_still_lives_and_keeps_others_out() {
        let spoils: [fn(&std::path::Path); 4] = [
            |path| fs::remove_file(path).unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                write(path, b"1\n");
            },
            |path| fs::rename(path, path.with_extension("old")).unwrap(),
            |path| set_mode(path, 0o666),
        ];
        for spoil in spoils {
            let pair = Pair::new();
            let mut lock = pair.watcher.lock().unwrap();
            spoil(&pair.request(WATCHER));
            let left = names(&pair.places.requests);

            assert!(matches!(pair.client.watcher(), Liveness::Alive { .. }));
            let error = pair.watcher.lock().unwrap_err();
            assert!(matches!(error, LockError::Served { .. }), "{error}");
            assert_eq!(names(&pair.places.requests), left, "who is refused leaves nothing");

            // One that others can write to is not touched: it may be made right again.
            if pair.watcher.restore_lock(&mut lock).unwrap_or(false) {
                assert!(!pair.watcher.restore_lock(&mut lock).unwrap());
                let us = Some(std::process::id());
                assert_eq!(pair.client.watcher(), Liveness::Alive { pid: us });
                assert_eq!(mode(&pair.request(WATCHER)), 0o600);
            }
            drop(lock);
            assert!(!matches!(pair.client.watcher(), Liveness::Alive { .. }));
        }
    }

    #[test]
    fn a_watcher_that_knows_the_file_alone_is_found_by_one_that_restores_it() {
        let pair = Pair::new();
        let mut lock = pair.watcher.lock().unwrap();
        fs::remove_file(pair.request(WATCHER)).unwrap();
        let other = take_file(&pair.watcher.requests, &Served::default()).unwrap();

        let error = pair.watcher.restore_lock(&mut lock).unwrap_err();

        assert!(matches!(error, LockError::Held { pid: Some(_), .. }), "{error}");
        drop((lock, other));
        let earlier = take_file(&pair.watcher.requests, &Served::default()).unwrap();
        let error = pair.watcher.lock().unwrap_err();
        assert!(matches!(error, LockError::Held { .. }), "{error}");
        drop(earlier);
        assert!(pair.watcher.lock().is_ok());
    }

    #[test]
    fn children_are_waited_for_whichever_of_their_locks_names_is_gone() {
        let pair = Pair::new();
        let lock = pair.watcher.running_lock();
        assert!(lock.try_exclusive());
        let share = lock.hold_shared().unwrap();
        fs::write(lock.path(), "note").unwrap();
        for made_anew in [false, true] {
            fs::remove_file(pair.request(RUNNING)).unwrap();
            if made_anew {
                assert!(!lock.try_exclusive(), "an empty file of this name is not the lock");
            }
            assert!(lock.restore().unwrap());
            assert!(!lock.restore().unwrap());
            assert!(!lock.try_exclusive());
        }
        fs::remove_file(lock.path()).unwrap();
        assert!(!lock.restore().unwrap());
        assert!(!lock.try_exclusive());
        drop(share);
        assert!(lock.try_exclusive());
        assert_eq!(fs::read_to_string(pair.request(RUNNING)).unwrap(), "note");
    }

    #[test]
    fn of_two_locks_of_children_the_one_that_was_used_last_is_kept() {
        for (visible, hidden, kept) in [("", "new", "new"), ("old", "", "old"), ("b", "a", "b")] {
            let pair = Pair::new();
            write(&pair.request(RUNNING), visible.as_bytes());
            write(&pair.request(".claimed/.running.lock"), hidden.as_bytes());

            assert!(pair.watcher.running_lock().try_exclusive());

            for path in [pair.request(RUNNING), pair.watcher.running_lock().path()] {
                assert_eq!(fs::read_to_string(path).unwrap(), kept);
            }
        }
    }
}
