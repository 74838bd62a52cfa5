//! The configuration file and the programs it names: whether they may be believed.
//!
//! Whoever can write to one of them can have anything run as root, so only root and the watcher's own
//! user may be able to. The way to each is walked by `fence-spool`, so that a path on GFS2, where
//! looking alone can hang, is refused before it is touched.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fence_spool::PlaceError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::ConfigError;

/// The text of the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let refused = |why: &str| ConfigError::Refused(path.to_owned(), why.to_owned());
    let unreadable = |error| ConfigError::Unreadable(path.to_owned(), error);
    let found =
        find(&std::path::absolute(path).map_err(unreadable)?).map_err(|error| match error {
            Fault::Missing => ConfigError::Missing(path.to_owned()),
            Fault::Refused(why) => refused(&why),
        })?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(&found.directory, &*found.name, flags, Mode::empty())
        .map_err(|errno| unreadable(errno.into()))?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(&format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8 text"))
}

/// Whether `program` is there and can be executed; the error says what is wrong.
pub(super) fn check_program(program: &Path) -> Result<(), String> {
    let shown = program.display();
    match find(program) {
        Ok(found) if found.facts.st_mode & 0o111 != 0 => Ok(()),
        Ok(_) => Err(format!("program '{shown}' is not executable: run `chmod +x '{shown}'`")),
        Err(Fault::Missing) => Err(format!("there is no program '{shown}'")),
        Err(Fault::Refused(why)) => Err(format!("program '{shown}' is refused: {why}")),
    }
}

/// A regular file that nobody but root and we can change.
struct Found {
    directory: OwnedFd,
    name: OsString,
    facts: FileStat,
}

enum Fault {
    Missing,
    Refused(String),
}

fn find(path: &Path) -> Result<Found, Fault> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Fault::Refused("it is not a file".into()));
        };
        let directory = fence_spool::open_dir(parent).map_err(|error| match error {
            PlaceError::Missing { .. } => Fault::Missing,
            error => Fault::Refused(error.to_string()),
        })?;
        let glance = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let entry = openat(&directory, name, glance, Mode::empty()).map_err(fault)?;
        fence_spool::refuse_gfs2(&entry, &path)
            .map_err(|error| Fault::Refused(error.to_string()))?;
        let facts = fstat(&entry).map_err(fault)?;
        if SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            let name = name.to_owned();
            return check(&path, &facts).map(|()| Found { directory, name, facts });
        }
        path = parent.join(PathBuf::from(readlinkat(&entry, "").map_err(fault)?));
    }
    Err(Fault::Refused("it leads through too many symbolic links".into()))
}

fn check(path: &Path, facts: &FileStat) -> Result<(), Fault> {
    let shown = path.display();
    if SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Fault::Refused("it is not a regular file".into()));
    }
    if facts.st_uid != 0 && facts.st_uid != geteuid().as_raw() {
        let why = format!("it belongs to user {}: run `chown root: '{shown}'`", facts.st_uid);
        return Err(Fault::Refused(why));
    }
    if facts.st_mode & 0o022 != 0 {
        let why = format!("others can write to it: run `chmod go-w '{shown}'`");
        return Err(Fault::Refused(why));
    }
    Ok(())
}

fn fault(errno: Errno) -> Fault {
    match errno {
        Errno::ENOENT => Fault::Missing,
        errno => Fault::Refused(io::Error::from(errno).to_string()),
    }
}

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const LINKS_MAX: usize = 8;
