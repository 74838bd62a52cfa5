//! The errors of the spool's files. Each text names the path.

use nix::errno::Errno;
use nix::unistd::geteuid;
use std::path::PathBuf;
use std::{fmt, io};

use crate::PlaceError;

/// Why a step of the spool failed.
#[derive(Debug)]
pub enum SpoolError {
    /// A directory of the spool cannot be used.
    Place(PlaceError),
    /// The file system cannot rename a file without replacing another one.
    NoExclusiveRename(PathBuf),
    /// The running watcher serves another directory.
    ServedElsewhere {
        /// The setting that names the directory.
        setting: &'static str,
        /// Our directory.
        ours: PathBuf,
        /// The watcher's directory.
        served: PathBuf,
    },
    /// A system call failed.
    Io {
        /// The step, as a verb: "claim".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SpoolError {
    /// Whether the step failed because the system is short of descriptors or memory for a moment.
    /// The same step may succeed later.
    pub fn is_passing(&self) -> bool {
        let (SpoolError::Io { source, .. } | SpoolError::Place(PlaceError::Io { source, .. })) =
            self
        else {
            return false;
        };
        source.raw_os_error().is_some_and(|code| PASSING.contains(&Errno::from_raw(code)))
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpoolError::Place(error) => error.fmt(f),
            SpoolError::NoExclusiveRename(path) => write!(
                f,
                "'{}' is on a file system that cannot rename a file without replacing another one \
                 (RENAME_NOREPLACE), so one request could be executed twice: use a directory on \
                 tmpfs or on a local file system",
                path.display()
            ),
            SpoolError::ServedElsewhere { setting, ours, served } => write!(
                f,
                "the running fence-watcher answers in '{}', not in '{}': set {setting} to the same \
                 directory in fence-watcher.toml and in the fence device, and restart \
                 fence-watcher",
                served.display(),
                ours.display()
            ),
            SpoolError::Io { operation, path, source } => {
                write!(f, "cannot {operation} '{}': {}", path.display(), cause(source))
            }
        }
    }
}

impl std::error::Error for SpoolError {}

impl From<PlaceError> for SpoolError {
    fn from(error: PlaceError) -> Self {
        SpoolError::Place(error)
    }
}

/// Why this process did not get the watcher's lock.
#[derive(Debug)]
pub enum LockError {
    /// Another watcher serves this spool.
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The other watcher's process, if that watcher has already written it.
        pid: Option<u32>,
    },
    /// Another watcher serves this spool, and holds another file than this lock's file.
    Served {
        /// The directory of requests.
        path: PathBuf,
        /// The lock's file.
        lock: PathBuf,
    },
    /// The lock's file cannot be used.
    Spool(SpoolError),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { path, pid } => {
                let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
                write!(
                    f,
                    "another fence-watcher serves this spool: {who} holds '{}'; stop it first",
                    path.display()
                )
            }
            LockError::Served { path, lock } => write!(
                f,
                "another fence-watcher serves this spool, although '{}' was removed or replaced: \
                 find it with `fuser -v '{}'` and stop it first",
                lock.display(),
                path.display()
            ),
            LockError::Spool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

impl From<SpoolError> for LockError {
    fn from(error: SpoolError) -> Self {
        LockError::Spool(error)
    }
}

const PASSING: [Errno; 6] =
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS, Errno::EAGAIN, Errno::EINTR];

/// The system's words for `error`, without the number that the standard library appends. If another
/// user than root is not permitted, the words say so.
pub fn cause(error: &io::Error) -> String {
    let Some(code) = error.raw_os_error() else { return error.to_string() };
    let (errno, user) = (Errno::from_raw(code), geteuid());
    match errno {
        Errno::EACCES | Errno::EPERM if !user.is_root() => {
            format!("{} for user {user}: run as root (sudo)", errno.desc())
        }
        _ => errno.desc().to_owned(),
    }
}
