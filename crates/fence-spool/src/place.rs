//! Walking to a directory or a log file, safely.
//!
//! A call that touches a GFS2 file system while the cluster waits for a fence can hang for ever. A
//! user who can write to one of these places can forge a fence. So this module walks a path from
//! `/`, component by component. It asks for the file system's type of each component before it asks
//! for anything else, and checks owner and mode. It follows links itself, so that it checks their
//! targets in the same way.
//!
//! `dir` and `record` read and write the files in the directories.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{AccessFlags, faccessat, fsync, geteuid};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::error::cause;

/// Opens the directory `path` as a part of the spool. All parts of the path belong to root or to
/// us, nobody else can write there, and no part is on GFS2.
pub fn open_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: false, forbidden: GFS2 }.open()
}

/// Like [`open_dir`], but creates missing directories: parents with mode 0755, the last with 0700.
pub fn create_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: true, forbidden: GFS2 }.open()
}

/// Why [`create_dir`] would refuse `path`, or why no file could be created there. Creates nothing.
pub fn examine_dir(path: &Path) -> Result<(), PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: false, forbidden: GFS2 }.examine()
}

/// Why the directory of logs `path` could not be used, or not be created by [`create_dir`]. Creates
/// nothing.
pub fn examine_log_dir(path: &Path) -> Result<(), PlaceError> {
    let walk = Walk { wanted: path, use_as: Use::Log, create: false, forbidden: GFS2 };
    match walk.run() {
        Err(PlaceError::Missing { .. }) => examine_dir(path),
        Err(error) => Err(error),
        Ok(position) => may_write(&position),
    }
}

/// Why [`open_append`] would refuse the log `path`, in a directory that exists. Creates nothing.
pub fn examine_log(path: &Path) -> Result<(), PlaceError> {
    look_at_log(path, GFS2).map(drop)
}

/// Opens a directory of logs for reading, by the rules of [`open_append`].
pub fn open_log_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Log, create: false, forbidden: GFS2 }.open()
}

/// Opens the log file `path` for appending, and for reading if that is allowed. Creates a missing
/// file with mode 0640.
///
/// The group may be able to write to the directory, as to `/var/log` on some systems. So may
/// everyone if the directory is sticky, as `/tmp` is. The file must be a regular file of root's or
/// ours. Opening never blocks.
pub fn open_append(path: &Path) -> Result<File, PlaceError> {
    append(path, GFS2)
}

/// Refuses a file on GFS2. `found` was opened with `O_PATH`: nothing else has touched it yet.
pub fn refuse_gfs2(found: &OwnedFd, path: &Path) -> Result<(), PlaceError> {
    refuse(found, path, GFS2)
}

fn refuse(found: &OwnedFd, path: &Path, forbidden: FsType) -> Result<(), PlaceError> {
    let system = fstatfs(found).map_err(|errno| io("examine", path, errno))?;
    if system.filesystem_type() == forbidden {
        return Err(PlaceError::Gfs2 { path: path.to_owned() });
    }
    Ok(())
}

/// Why a place is not used.
#[derive(Debug)]
pub enum PlaceError {
    /// The given path does not start at `/`: its meaning would depend on the working directory.
    Relative(PathBuf),
    /// A part of the path does not exist.
    Missing {
        /// The first part that is missing.
        path: PathBuf,
        /// The directory that was wanted.
        wanted: PathBuf,
        /// It is a directory of the spool, which fence-watcher creates.
        is_of_spool: bool,
    },
    /// A part of the path is on a GFS2 file system.
    Gfs2 {
        /// The part at which the file system begins.
        path: PathBuf,
    },
    /// The given path leads through too many symbolic links, or in a circle.
    Links(PathBuf),
    /// This part of the path is not a directory.
    NotDirectory(PathBuf),
    /// This log is not a regular file with one name.
    NotRegular(PathBuf),
    /// A part of the path belongs neither to root nor to us.
    Owner {
        /// The part.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others can write to a part of the path.
    Writable {
        /// The part.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A system call failed.
    Io {
        /// The step, as a verb.
        operation: &'static str,
        /// The part.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Relative(path) => {
                write!(f, "'{}' is not absolute: give the path from '/' on", path.display())
            }
            PlaceError::Missing { path, is_of_spool: true, .. } => write!(
                f,
                "'{}' does not exist: start fence-watcher, which makes the directories that it \
                 serves; if it runs, it serves others: set request_dir and response_dir to the \
                 same directories in fence-watcher.toml and in the fence device",
                path.display(),
            ),
            PlaceError::Missing { path, wanted, is_of_spool: false } => write!(
                f,
                "'{}' does not exist: run `install -d -m 0750 '{}'`",
                path.display(),
                wanted.display()
            ),
            PlaceError::Gfs2 { path } => write!(
                f,
                "'{}' is on GFS2, which can block for ever while a node is being fenced: use a \
                 directory on a local file system",
                path.display()
            ),
            PlaceError::Links(path) => write!(
                f,
                "'{}' leads through more than {LINKS_MAX} symbolic links: give the real path",
                path.display()
            ),
            PlaceError::NotDirectory(path) => {
                write!(f, "'{}' is not a directory: remove it or give another path", path.display())
            }
            PlaceError::NotRegular(path) => write!(
                f,
                "'{}' is not a regular file with one name: remove it or give another path",
                path.display()
            ),
            PlaceError::Owner { path, uid } => write!(
                f,
                "'{0}' belongs to user {uid}, not to root: run `chown root: '{0}'`",
                path.display()
            ),
            PlaceError::Writable { path, mode } => write!(
                f,
                "others can write to '{0}' (mode {mode:04o}): run `chmod go-w '{0}'`",
                path.display()
            ),
            PlaceError::Io { operation, path, source } => {
                write!(f, "cannot {operation} '{}': {}", path.display(), cause(source))
            }
        }
    }
}

