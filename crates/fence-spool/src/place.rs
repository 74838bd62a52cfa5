//! Walking to a directory or a log file, safely.
//!
//! One call that touches a GFS2 file system while a fence is awaited can hang for ever, and a place
//! that others can write to lets them forge a fence. So a path is walked component by component from
//! `/`, each one is asked for its file system's type before anything else is asked of it, and owner
//! and mode of each are checked. Links are followed here, not by the kernel, so that their targets
//! are checked in the same way.
//!
//! What lies in the directories is `dir`'s and `record`'s.

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

/// Opens the directory `path` for use as a part of the spool: it and the way to it belong to root or
/// to us, nobody else can write there, and no part of it lies on GFS2.
pub fn open_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: false, forbidden: GFS2 }.open()
}

/// Like [`open_dir`], but makes what is missing: parents with mode 0755, the last one with 0700.
pub fn create_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: true, forbidden: GFS2 }.open()
}

/// Why [`create_dir`] would refuse `path`, or why nothing could be put there. Makes nothing.
pub fn examine_dir(path: &Path) -> Result<(), PlaceError> {
    Walk { wanted: path, use_as: Use::Spool, create: false, forbidden: GFS2 }.examine()
}

/// Why the directory of logs `path` could not be used, or not be made as [`create_dir`] does. Makes nothing.
pub fn examine_log_dir(path: &Path) -> Result<(), PlaceError> {
    let walk = Walk { wanted: path, use_as: Use::Log, create: false, forbidden: GFS2 };
    match walk.run() {
        Err(PlaceError::Missing { .. }) => examine_dir(path),
        Err(error) => Err(error),
        Ok(position) => may_write(&position),
    }
}

/// Why [`open_append`] would refuse the log `path`, in a directory that is there. Makes nothing.
pub fn examine_log(path: &Path) -> Result<(), PlaceError> {
    look_at_log(path, GFS2).map(drop)
}

/// Opens a directory of logs for reading, by the rules of [`open_append`].
pub fn open_log_dir(path: &Path) -> Result<OwnedFd, PlaceError> {
    Walk { wanted: path, use_as: Use::Log, create: false, forbidden: GFS2 }.open()
}

/// Opens the log file `path` for appending, making it (mode 0640) if it is missing. It can be read as
/// well where that is allowed.
///
/// Its directory may be writable by its group, as `/var/log` is on some systems, or by everyone when
/// it is sticky, as `/tmp` is; the file itself must be a regular one of root's or ours. Opening never
/// blocks.
pub fn open_append(path: &Path) -> Result<File, PlaceError> {
    append(path, GFS2)
}

