//! Trusted files: the configuration, and the programs and secrets that it names.
//!
//! A user who can change one of these files can run any program as root. So only root and our own
//! user may be able to change them. The walk to each file is the walk to the spool: it refuses a
//! path on GFS2, where even a look can hang, before it touches the path.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::error::cause;
use crate::place::{PlaceError, is_trusted_owner, kind, open_dir, permissions, refuse_gfs2};

/// A regular file that only root and our own user can change.
#[derive(Debug)]
pub struct TrustedFile {
    directory: OwnedFd,
    path: PathBuf,
    name: OsString,
    mode: u32,
    writers: Writers,
}

/// Who may change a file, beside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    Nobody,
    RootsGroup,
}

/// Why a file is not used, and what to do if that is known.
#[derive(Debug)]
pub enum FileError {
    /// It does not exist.
    Missing,
    /// It is not trusted, for this reason.
    Refused(String),
    /// It cannot be read.
    Unreadable(io::Error),
}

impl TrustedFile {
    /// Finds the file at the absolute path `path`, through symbolic links, without opening it.
    pub fn find(path: &Path) -> Result<Self, FileError> {
        TrustedFile::find_for(path, Writers::Nobody)
    }

    /// The same for a file that gives information only: root's group may be able to change it as
    /// well, as with a umask of 002.
    pub fn find_information(path: &Path) -> Result<Self, FileError> {
        TrustedFile::find_for(path, Writers::RootsGroup)
    }

    fn find_for(path: &Path, writers: Writers) -> Result<Self, FileError> {
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(FileError::Refused("it is not a file".into()));
            };
            let directory = open_dir(parent).map_err(|error| match error {
                PlaceError::Missing { .. } => FileError::Missing,
                error => FileError::Refused(error.to_string()),
            })?;
            let glance = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let entry = openat(&directory, name, glance, Mode::empty()).map_err(failed)?;
            refuse_gfs2(&entry, &path).map_err(|error| FileError::Refused(error.to_string()))?;
            let facts = fstat(&entry).map_err(failed)?;
            if kind(&facts) != SFlag::S_IFLNK {
                check(&path, &facts, writers)?;
                let (name, mode) = (name.to_owned(), permissions(&facts));
                return Ok(TrustedFile { directory, path, name, mode, writers });
            }
            path = parent.join(PathBuf::from(readlinkat(&entry, "").map_err(failed)?));
        }
        Err(FileError::Refused("it leads through too many symbolic links".into()))
    }

    /// Whether any user may execute it.
    pub fn is_executable(&self) -> bool {
        self.mode & 0o111 != 0
    }

    /// Whether another user than its owner may read it.
    pub fn is_readable_by_others(&self) -> bool {
        self.mode & 0o044 != 0
    }

    /// Its content, if that has at most `bytes_max` bytes. Never blocks.
    pub fn read(&self, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, &*self.name, flags, Mode::empty())
            .map_err(|errno| FileError::Unreadable(errno.into()))?;
        // The name may be another file's by now.
        check(&self.path, &fstat(&file).map_err(failed)?, self.writers)?;
        let mut bytes = Vec::new();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        File::from(file).take(most).read_to_end(&mut bytes).map_err(FileError::Unreadable)?;
        if bytes.len() > bytes_max {
            return Err(FileError::Refused(format!("it has more than {bytes_max} bytes")));
        }
        Ok(bytes)
    }
}

/// Why the program at `path` cannot be run as root; `None` if it can.
pub fn program_problem(path: &Path) -> Option<String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Some(format!("the program '{shown}' is not an absolute path"));
    }
    match TrustedFile::find(path) {
        Ok(file) if file.is_executable() => None,
        Ok(_) => Some(format!("program '{shown}' is not executable: run `chmod +x '{shown}'`")),
        Err(FileError::Missing) => Some(format!("there is no program '{shown}'")),
        Err(FileError::Refused(why)) => Some(format!("program '{shown}' is refused: {why}")),
        Err(FileError::Unreadable(error)) => Some(format!("program '{shown}': {}", cause(&error))),
    }
}

fn check(path: &Path, facts: &FileStat, writers: Writers) -> Result<(), FileError> {
    let shown = path.display();
    if kind(facts) != SFlag::S_IFREG {
        return Err(FileError::Refused("it is not a regular file".into()));
    }
    if !is_trusted_owner(facts.st_uid) {
        let why = format!("it belongs to user {}: run `chown root: '{shown}'`", facts.st_uid);
        return Err(FileError::Refused(why));
    }
    let forbidden = match writers {
        Writers::RootsGroup if facts.st_gid == 0 => 0o002,
        Writers::RootsGroup | Writers::Nobody => 0o022,
    };
    if permissions(facts) & forbidden != 0 {
        let why = format!("others can write to it: run `chmod go-w '{shown}'`");
        return Err(FileError::Refused(why));
    }
    Ok(())
}

fn failed(errno: Errno) -> FileError {
    match errno {
        Errno::ENOENT => FileError::Missing,
        errno => FileError::Refused(cause(&errno.into())),
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::Missing => f.write_str("it does not exist"),
            FileError::Refused(why) => f.write_str(why),
            FileError::Unreadable(error) => write!(f, "it cannot be read: {}", cause(error)),
        }
    }
}

impl std::error::Error for FileError {}

const LINKS_MAX: usize = 8;