impl std::error::Error for PlaceError {}

/// Whether the files of the user `uid` are trusted: root, or our own user.
pub(crate) fn is_trusted_owner(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// The kind of file that `stat` describes.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// The permission bits that `stat` describes.
pub(crate) fn permissions(stat: &FileStat) -> u32 {
    stat.st_mode & 0o7777
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Spool,
    Log,
}

struct Walk<'a> {
    wanted: &'a Path,
    use_as: Use,
    create: bool,
    /// The type of file system that is refused. A test forbids a type that it can mount.
    forbidden: FsType,
}

/// The progress of a walk.
struct Position {
    /// The directory that the walk has reached, opened with `O_PATH`.
    at: OwnedFd,
    /// Its path, without links.
    path: PathBuf,
    /// The remaining components, the next one last.
    ahead: Vec<OsString>,
    links: usize,
}

impl Walk<'_> {
    fn open(&self) -> Result<OwnedFd, PlaceError> {
        let end = self.run()?;
        // "." of the checked directory, which nobody can have replaced since.
        openat(&end.at, ".", DIRECTORY, Mode::empty()).map_err(|errno| io("open", &end.path, errno))
    }

    /// Whether the directory can be used, or could be created if it is missing.
    fn examine(&self) -> Result<(), PlaceError> {
        let missing = match self.run() {
            Ok(position) => return may_write(&position),
            Err(PlaceError::Missing { path, .. }) => path,
            Err(error) => return Err(error),
        };
        let parent = missing.parent().unwrap_or(Path::new("/"));
        // The walk has reached the parent, so all parts before it are in order.
        may_write(&Walk { wanted: parent, use_as: Use::Log, ..*self }.run()?)
    }

    fn run(&self) -> Result<Position, PlaceError> {
        if !self.wanted.is_absolute() {
            return Err(PlaceError::Relative(self.wanted.to_owned()));
        }
        let mut position =
            Position { at: self.root()?, path: "/".into(), ahead: Vec::new(), links: 0 };
        position.push(self.wanted);
        while let Some(name) = position.ahead.pop() {
            self.step(&mut position, &name)?;
        }
        let stat = fstat(&position.at).map_err(|errno| io("examine", &position.path, errno))?;
        if self.use_as == Use::Spool && stat.st_mode & WRITABLE_BY_OTHERS != 0 {
            let mode = permissions(&stat);
            return Err(PlaceError::Writable { path: position.path, mode });
        }
        Ok(position)
    }

    fn root(&self) -> Result<OwnedFd, PlaceError> {
        let path = Path::new("/");
        let root = nix::fcntl::open(path, GLANCE, Mode::empty())
            .map_err(|errno| io("open", path, errno))?;
        refuse(&root, path, self.forbidden)?;
        self.check_directory(path, &fstat(&root).map_err(|errno| io("examine", path, errno))?)?;
        Ok(root)
    }

    fn step(&self, position: &mut Position, name: &OsStr) -> Result<(), PlaceError> {
        if name == "/" {
            position.at = self.root()?;
            position.path = "/".into();
            return Ok(());
        }
        let path = if name == ".." {
            position.path.parent().unwrap_or(Path::new("/")).to_owned()
        } else {
            position.path.join(name)
        };
        let last = position.ahead.is_empty();
        let found = match openat(&position.at, name, GLANCE, Mode::empty()) {
            Err(Errno::ENOENT) if self.create => make(&position.at, name, &path, last)?,
            Err(Errno::ENOENT) => {
                let wanted = self.wanted.to_owned();
                let is_of_spool = self.use_as == Use::Spool;
                return Err(PlaceError::Missing { path, wanted, is_of_spool });
            }
            other => other.map_err(|errno| io("open", &path, errno))?,
        };
        // The type comes first: on GFS2 even a stat can block.
        refuse(&found, &path, self.forbidden)?;
        let stat = fstat(&found).map_err(|errno| io("examine", &path, errno))?;
        match kind(&stat) {
            SFlag::S_IFLNK => self.follow(position, &found, path, &stat),
            SFlag::S_IFDIR => {
                self.check_directory(&path, &stat)?;
                position.at = found;
                position.path = path;
                Ok(())
            }
            _ => Err(PlaceError::NotDirectory(path)),
        }
    }

    fn follow(
        &self,
        position: &mut Position,
        link: &OwnedFd,
        path: PathBuf,
        stat: &FileStat,
    ) -> Result<(), PlaceError> {
        if !is_trusted_owner(stat.st_uid) {
            return Err(PlaceError::Owner { path, uid: stat.st_uid });
        }
        position.links += 1;
        if position.links > LINKS_MAX {
            return Err(PlaceError::Links(self.wanted.to_owned()));
        }
        let target = readlinkat(link, "").map_err(|errno| io("read the link", &path, errno))?;
        position.push(Path::new(&target));
        Ok(())
    }

    fn check_directory(&self, path: &Path, stat: &FileStat) -> Result<(), PlaceError> {
        if !is_trusted_owner(stat.st_uid) {
            return Err(PlaceError::Owner { path: path.to_owned(), uid: stat.st_uid });
        }
        let refused = match self.use_as {
            Use::Spool => WRITABLE_BY_OTHERS,
            Use::Log => libc::S_IWOTH,
        };
        // In a sticky directory others can add names, but cannot change ours. The walk checks the
        // owner of the next component.
        if stat.st_mode & refused != 0 && stat.st_mode & libc::S_ISVTX == 0 {
            return Err(PlaceError::Writable { path: path.to_owned(), mode: permissions(stat) });
        }
        Ok(())
    }
}