/// Refuses what lies on GFS2. `found` is opened with `O_PATH`: nothing else has touched it yet.
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
    /// The path does not start at `/`: what it means would depend on the working directory.
    Relative {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A part of the path does not exist.
    Missing {
        /// The first part that is missing.
        path: PathBuf,
        /// The directory that was wanted.
        wanted: PathBuf,
        /// It is one of the spool, which fence-watcher makes.
        is_of_spool: bool,
    },
    /// A part of the path lies on a GFS2 file system.
    Gfs2 {
        /// The part, where the file system begins.
        path: PathBuf,
    },
    /// The path leads through too many symbolic links, or round in a circle.
    Links {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A part of the path is no directory.
    NotDirectory {
        /// The part.
        path: PathBuf,
    },
    /// The log is no regular file with one name.
    NotRegular {
        /// The log.
        path: PathBuf,
    },
    /// A part of the path belongs to neither root nor us.
    Owner {
        /// The part.
        path: PathBuf,
        /// Whose it is.
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
        /// What was to be done, as a verb.
        operation: &'static str,
        /// With which part.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceError::Relative { path } => {
                write!(f, "'{}' is not absolute: give the path from '/' on", path.display())
            }
            PlaceError::Missing { path, is_of_spool: true, .. } => write!(
                f,
                "'{}' does not exist: start fence-watcher, which makes the directories that it serves; if \
                 it runs, it serves others: set request_dir and response_dir to the same directories in \
                 fence-watcher.toml and in the fence device",
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
            PlaceError::Links { path } => write!(
                f,
                "'{}' leads through more than {LINKS_MAX} symbolic links: give the real path",
                path.display()
            ),
            PlaceError::NotDirectory { path } => {
                write!(f, "'{}' is not a directory: remove it or give another path", path.display())
            }
            PlaceError::NotRegular { path } => write!(
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

impl std::error::Error for PlaceError {
    /// What lies below the cause that the text already names.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PlaceError::Io { source, .. } => source.source(),
            _ => None,
        }
    }
}

/// Whether `uid` is one whose files are trusted: root's, or our own.
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
    /// The type of file system that nothing is touched on. An argument, so that a test can forbid
    /// one that it can mount.
    forbidden: FsType,
}

/// How far a walk has come.
struct Position {
    /// The directory reached, opened with `O_PATH`.
    at: OwnedFd,
    /// Its path, without links.
    path: PathBuf,
    /// The components that are left, the next one last.
    ahead: Vec<OsString>,
    links: usize,
}

impl Walk<'_> {
    fn open(&self) -> Result<OwnedFd, PlaceError> {
        let end = self.run()?;
        // "." of what was checked, so that nothing can have been put in its place since.
        openat(&end.at, ".", DIRECTORY, Mode::empty()).map_err(|errno| io("open", &end.path, errno))
    }

    /// Whether the directory can be used, or could be made where it is missing.
    fn examine(&self) -> Result<(), PlaceError> {
        let missing = match self.run() {
            Ok(position) => return may_write(&position),
            Err(PlaceError::Missing { path, .. }) => path,
            Err(error) => return Err(error),
        };
        let parent = missing.parent().unwrap_or(Path::new("/"));
        // The walk has come as far as this, so the way there is in order.
        may_write(&Walk { wanted: parent, use_as: Use::Log, ..*self }.run()?)
    }

    fn run(&self) -> Result<Position, PlaceError> {
        if !self.wanted.is_absolute() {
            return Err(PlaceError::Relative { path: self.wanted.to_owned() });
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
        self.refuse_forbidden(&root, path)?;
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
        self.refuse_forbidden(&found, &path)?;
        let stat = fstat(&found).map_err(|errno| io("examine", &path, errno))?;
        match kind(&stat) {
            SFlag::S_IFLNK => self.follow(position, &found, path, &stat),
            SFlag::S_IFDIR => {
                self.check_directory(&path, &stat)?;
                position.at = found;
                position.path = path;
                Ok(())
            }
            _ => Err(PlaceError::NotDirectory { path }),
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
            return Err(PlaceError::Links { path: self.wanted.to_owned() });
        }
        let target = readlinkat(link, "").map_err(|errno| io("read the link", &path, errno))?;
        position.push(Path::new(&target));
        Ok(())
    }

    fn refuse_forbidden(&self, found: &OwnedFd, path: &Path) -> Result<(), PlaceError> {
        refuse(found, path, self.forbidden)
    }

    fn check_directory(&self, path: &Path, stat: &FileStat) -> Result<(), PlaceError> {
        if !is_trusted_owner(stat.st_uid) {
            return Err(PlaceError::Owner { path: path.to_owned(), uid: stat.st_uid });
        }
        let refused = match self.use_as {
            Use::Spool => WRITABLE_BY_OTHERS,
            Use::Log => libc::S_IWOTH,
        };
        // In a sticky directory others can add names but not change ours, and the owner of the next
        // component is checked.
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
        // Somebody else was first; it is checked like any other.
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed(errno)),
        Ok(()) => {
            // The mode given to mkdir was cut by the umask, and a spool that its owner cannot use
            // would be found out at the first fence.
            fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
            let parent = openat(parent, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
            fsync(&parent).map_err(failed)?;
        }
    }
    openat(parent, name, GLANCE, Mode::empty()).map_err(failed)
}

/// Whether this process may put something into the directory.
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
    // Read as well, to see whether the last line is whole; a log that may only be written will do.
    let log = match open(OFlag::O_RDWR) {
        Err(Errno::EACCES) => open(OFlag::O_WRONLY),
        other => other,
    };
    let log = log.map_err(|errno| io("open", path, errno))?;
    check_log(&log, path)?;
    Ok(File::from(log))
}