impl Position {
    fn push(&mut self, path: &Path) {
        self.ahead.extend(path.components().rev().map(|part| part.as_os_str().to_owned()));
    }
}

fn make(parent: &OwnedFd, name: &OsStr, path: &Path, last: bool) -> Result<OwnedFd, PlaceError> {
    let failed = |errno| io("make the directory", path, errno);
    let mode = Mode::from_bits_truncate(if last { 0o700 } else { 0o755 });
    match mkdirat(parent, name, mode) {
        // Another process was faster; the walk checks its directory like any other.
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno)),
        Ok(()) => {
            // The umask has reduced the mode that was given to mkdir. A spool that its owner cannot
            // use would be noticed only at the first fence.
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
            let parent = openat(parent, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
            fsync(&parent).map_err(failed)?;
        }
    }
    openat(parent, name, GLANCE, Mode::empty()).map_err(failed)
}

/// Whether this process may create files in the directory.
fn may_write(position: &Position) -> Result<(), PlaceError> {
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    faccessat(&position.at, ".", access, AtFlags::AT_EACCESS)
        .map_err(|errno| io("write to", &position.path, errno))
}

fn append(path: &Path, forbidden: FsType) -> Result<File, PlaceError> {
    let (directory, name) = look_at_log(path, forbidden)?;
    let flags = OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
    let flags = flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let open =
        |access| openat(&directory.at, name, flags | access, Mode::from_bits_truncate(0o640));
    // Also for reading, to see whether the last line is whole; a write-only log is enough.
    let log = match open(OFlag::O_RDWR) {
        Err(Errno::EACCES) => open(OFlag::O_WRONLY),
        other => other,
    };
    let log = log.map_err(|errno| io("open", path, errno))?;
    check_log(&log, path)?;
    Ok(File::from(log))
}

/// The directory of the log `path`, and the log's name there. Checks an existing log.
fn look_at_log(path: &Path, forbidden: FsType) -> Result<(Position, &OsStr), PlaceError> {
    if !path.is_absolute() {
        return Err(PlaceError::Relative(path.to_owned()));
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PlaceError::NotRegular(path.to_owned()));
    };
    let walk = Walk { wanted: parent, use_as: Use::Log, create: false, forbidden };
    let directory = walk.run()?;
    // Examined before it is opened: opening a device can already have an effect.
    match openat(&directory.at, name, GLANCE, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(io("open", path, errno)),
        Ok(found) => {
            refuse(&found, path, forbidden)?;
            check_log(&found, path)?;
        }
    }
    Ok((directory, name))
}

fn check_log(log: impl AsFd, path: &Path) -> Result<(), PlaceError> {
    let stat = fstat(log).map_err(|errno| io("examine", path, errno))?;
    let path = path.to_owned();
    if kind(&stat) != SFlag::S_IFREG || stat.st_nlink != 1 {
        return Err(PlaceError::NotRegular(path));
    }
    if !is_trusted_owner(stat.st_uid) {
        return Err(PlaceError::Owner { path, uid: stat.st_uid });
    }
    if stat.st_mode & libc::S_IWOTH != 0 {
        return Err(PlaceError::Writable { path, mode: permissions(&stat) });
    }
    Ok(())
}

fn io(operation: &'static str, path: &Path, errno: Errno) -> PlaceError {
    PlaceError::Io { operation, path: path.to_owned(), source: errno.into() }
}

/// `GFS2_MAGIC` of the kernel's `linux/gfs2_ondisk.h`.
const GFS2: FsType = FsType(0x0116_1970);

/// The number of links that the kernel itself follows.
const LINKS_MAX: usize = 40;

pub(crate) const WRITABLE_BY_OTHERS: libc::mode_t = libc::S_IWGRP | libc::S_IWOTH;

/// To examine a file without opening it.
const GLANCE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// To use a directory.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests;