/// The directory of the log `path` and the log's name there. What lies there already is checked.
fn look_at_log(path: &Path, forbidden: FsType) -> Result<(Position, &OsStr), PlaceError> {
    if !path.is_absolute() {
        return Err(PlaceError::Relative { path: path.to_owned() });
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PlaceError::NotRegular { path: path.to_owned() });
    };
    let walk = Walk { wanted: parent, use_as: Use::Log, create: false, forbidden };
    let directory = walk.run()?;
    // Looked at before it is opened: opening a device can already have an effect.
    match openat(&directory.at, name, GLANCE, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(io("open", path, errno)),
        Ok(found) => {
            walk.refuse_forbidden(&found, path)?;
            check_log(&found, path)?;
        }
    }
    Ok((directory, name))
}

fn check_log(log: impl AsFd, path: &Path) -> Result<(), PlaceError> {
    let path = path.to_owned();
    let stat = match fstat(log) {
        Ok(stat) => stat,
        Err(errno) => return Err(io("examine", &path, errno)),
    };
    if kind(&stat) != SFlag::S_IFREG || stat.st_nlink != 1 {
        return Err(PlaceError::NotRegular { path });
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

/// As many links as the kernel itself would follow.
const LINKS_MAX: usize = 40;

const WRITABLE_BY_OTHERS: libc::mode_t = libc::S_IWGRP | libc::S_IWOTH;

/// To look at something without opening it.
const GLANCE: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// To use a directory.
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scratch, give_away, mode, set_mode, write};
    use nix::sys::statfs::PROC_SUPER_MAGIC;
    use nix::unistd::mkfifo;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn walk(wanted: &Path, create: bool, forbidden: FsType) -> Result<OwnedFd, PlaceError> {
        Walk { wanted, use_as: Use::Spool, create, forbidden }.open()
    }

    #[test]
    fn a_directory_is_reached_through_links_and_steps_up() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.join("real/requests")).unwrap();
        set_mode(&scratch.join("real"), 0o755);
        set_mode(&scratch.join("real/requests"), 0o700);
        symlink(scratch.join("real"), scratch.join("absolute")).unwrap();
        symlink("../real/./requests/", scratch.join("real/relative")).unwrap();
        let wanted = fs::metadata(scratch.join("real/requests")).unwrap().ino();

        for path in
            ["real/requests", "absolute/requests", "absolute/relative", "real/../real/requests/"]
        {
            let directory = File::from(open_dir(&scratch.join(path)).unwrap());
            assert_eq!(directory.metadata().unwrap().ino(), wanted, "{path}");
        }
    }

    #[test]
    fn an_examination_refuses_what_a_walk_refuses_and_makes_nothing() {
        let scratch = Scratch::new();
        assert!(examine_dir(&scratch.join("a/b")).is_ok());
        assert!(!scratch.join("a").exists());
        fs::create_dir(scratch.join("open")).unwrap();
        set_mode(&scratch.join("open"), 0o777);
        write(&scratch.join("file"), b"");
        for path in ["open", "open/below", "file", "file/below"] {
            let path = scratch.join(path);
            for examine in [examine_dir, examine_log_dir] {
                let error = examine(&path).unwrap_err().to_string();
                assert_eq!(error, create_dir(&path).unwrap_err().to_string());
            }
        }
        // The group of a directory of logs may be trusted, as in /var/log.
        set_mode(&scratch.join("open"), 0o770);
        assert!(examine_log_dir(&scratch.join("open")).is_ok());
        assert!(examine_dir(&scratch.join("open")).is_err());

        let walk =
            |wanted, use_as| Walk { wanted, use_as, create: false, forbidden: PROC_SUPER_MAGIC };
        for path in ["/proc", "/proc/no-such-directory"] {
            for use_as in [Use::Spool, Use::Log] {
                let error = walk(Path::new(path), use_as).examine().unwrap_err();
                assert!(matches!(error, PlaceError::Gfs2 { .. }), "{error}");
            }
        }
    }

    #[test]
    fn an_examination_finds_a_directory_in_which_nothing_can_be_made() {
        let scratch = Scratch::new();
        set_mode(&scratch.join(""), 0o500);
        // Root may write there all the same, so root needs a file system that is mounted for reading.
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mut read_only = mounts.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, options) = (words.next()?, words.nth(1)?);
            let is_read_only = options.split(',').any(|option| option == "ro");
            (is_read_only && open_log_dir(Path::new(path)).is_ok()).then(|| PathBuf::from(path))
        });
        let place = if geteuid().is_root() { read_only.next() } else { Some(scratch.join("")) };
        let Some(place) = place else { return };

        for path in [place.clone(), place.join("no-such-directory/below")] {
            let error = examine_dir(&path).unwrap_err();
            let expected = format!("cannot write to '{}", place.display());
            assert!(error.to_string().starts_with(expected.trim_end_matches('/')), "{error}");
        }
        set_mode(&scratch.join(""), 0o700);
    }

    #[test]
    fn a_log_that_cannot_be_appended_to_is_found_without_making_one() {
        let scratch = Scratch::new();
        assert!(examine_log(&scratch.join("log")).is_ok());
        assert!(!scratch.join("log").exists());
        mkfifo(&scratch.join("fifo"), Mode::S_IRWXU).unwrap();
        write(&scratch.join("open"), b"");
        set_mode(&scratch.join("open"), 0o666);
        for name in ["fifo", "open"] {
            let path = scratch.join(name);
            let error = examine_log(&path).unwrap_err().to_string();
            assert_eq!(error, open_append(&path).unwrap_err().to_string());
        }
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        let scratch = Scratch::new();
        symlink("b", scratch.join("a")).unwrap();
        symlink("a", scratch.join("b")).unwrap();

        let error = open_dir(&scratch.join("a")).unwrap_err();

        assert!(matches!(error, PlaceError::Links { .. }), "{error}");
    }

    #[test]
    fn a_path_that_depends_on_the_working_directory_is_refused() {
        for path in ["", "spool", "./spool", "../spool"] {
            let error = open_dir(Path::new(path)).unwrap_err();
            assert!(matches!(error, PlaceError::Relative { .. }), "{path}: {error}");
            let error = open_append(Path::new(path)).unwrap_err();
            assert!(error.to_string().starts_with(&format!("'{path}' is not absolute")), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_together_with_the_mend() {
        let scratch = Scratch::new();
        let wanted = scratch.join("fencing/requests");

        let text = open_dir(&wanted).unwrap_err().to_string();

        let missing = scratch.join("fencing");
        assert!(text.starts_with(&format!("'{}' does not exist", missing.display())), "{text}");
        // A watcher that runs may serve another directory: to start one helps nobody then.
        assert!(text.contains("start fence-watcher") && text.contains("if it runs"), "{text}");

        let text = open_log_dir(&wanted).unwrap_err().to_string();
        assert!(
            text.ends_with(&format!("run `install -d -m 0750 '{}'`", wanted.display())),
            "{text}"
        );
        let text = open_append(&wanted.join("x.log")).unwrap_err().to_string();
        assert!(
            text.ends_with(&format!("run `install -d -m 0750 '{}'`", wanted.display())),
            "{text}"
        );
        assert!(!missing.exists());
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_refused() {
        let scratch = Scratch::new();
        write(&scratch.join("file"), b"");
        mkfifo(&scratch.join("fifo"), Mode::S_IRWXU).unwrap();

        for path in ["file", "file/below", "fifo", "fifo/below"] {
            let error = open_dir(&scratch.join(path)).unwrap_err();
            assert!(matches!(error, PlaceError::NotDirectory { .. }), "{path}: {error}");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_wherever_it_stands() {
        let scratch = Scratch::new();
        let (above, last) = (scratch.join("above"), scratch.join("above/last"));
        fs::create_dir_all(&last).unwrap();
        let refused = |path: &Path| {
            let error = open_dir(&last).unwrap_err();
            assert!(matches!(&error, PlaceError::Writable { path: p, .. } if p == path), "{error}");
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        };
        for mode in [0o770, 0o702, 0o777] {
            set_mode(&above, 0o700);
            set_mode(&last, mode);
            refused(&last);
            set_mode(&last, 0o700);
            set_mode(&above, mode);
            refused(&above);
        }
        // In a sticky directory nobody can replace what is ours; but the last one holds the records.
        set_mode(&above, 0o1777);
        assert!(open_dir(&last).is_ok());
        set_mode(&last, 0o1777);
        refused(&last);
    }

    #[test]
    fn a_directory_or_link_of_another_user_is_refused() {
        let scratch = Scratch::new();
        let (above, last) = (scratch.join("above"), scratch.join("above/last"));
        let link = scratch.join("link");
        fs::create_dir_all(&last).unwrap();
        set_mode(&last, 0o700);
        symlink(&last, &link).unwrap();
        let refused = |wanted: &Path, path: &Path| {
            let error = open_dir(wanted).unwrap_err();
            assert!(matches!(&error, PlaceError::Owner { path: p, .. } if p == path), "{error}");
            assert!(error.to_string().contains("chown root: '"), "{error}");
        };
        if !give_away(&link) {
            return;
        }
        refused(&link, &link);
        give_away(&last);
        refused(&last, &last);
        give_away(&above);
        refused(&last, &above);
    }

    #[test]
    fn nothing_below_a_forbidden_file_system_is_touched() {
        let scratch = Scratch::new();
        symlink("/proc/self", scratch.join("link")).unwrap();

        // What does not exist below would be reported as missing, had anybody looked.
        for path in ["/proc", "/proc/no-such-thing", "/proc/self/cwd/x"]
            .map(PathBuf::from)
            .into_iter()
            .chain([scratch.join("link"), scratch.join("link/no-such-thing")])
        {
            for create in [false, true] {
                let error = walk(&path, create, PROC_SUPER_MAGIC).unwrap_err();
                let PlaceError::Gfs2 { path: named } = &error else { panic!("{error}") };
                assert_eq!(named, Path::new("/proc"), "{error}");
            }
            let log = path.join("log");
            assert!(matches!(append(&log, PROC_SUPER_MAGIC), Err(PlaceError::Gfs2 { .. })));
        }
        assert!(walk(Path::new("/"), false, PROC_SUPER_MAGIC).is_ok());
        // The log itself can be another file system's, too.
        let log = append(Path::new("/proc"), PROC_SUPER_MAGIC);
        assert!(matches!(log, Err(PlaceError::Gfs2 { .. })));
    }

    #[test]
    fn on_a_forbidden_file_system_no_directory_is_made() {
        let scratch = Scratch::new();
        let wanted = scratch.join("new/requests");
        let here = fstatfs(File::open(scratch.join(".")).unwrap()).unwrap().filesystem_type();

        let error = walk(&wanted, true, here).unwrap_err();

        assert!(matches!(error, PlaceError::Gfs2 { .. }), "{error}");
        assert!(!scratch.join("new").exists());
        assert!(append(&scratch.join("log"), here).is_err());
        assert!(!scratch.join("log").exists());
    }

    #[test]
    fn gfs2_is_known_by_its_number_and_the_error_says_what_to_do() {
        assert_eq!(GFS2, FsType(18_225_520));
        let text = PlaceError::Gfs2 { path: "/mnt/shared".into() }.to_string();
        assert!(text.starts_with("'/mnt/shared' is on GFS2"), "{text}");
        assert!(text.ends_with("use a directory on a local file system"), "{text}");
    }

    #[test]
    fn missing_directories_are_made_with_their_modes_whatever_the_umask() {
        // The umask belongs to the whole process, so this test runs again in one of its own.
        if std::env::var_os("FENCE_SPOOL_UMASK").is_none() {
            let script = "umask 0777 && exec \"$0\" --exact \"$1\"";
            let test =
                "place::tests::missing_directories_are_made_with_their_modes_whatever_the_umask";
            let status = std::process::Command::new("sh")
                .args(["-c", script])
                .arg(std::env::current_exe().unwrap())
                .arg(test)
                .env("FENCE_SPOOL_UMASK", "0777")
                .status();
            assert!(status.unwrap().success());
            return;
        }
        let scratch = Scratch::new();
        let path = scratch.join("a/b/requests");

        create_dir(&path).unwrap();

        assert_eq!(mode(&scratch.join("a")), 0o755);
        assert_eq!(mode(&scratch.join("a/b")), 0o755);
        assert_eq!(mode(&path), 0o700);
        set_mode(&path, 0o750);
        create_dir(&path).unwrap();
        assert_eq!(mode(&path), 0o750, "what is there keeps the mode that its owner gave it");
        let file = crate::dir::Dir::open(&path).unwrap().write_new("record", b"x").unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_log_is_made_once_and_then_appended_to() {
        let scratch = Scratch::new();
        let path = scratch.join("events.log");

        open_append(&path).unwrap().write_all(b"one\n").unwrap();
        open_append(&path).unwrap().write_all(b"two\n").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(mode(&path) & !0o640, 0);
    }

    #[test]
    fn a_log_directory_may_be_open_to_its_group_or_sticky() {
        let scratch = Scratch::new();
        let (directory, path) = (scratch.join("log"), scratch.join("log/events.log"));
        fs::create_dir(&directory).unwrap();

        for mode in [0o700, 0o750, 0o775, 0o1777] {
            set_mode(&directory, mode);
            assert!(open_append(&path).is_ok(), "{mode:o}");
            assert!(open_log_dir(&directory).is_ok(), "{mode:o}");
        }
        set_mode(&directory, 0o777);
        assert!(matches!(open_log_dir(&directory), Err(PlaceError::Writable { .. })));
        assert!(matches!(open_append(&path), Err(PlaceError::Writable { .. })));
    }

    #[test]
    fn what_is_no_log_of_ours_is_refused_and_never_blocks() {
        let scratch = Scratch::new();
        let path = scratch.join("events.log");
        let refused = || {
            let error = open_append(&path).unwrap_err();
            assert!(matches!(error, PlaceError::NotRegular { .. }), "{error}");
            fs::remove_file(&path).unwrap();
        };
        write(&scratch.join("precious"), b"precious");
        symlink(scratch.join("precious"), &path).unwrap();
        refused();
        fs::hard_link(scratch.join("precious"), &path).unwrap();
        refused();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        refused();
        assert_eq!(fs::read(scratch.join("precious")).unwrap(), b"precious");
        write(&path, b"");
        set_mode(&path, 0o666);
        assert!(matches!(open_append(&path), Err(PlaceError::Writable { .. })));
        set_mode(&path, 0o640);
        if give_away(&path) {
            assert!(matches!(open_append(&path), Err(PlaceError::Owner { .. })));
        }
        assert!(matches!(open_append(Path::new("/")), Err(PlaceError::NotRegular { .. })));
        assert!(matches!(open_append(Path::new("log")), Err(PlaceError::Relative { .. })));
    }
}
